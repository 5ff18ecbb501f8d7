use std::{pin::Pin, time::Duration};

use futures_util::{Stream, TryStreamExt};
use ironyard_db::{Stored, record};
use ironyard_operation::{Operation, Request as IdempotencyKey};
use ironyard_proto::{
    bmc::{self as pb, operation_service_server::OperationService},
    common,
};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, Page, list_newest, names};
use ironyard_rpc::{Fault, Identity, Reason};
use tonic::{Request, Response, Status};

use super::convert::operation_to;
use crate::app::begin_operation::bmc_of;

/// Longest wait; callers that want longer call again.
const LONGEST: Duration = Duration::from_secs(25);

/// The service on the wire.
pub struct Grpc {
    /// Database and time.
    pub cx: Context,
    /// Operations.
    pub operations: Queue,
}

impl Grpc {
    async fn find(&self, name: &str) -> Result<Stored<Operation>, Fault> {
        let found = record::get(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))?;
        found.ok_or_else(|| Fault::new(Reason::OperationNotFound, format!("no operation is called {name:?}")))
    }
}

#[tonic::async_trait]
impl OperationService for Grpc {
    async fn get_operation(&self, request: Request<pb::GetOperationRequest>) -> Result<Response<common::Operation>, Status> {
        Ok(Response::new(operation_to(self.find(&request.into_inner().name).await?)))
    }

    async fn list_operations(&self, request: Request<pb::ListOperationsRequest>) -> Result<Response<pb::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let filter: &[(&str, &str)] = if request.running_only { &[("done", "false")] } else { &[] };
        let page = Page::of(request.page_size, request.page_token);
        let (rows, next_page_token) = list_newest::<Operation>(&self.cx, &page, filter).await?;
        Ok(Response::new(pb::ListOperationsResponse {
            operations: rows.into_iter().map(operation_to).collect(),
            next_page_token,
        }))
    }

    async fn wait_operation(&self, request: Request<pb::WaitOperationRequest>) -> Result<Response<common::Operation>, Status> {
        let name = request.into_inner().name;
        let mut changed = self.cx.db.subscribe();
        let deadline = tokio::time::sleep(LONGEST);
        tokio::pin!(deadline);
        loop {
            changed.mark_unchanged();
            let row = self.find(&name).await?;
            if row.value.done {
                return Ok(Response::new(operation_to(row)));
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = &mut deadline => return Ok(Response::new(operation_to(row))),
            }
        }
    }

    type WatchOperationsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchOperationsResponse, Status>> + Send>>;

    async fn watch_operations(
        &self,
        request: Request<pb::WatchOperationsRequest>,
    ) -> Result<Response<Self::WatchOperationsStream>, Status> {
        let changes = names::<Operation>(self.cx.clone(), request.into_inner().resume_token);
        let stream = changes.map_ok(|(changes, resume_token)| pb::WatchOperationsResponse { changes, resume_token });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_operation(&self, request: Request<pb::CancelOperationRequest>) -> Result<Response<common::Operation>, Status> {
        let caller = request.extensions().get::<Identity>().map(|i| i.name.clone()).unwrap_or_default();
        let pb::CancelOperationRequest { name, reason } = request.into_inner();
        let by = if reason.is_empty() { caller } else { format!("{caller}: {reason}") };
        let mut row = self.find(&name).await?;
        // The runner writes the same row; whoever is late reads again.
        for _ in 0..20 {
            if row.value.done {
                break;
            }
            let (idempotency_key, etag, now) = (IdempotencyKey::default(), row.etag(), self.cx.now());
            let cancel = |o: &mut Operation| {
                if !o.cancel {
                    (o.cancel, o.cancelled_by) = (true, by.clone());
                }
                Ok(())
            };
            match ironyard_operation::update::<Operation, Fault>(&self.cx.db, &idempotency_key, &name, &etag, now, cancel).await {
                Ok(stored) => {
                    self.operations
                        .enqueue_for(&name, bmc_of(&stored.value))
                        .await
                        .map_err(|e| Fault::internal(&e))?;
                    row = stored;
                    break;
                }
                Err(ironyard_operation::MutateError::Stale) => row = self.find(&name).await?,
                Err(error) => return Err(Fault::internal(&error).into()),
            }
        }
        Ok(Response::new(operation_to(row)))
    }
}
