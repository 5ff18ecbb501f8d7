//! The in-band agent: looks at a machine from inside, marks, wipes and verifies its drives, all for the holder of a one-time token.
//!
//! A library, so that simulated machines run the same code over simulated hardware.

mod agent;
mod dmi;
pub mod linux;
mod sampling;

use std::sync::Arc;

pub use agent::{Outcome, run};
use ironyard_types::hardware::Hardware;

/// Bytes in a block, the unit of sampling.
pub const BLOCK: usize = 512;

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
    /// Reads one block from the drive itself, not from a cache.
    fn read(&self, serial: &str, block: u64) -> Result<[u8; BLOCK], Problem>;
    /// Writes one block through to the drive.
    fn write(&self, serial: &str, block: u64, bytes: &[u8; BLOCK]) -> Result<(), Problem>;
    /// Overwrites every block with zeros.
    fn overwrite(&self, serial: &str) -> Result<(), Problem>;
    /// Switches the machine off.
    fn power_off(&self);
}

/// A machine that the agent can share with blocking tasks.
pub type Shared = Arc<dyn Machine>;
