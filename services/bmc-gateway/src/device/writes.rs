//! Writes to a BMC: one at a time, by the one owner that may, and by nobody who has lost the right to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use ironyard_reconcile::{Membership, Writing};
use ironyard_redfish::{Client, Error, Result as RedfishResult, changing_while};
use ironyard_rpc::{caller, fence};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Device, error::DeviceError, mailbox::Mailbox, secrets::Sessions};

/// Ends a write when it is dropped.
type WriteGuard = Box<dyn Send>;

/// Whether this gateway may write to a BMC.
pub(crate) trait WritePermission: Send + Sync {
    /// Asked right before each request that changes something.
    fn writing(&self) -> Writing;

    /// Tells the other gateways of a write before it begins, until it is dropped; none: they could not be told.
    fn begin(&self) -> BoxFuture<'_, Option<WriteGuard>>;
}

/// The right to write to the BMC of that name.
pub(super) struct Share {
    pub(super) membership: Membership,
    pub(super) name: String,
}

impl WritePermission for Share {
    fn writing(&self) -> Writing {
        self.membership.writing(&self.name)
    }

    fn begin(&self) -> BoxFuture<'_, Option<WriteGuard>> {
        Box::pin(async {
            let begun = self.membership.begin_write(&self.name).await;
            begun
                .inspect_err(|error| tracing::warn!(%error, bmc.name = self.name, "could not tell the other gateways of a write"))
                .ok()
                .map(|writes| Box::new(writes) as WriteGuard)
        })
    }
}

/// What gives an owner the right to write, and takes it.
pub(crate) struct Owner {
    pub(super) right: Arc<dyn WritePermission>,
    /// How long a write takes at most, once it was sent.
    pub(super) write_timeout: Duration,
    /// Where its session is kept.
    pub(super) sessions: Option<Arc<Sessions>>,
    /// Ends when the owner before it has written its last.
    pub(super) after: Option<CancellationToken>,
}

/// How an owner ends.
#[derive(Clone, Default)]
pub(super) struct Ends {
    /// Another one takes its place: streams end, and nothing is written any more.
    pub(super) retired: CancellationToken,
    /// It has written its last.
    pub(super) over: CancellationToken,
    /// Nobody has a handle any more, so nobody logs in again.
    pub(super) unused: CancellationToken,
}

