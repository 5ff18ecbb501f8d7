use std::{collections::HashMap, time::Duration};

use ironyard_db::{Stored, record};
use ironyard_operation::Request;
use ironyard_reconcile::{Next, Reconcile};
use ironyard_resource::update;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Reference, Waiting};
use tracing::Instrument;

use crate::{
    app::{App, Error, reservation, store_fault},
    domain::server_claim::{Phase, ServerClaim},
};

/// Gives servers to claims, oldest claim first. One pass looks at all that wait: no two passes run at once, whatever the replicas.
pub struct Binder(pub App);

/// Claims looked at in one pass.
const MOST: i64 = 10_000;

impl Reconcile for Binder {
    type Error = Error;

    async fn reconcile(&self, _: &str) -> Result<Next, Error> {
        let cx = &self.0.cx;
        let pending = record::list_oldest::<ServerClaim>(&cx.db, MOST, &[("phase", "Pending")])
            .await
            .map_err(store_fault)?;
        // Claims that ask for the same get the same answer: what was not there for the older one is not there for the younger.
        let mut none: HashMap<String, String> = HashMap::new();
        for claim in pending {
            if claim.value.metadata.deleted_at.is_some() {
                self.give_up(&claim).await?;
                continue;
            }
            let request = reservation(&claim.value);
            let mut asked = request.clone();
            asked.claim = None;
            let asked = format!("{asked:?}");
            if let Some(why) = none.get(&asked) {
                self.explain(&claim, why).await?;
                continue;
            }
            let span = tracing::debug_span!("reconcile.claim", claim.name = claim.value.metadata.name);
            ironyard_rpc::follow(&span, &claim.value.traceparent);
            match self.0.inventory.reserve(request).instrument(span).await? {
                Ok(server) => self.bind(&claim, &server).await?,
                Err(why) => {
                    self.explain(&claim, &why).await?;
                    none.insert(asked, why);
                }
            }
        }
        // Changes of servers and claims poke; this is the safety net.
        Ok(Next::After(Duration::from_secs(30)))
    }
}

impl Binder {
    async fn bind(&self, claim: &Stored<ServerClaim>, server: &ironyard_proto::inventory::Server) -> Result<(), Error> {
        let cx = &self.0.cx;
        let name = &claim.value.metadata.name;
        let metadata = server.metadata.clone().unwrap_or_default();
        let now = cx.now();
        let uid = claim.value.metadata.uid.clone();
        let bound = update::<ServerClaim>(cx, &Request::default(), name, "", |claim| {
            if claim.metadata.uid != uid {
                return Err(Fault::new(Reason::ClaimNotFound, "another claim has this name now"));
            }
            claim.phase = Phase::Bound;
            claim.server = Some(Reference::new(metadata.name, metadata.uid));
            claim.bound_at = Some(now);
            claim.waiting = None;
            Ok(())
        })
        .await;
        match bound {
            Ok(_) => {}
            // The claim went away while its server was picked: nobody else would give it back.
            Err(fault) if fault.reason == Reason::ClaimNotFound => {
                let subject = ironyard_proto::common::Reference {
                    name: name.clone(),
                    uid: claim.value.metadata.uid.clone(),
                };
                let event = ironyard_proto::inventory::ServerEvent::Release;
                self.0
                    .inventory
                    .transition(server, event, Some(subject), "its claim is gone")
                    .await?;
                return Ok(());
            }
            Err(fault) => return Err(fault.into()),
        }
        self.0.claims.poke(name).await.map_err(store_fault)?;
        Ok(())
    }

    async fn explain(&self, claim: &Stored<ServerClaim>, why: &str) -> Result<(), Error> {
        if claim.value.waiting.as_ref().is_some_and(|w| w.message == why) {
            return Ok(());
        }
        let (now, request) = (self.0.cx.now(), Request::default());
        let outcome = update::<ServerClaim>(&self.0.cx, &request, &claim.value.metadata.name, "", |claim| {
            claim.waiting = Some(Waiting::renew(
                claim.waiting.as_ref(),
                Reason::NoServerMatches.as_str(),
                why.to_owned(),
                now,
                None,
            ));
            Ok(())
        });
        match outcome.await {
            Ok(_) => Ok(()),
            Err(fault) if fault.reason == Reason::ClaimNotFound => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Lets a claim go that never got a server. A reservation whose answer was lost is found in inventory, and given back like any other.
    async fn give_up(&self, claim: &Stored<ServerClaim>) -> Result<(), Error> {
        match self.0.inventory.held_by(&claim.value.metadata.uid).await? {
            Some(server) => self.bind(claim, &server).await,
            None => {
                let name = &claim.value.metadata.name;
                match ironyard_resource::delete::<ServerClaim>(&self.0.cx, name, &claim.etag(), |_| Ok::<(), Fault>(())).await {
                    Err(fault) if fault.reason != Reason::ClaimNotFound => Err(fault.into()),
                    Ok(()) | Err(_) => Ok(()),
                }
            }
        }
    }
}
