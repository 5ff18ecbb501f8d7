//! Whether a server can serve a claim, and if not, why.

use ironyard_types::{ConditionStatus, labels::Selector};

use super::{
    lifecycle::State,
    server::{Server, Taint},
};

/// What a claim asks of a server.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// This one and no other; empty: any.
    pub server: String,
    /// Labels.
    pub selector: Selector,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// Whether a machine is taken over as it runs.
    pub adopt: bool,
}

/// Tolerates a taint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// Key; empty: every taint.
    pub key: String,
    /// Whether any value will do.
    pub exists: bool,
    /// Value.
    pub value: String,
}

impl Toleration {
    fn tolerates(&self, taint: &Taint) -> bool {
        (self.key.is_empty() || self.key == taint.key) && (self.exists || self.key.is_empty() || self.value == taint.value)
    }
}

/// Why a server cannot serve a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The claim names another one.
    #[error("the claim names another server")]
    OtherServer,
    /// Labels do not match.
    #[error("its labels do not match the selector")]
    LabelsDiffer,
    /// Not Available.
    #[error("it is {state}{}", holder.as_deref().map(|h| format!(", held by {h}")).unwrap_or_default())]
    NotAvailable {
        /// State.
        state: State,
        /// Claim or maintenance.
        holder: Option<String>,
    },
    /// It does not wait to be adopted.
    #[error("it is {state}, and no machine that was found running and waits for what is to become of it")]
    NotAdoptable {
        /// State.
        state: State,
    },
    /// Cordoned.
    #[error("it is cordoned (unclaimable)")]
    Cordoned,
    /// Nobody could switch it on, or wipe it afterwards.
    #[error("its BMC cannot be used: {0}")]
    BmcUnusable(String),
    /// A claim would not owe the wipe of drives that nobody knows.
    #[error("its drives were waived, and those that it has now are still to be read")]
    DrivesUnread,
    /// Tainted.
    #[error("taint {0} is not tolerated")]
    Tainted(String),
}

impl Unfit {
    /// Reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherServer => "OTHER_SERVER",
            Self::LabelsDiffer => "LABELS_DIFFER",
            Self::NotAvailable { .. } => "NOT_AVAILABLE",
            Self::NotAdoptable { .. } => "NOT_ADOPTABLE",
            Self::Cordoned => "CORDONED",
            Self::BmcUnusable(_) => "BMC_UNUSABLE",
            Self::DrivesUnread => "DRIVES_UNREAD",
            Self::Tainted(_) => "TAINTED",
        }
    }
}

/// The conditions in which discovery tells whether the BMC of a server can be used, and for the machine that the server is.
const BMC: [&str; 2] = ["BmcReachable", "SameMachine"];

/// Why its BMC cannot be used, as it was last seen.
fn bmc_unusable(server: &Server) -> Option<&str> {
    let mut told = server.conditions.iter().filter(|c| BMC.contains(&c.kind.as_str()));
    let told = told.find(|c| c.status == ConditionStatus::False)?;
    Some(told.message.as_str())
}

/// The condition that tells whether the drives were read that a server has since those that it had were waived.
pub const DRIVES_KNOWN: &str = "DrivesKnown";

fn drives_unread(server: &Server) -> bool {
    let told = server.conditions.iter().find(|c| c.kind == DRIVES_KNOWN);
    told.is_some_and(|c| c.status == ConditionStatus::False)
}

/// The condition in which discovery tells that a machine was found running, and is left alone.
pub const ADOPTABLE: &str = "Adoptable";

/// Holds one server against a claim.
pub fn check(server: &Server, wanted: &Wanted) -> Result<(), Unfit> {
    if !wanted.server.is_empty() && wanted.server != server.metadata.name {
        return Err(Unfit::OtherServer);
    }
    if !wanted.selector.matches(&server.metadata.labels) {
        return Err(Unfit::LabelsDiffer);
    }
    if wanted.adopt {
        let told = server
            .conditions
            .iter()
            .any(|c| c.kind == ADOPTABLE && c.status == ConditionStatus::True);
        if server.state != State::Discovery || !told || server.out_of_band.is_none() {
            return Err(Unfit::NotAdoptable { state: server.state });
        }
    } else if server.state != State::Available {
        let claim = server.facts.claim.as_ref().map(|c| format!("claim {}", c.name));
        let maintenance = server.facts.maintenance.as_ref().map(|m| format!("maintenance {}", m.name));
        return Err(Unfit::NotAvailable {
            state: server.state,
            holder: claim.or(maintenance),
        });
    }
    if server.spec.unclaimable {
        return Err(Unfit::Cordoned);
    }
    if let Some(why) = bmc_unusable(server) {
        return Err(Unfit::BmcUnusable(why.to_owned()));
    }
    if drives_unread(server) {
        return Err(Unfit::DrivesUnread);
    }
    match server
        .spec
        .taints
        .iter()
        .find(|taint| !wanted.tolerations.iter().any(|t| t.tolerates(taint)))
    {
        Some(taint) => Err(Unfit::Tainted(format!("{}={}", taint.key, taint.value))),
        None => Ok(()),
    }
}

/// The index column: `yes`, `tainted` (only for claims that tolerate something) or `no`.
pub fn column(server: &Server) -> &'static str {
    match (
        server.state == State::Available && !server.spec.unclaimable && !drives_unread(server) && bmc_unusable(server).is_none(),
        server.spec.taints.is_empty(),
    ) {
        (true, true) => "yes",
        (true, false) => "tainted",
        (false, _) => "no",
    }
}

#[cfg(test)]
mod tests {
    use ironyard_types::{Condition, Metadata, Timestamp};

    use super::*;
    use crate::domain::server::Spec;

    #[test]
    fn a_server_that_nobody_could_serve_is_not_offered() {
        let mut server = Server::new(Metadata::default(), Spec::default());
        server.state = State::Available;
        let now = Timestamp(0);
        assert_eq!((check(&server, &Wanted::default()), column(&server)), (Ok(()), "yes"));
        for kind in BMC {
            Condition::set(&mut server.conditions, kind, ConditionStatus::False, "Gone", "it is gone", now);
            let why = Unfit::BmcUnusable("it is gone".to_owned());
            assert_eq!((check(&server, &Wanted::default()), column(&server)), (Err(why), "no"), "{kind}");
            Condition::set(&mut server.conditions, kind, ConditionStatus::True, "There", "", now);
            assert_eq!((check(&server, &Wanted::default()), column(&server)), (Ok(()), "yes"));
        }
        server.forget_drives(now);
        assert_eq!(
            (check(&server, &Wanted::default()), column(&server)),
            (Err(Unfit::DrivesUnread), "no")
        );
        Condition::set(&mut server.conditions, DRIVES_KNOWN, ConditionStatus::True, "Read", "", now);
        Condition::set(&mut server.conditions, "InBandSeen", ConditionStatus::False, "NotAsked", "", now);
        assert_eq!(check(&server, &Wanted::default()), Ok(()));
    }
}
