use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard_redfish::{
    Client, Doc, Error, Result as RedfishResult, Url, changing_while,
    ops::{events, systems},
};
use ironyard_rpc::{Fault, Reason, caller, fence};
use ironyard_types::{Clock, MachineIdentity, Timestamp};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::mailbox::{Mailbox, Place, Places};
use crate::domain::breaker::{Breaker, Closed};

/// Reads that a BMC may answer at once.
const READS: usize = 2;

/// Why the BMC was not asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No address, no credential, a bad address.
    #[error("{0}")]
    NotReady(String),
    /// It did not answer lately.
    #[error("the BMC does not answer; it is tried again in {} s", .0.as_secs() + 1)]
    Open(Duration),
    /// Its credential was refused.
    #[error("the BMC refused the credential; it is tried again in {} min, or when another one is set", .0.as_secs() / 60 + 1)]
    Refused(Duration),
    /// Too much waits in front of it.
    #[error("too many requests wait for this BMC")]
    Full,
    /// The BMC has no such system.
    #[error("{0}")]
    NotOneSystem(String, bool),
    /// Another machine stands in the place of the one that was meant.
    #[error("the BMC shows another machine than the one that is meant: {0}; nothing was written to it")]
    WrongMachine(String),
    /// What it answered.
    #[error("{0}")]
    Redfish(#[from] Error),
}

impl From<DeviceError> for Fault {
    fn from(error: DeviceError) -> Self {
        // Several texts of a BMC, each capped, may stand in it.
        let message: String = error.to_string().chars().take(2000).collect();
        let wrong = match &error {
            DeviceError::Redfish(Error::InvalidValue { property, message }) => Some((property.clone(), message.clone())),
            _ => None,
        };
        let (reason, retry) = match error {
            DeviceError::NotReady(_) => (Reason::BmcNotReady, None),
            DeviceError::Open(wait) => (Reason::BmcUnreachable, Some(wait)),
            DeviceError::Refused(_) => (Reason::BmcAuthenticationFailed, None),
            DeviceError::Full => (Reason::BmcBusy, Some(Duration::from_secs(1))),
            DeviceError::NotOneSystem(_, true) => (Reason::SystemAmbiguous, None),
            DeviceError::WrongMachine(_) => (Reason::WrongMachine, None),
            DeviceError::NotOneSystem(_, false) => (Reason::SystemNotFound, None),
            DeviceError::Redfish(error) => match error {
                Error::Timeout { write: true } | Error::Lost(_) => (Reason::BmcAmbiguous, None),
                Error::Unreachable(_) | Error::Timeout { write: false } => (Reason::BmcUnreachable, Some(Duration::from_secs(2))),
                Error::Tls(_) => (Reason::BmcTlsRefused, None),
                Error::AuthenticationFailed => (Reason::BmcAuthenticationFailed, None),
                Error::Forbidden(_) => (Reason::BmcForbidden, None),
                Error::PasswordChangeRequired => (Reason::BmcPasswordChangeRequired, None),
                Error::LicenseRequired(_) => (Reason::BmcLicenseRequired, None),
                Error::InvalidValue { .. } => (Reason::BmcInvalidValue, None),
                Error::NotApplied(_) => (Reason::BmcRefused, None),
                Error::NotPermitted => (Reason::StaleFence, None),
                Error::SessionLimit => (Reason::BmcBusy, Some(Duration::from_secs(30))),
                Error::Busy { retry_after, .. } => (Reason::BmcBusy, Some(retry_after.unwrap_or(Duration::from_secs(5)))),
                Error::NotFound(_) | Error::Unsupported(_) => (Reason::BmcUnsupported, None),
                Error::PreconditionFailed | Error::Refused { .. } => (Reason::BmcRefused, None),
                Error::Image(_) => (Reason::Internal, None),
                Error::Failed { .. } | Error::Protocol { .. } | Error::TooLarge { .. } | Error::CrossOrigin(_) | Error::Budget(_) => {
                    (Reason::BmcProtocol, None)
                }
            },
        };
        let mut fault = Self::new(reason, message);
        fault.fields.extend(wrong);
        match retry {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        }
    }
}

/// A handle to the owner of one BMC; cheap to clone. The owner ends, and logs out, when the last handle is gone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    reads: Places,
    /// Writes, for the owner.
    writes: Mailbox,
    breaker: Mutex<Breaker>,
    clock: Arc<dyn Clock>,
    /// Where systems are, by id, so that finding one costs one request.
    systems: Mutex<HashMap<String, Url>>,
    /// Version of the credential that it logs in with.
    credential: String,
    /// When it was last looked at as a whole.
    looked: Mutex<Option<Timestamp>>,
    /// Another one has taken its place: streams end.
    retired: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writes.close();
    }
}

