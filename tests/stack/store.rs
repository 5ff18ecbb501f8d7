//! The libraries under every service, on both databases.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ironyard_db::{Config, Db, Error, Outcome, Retention, Snapshot, Stored, feed, record};
use ironyard_operation::{MutateError, Operation, Request, create, update};
use ironyard_reconcile::{Membership, Pass, Queue, SaveError, Writing, slot};
use ironyard_resource::{Context, Page, list_newest};
use ironyard_rpc::Fault;
use ironyard_testkit::Postgres;
use ironyard_types::{Clock, SystemClock, Timestamp};
use tempfile::TempDir;

use crate::world::On;

pub struct Store {
    pub db: Db,
    _folder: TempDir,
    postgres: Option<Postgres>,
}

pub async fn store(on: On) -> Option<Store> {
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
        ironyard_reconcile::MIGRATIONS[2],
        ironyard_reconcile::MIGRATIONS[3],
        ironyard_operation::MIGRATIONS[0],
        ironyard_operation::MIGRATIONS[1],
    ];
    Db::open(&config, &migrations).await.unwrap().close().await;
    // An older release says what to do; opening again changes nothing.
    let older = Db::open(&config, &migrations[1..]).await;
    assert!(matches!(older, Err(Error::Newer { version: 2 })), "{:?}", older.err());
    let db = Db::open(&config, &migrations).await.unwrap();
    Some(Store {
        db,
        _folder: folder,
        postgres,
    })
}

