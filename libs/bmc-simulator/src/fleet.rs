use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{Drive, Machine, OnBoot, Profile, Timing, profile::GENERIC};

/// What a fleet is like.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// How many BMCs.
    pub count: u32,
    /// Address of the first one; the others follow.
    pub first: Ipv4Addr,
    /// Who may log in.
    pub username: String,
    /// With which password.
    pub password: String,
    /// Sessions that a BMC keeps; 0: as many as its family keeps.
    pub session_limit: usize,
    /// How long things take.
    pub timing: Timing,
    /// Families, in turn.
    pub profiles: Vec<&'static Profile>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            count: 8,
            first: Ipv4Addr::new(127, 80, 0, 1),
            username: "admin".to_owned(),
            password: "simulated".to_owned(),
            session_limit: 0,
            timing: Timing::default(),
            profiles: vec![&GENERIC],
        }
    }
}

/// What one machine is like.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// Address of its BMC.
    pub address: IpAddr,
    /// Number, for serials and MAC addresses.
    pub number: u32,
    /// System UUID.
    pub uuid: String,
    /// BIOS version.
    pub bios_version: String,
    /// Who may log in.
    pub username: String,
    /// With which password.
    pub password: String,
    /// Sessions.
    pub session_limit: usize,
    /// How long things take.
    pub timing: Timing,
    /// Family.
    pub profile: &'static Profile,
}

impl MachineConfig {
    /// The machine of this number in a fleet.
    pub fn of(fleet: &FleetConfig, number: u32) -> Self {
        let turn = usize::try_from(number).unwrap_or(0) % fleet.profiles.len().max(1);
        let profile = fleet.profiles.get(turn).copied().unwrap_or(&GENERIC);
        Self {
            address: IpAddr::V4(Ipv4Addr::from(u32::from(fleet.first) + number)),
            number,
            uuid: format!("5105e000-0000-4000-8000-{number:012x}"),
            bios_version: "1.0.3".to_owned(),
            username: fleet.username.clone(),
            password: fleet.password.clone(),
            session_limit: if fleet.session_limit == 0 {
                profile.sessions
            } else {
                fleet.session_limit
            },
            timing: fleet.timing,
            profile,
        }
    }

    /// Serial number of the system.
    pub fn serial(&self) -> String {
        format!("SIM{:06}", self.number)
    }

    /// MAC address of one of its interfaces.
    pub fn mac(&self, port: u8) -> String {
        let [_, b, c, d] = self.number.to_be_bytes();
        format!("02:5e:{port:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Two drives: one that its BMC can erase, and one (on every other machine) that only the host can.
    pub(crate) fn drives(&self) -> Vec<Drive> {
        let seed = u64::from(self.number) << 8;
        let first = Drive::new(
            format!("NV{:06}A", self.number),
            "Simulated NVMe 960",
            960_197_124_096,
            &["CryptographicErase", "BlockErase"],
            seed,
        );
        let ways: &[&str] = if self.number.is_multiple_of(2) {
            &["BlockErase", "Overwrite"]
        } else {
            &[]
        };
        let second = Drive::new(
            format!("SA{:06}B", self.number),
            "Simulated SATA 480",
            480_103_981_056,
            ways,
            seed + 1,
        );
        vec![first, second]
    }
}

/// Machines by the address of their BMC.
#[derive(Clone, Default)]
pub struct Fleet {
    machines: Arc<HashMap<IpAddr, Arc<Machine>>>,
    trees: Arc<HashMap<IpAddr, crate::Tree>>,
}

impl Fleet {
    /// A fleet of like machines.
    pub fn new(config: &FleetConfig, on_boot: Option<OnBoot>) -> Self {
        Self::of((0..config.count).map(|n| MachineConfig::of(config, n)), on_boot)
    }

    /// A fleet of these machines.
    pub fn of(machines: impl IntoIterator<Item = MachineConfig>, on_boot: Option<OnBoot>) -> Self {
        let machines = machines
            .into_iter()
            .map(|m| (m.address, Machine::new(m, on_boot.clone())))
            .collect();
        Self {
            machines: Arc::new(machines),
            trees: Arc::default(),
        }
    }

    /// Recorded trees, each on an address of its own: read-only.
    pub fn of_trees(trees: impl IntoIterator<Item = (IpAddr, crate::Tree)>) -> Self {
        Self {
            machines: Arc::default(),
            trees: Arc::new(trees.into_iter().collect()),
        }
    }

    /// All machines, by number.
    pub fn machines(&self) -> Vec<Arc<Machine>> {
        let mut machines: Vec<_> = self.machines.values().cloned().collect();
        machines.sort_by_key(|m| m.config.number);
        machines
    }

    /// Addresses of all BMCs, by number.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.machines().iter().map(|m| m.address()).collect()
    }

    /// The machine behind an address.
    pub fn at(&self, address: IpAddr) -> Option<Arc<Machine>> {
        self.machines.get(&address).cloned()
    }

    pub(crate) fn tree(&self, address: IpAddr) -> Option<crate::Tree> {
        self.trees.get(&address).cloned()
    }
}
