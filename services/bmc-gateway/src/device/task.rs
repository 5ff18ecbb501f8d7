use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard_redfish::{
    Client, Doc, Error, Result as RedfishResult, Url,
    ops::{events, systems, topology},
};
use ironyard_rpc::caller;
use ironyard_types::{Clock, MachineIdentity, Timestamp};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::{
    error::DeviceError,
    mailbox::{Mailbox, Place, Places},
    writes::{Ends, Owner, WritePermission, own},
};
use crate::domain::breaker::{Breaker, Closed};

/// Reads that a BMC may answer at once.
const READS: usize = 2;

/// A handle to the owner of one BMC; cheap to clone. The owner ends, and logs out, when the last handle is gone, or another one takes its place.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: Arc<Client>,
    reads: Places,
    /// Writes, for the owner.
    pub(super) writes: Mailbox,
    breaker: Mutex<Breaker>,
    clock: Arc<dyn Clock>,
    /// Where systems are, by id, so that finding one costs one request.
    systems: Mutex<HashMap<String, Url>>,
    /// Version of the credential that it logs in with.
    credential: String,
    /// When it was last looked at as a whole.
    looked: Mutex<Option<Timestamp>>,
    pub(super) right: Arc<dyn WritePermission>,
    pub(super) write_timeout: Duration,
    /// Writes that are asked for and not over.
    pub(super) asked: Arc<()>,
    pub(super) ends: Ends,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writes.close();
        self.ends.unused.cancel();
    }
}

impl Device {
    /// Starts the owner.
    pub(crate) fn start(
        client: Client,
        clock: Arc<dyn Clock>,
        breaker: Breaker,
        credential: String,
        owner: Owner,
    ) -> (Self, JoinHandle<()>) {
        let (writes, ends) = (Mailbox::default(), Ends::default());
        let client = Arc::new(client);
        let (mine, right, write_timeout) = (writes.clone(), owner.right.clone(), owner.write_timeout);
        let owner = tokio::spawn(own(client.clone(), mine, owner, ends.clone()));
        let device = Self(Arc::new(Inner {
            client,
            reads: Places::new(READS),
            writes,
            breaker: Mutex::new(breaker),
            clock,
            systems: Mutex::default(),
            credential,
            looked: Mutex::default(),
            right,
            write_timeout,
            asked: Arc::default(),
            ends,
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

    /// Reads a stream of events, beside all reads and writes, until it ends or the device is retired.
    pub async fn listen(&self, uri: &str, idle: Duration, mut each: impl FnMut() + Send) -> Result<(), DeviceError> {
        self.admit()?;
        let hear = |_| {
            each();
            true
        };
        tokio::select! {
            outcome = events::stream(&self.0.client, uri, idle, hear) => Ok(outcome?),
            () = self.0.ends.retired.cancelled() => Ok(()),
        }
    }

    /// A caller whose deadline passes is told that it waited for the BMC.
    pub(super) async fn waits<F: Future>(&self, work: F) -> F::Output {
        let url = self.0.client.resolve("/");
        let host = url.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        ironyard_rpc::waits_for(format!("the BMC at {host}, which is slow or hangs"), work).await
    }

    pub(super) fn admit(&self) -> Result<(), DeviceError> {
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

    pub(super) fn record<T>(&self, outcome: &RedfishResult<T>) {
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
    pub async fn read_status(&self, id: &str) -> Result<Doc, DeviceError> {
        let known = self.0.systems.lock().ok().and_then(|s| s.get(id).cloned());
        let Some(url) = known else { return self.system(id).await };
        let place = self.place().await?;
        self.admit()?;
        // No task of its own, as a read has: what never logs in may be interrupted.
        let read = self.0.client.read_partial(&url, &["@odata.id", "Id", "PowerState", "Status"]);
        let outcome = self.waits(read).await;
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
        let one = topology::choose(all, id).map_err(|not_one| match not_one {
            topology::NotOne::Missing => DeviceError::NotOneSystem(format!("the BMC has no system {id:?}"), false),
            topology::NotOne::Several(ids) => {
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
