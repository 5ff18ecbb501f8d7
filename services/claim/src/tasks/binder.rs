use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Mutex,
    time::Duration,
};

use ironyard_db::{Stored, record};
use ironyard_peers::{Gateway, PeerError, adoptable, version};
use ironyard_proto::inventory::{Server, ServerEvent, ServerState};
use ironyard_reconcile::{Next, Pass, Reconcile, SaveError};
use ironyard_types::{Reference, Timestamp, Waiting};
use tracing::Instrument;

use crate::{
    app::{App, Error, reservation, store_fault},
    domain::server_claim::{Phase, ServerClaim},
    store,
};

/// Gives servers to claims, oldest claim first, many at a time. No two passes run at once, whatever the replicas.
///
/// A claim is due when it is made or changed, and when a server becomes free that could serve it. One that no server can serve is not looked
/// at again before that, so it costs nothing and hides nobody.
pub struct Binder {
    app: App,
    /// When a claim of every request was made due last.
    resynced_at: Mutex<Option<Timestamp>>,
}

/// Servers as they were reserved lately: the events of these reservations tell nothing that the binder does not know.
#[derive(Default)]
pub struct Reserved(Mutex<HashMap<String, i64>>);

impl Reserved {
    /// Enough for those whose events are on their way.
    const MOST: usize = 10_000;

    fn note(&self, server: &Server) {
        let mut known = self.known();
        if known.len() >= Self::MOST {
            // That costs a look at their claims.
            known.clear();
        }
        known.insert(uid(server), version(server));
    }

    /// Whether this tells of anything since the server was reserved here.
    pub fn is_news(&self, server: &Server) -> bool {
        self.known().get(&uid(server)) != Some(&version(server))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn uid(server: &Server) -> String {
    server.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default()
}

/// Claims that are served at once.
const BATCH: usize = 64;
/// How often a claim of every request is looked at: whatever an event may have failed to tell, asking tells.
const RESYNC: Duration = Duration::from_secs(600);

type Claim = Stored<ServerClaim>;
/// A claim, the reason and the sentence why it has no server, and how often it had been woken when it was looked at.
type Told = (Claim, String, String, i64);

impl Reconcile for Binder {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let db = &self.app.cx.db;
        self.resync().await?;
        let list = async |due: &str| {
            let most = i64::try_from(BATCH).unwrap_or(1);
            record::list_oldest::<ServerClaim>(db, most, &[("due", due)])
                .await
                .map_err(store_fault)
        };
        let (leaving, due) = tokio::join!(list("leaving"), list("yes"));
        let leaving = leaving?;
        for claim in &leaving {
            match self.give_up(pass, claim).await {
                Ok(()) | Err(Error::Save(SaveError::Lost)) => {}
                Err(Error::Peer(error)) if error.is_transient() => return Err(error.into()),
                Err(error) => drop(
                    self.tell(pass, &[(claim.clone(), error.reason().to_owned(), error.to_string(), 0)])
                        .await?,
                ),
            }
        }
        let due = due?;
        let full = leaving.len() == BATCH || due.len() == BATCH;
        let left = self.serve(pass, due).await?;
        Ok(Next::After(if full || left { Duration::ZERO } else { Duration::from_secs(60) }))
    }
}

impl Binder {
    /// One that knows nothing yet.
    pub fn new(app: App) -> Self {
        Self {
            app,
            resynced_at: Mutex::default(),
        }
    }

    async fn resync(&self) -> Result<(), Error> {
        let now = self.app.cx.now();
        {
            let mut at = self.resynced_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if at.is_some_and(|at| now.since(at) < RESYNC) {
                return Ok(());
            }
            *at = Some(now);
        }
        let db = &self.app.cx.db;
        let requests = store::requests(db).await.map_err(store_fault)?;
        Ok(store::make_due(db, &requests).await.map_err(store_fault)?)
    }

    /// For each request that is due, as many of its oldest claims: of those that ask for the same, nobody overtakes.
    async fn oldest(&self, due: &[Claim]) -> Result<Vec<Claim>, Error> {
        let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
        for claim in due {
            *wanted.entry(claim.value.request_key()).or_default() += 1;
        }
        let mut batch: BTreeMap<(Timestamp, String), Claim> = BTreeMap::new();
        let mut add = |claim: Claim| drop(batch.insert((claim.created_at, claim.value.metadata.name.clone()), claim));
        for (request, count) in wanted {
            let older = record::list_oldest::<ServerClaim>(&self.app.cx.db, count, &[("request", &request)])
                .await
                .map_err(store_fault)?;
            older.into_iter().for_each(&mut add);
        }
        due.iter().cloned().for_each(add);
        Ok(batch.into_values().take(BATCH).collect())
    }