impl Device {
    /// Starts the owner.
    pub(crate) fn start(client: Client, clock: Arc<dyn Clock>, breaker: Breaker, credential: String) -> (Self, JoinHandle<()>) {
        let writes = Mailbox::default();
        let client = Arc::new(client);
        let owner = tokio::spawn(own(client.clone(), writes.clone()));
        let device = Self(Arc::new(Inner {
            client,
            reads: Places::new(READS),
            writes,
            breaker: Mutex::new(breaker),
            clock,
            systems: Mutex::default(),
            credential,
            looked: Mutex::default(),
            retired: CancellationToken::new(),
        }));
        (device, owner)
    }

    /// The version of the credential, when the BMC has refused it; else empty.
    pub fn refused_credential(&self) -> String {
        if self.breaker().is_refused() {
            self.0.credential.clone()
        } else {
            String::new()
        }
    }

    /// Whether it has not been looked at as a whole for so long.
    pub fn full_look_due(&self, now: Timestamp, every: Duration) -> bool {
        self.0
            .looked
            .lock()
            .is_ok_and(|looked| looked.is_none_or(|at| now.since(at) >= every))
    }

    /// Notes that it was looked at as a whole.
    pub fn looked_fully(&self, now: Timestamp) {
        if let Ok(mut looked) = self.0.looked.lock() {
            *looked = Some(now);
        }
    }

