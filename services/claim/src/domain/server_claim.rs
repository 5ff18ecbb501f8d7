use ironyard_types::{
    Metadata, Reference, Timestamp, Waiting,
    hardware::PowerState,
    labels::{Labels, Selector},
    sha256_hex,
};
use serde::{Deserialize, Serialize};

/// Someone's claim on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerClaim {
    /// Head.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// Whether it has a server.
    pub phase: Phase,
    /// The server.
    pub server: Option<Reference>,
    /// Why it has none, or what it waits for.
    pub waiting: Option<Waiting>,
    /// Since when it has it.
    pub bound_at: Option<Timestamp>,
    /// Power of its server, as last seen.
    pub power_state: Option<PowerState>,
    /// What of the spec has been applied to the server, and under which keys.
    pub applied: Applied,
    /// Trace of the call that made it.
    pub traceparent: String,
}

/// Which servers will do. Claims with the same request get the same answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// This server.
    pub server: Option<String>,
    /// Any that matches.
    pub selector: Selector,
    /// Tolerations: key, operator, value.
    pub tolerations: Vec<(String, String, String)>,
    /// Whether the server is taken over as it runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

impl Request {
    /// Whether a server of this name and with these labels could be meant.
    pub fn fits(&self, server: &str, labels: &Labels) -> bool {
        self.server.as_deref().is_none_or(|name| name == server) && self.selector.matches(labels)
    }
}

impl ServerClaim {
    /// A new one, made by nobody's call.
    pub fn new(metadata: Metadata, spec: Spec) -> Self {
        Self {
            metadata,
            spec,
            phase: Phase::Pending,
            server: None,
            waiting: None,
            bound_at: None,
            power_state: None,
            applied: Applied::default(),
            traceparent: String::new(),
        }
    }

    /// What it asks for.
    pub fn request(&self) -> Request {
        let Spec {
            server,
            selector,
            power: _,
            image: _,
            ignition: _,
            tolerations,
            adopt,
        } = self.spec.clone();
        Request {
            server,
            selector,
            tolerations,
            adopt,
        }
    }

    /// The same for all claims that ask for the same.
    pub fn request_key(&self) -> String {
        let text = serde_json::to_string(&self.request()).unwrap_or_default();
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }
}

/// What a claim asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// This server.
    pub server: Option<String>,
    /// Any that matches.
    pub selector: Selector,
    /// Wanted power.
    pub power: Option<PowerState>,
    /// Image.
    pub image: String,
    /// Ignition secret.
    pub ignition: String,
    /// Tolerations: key, operator, value.
    pub tolerations: Vec<(String, String, String)>,
    /// Whether the server is taken over as it runs.
    pub adopt: bool,
}

/// Whether it has a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It waits.
    Pending,
    /// It has one.
    Bound,
    /// It is being given back.
    Releasing,
}

/// What of the spec has been applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// Image that was inserted for the next boot.
    pub image: String,
    /// Power that was reached.
    pub power: Option<PowerState>,
    /// Power changes so far: each has a key of its own.
    pub changes: u32,
    /// Whether the change of this number has begun.
    pub changing: bool,
    /// What the change that has begun is to reach. It ends before another begins, whatever the spec says meanwhile.
    pub target: Option<PowerState>,
}

/// What to do for a claim that has its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Insert the image and boot from it once.
    Image(String),
    /// Change power.
    Power(PowerState),
    /// Nothing.
    Rest,
}

impl Spec {
    /// Whether the image is one that we insert ourselves; the name of one is for a boot service.
    fn image_is_url(&self) -> bool {
        self.image.starts_with("http://") || self.image.starts_with("https://")
    }

    /// What of this the server does not run, though it has the power that is wanted: a reason and a sentence.
    pub fn unapplied(&self, applied: &Applied) -> Option<(&'static str, String)> {
        if self.power != Some(PowerState::On) {
            return None;
        }
        if self.image_is_url() && applied.image != self.image {
            let message = format!(
                "the machine was switched on before the image became {}; switch it off and on to boot it",
                self.image
            );
            return Some(("IMAGE_NOT_APPLIED", message));
        }
        if !self.image.is_empty() && !self.image_is_url() {
            let message = format!(
                "image {:?} is a name for a boot service, which does not say whether the machine booted it; give an http or https URL to have it inserted",
                self.image
            );
            return Some(("IMAGE_NOT_APPLIED", message));
        }
        if !self.ignition.is_empty() {
            let message = format!(
                "ignition {:?} is for a boot service, which does not say whether the machine was given it",
                self.ignition
            );
            return Some(("IGNITION_NOT_APPLIED", message));
        }
        None
    }
}

/// Decides the next step. Power is applied once for each change of the spec: a machine that its user shut down stays down.
pub fn plan(spec: &Spec, applied: &Applied) -> Next {
    if applied.changing
        && let Some(target) = applied.target
    {
        return Next::Power(target);
    }
    let wanted = match spec.power {
        // As it was found.
        None if spec.adopt => return Next::Rest,
        wanted => wanted.unwrap_or(PowerState::Off),
    };
    if applied.power == Some(wanted) && !applied.changing {
        return Next::Rest;
    }
    if wanted == PowerState::On && spec.image_is_url() && applied.image != spec.image {
        return Next::Image(spec.image.clone());
    }
    Next::Power(wanted)
}
