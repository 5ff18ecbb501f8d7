use serde::Deserialize;

pub use crate::app::Settings;

/// Configuration of the maintenance service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub server: ironyard_rpc::server::Config,
    /// Where it keeps its records.
    pub database: ironyard_db::Config,
    /// The services that it calls.
    pub peers: ironyard_peers::Config,
    /// What the site wants.
    #[serde(default)]
    pub maintenance: Settings,
    /// Logs, traces.
    #[serde(default)]
    pub telemetry: ironyard_rpc::telemetry::Config,
}
