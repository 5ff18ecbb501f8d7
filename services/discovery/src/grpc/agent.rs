use std::pin::Pin;

use futures_util::{Stream, TryStreamExt};
use ironyard_db::Stored;
use ironyard_peers::identity;
use ironyard_proto::discovery::{
    self as pb, AgentRunState, AgentVerb, agent_run_service_server::AgentRunService, agent_service_server::AgentService,
};
use ironyard_resource::{get, names};
use ironyard_rpc::{
    Fault, Reason,
    convert::{hardware_from, hardware_to, timestamp_to},
};
use ironyard_types::sampling::{MOST_SAMPLES, Sample};
use tonic::{Request, Response, Status};

use crate::{
    app::{App, store_fault},
    domain::{
        agent_run::{AgentRun, Command, DriveResult, DriveTask, Running, Stage, Verb},
        same_machine::is_machine,
    },
    store::run_of_token,
};

/// Both services on the wire.
#[derive(Clone)]
pub struct Grpc(pub App);

fn run_to(stored: Stored<AgentRun>) -> pb::AgentRun {
    let version = stored.version;
    let AgentRun {
        metadata,
        server,
        purpose: _,
        token: _,
        image_id: _,
        session: _,
        distrusted,
        stage,
        started_at,
        report,
        commands,
        stop: _,
        end_attempts: _,
        tidy_attempts: _,
        left_behind: _,
        failure,
        running: _,
        on_asked: _,
        delivery,
    } = stored.value;
    let state = match stage {
        Stage::SwitchOff | Stage::Insert | Stage::Override | Stage::SwitchOn | Stage::Boot => AgentRunState::Booting,
        Stage::Run => AgentRunState::Running,
        Stage::End | Stage::Tidy => AgentRunState::Ending,
        Stage::Over => AgentRunState::Ended,
    };
    pb::AgentRun {
        name: metadata.name,
        server,
        state: state.into(),
        report: report.map(hardware_to),
        commands: commands.into_iter().map(command_to).collect(),
        failure: failure.unwrap_or_default(),
        distrusted_because: distrusted.unwrap_or_default(),
        create_time: Some(timestamp_to(started_at)),
        version,
        boot_progress: delivery.progress(),
        delivery: Some(pb::ImageDelivery {
            first_fetch_time: delivery.fetched_at.map(timestamp_to),
            sent_bytes: delivery.sent.try_into().unwrap_or(i64::MAX),
            refused_requests: delivery.refused.try_into().unwrap_or(i64::MAX),
            refused_address: delivery.refused_from,
        }),
    }
}

fn command_to(command: Command) -> pb::AgentCommand {
    let Command {
        id,
        verb,
        drives,
        seed,
        fresh_seed,
        results,
    } = command;
    let verb = match verb {
        Verb::Mark => AgentVerb::Mark,
        Verb::Wipe => AgentVerb::Wipe,
        Verb::Verify => AgentVerb::Verify,
        Verb::Off => AgentVerb::Off,
    };
    let sample = |Sample { block, digest }| pb::Sample {
        block: i64::try_from(block).unwrap_or(i64::MAX),
        digest,
    };
    let result = |result: DriveResult| {
        let DriveResult {
            serial,
            ok,
            message,
            read,
            erase_command,
            tried,
        } = result;
        pb::DriveResult {
            serial_number: serial,
            ok,
            message,
            samples: read.into_iter().map(sample).collect(),
            erase_command,
            tried,
        }
    };
    pb::AgentCommand {
        id,
        verb: verb.into(),
        drives: drives
            .into_iter()
            .map(|task| pb::DriveTask {
                serial_number: task.serial,
                method: task.method,
                erase_commands: task.erase_commands,
            })
            .collect(),
        done: results.is_some(),
        results: results.into_iter().flatten().map(result).collect(),
        seed,
        fresh_seed,
    }
}

/// Ways to erase a drive that are kept in a result.
const MOST_TRIED: usize = 16;

