//! One owner task per BMC: all traffic to a BMC goes through it.

mod certificates;
mod console;
mod error;
mod mailbox;
mod registries;
mod registry;
mod secrets;
mod ssh;
mod target;
mod task;
mod writes;

pub use console::{Attached, ConsoleError, Consoles, Place};
pub use error::DeviceError;
pub use registries::Registries;
pub use registry::{Credential, Devices, Settings};
pub use task::Device;
