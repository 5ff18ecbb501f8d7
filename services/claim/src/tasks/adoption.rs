use ironyard_db::record;
use ironyard_operation::Request;
use ironyard_peers::{adoptable, name};
use ironyard_proto::inventory::Server;
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::Reason;
use ironyard_types::{Metadata, random_id};

use crate::{
    app::{App, Error, store_fault},
    domain::server_claim::{ServerClaim, Spec},
};

/// Makes claims for the machines that run and are to be adopted: one for each, named like its server.
pub struct Adoption(pub App);

/// Whether a claim is to be made for it.
pub fn is_wanted(server: &Server) -> bool {
    adoptable(server).is_some_and(|condition| condition.reason == "AdoptionWanted")
}

impl Reconcile for Adoption {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let app = &self.0;
        let Some(server) = app.inventory.get(pass.key()).await?.filter(is_wanted) else {
            return Ok(Next::Done);
        };
        let uid = server.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
        // Once for each server: who deletes the claim before it has the machine does not want it adopted.
        let request = Request::new("Adopt", &format!("adopt-{uid}"), uid.as_bytes());
        let first = ironyard_resource::create(&app.cx, &request, claim(&server, name(&server))).await;
        let made = match first {
            Err(fault) if fault.reason == Reason::ClaimExists => {
                let there = record::get::<ServerClaim>(&app.cx.db, &name(&server)).await.map_err(store_fault)?;
                let spec = there.map(|claim| claim.value.spec).unwrap_or_default();
                if spec.adopt && spec.server == Some(name(&server)) {
                    return Ok(Next::Done);
                }
                // The name is taken by a claim for something else.
                ironyard_resource::create(&app.cx, &request, claim(&server, format!("{}-adopted", name(&server)))).await
            }
            made => made,
        };
        let made = made?.value.metadata.name;
        tracing::info!(server.name = pass.key(), claim.name = made, "adopts a machine that runs");
        app.wake_binder().await.map_err(store_fault)?;
        Ok(Next::Done)
    }
}

fn claim(server: &Server, called: String) -> ServerClaim {
    let mut metadata = Metadata {
        name: called,
        uid: random_id(),
        ..Metadata::default()
    };
    metadata
        .annotations
        .insert("ironyard.dev/auto-created".to_owned(), "true".to_owned());
    let spec = Spec {
        server: Some(name(server)),
        adopt: true,
        ..Spec::default()
    };
    ServerClaim::new(metadata, spec)
}
