//! One use case a file: load, decide, save.

pub mod create_server;
pub mod delete_server;
pub mod release_server;
pub mod report_server;
pub mod reserve_server;
pub mod transition_server;
pub mod update_server;

use ironyard_db::{Outcome, Stored, Tx};
use ironyard_operation::{Known, MutateError, Request};
use ironyard_resource::{Context, Kind, fault_of};
use ironyard_rpc::{Fault, Reason};

use crate::{
    domain::server::Server,
    store::{self, history::Entry},
};

impl Kind for Server {
    const NOUN: &'static str = "server";
    const NOT_FOUND: Reason = Reason::ServerNotFound;
    const EXISTS: Reason = Reason::ServerExists;
    const CHANGED: Reason = Reason::ServerChanged;
}

pub(crate) fn store_fault(error: ironyard_db::Error) -> Fault {
    match error {
        ironyard_db::Error::Unique { constraint } if constraint == "server_identity_key" => Fault::new(
            Reason::DuplicateSystemUuid,
            "another server has this system UUID (or maker and serial number); one machine is one server",
        ),
        ironyard_db::Error::Unique { constraint } if constraint == "server_place_key" => Fault::new(
            Reason::DuplicateSystemUuid,
            "another server is this system of this BMC; one machine is one server",
        ),
        // Two calls at once with the same request id, or for the same claim: the loser repeats and gets the winner's answer.
        ironyard_db::Error::Unique { constraint } if constraint.starts_with("request_") || constraint == "server_claim_uid_key" => {
            Fault::new(Reason::ServerChanged, "the same request is being served; repeat it")
        }
        other => Fault::internal(&other),
    }
}

/// Changes a server under its own rules, with a history entry where `change` gives one; once per request id.
pub(crate) async fn change(
    cx: &Context,
    request: &Request,
    name: &str,
    etag: &str,
    change: impl FnOnce(&mut Server) -> Result<Option<Entry>, Fault>,
) -> Result<Stored<Server>, Fault> {
    let mut tx = cx.db.begin().await.map_err(store_fault)?;
    match request.known(&mut tx).await.map_err(store_fault)? {
        Known::Replay(answer) => return Ok(answer),
        Known::Reused => return Err(fault_of::<Server>(name, MutateError::RequestReused)),
        Known::Fresh => {}
    }
    let before = ironyard_db::record::get_for_update::<Server>(&mut tx, name)
        .await
        .map_err(store_fault)?;
    let before = before.ok_or_else(|| fault_of::<Server>(name, MutateError::Missing))?;
    if !etag.is_empty() && etag != before.etag() {
        return Err(fault_of::<Server>(name, MutateError::Stale));
    }
    let mut after = before.clone();
    let entry = change(&mut after.value)?;
    let stored = if after.value == before.value {
        before
    } else {
        write(cx, &mut tx, &before, &after).await?
    };
    if let Some(entry) = entry {
        let metadata = &stored.value.metadata;
        store::history::append(&mut tx, &metadata.name, &metadata.uid, &entry)
            .await
            .map_err(store_fault)?;
    }
    request.answered(&mut tx, &stored, cx.now()).await.map_err(store_fault)?;
    tx.commit().await.map_err(store_fault)?;
    Ok(stored)
}

pub(crate) async fn write(cx: &Context, tx: &mut Tx, before: &Stored<Server>, after: &Stored<Server>) -> Result<Stored<Server>, Fault> {
    match store::server::update(tx, &before.value, after, cx.now())
        .await
        .map_err(store_fault)?
    {
        Outcome::Written(stored) => Ok(stored),
        Outcome::Stale => Err(fault_of::<Server>(&before.value.metadata.name, MutateError::Stale)),
        Outcome::Missing => Err(fault_of::<Server>(&before.value.metadata.name, MutateError::Missing)),
    }
}
