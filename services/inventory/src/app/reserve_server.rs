use std::collections::BTreeMap;

use ironyard_db::{Stored, dialect::Dialect, record};
use ironyard_operation::MutateError;
use ironyard_resource::{Context, Page, fault_of, list};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Category, Reference};

use super::{store_fault, write};
use crate::{
    domain::{
        claimability::{Unfit, Wanted, check},
        lifecycle::{Event, Step, step},
        server::Server,
    },
    store::{self, history::Entry},
};

/// Picks one server that fits and reserves it, in one transaction. A claim that holds a server gets that one again.
pub async fn reserve_server(cx: &Context, claim: Reference, wanted: &Wanted, actor: &str) -> Result<Stored<Server>, Fault> {
    if let Some(held) = store::server::held_by(&cx.db, &claim.uid).await.map_err(store_fault)? {
        return Ok(held);
    }
    let mut tx = cx.db.begin().await.map_err(store_fault)?;
    let Some(before) = pick(&mut tx, wanted).await? else {
        drop(tx);
        return Err(none_fits(cx, wanted).await?);
    };
    let mut after = before.clone();
    let event = Event::Reserve {
        claim: claim.clone(),
        at: cx.now(),
        drives: before.value.known_drives(),
        minimum: Category::parse(&before.value.spec.sanitization_minimum),
        retain: before.value.spec.retain,
    };
    if let Ok(Step::Moved(state, facts)) = step(before.value.state, &before.value.facts, event) {
        (after.value.state, after.value.facts, after.value.waiting) = (state, facts, None);
    } else {
        return Err(fault_of::<Server>(&before.value.metadata.name, MutateError::Stale));
    }
    let stored = write(cx, &mut tx, &before, &after).await?;
    let entry = Entry {
        event: "Reserve".to_owned(),
        from: Some(before.value.state),
        to: Some(after.value.state),
        actor: actor.to_owned(),
        reason: format!("claim {}", claim.name),
        at: cx.now(),
    };
    let metadata = &stored.value.metadata;
    store::history::append(&mut tx, &metadata.name, &metadata.uid, &entry)
        .await
        .map_err(store_fault)?;
    tx.commit().await.map_err(store_fault)?;
    Ok(stored)
}

async fn pick(tx: &mut ironyard_db::Tx, wanted: &Wanted) -> Result<Option<Stored<Server>>, Fault> {
    if !wanted.server.is_empty() {
        let server = record::get_for_update::<Server>(tx, &wanted.server).await.map_err(store_fault)?;
        return Ok(server.filter(|s| check(&s.value, wanted).is_ok()));
    }
    let columns: &[&'static str] = if wanted.tolerations.is_empty() {
        &["yes"]
    } else {
        &["yes", "tainted"]
    };
    // Servers that others are looking at are passed over at first. Only when there is no other are they waited for: one may be left.
    let waits: &[bool] = match tx.dialect() {
        Dialect::Sqlite => &[false],
        Dialect::Postgres => &[false, true],
    };
    for wait in waits {
        for column in columns {
            if let Some(server) = pick_from(tx, wanted, column, *wait).await? {
                return Ok(Some(server));
            }
        }
    }
    Ok(None)
}

async fn pick_from(tx: &mut ironyard_db::Tx, wanted: &Wanted, column: &'static str, wait: bool) -> Result<Option<Stored<Server>>, Fault> {
    let mut after = String::new();
    loop {
        let names = store::server::candidates(tx, column, &wanted.selector, &after, wait)
            .await
            .map_err(store_fault)?;
        let Some(last) = names.last() else { return Ok(None) };
        after.clone_from(last);
        for name in &names {
            let server = record::get_for_update::<Server>(tx, name).await.map_err(store_fault)?;
            if let Some(server) = server.filter(|s| check(&s.value, wanted).is_ok()) {
                return Ok(Some(server));
            }
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
    let page = Page {
        size: 1000,
        ..Page::default()
    };
    let (servers, _) = list::<Server>(cx, &page, &[]).await?;
    let candidate = |s: Stored<Server>| Candidate {
        unfit: check(&s.value, wanted).err(),
        server: s.value.metadata.name,
    };
    Ok(servers.into_iter().map(candidate).collect())
}

/// Why no server fits, in a sentence: how many are unfit for which reason.
async fn none_fits(cx: &Context, wanted: &Wanted) -> Result<Fault, Fault> {
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
    let candidates = explain(cx, wanted).await?;
    for candidate in &candidates {
        let why = match &candidate.unfit {
            Some(Unfit::LabelsDiffer) => "have other labels".to_owned(),
            Some(Unfit::NotAvailable { state, .. }) => format!("are {state}"),
            Some(Unfit::Cordoned) => "are cordoned".to_owned(),
            Some(Unfit::BmcUnusable(_)) => "have a BMC that cannot be used".to_owned(),
            Some(Unfit::Tainted(_)) => "have a taint that is not tolerated".to_owned(),
            Some(Unfit::OtherServer) | None => continue,
        };
        *counts.entry(why).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(why, n)| format!("{n} {why}")).collect();
    let message = if candidates.is_empty() {
        "there are no servers".to_owned()
    } else {
        format!("no server is free for it; of {}, {}", candidates.len(), counts.join(", "))
    };
    Ok(Fault::new(Reason::NoServerMatches, message))
}
