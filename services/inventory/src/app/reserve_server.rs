use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ironyard_db::{Stored, dialect::Dialect, record};
use ironyard_operation::MutateError;
use ironyard_resource::{Context, Page, fault_of, list};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Category, Reference};

use super::store_fault;
use crate::{
    domain::{
        claimability::{ADOPTABLE, Unfit, Wanted, check},
        lifecycle::{Event, Reservation, State, Step, step},
        server::Server,
    },
    store::{self, history::Entry},
};

/// What one claim asks for.
pub struct Asked {
    /// The claim.
    pub claim: Reference,
    /// Which servers will do.
    pub wanted: Wanted,
}

/// Picks a server for each claim, in their order, and reserves it; all in one transaction. A claim that holds a server gets that one again. What was
/// asked under an earlier lease of the caller than the last one is refused, whichever replica it comes to.
pub async fn reserve_servers(cx: &Context, asked: &[Asked], actor: &str) -> Result<Vec<Result<Stored<Server>, Fault>>, Fault> {
    let lease = ironyard_rpc::fence::of_caller();
    if asked.is_empty() && lease.is_none() {
        return Ok(vec![]);
    }
    let mut tx = cx.db.begin().await.map_err(store_fault)?;
    if let Some((scope, number)) = lease
        && !store::server::advance_fence(&mut tx, &scope, number).await.map_err(store_fault)?
    {
        let message = format!("the lease {number} of {scope} has passed on");
        return Err(Fault::new(Reason::StaleFence, message));
    }
    if asked.is_empty() {
        tx.commit().await.map_err(store_fault)?;
        return Ok(vec![]);
    }
    let uids = asked.iter().map(|a| a.claim.uid.clone()).collect();
    let held = store::server::held_by(&mut tx, uids).await.map_err(store_fault)?;
    let holder = |server: &Stored<Server>| server.value.facts.claim.as_ref().map(|c| c.uid.clone());
    let mut held: HashMap<String, Stored<Server>> = held.into_iter().filter_map(|s| Some((holder(&s)?, s))).collect();
    let mut pools: HashMap<String, Pool> = HashMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut answers: Vec<Option<Stored<Server>>> = Vec::with_capacity(asked.len());
    let mut picks: Vec<(usize, Stored<Server>, Stored<Server>)> = Vec::new();
    for (i, Asked { claim, wanted }) in asked.iter().enumerate() {
        answers.push(held.remove(&claim.uid));
        if answers.last().is_some_and(Option::is_some) {
            continue;
        }
        let pool = pools.entry(format!("{wanted:?}")).or_insert_with(|| Pool::new(wanted, asked.len()));
        let picked = pool.next(&mut tx, wanted, &taken).await?;
        if let Some(before) = picked {
            taken.insert(before.value.metadata.name.clone());
            picks.push((i, before.clone(), reserved(cx, before, claim, wanted.adopt)?));
        }
    }
    for (i, server) in write_all(cx, &mut tx, &picks, actor).await? {
        if let Some(answer) = answers.get_mut(i) {
            *answer = Some(server);
        }
    }
    tx.commit().await.map_err(store_fault)?;
    let mut seen = None;
    let mut whys: HashMap<String, Fault> = HashMap::new();
    let mut reservations = Vec::with_capacity(asked.len());
    for (answer, Asked { wanted, .. }) in answers.into_iter().zip(asked) {
        let reservation = match answer {
            Some(server) => Ok(server),
            None => Err(match whys.get(&format!("{wanted:?}")) {
                Some(why) => why.clone(),
                None => {
                    let why = none_fits(cx, wanted, &mut seen).await?;
                    whys.insert(format!("{wanted:?}"), why.clone());
                    why
                }
            }),
        };
        reservations.push(reservation);
    }
    Ok(reservations)
}

