use std::pin::Pin;

use futures_util::Stream;
use ironyard_db::Stored;
use ironyard_proto::{
    common::ChangeType,
    discovery::{self as pb, endpoint_service_server::EndpointService},
};
use ironyard_resource::{Event, Mask, Page, create, delete, get, list, request, update, watch};
use ironyard_rpc::{
    Fault,
    convert::{condition_to, metadata_checked, metadata_to, reference_to, selector_from},
};
use ironyard_types::MacAddress;
use tonic::{Request, Response, Status};

use crate::{
    app::{App, store_fault},
    domain::endpoint::Endpoint,
};

const FIELDS: &[&str] = &["metadata.labels", "metadata.annotations", "spec", "spec.mac_address", "spec.ip"];

/// The service on the wire.
pub struct Grpc(pub App);

fn endpoint_to(stored: Stored<Endpoint>) -> pb::Endpoint {
    let etag = stored.etag();
    let Stored {
        value,
        version: _,
        created_at,
        updated_at,
    } = stored;
    let Endpoint {
        metadata,
        mac,
        ip,
        conditions,
        bmc,
    } = value;
    pb::Endpoint {
        metadata: Some(metadata_to(metadata, etag, created_at, updated_at)),
        spec: Some(pb::EndpointSpec {
            mac_address: mac.to_string(),
            ip: ip.to_string(),
        }),
        conditions: conditions.into_iter().map(condition_to).collect(),
        bmc_ref: bmc.map(reference_to),
    }
}

fn endpoint_from(endpoint: Option<pb::Endpoint>) -> Result<(Endpoint, String), Fault> {
    let endpoint = endpoint.ok_or_else(|| Fault::field("endpoint", "is missing"))?;
    let etag = endpoint.metadata.as_ref().map(|m| m.etag.clone()).unwrap_or_default();
    let metadata = metadata_checked("endpoint.metadata", endpoint.metadata)?;
    let pb::EndpointSpec { mac_address, ip } = endpoint.spec.unwrap_or_default();
    let mac = MacAddress::parse(&mac_address).map_err(|e| Fault::field("endpoint.spec.mac_address", e))?;
    let ip = ip
        .parse()
        .map_err(|_| Fault::field("endpoint.spec.ip", format!("{ip:?} is not an IP address")))?;
    Ok((
        Endpoint {
            metadata,
            mac,
            ip,
            conditions: vec![],
            bmc: None,
        },
        etag,
    ))
}

impl Grpc {
    async fn enqueue(&self, name: &str) -> Result<(), Fault> {
        self.0.endpoints.enqueue(name).await.map_err(store_fault)
    }
}

#[tonic::async_trait]
impl EndpointService for Grpc {
    async fn get_endpoint(&self, request: Request<pb::GetEndpointRequest>) -> Result<Response<pb::Endpoint>, Status> {
        Ok(Response::new(endpoint_to(get(&self.0.cx, &request.into_inner().name).await?)))
    }

    async fn list_endpoints(&self, request: Request<pb::ListEndpointsRequest>) -> Result<Response<pb::ListEndpointsResponse>, Status> {
        let pb::ListEndpointsRequest {
            page_size,
            page_token,
            selector,
        } = request.into_inner();
        let page = Page {
            size: page_size,
            token: page_token,
            selector: selector_from("selector", selector)?,
        };
        let (endpoints, next_page_token) = list::<Endpoint>(&self.0.cx, &page, &[]).await?;
        Ok(Response::new(pb::ListEndpointsResponse {
            endpoints: endpoints.into_iter().map(endpoint_to).collect(),
            next_page_token,
        }))
    }

    async fn create_endpoint(&self, request_: Request<pb::CreateEndpointRequest>) -> Result<Response<pb::Endpoint>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("CreateEndpoint", &message.request_id, &message);
        let (endpoint, _) = endpoint_from(message.endpoint)?;
        let stored = create(&self.0.cx, &idempotency_key, endpoint).await?;
        self.enqueue(&stored.value.metadata.name).await?;
        Ok(Response::new(endpoint_to(stored)))
    }

    async fn update_endpoint(&self, request_: Request<pb::UpdateEndpointRequest>) -> Result<Response<pb::Endpoint>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("UpdateEndpoint", &message.request_id, &message);
        let mask = Mask::parse(message.update_mask, FIELDS)?;
        let (new, etag) = endpoint_from(message.endpoint)?;
        let name = new.metadata.name.clone();
        let stored = update::<Endpoint>(&self.0.cx, &idempotency_key, &name, &etag, |endpoint| {
            mask.apply("metadata.labels", &mut endpoint.metadata.labels, new.metadata.labels);
            mask.apply("metadata.annotations", &mut endpoint.metadata.annotations, new.metadata.annotations);
            mask.apply("spec.mac_address", &mut endpoint.mac, new.mac);
            mask.apply("spec.ip", &mut endpoint.ip, new.ip);
            Ok(())
        })
        .await?;
        self.enqueue(&name).await?;
        Ok(Response::new(endpoint_to(stored)))
    }

    async fn delete_endpoint(&self, request: Request<pb::DeleteEndpointRequest>) -> Result<Response<pb::DeleteEndpointResponse>, Status> {
        let pb::DeleteEndpointRequest { name, etag } = request.into_inner();
        delete::<Endpoint>(&self.0.cx, &name, &etag, |_| Ok(())).await?;
        Ok(Response::new(pb::DeleteEndpointResponse {}))
    }

    type WatchEndpointsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchEndpointsResponse, Status>> + Send>>;

    async fn watch_endpoints(&self, request: Request<pb::WatchEndpointsRequest>) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let stream = watch::<Endpoint, _>(self.0.cx.clone(), request.into_inner().resume_token, |event, resume_token| {
            let (kind, endpoint) = match event {
                Event::Present(kind, stored) => (kind, Some(endpoint_to(stored))),
                Event::Gone(metadata) => (
                    ChangeType::Deleted,
                    Some(pb::Endpoint {
                        metadata: Some(metadata),
                        ..pb::Endpoint::default()
                    }),
                ),
                Event::Checkpoint => (ChangeType::Checkpoint, None),
            };
            pb::WatchEndpointsResponse {
                r#type: kind.into(),
                endpoint,
                resume_token,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
