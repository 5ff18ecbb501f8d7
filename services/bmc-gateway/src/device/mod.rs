//! One owner task per BMC: all traffic to a BMC goes through it.

mod registry;
mod task;

pub use registry::{Devices, Settings};
pub use task::{Device, DeviceError};
