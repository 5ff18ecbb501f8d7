//! The libraries under every service, on both databases.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ironyard_db::{Config, Db, Outcome, Snapshot, Stored, feed, record};
use ironyard_operation::{MutateError, Operation, Request, create, update};
use ironyard_reconcile::Queue;
use ironyard_rpc::Fault;
use ironyard_testkit::Postgres;
use ironyard_types::{Clock, SystemClock};
use tempfile::TempDir;

use crate::world::On;

struct Store {
    db: Db,
    _folder: TempDir,
    _postgres: Option<Postgres>,
}

async fn store(on: On) -> Option<Store> {
    let folder = tempfile::tempdir().unwrap();
    let postgres = match on {
        On::Sqlite => None,
        On::Postgres => Some(Postgres::start().await?),
    };
    let config = match &postgres {
        None => Config::url(format!("sqlite://{}", folder.path().join("x.db").display())),
        Some(server) => Config {
            schema: Some("store".into()),
            ..Config::url(server.url())
        },
    };
    let migrations = [
        ironyard_reconcile::MIGRATIONS[0],
        ironyard_reconcile::MIGRATIONS[1],
        ironyard_operation::MIGRATIONS[0],
        ironyard_operation::MIGRATIONS[1],
    ];
    let db = Db::open(&config, &migrations).await.unwrap();
    // Opening again changes nothing.
    Db::open(&config, &migrations).await.unwrap().close().await;
    Some(Store {
        db,
        _folder: folder,
        _postgres: postgres,
    })
}

fn operation(n: usize) -> Operation {
    let mut operation = Operation::new("Test", n.to_string(), None, serde_json::Value::Null, String::new());
    operation.metadata.name = format!("op-{n:04}");
    operation
}

async fn put(db: &Db, n: usize) -> Stored<Operation> {
    create::<_, Fault>(db, &Request::default(), operation(n), SystemClock.now())
        .await
        .unwrap()
}

/// A snapshot says what the table says, whatever was written since it was read last.
async fn a_snapshot_follows(on: On) {
    let Some(store) = store(on).await else { return };
    let db = &store.db;
    let snapshot = Snapshot::<Operation>::default();
    assert!(snapshot.read(db).await.unwrap().is_empty());
    let same = |what: &'static str| {
        let snapshot = &snapshot;
        async move {
            ironyard_testkit::poll::until(what, || async {
                let seen: Vec<_> = snapshot.read(db).await.unwrap().iter().map(|one| (**one).clone()).collect();
                (seen == record::list::<Operation>(db, "", 10_000, &[]).await.unwrap()).then_some(())
            })
            .await;
        }
    };
    let first = put(db, 1).await;
    put(db, 2).await;
    same("two were created").await;
    let mut tx = db.begin().await.unwrap();
    let Outcome::Written(changed) = record::update(&mut tx, &first, SystemClock.now()).await.unwrap() else {
        panic!("nobody else wrote");
    };
    tx.commit().await.unwrap();
    same("one was changed").await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(
        record::delete(&mut tx, &changed, SystemClock.now()).await.unwrap(),
        Outcome::Written(())
    );
    tx.commit().await.unwrap();
    same("one was deleted").await;
    // More than it follows one by one; and what the feed has forgotten.
    for n in 10..300 {
        put(db, n).await;
    }
    same("many were created").await;
    put(db, 400).await;
    feed::prune(db, SystemClock.now(), Duration::ZERO).await.unwrap();
    same("the feed was cut").await;
}

