use std::time::Duration;

use ironyard_proto::discovery::{self as pb, AgentVerb, agent_service_client::AgentServiceClient};
use ironyard_rpc::{Channel, convert::hardware_to};
use ironyard_types::{EraseCommand, agent_image::AgentConfiguration, sampling::Sample};
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

/// A way to the discovery service of a run.
pub fn channel(configuration: &AgentConfiguration) -> Result<Channel, ironyard_rpc::client::Error> {
    Channel::trusting(&configuration.discovery, &configuration.authority)
}

/// Reports the machine, then does what it is told until it is told to switch off. A discovery service that is away is waited for.
pub async fn run(machine: Shared, channel: Channel, token: &str) -> Outcome {
    // Nobody else can know it: whoever reads the image's token later cannot speak for this machine.
    let session = ironyard_types::random_hex(32);
    let client = AgentServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let looked = machine.clone();
    // A machine that cannot be looked at is not reported as one without drives.
    let Ok(hardware) = tokio::task::spawn_blocking(move || looked.hardware()).await else {
        return Outcome::Refused("the machine could not be looked at".to_owned());
    };
    let report = pb::ReportRequest {
        token: token.to_owned(),
        session: session.clone(),
        hardware: Some(hardware_to(hardware)),
    };
    let reported = patiently(|| {
        let (mut client, report) = (client.clone(), report.clone());
        async move { client.report(report).await }
    });
    if let Err(why) = reported.await {
        return Outcome::Refused(why);
    }
    tracing::debug!("has reported");
    loop {
        let next = patiently(|| {
            let mut client = client.clone();
            let (token, session) = (token.to_owned(), session.clone());
            async move { client.next_command(pb::NextCommandRequest { token, session }).await }
        });
        let command = match next.await {
            Ok(reply) => reply.command,
            // The run is over: so it is for this machine.
            Err(why) => {
                tracing::debug!("{why}");
                machine.power_off();
                return Outcome::Off;
            }
        };
        let Some(command) = command else { continue };
        let off = command.verb() == AgentVerb::Off;
        tracing::debug!(verb = command.verb().as_str_name(), drives = command.drives.len(), "is told");
        let (id, doer) = (command.id.clone(), machine.clone());
        let results = tokio::task::spawn_blocking(move || execute(&doer, &command))
            .await
            .unwrap_or_default();
        let finished = patiently(|| {
            let mut client = client.clone();
            let finished = pb::FinishCommandRequest {
                token: token.to_owned(),
                session: session.clone(),
                id: id.clone(),
                results: results.clone(),
            };
            async move { client.finish_command(finished).await }
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

fn execute(machine: &Shared, command: &pb::AgentCommand) -> Vec<pb::DriveResult> {
    let (seed, fresh_seed) = (&command.seed, &command.fresh_seed);
    // What has come since the report, or cannot be reached any more, is nobody's task: then nothing is proven.
    let other = match command.verb() {
        AgentVerb::Mark | AgentVerb::Verify => other_storage(machine, command),
        AgentVerb::Wipe | AgentVerb::Off | AgentVerb::Unspecified => None,
    };
    let each = |task: &pb::DriveTask| {
        let serial = &task.serial_number;
        let (mut erase_command, mut tried) = (String::new(), vec![]);
        let outcome: Result<(&str, Vec<Sample>), Problem> = match command.verb() {
            _ if other.is_some() => Err(Problem(other.clone().unwrap_or_default())),
            AgentVerb::Mark => sampling::mark_drive(&**machine, seed, serial).map(|before| ("marked", before)),
            AgentVerb::Wipe => {
                let outcome;
                (outcome, tried) = sampling::erase(&**machine, seed, serial, &commands(task));
                outcome.map(|command| {
                    erase_command = command.as_str().to_owned();
                    ("erased", vec![])
                })
            }
            AgentVerb::Verify => sampling::read_again(&**machine, seed, fresh_seed, serial).map(|after| ("read", after)),
            AgentVerb::Off | AgentVerb::Unspecified => Ok(("", vec![])),
        };
        let (ok, message, samples) = match outcome {
            Ok((message, samples)) => (true, message.to_owned(), samples),
            Err(Problem(message)) => (false, message, vec![]),
        };
        let sample = |Sample { block, digest }| pb::Sample {
            block: i64::try_from(block).unwrap_or(i64::MAX),
            digest,
        };
        pb::DriveResult {
            serial_number: serial.clone(),
            ok,
            message,
            samples: samples.into_iter().map(sample).collect(),
            erase_command,
            tried,
        }
    };
    // All at once: each drive takes its own time, and a slow one makes no other wait.
    std::thread::scope(|scope| {
        let all: Vec<_> = command.drives.iter().map(|task| (task, scope.spawn(|| each(task)))).collect();
        let result = |(task, thread): (&pb::DriveTask, std::thread::ScopedJoinHandle<'_, pb::DriveResult>)| {
            thread.join().unwrap_or_else(|_| pb::DriveResult {
                serial_number: task.serial_number.clone(),
                message: "the agent failed at this drive".to_owned(),
                ..pb::DriveResult::default()
            })
        };
        all.into_iter().map(result).collect()
    })
}

/// What a task says to erase its drive with. A command that this agent does not know is passed over; where none is named, the drive is overwritten.
fn commands(task: &pb::DriveTask) -> Vec<EraseCommand> {
    if task.erase_commands.is_empty() {
        return vec![EraseCommand::Overwrite];
    }
    task.erase_commands.iter().filter_map(|name| EraseCommand::parse(name)).collect()
}

/// Storage that the command does not name.
fn other_storage(machine: &Shared, command: &pb::AgentCommand) -> Option<String> {
    let now = machine.hardware();
    let named = |serial: &str| command.drives.iter().any(|task| task.serial_number == serial);
    let other = now.drives.iter().find(|drive| !named(&drive.serial_number));
    let other = other.map(|drive| format!("drive {} has appeared since the agent reported", drive.label()));
    other.or_else(|| {
        now.unreadable_storage
            .first()
            .map(|what| format!("{what}; it appeared after the agent had reported"))
    })
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
