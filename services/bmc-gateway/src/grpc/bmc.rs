use std::pin::Pin;

use futures_util::Stream;
use ironyard_peers::Inventory;
use ironyard_proto::{
    bmc::{self as pb, bmc_service_server::BmcService},
    common::ChangeType,
};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, Event, Mask, Page, create, delete, get, list, request, update, watch};
use ironyard_rpc::{Fault, Identity, Reason, convert::selector_from};
use tonic::{Request, Response, Status};

use super::convert::{bmc_from, bmc_to, check_spec};
use crate::{
    device::Devices,
    domain::{address, bmc::Bmc},
};

const FIELDS: &[&str] = &[
    "metadata.labels",
    "metadata.annotations",
    "spec",
    "spec.address",
    "spec.endpoint_ref",
    "spec.credential",
    "spec.scheme",
    "spec.port",
    "spec.tls_trust",
    "spec.certificate_sha256",
    "spec.console_protocol",
    "spec.console_port",
    "spec.console_host_key",
    "spec.mac_address",
    "spec.running_machines",
    "spec.first_wipe",
    "spec.tls_weaknesses",
];

/// The service on the wire.
pub struct Grpc {
    /// Database and time.
    pub cx: Context,
    /// Owners.
    pub devices: Devices,
    /// Probes.
    pub probes: Queue,
    /// Knows which servers depend on a BMC.
    pub inventory: Option<Inventory>,
}

impl Grpc {
    fn check(&self, bmc: &Bmc) -> Result<(), Fault> {
        if let Ok(ip) = bmc.spec.address.parse() {
            address::check(ip, self.devices.allowed()).map_err(|why| Fault::new(Reason::AddressRefused, why))?;
        }
        Ok(())
    }

    /// Refuses while servers depend on a BMC.
    async fn unused(&self, name: &str) -> Result<(), Fault> {
        let unknown = |why: String| {
            Fault::new(
                Reason::PeerUnavailable,
                format!("whether servers depend on BMC {name} is not known: {why}"),
            )
        };
        let inventory = self
            .inventory
            .as_ref()
            .ok_or_else(|| unknown("gateway.inventory is not set".to_owned()))?;
        let servers = inventory.of_bmc(name).await.map_err(|error| unknown(error.message))?;
        let Some(first) = servers.first() else { return Ok(()) };
        let (first, more) = (ironyard_peers::name(first), servers.len() - 1);
        let why = format!("server {first} and {more} others depend on BMC {name}; delete them first, or force it");
        Err(Fault::new(Reason::BmcInUse, why))
    }

    async fn probe(&self, name: &str) -> Result<(), Fault> {
        self.probes.enqueue(name).await.map_err(|e| Fault::internal(&e))
    }
}

#[tonic::async_trait]
impl BmcService for Grpc {
    async fn get_bmc(&self, request: Request<pb::GetBmcRequest>) -> Result<Response<pb::Bmc>, Status> {
        Ok(Response::new(bmc_to(get(&self.cx, &request.into_inner().name).await?)))
    }

    async fn list_bmcs(&self, request: Request<pb::ListBmcsRequest>) -> Result<Response<pb::ListBmcsResponse>, Status> {
        let pb::ListBmcsRequest {
            page_size,
            page_token,
            selector,
        } = request.into_inner();
        let page = Page {
            size: page_size,
            token: page_token,
            selector: selector_from("selector", selector)?,
        };
        let (bmcs, next_page_token) = list::<Bmc>(&self.cx, &page, &[]).await?;
        Ok(Response::new(pb::ListBmcsResponse {
            bmcs: bmcs.into_iter().map(bmc_to).collect(),
            next_page_token,
        }))
    }

