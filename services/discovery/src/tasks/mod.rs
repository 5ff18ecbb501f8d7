//! Reconcilers.

pub mod agent_runs;
pub mod bmcs;
pub mod endpoints;
mod hardware;
mod running_machines;
pub mod servers;

use ironyard_peers::TaskError as Error;
