//! Reconcilers.

pub mod agent_runs;
pub mod bmcs;
pub mod endpoints;
pub mod servers;

use ironyard_peers::TaskError as Error;
