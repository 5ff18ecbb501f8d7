use std::pin::Pin;

use futures_util::Stream;
use ironyard_operation::Request as IdempotencyKey;
use ironyard_proto::{
    common::ChangeType,
    inventory::{self as pb, server_service_server::ServerService},
};
use ironyard_resource::{Context, Event as WatchEvent, Mask, Page, get, list, request, watch};
use ironyard_rpc::{
    Fault, Identity, Reason,
    convert::{condition_from, hardware_from, health_from, power_from, reference_from, selector_from, timestamp_to, waiting_from},
};
use ironyard_types::SystemUuid;
use tonic::{Request, Response, Status};

use super::convert::server::{certificate_from, failure_from, server_from, server_to, state_to, toleration_from};
use crate::{
    app::{
        create_server::create_server,
        delete_server::delete_server,
        release_server::release_server,
        report_server::{Report, report_server},
        reserve_server::{Asked, explain, reserve_servers},
        transition_server::{Why, may_send, transition_server},
        update_server::{FIELDS, update_server},
    },
    domain::{
        claimability::Wanted,
        lifecycle::{Event, FirstWipe, Forgiven, Part, State},
        server::{Server, identity_of},
    },
    store,
};

/// The service on the wire.
pub struct Grpc(pub Context);

fn caller<T>(request: &Request<T>) -> Identity {
    request.extensions().get::<Identity>().cloned().unwrap_or_else(Identity::local)
}

/// The calling identity, and the person it named.
fn actor(caller: &Identity, person: &str) -> String {
    if person.is_empty() {
        caller.name.clone()
    } else {
        format!("{person} ({})", caller.name)
    }
}

fn named(field: &str, value: &str) -> Result<(), Fault> {
    if value.trim().is_empty() {
        Err(Fault::field(field, "is missing: it goes into the history"))
    } else {
        Ok(())
    }
}

/// Claims that are served at once.
const MOST_REQUESTS: usize = 200;

fn asked_from(request: pb::ReserveServerRequest) -> Result<Asked, Fault> {
    let pb::ReserveServerRequest {
        claim,
        server,
        selector,
        tolerations,
        adopt,
    } = request;
    let claim = claim.map(reference_from).filter(|c| !c.uid.is_empty() && !c.name.is_empty());
    let claim = claim.ok_or_else(|| Fault::field("claim", "needs a name and a uid"))?;
    let wanted = wanted(server, selector, tolerations, adopt)?;
    Ok(Asked { claim, wanted })
}

fn part_from(part: pb::SanitizationPart) -> Part {
    match part {
        pb::SanitizationPart::Retention => Part::Retention,
        pb::SanitizationPart::Minimum | pb::SanitizationPart::Unspecified => Part::Minimum,
    }
}

fn wanted(
    server: String,
    selector: Option<ironyard_proto::common::LabelSelector>,
    tolerations: Vec<pb::Toleration>,
    adopt: bool,
) -> Result<Wanted, Fault> {
    if adopt && server.is_empty() {
        return Err(Fault::field("server", "name the server that is adopted"));
    }
    let selector = selector_from("selector", selector)?;
    let tolerations = tolerations
        .into_iter()
        .enumerate()
        .map(|(i, t)| toleration_from(format!("tolerations[{i}]"), t));
    Ok(Wanted {
        server,
        selector,
        tolerations: tolerations.collect::<Result<_, _>>()?,
        adopt,
    })
}

#[tonic::async_trait]
impl ServerService for Grpc {
    async fn get_server(&self, request: Request<pb::GetServerRequest>) -> Result<Response<pb::Server>, Status> {
        Ok(Response::new(server_to(get(&self.0, &request.into_inner().name).await?)))
    }

