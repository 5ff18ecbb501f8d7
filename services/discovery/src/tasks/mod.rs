//! Reconcilers.

pub mod agent_runs;
pub mod bmcs;
mod duplicates;
pub mod endpoints;
mod hardware;
mod running_machines;
pub mod servers;

use ironyard_peers::TaskError as Error;
