use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ironyard_redfish::{Client, Doc, Error, Result as RedfishResult, ops::systems};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::Clock;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tracing::Instrument;

use crate::domain::breaker::{Breaker, Closed};

/// Jobs that wait in front of one BMC, and reads that it may answer at once.
const MAILBOX: usize = 64;
const READS: usize = 2;

type Work = BoxFuture<'static, ()>;

enum Job {
    Read(Work),
    Write(Work),
}

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
    #[error("the BMC refused the credential; it is not tried again before another one is set")]
    Latched,
    /// Too much waits in front of it.
    #[error("too many requests wait for this BMC")]
    Full,
    /// The BMC has no such system.
    #[error("{0}")]
    NotOneSystem(String, bool),
    /// What it answered.
    #[error("{0}")]
    Redfish(#[from] Error),
}

impl From<DeviceError> for Fault {
    fn from(error: DeviceError) -> Self {
        let message = error.to_string();
        let (reason, retry) = match error {
            DeviceError::NotReady(_) => (Reason::BmcNotReady, None),
            DeviceError::Open(wait) => (Reason::BmcUnreachable, Some(wait)),
            DeviceError::Latched => (Reason::BmcAuthenticationFailed, None),
            DeviceError::Full => (Reason::BmcBusy, Some(Duration::from_secs(1))),
            DeviceError::NotOneSystem(_, true) => (Reason::SystemAmbiguous, None),
            DeviceError::NotOneSystem(_, false) => (Reason::SystemNotFound, None),
            DeviceError::Redfish(error) => match error {
                Error::Unreachable(_) | Error::Timeout { .. } => (Reason::BmcUnreachable, Some(Duration::from_secs(2))),
                Error::Tls(_) => (Reason::BmcTlsRefused, None),
                Error::AuthenticationFailed | Error::Forbidden(_) => (Reason::BmcAuthenticationFailed, None),
                Error::SessionLimit => (Reason::BmcBusy, Some(Duration::from_secs(30))),
                Error::Busy { retry_after, .. } => (Reason::BmcBusy, Some(retry_after.unwrap_or(Duration::from_secs(5)))),
                Error::NotFound(_) | Error::Unsupported(_) => (Reason::BmcUnsupported, None),
                Error::PreconditionFailed | Error::Refused { .. } => (Reason::BmcRefused, None),
                Error::Failed { .. } | Error::Protocol { .. } | Error::TooLarge { .. } | Error::CrossOrigin(_) | Error::Budget(_) => {
                    (Reason::BmcProtocol, None)
                }
            },
        };
        let fault = Self::new(reason, message);
        match retry {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        }
    }
}

/// A handle to the owner of one BMC; cheap to clone. The owner ends, and logs out, when the last handle is gone.
#[derive(Clone)]
pub struct Device {
    client: Arc<Client>,
    mailbox: mpsc::Sender<Job>,
    breaker: Arc<Mutex<Breaker>>,
    clock: Arc<dyn Clock>,
    /// Paths of systems by id, so that finding one costs one request.
    systems: Arc<Mutex<HashMap<String, String>>>,
}

impl Device {
    /// Starts the owner.
    pub(crate) fn start(client: Client, clock: Arc<dyn Clock>) -> (Self, JoinHandle<()>) {
        let (mailbox, jobs) = mpsc::channel(MAILBOX);
        let client = Arc::new(client);
        let owner = tokio::spawn(own(client.clone(), jobs));
        let device = Self {
            client,
            mailbox,
            breaker: Arc::default(),
            clock,
            systems: Arc::default(),
        };
        (device, owner)
    }

    /// The certificate that the BMC showed.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.client.certificate_sha256()
    }

    /// Reads. Other reads run beside it.
    pub async fn read<T, F, W>(&self, work: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        self.submit(work, Job::Read).await
    }

    /// Writes. One write at a time, and no caller who hangs up interrupts it.
    pub async fn write<T, F, W>(&self, work: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        self.submit(work, Job::Write).await
    }

    async fn submit<T, F, W>(&self, work: F, job: fn(Work) -> Job) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Client>) -> W + Send + 'static,
        W: Future<Output = RedfishResult<T>> + Send + 'static,
    {
        self.breaker().admit(self.clock.now()).map_err(|closed| match closed {
            Closed::Open(wait) => DeviceError::Open(wait),
            Closed::Latched => DeviceError::Latched,
        })?;
        let reads = matches!(job(Box::pin(std::future::ready(()))), Job::Read(_));
        let (reply, answer) = oneshot::channel();
        let (client, device) = (self.client.clone(), self.clone_for_record());
        let work = async move {
            // Nobody waits for it any more: a slow BMC is not asked again and again for callers who gave up. Writes begin all the same.
            if reads && reply.is_closed() {
                return;
            }
            let outcome = work(client).await;
            device.record(&outcome);
            let _ = reply.send(outcome);
        };
        self.mailbox
            .try_send(job(Box::pin(work.in_current_span())))
            .map_err(|_| DeviceError::Full)?;
        match answer.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(DeviceError::Full),
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn clone_for_record(&self) -> Recorder {
        Recorder {
            breaker: self.breaker.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Finds a system by id; empty: the only one.
    pub async fn system(&self, id: &str) -> Result<Doc, DeviceError> {
        let known = self.systems.lock().ok().and_then(|s| s.get(id).cloned());
        if let Some(path) = known
            && let Ok(doc) = self.read(|client| async move { client.get(&path).await }).await
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
        if let Ok(mut known) = self.systems.lock()
            && !id.is_empty()
        {
            known.insert(id.to_owned(), one.uri.clone());
        }
        Ok(one)
    }
}

struct Recorder {
    breaker: Arc<Mutex<Breaker>>,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    fn record<T>(&self, outcome: &RedfishResult<T>) {
        let mut breaker = self.breaker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match outcome {
            Err(Error::AuthenticationFailed) => breaker.refused(),
            Err(error) if error.is_transport() => breaker.failed(self.clock.now()),
            Ok(_) | Err(_) => breaker.answered(),
        }
    }
}

/// The owner: a few reads at a time, writes one at a time and in order.
async fn own(client: Arc<Client>, mut jobs: mpsc::Receiver<Job>) {
    let (mut reads, mut writes) = (VecDeque::new(), VecDeque::new());
    let (mut reading, mut writing) = (JoinSet::new(), JoinSet::new());
    loop {
        while reading.len() < READS
            && let Some(work) = reads.pop_front()
        {
            reading.spawn(work);
        }
        if writing.is_empty()
            && let Some(work) = writes.pop_front()
        {
            writing.spawn(work);
        }
        // A full queue inside leaves the mailbox to fill, and callers to be told.
        let room = reads.len() + writes.len() < MAILBOX;
        tokio::select! {
            job = jobs.recv(), if room => match job {
                Some(Job::Read(work)) => reads.push_back(work),
                Some(Job::Write(work)) => writes.push_back(work),
                None => break,
            },
            Some(_) = reading.join_next(), if !reading.is_empty() => {}
            Some(_) = writing.join_next(), if !writing.is_empty() => {}
        }
    }
    // Nobody waits for reads any more; what is being written is written.
    reading.shutdown().await;
    while writing.join_next().await.is_some() {}
    client.logout().await;
}