/// What an agent says of a drive; it comes from outside.
fn result_from(result: pb::DriveResult) -> Result<DriveResult, Fault> {
    let pb::DriveResult {
        serial_number,
        ok,
        message,
        samples,
        erase_command,
        tried,
    } = result;
    if samples.len() > MOST_SAMPLES {
        let why = format!("has {} samples; at most {MOST_SAMPLES} are asked for", samples.len());
        return Err(Fault::field("results.samples", why));
    }
    let sample = |pb::Sample { block, digest }| {
        let hexadecimal = digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::try_from(block) {
            Ok(block) if hexadecimal => Ok(Sample { block, digest }),
            _ => Err(Fault::field(
                "results.samples",
                "need a block from 0 on and a digest of 16 hexadecimal digits",
            )),
        }
    };
    let line = |text: String, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
    Ok(DriveResult {
        serial: serial_number,
        ok,
        message: line(message, 500),
        erase_command: line(erase_command, 50),
        tried: tried.into_iter().take(MOST_TRIED).map(|text| line(text, 500)).collect(),
        read: samples.into_iter().map(sample).collect::<Result<_, _>>()?,
    })
}

fn command_from(command: Option<pb::AgentCommand>) -> Result<Command, Fault> {
    let command = command.ok_or_else(|| Fault::field("command", "is missing"))?;
    let verb = match command.verb() {
        AgentVerb::Unspecified => return Err(Fault::field("command.verb", "is missing")),
        AgentVerb::Mark => Verb::Mark,
        AgentVerb::Wipe => Verb::Wipe,
        AgentVerb::Verify => Verb::Verify,
        AgentVerb::Off => Verb::Off,
    };
    let pb::AgentCommand {
        id,
        verb: _,
        drives,
        done: _,
        results: _,
        seed,
        fresh_seed,
    } = command;
    if id.is_empty() {
        return Err(Fault::field("command.id", "is missing"));
    }
    let drives = drives
        .into_iter()
        .map(|task| DriveTask {
            serial: task.serial_number,
            method: task.method,
            erase_commands: task.erase_commands,
        })
        .collect();
    Ok(Command {
        id,
        verb,
        drives,
        seed,
        fresh_seed,
        results: None,
    })
}

#[tonic::async_trait]
impl AgentRunService for Grpc {
    async fn create_agent_run(&self, request: Request<pb::CreateAgentRunRequest>) -> Result<Response<pb::AgentRun>, Status> {
        let pb::CreateAgentRunRequest {
            server,
            purpose,
            request_id,
        } = request.into_inner();
        if request_id.is_empty() {
            return Err(Fault::field("request_id", "is missing: a machine must not be booted twice for one purpose").into());
        }
        if self.0.inventory.get(&server).await.map_err(Fault::from)?.is_none() {
            return Err(Fault::new(Reason::ServerNotFound, format!("no server is called {server:?}")).into());
        }
        Ok(Response::new(run_to(
            self.0.begin_run(&server, &purpose, &request_id, Running::ForceOff).await?,
        )))
    }

    async fn get_agent_run(&self, request: Request<pb::GetAgentRunRequest>) -> Result<Response<pb::AgentRun>, Status> {
        Ok(Response::new(run_to(get(&self.0.cx, &request.into_inner().name).await?)))
    }

    type WatchAgentRunsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchAgentRunsResponse, Status>> + Send>>;

    async fn watch_agent_runs(&self, request: Request<pb::WatchAgentRunsRequest>) -> Result<Response<Self::WatchAgentRunsStream>, Status> {
        let changes = names::<AgentRun>(self.0.cx.clone(), request.into_inner().resume_token);
        let stream = changes.map_ok(|(changes, resume_token)| pb::WatchAgentRunsResponse { changes, resume_token });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn add_agent_command(&self, request: Request<pb::AddAgentCommandRequest>) -> Result<Response<pb::AgentRun>, Status> {
        let pb::AddAgentCommandRequest { name, command } = request.into_inner();
        let command = command_from(command)?;
        let stored = self.0.change_run(&name, |run| {
            if let Some(known) = run.commands.iter().find(|c| c.id == command.id) {
                let known = Command {
                    results: None,
                    ..known.clone()
                };
                let same = known == command;
                return if same {
                    Ok(())
                } else {
                    Err(Fault::new(Reason::RequestIdReused, "this id was used for another command"))
                };
            }
            if run.stage != Stage::Run || run.stop {
                return Err(Fault::new(
                    Reason::AgentRunEnded,
                    format!("agent run {name} does not take commands"),
                ));
            }
            run.commands.push(command.clone());
            Ok(())
        });
        Ok(Response::new(run_to(stored.await?)))
    }

    async fn end_agent_run(&self, request: Request<pb::EndAgentRunRequest>) -> Result<Response<pb::AgentRun>, Status> {
        Ok(Response::new(run_to(self.0.stop_run(&request.into_inner().name).await?)))
    }
}

/// Characters of a session.
const SESSION: std::ops::RangeInclusive<usize> = 32..=128;

impl Grpc {
    /// The run of this token.
    async fn run_of_token(&self, token: &str) -> Result<Stored<AgentRun>, Fault> {
        let refused = || Fault::new(Reason::AgentTokenRefused, "the token is unknown, or its run is over");
        if token.is_empty() {
            return Err(refused());
        }
        let run = run_of_token(&self.0.cx.db, token).await.map_err(store_fault)?.ok_or_else(refused)?;
        if run.value.listens() { Ok(run) } else { Err(refused()) }
    }

