use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use ironyard_redfish::{ConcurrencyLimit, Limits};
use ironyard_rpc::client;
use serde::Deserialize;

use crate::{
    domain::bmc::TlsTrust,
    replicas,
    tasks::{events, probe::Polling, steps::Patience},
};

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
    /// Files with keys that records may still be sealed under.
    #[serde(default)]
    pub old_key_files: Vec<PathBuf>,
    /// Whether to make a key file where there is none (`demo`, `up`).
    #[serde(default)]
    pub create_key: bool,
    /// Addresses that may be reached, as in `10.0.0.0/8`; empty: all but loopback.
    #[serde(default)]
    pub allowed_ranges: Vec<IpNet>,
    /// Networks whose BMCs may be spoken to over plain http, beside loopback.
    #[serde(default)]
    pub plaintext_ranges: Vec<IpNet>,
    /// How certificates are trusted unless a BMC says otherwise.
    #[serde(default = "first_use")]
    pub default_trust: TlsTrust,
    /// Files with authorities for BMC certificates, PEM.
    #[serde(default)]
    pub authorities: Vec<PathBuf>,
    /// Whether a BMC may be given `TLS_TRUST_INSECURE`.
    #[serde(default)]
    pub allow_insecure: bool,
    /// Longest that a connection may take to open, with TLS.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest read of one document.
    #[serde(default = "read_timeout", with = "humantime_serde")]
    pub read_timeout: Duration,
    /// Longest write.
    #[serde(default = "write_timeout", with = "humantime_serde")]
    pub write_timeout: Duration,
    /// First wait before a read is repeated; it doubles.
    #[serde(default = "backoff", with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// Requests in a second to one BMC, on average; 0: no limit.
    #[serde(default = "rate")]
    pub requests_per_second: u32,
    /// Requests in flight to all BMCs together.
    #[serde(default = "in_flight")]
    pub requests_in_flight: usize,
    /// Bytes of large documents that are read at once, and of documents that are held, from all BMCs together.
    #[serde(default = "memory")]
    pub document_bytes: usize,
    /// Where pushed images wait for their BMC.
    #[serde(default = "spool")]
    pub spool: PathBuf,
    /// Largest image, bytes.
    #[serde(default = "max_image_bytes")]
    pub max_image_bytes: u64,
    /// How often BMCs are looked at.
    #[serde(default)]
    pub polling: Polling,
    /// How long operations may take.
    #[serde(default)]
    pub patience: Patience,
    /// How events reach it.
    #[serde(default)]
    pub events: events::Config,
    /// How the other gateways on the same database reach it.
    #[serde(default)]
    pub replicas: replicas::Config,
    /// Where inventory answers: it knows which servers depend on a BMC.
    #[serde(default)]
    pub inventory: Option<Peer>,
}

/// A service that the gateway asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its address, as in `https://inventory:7700`.
    pub address: String,
    /// Certificates to show.
    #[serde(default)]
    pub tls: Option<client::TlsConfig>,
}

fn first_use() -> TlsTrust {
    TlsTrust::FirstUse
}

fn write_timeout() -> Duration {
    Limits::default().write
}

fn backoff() -> Duration {
    Limits::default().backoff
}

/// What slow BMCs are known to stand.
fn rate() -> u32 {
    5
}

fn in_flight() -> usize {
    500
}

fn memory() -> usize {
    128 << 20
}

fn spool() -> PathBuf {
    std::env::temp_dir().join("ironyard-firmware")
}

fn max_image_bytes() -> u64 {
    1 << 30
}

impl Gateway {
    /// The defaults, with the key in this file.
    pub fn new(key_file: impl Into<PathBuf>) -> Self {
        Self {
            key_file: key_file.into(),
            old_key_files: vec![],
            create_key: false,
            allowed_ranges: vec![],
            plaintext_ranges: vec![],
            default_trust: first_use(),
            authorities: vec![],
            allow_insecure: false,
            connect_timeout: connect_timeout(),
            read_timeout: read_timeout(),
            write_timeout: write_timeout(),
            retry_backoff: backoff(),
            requests_per_second: rate(),
            requests_in_flight: in_flight(),
            document_bytes: memory(),
            spool: spool(),
            max_image_bytes: max_image_bytes(),
            polling: Polling::default(),
            patience: Patience::default(),
            events: events::Config::default(),
            replicas: replicas::Config::default(),
            inventory: None,
        }
    }

    /// What one BMC, and all of them together, may cost.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connect: self.connect_timeout,
            read: self.read_timeout,
            write: self.write_timeout,
            backoff: self.retry_backoff,
            rate: self.requests_per_second,
            shared: ConcurrencyLimit::new(
                self.requests_in_flight,
                4 * self.requests_in_flight,
                ConcurrencyLimit::SLOW,
                self.document_bytes,
            ),
            ..Limits::default()
        }
    }
}

fn connect_timeout() -> Duration {
    Limits::default().connect
}

fn read_timeout() -> Duration {
    Limits::default().read
}
