use std::time::Duration;

use ironyard_types::hardware::{FirstWipe, RunningMachines};
use serde::Deserialize;

use crate::domain::{discovery_run::InBand, endpoint::MacPrefix};

/// Configuration of the discovery service.
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
    pub discovery: Settings,
    /// Logs, traces.
    #[serde(default)]
    pub telemetry: ironyard_rpc::telemetry::Config,
}

/// What the site wants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address at which the agent reaches this service, as in `https://10.0.0.5:7700`.
    pub agent_url: String,
    /// The agent's image. Without it no machine is booted into the agent.
    #[serde(default)]
    pub image: Option<crate::image::Config>,
    /// Whether the agent is needed where a server does not say.
    #[serde(default = "optional")]
    pub in_band: InBand,
    /// Time for a machine to boot the agent and report.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    pub boot_timeout: Duration,
    /// Time for a discovery whose BMC does not do what it should.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    pub patience: Duration,
    /// What happens to a machine that runs when it is discovered, where neither its server nor its BMC says.
    #[serde(default = "wait")]
    pub running_machines: RunningMachines,
    /// What a machine owes that was never wiped here, where neither its server nor its BMC says.
    #[serde(default = "wait_for_word")]
    pub first_wipe: FirstWipe,
    /// How long an agent that has nothing to do is kept on the line.
    #[serde(default = "eight_seconds", with = "humantime_serde")]
    pub agent_wait: Duration,
    /// How often the power of a server at rest is read.
    #[serde(default = "minute", with = "humantime_serde")]
    pub poll: Duration,
    /// Whether a server is offered although its BMC could not show all of its storage for as long as `patience`, and no agent has seen it. It
    /// cannot be wiped until one of the two can.
    #[serde(default)]
    pub offer_unread_storage: bool,
    /// How often the hardware of a server that nobody uses is read again.
    #[serde(default = "day", with = "humantime_serde")]
    pub hardware_refresh: Duration,
    /// What stands behind MAC addresses.
    #[serde(default)]
    pub mac_prefixes: Vec<MacPrefix>,
}

fn optional() -> InBand {
    InBand::Optional
}

fn wait() -> RunningMachines {
    RunningMachines::Wait
}

fn wait_for_word() -> FirstWipe {
    FirstWipe::Wait
}

fn eight_seconds() -> Duration {
    Duration::from_secs(8)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn day() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}