pub fn operation(n: usize) -> Operation {
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

/// Pages of a history, the newest first: each once, also those that were created in the same moment, whatever comes meanwhile.
async fn a_history_has_pages(on: On) {
    let Some(store) = store(on).await else { return };
    let cx = Context {
        db: store.db.clone(),
        clock: Arc::new(SystemClock),
    };
    let now = SystemClock.now();
    for n in 0..25 {
        let created = Timestamp(now.0 + i64::try_from(n / 4).unwrap());
        create::<_, Fault>(&cx.db, &Request::default(), operation(n), created)
            .await
            .unwrap();
    }
    for size in [1, 4, 7, 24, 25, 26] {
        let (mut seen, mut token) = (vec![], String::new());
        loop {
            let (rows, next) = list_newest::<Operation>(&cx, &Page::of(size, token), &[("done", "false")])
                .await
                .unwrap();
            assert!(rows.len() == usize::try_from(size).unwrap() || next.is_empty(), "{size}");
            seen.extend(rows.into_iter().map(|row| row.value.metadata.name));
            if next.is_empty() {
                break;
            }
            token = next;
            let later = Timestamp(now.0 + 100);
            create::<_, Fault>(
                &cx.db,
                &Request::default(),
                operation(1000 * usize::try_from(size).unwrap() + seen.len()),
                later,
            )
            .await
            .unwrap();
        }
        let ours: Vec<_> = seen.iter().filter(|name| name.as_str() < "op-0025").cloned().collect();
        let wanted: Vec<_> = (0..25).rev().map(|n| operation(n).metadata.name).collect();
        assert_eq!(ours, wanted, "{size}");
    }
    for wrong in ["before-", "before-1", "before-x-61", "before-1-6", "after-61", "zzz"] {
        assert!(
            list_newest::<Operation>(&cx, &Page::of(1, wrong.to_owned()), &[]).await.is_err(),
            "{wrong}"
        );
    }
    assert!(list_newest::<Operation>(&cx, &Page::of(-1, String::new()), &[]).await.is_err());
}

async fn the_feed_loses_nothing(on: On) {
    let Some(store) = store(on).await else { return };
    const WRITERS: usize = 200;
    let begin = feed::head(&store.db).await.unwrap();
    let writers = (0..WRITERS).map(|n| {
        let db = store.db.clone();
        tokio::spawn(async move { put(&db, n).await })
    });
    let writers: Vec<_> = writers.collect();
    let mut position = begin;
    let mut seen = BTreeSet::new();
    let mut grown = store.db.subscribe();
    while seen.len() < WRITERS {
        grown.mark_unchanged();
        let changes = feed::after(&store.db, position).await.unwrap().unwrap();
        if changes.is_empty() {
            let woken = tokio::time::timeout(Duration::from_secs(60), grown.changed()).await;
            assert!(woken.is_ok(), "{} of {WRITERS} changes were seen", seen.len());
        }
        for change in changes {
            position = change.position;
            assert!(seen.insert(change.name), "each change once");
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(feed::head(&store.db).await.unwrap(), position);
    // It is forgotten in the moment after it was read.
    let all = feed::after(&store.db, begin).await.unwrap();
    assert_eq!(all.map(|changes| changes.len()), Some(WRITERS));
    feed::prune(&store.db, SystemClock.now().plus(Duration::from_secs(10)), Duration::ZERO)
        .await
        .unwrap();
    let forgotten = feed::after(&store.db, begin).await.unwrap();
    assert_eq!(forgotten, None, "what was forgotten is known to be");
    let rest = feed::after(&store.db, position).await.unwrap();
    assert_eq!(rest, Some(vec![]), "who has read everything goes on");
}

/// Whatever another transaction does, in this database or beside it, changes go on to be seen.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_transaction_stops_no_feed() {
    let Some(store) = store(On::Postgres).await else { return };
    let Some(server) = &store.postgres else { return };
    let begin = feed::head(&store.db).await.unwrap();
    let other = Db::open(&Config::url(server.url()), &[]).await.unwrap();
    let mut idle = other.begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()::text").execute(idle.conn()).await.unwrap();
    let mut ours = store.db.begin().await.unwrap();
    record::insert(&mut ours, operation(1), SystemClock.now()).await.unwrap();
    put(&store.db, 2).await;
    let names = async || {
        let changes = feed::after(&store.db, begin).await.unwrap().unwrap();
        changes.into_iter().map(|change| change.name).collect::<Vec<_>>()
    };
    ironyard_testkit::poll::until("the change is seen", || async { (names().await == ["op-0002"]).then_some(()) }).await;
    // What began first and is committed last comes last.
    ours.commit().await.unwrap();
    ironyard_testkit::poll::until("the other is seen behind it", || async {
        (names().await == ["op-0002", "op-0001"]).then_some(())
    })
    .await;
}

/// A database that was set back has another history, even where it has grown longer than the old one since.
async fn a_restore_is_told(on: On) {
    let Some(store) = store(on).await else { return };
    let db = &store.db;
    let begin = feed::head(db).await.unwrap();
    let last_of = async |count: usize| {
        ironyard_testkit::poll::until("the changes have their places", || async {
            let changes = feed::after(db, begin).await.unwrap().unwrap();
            (changes.len() == count).then(|| changes[count - 1].position)
        })
        .await
    };
    for n in 0..5 {
        put(db, n).await;
    }
    let position = last_of(5).await;
    sqlx::query("delete from change where name in ('op-0003', 'op-0004')")
        .execute(db.pool())
        .await
        .unwrap();
    if on == On::Sqlite {
        // A restored file numbers on from where it stood.
        sqlx::query("update sqlite_sequence set seq = (select max(seq) from change) where name = 'change'")
            .execute(db.pool())
            .await
            .unwrap();
    }
    assert_eq!(feed::after(db, position).await.unwrap(), None, "the history ends before");
    for n in 10..20 {
        put(db, n).await;
    }
    last_of(13).await;
    assert_eq!(feed::after(db, position).await.unwrap(), None, "another change stands there now");
    // Emptied altogether, it begins anew.
    sqlx::query("delete from change").execute(db.pool()).await.unwrap();
    let fresh = feed::head(db).await.unwrap();
    assert_ne!(fresh, position);
    assert_eq!(feed::after(db, fresh).await.unwrap(), Some(vec![]));
}

/// Calls with one request id have one effect and one answer, however many come at once.
async fn a_request_has_one_answer(on: On) {
    let Some(store) = store(on).await else { return };
    let calls = (0..60).map(|_| {
        let db = store.db.clone();
        tokio::spawn(async move {
            let request = Request::new("Create", "the-id", b"body");
            create::<_, Fault>(&db, &request, operation(1), SystemClock.now()).await.unwrap()
        })
    });
    let answers: Vec<_> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(record::list::<Operation>(&store.db, "", 10, &[]).await.unwrap().len(), 1);
}

/// A pass whose lease has passed on writes nothing, even over a version that is still the one it read.
async fn who_lost_the_lease_writes_nothing(on: On) {
    let Some(store) = store(on).await else { return };
    let db = &store.db;
    let queue = Queue::new(db.clone(), "q");
    let mut record = put(db, 1).await;
    let pass = async |why: &str| {
        let mut taken = queue.take(1).await.unwrap();
        assert_eq!(taken.len(), 1, "{why}");
        Pass::new(queue.clone(), taken.remove(0))
    };
    queue.enqueue("a").await.unwrap();
    let first = pass("it is due").await;
    assert!(queue.take(1).await.unwrap().is_empty(), "it is held");
    // Its process is paused for longer than the lease.
    sqlx::query("update work_item set due_at = 1, lease_until = 1")
        .execute(db.pool())
        .await
        .unwrap();
    let second = pass("the lease ran out").await;
    assert!(second.fence().1 > first.fence().1);
    let change = |o: &mut Operation| "changed".clone_into(&mut o.phase);
    let lost = first.save(&mut record, SystemClock.now(), change).await;
    assert!(matches!(lost, Err(SaveError::Lost)), "{lost:?}");
    assert!(matches!(first.delete(&record, SystemClock.now()).await, Err(SaveError::Lost)));
    let mut stale = record.clone();
    second.save(&mut record, SystemClock.now(), change).await.unwrap();
    assert_eq!(record.version, 2);
    let other = |o: &mut Operation| "other".clone_into(&mut o.phase);
    let lost = second.save(&mut stale, SystemClock.now(), other).await;
    assert!(matches!(lost, Err(SaveError::Lost)), "a version that is not the last: {lost:?}");
    // A key that the queue has forgotten and learnt again has greater fences than before.
    sqlx::query("delete from work_item").execute(db.pool()).await.unwrap();
    queue.enqueue("a").await.unwrap();
    assert!(pass("it is due again").await.fence().1 > second.fence().1);
}

/// What is enqueued while a pass is at work is served, also where the pass is late and nobody has taken its key yet.
async fn what_is_enqueued_in_a_late_pass_is_kept(on: On) {
    let Some(store) = store(on).await else { return };
    let queue = Queue::new(store.db.clone(), "q");
    queue.enqueue("a").await.unwrap();
    let late = queue.take(1).await.unwrap().remove(0);
    sqlx::query("update work_item set due_at = 1, lease_until = 1")
        .execute(store.db.pool())
        .await
        .unwrap();
    queue.enqueue("a").await.unwrap();
    assert!(queue.again(&late, Duration::from_secs(3600), 0).await.unwrap().is_some());
    assert_eq!(queue.take(1).await.unwrap().len(), 1, "what was enqueued is due");
}

/// Patience counts from the first failure in a row, by the database's time.
async fn failures_are_timed(on: On) {
    let Some(store) = store(on).await else { return };
    let (queue, other) = (Queue::new(store.db.clone(), "q"), Queue::new(store.db.clone(), "q"));
    queue.enqueue("a").await.unwrap();
    let first = queue.take(1).await.unwrap().remove(0);
    assert_eq!(first.failing_for, Duration::ZERO);
    assert!(other.take(1).await.unwrap().is_empty());
    assert!(queue.again(&first, Duration::ZERO, 1).await.unwrap().is_some());
    let second = other.take(1).await.unwrap().remove(0);
    assert!(other.again(&second, Duration::ZERO, 2).await.unwrap().is_some());
    let third = queue.take(1).await.unwrap().remove(0);
    assert_eq!(third.attempts, 2);
    assert!(third.failing_for > second.failing_for, "{third:?}");
    assert!(queue.again(&third, Duration::ZERO, 0).await.unwrap().is_some());
    assert_eq!(queue.take(1).await.unwrap()[0].failing_for, Duration::ZERO);
}

/// SQLite's file has one process and one reader, and what was said to be done is on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_is_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    let config = Config::url(format!("sqlite://{}", path.display()));
    let db = Db::open(&config, &[]).await.unwrap();
    assert!(matches!(Db::open(&config, &[]).await, Err(Error::InUse { .. })));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let row = sqlx::query("pragma synchronous").fetch_one(db.pool()).await.unwrap();
    assert_eq!(sqlx::Row::try_get::<i64, _>(&row, 0).unwrap(), 2, "FULL");
    db.close().await;
    drop(db);
    Db::open(&config, &[]).await.unwrap();
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
    let queue = Queue::new(store.db.clone(), "q");
    queue.enqueue("a").await.unwrap();
    queue.enqueue("a").await.unwrap();
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
    // What is enqueued during the pass is not lost.
    queue.enqueue("a").await.unwrap();
    assert!(queue.take(10).await.unwrap().is_empty(), "it is held");
    assert!(queue.done(&lease).await.unwrap().is_some());
    let next = queue.take(10).await.unwrap();
    assert_eq!(next.len(), 1, "it is served");
    // Who lost the lease can change nothing.
    assert!(!queue.renew(&lease).await.unwrap() && queue.again(&lease, Duration::ZERO, 3).await.unwrap().is_none());
    assert!(queue.done(&next[0]).await.unwrap().is_some());
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
    a_history_has_pages: a_history_has_pages_on_sqlite, a_history_has_pages_on_postgres;
    a_snapshot_follows: a_snapshot_follows_on_sqlite, a_snapshot_follows_on_postgres;
    the_feed_loses_nothing: the_feed_loses_nothing_on_sqlite, the_feed_loses_nothing_on_postgres;
    versions_and_requests: versions_and_requests_on_sqlite, versions_and_requests_on_postgres;
    a_restore_is_told: a_restore_is_told_on_sqlite, a_restore_is_told_on_postgres;
    a_request_has_one_answer: a_request_has_one_answer_on_sqlite, a_request_has_one_answer_on_postgres;
    who_lost_the_lease_writes_nothing: who_lost_the_lease_writes_nothing_on_sqlite, who_lost_the_lease_writes_nothing_on_postgres;
    what_is_enqueued_in_a_late_pass_is_kept: what_is_enqueued_in_a_late_pass_is_kept_on_sqlite, what_is_enqueued_in_a_late_pass_is_kept_on_postgres;
    failures_are_timed: failures_are_timed_on_sqlite, failures_are_timed_on_postgres;
    leases_and_fences: leases_and_fences_on_sqlite, leases_and_fences_on_postgres;
}

/// Of what a replica writes for the others know before it begins; nobody else's lock keeps it, or them, from their heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_announced_before_it_begins() {
    let Some(store) = store(On::Postgres).await else { return };
    let first = Membership::new(store.db.clone(), "", Duration::from_secs(20));
    let _heard = first.join().await;
    let url = store.postgres.as_ref().unwrap().url();
    let outside = sqlx::PgPool::connect(&url).await.unwrap();
    let listed = || async {
        let row: String = sqlx::query_scalar("select writing from store.replica")
            .fetch_one(&outside)
            .await
            .unwrap();
        row.split(',')
            .filter_map(|slot| slot.parse::<usize>().ok())
            .collect::<BTreeSet<_>>()
    };
    assert!(listed().await.is_empty());
    let keys: Vec<String> = (0..50).map(|n| format!("bmc-{n}")).collect();
    let slots: BTreeSet<usize> = keys.iter().map(|key| slot(key)).collect();
    let (member, announced) = (&first, &listed);
    let begun = futures_util::future::join_all(keys.iter().map(|key| async move {
        let guard = member.begin_write(key).await.unwrap();
        assert!(announced().await.contains(&slot(key)), "{key} is announced");
        guard
    }));
    let guards = begun.await;
    assert_eq!(listed().await, slots);

    // Somebody's lock on the row: no write begins, and that is known soon; what is said afterwards is not overtaken by what was given up.
    let mut lock = outside.begin().await.unwrap();
    sqlx::query("select 1 from store.replica for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    let free = (0..).map(|n| format!("other-{n}")).find(|key| !slots.contains(&slot(key))).unwrap();
    let began = std::time::Instant::now();
    assert!(first.begin_write(&free).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for {:?}", began.elapsed());
    // What the others know already may be written for meanwhile.
    drop(lock);
    let known = first.begin_write(&keys[0]).await.unwrap();
    let other = first.begin_write(&free).await.unwrap();
    let with: BTreeSet<usize> = slots.iter().copied().chain([slot(&free)]).collect();
    assert_eq!(listed().await, with);

    // Who leaves in the middle of a write leaves word of it, and of nothing else.
    drop((guards, known));
    first.leave().await;
    assert_eq!(listed().await, BTreeSet::from([slot(&free)]));
    assert!(first.writing(&keys[0]) == Writing::No);
    drop(other);
    first.leave().await;
    let rows: i64 = sqlx::query_scalar("select count(*) from store.replica")
        .fetch_one(&outside)
        .await
        .unwrap();
    assert_eq!(rows, 0, "who has written its last is gone at once");
    assert!(first.begin_write(&free).await.is_err(), "who is not there announces nothing");
}

async fn what_is_over_is_forgotten(on: On) {
    let Some(store) = store(on).await else { return };
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let start = SystemClock.now();
    let now = start.plus(hours(1000));
    let ago = |time: Duration| start.plus(hours(1000).saturating_sub(time));
    let retention = |most: i64| Retention {
        most,
        keep: hours(100),
        ..ironyard_operation::ENDED
    };
    // One each hour, and every tenth of them goes on still.
    for n in 0..130 {
        let operation = Operation {
            done: n % 10 != 0,
            ..operation(n)
        };
        let at = ago(hours(n as u64) + Duration::from_secs(1));
        create::<_, Fault>(&store.db, &Request::default(), operation, at).await.unwrap();
    }
    let left = async |done: &str| {
        let rows = record::list_oldest::<Operation>(&store.db, 1000, &[("done", done)]).await.unwrap();
        rows.len()
    };
    // Of 117 that have ended, those older than a hundred hours go.
    retention(1000).apply(&store.db, now).await.unwrap();
    assert_eq!((left("true").await, left("false").await), (90, 13));
    // The newest stay, however few may.
    retention(20).apply(&store.db, now).await.unwrap();
    assert_eq!((left("true").await, left("false").await), (20, 13));
    // But for the last hour.
    for n in 200..250 {
        let operation = Operation {
            done: true,
            ..operation(n)
        };
        create::<_, Fault>(&store.db, &Request::default(), operation, ago(Duration::from_secs(60)))
            .await
            .unwrap();
    }
    retention(20).apply(&store.db, now).await.unwrap();
    assert_eq!((left("true").await, left("false").await), (50, 13));
    // Many more than a step takes.
    for n in 300..1700 {
        let operation = Operation {
            done: true,
            ..operation(n)
        };
        create::<_, Fault>(&store.db, &Request::default(), operation, now).await.unwrap();
    }
    let later = now.plus(hours(200));
    assert_eq!(retention(20).apply(&store.db, later).await.unwrap(), 1450);
    assert_eq!((left("true").await, left("false").await), (0, 13));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_forgotten_on_sqlite() {
    what_is_over_is_forgotten(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_forgotten_on_postgres() {
    what_is_over_is_forgotten(On::Postgres).await;
}
