//! The life of a server: one pure function, [`step`]. No I/O, no clock, no wildcard arm.
//!
//! The invariant: no sequence of events makes a server that owes a wipe Available. It holds because `Available` is entered in one
//! place, [`available`], which refuses while a debt is open, and because a debt is dropped in two places: [`pay`], for a certificate
//! that fits it, and the named waiver. What is owed is fixed at the reservation; only an administrator forgives a part of it, by name.

#![deny(clippy::wildcard_enum_match_arm)]

use ironyard_types::{Category, Reference, Timestamp};
use serde::{Deserialize, Serialize};

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// The record exists; the hardware is not known yet.
    Initial,
    /// The hardware is being read.
    Discovery,
    /// Ready to be claimed.
    Available,
    /// Held by a claim.
    Reserved,
    /// Being wiped.
    Cleanup,
    /// Being maintained.
    Maintenance,
    /// Something failed.
    Error,
}

impl State {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Initial,
        Self::Discovery,
        Self::Available,
        Self::Reserved,
        Self::Cleanup,
        Self::Maintenance,
        Self::Error,
    ];
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What decides, beside the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether discovery has ever completed.
    pub discovered: bool,
    /// The claim that holds the server.
    pub claim: Option<Reference>,
    /// The maintenance that holds the server.
    pub maintenance: Option<Reference>,
    /// The wipe that it owes.
    pub debt: Option<Debt>,
    /// What went wrong, in Error.
    pub failure: Option<Failure>,
}

/// A wipe that is owed, from the moment of the reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    /// Which: every reservation makes one of its own, so that no proof pays for a later one. Times of two services are never compared.
    #[serde(default)]
    pub uid: String,
    /// Since when.
    pub since: Timestamp,
    /// For which claim; without a name where the machine owes it since it was found.
    pub claim: Reference,
    /// Serial numbers of the drives that the server is known to have had; every one must be on the certificate.
    pub drives: Vec<String>,
    /// What the wipe must be at least, as it was wanted at the reservation. A policy that is lowered later lowers no debt.
    #[serde(default)]
    pub minimum: Category,
    /// Whether the server is kept unwiped until an administrator lets it go, as it was wanted at the reservation.
    #[serde(default)]
    pub retain: bool,
    /// What of it an administrator has forgiven since.
    #[serde(default)]
    pub forgiven: Vec<Forgiven>,
}

impl Debt {
    /// What made it.
    fn origin(&self) -> String {
        if self.is_first() {
            "it was found".to_owned()
        } else {
            format!("claim {}", self.claim.name)
        }
    }

    /// Whether no claim made it: the machine was never wiped here.
    fn is_first(&self) -> bool {
        self.claim.name.is_empty()
    }
}

/// A part of a debt that an administrator has forgiven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgiven {
    /// Which.
    pub part: Part,
    /// Who answers for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A part of a debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The least acceptable category: any will do then.
    Minimum,
    /// That the server is kept: it is wiped then.
    Retention,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason code.
    pub reason: String,
    /// Sentence.
    pub message: String,
    /// Step.
    pub step: String,
    /// Tries.
    pub attempts: i32,
    /// Where Retry returns to; set by [`step`].
    pub failed_in: State,
    /// When.
    pub at: Timestamp,
}

/// Proof of a wipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Name.
    pub name: String,
    /// For which claim.
    pub claim_uid: String,
    /// The debt that it is for.
    pub debt_uid: String,
    /// Serial numbers of the drives that passed.
    pub drives: Vec<String>,
    /// Whether every drive passed.
    pub passed: bool,
    /// The weakest of what was done to its drives.
    pub category: Category,
}

/// What a claim that takes a server makes it owe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The claim.
    pub claim: Reference,
    /// What the debt that it makes is called; no two are called the same.
    pub debt: String,
    /// When.
    pub at: Timestamp,
    /// Serial numbers of the drives that the server is known to have.
    pub drives: Vec<String>,
    /// What its wipe must be at least.
    pub minimum: Category,
    /// Whether it is kept unwiped after the claim.
    pub retain: bool,
}

/// What a machine owes that was never wiped here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstWipe {
    /// What the debt is called.
    pub debt: String,
    /// When it was found.
    pub at: Timestamp,
    /// Serial numbers of the drives that it is known to have.
    pub drives: Vec<String>,
    /// What its wipe must be at least.
    pub minimum: Category,
}