    /// Gives claims that are due their servers, or says why they have none; whether others that ask for the same may be served too.
    async fn serve(&self, pass: &Pass, due: Vec<Claim>) -> Result<bool, Error> {
        if due.is_empty() {
            return Ok(false);
        }
        let db = &self.app.cx.db;
        // Before anything is asked: what happens after that makes them due again.
        let (batch, woken, waiting) = tokio::join!(self.oldest(&due), store::woken(db, &due), store::not_due_of(db, &due));
        let (batch, mut woken, waiting) = (batch?, woken.map_err(store_fault)?, waiting.map_err(store_fault)?);
        let others = batch
            .iter()
            .filter(|claim| !woken.contains_key(&claim.value.metadata.name))
            .cloned();
        woken.extend(store::woken(db, &others.collect::<Vec<_>>()).await.map_err(store_fault)?);
        let woken = |claim: &Claim| woken.get(&claim.value.metadata.name).copied().unwrap_or(-1);
        // Those that ask for the same as an older one, and are due too: what there is none of for that one, there is none of for them.
        let served: BTreeSet<&str> = batch.iter().map(|claim| claim.value.metadata.name.as_str()).collect();
        let younger = due.into_iter().filter(|claim| !served.contains(claim.value.metadata.name.as_str()));
        let younger: Vec<Claim> = younger.collect();
        let answers = match self.reserve(&batch).await {
            Ok(answers) => answers,
            Err(error) => {
                let (reason, message) = (error.reason_or("PEER_UNAVAILABLE").to_owned(), error.message.clone());
                let told: Vec<_> = batch.into_iter().map(|claim| (claim, reason.clone(), message.clone(), 0)).collect();
                self.tell(pass, &told).await?;
                return Err(error.into());
            }
        };
        let (mut bound, mut none) = (Vec::new(), Vec::new());
        for (claim, answer) in batch.into_iter().zip(answers) {
            match answer.server {
                Some(server) => {
                    self.app.reserved.note(&server);
                    bound.push((claim, server));
                }
                None => {
                    let woken = woken(&claim);
                    none.push((claim, answer.reason, answer.message, woken));
                }
            }
        }
        self.bind(pass, &bound).await?;
        let refused = none
            .iter()
            .map(|(claim, reason, why, _)| (claim.value.request_key(), (reason.clone(), why.clone())));
        let refused: BTreeMap<String, (String, String)> = refused.collect();
        for claim in younger {
            if let Some((reason, why)) = refused.get(&claim.value.request_key()).cloned() {
                let woken = woken(&claim);
                none.push((claim, reason, why, woken));
            }
        }
        self.explain(pass, &none).await?;
        // Where nobody was refused, the next who asks for the same may be served, due or not.
        let open: BTreeSet<String> = bound.iter().map(|(claim, _)| claim.value.request_key()).collect();
        let open = open
            .into_iter()
            .filter(|request| waiting.contains(request) && !refused.contains_key(request));
        let open: Vec<String> = open.collect();
        store::make_due(db, &open).await.map_err(store_fault)?;
        Ok(!open.is_empty())
    }

    /// Asks inventory for many at once. What is wrong with one request is its own answer, never everybody's.
    async fn reserve(&self, batch: &[Claim]) -> Result<Vec<ironyard_proto::inventory::Reservation>, PeerError> {
        let inventory = &self.app.inventory;
        let span = tracing::debug_span!("reserve", claims = batch.len());
        if let Some(claim) = batch.first() {
            ironyard_rpc::follow(&span, &claim.value.traceparent);
        }
        let requests = batch.iter().map(|claim| reservation(&claim.value)).collect();
        match inventory.reserve(requests).instrument(span).await {
            Err(error) if !error.is_transient() && batch.len() > 1 => {}
            outcome => return outcome,
        }
        let mut answers = Vec::with_capacity(batch.len());
        for claim in batch {
            match inventory.reserve(vec![reservation(&claim.value)]).await {
                Ok(answer) => answers.extend(answer),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => answers.push(ironyard_proto::inventory::Reservation {
                    server: None,
                    reason: error.reason_or("REFUSED").to_owned(),
                    message: error.message,
                }),
            }
        }
        Ok(answers)
    }