    async fn create_bmc(&self, request_: Request<pb::CreateBmcRequest>) -> Result<Response<pb::Bmc>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("CreateBmc", &message.request_id, &message);
        let (bmc, _) = bmc_from(message.bmc)?;
        check_spec(&bmc.spec)?;
        self.check(&bmc)?;
        let stored = create(&self.cx, &idempotency_key, bmc).await?;
        self.probe(&stored.value.metadata.name).await?;
        Ok(Response::new(bmc_to(stored)))
    }

    async fn update_bmc(&self, request_: Request<pb::UpdateBmcRequest>) -> Result<Response<pb::Bmc>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("UpdateBmc", &message.request_id, &message);
        let mask = Mask::parse(message.update_mask, FIELDS)?;
        let (new, etag) = bmc_from(message.bmc)?;
        self.check(&new)?;
        let name = new.metadata.name.clone();
        let stored = update::<Bmc>(&self.cx, &idempotency_key, &name, &etag, |bmc| {
            mask.apply("metadata.labels", &mut bmc.metadata.labels, new.metadata.labels);
            mask.apply("metadata.annotations", &mut bmc.metadata.annotations, new.metadata.annotations);
            let (to, from) = (&mut bmc.spec, new.spec);
            let trusted = to.trust;
            // An address that discovery found for an endpoint stays when a document that only names the endpoint is applied again.
            let same = from.endpoint.is_some() && from.endpoint == to.endpoint || from.mac.is_some() && from.mac == to.mac;
            let derived = from.address.is_empty() && same;
            if !derived && mask.covers("spec.address") && to.address != from.address {
                // What was pinned stays pinned: another machine that may stand there is shown no password.
                to.address = from.address;
            }
            mask.apply("spec.endpoint_ref", &mut to.endpoint, from.endpoint);
            mask.apply("spec.mac_address", &mut to.mac, from.mac);
            mask.apply("spec.running_machines", &mut to.running_machines, from.running_machines);
            mask.apply("spec.first_wipe", &mut to.first_wipe, from.first_wipe);
            mask.apply("spec.credential", &mut to.credential, from.credential);
            mask.apply("spec.scheme", &mut to.scheme, from.scheme);
            mask.apply("spec.port", &mut to.port, from.port);
            mask.apply("spec.tls_trust", &mut to.trust, from.trust);
            mask.apply("spec.certificate_sha256", &mut to.certificate_sha256, from.certificate_sha256);
            mask.apply("spec.tls_weaknesses", &mut to.weaknesses, from.weaknesses);
            mask.apply("spec.console_protocol", &mut to.console_protocol, from.console_protocol);
            mask.apply("spec.console_port", &mut to.console_port, from.console_port);
            mask.apply("spec.console_host_key", &mut to.console_host_key, from.console_host_key);
            // Who says anew how the certificate is trusted has the first one pinned that is seen then.
            if trusted != to.trust {
                bmc.observed.certificate_sha256.clear();
            }
            check_spec(&bmc.spec)
        })
        .await?;
        self.probe(&name).await?;
        Ok(Response::new(bmc_to(stored)))
    }

    async fn delete_bmc(&self, request: Request<pb::DeleteBmcRequest>) -> Result<Response<pb::DeleteBmcResponse>, Status> {
        let actor = request.extensions().get::<Identity>().map(|i| i.name.clone()).unwrap_or_default();
        let pb::DeleteBmcRequest { name, etag, force, reason } = request.into_inner();
        get::<Bmc>(&self.cx, &name).await?;
        if force {
            super::forced("BMC", &name, &reason, &actor)?;
        } else {
            self.unused(&name).await?;
        }
        delete::<Bmc>(&self.cx, &name, &etag, |_| Ok(())).await?;
        self.devices.forget(&name);
        // The gateway that has it may be another one.
        self.probe(&name).await?;
        Ok(Response::new(pb::DeleteBmcResponse {}))
    }

    type WatchBmcsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchBmcsResponse, Status>> + Send>>;

    async fn watch_bmcs(&self, request: Request<pb::WatchBmcsRequest>) -> Result<Response<Self::WatchBmcsStream>, Status> {
        let stream = watch::<Bmc, _>(self.cx.clone(), request.into_inner().resume_token, |event, resume_token| {
            let (kind, bmc) = match event {
                Event::Present(kind, stored) => (kind, Some(bmc_to(stored))),
                Event::Gone(metadata) => (
                    ChangeType::Deleted,
                    Some(pb::Bmc {
                        metadata: Some(metadata),
                        ..pb::Bmc::default()
                    }),
                ),
                Event::Checkpoint => (ChangeType::Checkpoint, None),
            };
            pb::WatchBmcsResponse {
                r#type: kind.into(),
                bmc,
                resume_token,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
