use std::time::Duration;

use ironyard_proto::discovery::{self as pb, AgentVerb, agent_service_client::AgentServiceClient};
use ironyard_rpc::{Channel, convert::hardware_to};
use tonic::{Code, Status};

use crate::{Problem, Shared, sampling};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to switch off.
    Off,
    /// Its token is over, or was never good.
    Refused(String),
}

/// Reports the machine, then does what it is told until it is told to switch off. A discovery service that is away is waited for.
pub async fn run(machine: Shared, channel: Channel, token: &str) -> Outcome {
    let client = AgentServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let looked = machine.clone();
    // A machine that cannot be looked at is not reported as one without drives.
    let Ok(hardware) = tokio::task::spawn_blocking(move || looked.hardware()).await else {
        return Outcome::Refused("the machine could not be looked at".to_owned());
    };
    let report = pb::ReportRequest {
        token: token.to_owned(),
        hardware: Some(hardware_to(hardware)),
    };
    let reported = patiently(|| {
        let (mut client, report) = (client.clone(), report.clone());
        async move { client.report(report).await }
    });
    if let Err(why) = reported.await {
        return Outcome::Refused(why);
    }
    loop {
        let next = patiently(|| {
            let (mut client, token) = (client.clone(), token.to_owned());
            async move { client.next_command(pb::NextCommandRequest { token }).await }
        });
        let command = match next.await {
            Ok(reply) => reply.command,
            Err(why) => return Outcome::Refused(why),
        };
        let Some(command) = command else { continue };
        let off = command.verb() == AgentVerb::Off;
        let (id, doer, run) = (command.id.clone(), machine.clone(), token.to_owned());
        let results = tokio::task::spawn_blocking(move || execute(&doer, &run, &command))
            .await
            .unwrap_or_default();
        let finished = patiently(|| {
            let (mut client, token, id, results) = (client.clone(), token.to_owned(), id.clone(), results.clone());
            async move { client.finish_command(pb::FinishCommandRequest { token, id, results }).await }
        });
        if let Err(why) = finished.await {
            return Outcome::Refused(why);
        }
        if off {
            machine.power_off();
            return Outcome::Off;
        }
    }
}

fn execute(machine: &Shared, run: &str, command: &pb::AgentCommand) -> Vec<pb::DriveResult> {
    let each = |task: &pb::DriveTask| {
        let serial = &task.serial_number;
        let outcome: Result<(i64, String), Problem> = match command.verb() {
            AgentVerb::Mark => sampling::mark(&**machine, run, serial).map(|n| (n, format!("marked {n} places"))),
            AgentVerb::Wipe => machine.overwrite(serial).map(|()| (0, "overwritten with zeros".to_owned())),
            AgentVerb::Verify => {
                sampling::verify(&**machine, run, serial, &task.method).map(|n| (n, format!("{n} places read, none holds old data")))
            }
            AgentVerb::Off | AgentVerb::Unspecified => Ok((0, String::new())),
        };
        let (ok, samples, message) = match outcome {
            Ok((samples, message)) => (true, samples, message),
            Err(Problem(message)) => (false, 0, message),
        };
        pb::DriveResult {
            serial_number: serial.clone(),
            ok,
            message,
            samples,
        }
    };
    command.drives.iter().map(each).collect()
}

/// Repeats a call until discovery answers; a refusal ends the run.
async fn patiently<T, F, W>(call: F) -> Result<T, String>
where
    F: Fn() -> W,
    W: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut wait = Duration::from_millis(100);
    loop {
        match call().await {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status)
                if matches!(
                    status.code(),
                    Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument
                ) =>
            {
                return Err(status.message().to_owned());
            }
            Err(status) => tracing::debug!(code = ?status.code(), "discovery is away"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}
