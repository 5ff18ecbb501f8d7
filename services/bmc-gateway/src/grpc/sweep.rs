//! Sweeps: one question to every BMC.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ironyard_db::Stored;
use ironyard_proto::bmc::{self as pb, telemetry_service_client::TelemetryServiceClient};
use ironyard_redfish::ops::{drives, power};
use ironyard_rpc::{
    Fault, Reason,
    convert::{health_to, power_to},
    forward::{ON_BEHALF_OF, Peer},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Status, metadata::MetadataValue};
use tracing::Instrument;

use super::Shared;
use crate::{
    device::{Credential, DeviceError},
    domain::bmc::Bmc,
    replicas::Replicas,
};

/// BMCs that a sweep asks at once: those that answer soon, so that others find room beside it; and all, with those that do not. Requests in
/// flight are limited beside that.
const AT_FIRST: usize = 64;
const AT_ONCE: usize = 1024;
/// How often it looks for those that do not.
const LOOK: Duration = Duration::from_millis(100);
/// Answers in one message, at most, and how long they are gathered.
const CHUNK: usize = 256;
const GATHER: Duration = Duration::from_millis(20);

fn failed(bmc: &str, fault: Fault) -> pb::PowerReading {
    pb::PowerReading {
        bmc: bmc.to_owned(),
        reason: fault.reason.as_str().to_owned(),
        message: fault.message,
        ..pb::PowerReading::default()
    }
}

/// A BMC that was named and is not there.
pub(super) fn unknown(name: &str) -> pb::PowerReading {
    failed(name, Fault::new(Reason::BmcNotFound, format!("no BMC is called {name:?}")))
}

type Answers = mpsc::Sender<Vec<pb::PowerReading>>;

/// Asks BMCs, whichever gateway has them.
#[derive(Clone)]
pub(super) struct Asker {
    shared: Shared,
    credentials: Arc<HashMap<String, Credential>>,
}

impl Asker {
    pub(super) fn new(shared: Shared, credentials: HashMap<String, Credential>) -> Self {
        Self {
            shared,
            credentials: Arc::new(credentials),
        }
    }

    /// Asks all of them, at once; the others through the gateways that have them.
    pub(super) fn start(
        self,
        bmcs: Vec<Arc<Stored<Bmc>>>,
        first: Vec<pb::PowerReading>,
        replicas: Option<&Replicas>,
    ) -> impl Stream<Item = Result<pb::SweepPowerResponse, Status>> + Send + 'static {
        let (sender, answers) = mpsc::channel(AT_ONCE);
        let _ = sender.try_send(first);
        let (mine, elsewhere) = match replicas {
            Some(replicas) => replicas.divide(bmcs, |bmc| &bmc.value.metadata.name),
            None => (bmcs, vec![]),
        };
        for (peer, bmcs) in elsewhere {
            tokio::spawn(self.clone().through(peer, bmcs, sender.clone()).in_current_span());
        }
        self.ask(mine, sender);
        ReceiverStream::new(answers).chunks_timeout(CHUNK, GATHER).map(|answers| {
            let readings = answers.into_iter().flatten().collect();
            Ok(pb::SweepPowerResponse { readings })
        })
    }

    fn ask(&self, bmcs: Vec<Arc<Stored<Bmc>>>, answers: Answers) {
        let sweep = Sweep {
            asker: self.clone(),
            bmcs,
            next: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            since: (0..AT_ONCE).map(|_| AtomicUsize::new(0)).collect(),
            answers,
        };
        Arc::new(sweep).start();
    }

    /// Asks through another gateway. Those that it does not answer for are asked from here: it had them a moment ago.
    async fn through(self, peer: Peer, bmcs: Vec<Arc<Stored<Bmc>>>, answers: Answers) {
        let name = |bmc: &Arc<Stored<Bmc>>| bmc.value.metadata.name.clone();
        let mut left: HashMap<String, Arc<Stored<Bmc>>> = bmcs.iter().map(|bmc| (name(bmc), bmc.clone())).collect();
        let mut request = Request::new(pb::SweepPowerRequest {
            selector: None,
            bmcs: left.keys().cloned().collect(),
        });
        request.metadata_mut().insert(ON_BEHALF_OF, MetadataValue::from_static("a sweep"));
        let passing_on = async {
            let mut stream = TelemetryServiceClient::new(peer.channel).sweep_power(request).await?.into_inner();
            while let Some(pb::SweepPowerResponse { readings }) = stream.message().await? {
                let told: Vec<String> = readings.iter().map(|reading| reading.bmc.clone()).collect();
                if answers.send(readings).await.is_err() {
                    break;
                }
                told.iter().for_each(|bmc| drop(left.remove(bmc)));
            }
            Ok::<_, Status>(())
        };
        let outcome = tokio::select! {
            outcome = passing_on => outcome,
            () = peer.gone => Ok(()),
            () = answers.closed() => return,
        };
        if let Err(status) = outcome {
            tracing::info!(error = status.message(), "the replica that has these BMCs does not answer");
        }
        if !left.is_empty() {
            self.ask(left.into_values().collect(), answers);
        }
    }
}

