use std::{collections::BTreeMap, time::Duration};

use ironyard_db::{Snapshot, record};
use ironyard_peers::{Gateway, PeerError, identity, name};
use ironyard_proto::{bmc, common, inventory};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::Reason;
use ironyard_types::{ResourceName, dns_label};

use super::Error;
use crate::{
    app::{App, store_fault},
    domain::endpoint::Endpoint,
};

/// Finds the systems behind each BMC and makes sure that each has a server.
pub struct Bmcs {
    /// What all share.
    pub app: App,
    /// Where a MAC address is looked for.
    pub endpoints: Snapshot<Endpoint>,
}

impl Reconcile for Bmcs {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let key = pass.key();
        let app = &self.app;
        let Some(bmc) = app.gateway.bmc(key).await? else {
            self.tell_servers(key).await?;
            return Ok(Next::Done);
        };
        let spec = bmc.spec.clone().unwrap_or_default();
        if let Some(endpoint) = self.endpoint_of(&spec).await?
            && endpoint.ip.to_string() != spec.address
        {
            let mut update = bmc.clone();
            if let Some(spec) = &mut update.spec {
                spec.address = endpoint.ip.to_string();
            }
            let update_mask = Some(prost_types::FieldMask {
                paths: vec!["spec.address".to_owned()],
            });
            let request = bmc::UpdateBmcRequest {
                bmc: Some(update),
                update_mask,
                request_id: String::new(),
            };
            app.gateway.bmcs.clone().update_bmc(request).await.map_err(PeerError::from)?;
            return Ok(Next::After(Duration::from_secs(1)));
        }
        let servers = self.tell_servers(key).await?;
        if Gateway::not_ready(&bmc).is_some() {
            // The gateway goes on asking; its next success enqueues us.
            return Ok(Next::After(Duration::from_secs(30)));
        }
        let mut systems = app.gateway.list_systems(key).await?;
        // What can be neither booted nor switched is a part of the server beside it.
        systems.retain(|system| !system.is_part);
        for system in &systems {
            self.compare(&servers, system).await?;
            if servers.iter().any(|server| is_server_of(server, system, systems.len())) {
                continue;
            }
            match self.create(&bmc, system, &system.system_uuid).await {
                // Another server is this machine, or has its UUID: what stands here is shown all the same, and says so.
                Err(Error::Peer(error)) if error.is(Reason::DuplicateSystemUuid) => match self.create(&bmc, system, "").await {
                    Err(Error::Peer(error)) if error.is(Reason::DuplicateSystemUuid) => {
                        tracing::debug!(
                            bmc.name = key,
                            system = system.system_id,
                            error = error.message,
                            "its place is taken"
                        );
                    }
                    outcome => outcome?,
                },
                outcome => outcome?,
            }
        }
        Ok(Next::After(Duration::from_secs(600)))
    }
}

/// Whether a server is the record of a system: by UUID where both have one, else by id, else because there is only one.
pub(crate) fn is_server_of(server: &inventory::Server, system: &bmc::System, systems: usize) -> bool {
    let spec = server.spec.clone().unwrap_or_default();
    let (known, shown) = (identity(server), Gateway::identity(system));
    if known.differs(&shown).is_some() {
        return false;
    }
    if known.uuid().is_some() && shown.uuid().is_some() {
        return true;
    }
    let seen = server.observed.as_ref().map(|o| o.system_id.clone()).unwrap_or_default();
    let id = if spec.system_id.is_empty() { seen } else { spec.system_id };
    if id.is_empty() { systems == 1 } else { id == system.system_id }
}

impl Bmcs {
    /// What the BMC's record says now, its servers say next.
    async fn tell_servers(&self, bmc: &str) -> Result<Vec<inventory::Server>, Error> {
        let servers = self.app.inventory.of_bmc(bmc).await?;
        for server in &servers {
            self.app.servers.enqueue(&name(server)).await.map_err(store_fault)?;
        }
        Ok(servers)
    }

    /// The endpoint that gives a BMC its address.
    async fn endpoint_of(&self, spec: &bmc::BmcSpec) -> Result<Option<Endpoint>, Error> {
        let db = &self.app.cx.db;
        if let Some(reference) = &spec.endpoint_ref {
            let endpoint = record::get::<Endpoint>(db, &reference.name).await.map_err(store_fault)?;
            return Ok(endpoint.map(|e| e.value));
        }
        if spec.mac_address.is_empty() {
            return Ok(None);
        }
        let all = self.endpoints.read(db).await.map_err(store_fault)?;
        let found = all.iter().find(|e| e.value.has_mac(&spec.mac_address));
        Ok(found.map(|e| e.value.clone()))
    }

    /// Says of the servers that were found in the place of a system whether their machine still stands there.
    async fn compare(&self, servers: &[inventory::Server], system: &bmc::System) -> Result<(), Error> {
        let id = |s: &inventory::Server| s.observed.as_ref().is_some_and(|o| o.system_id == system.system_id);
        for server in servers.iter().filter(|server| server.discovered && id(server)) {
            let (holds, reason, message) = match identity(server).differs(&Gateway::identity(system)) {
                Some(why) => (false, "OtherMachine", format!("its BMC shows another machine: {why}")),
                None => (true, "SameMachine", "its BMC shows the machine that was discovered".to_owned()),
            };
            self.app.inventory.condition(server, "SameMachine", holds, reason, &message).await?;
        }
        Ok(())
    }

    async fn create(&self, bmc: &bmc::Bmc, system: &bmc::System, system_uuid: &str) -> Result<(), Error> {
        let metadata = bmc.metadata.clone().unwrap_or_default();
        let name = format!("{}-{}", metadata.name, dns_label(&system.system_id));
        let name = ResourceName::parse(&name).map_or_else(|_| dns_label(&name), |n| n.to_string());
        let server = inventory::Server {
            metadata: Some(common::Metadata {
                name: name.clone(),
                labels: metadata.labels,
                annotations: BTreeMap::from([("ironyard.dev/auto-created".to_owned(), "true".to_owned())]),
                ..Default::default()
            }),
            spec: Some(inventory::ServerSpec {
                system_uuid: system_uuid.to_owned(),
                bmc_ref: Some(common::Reference {
                    name: metadata.name.clone(),
                    uid: String::new(),
                }),
                system_id: system.system_id.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = inventory::CreateServerRequest {
            server: Some(server),
            request_id: String::new(),
        };
        match self
            .app
            .inventory
            .servers
            .clone()
            .create_server(request)
            .await
            .map_err(PeerError::from)
        {
            Ok(_) => tracing::info!(bmc.name = metadata.name, server.name = name, "found a server"),
            // Somebody was faster.
            Err(error) if error.is(Reason::ServerExists) => {
                tracing::debug!(
                    bmc.name = metadata.name,
                    server.name = name,
                    error = error.message,
                    "the server is known"
                );
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