/// What can happen to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Discovery begins.
    BeginDiscovery,
    /// Discovery is complete; with what the machine owes since it was found, if anything.
    DiscoveryDone(Option<FirstWipe>),
    /// A claim takes it; from now on it owes a wipe.
    Reserve(Reservation),
    /// A claim takes over a machine that ran when it was discovered; from now on it owes a wipe.
    Adopt(Reservation),
    /// The claim lets go.
    Release {
        /// The claim.
        claim: Reference,
    },
    /// It was wiped.
    CleanupDone {
        /// The proof; absent only where nothing is owed any more.
        certificate: Option<Certificate>,
    },
    /// Maintenance begins.
    BeginMaintenance {
        /// The maintenance.
        maintenance: Reference,
    },
    /// Maintenance is complete.
    MaintenanceDone {
        /// The maintenance.
        maintenance: Reference,
    },
    /// Something failed for good.
    Fail(Failure),
    /// An operator says that all is well.
    Resolve,
    /// An operator asks to try again.
    Retry,
    /// An administrator forgives the wipe, by name and on record.
    Waive,
    /// An administrator forgives a part of what is owed, by name and on record; the wipe itself stays owed.
    Forgive(Forgiven),
}

/// Kinds of events, for tables and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// See [`Event::BeginDiscovery`].
    BeginDiscovery,
    /// See [`Event::DiscoveryDone`].
    DiscoveryDone,
    /// See [`Event::Reserve`].
    Reserve,
    /// See [`Event::Adopt`].
    Adopt,
    /// See [`Event::Release`].
    Release,
    /// See [`Event::CleanupDone`].
    CleanupDone,
    /// See [`Event::BeginMaintenance`].
    BeginMaintenance,
    /// See [`Event::MaintenanceDone`].
    MaintenanceDone,
    /// See [`Event::Fail`].
    Fail,
    /// See [`Event::Resolve`].
    Resolve,
    /// See [`Event::Retry`].
    Retry,
    /// See [`Event::Waive`].
    Waive,
    /// See [`Event::Forgive`].
    Forgive,
}

impl Event {
    /// Its kind.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::BeginDiscovery => EventKind::BeginDiscovery,
            Self::DiscoveryDone(_) => EventKind::DiscoveryDone,
            Self::Reserve(_) => EventKind::Reserve,
            Self::Adopt(_) => EventKind::Adopt,
            Self::Release { .. } => EventKind::Release,
            Self::CleanupDone { .. } => EventKind::CleanupDone,
            Self::BeginMaintenance { .. } => EventKind::BeginMaintenance,
            Self::MaintenanceDone { .. } => EventKind::MaintenanceDone,
            Self::Fail(_) => EventKind::Fail,
            Self::Resolve => EventKind::Resolve,
            Self::Retry => EventKind::Retry,
            Self::Waive => EventKind::Waive,
            Self::Forgive(_) => EventKind::Forgive,
        }
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::BeginDiscovery,
        Self::DiscoveryDone,
        Self::Reserve,
        Self::Adopt,
        Self::Release,
        Self::CleanupDone,
        Self::BeginMaintenance,
        Self::MaintenanceDone,
        Self::Fail,
        Self::Resolve,
        Self::Retry,
        Self::Waive,
        Self::Forgive,
    ];
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a step is made and taken apart at once, never kept")]
pub enum Step {
    /// The server moved, or its facts changed.
    Moved(State, Facts),
    /// The event had taken effect before.
    Unchanged,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no such arrow.
    #[error("{event:?} is not possible in state {state}; possible are {}", list(open))]
    NoArrow {
        /// State.
        state: State,
        /// Event.
        event: EventKind,
        /// Arrows that are open.
        open: Vec<EventKind>,
    },
    /// It would become Available while it owes a wipe.
    #[error("the server owes a wipe since {since}; let the cleanup pass, or waive it by name")]
    Owes {
        /// The claim that made the debt, or that it was found.
        since: String,
    },
    /// The certificate does not pay the debt.
    #[error("certificate {certificate} does not pay the debt: {why}")]
    Unpaid {
        /// Certificate.
        certificate: String,
        /// Why.
        why: String,
    },
    /// Somebody else holds the server.
    #[error("the server is held by {holder}, not by {asked}")]
    Held {
        /// Who holds it.
        holder: String,
        /// Who asked.
        asked: String,
    },
    /// Nothing to waive.
    #[error("the server owes no wipe")]
    NothingOwed,
    /// Discovery never completed.
    #[error("the server was never discovered; use Retry")]
    Undiscovered,
}

