use std::{collections::HashSet, pin::Pin};

use ironyard_db::Snapshot;
use ironyard_proto::bmc::{self as pb, telemetry_service_server::TelemetryService};
use ironyard_redfish::ops::{logs, sensors};
use ironyard_rpc::{
    Fault,
    convert::{health_to, selector_from, timestamp_from, timestamp_to},
    forward::PassedOn,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Shared, sweep};
use crate::{device::Credential, domain::bmc::Bmc, replicas::Replicas, store::credential};

/// The service on the wire.
pub struct Grpc {
    /// What all share.
    pub shared: Shared,
    /// What a sweep goes over.
    pub bmcs: Snapshot<Bmc>,
    /// Who has it.
    pub replicas: Replicas,
}

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

#[tonic::async_trait]
impl TelemetryService for Grpc {
    type SweepPowerStream = Pin<Box<dyn Stream<Item = Result<pb::SweepPowerResponse, Status>> + Send>>;

    async fn sweep_power(&self, request: Request<pb::SweepPowerRequest>) -> Result<Response<Self::SweepPowerStream>, Status> {
        // What another gateway passes on is this one's, whatever it thinks itself.
        let replicas = request.extensions().get::<PassedOn>().is_none().then(|| self.replicas.clone());
        let pb::SweepPowerRequest { selector, bmcs } = request.into_inner();
        let selector = selector_from("selector", selector)?;
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let all = self.bmcs.read(&self.shared.cx.db).await.map_err(store)?;
        let credentials = credential::list(&self.shared.cx.db).await.map_err(store)?;
        let credentials = credentials.into_iter().map(|c| (c.name.clone(), Credential::new(c))).collect();
        let named: HashSet<&str> = bmcs.iter().map(String::as_str).collect();
        let matching = all.iter().filter(|bmc| {
            let (name, labels) = (bmc.value.metadata.name.as_str(), &bmc.value.metadata.labels);
            (named.is_empty() || named.contains(name)) && selector.matches(labels)
        });
        let known: HashSet<&str> = all.iter().map(|bmc| bmc.value.metadata.name.as_str()).collect();
        let unknown = named.difference(&known).map(|name| sweep::unknown(name)).collect();
        let asker = sweep::Asker::new(self.shared.clone(), credentials);
        let answers = asker.start(matching.cloned().collect(), unknown, replicas.as_ref());
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
