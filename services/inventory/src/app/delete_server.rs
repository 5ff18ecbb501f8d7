use ironyard_db::{Outcome, Stored, Tx, record};
use ironyard_operation::MutateError;
use ironyard_resource::{Context, fault_of};
use ironyard_rpc::{Fault, Reason};

use super::store_fault;
use crate::{
    domain::server::Server,
    store::{self, history::Entry},
};

/// Deletes a server that nobody holds and that owes nothing: a deleted debt would be a forgotten one, because the machine would be
/// discovered again as new.
pub async fn delete_server(cx: &Context, name: &str, etag: &str, actor: &str) -> Result<(), Fault> {
    let mut tx = cx.db.begin().await.map_err(store_fault)?;
    let server = record::get_for_update::<Server>(&mut tx, name).await.map_err(store_fault)?;
    let server = server.ok_or_else(|| fault_of::<Server>(name, MutateError::Missing))?;
    if !etag.is_empty() && etag != server.etag() {
        return Err(fault_of::<Server>(name, MutateError::Stale));
    }
    if let Some(fault) = obstacle(&server.value) {
        return Err(fault);
    }
    remove(cx, &mut tx, &server, actor, String::new()).await?;
    tx.commit().await.map_err(store_fault)
}

/// Why a server may not be forgotten.
pub(crate) fn obstacle(server: &Server) -> Option<Fault> {
    let (name, facts) = (&server.metadata.name, &server.facts);
    let holder = facts.claim.as_ref().map(|c| format!("claim {}", c.name));
    let holder = holder.or_else(|| facts.maintenance.as_ref().map(|m| format!("maintenance {}", m.name)));
    if let Some(holder) = holder {
        return Some(Fault::new(
            Reason::ServerInUse,
            format!("server {name} is held by {holder}; end that first"),
        ));
    }
    let owed = || {
        Fault::new(
            Reason::SanitizationOwed,
            format!("server {name} owes a wipe; let the cleanup pass, or waive it by name"),
        )
    };
    facts.debt.is_some().then(owed)
}

/// Deletes a server that was read in this transaction, with a history entry.
pub(crate) async fn remove(cx: &Context, tx: &mut Tx, server: &Stored<Server>, actor: &str, reason: String) -> Result<(), Fault> {
    let metadata = &server.value.metadata;
    match store::server::delete(tx, server, cx.now()).await.map_err(store_fault)? {
        Outcome::Written(()) => {}
        Outcome::Stale => return Err(fault_of::<Server>(&metadata.name, MutateError::Stale)),
        Outcome::Missing => return Err(fault_of::<Server>(&metadata.name, MutateError::Missing)),
    }
    let entry = Entry {
        event: "Delete".to_owned(),
        from: Some(server.value.state),
        to: None,
        actor: actor.to_owned(),
        reason,
        at: cx.now(),
    };
    store::history::append(tx, &metadata.name, &metadata.uid, &entry)
        .await
        .map_err(store_fault)
}
