use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ironyard_db::{Snapshot, Stored};
use ironyard_proto::bmc::{self as pb, telemetry_service_server::TelemetryService};
use ironyard_redfish::ops::{drives, logs, power, sensors};
use ironyard_rpc::{
    Fault,
    convert::{health_to, power_to, selector_from, timestamp_from, timestamp_to},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::Shared;
use crate::{
    device::{Credential, DeviceError},
    domain::bmc::Bmc,
    store::credential,
};

/// The service on the wire.
pub struct Grpc {
    /// What all share.
    pub shared: Shared,
    /// What a sweep goes over.
    pub bmcs: Snapshot<Bmc>,
}

/// BMCs that a sweep asks at once: those that answer soon, so that others find room beside it; and all, with those that do not. Requests in
/// flight are limited beside that.
const AT_FIRST: usize = 64;
const AT_ONCE: usize = 1024;
/// How often it looks for those that do not.
const LOOK: Duration = Duration::from_millis(100);
/// Answers in one message, at most, and how long they are gathered.
const CHUNK: usize = 256;
const GATHER: Duration = Duration::from_millis(20);

fn sensor_to(sensor: sensors::Sensor) -> pb::Sensor {
    let sensors::Sensor {
        name,
        kind,
        reading,
        unit,
        health,
        critical,
    } = sensor;
    pb::Sensor {
        name,
        r#type: kind,
        reading,
        unit,
        health: health_to(health),
        critical,
    }
}

fn entry_to(entry: logs::Entry) -> pb::LogEntry {
    let logs::Entry {
        id,
        created,
        severity,
        message,
        message_id,
    } = entry;
    pb::LogEntry {
        id,
        create_time: created.map(timestamp_to),
        severity,
        message,
        message_id,
    }
}

fn failed(bmc: &str, fault: Fault) -> pb::PowerReading {
    pb::PowerReading {
        bmc: bmc.to_owned(),
        reason: fault.reason.as_str().to_owned(),
        message: fault.message,
        ..pb::PowerReading::default()
    }
}

/// What the workers of one sweep share.
struct Sweep {
    shared: Shared,
    credentials: HashMap<String, Credential>,
    bmcs: Vec<Arc<Stored<Bmc>>>,
    next: AtomicUsize,
    /// How often it was looked whether workers wait, and at which look each began with the BMC that it asks.
    looks: AtomicUsize,
    since: Vec<AtomicUsize>,
    answers: mpsc::Sender<Vec<pb::PowerReading>>,
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
                readings = sweep_one(&self.shared, &self.credentials, bmc) => readings,
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
async fn sweep_one(shared: &Shared, credentials: &HashMap<String, Credential>, bmc: &Stored<Bmc>) -> Vec<pb::PowerReading> {
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
        answers.push(match device.glance(id).await {
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

#[tonic::async_trait]
impl TelemetryService for Grpc {
    type SweepPowerStream = Pin<Box<dyn Stream<Item = Result<pb::SweepPowerResponse, Status>> + Send>>;

    async fn sweep_power(&self, request: Request<pb::SweepPowerRequest>) -> Result<Response<Self::SweepPowerStream>, Status> {
        let selector = selector_from("selector", request.into_inner().selector)?;
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let bmcs = self.bmcs.read(&self.shared.cx.db).await.map_err(store)?;
        let credentials = credential::list(&self.shared.cx.db).await.map_err(store)?;
        let credentials = credentials.into_iter().map(|c| (c.name.clone(), Credential::new(c))).collect();
        let matching: Vec<_> = bmcs
            .iter()
            .filter(|b| selector.matches(&b.value.metadata.labels))
            .cloned()
            .collect();
        let (sender, answers) = mpsc::channel(AT_ONCE);
        let sweep = Arc::new(Sweep {
            shared: self.shared.clone(),
            credentials,
            bmcs: matching,
            next: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            since: (0..AT_ONCE).map(|_| AtomicUsize::new(0)).collect(),
            answers: sender,
        });
        sweep.start();
        let answers = ReceiverStream::new(answers).chunks_timeout(CHUNK, GATHER).map(|answers| {
            let readings = answers.into_iter().flatten().collect();
            Ok(pb::SweepPowerResponse { readings })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_sensors(&self, request: Request<pb::GetSensorsRequest>) -> Result<Response<pb::Sensors>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let read = device.read(|client| async move { sensors::read(&client, &doc).await });
        let sensors::Readings {
            sensors,
            watts,
            health,
            unreadable,
        } = read.await.map_err(Fault::from)?;
        Ok(Response::new(pb::Sensors {
            sensors: sensors.into_iter().map(sensor_to).collect(),
            power_watts: watts,
            health: health_to(health),
            unreadable,
        }))
    }

    async fn list_logs(&self, request: Request<pb::ListLogsRequest>) -> Result<Response<pb::ListLogsResponse>, Status> {
        let (device, doc) = self.shared.find(request.into_inner().system).await?;
        let read = device.read(|client| async move { logs::list(&client, &doc).await });
        let logs = read.await.map_err(Fault::from)?;
        let log_to = |log: logs::Log| {
            let logs::Log { id, name, clearable, uri } = log;
            pb::Log { id, name, clearable, uri }
        };
        Ok(Response::new(pb::ListLogsResponse {
            logs: logs.into_iter().map(log_to).collect(),
        }))
    }

    async fn read_log(&self, request: Request<pb::ReadLogRequest>) -> Result<Response<pb::ReadLogResponse>, Status> {
        let pb::ReadLogRequest {
            system,
            log,
            severity,
            since,
            page_size,
            page_token,
        } = request.into_inner();
        if !["", "OK", "Warning", "Critical"].contains(&severity.as_str()) {
            return Err(Fault::field("severity", format!("{severity:?} is not a severity: use Warning or Critical")).into());
        }
        let wrong = || Fault::field("page_token", "is not one that this method returned");
        let skip = if page_token.is_empty() {
            0
        } else {
            page_token.parse::<usize>().map_err(|_| wrong())?
        };
        let top = usize::try_from(page_size).map_err(|_| Fault::field("page_size", "must not be negative"))?;
        let query = logs::Query {
            severity,
            since: since.map(timestamp_from),
            skip,
            top,
        };
        let (device, doc) = self.shared.find(system).await?;
        let read = device.read(move |client| async move { logs::read(&client, &doc, &log, &query).await });
        let (entries, more) = read.await.map_err(Fault::from)?;
        let next_page_token = if more { (skip + entries.len()).to_string() } else { String::new() };
        Ok(Response::new(pb::ReadLogResponse {
            entries: entries.into_iter().map(entry_to).collect(),
            next_page_token,
        }))
    }

    async fn clear_log(&self, request: Request<pb::ClearLogRequest>) -> Result<Response<pb::ClearLogResponse>, Status> {
        let pb::ClearLogRequest { system, log } = request.into_inner();
        let (device, doc) = self.shared.find(system).await?;
        let write = device.write(move |client| async move { logs::clear(&client, &doc, &log).await });
        write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::ClearLogResponse {}))
    }
}
