use ironyard_db::{Stored, record};
use ironyard_operation::{Known, MutateError, Request};
use ironyard_resource::{Context, fault_of};
use ironyard_rpc::Fault;

use super::{delete_server, store_fault};
use crate::{
    domain::{lifecycle::State, server::Server},
    store::{self, history::Entry},
};

/// Creates a server in state Initial.
pub async fn create_server(cx: &Context, request: &Request, server: Server, actor: &str) -> Result<Stored<Server>, Fault> {
    let mut tx = cx.db.begin().await.map_err(store_fault)?;
    let name = server.metadata.name.clone();
    match request.known(&mut tx).await.map_err(store_fault)? {
        Known::Replay(answer) => return Ok(answer),
        Known::Reused => return Err(fault_of::<Server>(&name, MutateError::RequestReused)),
        Known::Fresh => {}
    }
    if record::get_for_update::<Server>(&mut tx, &name)
        .await
        .map_err(store_fault)?
        .is_some()
    {
        return Err(fault_of::<Server>(&name, MutateError::Exists));
    }
    give_way(cx, &mut tx, &server, actor).await?;
    let stored = store::server::insert(&mut tx, server, cx.now()).await.map_err(store_fault)?;
    let entry = Entry {
        event: "Create".to_owned(),
        from: None,
        to: Some(State::Initial),
        actor: actor.to_owned(),
        reason: String::new(),
        at: cx.now(),
    };
    store::history::append(&mut tx, &name, &stored.value.metadata.uid, &entry)
        .await
        .map_err(store_fault)?;
    request.answered(&mut tx, &stored, cx.now()).await.map_err(store_fault)?;
    tx.commit().await.map_err(store_fault)?;
    Ok(stored)
}

/// Set on servers that discovery created by itself.
pub const AUTO_CREATED: &str = "ironyard.dev/auto-created";

/// A server that discovery named by itself gives way to the user's own document for the same machine, as long as nobody holds it and
/// it owes nothing: then nothing is forgotten.
async fn give_way(cx: &Context, tx: &mut ironyard_db::Tx, server: &Server, actor: &str) -> Result<(), Fault> {
    let auto = |s: &Server| s.metadata.annotations.get(AUTO_CREATED).is_some_and(|v| v == "true");
    let Some(identity) = server.identity().filter(|_| !auto(server)) else {
        return Ok(());
    };
    let Some(old) = store::server::by_identity(tx, &identity).await.map_err(store_fault)? else {
        return Ok(());
    };
    if auto(&old.value) && delete_server::obstacle(&old.value).is_none() {
        let reason = format!("replaced by {}", server.metadata.name);
        delete_server::remove(cx, tx, &old, actor, reason).await?;
    }
    Ok(())
}