async fn the_feed_loses_nothing(on: On) {
    let Some(store) = store(on).await else { return };
    const WRITERS: usize = 200;
    let writers = (0..WRITERS).map(|n| {
        let db = store.db.clone();
        tokio::spawn(async move { put(&db, n).await })
    });
    let writers: Vec<_> = writers.collect();
    let mut position = feed::Position::default();
    let mut seen = BTreeSet::new();
    while seen.len() < WRITERS {
        let changes = feed::after(&store.db, "operation", position).await.unwrap();
        for change in changes {
            assert!(change.position > position, "positions only grow");
            position = change.position;
            assert!(seen.insert(change.name), "and name each change once");
        }
        tokio::task::yield_now().await;
        if writers.iter().all(tokio::task::JoinHandle::is_finished)
            && feed::after(&store.db, "operation", position).await.unwrap().is_empty()
        {
            break;
        }
    }
    assert_eq!(seen.len(), WRITERS);
    feed::prune(&store.db, SystemClock.now().plus(Duration::from_secs(10)), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(feed::floor(&store.db).await.unwrap(), position, "what was forgotten is known to be");
}

async fn versions_and_requests(on: On) {
    let Some(store) = store(on).await else { return };
    let db = &store.db;
    let first = put(db, 1).await;
    let again = create::<_, Fault>(db, &Request::default(), operation(1), SystemClock.now()).await;
    assert!(matches!(again, Err(MutateError::Exists)));
    // Two writers with the same version: one wins.
    let write = async |text: &str| {
        let mut mine = first.clone();
        text.clone_into(&mut mine.value.phase);
        let mut tx = db.begin().await.unwrap();
        let outcome = record::update(&mut tx, &mine, SystemClock.now()).await.unwrap();
        tx.commit().await.unwrap();
        outcome
    };
    assert!(matches!(write("a").await, Outcome::Written(_)));
    assert!(matches!(write("b").await, Outcome::Stale));
    let mut tx = db.begin().await.unwrap();
    let mut ghost = first.clone();
    "nothing".clone_into(&mut ghost.value.metadata.name);
    assert!(matches!(
        record::update(&mut tx, &ghost, SystemClock.now()).await.unwrap(),
        Outcome::Missing
    ));
    drop(tx);
    // A transaction that is not committed leaves nothing.
    let mut tx = db.begin().await.unwrap();
    record::insert(&mut tx, operation(2), SystemClock.now()).await.unwrap();
    drop(tx);
    assert!(record::get::<Operation>(db, "op-0002").await.unwrap().is_none());

    let request = Request::new("Change", "id", b"body");
    let change = async |request: &Request, phase: &str| {
        update::<Operation, Fault>(db, request, "op-0001", "", SystemClock.now(), |o| {
            phase.clone_into(&mut o.phase);
            Ok(())
        })
        .await
    };
    let answer = change(&request, "once").await.unwrap();
    assert_eq!(
        change(&request, "twice").await.unwrap(),
        answer,
        "a replay has the first answer and no effect"
    );
    assert!(matches!(
        change(&Request::new("Change", "id", b"other"), "x").await,
        Err(MutateError::RequestReused)
    ));
    assert_eq!(record::get::<Operation>(db, "op-0001").await.unwrap().unwrap().value.phase, "once");
}

async fn leases_and_fences(on: On) {
    let Some(store) = store(on).await else { return };
    let queue = Queue::new(store.db.clone(), "q", Arc::new(SystemClock));
    queue.poke("a").await.unwrap();
    queue.poke("a").await.unwrap();
    let takers = (0..8).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.take(10).await.unwrap() })
    });
    let taken: Vec<_> = futures_util::future::join_all(takers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!(taken.len(), 1, "one key, one holder");
    let lease = taken[0].clone();
    assert!(queue.renew(&lease).await.unwrap());
    // A poke during the pass is not lost.
    queue.poke("a").await.unwrap();
    assert!(queue.take(10).await.unwrap().is_empty(), "it is held");
    assert!(queue.done(&lease).await.unwrap());
    let next = queue.take(10).await.unwrap();
    assert_eq!(next.len(), 1, "the poke is served");
    // Who lost the lease can change nothing.
    assert!(!queue.renew(&lease).await.unwrap() && !queue.again(&lease, SystemClock.now(), 3).await.unwrap());
    assert!(queue.done(&next[0]).await.unwrap());
    assert_eq!(queue.next_due().await.unwrap(), None);
}

macro_rules! on_both {
    ($($name:ident: $sqlite:ident, $postgres:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $sqlite() {
            $name(On::Sqlite).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $postgres() {
            $name(On::Postgres).await;
        }
    )*};
}

on_both! {
    a_snapshot_follows: a_snapshot_follows_on_sqlite, a_snapshot_follows_on_postgres;
    the_feed_loses_nothing: the_feed_loses_nothing_on_sqlite, the_feed_loses_nothing_on_postgres;
    versions_and_requests: versions_and_requests_on_sqlite, versions_and_requests_on_postgres;
    leases_and_fences: leases_and_fences_on_sqlite, leases_and_fences_on_postgres;
}