fn list(events: &[EventKind]) -> String {
    if events.is_empty() {
        "none".to_owned()
    } else {
        events.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>().join(", ")
    }
}

/// Arrows that leave a state, whatever the facts.
pub fn open(state: State) -> Vec<EventKind> {
    use EventKind as E;
    match state {
        State::Initial => vec![E::BeginDiscovery],
        State::Discovery => vec![E::DiscoveryDone, E::Adopt, E::Fail],
        State::Available => vec![E::Reserve, E::BeginMaintenance, E::Fail],
        State::Reserved => vec![E::Release, E::Fail, E::Forgive],
        State::Cleanup => vec![E::CleanupDone, E::Fail, E::Forgive],
        State::Maintenance => vec![E::MaintenanceDone, E::Fail, E::Forgive],
        State::Error => vec![E::Release, E::BeginMaintenance, E::Resolve, E::Retry, E::Waive, E::Forgive],
    }
}

/// The only way into Available.
fn available(facts: Facts) -> Result<Step, Rejected> {
    match (&facts.debt, &facts.claim) {
        (Some(debt), _) => Err(Rejected::Owes { since: debt.origin() }),
        (None, Some(claim)) => Err(Rejected::Held {
            holder: format!("claim {}", claim.name),
            asked: "nobody".to_owned(),
        }),
        (None, None) if !facts.discovered => Err(Rejected::Undiscovered),
        (None, None) => Ok(Step::Moved(
            State::Available,
            Facts {
                maintenance: None,
                failure: None,
                ..facts
            },
        )),
    }
}

/// Where a server goes that has no more business where it is: to its holder, to its wipe, to its discovery, or to the pool.
fn onward(facts: Facts) -> Result<Step, Rejected> {
    let facts = Facts {
        maintenance: None,
        failure: None,
        ..facts
    };
    match (&facts.claim, &facts.debt, facts.discovered) {
        (Some(_), _, _) => Ok(Step::Moved(State::Reserved, facts)),
        (None, Some(_), _) => Ok(Step::Moved(State::Cleanup, facts)),
        (None, None, false) => Ok(Step::Moved(State::Discovery, facts)),
        (None, None, true) => available(facts),
    }
}

/// A server that a claim holds, and that owes a wipe from now on.
fn reserve(facts: Facts, by: &Reservation) -> Step {
    let debt = Debt {
        uid: by.debt.clone(),
        since: by.at,
        claim: by.claim.clone(),
        drives: by.drives.clone(),
        minimum: by.minimum,
        retain: by.retain,
        forgiven: vec![],
    };
    let facts = Facts {
        claim: Some(by.claim.clone()),
        debt: Some(debt),
        ..facts
    };
    Step::Moved(State::Reserved, facts)
}

/// The debt of a machine that was never wiped here: no claim made it, so it is its own.
fn first_wipe(owed: &FirstWipe) -> Debt {
    Debt {
        uid: owed.debt.clone(),
        since: owed.at,
        claim: Reference::new(String::new(), owed.debt.clone()),
        drives: owed.drives.clone(),
        minimum: owed.minimum,
        retain: false,
        forgiven: vec![],
    }
}

/// Drops a debt that this certificate pays.
fn pay(facts: Facts, certificate: &Certificate) -> Result<Facts, Rejected> {
    let unpaid = |why: String| Rejected::Unpaid {
        certificate: certificate.name.clone(),
        why,
    };
    let Some(debt) = &facts.debt else { return Ok(facts) };
    if !certificate.passed {
        return Err(unpaid("it did not pass".to_owned()));
    }
    if certificate.claim_uid != debt.claim.uid {
        return Err(unpaid(format!("it is not for what is owed since {}", debt.origin())));
    }
    if certificate.debt_uid != debt.uid {
        return Err(unpaid("it is for an earlier reservation".to_owned()));
    }
    if let Some(missing) = debt.drives.iter().find(|serial| !certificate.drives.contains(serial)) {
        return Err(unpaid(format!("drive {missing} is not on it")));
    }
    if certificate.category < debt.minimum {
        let (owed, done) = (debt.minimum.as_str(), certificate.category.as_str());
        return Err(unpaid(format!(
            "{owed} is owed since the reservation, and a drive had {done} alone"
        )));
    }
    Ok(Facts { debt: None, ..facts })
}

