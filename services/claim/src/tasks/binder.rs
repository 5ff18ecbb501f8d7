use std::{collections::HashMap, time::Duration};

use ironyard_db::{Stored, record};
use ironyard_reconcile::{Next, Pass, Reconcile, SaveError};
use ironyard_rpc::Reason;
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

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let cx = &self.0.cx;
        let pending = record::list_oldest::<ServerClaim>(&cx.db, MOST, &[("phase", "Pending")])
            .await
            .map_err(store_fault)?;
        // Claims that ask for the same get the same answer: what was not there for the older one is not there for the younger.
        let mut none: HashMap<String, String> = HashMap::new();
        let mut again = Duration::from_secs(30);
        for mut claim in pending {
            let claim = &mut claim;
            // What fails for one claim is told on it, and keeps no other from its server.
            match self.serve(pass, claim, &mut none).await {
                Ok(()) => {}
                // Somebody else wrote the claim: it is looked at again at once.
                Err(Error::Save(SaveError::Lost)) => again = Duration::from_millis(20),
                // Without inventory, nobody can be served.
                Err(Error::Peer(error)) if error.is_transient() => {
                    self.explain(pass, claim, error.reason_or("PEER_UNAVAILABLE"), &error.message)
                        .await?;
                    return Err(error.into());
                }
                Err(error) => self.explain(pass, claim, error.reason(), &error.to_string()).await?,
            }
        }
        // Changes of servers and claims poke; this is the safety net.
        Ok(Next::After(again))
    }
}

impl Binder {
    /// Gives one claim its server, or says why it has none.
    async fn serve(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, none: &mut HashMap<String, String>) -> Result<(), Error> {
        if claim.value.metadata.deleted_at.is_some() {
            return self.give_up(pass, claim).await;
        }
        let request = reservation(&claim.value);
        let mut asked = request.clone();
        asked.claim = None;
        let asked = format!("{asked:?}");
        let no_match = Reason::NoServerMatches.as_str();
        if let Some(why) = none.get(&asked) {
            return self.explain(pass, claim, no_match, why).await;
        }
        let span = tracing::debug_span!("reconcile.claim", claim.name = claim.value.metadata.name);
        ironyard_rpc::follow(&span, &claim.value.traceparent);
        match self.0.inventory.reserve(request).instrument(span).await? {
            Ok(server) => self.bind(pass, claim, &server).await,
            Err(why) => {
                self.explain(pass, claim, no_match, &why).await?;
                none.insert(asked, why);
                Ok(())
            }
        }
    }

    /// Writes the server that inventory reserved. Where the claim was changed meanwhile, the next pass asks again and gets the same server;
    /// where it is gone, nobody else would give the server back.
    async fn bind(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, server: &ironyard_proto::inventory::Server) -> Result<(), Error> {
        let cx = &self.0.cx;
        let (name, uid) = (claim.value.metadata.name.clone(), claim.value.metadata.uid.clone());
        let metadata = server.metadata.clone().unwrap_or_default();
        let now = cx.now();
        let bound = pass
            .save(claim, now, |claim| {
                claim.phase = Phase::Bound;
                claim.server = Some(Reference::new(metadata.name, metadata.uid));
                claim.bound_at = Some(now);
                claim.waiting = None;
            })
            .await;
        if let Err(SaveError::Lost) = bound {
            let there = record::get::<ServerClaim>(&cx.db, &name).await.map_err(store_fault)?;
            if there.is_some_and(|there| there.value.metadata.uid == uid) {
                return Err(SaveError::Lost.into());
            }
            let subject = ironyard_proto::common::Reference { name, uid };
            let event = ironyard_proto::inventory::ServerEvent::Release;
            let transition = self.0.inventory.transition(server, event, Some(subject), "its claim is gone");
            transition.await?;
            return Ok(());
        }
        bound?;
        self.0.claims.poke(&name).await.map_err(store_fault)?;
        Ok(())
    }

    async fn explain(&self, pass: &Pass, claim: &mut Stored<ServerClaim>, reason: &str, why: &str) -> Result<(), Error> {
        if claim.value.waiting.as_ref().is_some_and(|w| w.message == why) {
            return Ok(());
        }
        let now = self.0.cx.now();
        let change =
            |claim: &mut ServerClaim| claim.waiting = Some(Waiting::renew(claim.waiting.as_ref(), reason, why.to_owned(), now, None));
        match pass.save(claim, now, change).await {
            // It was changed, or it is gone: the next pass says what holds then.
            Ok(()) | Err(SaveError::Lost) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a claim go that never got a server. A reservation whose answer was lost is found in inventory, and given back like any other.
    async fn give_up(&self, pass: &Pass, claim: &mut Stored<ServerClaim>) -> Result<(), Error> {
        match self.0.inventory.held_by(&claim.value.metadata.uid).await? {
            Some(server) => self.bind(pass, claim, &server).await,
            None => Ok(pass.delete(claim, self.0.cx.now()).await?),
        }
    }
}