/// A server, as it is once a claim holds it.
fn reserved(cx: &Context, before: Stored<Server>, claim: &Reference, adopt: bool) -> Result<Stored<Server>, Fault> {
    let mut after = before;
    let by = Reservation {
        claim: claim.clone(),
        debt: ironyard_types::random_id(),
        at: cx.now(),
        drives: after.value.known_drives(),
        minimum: Category::parse(&after.value.spec.sanitization_minimum),
        retain: after.value.spec.retain,
    };
    let event = if adopt { Event::Adopt(by) } else { Event::Reserve(by) };
    let Ok(Step::Moved(state, facts)) = step(after.value.state, &after.value.facts, event) else {
        return Err(fault_of::<Server>(&after.value.metadata.name, MutateError::Stale));
    };
    (after.value.state, after.value.facts, after.value.waiting) = (state, facts, None);
    if adopt {
        after.value.conditions.retain(|condition| condition.kind != ADOPTABLE);
    }
    Ok(after)
}

/// Writes what was reserved in this transaction, and its history; each by the place of its claim.
async fn write_all(
    cx: &Context,
    tx: &mut ironyard_db::Tx,
    picks: &[(usize, Stored<Server>, Stored<Server>)],
    actor: &str,
) -> Result<Vec<(usize, Stored<Server>)>, Fault> {
    let servers: Vec<&Stored<Server>> = picks.iter().map(|(.., after)| after).collect();
    let written = store::server::take_all(tx, &servers, cx.now()).await.map_err(store_fault)?;
    let mut taken = Vec::with_capacity(picks.len());
    let mut entries = Vec::with_capacity(picks.len());
    for ((i, before, after), written) in picks.iter().zip(written) {
        // The rows were read for update: nobody else can have written them.
        let Some(stored) = written else {
            return Err(fault_of::<Server>(&before.value.metadata.name, MutateError::Stale));
        };
        let holder = after
            .value
            .facts
            .claim
            .as_ref()
            .map(|claim| claim.name.as_str())
            .unwrap_or_default();
        entries.push(Entry {
            event: if before.value.state == State::Discovery {
                "Adopt"
            } else {
                "Reserve"
            }
            .to_owned(),
            from: Some(before.value.state),
            to: Some(after.value.state),
            actor: actor.to_owned(),
            reason: format!("claim {holder}"),
            at: cx.now(),
        });
        taken.push((*i, stored));
    }
    let rows: Vec<(&str, &str, &Entry)> = taken
        .iter()
        .zip(&entries)
        .map(|((_, server), entry)| {
            let metadata = &server.value.metadata;
            (metadata.name.as_str(), metadata.uid.as_str(), entry)
        })
        .collect();
    store::history::append_all(tx, &rows).await.map_err(store_fault)?;
    Ok(taken)
}

/// The servers that will do for some claims that want the same, read a few at a time.
struct Pool {
    /// What is read next: which claimable ones, and whether rows that others hold are waited for.
    rounds: VecDeque<(bool, &'static str)>,
    after: String,
    ready: VecDeque<Stored<Server>>,
    most: usize,
}

impl Pool {
    fn new(wanted: &Wanted, claims: usize) -> Self {
        let columns: &[&'static str] = if wanted.tolerations.is_empty() {
            &["yes"]
        } else {
            &["yes", "tainted"]
        };
        // Servers that others are looking at are passed over at first. Only when there is no other are they waited for: one may be left.
        let rounds = [false, true].iter().flat_map(|wait| columns.iter().map(|column| (*wait, *column)));
        Self {
            rounds: rounds.collect(),
            after: String::new(),
            ready: VecDeque::new(),
            most: claims.clamp(2, 64),
        }
    }

