use ironyard_types::{
    Condition, MacAddress, Metadata, Reference, Timestamp,
    hardware::{FirstWipe, Health, PowerState, RunningMachines},
};
use serde::{Deserialize, Serialize};

/// A baseboard management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// Head.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// What was seen.
    pub observed: Observed,
    /// Aspects.
    pub conditions: Vec<Condition>,
}

/// How it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Host name or address.
    pub address: String,
    /// Endpoint that gives the address.
    pub endpoint: Option<Reference>,
    /// MAC address, whose endpoint gives the address.
    pub mac: Option<MacAddress>,
    /// Credential.
    pub credential: String,
    /// `https` or `http`.
    pub scheme: String,
    /// Port.
    pub port: u16,
    /// How the certificate is trusted.
    pub trust: Option<TlsTrust>,
    /// Fingerprint for Pin.
    pub certificate_sha256: String,
    /// Console protocol.
    pub console_protocol: String,
    /// Console port; 0: the family's.
    pub console_port: u16,
    /// Fingerprint of the console's host key; empty: the first one is pinned.
    pub console_host_key: String,
    /// What happens to its machines if they run when they are discovered.
    pub running_machines: Option<RunningMachines>,
    /// What its machines owe that were never wiped here.
    #[serde(default)]
    pub first_wipe: Option<FirstWipe>,
    /// What of its certificate is put up with.
    pub weaknesses: Vec<TlsWeakness>,
}

/// A weakness of a certificate that is put up with where it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsWeakness {
    /// An RSA key from 1024 bits on.
    Rsa1024,
    /// X.509 version 1.
    X509V1,
}

/// How a certificate is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsTrust {
    /// By authorities.
    Ca,
    /// By fingerprint.
    Pin,
    /// The first one is pinned.
    FirstUse,
    /// Any is taken; only where the gateway is configured to allow it.
    Insecure,
}

/// What was seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// Vendor.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Redfish version.
    pub redfish_version: String,
    /// Firmware of the manager.
    pub firmware_version: String,
    /// Fingerprint that was shown, and is pinned for FirstUse.
    pub certificate_sha256: String,
    /// Ids of the systems.
    pub systems: Vec<String>,
    /// Family of the BMC's firmware.
    pub family: String,
    /// Model of the manager.
    pub model: String,
    /// Serial number of the first system.
    pub serial_number: String,
    /// The systems as they were last seen.
    pub statuses: Vec<SystemStatus>,
    /// The certificate that is being put in place of the present one: both are good.
    pub next_certificate_sha256: String,
    /// The version of the credential that the BMC has refused: it is seldom tried again.
    pub refused_credential: String,
    /// Fingerprint of the console's host key that was seen first.
    pub console_host_key: String,
    /// Last answer.
    pub last_contact: Option<Timestamp>,
}

/// How a system was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemStatus {
    /// Id.
    pub id: String,
    /// Power.
    pub power: Option<PowerState>,
    /// Health.
    pub health: Option<Health>,
}

impl Spec {
    /// The port, or the scheme's own.
    pub fn port_or_default(&self) -> u16 {
        match (self.port, self.scheme.as_str()) {
            (0, "http") => 80,
            (0, _) => 443,
            (port, _) => port,
        }
    }
}
