use ironyard_types::{Condition, Metadata, Reference, Timestamp};
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
    /// Console port.
    pub console_port: u16,
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
    /// Last answer.
    pub last_contact: Option<Timestamp>,
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