    /// The run whose agent speaks, in the session in which it has reported.
    async fn run_of(&self, token: &str, session: &str) -> Result<Stored<AgentRun>, Fault> {
        let run = self.run_of_token(token).await?;
        if session.is_empty() || run.value.session != session {
            return Err(Fault::new(
                Reason::AgentTokenRefused,
                "no agent has reported with this token and session",
            ));
        }
        Ok(run)
    }
}

#[tonic::async_trait]
impl AgentService for Grpc {
    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportResponse>, Status> {
        let pb::ReportRequest { token, session, hardware } = request.into_inner();
        let run = self.run_of_token(&token).await?;
        if !SESSION.contains(&session.len()) || !session.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::field("session", "needs 32 to 128 printable characters that nobody can guess").into());
        }
        let hardware = hardware_from(hardware.ok_or_else(|| Fault::field("hardware", "is missing"))?);
        let server = self.0.inventory.get(&run.value.server).await.map_err(Fault::from)?;
        let known = server.as_ref().map(identity).unwrap_or_default();
        let observed = server.and_then(|s| s.observed?.hardware).map(hardware_from).unwrap_or_default();
        if let Err(why) = is_machine(&known, &observed, &hardware) {
            let message = format!("the token is for server {}, and this is another machine: {why}", run.value.server);
            return Err(Fault::new(Reason::WrongMachine, message).into());
        }
        let name = run.value.metadata.name;
        let run = self.0.change_run(&name, |run| {
            if !run.session.is_empty() && run.session != session {
                run.distrust("two agents have shown the token of this run: one of them is not on the machine");
                return Ok(());
            }
            run.session.clone_from(&session);
            run.report = Some(hardware.clone());
            if run.stage == Stage::Boot {
                run.stage = Stage::Run;
            }
            Ok(())
        });
        let run = run.await?.value;
        self.0.servers.enqueue(&run.server).await.map_err(store_fault)?;
        if let Some(why) = run.distrusted {
            tracing::error!(run = name, server = run.server, why, "what an agent said does not count");
            return Err(Fault::new(Reason::AgentTokenRefused, format!("the run has ended: {why}")).into());
        }
        Ok(Response::new(pb::ReportResponse {}))
    }

    async fn next_command(&self, request: Request<pb::NextCommandRequest>) -> Result<Response<pb::NextCommandResponse>, Status> {
        let pb::NextCommandRequest { token, session } = request.into_inner();
        let line = tokio::time::sleep(self.0.settings.agent_wait);
        tokio::pin!(line);
        let told = self.0.notifier.of(&self.run_of(&token, &session).await?.value.metadata.name);
        loop {
            let changed = told.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let run = self.run_of(&token, &session).await?;
            let command = run.value.commands.iter().find(|c| c.results.is_none()).cloned();
            if let Some(command) = command {
                return Ok(Response::new(pb::NextCommandResponse {
                    command: Some(command_to(command)),
                }));
            }
            tokio::select! {
                () = changed => {}
                () = &mut line => return Ok(Response::new(pb::NextCommandResponse { command: None })),
            }
        }
    }

    async fn finish_command(&self, request: Request<pb::FinishCommandRequest>) -> Result<Response<pb::FinishCommandResponse>, Status> {
        let pb::FinishCommandRequest {
            token,
            session,
            id,
            results,
        } = request.into_inner();
        let name = self.run_of(&token, &session).await?.value.metadata.name;
        let results = results.into_iter().map(result_from).collect::<Result<Vec<_>, _>>()?;
        let done = self.0.change_run(&name, |run| {
            let command = run
                .commands
                .iter_mut()
                .find(|c| c.id == id)
                .ok_or_else(|| Fault::field("id", "no such command"))?;
            // The first answer counts.
            command.results.get_or_insert_with(|| results.clone());
            Ok(())
        });
        done.await?;
        Ok(Response::new(pb::FinishCommandResponse {}))
    }
}
