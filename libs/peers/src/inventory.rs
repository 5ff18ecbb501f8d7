use ironyard_proto::{
    common::{Condition, ConditionStatus, Reference, WaitingBecause},
    inventory::{self as pb, server_service_client::ServerServiceClient},
};
use ironyard_rpc::Channel;
use ironyard_types::MachineIdentity;
use tonic::Code;

use crate::Result;

/// The inventory service.
#[derive(Clone)]
pub struct Inventory {
    /// The generated client.
    pub servers: ServerServiceClient<Channel>,
}

impl Inventory {
    /// Over a channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            servers: ServerServiceClient::new(channel).max_decoding_message_size(64 << 20),
        }
    }

    /// A server, if it exists.
    pub async fn get(&self, name: &str) -> Result<Option<pb::Server>> {
        match self
            .servers
            .clone()
            .get_server(pb::GetServerRequest { name: name.to_owned() })
            .await
        {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// All servers of a BMC.
    pub async fn of_bmc(&self, bmc: &str) -> Result<Vec<pb::Server>> {
        let request = pb::ListServersRequest {
            page_size: 1000,
            bmc: bmc.to_owned(),
            ..Default::default()
        };
        Ok(self.servers.clone().list_servers(request).await?.into_inner().servers)
    }

    /// The server of a system UUID.
    pub async fn of_uuid(&self, system_uuid: &str) -> Result<Option<pb::Server>> {
        let request = pb::ListServersRequest {
            page_size: 1,
            system_uuid: system_uuid.to_owned(),
            ..Default::default()
        };
        Ok(self.servers.clone().list_servers(request).await?.into_inner().servers.pop())
    }

    /// The servers of a state.
    pub async fn in_state(&self, state: pb::ServerState) -> Result<Vec<pb::Server>> {
        let request = pb::ListServersRequest {
            page_size: 1000,
            state: state.into(),
            ..Default::default()
        };
        Ok(self.servers.clone().list_servers(request).await?.into_inner().servers)
    }

    /// The server that a claim holds.
    pub async fn held_by(&self, claim_uid: &str) -> Result<Option<pb::Server>> {
        let request = pb::ListServersRequest {
            page_size: 1,
            claim_uid: claim_uid.to_owned(),
            ..Default::default()
        };
        Ok(self.servers.clone().list_servers(request).await?.into_inner().servers.pop())
    }

    /// Moves a server that is still as it was read.
    pub async fn transition(
        &self,
        server: &pb::Server,
        event: pb::ServerEvent,
        subject: Option<Reference>,
        reason: &str,
    ) -> Result<pb::Server> {
        let metadata = server.metadata.clone().unwrap_or_default();
        let request = pb::TransitionServerRequest {
            name: metadata.name,
            etag: metadata.etag,
            event: event.into(),
            subject,
            reason: reason.to_owned(),
            ..Default::default()
        };
        Ok(self.servers.clone().transition_server(request).await?.into_inner())
    }

    /// Says that discovery is complete, and whether the machine owes a wipe since it was found.
    pub async fn discovery_done(&self, server: &pb::Server, owes_first_wipe: bool, reason: &str) -> Result<pb::Server> {
        // Two words, so that an inventory that does not know the second refuses it.
        let event = if owes_first_wipe {
            pb::ServerEvent::DiscoveryDoneOwing
        } else {
            pb::ServerEvent::DiscoveryDone
        };
        let metadata = server.metadata.clone().unwrap_or_default();
        let request = pb::TransitionServerRequest {
            name: metadata.name,
            etag: metadata.etag,
            event: event.into(),
            reason: reason.to_owned(),
            ..Default::default()
        };
        Ok(self.servers.clone().transition_server(request).await?.into_inner())
    }

    /// Sends a server to Error.
    pub async fn fail(&self, server: &pb::Server, reason: &str, message: &str, step: &str, attempts: i32) -> Result<pb::Server> {
        let metadata = server.metadata.clone().unwrap_or_default();
        let request = pb::TransitionServerRequest {
            name: metadata.name,
            etag: metadata.etag,
            event: pb::ServerEvent::Fail.into(),
            reason: message.to_owned(),
            failure: Some(pb::ServerFailure {
                reason: reason.to_owned(),
                message: message.to_owned(),
                step: step.to_owned(),
                attempts,
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(self.servers.clone().transition_server(request).await?.into_inner())
    }

    /// Says that a wipe is complete.
    pub async fn cleanup_done(&self, server: &pb::Server, certificate: Option<pb::CertificateSummary>) -> Result<pb::Server> {
        let metadata = server.metadata.clone().unwrap_or_default();
        let request = pb::TransitionServerRequest {
            name: metadata.name,
            etag: metadata.etag,
            event: pb::ServerEvent::CleanupDone.into(),
            reason: certificate.as_ref().map(|c| format!("certificate {}", c.name)).unwrap_or_default(),
            certificate,
            ..Default::default()
        };
        Ok(self.servers.clone().transition_server(request).await?.into_inner())
    }

    /// Reports what was seen.
    pub async fn report(&self, request: pb::ReportServerRequest) -> Result<pb::Server> {
        Ok(self.servers.clone().report_server(request).await?.into_inner())
    }

    /// Says why a server waits, unless it says so already.
    pub async fn wait(&self, server: &pb::Server, reason: &str, message: &str) -> Result<()> {
        let now = server.waiting_because.as_ref();
        if now.is_some_and(|w| w.reason == reason && w.message == message) {
            return Ok(());
        }
        let waiting = WaitingBecause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..Default::default()
        };
        self.report(pb::ReportServerRequest {
            name: name(server),
            waiting_because: Some(waiting),
            ..Default::default()
        })
        .await?;
        Ok(())
    }

    /// Says that a server waits for nothing, unless it says so already.
    pub async fn at_rest(&self, server: &pb::Server) -> Result<()> {
        if server.waiting_because.is_none() {
            return Ok(());
        }
        self.wait(server, "NONE", "").await
    }

    /// Sets a condition, unless it is so already.
    pub async fn condition(&self, server: &pb::Server, kind: &str, holds: bool, reason: &str, message: &str) -> Result<()> {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        let same = |c: &Condition| c.r#type == kind && c.status() == status && c.reason == reason && c.message == message;
        if server.conditions.iter().any(same) {
            return Ok(());
        }
        let condition = Condition {
            r#type: kind.to_owned(),
            status: status.into(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: None,
        };
        self.report(pb::ReportServerRequest {
            name: name(server),
            conditions: vec![condition],
            ..Default::default()
        })
        .await?;
        Ok(())
    }

    /// Reserves for many claims, in their order: what each got.
    pub async fn reserve(&self, requests: Vec<pb::ReserveServerRequest>) -> Result<Vec<pb::Reservation>> {
        let request = pb::ReserveServersRequest { requests };
        Ok(self.servers.clone().reserve_servers(request).await?.into_inner().reservations)
    }
}

/// What makes the machine behind a server this one, as far as it is known.
pub fn identity(server: &pb::Server) -> MachineIdentity {
    let spec = server.spec.clone().unwrap_or_default();
    let hardware = server.observed.as_ref().and_then(|o| o.hardware.clone()).unwrap_or_default();
    MachineIdentity::new(&spec.system_uuid, &hardware.manufacturer, &hardware.serial_number)
}

/// The condition in which discovery tells that a machine was found running, and is left alone until a claim adopts it or it is off.
pub const ADOPTABLE: &str = "Adoptable";

/// That condition, while it holds.
pub fn adoptable(server: &pb::Server) -> Option<&Condition> {
    let told = |c: &&Condition| c.r#type == ADOPTABLE && c.status() == ConditionStatus::True;
    server
        .conditions
        .iter()
        .find(told)
        .filter(|_| server.state() == pb::ServerState::Discovery)
}

/// Name of a server.
pub fn name(server: &pb::Server) -> String {
    server.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default()
}
