use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures_util::Stream;
use ironyard_db::{Record, Stored, feed, feed::Position, record};
use ironyard_proto::common::{ChangeType, Metadata as WireMetadata, NameChange};
use ironyard_rpc::{Fault, Reason};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{Context, Kind};

/// One event of a watch, before it is rendered.
#[derive(Debug)]
pub enum Event<T> {
    /// The resource as it is now.
    Present(ChangeType, Stored<T>),
    /// It is gone; name and uid are left.
    Gone(WireMetadata),
    /// Everything before the token was sent.
    Checkpoint,
}

/// Checkpoints at least this often, so that a resume token stays young.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// Resources that are read at once.
const READ: usize = 64;

/// Streams everything that exists, then every change; or, from a resume token, every change since.
pub fn watch<T: Kind, M: Send + 'static>(
    cx: Context,
    token: String,
    render: impl Fn(Event<T>, String) -> M + Send + Sync + 'static,
) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(fault) = produce(&cx, &token, &render, &sender).await {
            let _ = sender.send(Err(fault.into())).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn produce<T: Kind, M: Send + 'static>(
    cx: &Context,
    token: &str,
    render: &(impl Fn(Event<T>, String) -> M + Send + Sync),
    sender: &mpsc::Sender<Result<M, Status>>,
) -> Result<(), Fault> {
    let store = |e: ironyard_db::Error| Fault::internal(&e);
    let mut position = if token.is_empty() {
        let start = feed::head(&cx.db).await.map_err(store)?;
        let mut after = String::new();
        loop {
            let rows = record::list::<T>(&cx.db, &after, 256, &[]).await.map_err(store)?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.value.metadata().name);
            for row in rows {
                if sender
                    .send(Ok(render(Event::Present(ChangeType::Added, row), String::new())))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
        start
    } else {
        Position::parse(token).ok_or_else(expired)?
    };
    let mut checkpoint_due = true;
    let mut checked = Instant::now();
    let mut grown = cx.db.subscribe();
    loop {
        grown.mark_unchanged();
        let changes = feed::after(&cx.db, position).await.map_err(store)?.ok_or_else(expired)?;
        // A resource that changed twice is sent once, as it is now.
        let mut sent: HashMap<String, i64> = HashMap::new();
        for some in changes.chunks(READ) {
            let is_news = |change: &&feed::Change| {
                let known = sent.get(&change.uid).is_some_and(|version| *version >= change.version);
                change.kind == T::TABLE && !change.deleted && !known
            };
            let names: BTreeSet<&str> = some.iter().filter(is_news).map(|change| change.name.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let rows = record::get_all::<T>(&cx.db, &names).await.map_err(store)?;
            let uid = |row: &Stored<T>| row.value.metadata().uid.clone();
            let mut rows: HashMap<String, Stored<T>> = rows.into_iter().map(|row| (uid(&row), row)).collect();
            for change in some {
                position = change.position;
                if change.kind != T::TABLE {
                    continue;
                }
                let event = if change.deleted {
                    Event::Gone(WireMetadata {
                        name: change.name.clone(),
                        uid: change.uid.clone(),
                        ..WireMetadata::default()
                    })
                } else {
                    // Where it is not there, it was sent, or is gone: that follows in the feed.
                    let Some(row) = rows.remove(&change.uid) else { continue };
                    sent.insert(change.uid.clone(), row.version);
                    Event::Present(ChangeType::Modified, row)
                };
                if sender.send(Ok(render(event, position.to_string()))).await.is_err() {
                    return Ok(());
                }
                checkpoint_due = true;
            }
        }
        if feed::is_full(&changes) {
            continue;
        }
        checkpoint_due |= checked.elapsed() >= CHECKPOINT;
        if checkpoint_due {
            if sender.send(Ok(render(Event::Checkpoint, position.to_string()))).await.is_err() {
                return Ok(());
            }
            (checked, checkpoint_due) = (Instant::now(), false);
        }
        tokio::select! {
            () = sender.closed() => return Ok(()),
            _ = grown.changed() => {}
            () = tokio::time::sleep(CHECKPOINT) => {}
        }
    }
}

/// Streams the names and versions of what changes, from now on or from a resume token on. It says what changed and not how: nothing is read.
pub fn names<T: Record>(cx: Context, token: String) -> impl Stream<Item = Result<(Vec<NameChange>, String), Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(fault) = produce_names::<T>(&cx, &token, &sender).await {
            let _ = sender.send(Err(fault.into())).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn produce_names<T: Record>(
    cx: &Context,
    token: &str,
    sender: &mpsc::Sender<Result<(Vec<NameChange>, String), Status>>,
) -> Result<(), Fault> {
    let store = |e: ironyard_db::Error| Fault::internal(&e);
    let mut position = if token.is_empty() {
        feed::head(&cx.db).await.map_err(store)?
    } else {
        Position::parse(token).ok_or_else(expired)?
    };
    // Tells the client where it begins, so that it can go on there.
    let (mut due, mut checked) = (true, Instant::now());
    let mut grown = cx.db.subscribe();
    loop {
        grown.mark_unchanged();
        let changes = feed::after(&cx.db, position).await.map_err(store)?.ok_or_else(expired)?;
        let more = feed::is_full(&changes);
        if let Some(last) = changes.last() {
            position = last.position;
        }
        let ours = changes.into_iter().filter(|change| change.kind == T::TABLE);
        let ours: Vec<NameChange> = ours
            .map(|feed::Change { name, version, .. }| NameChange { name, version })
            .collect();
        due |= !ours.is_empty() || checked.elapsed() >= CHECKPOINT;
        if due {
            if sender.send(Ok((ours, position.to_string()))).await.is_err() {
                return Ok(());
            }
            (due, checked) = (false, Instant::now());
        }
        if more {
            continue;
        }
        tokio::select! {
            () = sender.closed() => return Ok(()),
            _ = grown.changed() => {}
            () = tokio::time::sleep(CHECKPOINT) => {}
        }
    }
}

fn expired() -> Fault {
    Fault::new(
        Reason::ResumeTokenExpired,
        "the token is not part of this database's changes any more: they were forgotten, or a backup was restored; watch again without one",
    )
}

/// Follows another service's watch for ever: `open` begins a stream at a token, `item` handles one message and gives its token.
/// A stream that ends is opened again; one whose token has expired, from the beginning.
pub async fn follow<M, S, O, F, H, G>(what: &'static str, open: O, item: H)
where
    O: Fn(String) -> F + Send,
    F: Future<Output = Result<S, Status>> + Send,
    S: Stream<Item = Result<M, Status>> + Send + Unpin,
    H: Fn(M) -> G + Send,
    G: Future<Output = String> + Send,
{
    use futures_util::StreamExt;
    let mut token = String::new();
    let mut wait = Duration::from_millis(200);
    loop {
        match open(token.clone()).await {
            Ok(mut stream) => {
                wait = Duration::from_millis(200);
                while let Some(message) = stream.next().await {
                    match message {
                        Ok(message) => {
                            let next = item(message).await;
                            if !next.is_empty() {
                                token = next;
                            }
                        }
                        Err(status) => {
                            if status.code() == tonic::Code::OutOfRange {
                                token.clear();
                            }
                            tracing::debug!(what, code = ?status.code(), "watch ended");
                            break;
                        }
                    }
                }
            }
            Err(status) => tracing::debug!(what, code = ?status.code(), "could not watch"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