    /// The next server that will do and is not taken.
    async fn next(&mut self, tx: &mut ironyard_db::Tx, wanted: &Wanted, taken: &HashSet<String>) -> Result<Option<Stored<Server>>, Fault> {
        if !wanted.server.is_empty() {
            // What an older claim of this batch gets is written at its end.
            if taken.contains(&wanted.server) {
                return Ok(None);
            }
            let server = record::get_for_update::<Server>(tx, &wanted.server).await.map_err(store_fault)?;
            return Ok(server.filter(|s| check(&s.value, wanted).is_ok()));
        }
        loop {
            while let Some(server) = self.ready.pop_front() {
                if !taken.contains(&server.value.metadata.name) && check(&server.value, wanted).is_ok() {
                    return Ok(Some(server));
                }
            }
            let Some((wait, column)) = self.rounds.front().copied() else {
                return Ok(None);
            };
            let servers = if wait && tx.dialect() == Dialect::Sqlite {
                // One writer: nobody else holds anything.
                vec![]
            } else {
                store::server::candidates(tx, column, &wanted.selector, &self.after, wait, self.most)
                    .await
                    .map_err(store_fault)?
            };
            match servers.last() {
                Some(last) => self.after.clone_from(&last.value.metadata.name),
                None => {
                    self.rounds.pop_front();
                    self.after.clear();
                }
            }
            self.ready.extend(servers);
        }
    }
}

/// One server, held against a claim.
pub struct Candidate {
    /// Name.
    pub server: String,
    /// Why not.
    pub unfit: Option<Unfit>,
}

/// Says of each server (at most a thousand) why it fits or not.
pub async fn explain(cx: &Context, wanted: &Wanted) -> Result<Vec<Candidate>, Fault> {
    let servers = first_thousand(cx).await?;
    let candidate = |s: Stored<Server>| Candidate {
        unfit: check(&s.value, wanted).err(),
        server: s.value.metadata.name,
    };
    Ok(servers.into_iter().map(candidate).collect())
}

async fn first_thousand(cx: &Context) -> Result<Vec<Stored<Server>>, Fault> {
    let page = Page {
        size: 1000,
        ..Page::default()
    };
    Ok(list::<Server>(cx, &page, &[]).await?.0)
}

/// Why no server fits, in a sentence: how many are unfit for which reason. The servers that are looked at are read once for many claims.
async fn none_fits(cx: &Context, wanted: &Wanted, seen: &mut Option<Vec<Stored<Server>>>) -> Result<Fault, Fault> {
    if !wanted.server.is_empty() {
        let server = record::get::<Server>(&cx.db, &wanted.server).await.map_err(store_fault)?;
        let why = match server.map(|s| check(&s.value, wanted)) {
            None => "does not exist".to_owned(),
            Some(Err(unfit)) => format!("cannot serve it: {unfit}"),
            Some(Ok(())) => "was just freed".to_owned(),
        };
        return Ok(Fault::new(Reason::ServerNotAvailable, format!("server {} {why}", wanted.server)));
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let servers = match seen {
        Some(servers) => servers,
        None => seen.insert(first_thousand(cx).await?),
    };
    for server in servers.iter() {
        let why = match check(&server.value, wanted).err() {
            Some(Unfit::LabelsDiffer) => "have other labels".to_owned(),
            Some(Unfit::NotAvailable { state, .. }) => format!("are {state}"),
            Some(Unfit::Cordoned) => "are cordoned".to_owned(),
            Some(Unfit::BmcUnusable(_)) => "have a BMC that cannot be used".to_owned(),
            Some(Unfit::DrivesUnread) => "have drives that are still to be read".to_owned(),
            Some(Unfit::Tainted(_)) => "have a taint that is not tolerated".to_owned(),
            Some(Unfit::NotAdoptable { .. } | Unfit::OtherServer) | None => continue,
        };
        *counts.entry(why).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(why, n)| format!("{n} {why}")).collect();
    let message = if servers.is_empty() {
        "there are no servers".to_owned()
    } else {
        format!("no server is free for it; of {}, {}", servers.len(), counts.join(", "))
    };
    Ok(Fault::new(Reason::NoServerMatches, message))
}
