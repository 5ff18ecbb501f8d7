use ironyard_db::{Stored, record};
use ironyard_operation::{MutateError, Request};
use ironyard_resource::{Context, fault_of};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Condition, ConditionStatus};

use super::{
    store_fault,
    transition_server::{Why, transition_server},
};
use crate::domain::{lifecycle::Event, server::Server};

/// The condition in which the claim service tells whether it knows the claim that holds a server.
const CLAIM: &str = "ClaimExists";

/// Lets go of a server whose claim is lost. While the claim exists, only the claim gives its server back.
pub async fn release_server(cx: &Context, name: &str, why: Why) -> Result<Stored<Server>, Fault> {
    let server = record::get::<Server>(&cx.db, name).await.map_err(store_fault)?;
    let server = server.ok_or_else(|| fault_of::<Server>(name, MutateError::Missing))?;
    let Some(claim) = server.value.facts.claim.clone() else {
        return Err(Fault::new(Reason::TransitionRefused, format!("server {name} is held by no claim")));
    };
    // The condition may be about an earlier claim.
    let lost = |c: &Condition| c.kind == CLAIM && c.status == ConditionStatus::False && c.message.contains(&claim.uid);
    if !server.value.conditions.iter().any(lost) {
        let message = format!(
            "server {name} is held by claim {}; delete the claim, and it is given back",
            claim.name
        );
        return Err(Fault::new(Reason::ServerInUse, message));
    }
    let etag = server.etag();
    transition_server(cx, &Request::default(), name, &etag, Event::Release { claim }, why).await
}