impl Device {
    /// Writes. One write at a time, and no caller who hangs up interrupts one that has begun.
    pub async fn write<T, F, W>(&self, work: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        self.admit()?;
        let asked = self.0.asked.clone();
        self.may_write().await?;
        let (reply, answer) = oneshot::channel();
        let (device, permission) = (self.clone(), fence::permission());
        // Whether a change was sent is known here alone: it is asked for right before each.
        let sent = Arc::new(AtomicBool::new(false));
        let was_sent = sent.clone();
        let writing = async move {
            // Whoever asked has gone, and may have lost the right to ask: what has not begun does not begin.
            if reply.is_closed() {
                return;
            }
            if !device.owns() {
                let _ = reply.send(Err(DeviceError::NotOwner(PASSED_ON)));
                return;
            }
            let Some(_writes) = device.0.right.begin().await else {
                let _ = reply.send(Err(DeviceError::NotOwner(UNTOLD)));
                return;
            };
            // Telling the others may have taken its time.
            if reply.is_closed() {
                return;
            }
            let (noted, owner) = (sent.clone(), device.clone());
            let permission: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || {
                let may = permission.as_ref().is_none_or(|permission| permission()) && owner.owns();
                noted.fetch_or(may, Ordering::Relaxed);
                may
            });
            let outcome = tokio::select! {
                outcome = changing_while(permission, work(device.0.client.clone())) => outcome,
                () = device.lost() => Err(Error::Lost("it was broken off, because the BMC is another gateway's by now, or its record has changed".to_owned())),
            };
            device.record(&outcome);
            let outcome = outcome.map_err(|error| match error {
                Error::Timeout { .. }
                | Error::Lost(_)
                | Error::Failed { .. }
                | Error::Protocol { .. }
                | Error::TooLarge { .. }
                | Error::CrossOrigin(_)
                | Error::Budget(_)
                    if !sent.load(Ordering::Relaxed) =>
                {
                    DeviceError::Unsent(error)
                }
                Error::NotPermitted if !device.owns() && !sent.load(Ordering::Relaxed) => DeviceError::NotOwner(PASSED_ON),
                error => DeviceError::Redfish(error),
            });
            let _ = reply.send(outcome);
            drop(asked);
        };
        let dropped = || {
            if self.owns() {
                DeviceError::Full
            } else {
                DeviceError::NotOwner(PASSED_ON)
            }
        };
        if !self.0.writes.put(&caller(), Box::pin(writing.in_current_span())) {
            return Err(dropped());
        }
        match self.waits(answer).await {
            Ok(outcome) => outcome,
            Err(_) if was_sent.load(Ordering::Relaxed) => Err(DeviceError::Redfish(Error::Lost("it was broken off".to_owned()))),
            // It was never begun.
            Err(_) => Err(dropped()),
        }
    }

    /// Waits until this owner may write, which is not long after its gateway has come.
    pub async fn may_write(&self) -> Result<(), DeviceError> {
        loop {
            match self.0.right.writing() {
                _ if self.0.ends.retired.is_cancelled() => return Err(DeviceError::NotOwner(PASSED_ON)),
                Writing::Now => return Ok(()),
                Writing::No => return Err(DeviceError::NotOwner(PASSED_ON)),
                Writing::From(then) => {
                    let wait = tokio::time::sleep_until(then);
                    ironyard_rpc::waits_for("the gateway that had this BMC before to let go of it", wait).await;
                }
            }
        }
    }

    /// Waits until this owner has had no right to write for as long as a write takes: whoever has it now waits no longer.
    async fn lost(&self) {
        let mut since = Instant::now();
        while since.elapsed() < self.0.write_timeout {
            tokio::time::sleep(LOOK_AGAIN.min(self.0.write_timeout)).await;
            if self.owns() {
                since = Instant::now();
            }
        }
    }

    /// Whether this owner, and no other, may write now.
    fn owns(&self) -> bool {
        !self.0.ends.retired.is_cancelled() && self.0.right.writing() == Writing::Now
    }

    /// Whether somebody waits for a write, or one goes on.
    pub(crate) fn writes(&self) -> bool {
        Arc::strong_count(&self.0.asked) > 1
    }

    /// Another one takes its place: what waits is dropped, and nothing is written any more. Tells when what was being written is over.
    pub(crate) fn retire(&self) -> CancellationToken {
        self.0.ends.retired.cancel();
        self.0.writes.close();
        self.0.ends.over.clone()
    }
}

const PASSED_ON: &str = "the BMC is another gateway's now, or its record has changed; ask again";

const UNTOLD: &str = "the other gateways could not be told of the change, because the database does not answer; ask again";