    async fn list_servers(&self, request: Request<pb::ListServersRequest>) -> Result<Response<pb::ListServersResponse>, Status> {
        let state = request.get_ref().state();
        let pb::ListServersRequest {
            page_size,
            page_token,
            selector,
            state: _,
            bmc,
            claim_uid,
            system_uuid,
        } = request.into_inner();
        let state = State::ALL.into_iter().find(|s| state_to(*s) == state).map(|s| s.to_string());
        let mut filters = Vec::new();
        if let Some(state) = &state {
            filters.push(("state", state.as_str()));
        }
        if !bmc.is_empty() {
            filters.push(("bmc", bmc.as_str()));
        }
        if !claim_uid.is_empty() {
            filters.push(("claim_uid", claim_uid.as_str()));
        }
        let identity = (!system_uuid.is_empty()).then(|| SystemUuid::parse(&system_uuid)).transpose();
        let identity = identity.map_err(|e| Fault::field("system_uuid", e))?.map(|uuid| identity_of(&uuid));
        if let Some(identity) = &identity {
            filters.push(("identity", identity.as_str()));
        }
        let page = Page {
            size: page_size,
            token: page_token,
            selector: selector_from("selector", selector)?,
        };
        let (servers, next_page_token) = list::<Server>(&self.0, &page, &filters).await?;
        Ok(Response::new(pb::ListServersResponse {
            servers: servers.into_iter().map(server_to).collect(),
            next_page_token,
        }))
    }

    async fn create_server(&self, request_: Request<pb::CreateServerRequest>) -> Result<Response<pb::Server>, Status> {
        let actor = actor(&caller(&request_), "");
        let message = request_.into_inner();
        let idempotency_key = request("CreateServer", &message.request_id, &message);
        let (server, _) = server_from(message.server)?;
        Ok(Response::new(server_to(
            create_server(&self.0, &idempotency_key, server, &actor).await?,
        )))
    }

    async fn update_server(&self, request_: Request<pb::UpdateServerRequest>) -> Result<Response<pb::Server>, Status> {
        let actor = actor(&caller(&request_), "");
        let message = request_.into_inner();
        let idempotency_key = request("UpdateServer", &message.request_id, &message);
        let mask = Mask::parse(message.update_mask, FIELDS)?;
        let (Server { metadata, spec, .. }, etag) = server_from(message.server)?;
        Ok(Response::new(server_to(
            update_server(&self.0, &idempotency_key, metadata, &etag, spec, &mask, &actor).await?,
        )))
    }

    async fn delete_server(&self, request: Request<pb::DeleteServerRequest>) -> Result<Response<pb::DeleteServerResponse>, Status> {
        let actor = actor(&caller(&request), "");
        let pb::DeleteServerRequest { name, etag } = request.into_inner();
        delete_server(&self.0, &name, &etag, &actor).await?;
        Ok(Response::new(pb::DeleteServerResponse {}))
    }

    type WatchServersStream = Pin<Box<dyn Stream<Item = Result<pb::WatchServersResponse, Status>> + Send>>;

