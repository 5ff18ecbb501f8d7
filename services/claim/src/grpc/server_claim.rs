use std::pin::Pin;

use futures_util::Stream;
use ironyard_operation::Request as IdempotencyKey;
use ironyard_proto::{
    claim::{self as pb, server_claim_service_server::ServerClaimService},
    common::ChangeType,
};
use ironyard_resource::{Event, Mask, Page, create, get, list, request, update, watch};
use ironyard_rpc::{Fault, convert::selector_from};
use tonic::{Request, Response, Status};

use super::convert::{claim_from, claim_to};
use crate::{
    app::{App, store_fault},
    domain::server_claim::{Phase, ServerClaim},
};

const FIELDS: &[&str] = &[
    "metadata.labels",
    "metadata.annotations",
    "spec",
    "spec.server_ref",
    "spec.server_selector",
    "spec.power",
    "spec.image",
    "spec.ignition",
    "spec.tolerations",
    "spec.adopt",
];

/// The service on the wire.
pub struct Grpc(pub App);

impl Grpc {
    async fn enqueue(&self, name: &str) -> Result<(), Fault> {
        self.0.claims.enqueue(name).await.map_err(store_fault)?;
        self.0.wake_binder().await.map_err(store_fault)
    }
}

#[tonic::async_trait]
impl ServerClaimService for Grpc {
    async fn get_server_claim(&self, request: Request<pb::GetServerClaimRequest>) -> Result<Response<pb::ServerClaim>, Status> {
        Ok(Response::new(claim_to(get(&self.0.cx, &request.into_inner().name).await?)))
    }

    async fn list_server_claims(
        &self,
        request: Request<pb::ListServerClaimsRequest>,
    ) -> Result<Response<pb::ListServerClaimsResponse>, Status> {
        let pb::ListServerClaimsRequest {
            page_size,
            page_token,
            selector,
        } = request.into_inner();
        let page = Page {
            size: page_size,
            token: page_token,
            selector: selector_from("selector", selector)?,
        };
        let (claims, next_page_token) = list::<ServerClaim>(&self.0.cx, &page, &[]).await?;
        let server_claims = claims.into_iter().map(claim_to).collect();
        Ok(Response::new(pb::ListServerClaimsResponse {
            server_claims,
            next_page_token,
        }))
    }

    async fn create_server_claim(&self, request_: Request<pb::CreateServerClaimRequest>) -> Result<Response<pb::ServerClaim>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("CreateServerClaim", &message.request_id, &message);
        let (claim, _) = claim_from(message.server_claim)?;
        let stored = create(&self.0.cx, &idempotency_key, claim).await?;
        // What has no server yet is the binder's alone.
        self.0.wake_binder().await.map_err(store_fault)?;
        Ok(Response::new(claim_to(stored)))
    }

    async fn update_server_claim(&self, request_: Request<pb::UpdateServerClaimRequest>) -> Result<Response<pb::ServerClaim>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("UpdateServerClaim", &message.request_id, &message);
        let mask = Mask::parse(message.update_mask, FIELDS)?;
        let (new, etag) = claim_from(message.server_claim)?;
        let name = new.metadata.name.clone();
        let stored = update::<ServerClaim>(&self.0.cx, &idempotency_key, &name, &etag, |claim| {
            mask.apply("metadata.labels", &mut claim.metadata.labels, new.metadata.labels);
            mask.apply("metadata.annotations", &mut claim.metadata.annotations, new.metadata.annotations);
            let mut spec = claim.spec.clone();
            mask.apply("spec.server_ref", &mut spec.server, new.spec.server);
            mask.apply("spec.server_selector", &mut spec.selector, new.spec.selector);
            mask.apply("spec.tolerations", &mut spec.tolerations, new.spec.tolerations);
            let asked = claim.request();
            mask.apply("spec.adopt", &mut spec.adopt, new.spec.adopt);
            mask.apply("spec.power", &mut spec.power, new.spec.power);
            mask.apply("spec.image", &mut spec.image, new.spec.image);
            mask.apply("spec.ignition", &mut spec.ignition, new.spec.ignition);
            claim.spec = spec;
            if claim.phase != Phase::Pending && claim.request() != asked {
                return Err(Fault::field(
                    "server_claim.spec",
                    "what a claim asks for cannot change once it has a server",
                ));
            }
            Ok(())
        })
        .await?;
        self.enqueue(&name).await?;
        Ok(Response::new(claim_to(stored)))
    }

    async fn delete_server_claim(&self, request: Request<pb::DeleteServerClaimRequest>) -> Result<Response<pb::ServerClaim>, Status> {
        let pb::DeleteServerClaimRequest { name, etag } = request.into_inner();
        let now = self.0.cx.now();
        let traceparent = ironyard_rpc::current_traceparent();
        let stored = update::<ServerClaim>(&self.0.cx, &IdempotencyKey::default(), &name, &etag, |claim| {
            if claim.metadata.deleted_at.is_none() {
                claim.metadata.deleted_at = Some(now);
                claim.traceparent = traceparent;
            }
            Ok(())
        })
        .await?;
        self.enqueue(&name).await?;
        Ok(Response::new(claim_to(stored)))
    }

    type WatchServerClaimsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchServerClaimsResponse, Status>> + Send>>;

    async fn watch_server_claims(
        &self,
        request: Request<pb::WatchServerClaimsRequest>,
    ) -> Result<Response<Self::WatchServerClaimsStream>, Status> {
        let stream = watch::<ServerClaim, _>(self.0.cx.clone(), request.into_inner().resume_token, |event, resume_token| {
            let (kind, server_claim) = match event {
                Event::Present(kind, stored) => (kind, Some(claim_to(stored))),
                Event::Gone(metadata) => (
                    ChangeType::Deleted,
                    Some(pb::ServerClaim {
                        metadata: Some(metadata),
                        ..pb::ServerClaim::default()
                    }),
                ),
                Event::Checkpoint => (ChangeType::Checkpoint, None),
            };
            pb::WatchServerClaimsResponse {
                r#type: kind.into(),
                server_claim,
                resume_token,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
