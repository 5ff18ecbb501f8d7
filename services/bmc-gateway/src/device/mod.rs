//! One owner task per BMC: all traffic to a BMC goes through it.

mod console;
mod mailbox;
mod registries;
mod registry;
mod secrets;
mod ssh;
mod task;

pub use console::{Attached, ConsoleError, Consoles, Place};
pub use registries::Registries;
pub use registry::{Credential, Devices, Settings};
pub use task::{Device, DeviceError};
