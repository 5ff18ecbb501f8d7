//! Work that a task of the BMC carries: ask once, follow the task, believe the effect.

mod certificate;
mod erase;
mod firmware;
mod kinds;
mod manager;
mod volume;

use std::{path::PathBuf, time::Duration};

use ironyard_db::Stored;
use ironyard_operation::Operation;
use ironyard_redfish::ops::tasks;
use ironyard_rpc::{Fault, Reason};

pub use certificate::{Csr, Replace};
pub use erase::Erase;
pub use firmware::{Firmware, Source};
pub use kinds::Job;
pub use manager::Restart;
pub use volume::{Create, Delete};

use super::steps::{Operations, Step};
use crate::{
    device::{Device, DeviceError},
    domain::{
        exclusion::Kind,
        job::{Evidence, Next, Progress, plan},
    },
};

/// What `locate` found.
pub(crate) enum Located {
    /// It is as wanted already.
    Already(Facts),
    /// Where to ask, about what, and how things stand.
    At {
        target: String,
        subject: String,
        notes: Vec<(&'static str, String)>,
    },
}

/// What asking came to.
pub(crate) enum Asked {
    /// The BMC goes on with this.
    Task(tasks::Handle),
    /// It accepted.
    Accepted,
    /// It answered with what was wanted.
    Done(Facts),
}

/// Why a BMC was not asked, or what came of it.
pub(crate) struct NotAsked {
    fault: Fault,
    /// Whether anything was sent that it may act on.
    sent: bool,
}

impl From<Fault> for NotAsked {
    fn from(fault: Fault) -> Self {
        Self { fault, sent: false }
    }
}

impl From<DeviceError> for NotAsked {
    fn from(error: DeviceError) -> Self {
        Self {
            sent: !matches!(error, DeviceError::Unsent(_)),
            fault: error.into(),
        }
    }
}

impl From<Option<tasks::Handle>> for Asked {
    fn from(task: Option<tasks::Handle>) -> Self {
        task.map_or(Self::Accepted, Self::Task)
    }
}

/// What the effect says.
pub(crate) enum Verdict {
    /// It is as wanted.
    Done(Facts),
    /// Not yet, or nobody can tell yet.
    Wait(Duration),
    /// It will not be.
    Failed(Fault),
}

/// Facts about an outcome.
pub(crate) type Facts = Vec<(&'static str, String)>;

/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// The pushed image that an operation needs.
pub fn image_of(operation: &Operation) -> Option<PathBuf> {
    match Job::of(&operation.verb, &operation.request) {
        Some(Ok(Job::Firmware(Firmware {
            source: Source::File { path, .. },
            ..
        }))) => Some(path),
        Some(Ok(_) | Err(_)) | None => None,
    }
}

impl Operations {
    pub(crate) async fn job(&self, row: &mut Stored<Operation>, job: &Job) -> Result<Step, Fault> {
        // What a newer version remembers is not nothing: begun anew, it would be asked for a second time.
        let mut progress: Progress = match &row.value.progress {
            serde_json::Value::Null => Progress::default(),
            remembered => serde_json::from_value(remembered.clone()).map_err(|e| Fault::internal(&e))?,
        };
        let begun_at = match (progress.begun_at, progress.target.is_empty()) {
            (Some(at), _) => at,
            (None, true) => self.cx.now(),
            (None, false) => row.created_at,
        };
        if self.cx.now().since(begun_at) > job.patience(self.patience) {
            return Err(Fault::new(Reason::BmcTimeout, format!("{}: it did not end in time", job.label())));
        }
        let device = self.devices.get(&job.target().bmc).await?;
        let soon = |phase: &str| Step::Wait(Duration::from_millis(20), phase.to_owned());
        match plan(&progress) {
            Next::Locate => match job.locate(&device).await? {
                Located::Already(facts) => Ok(Step::Done(facts)),
                Located::At { target, subject, notes } => {
                    progress.tasks_before = Some(tasks_of(&device).await?.into_iter().map(|task| task.uri).collect());
                    progress.notes = notes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                    (progress.target, progress.subject) = (target, subject);
                    progress.begun_at = Some(begun_at);
                    self.remember(row, &progress).await?;
                    Ok(soon("Prepared"))
                }
            },
            Next::Ask => {
                let target = job.target();
                if !target.expected.is_unknown() {
                    // The last look before the BMC is asked for what cannot be undone.
                    device.machine(&target.system_id, &target.expected).await?;
                }
                device.may_write().await?;
                // From here to the wire a crash leaves an outcome that nobody knows: nothing is waited for in between.
                (progress.intent, progress.asked_at) = (true, Some(self.cx.now()));
                self.remember(row, &progress).await?;
                self.ask(&device, row, job, progress).await
            }
            Next::Recover => {
                if job.shows() {
                    let before = progress.clone();
                    let verdict = job.verify(self, &device, &mut progress, Evidence::Vanished).await?;
                    if progress != before {
                        self.remember(row, &progress).await?;
                    }
                    if let Verdict::Done(facts) = verdict {
                        return Ok(Step::Done(facts));
                    }
                }
                if let Some(task) = begun(&device, job, &progress).await? {
                    progress.task = Some(task);
                    self.remember(row, &progress).await?;
                    return Ok(soon("Found the task again"));
                }
                self.unknown(row, job, progress).await
            }
            Next::Poll => self.follow(&device, row, job, progress).await,
            Next::Verify(evidence) => {
                let before = progress.clone();
                let verdict = job.verify(self, &device, &mut progress, evidence).await?;
                if progress.evidence.is_none() {
                    progress.evidence = Some((evidence, self.cx.now()));
                }
                if progress != before {
                    self.remember(row, &progress).await?;
                }
                match verdict {
                    Verdict::Done(mut facts) => {
                        facts.push(("evidence", evidence.words().to_owned()));
                        if evidence == Evidence::AnswerLost {
                            facts.push(("answer", "lost".to_owned()));
                        }
                        Ok(Step::Done(facts))
                    }
                    Verdict::Wait(wait) => Ok(Step::Wait(wait, "Verifying".to_owned())),
                    Verdict::Failed(fault) => Err(fault),
                }
            }
        }
    }

    /// Nobody knows whether the BMC was reached: what it may have begun is not asked of it a second time. Its task or the effect tells, or a
    /// person.
    async fn unknown(&self, row: &mut Stored<Operation>, job: &Job, mut progress: Progress) -> Result<Step, Fault> {
        let waited = progress.asked_at.map_or(Duration::MAX, |at| self.cx.now().since(at));
        let most = match job {
            Job::Firmware(_) => self.patience.firmware_settles,
            // It is away for as long as it takes.
            Job::Restart(_) | Job::Replace(_) => self.patience.manager,
            Job::Erase(_) | Job::CreateVolume(_) | Job::DeleteVolume(_) | Job::Csr(_) => self.patience.lost_answer,
        };
        // Tasks that do not say what they are for may be this one.
        if matches!(job, Job::Erase(_)) && progress.asked_at.is_some() && self.silent_task(&job.target().bmc, &progress).await? {
            return Ok(Step::Wait(
                Duration::from_secs(5),
                "The answer was lost: waiting for a task that may be this one".to_owned(),
            ));
        }
        if waited < most {
            let phase = "The answer was lost: looking for a task or the effect".to_owned();
            return Ok(Step::Wait((waited / 4).clamp(LOOK, Duration::from_secs(15)), phase));
        }
        // What became of a drive shows to those who read it.
        if matches!(job, Job::Erase(_)) {
            progress.evidence = Some((Evidence::AnswerLost, self.cx.now()));
            self.remember(row, &progress).await?;
            return Ok(Step::Wait(Duration::from_millis(10), "Verifying".to_owned()));
        }
        let why = format!(
            "{}: the BMC's answer was lost ({}), and neither a task nor the effect has shown for {} s: look at the BMC, then ask again",
            job.label(),
            progress.notes.get("said").map_or("the gateway stopped", String::as_str),
            most.as_secs()
        );
        Err(Fault::new(Reason::BmcTimeout, why))
    }

    /// Whether the BMC is at work on something that was not there before, and does not say what it is for.
    async fn silent_task(&self, bmc: &str, progress: &Progress) -> Result<bool, Fault> {
        let Some(before) = &progress.tasks_before else { return Ok(false) };
        let device = self.devices.get(bmc).await?;
        for task in tasks_of(&device).await? {
            if task.target.is_some() || before.contains(&task.uri) {
                continue;
            }
            let task = tasks::Handle { uri: task.uri };
            let state = device.read(move |client| async move { tasks::poll(&client, &task).await }).await?;
            if matches!(state, tasks::State::Running(_) | tasks::State::Staged) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn follow(&self, device: &Device, row: &mut Stored<Operation>, job: &Job, mut progress: Progress) -> Result<Step, Fault> {
        let Some(uri) = progress.task.clone() else {
            return Err(Fault::new(Reason::Internal, "there is no task to follow"));
        };
        let task = tasks::Handle { uri };
        let state = device.read(move |client| async move { tasks::poll(&client, &task).await }).await?;
        let evidence = match state {
            tasks::State::Running(percent) => {
                if row.value.percent != percent {
                    row.value.percent = percent.clamp(0, 99);
                    self.save(row).await?;
                }
                // Soon at first, then as BMCs like it.
                let waited = self.cx.now().since(row.created_at);
                let wait = (waited / 4).clamp(Duration::from_millis(100), Duration::from_secs(15));
                return Ok(Step::Wait(wait, "The BMC is at work".to_owned()));
            }
            tasks::State::Failed(why) => return Err(Fault::new(Reason::TaskFailed, format!("{}: {why}", row.value.target))),
            tasks::State::Completed => Evidence::Completed,
            // Scheduled is not erased: it goes on when the host restarts, or by itself.
            tasks::State::Staged if matches!(job, Job::Erase(_)) => {
                if !progress.staged {
                    progress.staged = true;
                    self.remember(row, &progress).await?;
                }
                return Ok(Step::Wait(Duration::from_secs(5), "The BMC has scheduled it".to_owned()));
            }
            tasks::State::Staged => Evidence::Staged,
            tasks::State::Vanished => Evidence::Vanished,
        };
        progress.evidence = Some((evidence, self.cx.now()));
        self.remember(row, &progress).await?;
        Ok(Step::Wait(Duration::from_millis(10), "Verifying".to_owned()))
    }

    async fn ask(&self, device: &Device, row: &mut Stored<Operation>, job: &Job, mut progress: Progress) -> Result<Step, Fault> {
        let asked = match job.ask(self, device, &progress).await {
            Ok(asked) => asked,
            Err(NotAsked { fault, sent }) => {
                if sent && matches!(fault.reason, Reason::BmcAmbiguous | Reason::BmcProtocol) {
                    // From now on the BMC has time to show what it may have begun.
                    progress.asked_at = Some(self.cx.now());
                    progress.notes.insert("said".to_owned(), fault.message.clone());
                } else {
                    // It did not get there, or was refused: nothing was begun that could be begun twice.
                    progress.intent = false;
                }
                self.remember(row, &progress).await?;
                return Err(fault);
            }
        };
        match asked {
            Asked::Done(facts) => return Ok(Step::Done(facts)),
            Asked::Task(task) => progress.task = Some(task.uri),
            // Some say no more than that they accepted; their tasks are listed all the same.
            Asked::Accepted => {
                progress.task = begun(device, job, &progress).await.unwrap_or_default();
                progress.accepted = progress.task.is_none();
            }
        }
        self.remember(row, &progress).await?;
        Ok(Step::Wait(Duration::from_millis(100), "The BMC is at work".to_owned()))
    }
}

/// The task that was begun since the others were looked at.
async fn begun(device: &Device, job: &Job, progress: &Progress) -> Result<Option<String>, Fault> {
    let Some(before) = &progress.tasks_before else { return Ok(None) };
    // Of work that goes on side by side, a task that does not say what it is for may be another's.
    let alone = job.kind() != Kind::Erase;
    let began = tasks::began(&tasks_of(device).await?, before, &progress.target, alone);
    Ok(began.map(|task| task.uri))
}

/// All tasks, where the BMC lists tasks at all.
async fn tasks_of(device: &Device) -> Result<Vec<tasks::Listed>, Fault> {
    match device.read(|client| async move { tasks::list(&client).await }).await {
        Ok(listed) => Ok(listed),
        Err(DeviceError::Redfish(error)) if error.is_refusal() => Ok(vec![]),
        Err(error) => Err(error.into()),
    }
}
