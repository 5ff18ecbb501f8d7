//! Watches of all kinds of readers over a history that is cut, set back and hurried: each ends with exactly what the list says, or is told to
//! begin again. The judge in `checkers` reads only what the readers were sent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use ironyard_db::{Db, Outcome, Record, Stored, feed, record};
use ironyard_operation::Operation;
use ironyard_resource::{Context, Event, Kind, watch};
use ironyard_rpc::Reason;
use ironyard_testkit::poll;
use ironyard_types::{Clock, Metadata, SystemClock};
use serde::{Deserialize, Serialize};

use crate::{
    checkers::watch::{Row, Seen, judge},
    store::{operation, store},
    world::On,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing(Operation);

impl Record for Thing {
    const TABLE: &'static str = Operation::TABLE;
    const INDEX: &'static [&'static str] = Operation::INDEX;
    fn index(&self) -> Vec<Option<String>> {
        self.0.index()
    }
    fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }
}

impl Kind for Thing {
    const NOUN: &'static str = "thing";
    const NOT_FOUND: Reason = Reason::ServerNotFound;
    const EXISTS: Reason = Reason::ServerExists;
    const CHANGED: Reason = Reason::ServerChanged;
}

/// Numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Changes in one run of the test.
const CHANGES: usize = 100_000;
/// Names that are created, changed, deleted and created again.
const NAMES: u64 = 20;

fn seen(event: Event<Thing>) -> Seen {
    match event {
        Event::Present(_, Stored { value, version, .. }) => Seen::Modified {
            name: value.0.metadata.name,
            uid: value.0.metadata.uid,
            version,
        },
        Event::Gone(metadata) => Seen::Gone {
            name: metadata.name,
            uid: metadata.uid,
        },
        Event::Checkpoint => Seen::Checkpoint,
    }
}

/// Follows the watch until `stop`: slowly or fast, now and then from its last token.
async fn reader(cx: Context, n: usize, log: Arc<Mutex<Vec<Seen>>>, stop: Arc<AtomicBool>) -> usize {
    let mut random = Random(n as u64);
    let (mut token, mut begun_again) = (String::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let mut stream = std::pin::pin!(watch::<Thing, _>(cx.clone(), token.clone(), |event, token| (seen(event), token)));
        let length = 1 + random.below(2000);
        for _ in 0..length {
            let next = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
            match next {
                Ok(Some(Ok((seen, place)))) => {
                    if !place.is_empty() {
                        token = place;
                    }
                    log.lock().unwrap().push(seen);
                }
                Ok(Some(Err(status))) => {
                    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
                    log.lock().unwrap().push(Seen::BeginAgain);
                    (token, begun_again) = (String::new(), begun_again + 1);
                    break;
                }
                Ok(None) => break,
                // Nothing to be had; perhaps it is the end.
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
            // Every other reader is slow now and then, as its network may be.
            if n % 2 == 1 && random.below(20) == 0 {
                tokio::time::sleep(Duration::from_millis(random.below(30))).await;
            }
        }
        // A reader whose listing was cut has no place to go on from, and holds nothing.
        if token.is_empty() {
            log.lock().unwrap().push(Seen::BeginAgain);
        }
    }
    begun_again
}

/// A transaction of a few changes; how many. The same name may be deleted and created again in one.
async fn transaction(db: &Db, random: &mut Random) -> usize {
    let now = SystemClock.now();
    let count = 1 + random.below(40);
    let mut tx = db.begin().await.unwrap();
    for _ in 0..count {
        let name = format!("op-{:04}", random.below(NAMES));
        match record::get_for_update::<Thing>(&mut tx, &name).await.unwrap() {
            None => {
                let mut new = operation(0);
                new.metadata.name.clone_from(&name);
                record::insert(&mut tx, Thing(new), now).await.unwrap();
            }
            Some(there) if random.below(4) == 0 => {
                assert_eq!(record::delete(&mut tx, &there, now).await.unwrap(), Outcome::Written(()));
            }
            Some(mut there) => {
                there.value.0.percent += 1;
                assert!(matches!(record::update(&mut tx, &there, now).await.unwrap(), Outcome::Written(_)));
            }
        }
    }
    // Some decide otherwise in the end.
    if random.below(20) == 0 {
        return 0;
    }
    tx.commit().await.unwrap();
    usize::try_from(count).unwrap()
}

/// What a client ends with that knows names alone, as a table on a screen does: the last thing it was told of each.
fn by_name(seen: &[Seen]) -> Vec<Row> {
    let mut held = BTreeMap::new();
    for one in seen {
        match one {
            Seen::Added { name, uid, version } | Seen::Modified { name, uid, version } => {
                let row = Row {
                    name: name.clone(),
                    uid: uid.clone(),
                    version: *version,
                };
                held.insert(name, row);
            }
            Seen::Gone { name, .. } => {
                held.remove(name);
            }
            Seen::Checkpoint => {}
            Seen::BeginAgain => held.clear(),
        }
    }
    held.into_values().collect()
}

async fn every_reader_ends_with_the_list(on: On) {
    const READERS: usize = 8;
    let Some(store) = store(on).await else { return };
    let cx = Context {
        db: store.db.clone(),
        clock: Arc::new(SystemClock),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let logs: Vec<Arc<Mutex<Vec<Seen>>>> = (0..READERS).map(|_| Arc::default()).collect();
    let readers: Vec<_> = logs
        .iter()
        .enumerate()
        .map(|(n, log)| tokio::spawn(reader(cx.clone(), n, log.clone(), stop.clone())))
        .collect();
    let mut random = Random(7);
    let (mut changes, mut restores) = (0, 0);
    while changes < CHANGES {
        changes += transaction(&cx.db, &mut random).await;
        if random.below(50) == 0 {
            feed::prune(&cx.db, SystemClock.now(), Duration::from_millis(random.below(300)))
                .await
                .unwrap();
        }
        // The history is lost, as by a restore: whoever followed it must notice. The last quarter is followed to its end.
        if restores < 3 && changes / (CHANGES / 4) > restores {
            restores += 1;
            sqlx::query("delete from change").execute(cx.db.pool()).await.unwrap();
        }
    }
    let list = record::list::<Thing>(&cx.db, "", 10_000, &[]).await.unwrap();
    let list: Vec<Row> = list
        .into_iter()
        .map(|row| Row {
            name: row.value.0.metadata.name,
            uid: row.value.0.metadata.uid,
            version: row.version,
        })
        .collect();
    assert!(!list.is_empty());
    for (n, log) in logs.iter().enumerate() {
        let verdict = || judge(&log.lock().unwrap(), &list);
        poll::until(&format!("reader {n} has the list: {:?}", verdict()), || async { verdict().ok() }).await;
        assert_eq!(by_name(&log.lock().unwrap()), list, "reader {n}, by name");
    }
    stop.store(true, Ordering::Relaxed);
    let mut begun_again = 0;
    for reader in readers {
        begun_again += reader.await.unwrap();
    }
    assert!(begun_again > 0, "nobody was told to begin again: the test tests too little");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_ends_with_the_list_on_sqlite() {
    every_reader_ends_with_the_list(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_ends_with_the_list_on_postgres() {
    every_reader_ends_with_the_list(On::Postgres).await;
}
