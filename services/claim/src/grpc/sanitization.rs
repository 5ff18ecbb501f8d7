use ironyard_db::record;
use ironyard_operation::Request as IdempotencyKey;
use ironyard_proto::claim::{self as pb, sanitization_service_server::SanitizationService};
use ironyard_resource::{Page, get, list_newest, update};
use ironyard_rpc::{Fault, Identity, Reason};
use tonic::{Request, Response, Status};

use super::convert::{certificate_to, evidence_to, run_to};
use crate::{
    app::{App, store_fault},
    domain::{
        cleanup::{Certificate, CleanupRun},
        evidence::Evidence,
    },
};

/// The service on the wire.
pub struct Grpc(pub App);

/// Those of a server; without a name, all.
fn of_server(server: &str) -> Vec<(&'static str, &str)> {
    if server.is_empty() { vec![] } else { vec![("server", server)] }
}

#[tonic::async_trait]
impl SanitizationService for Grpc {
    async fn get_certificate(&self, request: Request<pb::GetCertificateRequest>) -> Result<Response<pb::SanitizationCertificate>, Status> {
        let stored = get::<Certificate>(&self.0.cx, &request.into_inner().name).await?;
        Ok(Response::new(certificate_to(stored)))
    }

    async fn get_evidence(&self, request: Request<pb::GetEvidenceRequest>) -> Result<Response<pb::SanitizationEvidence>, Status> {
        let stored = get::<Evidence>(&self.0.cx, &request.into_inner().name).await?;
        Ok(Response::new(evidence_to(stored.value)))
    }

    async fn list_certificates(
        &self,
        request: Request<pb::ListCertificatesRequest>,
    ) -> Result<Response<pb::ListCertificatesResponse>, Status> {
        let pb::ListCertificatesRequest {
            server,
            page_size,
            page_token,
        } = request.into_inner();
        let (rows, next_page_token) = list_newest::<Certificate>(&self.0.cx, &Page::of(page_size, page_token), &of_server(&server)).await?;
        Ok(Response::new(pb::ListCertificatesResponse {
            certificates: rows.into_iter().map(certificate_to).collect(),
            next_page_token,
        }))
    }

    async fn list_cleanup_runs(
        &self,
        request: Request<pb::ListCleanupRunsRequest>,
    ) -> Result<Response<pb::ListCleanupRunsResponse>, Status> {
        let pb::ListCleanupRunsRequest {
            server,
            page_size,
            page_token,
        } = request.into_inner();
        let (rows, next_page_token) = list_newest::<CleanupRun>(&self.0.cx, &Page::of(page_size, page_token), &of_server(&server)).await?;
        Ok(Response::new(pb::ListCleanupRunsResponse {
            cleanup_runs: rows.into_iter().map(run_to).collect(),
            next_page_token,
        }))
    }

    async fn cancel_cleanup(&self, request: Request<pb::CancelCleanupRequest>) -> Result<Response<pb::CleanupRun>, Status> {
        let caller = request.extensions().get::<Identity>().map(|i| i.name.clone()).unwrap_or_default();
        let pb::CancelCleanupRequest { server, reason, actor } = request.into_inner();
        for (field, text) in [("reason", &reason), ("actor", &actor)] {
            if text.trim().is_empty() {
                return Err(Fault::field(field, "is missing: it is on the record of the run").into());
            }
        }
        let running = record::list_newest::<CleanupRun>(&self.0.cx.db, 1, &[("server", &server), ("done", "false")])
            .await
            .map_err(store_fault)?;
        let run = running
            .first()
            .ok_or_else(|| Fault::new(Reason::TransitionRefused, format!("server {server} is not being wiped")))?;
        let who = format!("{actor} ({caller}): {reason}");
        let stored = update::<CleanupRun>(&self.0.cx, &IdempotencyKey::default(), &run.value.metadata.name, "", |run| {
            run.cancelled.get_or_insert(who);
            Ok(())
        })
        .await?;
        self.0.cleanups.enqueue(&server).await.map_err(store_fault)?;
        Ok(Response::new(run_to(stored)))
    }
}