    async fn watch_servers(&self, request: Request<pb::WatchServersRequest>) -> Result<Response<Self::WatchServersStream>, Status> {
        let stream = watch::<Server, _>(self.0.clone(), request.into_inner().resume_token, |event, resume_token| {
            let (kind, server) = match event {
                WatchEvent::Present(kind, stored) => (kind, Some(server_to(stored))),
                WatchEvent::Gone(metadata) => (
                    ChangeType::Deleted,
                    Some(pb::Server {
                        metadata: Some(metadata),
                        ..pb::Server::default()
                    }),
                ),
                WatchEvent::Checkpoint => (ChangeType::Checkpoint, None),
            };
            pb::WatchServersResponse {
                r#type: kind.into(),
                server,
                resume_token,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_server_history(
        &self,
        request: Request<pb::ListServerHistoryRequest>,
    ) -> Result<Response<pb::ListServerHistoryResponse>, Status> {
        let name = request.into_inner().name;
        let entries = store::history::list(&self.0.db, &name).await.map_err(|e| Fault::internal(&e))?;
        if entries.is_empty() {
            get::<Server>(&self.0, &name).await?;
        }
        let state = |s: Option<State>| s.map_or(pb::ServerState::Unspecified, state_to).into();
        let entries = entries.into_iter().map(
            |store::history::Entry {
                 event,
                 from,
                 to,
                 actor,
                 reason,
                 at,
             }| pb::ServerHistoryEntry {
                event,
                from: state(from),
                to: state(to),
                actor,
                reason,
                time: Some(timestamp_to(at)),
            },
        );
        Ok(Response::new(pb::ListServerHistoryResponse {
            entries: entries.collect(),
        }))
    }

    async fn transition_server(&self, request_: Request<pb::TransitionServerRequest>) -> Result<Response<pb::Server>, Status> {
        let caller = caller(&request_);
        let message = request_.into_inner();
        let idempotency_key = request("TransitionServer", &message.request_id, &message);
        let wire = message.event();
        let pb::TransitionServerRequest {
            name,
            etag,
            event: _,
            subject,
            reason,
            failure,
            certificate,
            request_id: _,
        } = message;
        let subject = || {
            subject
                .map(reference_from)
                .ok_or_else(|| Fault::field("subject", "is missing: this event is on behalf of someone"))
        };
        let event = match wire {
            pb::ServerEvent::Unspecified => return Err(Fault::field("event", "is missing").into()),
            pb::ServerEvent::BeginDiscovery => Event::BeginDiscovery,
            pb::ServerEvent::DiscoveryDone => Event::DiscoveryDone(None),
            pb::ServerEvent::DiscoveryDoneOwing => Event::DiscoveryDone(Some(FirstWipe {
                debt: ironyard_types::random_id(),
                at: self.0.now(),
                drives: vec![],
                minimum: ironyard_types::Category::default(),
            })),
            pb::ServerEvent::Release => Event::Release { claim: subject()? },
            pb::ServerEvent::CleanupDone => Event::CleanupDone {
                certificate: certificate.map(certificate_from),
            },
            pb::ServerEvent::BeginMaintenance => Event::BeginMaintenance { maintenance: subject()? },
            pb::ServerEvent::MaintenanceDone => Event::MaintenanceDone { maintenance: subject()? },
            pb::ServerEvent::Fail => {
                let failure = failure.ok_or_else(|| Fault::field("failure", "is missing: an Error keeps its cause"))?;
                Event::Fail(failure_from(failure, self.0.now()))
            }
        };
        let state = get::<Server>(&self.0, &name).await?.value.state;
        if !may_send(&caller, event.kind(), state) {
            let message = format!("{} may not send {:?} to a server that is {state}", caller.name, event.kind());
            return Err(Fault::new(Reason::PermissionDenied, message).into());
        }
        let why = Why {
            actor: actor(&caller, ""),
            reason,
        };
        Ok(Response::new(server_to(
            transition_server(&self.0, &idempotency_key, &name, &etag, event, why).await?,
        )))
    }

    async fn reserve_server(&self, request: Request<pb::ReserveServerRequest>) -> Result<Response<pb::Server>, Status> {
        let actor = actor(&caller(&request), "");
        let asked = asked_from(request.into_inner())?;
        let reserved = reserve_servers(&self.0, &[asked], &actor).await?.pop();
        let stored = reserved.ok_or_else(|| Fault::new(Reason::Internal, "a request has no answer"))??;
        Ok(Response::new(server_to(stored)))
    }

    async fn reserve_servers(&self, request: Request<pb::ReserveServersRequest>) -> Result<Response<pb::ReserveServersResponse>, Status> {
        let actor = actor(&caller(&request), "");
        let requests = request.into_inner().requests;
        if requests.len() > MOST_REQUESTS {
            return Err(Fault::field("requests", format!("are {}; at most {MOST_REQUESTS} at once", requests.len())).into());
        }
        // What is wrong with one request is told on its own answer.
        let parsed: Vec<Result<Asked, Fault>> = requests.into_iter().map(asked_from).collect();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (i, asked) in parsed.into_iter().enumerate() {
            match asked {
                Ok(asked) => good.push((i, asked)),
                Err(fault) => bad.push((i, Err(fault))),
            }
        }
        let (places, asked): (Vec<usize>, Vec<Asked>) = good.into_iter().unzip();
        let reserved = reserve_servers(&self.0, &asked, &actor).await?;
        let mut all: Vec<(usize, Result<_, Fault>)> = places.into_iter().zip(reserved).chain(bad).collect();
        all.sort_by_key(|(i, _)| *i);
        let reservations = all.into_iter().map(|(_, outcome)| match outcome {
            Ok(server) => pb::Reservation {
                server: Some(server_to(server)),
                ..Default::default()
            },
            Err(fault) => pb::Reservation {
                server: None,
                reason: fault.reason.as_str().to_owned(),
                message: fault.message,
            },
        });
        Ok(Response::new(pb::ReserveServersResponse {
            reservations: reservations.collect(),
        }))
    }

    async fn explain_reservation(
        &self,
        request: Request<pb::ExplainReservationRequest>,
    ) -> Result<Response<pb::ExplainReservationResponse>, Status> {
        let pb::ExplainReservationRequest {
            server,
            selector,
            tolerations,
            adopt,
        } = request.into_inner();
        let candidates = explain(&self.0, &wanted(server, selector, tolerations, adopt)?).await?;
        let candidates = candidates.into_iter().map(|c| match c.unfit {
            None => pb::Candidate {
                server: c.server,
                fits: true,
                reason: String::new(),
                message: "it is free".to_owned(),
            },
            Some(unfit) => pb::Candidate {
                server: c.server,
                fits: false,
                reason: unfit.code().to_owned(),
                message: unfit.to_string(),
            },
        });
        Ok(Response::new(pb::ExplainReservationResponse {
            candidates: candidates.collect(),
        }))
    }

    async fn report_server(&self, request: Request<pb::ReportServerRequest>) -> Result<Response<pb::Server>, Status> {
        let power_state = power_from(request.get_ref().power_state());
        let health = request.get_ref().health.map(health_from);
        let pb::ReportServerRequest {
            name,
            out_of_band,
            in_band,
            power_state: _,
            system_id,
            conditions,
            waiting_because,
            health: _,
        } = request.into_inner();
        let report = Report {
            out_of_band: out_of_band.map(hardware_from),
            in_band: in_band.map(hardware_from),
            power_state,
            health,
            system_id,
            conditions: conditions.into_iter().map(condition_from).collect(),
            waiting: waiting_because.map(waiting_from),
        };
        Ok(Response::new(server_to(report_server(&self.0, &name, report).await?)))
    }

    async fn resolve_server(&self, request: Request<pb::ResolveServerRequest>) -> Result<Response<pb::Server>, Status> {
        let caller = caller(&request);
        let pb::ResolveServerRequest {
            name,
            reason,
            actor: person,
        } = request.into_inner();
        named("reason", &reason)?;
        named("actor", &person)?;
        let why = Why {
            actor: actor(&caller, &person),
            reason,
        };
        Ok(Response::new(server_to(
            transition_server(&self.0, &IdempotencyKey::default(), &name, "", Event::Resolve, why).await?,
        )))
    }

    async fn retry_server(&self, request: Request<pb::RetryServerRequest>) -> Result<Response<pb::Server>, Status> {
        let caller = caller(&request);
        let pb::RetryServerRequest {
            name,
            reason,
            actor: person,
        } = request.into_inner();
        named("actor", &person)?;
        let why = Why {
            actor: actor(&caller, &person),
            reason,
        };
        Ok(Response::new(server_to(
            transition_server(&self.0, &IdempotencyKey::default(), &name, "", Event::Retry, why).await?,
        )))
    }

    async fn waive_sanitization(&self, request: Request<pb::WaiveSanitizationRequest>) -> Result<Response<pb::Server>, Status> {
        let caller = caller(&request);
        let pb::WaiveSanitizationRequest {
            name,
            reason,
            actor: person,
            part,
        } = request.into_inner();
        named("reason", &reason)?;
        named("actor", &person)?;
        let (by, at) = (actor(&caller, &person), self.0.now());
        let event = match pb::SanitizationPart::try_from(part) {
            Ok(pb::SanitizationPart::Unspecified) => Event::Waive,
            Ok(part @ (pb::SanitizationPart::Minimum | pb::SanitizationPart::Retention)) => {
                let (part, by, reason) = (part_from(part), by.clone(), reason.clone());
                Event::Forgive(Forgiven { part, by, reason, at })
            }
            Err(_) => return Err(Fault::field("part", "is unknown").into()),
        };
        let why = Why { actor: by, reason };
        Ok(Response::new(server_to(
            transition_server(&self.0, &IdempotencyKey::default(), &name, "", event, why).await?,
        )))
    }

    async fn release_server(&self, request: Request<pb::ReleaseServerRequest>) -> Result<Response<pb::Server>, Status> {
        let caller = caller(&request);
        let pb::ReleaseServerRequest {
            name,
            reason,
            actor: person,
        } = request.into_inner();
        named("reason", &reason)?;
        named("actor", &person)?;
        let why = Why {
            actor: actor(&caller, &person),
            reason,
        };
        Ok(Response::new(server_to(release_server(&self.0, &name, why).await?)))
    }
}