    /// Writes the servers that inventory reserved. Where a claim was changed meanwhile, the next pass asks again and gets the same server;
    /// where it is gone, nobody else would give the server back.
    async fn bind(&self, pass: &Pass, bound: &[(Claim, Server)]) -> Result<(), Error> {
        if bound.is_empty() {
            return Ok(());
        }
        let (cx, now) = (&self.app.cx, self.app.cx.now());
        let (claims, servers): (Vec<Claim>, Vec<&Server>) = bound.iter().map(|(claim, server)| (claim.clone(), server)).unzip();
        let change = |i: usize, claim: &mut ServerClaim| {
            let metadata = servers.get(i).and_then(|server| server.metadata.clone()).unwrap_or_default();
            claim.phase = Phase::Bound;
            claim.server = Some(Reference::new(metadata.name, metadata.uid));
            claim.bound_at = Some(now);
            claim.waiting = None;
        };
        // A claim that stays, of a server that has no BMC, asks nothing of anybody.
        let rests = |(claim, server): &(Claim, Server)| {
            let stays = claim.value.metadata.deleted_at.is_none() && server.state() == ServerState::Reserved;
            stays && Gateway::system_of(server).is_none()
        };
        let looks = |i: usize| bound.get(i).is_some_and(|one| !rests(one));
        let written = pass.save_all(&claims, now, change, Some((&self.app.claims, &looks))).await?;
        for ((claim, server), _) in bound.iter().zip(written).filter(|(_, written)| written.is_none()) {
            let (name, uid) = (&claim.value.metadata.name, &claim.value.metadata.uid);
            let there = record::get::<ServerClaim>(&cx.db, name).await.map_err(store_fault)?;
            if there.is_some_and(|there| there.value.metadata.uid == *uid) {
                continue;
            }
            let subject = ironyard_proto::common::Reference {
                name: name.clone(),
                uid: uid.clone(),
            };
            let withdrawn;
            let server = if claim.value.spec.adopt && server.state() == ServerState::Reserved {
                withdrawn = self.withdrawn(server).await?;
                &withdrawn
            } else {
                server
            };
            let transition = self
                .app
                .inventory
                .transition(server, ServerEvent::Release, Some(subject), "its claim is gone");
            transition.await?;
        }
        Ok(())
    }

    /// Says of some claims why they have no server. They are not due before something happens.
    async fn explain(&self, pass: &Pass, told: &[Told]) -> Result<(), Error> {
        if told.is_empty() {
            return Ok(());
        }
        let claims = self.tell(pass, told).await?;
        let claims: Vec<(Claim, i64)> = claims
            .into_iter()
            .zip(told)
            .filter_map(|(claim, (.., woken))| claim.map(|claim| (claim, *woken)))
            .collect();
        Ok(store::not_due(&self.app.cx.db, &claims).await.map_err(store_fault)?)
    }

    /// Writes why some claims wait, where they do not say so yet; the claims as they are then. One that was changed meanwhile, or is gone, is
    /// looked at again.
    async fn tell(&self, pass: &Pass, told: &[Told]) -> Result<Vec<Option<Claim>>, Error> {
        let now = self.app.cx.now();
        let claims: Vec<Claim> = told.iter().map(|(claim, ..)| claim.clone()).collect();
        let change = |i: usize, claim: &mut ServerClaim| {
            let Some((_, reason, message, _)) = told.get(i) else { return };
            let known = claim.waiting.as_ref().is_some_and(|w| w.reason == *reason && w.message == *message);
            if !known {
                claim.waiting = Some(Waiting::renew(claim.waiting.as_ref(), reason, message.clone(), now, None));
            }
        };
        Ok(pass.save_all(&claims, now, change, None).await?)
    }

    /// A server whose adoption was taken back before its claim was seen to have it: it rests in Error, and still owes its wipe.
    async fn withdrawn(&self, server: &Server) -> Result<Server, PeerError> {
        let why = "its claim was deleted while it was being adopted: the machine may run. Retry wipes it; or waive the wipe";
        self.app.inventory.fail(server, "ADOPTION_WITHDRAWN", why, "adoption", 1).await
    }

    /// Lets a claim go that never got a server. A reservation whose answer was lost is found in inventory, and given back like any other.
    async fn give_up(&self, pass: &Pass, claim: &Claim) -> Result<(), Error> {
        // Nothing that was asked under an earlier lease comes after this: what it reserved shows now, or never.
        self.app.inventory.reserve(vec![]).await?;
        match self.app.inventory.held_by(&claim.value.metadata.uid).await? {
            // Its machine runs as it was found, and nobody has seen that the claim has it: a person says whether it is wiped.
            Some(server) if claim.value.spec.adopt && server.state() == ServerState::Reserved => {
                let server = self.withdrawn(&server).await?;
                self.bind(pass, &[(claim.clone(), server)]).await
            }
            Some(server) => self.bind(pass, &[(claim.clone(), server)]).await,
            None => Ok(pass.delete(claim, self.app.cx.now()).await?),
        }
    }
}

/// Where a server is free, or waits to be adopted: of each request that it could serve, the oldest claim is due.
pub async fn wake(app: &App, server: &Server) -> ironyard_db::Result<()> {
    let cordoned = server.spec.as_ref().is_some_and(|spec| spec.unclaimable);
    if server.state() != ServerState::Available && adoptable(server).is_none() || cordoned {
        return Ok(());
    }
    let metadata = server.metadata.clone().unwrap_or_default();
    let requests = app.pending.served_by(&app.cx.db, &metadata.name, &metadata.labels).await?;
    if requests.is_empty() {
        return Ok(());
    }
    store::make_due(&app.cx.db, &requests).await?;
    app.wake_binder().await
}