/// Moves a server along one arrow.
pub fn step(state: State, facts: &Facts, event: Event) -> Result<Step, Rejected> {
    let no_arrow = || Rejected::NoArrow {
        state,
        event: event.kind(),
        open: open(state),
    };
    let facts = facts.clone();
    match event {
        Event::BeginDiscovery => match state {
            State::Initial => Ok(Step::Moved(State::Discovery, facts)),
            State::Discovery => Ok(Step::Unchanged),
            State::Available | State::Reserved | State::Cleanup | State::Maintenance | State::Error => Err(no_arrow()),
        },
        Event::DiscoveryDone(ref owed) => match state {
            State::Discovery => onward(Facts {
                discovered: true,
                debt: facts.debt.clone().or_else(|| owed.as_ref().map(first_wipe)),
                ..facts
            }),
            State::Available => Ok(Step::Unchanged),
            State::Cleanup if facts.debt.as_ref().is_some_and(Debt::is_first) => Ok(Step::Unchanged),
            State::Initial | State::Reserved | State::Cleanup | State::Maintenance | State::Error => Err(no_arrow()),
        },
        Event::Reserve(ref by) => match state {
            State::Available => Ok(reserve(facts, by)),
            State::Reserved if facts.claim.as_ref() == Some(&by.claim) => Ok(Step::Unchanged),
            State::Initial | State::Discovery | State::Reserved | State::Cleanup | State::Maintenance | State::Error => Err(no_arrow()),
        },
        Event::Adopt(ref by) => match state {
            // It was read from outside, and that is all of a discovery that a machine in use allows.
            State::Discovery if facts.claim.is_none() && facts.debt.is_none() => Ok(reserve(Facts { discovered: true, ..facts }, by)),
            State::Reserved if facts.claim.as_ref() == Some(&by.claim) => Ok(Step::Unchanged),
            State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Maintenance | State::Error => {
                Err(no_arrow())
            }
        },
        Event::Release { ref claim } => match (&facts.claim, state) {
            (Some(holder), _) if holder.uid != claim.uid => Err(Rejected::Held {
                holder: format!("claim {}", holder.name),
                asked: format!("claim {}", claim.name),
            }),
            (Some(_), State::Reserved) => Ok(Step::Moved(State::Cleanup, Facts { claim: None, ..facts })),
            (Some(_), State::Error) => {
                let failure = facts.failure.clone().map(|f| Failure {
                    failed_in: State::Cleanup,
                    ..f
                });
                Ok(Step::Moved(
                    State::Error,
                    Facts {
                        claim: None,
                        failure,
                        ..facts
                    },
                ))
            }
            (Some(_), State::Initial | State::Discovery | State::Available | State::Cleanup | State::Maintenance) => Err(no_arrow()),
            // Nobody holds it: this claim has let go before.
            (None, _) => match &facts.debt {
                Some(debt) if debt.claim.uid == claim.uid => Ok(Step::Unchanged),
                Some(_) | None => Err(no_arrow()),
            },
        },
        Event::CleanupDone { ref certificate } => match (state, certificate) {
            (State::Cleanup, Some(certificate)) => onward(pay(facts, certificate)?),
            (State::Cleanup, None) => match &facts.debt {
                Some(debt) => Err(Rejected::Owes { since: debt.origin() }),
                None => onward(facts),
            },
            (State::Available, _) => Ok(Step::Unchanged),
            (State::Initial | State::Discovery | State::Reserved | State::Maintenance | State::Error, _) => Err(no_arrow()),
        },
        Event::BeginMaintenance { ref maintenance } => match state {
            State::Available | State::Error => Ok(Step::Moved(
                State::Maintenance,
                Facts {
                    maintenance: Some(maintenance.clone()),
                    failure: None,
                    ..facts
                },
            )),
            State::Maintenance if facts.maintenance.as_ref() == Some(maintenance) => Ok(Step::Unchanged),
            State::Initial | State::Discovery | State::Reserved | State::Cleanup | State::Maintenance => Err(no_arrow()),
        },
        Event::MaintenanceDone { ref maintenance } => match (&facts.maintenance, state) {
            (Some(holder), _) if holder.uid != maintenance.uid => Err(Rejected::Held {
                holder: format!("maintenance {}", holder.name),
                asked: format!("maintenance {}", maintenance.name),
            }),
            (Some(_), State::Maintenance) => onward(facts),
            // It failed while maintained: letting go leaves the Error to whoever resolves it.
            (Some(_), State::Error) => Ok(Step::Moved(
                State::Error,
                Facts {
                    maintenance: None,
                    ..facts
                },
            )),
            (Some(_), State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup) => Err(no_arrow()),
            (None, State::Initial | State::Maintenance) => Err(no_arrow()),
            (None, State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Error) => Ok(Step::Unchanged),
        },
        Event::Fail(ref failure) => match state {
            State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Maintenance => {
                let failure = Failure {
                    failed_in: state,
                    ..failure.clone()
                };
                Ok(Step::Moved(
                    State::Error,
                    Facts {
                        failure: Some(failure),
                        ..facts
                    },
                ))
            }
            State::Error => Ok(Step::Unchanged),
            State::Initial => Err(no_arrow()),
        },
        Event::Resolve => match state {
            State::Error => available(facts),
            State::Available => Ok(Step::Unchanged),
            State::Initial | State::Discovery | State::Reserved | State::Cleanup | State::Maintenance => Err(no_arrow()),
        },
        Event::Retry => match state {
            State::Error => retry(facts),
            State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Maintenance => Err(no_arrow()),
        },
        Event::Waive => match (state, &facts.debt, &facts.claim) {
            (State::Error, None, _) => Err(Rejected::NothingOwed),
            (State::Error, Some(_), Some(claim)) => Err(Rejected::Held {
                holder: format!("claim {}", claim.name),
                asked: "an administrator".to_owned(),
            }),
            (State::Error, Some(_), None) => Ok(Step::Moved(State::Error, Facts { debt: None, ..facts })),
            (State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Maintenance, _, _) => {
                Err(no_arrow())
            }
        },
        Event::Forgive(ref forgiven) => match (state, facts.debt.clone()) {
            (State::Reserved | State::Cleanup | State::Maintenance | State::Error, Some(debt)) => {
                Ok(forgive(debt, forgiven).map_or(Step::Unchanged, |debt| Step::Moved(state, Facts { debt: Some(debt), ..facts })))
            }
            (State::Maintenance | State::Error, None) => Err(Rejected::NothingOwed),
            (State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup, _) => Err(no_arrow()),
        },
    }
}

