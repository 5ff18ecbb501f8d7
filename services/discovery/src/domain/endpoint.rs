use ironyard_types::{
    Condition, MacAddress, Metadata, Reference,
    hardware::{FirstWipe, RunningMachines},
};
use serde::{Deserialize, Serialize};

/// A MAC address and an address on the management network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Head.
    pub metadata: Metadata,
    /// MAC address.
    pub mac: MacAddress,
    /// Address.
    pub ip: std::net::IpAddr,
    /// Aspects.
    pub conditions: Vec<Condition>,
    /// BMC that was made of it.
    pub bmc: Option<Reference>,
}

impl Endpoint {
    /// Whether it has this MAC address, however that is written.
    pub fn has_mac(&self, text: &str) -> bool {
        MacAddress::parse(text).is_ok_and(|mac| mac == self.mac)
    }
}

/// What stands behind MAC addresses that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacPrefix {
    /// Prefix, as in `00:1a:2b`.
    pub prefix: String,
    /// Maker.
    #[serde(default)]
    pub manufacturer: String,
    /// `https` or `http`.
    #[serde(default)]
    pub scheme: String,
    /// Port; 0: the scheme's own.
    #[serde(default)]
    pub port: u16,
    /// Name of the credential that such BMCs are approved to be offered.
    pub credential: String,
    /// What happens to their machines if they run when they are discovered; none: as the site says.
    #[serde(default)]
    pub running_machines: Option<RunningMachines>,
    /// What their machines owe that were never wiped here; none: as the site says.
    #[serde(default)]
    pub first_wipe: Option<FirstWipe>,
}

/// The longest prefix that fits.
pub fn recognise(mac: MacAddress, prefixes: &[MacPrefix]) -> Option<&MacPrefix> {
    prefixes.iter().filter(|p| mac.has_prefix(&p.prefix)).max_by_key(|p| p.prefix.len())
}