/// What the workers of one sweep share.
struct Sweep {
    asker: Asker,
    bmcs: Vec<Arc<Stored<Bmc>>>,
    next: AtomicUsize,
    /// How often it was looked whether workers wait, and at which look each began with the BMC that it asks.
    looks: AtomicUsize,
    since: Vec<AtomicUsize>,
    answers: Answers,
}

impl Sweep {
    /// Begins with few workers, and brings one more for each that waits for its BMC.
    fn start(self: Arc<Self>) {
        let mut workers = AT_FIRST.min(self.bmcs.len());
        (0..workers).for_each(|n| drop(tokio::spawn(self.clone().work(n))));
        // It is over when the last worker is gone.
        let sweep = Arc::downgrade(&self);
        tokio::spawn(async move {
            while workers < AT_ONCE {
                tokio::time::sleep(LOOK).await;
                let Some(sweep) = sweep.upgrade().filter(|sweep| !sweep.answers.is_closed()) else {
                    return;
                };
                let now = sweep.looks.fetch_add(1, Ordering::Relaxed) + 1;
                let waits = |since: &&AtomicUsize| since.load(Ordering::Relaxed) + 1 < now;
                let waiting = sweep.since.iter().take(workers).filter(waits).count();
                let more = (AT_FIRST + waiting).min(AT_ONCE).saturating_sub(workers);
                (workers..workers + more).for_each(|n| drop(tokio::spawn(sweep.clone().work(n))));
                workers += more;
            }
        });
    }

    /// Asks one BMC after the other until all are asked, or the caller has gone.
    async fn work(self: Arc<Self>, worker: usize) {
        while let Some(bmc) = self.bmcs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(since) = self.since.get(worker) {
                since.store(self.looks.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            // Nobody waits for what a caller asked who has gone.
            let readings = tokio::select! {
                readings = sweep_one(&self.asker, bmc) => readings,
                () = self.answers.closed() => return,
            };
            if let Some(since) = self.since.get(worker) {
                since.store(usize::MAX / 2, Ordering::Relaxed);
            }
            if self.answers.send(readings).await.is_err() {
                return;
            }
        }
    }
}

/// Power and health of the systems of one BMC.
async fn sweep_one(Asker { shared, credentials }: &Asker, bmc: &Stored<Bmc>) -> Vec<pb::PowerReading> {
    let name = bmc.value.metadata.name.clone();
    let device = match shared.devices.running(bmc, credentials.get(&bmc.value.spec.credential)) {
        Some(device) => device,
        // Record and credential may be others by now.
        None => match shared.devices.get(&name).await {
            Ok(device) => device,
            Err(fault) => return vec![failed(&name, fault)],
        },
    };
    let known = &bmc.value.observed.systems;
    if known.is_empty() {
        let why = DeviceError::NotReady("its systems are not known yet".to_owned());
        return vec![failed(&name, why.into())];
    }
    let mut answers = Vec::with_capacity(known.len());
    for id in known {
        answers.push(match device.read_status(id).await {
            Ok(doc) => pb::PowerReading {
                bmc: name.clone(),
                system_id: id.clone(),
                power_state: power_to(power::state(&doc)).into(),
                health: health_to(drives::health(&doc)),
                ..pb::PowerReading::default()
            },
            Err(error) => pb::PowerReading {
                system_id: id.clone(),
                ..failed(&name, error.into())
            },
        });
    }
    answers
}
