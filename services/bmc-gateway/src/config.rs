use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use ironyard_redfish::Limits;
use serde::Deserialize;

use crate::{domain::bmc::TlsTrust, tasks::operations::Patience};

/// Configuration of the gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub server: ironyard_rpc::server::Config,
    /// Where it keeps its records.
    pub database: ironyard_db::Config,
    /// What it does to BMCs.
    pub gateway: Gateway,
    /// Logs, traces.
    #[serde(default)]
    pub telemetry: ironyard_rpc::telemetry::Config,
}

/// What the gateway does to BMCs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// File with the key-encryption key: 64 hex digits.
    pub key_file: PathBuf,
    /// Whether to make a key file where there is none (`demo`, `up`).
    #[serde(default)]
    pub create_key: bool,
    /// Addresses that may be reached, as in `10.0.0.0/8`; empty: all but loopback.
    #[serde(default)]
    pub allowed_ranges: Vec<IpNet>,
    /// How certificates are trusted unless a BMC says otherwise.
    #[serde(default = "first_use")]
    pub default_trust: TlsTrust,
    /// Files with authorities for BMC certificates, PEM.
    #[serde(default)]
    pub authorities: Vec<PathBuf>,
    /// Longest read of one document.
    #[serde(default = "read_timeout", with = "humantime_serde")]
    pub read_timeout: Duration,
    /// How long operations may take.
    #[serde(default)]
    pub patience: Patience,
}

fn first_use() -> TlsTrust {
    TlsTrust::FirstUse
}

fn read_timeout() -> Duration {
    Limits::default().read
}