    /// The certificate that the BMC showed.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.0.client.certificate_sha256()
    }

    /// Reads. A few others run beside it; a caller who hangs up while it waits is forgotten.
    pub async fn read<T, F, W>(&self, work: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        let place = self.place().await?;
        self.admit()?;
        let device = self.clone();
        // A task of its own: a caller who hangs up must not cut a login short, whose session nobody would then know.
        let reading = async move {
            let outcome = work(device.0.client.clone()).await;
            device.record(&outcome);
            drop(place);
            outcome
        };
        match self.waits(tokio::spawn(reading.in_current_span())).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(DeviceError::Full),
        }
    }

    /// A place to read, in turn; too many who wait are told so.
    async fn place(&self) -> Result<Place, DeviceError> {
        if let Some(place) = self.0.reads.free() {
            return Ok(place);
        }
        // Nobody waits for what would not be asked; a copy, since the one probe after a pause is not sent yet.
        let mut breaker = *self.breaker();
        self.admitted(&mut breaker)?;
        self.waits(self.0.reads.wait(&caller())).await.ok_or(DeviceError::Full)
    }

    /// Writes. One write at a time, and no caller who hangs up interrupts one that has begun.
    pub async fn write<T, F, W>(&self, work: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        self.admit()?;
        let (reply, answer) = oneshot::channel();
        let (device, permission) = (self.clone(), fence::permission());
        let writing = async move {
            // Whoever asked has gone, and may have lost the right to ask: what has not begun does not begin.
            if reply.is_closed() {
                return;
            }
            let work = work(device.0.client.clone());
            let outcome = match permission {
                Some(permission) => changing_while(permission, work).await,
                None => work.await,
            };
            device.record(&outcome);
            let _ = reply.send(outcome);
        };
        if !self.0.writes.put(&caller(), Box::pin(writing.in_current_span())) {
            return Err(DeviceError::Full);
        }
        match self.waits(answer).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(DeviceError::Full),
        }
    }

    /// Ends what lasts: another one takes its place.
    pub(crate) fn retire(&self) {
        self.0.retired.cancel();
    }

    /// Reads a stream of events, beside all reads and writes, until it ends or the device is retired.
    pub async fn listen(&self, uri: &str, idle: Duration, mut each: impl FnMut() + Send) -> Result<(), DeviceError> {
        self.admit()?;
        let hear = |_| {
            each();
            true
        };
        tokio::select! {
            outcome = events::stream(&self.0.client, uri, idle, hear) => Ok(outcome?),
            () = self.0.retired.cancelled() => Ok(()),
        }
    }

    /// A caller whose deadline passes is told that it waited for the BMC.
    async fn waits<F: Future>(&self, work: F) -> F::Output {
        let url = self.0.client.resolve("/");
        let host = url.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        ironyard_rpc::waits_for(format!("the BMC at {host}, which is slow or hangs"), work).await
    }

    fn admit(&self) -> Result<(), DeviceError> {
        self.admitted(&mut self.breaker())
    }

    fn admitted(&self, breaker: &mut Breaker) -> Result<(), DeviceError> {
        breaker.admit(self.0.clock.now()).map_err(|closed| match closed {
            Closed::Open(wait) => DeviceError::Open(wait),
            Closed::Refused(wait) => DeviceError::Refused(wait),
        })
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.0.breaker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn record<T>(&self, outcome: &RedfishResult<T>) {
        let mut breaker = self.breaker();
        match outcome {
            Err(Error::AuthenticationFailed) => breaker.refused(self.0.clock.now()),
            // It was not asked.
            Err(Error::NotPermitted) => {}
            Err(error) if error.is_transport() => breaker.failed(self.0.clock.now()),
            Ok(_) | Err(_) => {
                breaker.answered();
                if self.0.client.is_logged_in() {
                    breaker.accepted();
                }
            }
        }
    }

    /// Power and health of a system whose path is known; of any other, all of it.
    pub async fn glance(&self, id: &str) -> Result<Doc, DeviceError> {
        let known = self.0.systems.lock().ok().and_then(|s| s.get(id).cloned());
        let Some(url) = known else { return self.system(id).await };
        let place = self.place().await?;
        self.admit()?;
        // No task of its own, as a read has: what never logs in may be interrupted.
        let glance = self.0.client.glance(&url, &["@odata.id", "Id", "PowerState", "Status"]);
        let outcome = self.waits(glance).await;
        drop(place);
        match outcome {
            // There is no session, or it may have another path by now. It answers: what was admitted is over.
            Ok(None) | Err(Error::NotFound(_)) => {
                self.breaker().answered();
                self.system(id).await
            }
            outcome => {
                self.record(&outcome);
                outcome?.ok_or(DeviceError::Redfish(Error::AuthenticationFailed))
            }
        }
    }

    /// Finds a system, as `system` does, that is the machine that is meant and no other.
    pub async fn machine(&self, id: &str, meant: &MachineIdentity) -> Result<Doc, DeviceError> {
        let system = self.system(id).await?;
        let shown = MachineIdentity::new(
            &systems::uuid(&system),
            &system.text_or_empty("Manufacturer"),
            &systems::serial(&system),
        );
        match meant.differs(&shown) {
            Some(why) => Err(DeviceError::WrongMachine(why)),
            None => Ok(system),
        }
    }

    /// Finds a system by id; empty: the only one.
    pub async fn system(&self, id: &str) -> Result<Doc, DeviceError> {
        let known = self.0.systems.lock().ok().and_then(|s| s.get(id).cloned());
        if let Some(url) = known
            && let Ok(doc) = self.read(|client| async move { client.get(url.path()).await }).await
        {
            return Ok(doc);
        }
        let only = id.is_empty();
        let all = self.read(move |client| async move {
            if only {
                systems::list_all(&client).await
            } else {
                systems::list(&client).await
            }
        });
        let all = all.await?;
        let one = systems::choose(all, id).map_err(|not_one| match not_one {
            systems::NotOne::Missing => DeviceError::NotOneSystem(format!("the BMC has no system {id:?}"), false),
            systems::NotOne::Several(ids) => {
                DeviceError::NotOneSystem(format!("the BMC has several systems ({}); name one", ids.join(", ")), true)
            }
        })?;
        // "The only one" is looked for afresh each time: there may be others by then.
        if let Ok(mut known) = self.0.systems.lock()
            && !id.is_empty()
            && let Ok(url) = self.0.client.resolve(&one.uri)
        {
            known.insert(id.to_owned(), url);
        }
        Ok(one)
    }
}

/// The owner of the writes: one at a time, in order. What is being written is written, whoever has gone.
async fn own(client: Arc<Client>, writes: Mailbox) {
    while let Some(work) = writes.take().await {
        // A panic in one is not the end of the owner.
        let _ = tokio::spawn(work).await;
    }
    client.logout().await;
}

#[cfg(test)]
mod tests {
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

    /// A BMC that does whatever it is asked, and tells what that was.
    async fn bmc() -> (Device, tokio::sync::mpsc::UnboundedReceiver<String>) {
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
        ironyard_redfish::install_crypto();
        let client = Client::new(&target, &Trust::Any, None, Limits::default()).unwrap();
        let (device, _) = Device::start(client, Arc::new(SystemClock), Breaker::default(), String::new());
        (device, told)
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
}
