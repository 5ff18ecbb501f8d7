use ironyard_db::Stored;
use ironyard_operation::Request;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Identity, Reason, Role};
use ironyard_types::Category;

use super::change;
use crate::{
    domain::{
        claimability::ADOPTABLE,
        lifecycle::{Event, EventKind, FirstWipe, Rejected, State, Step, step},
        server::Server,
    },
    store::history::Entry,
};

/// Who did it and why, for the history.
#[derive(Debug, Clone, Default)]
pub struct Why {
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Moves a server along one arrow; transition, history row and change-feed row are one transaction.
pub async fn transition_server(
    cx: &Context,
    request: &Request,
    name: &str,
    etag: &str,
    event: Event,
    why: Why,
) -> Result<Stored<Server>, Fault> {
    let now = cx.now();
    change(cx, request, name, etag, |server| {
        let event = match event {
            // What is owed is what the machine is known to have now.
            Event::DiscoveryDone(Some(owed)) => Event::DiscoveryDone(Some(FirstWipe {
                drives: server.known_drives(),
                minimum: Category::parse(&server.spec.sanitization_minimum),
                ..owed
            })),
            other => other,
        };
        let kind = event.kind();
        let from = server.state;
        match step(server.state, &server.facts, event).map_err(|rejected| refusal(name, &rejected))? {
            Step::Unchanged => Ok(None),
            Step::Moved(state, facts) => {
                (server.state, server.facts) = (state, facts);
                if state != from {
                    // What it waited for belongs to the state that it left; so does whether it may be adopted.
                    server.waiting = None;
                    server.conditions.retain(|condition| condition.kind != ADOPTABLE);
                }
                if kind == EventKind::Waive {
                    server.forget_drives(now);
                }
                let Why { actor, reason } = why;
                Ok(Some(Entry {
                    event: format!("{kind:?}"),
                    from: Some(from),
                    to: Some(state),
                    actor,
                    reason,
                    at: now,
                }))
            }
        }
    })
    .await
}

fn refusal(name: &str, rejected: &Rejected) -> Fault {
    let reason = match rejected {
        Rejected::Owes { .. } | Rejected::Unpaid { .. } => Reason::SanitizationOwed,
        Rejected::NothingOwed => Reason::NothingOwed,
        Rejected::NoArrow { .. } | Rejected::Held { .. } | Rejected::Undiscovered => Reason::TransitionRefused,
    };
    Fault::new(reason, format!("server {name}: {rejected}"))
}

/// Every arrow is drawn by exactly one service.
pub fn may_send(caller: &Identity, event: EventKind, state: State) -> bool {
    let owner = match event {
        EventKind::BeginDiscovery | EventKind::DiscoveryDone => Role::Discovery,
        EventKind::Reserve | EventKind::Adopt | EventKind::Release | EventKind::CleanupDone => Role::Claim,
        EventKind::BeginMaintenance | EventKind::MaintenanceDone => Role::Maintenance,
        EventKind::Resolve | EventKind::Retry => Role::Operator,
        EventKind::Waive | EventKind::Forgive => Role::Administrator,
        EventKind::Fail => match state {
            State::Initial | State::Discovery => Role::Discovery,
            State::Reserved | State::Cleanup => Role::Claim,
            State::Available | State::Maintenance | State::Error => Role::Maintenance,
        },
    };
    caller.local || caller.role == owner
}
