//! What the agent is told to do to the drives, and what is made of its answers.

use std::collections::BTreeMap;

use ironyard_db::Stored;
use ironyard_operation::Request;
use ironyard_proto::discovery::{self, AgentCommand, AgentRunState, AgentVerb, DriveTask};
use ironyard_reconcile::Pass;
use ironyard_rpc::Reason;
use ironyard_types::{Metadata, sampling::Sample};

use super::cleanup::{Cleanup, Done};
use crate::{
    app::Error,
    domain::{
        cleanup::CleanupRun,
        evidence::{DriveEvidence, Evidence, Seeds, judge, remembered},
        sanitize::Tool,
    },
};

fn samples_from(samples: &[discovery::Sample]) -> Vec<Sample> {
    let sample = |s: &discovery::Sample| Sample {
        // A block that is none is not among those that were asked for.
        block: u64::try_from(s.block).unwrap_or(u64::MAX),
        digest: s.digest.clone(),
    };
    samples.iter().map(sample).collect()
}

impl Cleanup {
    /// Lets the agent do something to every drive and takes its results.
    pub(super) async fn command(&self, pass: &Pass, stored: &mut Stored<CleanupRun>, id: &str, verb: AgentVerb) -> Result<Done, Error> {
        let run = &stored.value.clone();
        let only_agent = verb == AgentVerb::Wipe;
        let chosen = run
            .jobs
            .iter()
            .filter(|j| !only_agent || (j.method.tool == Tool::Agent && !j.erased));
        let drives: Vec<DriveTask> = chosen
            .map(|j| DriveTask {
                serial_number: j.serial.clone(),
                method: j.method.kind.clone(),
                erase_commands: j.erase_commands.iter().map(|c| c.as_str().to_owned()).collect(),
            })
            .collect();
        if drives.is_empty() {
            return Ok(Done::Next);
        }
        let command = AgentCommand {
            id: id.to_owned(),
            verb: verb.into(),
            drives: drives.clone(),
            seed: run.seed.clone(),
            fresh_seed: run.fresh_seed.clone(),
            ..Default::default()
        };
        let request = discovery::AddAgentCommandRequest {
            name: run.agent_run.clone(),
            command: Some(command),
        };
        let agent_run = self.0.agent.clone().add_agent_command(request).await?.into_inner();
        if !agent_run.distrusted_because.is_empty() {
            return Ok(Done::Fail("AGENT_NOT_TRUSTED", agent_run.distrusted_because));
        }
        let Some(command) = agent_run.commands.iter().find(|c| c.id == id && c.done) else {
            if matches!(agent_run.state(), AgentRunState::Ending | AgentRunState::Ended) {
                let why = format!("the agent ended before it had done this: {id}: {}", agent_run.failure);
                return Ok(Done::Fail("AGENT_FAILED", why));
            }
            let reason = if only_agent { "WIPING" } else { "AGENT_WORKING" };
            let message = format!("the agent works: {id} {} drives", drives.len());
            return Ok(Done::Wait(self.after_run(pass, &agent_run), reason, message));
        };
        let read = |verb: AgentVerb, serial: &str| {
            let command = agent_run.commands.iter().find(|c| c.verb() == verb && c.done);
            let result = command.and_then(|c| c.results.iter().find(|r| r.serial_number == serial));
            result.map(|r| samples_from(&r.samples)).unwrap_or_default()
        };
        let (mut failed, mut judged, mut evidence) = (Vec::new(), BTreeMap::new(), Vec::new());
        for job in run.jobs.iter().filter(|j| drives.iter().any(|d| d.serial_number == j.serial)) {
            let serial = &job.serial;
            let before = read(AgentVerb::Mark, serial);
            // A drive that the agent does not mention did not pass.
            let outcome = match (command.results.iter().find(|r| r.serial_number == *serial), verb) {
                (None, _) => Err(format!("drive {serial}: the agent gave no result")),
                (Some(result), _) if !result.ok => Err(named(serial, &result.message)),
                (Some(_), AgentVerb::Mark) => remembered(job, &run.seed, &before).map(|()| None),
                (Some(_), AgentVerb::Verify) => {
                    let after = read(AgentVerb::Verify, serial);
                    let seeds = Seeds {
                        first: &run.seed,
                        fresh: &run.fresh_seed,
                    };
                    let verdict = judge(job, seeds, &before, &after);
                    evidence.push(DriveEvidence {
                        serial: serial.clone(),
                        before,
                        after,
                    });
                    verdict.map(Some)
                }
                (Some(result), AgentVerb::Wipe) => job.clone().erased_by_agent(&result.erase_command, run.minimum).map(|()| None),
                (Some(_), AgentVerb::Off | AgentVerb::Unspecified) => Ok(None),
            };
            failed.extend(outcome.as_ref().err().cloned());
            judged.insert(serial.clone(), outcome);
        }
        if verb == AgentVerb::Verify {
            self.keep_evidence(run, evidence).await?;
        }
        let minimum = run.minimum;
        self.change(pass, stored, |run, _| {
            for job in &mut run.jobs {
                let result = command.results.iter().find(|r| only_agent && r.serial_number == job.serial);
                if let Some(result) = result {
                    job.tried.clone_from(&result.tried);
                }
                match judged.remove(&job.serial) {
                    Some(Ok(Some(findings))) => {
                        job.note = findings.to_string();
                        (job.verified, job.findings) = (true, Some(findings));
                    }
                    Some(Ok(None)) => {
                        if let Some(result) = result {
                            // It was accepted above.
                            let _ = job.erased_by_agent(&result.erase_command, minimum);
                        }
                    }
                    Some(Err(why)) => job.note = why,
                    None => {}
                }
            }
        })
        .await?;
        Ok(if failed.is_empty() {
            Done::Next
        } else {
            Done::Fail("DRIVE_NOT_SANITIZED", failed.join("; "))
        })
    }

    /// Lets the agent read the drives again, and judges what it read. The seed of the fresh places is made now that the erase has ended.
    pub(super) async fn verify(&self, pass: &Pass, stored: &mut Stored<CleanupRun>) -> Result<Done, Error> {
        if stored.value.fresh_seed.is_empty() {
            let seed = ironyard_types::random_hex(16);
            self.change(pass, stored, |run, _| run.fresh_seed = seed).await?;
        }
        self.command(pass, stored, "verify", AgentVerb::Verify).await
    }

    /// Keeps what was read, whatever it shows. It has the name of the run: a repeat finds it.
    async fn keep_evidence(&self, run: &CleanupRun, drives: Vec<DriveEvidence>) -> Result<(), Error> {
        let evidence = Evidence {
            metadata: Metadata {
                name: run.metadata.name.clone(),
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            server: run.server.name.clone(),
            seed: run.seed.clone(),
            fresh_seed: run.fresh_seed.clone(),
            drives,
        };
        match ironyard_resource::create(&self.0.cx, &Request::default(), evidence).await {
            Err(fault) if fault.reason != Reason::ClaimExists => Err(fault.into()),
            _ => Ok(()),
        }
    }
}

/// What the agent says of a drive, which may name the device only.
fn named(serial: &str, message: &str) -> String {
    if message.contains(serial) {
        message.to_owned()
    } else {
        format!("drive {serial}: {message}")
    }
}
