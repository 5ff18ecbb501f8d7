//! The in-band agent: looks at a machine from inside, marks, wipes and verifies its drives, all for the holder of a one-time token.
//!
//! A library, so that simulated machines run the same code over simulated hardware.

/// A line for whoever looks at the console. Many machines have none that can be written to: that is no reason to end.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod agent;
mod dmi;
mod erase;
pub mod init;
pub mod linux;
mod sampling;
mod sysfs;

use std::sync::Arc;

pub use agent::{Outcome, channel, run};
use ironyard_types::{EraseCommand, hardware::Hardware};

pub use ironyard_types::sampling::BLOCK;

/// The bytes of one.
pub type Block = [u8; BLOCK];

/// A problem with one drive or machine, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

/// The machine that the agent runs on. Calls may block.
pub trait Machine: Send + Sync + 'static {
    /// Everything that can be seen from inside.
    fn hardware(&self) -> Hardware;
    /// Blocks of a drive.
    fn blocks(&self, serial: &str) -> Result<u64, Problem>;
    /// Reads blocks from the drive itself, not from a cache.
    fn read(&self, serial: &str, blocks: &[u64]) -> Result<Vec<Block>, Problem>;
    /// Writes blocks through to the drive.
    fn write(&self, serial: &str, blocks: &[(u64, Block)]) -> Result<(), Problem>;
    /// Erases all of a drive with this, and waits until it is over.
    fn erase(&self, serial: &str, command: EraseCommand) -> Result<(), Problem>;
    /// Switches the machine off.
    fn power_off(&self);
}

/// A machine that the agent can share with blocking tasks.
pub type Shared = Arc<dyn Machine>;
