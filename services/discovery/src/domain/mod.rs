//! Pure: endpoints, discovery runs, agent runs.

pub mod agent_run;
pub mod discovery_run;
pub mod endpoint;
pub mod same_machine;
