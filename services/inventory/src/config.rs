use serde::Deserialize;

/// Configuration of the inventory service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub server: ironyard_rpc::server::Config,
    /// Where it keeps its records.
    pub database: ironyard_db::Config,
    /// Logs, traces.
    #[serde(default)]
    pub telemetry: ironyard_rpc::telemetry::Config,
}