/// How often an owner looks whether it still is one while a write goes on.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The owner of the writes: one at a time, in order. What is being written is written, whoever has gone.
pub(super) async fn own(client: Arc<Client>, writes: Mailbox, owner: Owner, ends: Ends) {
    let written = ends.over.drop_guard();
    if let Some(after) = owner.after {
        after.cancelled().await;
    }
    while let Some(work) = writes.take().await {
        // A panic in one is not the end of the owner.
        let _ = tokio::spawn(work).await;
    }
    // Nobody waits for a logout; and what is still being read would log in anew.
    drop(written);
    ends.unused.cancelled().await;
    if let Some(sessions) = owner.sessions
        && sessions.is_taken().await
    {
        return;
    }
    client.logout().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ironyard_redfish::{Limits, Target, Trust};
    use ironyard_rpc::fence::Hold;
    use ironyard_types::SystemClock;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::Instant,
    };

    use super::*;
    use crate::domain::breaker::Breaker;

    /// A BMC that does whatever it is asked, and tells what that was.
    async fn bmc() -> (Device, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let (target, told) = listens().await;
        (owner(&target, || Writing::Now, None), told)
    }

    impl<F: Fn() -> Writing + Send + Sync> WritePermission for F {
        fn writing(&self) -> Writing {
            self()
        }

        fn begin(&self) -> BoxFuture<'_, Option<WriteGuard>> {
            Box::pin(async { Some(Box::new(()) as WriteGuard) })
        }
    }

    /// An owner of it.
    fn owner(target: &Target, right: impl WritePermission + 'static, after: Option<CancellationToken>) -> Device {
        owner_within(target, right, after, Limits::default().write)
    }

    fn owner_within(
        target: &Target,
        right: impl WritePermission + 'static,
        after: Option<CancellationToken>,
        write_timeout: Duration,
    ) -> Device {
        ironyard_redfish::install_crypto();
        let client = Client::new(target, &Trust::Any, None, Limits::default()).unwrap();
        let owner = Owner {
            right: Arc::new(right),
            write_timeout,
            sessions: None,
            after,
        };
        Device::start(client, Arc::new(SystemClock), Breaker::default(), String::new(), owner).0
    }

    async fn listens() -> (Target, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 64 << 10];
                let length = stream.read(&mut request).await.unwrap();
                let line = String::from_utf8_lossy(&request[..length])
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).await.unwrap();
                tell.send(line).unwrap();
            }
        });
        let target = Target {
            scheme: "http".to_owned(),
            name: None,
            address: address.ip(),
            port: address.port(),
        };
        (target, told)
    }

    #[tokio::test]
    async fn a_change_is_not_sent_after_its_lease() {
        let (device, mut told) = bmc().await;
        let erase = || device.write(|client| async move { client.post("/erase", &json!({})).await });
        let over = Hold::until(Instant::now());
        let outcome = ironyard_rpc::fence::within("operations/a".to_owned(), 1, over.clone(), erase()).await;
        assert!(matches!(outcome, Err(DeviceError::Redfish(Error::NotPermitted))), "{outcome:?}");
        assert!(told.try_recv().is_err(), "nothing was sent");

        // One whose lease ends after it has read what it changes.
        let ends = Hold::until(Instant::now() + Duration::from_millis(50));
        let held = ends.clone();
        let both = device.write(|client| async move {
            client.get("/drive").await?;
            while !held.is_over() {
                tokio::task::yield_now().await;
            }
            client.post("/erase", &json!({})).await
        });
        let outcome = ironyard_rpc::fence::within("operations/a".to_owned(), 2, ends.clone(), both).await;
        assert!(matches!(outcome, Err(DeviceError::Redfish(Error::NotPermitted))), "{outcome:?}");
        assert_eq!(told.recv().await.unwrap(), "GET /drive HTTP/1.1");
        assert!(told.try_recv().is_err(), "nothing was changed");

        // Renewed, it goes on; and so does what nobody holds a lease for.
        over.extend(Instant::now() + Duration::from_secs(60));
        ironyard_rpc::fence::within("operations/a".to_owned(), 3, over, erase())
            .await
            .unwrap();
        erase().await.unwrap();
        for _ in 0..2 {
            assert_eq!(told.recv().await.unwrap(), "POST /erase HTTP/1.1");
        }
    }

    #[tokio::test]
    async fn a_retired_owner_writes_nothing_and_its_successor_waits_for_what_it_had_begun() {
        let (target, mut told) = listens().await;
        let first = owner(&target, || Writing::Now, None);
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let long = tokio::spawn({
            let first = first.clone();
            async move {
                let work = first.write(|client| async move {
                    client.post("/first", &json!({})).await?;
                    begin.send(()).unwrap();
                    gone.await.unwrap();
                    client.post("/more", &json!({})).await
                });
                work.await
            }
        });
        begun.await.unwrap();
        let mut waits = Box::pin(first.write(|client| async move { client.post("/queued", &json!({})).await }));
        assert!(futures_util::FutureExt::now_or_never(waits.as_mut()).is_none());
        let over = first.retire();
        assert!(matches!(waits.await, Err(DeviceError::NotOwner(_))), "what waits is dropped");
        let second = owner(&target, || Writing::Now, Some(over.clone()));
        let mut next = Box::pin(second.write(|client| async move { client.post("/second", &json!({})).await }));
        assert!(futures_util::FutureExt::now_or_never(next.as_mut()).is_none());
        assert!(!over.is_cancelled());
        go.send(()).unwrap();
        assert!(
            matches!(long.await.unwrap(), Err(DeviceError::Redfish(Error::NotPermitted))),
            "it goes no further"
        );
        next.await.unwrap();
        let late = first.write(|client| async move { client.post("/late", &json!({})).await });
        assert!(matches!(late.await, Err(DeviceError::NotOwner(_))));
        for path in ["/first", "/second"] {
            assert_eq!(told.recv().await.unwrap(), format!("POST {path} HTTP/1.1"));
        }
        assert!(told.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_may_not_write_yet_waits_and_who_may_not_is_told() {
        let (target, mut told) = listens().await;
        let may = Arc::new(Mutex::new(Writing::From(Instant::now() + Duration::from_millis(100))));
        let writing = {
            let may = may.clone();
            move || match *may.lock().unwrap() {
                Writing::From(then) if then <= Instant::now() => Writing::Now,
                other => other,
            }
        };
        let device = owner(&target, writing, None);
        let began = Instant::now();
        device
            .write(|client| async move { client.post("/a", &json!({})).await })
            .await
            .unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        *may.lock().unwrap() = Writing::No;
        let refused = device.write(|client| async move { client.post("/b", &json!({})).await }).await;
        assert!(matches!(refused, Err(DeviceError::NotOwner(_))));
        assert_eq!(told.recv().await.unwrap(), "POST /a HTTP/1.1");
        assert!(told.try_recv().is_err());
    }

    /// Whoever has the BMC next waits no longer than that; and what was sent is not told as if it had not been.
    #[tokio::test]
    async fn a_write_whose_owner_has_lost_its_right_is_broken_off_and_told_as_sent() {
        let (target, mut told) = listens().await;
        let may = Arc::new(Mutex::new(Writing::Now));
        let (asks, mut asked) = tokio::sync::watch::channel(0);
        let writing = {
            let may = may.clone();
            move || {
                asks.send_modify(|count| *count += 1);
                *may.lock().unwrap()
            }
        };
        let device = owner_within(&target, writing, None, Duration::from_millis(200));
        let (begin, begun) = tokio::sync::oneshot::channel();
        let long = tokio::spawn({
            let device = device.clone();
            async move {
                let work = device.write(|client| async move {
                    client.post("/long", &json!({})).await?;
                    begin.send(()).unwrap();
                    std::future::pending::<RedfishResult<()>>().await
                });
                work.await
            }
        });
        begun.await.unwrap();
        // As long as the right lasts, a write may take its time.
        let before = *asked.borrow();
        asked.wait_for(|count| *count >= before + 4).await.unwrap();
        assert!(!long.is_finished());
        *may.lock().unwrap() = Writing::No;
        let outcome = long.await.unwrap();
        assert!(matches!(outcome, Err(DeviceError::Redfish(Error::Lost(_)))), "{outcome:?}");
        *may.lock().unwrap() = Writing::Now;
        device
            .write(|client| async move { client.post("/next", &json!({})).await })
            .await
            .unwrap();
        // One that fails in our own code after it was sent.
        let fails = device.write(|client| async move {
            client.post("/panics", &json!({})).await?;
            panic!("a planted defect")
        });
        let outcome: Result<(), DeviceError> = fails.await;
        assert!(matches!(outcome, Err(DeviceError::Redfish(Error::Lost(_)))), "{outcome:?}");
        for path in ["/long", "/next", "/panics"] {
            assert_eq!(told.recv().await.unwrap(), format!("POST {path} HTTP/1.1"));
        }
    }
}
