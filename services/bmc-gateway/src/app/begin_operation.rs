use ironyard_db::{Stored, record};
use ironyard_operation::{Known, Operation, Request};
use ironyard_reconcile::Queue;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason, current_traceparent};
use serde::Serialize;

/// Stores an operation and makes it due, in one transaction; once per request id.
pub async fn begin_operation<A: Serialize>(
    cx: &Context,
    queue: &Queue,
    request: &Request,
    verb: &str,
    target: String,
    line: Option<String>,
    asked: &A,
) -> Result<Stored<Operation>, Fault> {
    let store = |e: ironyard_db::Error| Fault::internal(&e);
    let asked = serde_json::to_value(asked).map_err(|e| Fault::internal(&e))?;
    // Most calls ask how it goes.
    if let Some(begun) = begun_before(cx, request).await? {
        return Ok(begun);
    }
    let mut tx = cx.db.begin().await.map_err(store)?;
    let name: String = match request.known(&mut tx).await.map_err(store)? {
        Known::Reused => return Err(Fault::new(Reason::RequestIdReused, "this request_id was used for another request")),
        Known::Replay(name) => name,
        Known::Fresh => {
            let operation = Operation::new(verb, target, line, asked, current_traceparent());
            let stored = record::insert(&mut tx, operation, cx.now()).await.map_err(store)?;
            let name = stored.value.metadata.name.clone();
            queue.enqueue_in(&mut tx, &name, bmc_of(&stored.value)).await.map_err(store)?;
            request.answered(&mut tx, &name, cx.now()).await.map_err(|e| match e {
                // The same request at the same moment: the loser repeats and finds the winner's operation.
                ironyard_db::Error::Unique { .. } => Fault::new(Reason::BmcBusy, "the same request is being served; repeat it"),
                other => Fault::internal(&other),
            })?;
            tx.commit().await.map_err(store)?;
            queue.wake();
            return Ok(stored);
        }
    };
    drop(tx);
    // A replay is told how the operation stands now, not how it stood when it began.
    find(cx, &name).await
}

/// The operation that this very request began before.
pub async fn begun_before(cx: &Context, request: &Request) -> Result<Option<Stored<Operation>>, Fault> {
    let store = |e: ironyard_db::Error| Fault::internal(&e);
    match request.known_already::<String>(&cx.db).await.map_err(store)? {
        Known::Replay(name) => find(cx, &name).await.map(Some),
        Known::Fresh | Known::Reused => Ok(None),
    }
}

async fn find(cx: &Context, name: &str) -> Result<Stored<Operation>, Fault> {
    let stored = record::get(&cx.db, name).await.map_err(|e| Fault::internal(&e))?;
    stored.ok_or_else(|| Fault::new(Reason::OperationNotFound, format!("operation {name} is gone")))
}

/// The BMC that an operation is about: what is said of its target begins with it.
pub fn bmc_of(operation: &Operation) -> &str {
    operation.target.split(['/', ' ']).next().unwrap_or_default()
}