/// A debt without one of its parts; `None` where it has no such part.
fn forgive(debt: Debt, forgiven: &Forgiven) -> Option<Debt> {
    let lowered = match forgiven.part {
        Part::Minimum if debt.minimum > Category::default() => Debt {
            minimum: Category::default(),
            ..debt
        },
        Part::Retention if debt.retain => Debt { retain: false, ..debt },
        Part::Minimum | Part::Retention => return None,
    };
    let Debt { forgiven: earlier, .. } = &lowered;
    let forgiven = earlier.iter().cloned().chain([forgiven.clone()]).collect();
    Some(Debt { forgiven, ..lowered })
}

/// Back to where it failed, if that is still a place for it; otherwise onward.
fn retry(facts: Facts) -> Result<Step, Rejected> {
    let failed_in = facts.failure.as_ref().map(|f| f.failed_in);
    match failed_in {
        Some(State::Maintenance) if facts.maintenance.is_some() => Ok(Step::Moved(State::Maintenance, Facts { failure: None, ..facts })),
        Some(State::Discovery) if facts.claim.is_none() && facts.debt.is_none() => Ok(Step::Moved(
            State::Discovery,
            Facts {
                maintenance: None,
                failure: None,
                ..facts
            },
        )),
        Some(
            State::Initial | State::Discovery | State::Available | State::Reserved | State::Cleanup | State::Maintenance | State::Error,
        )
        | None => onward(facts),
    }
}

#[cfg(test)]
mod tests;
