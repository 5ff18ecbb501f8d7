use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Mutex;

use crate::{
    Db, Record, Result, Stored,
    feed::{self, Position},
    record,
};

/// All records of one kind, decoded once and brought up to date from the change feed whenever they are read. As the feed does, it may miss
/// for a moment what other transactions have just written.
pub struct Snapshot<T>(Mutex<State<T>>);

struct State<T> {
    /// Up to where the feed has been followed; none: nothing has been read.
    position: Option<Position>,
    records: BTreeMap<String, Arc<Stored<T>>>,
    all: Arc<[Arc<Stored<T>>]>,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            position: None,
            records: BTreeMap::new(),
            all: Arc::default(),
        }))
    }
}

/// Records that are read at once.
const PAGE: i64 = 1000;
/// Changes that are followed one by one; after more, everything is read anew.
const CHANGES: usize = 256;

impl<T: Record> Snapshot<T> {
    /// All records, by name.
    pub async fn read(&self, db: &Db) -> Result<Arc<[Arc<Stored<T>>]>> {
        let mut state = self.0.lock().await;
        // Whatever fails on the way, the next reader begins again.
        let changes = match state.position.take() {
            Some(position) => feed::after(db, position).await?.map(|changes| (position, changes)),
            None => None,
        };
        let Some((mut position, changes)) = changes.filter(|(_, changes)| changes.len() < CHANGES) else {
            let head = feed::head(db).await?;
            state.records = all(db).await?;
            state.all = state.records.values().cloned().collect();
            state.position = Some(head);
            return Ok(state.all.clone());
        };
        let mut changed = false;
        for change in changes {
            position = change.position;
            if change.kind != T::TABLE {
                continue;
            }
            match record::get::<T>(db, &change.name).await? {
                Some(now) => state.records.insert(change.name, Arc::new(now)),
                None => state.records.remove(&change.name),
            };
            changed = true;
        }
        if changed {
            state.all = state.records.values().cloned().collect();
        }
        state.position = Some(position);
        Ok(state.all.clone())
    }
}

async fn all<T: Record>(db: &Db) -> Result<BTreeMap<String, Arc<Stored<T>>>> {
    let mut records = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = record::list::<T>(db, &after, PAGE, &[]).await?;
        let Some(last) = page.last() else { return Ok(records) };
        after.clone_from(&last.value.metadata().name);
        records.extend(page.into_iter().map(|one| (one.value.metadata().name.clone(), Arc::new(one))));
    }
}
