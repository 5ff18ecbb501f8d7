//! Work that a task of the BMC carries: ask once, follow the task, believe the effect.

mod certificate;
mod erase;
mod firmware;
mod manager;
mod volume;

use std::{path::PathBuf, time::Duration};

use ironyard_db::Stored;
use ironyard_operation::Operation;
use ironyard_redfish::ops::tasks;
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use certificate::{Csr, Replace};
pub use erase::Erase;
pub use firmware::{Firmware, Source};
pub use manager::Restart;
pub use volume::{Create, Delete};

use super::operations::{Operations, Step, Target};
use crate::{
    device::{Device, DeviceError},
    domain::{
        exclusion::Kind,
        job::{Evidence, Next, Progress, plan},
    },
};

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Job {
    /// Erase a drive.
    Erase(Erase),
    /// Create a volume.
    CreateVolume(Create),
    /// Delete a volume.
    DeleteVolume(Delete),
    /// Install firmware.
    Firmware(Firmware),
    /// Restart the BMC.
    Restart(Restart),
    /// Make a request to sign a certificate.
    Csr(Csr),
    /// Replace the certificate.
    Replace(Replace),
}

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
/// Time after which what may not have reached the BMC is asked again: the effect or the task would show by then.
const LOST: Duration = Duration::from_secs(4);

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

impl Job {
    /// The work of an operation; `None` for verbs that are none.
    pub fn of(verb: &str, request: &Value) -> Option<Result<Self, serde_json::Error>> {
        fn read<T: serde::de::DeserializeOwned>(request: &Value, job: fn(T) -> Job) -> Option<Result<Job, serde_json::Error>> {
            Some(serde_json::from_value(request.clone()).map(job))
        }
        match verb {
            "EraseDrive" => read(request, Self::Erase),
            "CreateVolume" => read(request, Self::CreateVolume),
            "DeleteVolume" => read(request, Self::DeleteVolume),
            "UpdateFirmware" => read(request, Self::Firmware),
            "ResetManager" => read(request, Self::Restart),
            "GenerateCsr" => read(request, Self::Csr),
            "ReplaceCertificate" => read(request, Self::Replace),
            _ => None,
        }
    }

    /// Name of the work.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Erase(_) => "EraseDrive",
            Self::CreateVolume(_) => "CreateVolume",
            Self::DeleteVolume(_) => "DeleteVolume",
            Self::Firmware(_) => "UpdateFirmware",
            Self::Restart(_) => "ResetManager",
            Self::Csr(_) => "GenerateCsr",
            Self::Replace(_) => "ReplaceCertificate",
        }
    }

    /// Which BMC, and which of its systems.
    pub fn target(&self) -> &Target {
        match self {
            Self::Erase(job) => &job.target,
            Self::CreateVolume(job) => &job.target,
            Self::DeleteVolume(job) => &job.target,
            Self::Firmware(job) => &job.target,
            Self::Restart(job) => &job.target,
            Self::Csr(job) => &job.target,
            Self::Replace(job) => &job.target,
        }
    }

    /// For people.
    pub fn label(&self) -> String {
        let at = self.target().label();
        match self {
            Self::Erase(job) => format!("{at} drive {}", job.serial),
            Self::CreateVolume(job) => format!("{at} volume {}", job.name),
            Self::DeleteVolume(job) => format!("{at} volume {}", job.volume),
            Self::Firmware(_) | Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => at,
        }
    }

    /// What kind of work it is, for those that come after it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Erase(_) => Kind::Erase,
            Self::CreateVolume(_) | Self::DeleteVolume(_) => Kind::Volume,
            Self::Firmware(_) => Kind::Firmware,
            Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => Kind::Manager,
        }
    }

    fn patience(&self, patience: super::operations::Patience) -> Duration {
        match self {
            Self::Erase(_) => patience.erase,
            Self::CreateVolume(_) | Self::DeleteVolume(_) => patience.volume,
            Self::Firmware(_) => patience.firmware,
            Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => patience.manager,
        }
    }

    async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        match self {
            Self::Erase(job) => job.locate(device).await,
            Self::CreateVolume(job) => job.locate(device).await,
            Self::DeleteVolume(job) => job.locate(device).await,
            Self::Firmware(job) => job.locate(device).await,
            Self::Restart(job) => job.locate(device).await,
            Self::Csr(job) => job.locate(device).await,
            Self::Replace(job) => job.locate(device).await,
        }
    }

    async fn ask(&self, on: &Operations, device: &Device, progress: &Progress) -> Result<Asked, Fault> {
        match self {
            Self::Erase(job) => job.ask(device, progress).await,
            Self::CreateVolume(job) => job.ask(device).await,
            Self::DeleteVolume(job) => job.ask(device, progress).await,
            Self::Firmware(job) => job.ask(device).await,
            Self::Restart(job) => job.ask(device).await,
            Self::Csr(job) => job.ask(device).await,
            Self::Replace(job) => job.ask(on, device).await,
        }
    }

    async fn verify(&self, on: &Operations, device: &Device, progress: &mut Progress, evidence: Evidence) -> Result<Verdict, Fault> {
        match self {
            Self::Erase(job) => Ok(job.verify(evidence)),
            Self::CreateVolume(job) => job.verify(device).await,
            Self::DeleteVolume(job) => job.verify(device).await,
            Self::Firmware(job) => job.verify(on, device, progress, evidence).await,
            Self::Restart(job) => job.verify(on, device, progress).await,
            Self::Csr(job) => job.verify(device, progress).await,
            Self::Replace(job) => job.verify(on, device).await,
        }
    }

    /// Whether the effect alone tells, without knowing whether the BMC was asked.
    fn shows(&self) -> bool {
        match self {
            Self::CreateVolume(_) | Self::DeleteVolume(_) | Self::Replace(_) | Self::Restart(_) => true,
            Self::Firmware(job) => !job.component.is_empty(),
            Self::Erase(_) | Self::Csr(_) => false,
        }
    }
}

impl Operations {
    pub(crate) async fn job(&self, row: &mut Stored<Operation>, job: &Job) -> Result<Step, Fault> {
        let mut progress: Progress = serde_json::from_value(row.value.progress.clone()).unwrap_or_default();
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
                (progress.intent, progress.asked_at) = (true, Some(self.cx.now()));
                self.remember(row, &progress).await?;
                self.ask(&device, row, job, progress, true).await
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
                // The BMC may be slow to show what it began.
                if progress.asked_at.is_some_and(|at| self.cx.now().since(at) < LOST) {
                    return Ok(Step::Wait(LOOK, "Looking for what was asked before".to_owned()));
                }
                if matches!(job, Job::Firmware(_)) {
                    return self.unknown(&progress);
                }
                progress.asked_at = Some(self.cx.now());
                self.remember(row, &progress).await?;
                self.ask(&device, row, job, progress, false).await
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
                        Ok(Step::Done(facts))
                    }
                    Verdict::Wait(wait) => Ok(Step::Wait(wait, "Verifying".to_owned())),
                    Verdict::Failed(fault) => Err(fault),
                }
            }
        }
    }

    /// Nobody knows whether the BMC was reached: an image that it may be writing is not sent to it a second time. Its task or its versions tell, or
    /// a person.
    fn unknown(&self, progress: &Progress) -> Result<Step, Fault> {
        let waited = progress.asked_at.map_or(Duration::ZERO, |at| self.cx.now().since(at));
        if waited < self.patience.firmware_settles {
            let phase = "The answer was lost: looking for a task or another version".to_owned();
            return Ok(Step::Wait((waited / 4).clamp(LOOK, Duration::from_secs(15)), phase));
        }
        let why = format!(
            "the BMC's answer was lost {} s ago ({}), and neither a task nor another version shows: look at the BMC, then ask again",
            waited.as_secs(),
            progress.notes.get("said").map_or("the gateway stopped", String::as_str)
        );
        Err(Fault::new(Reason::BmcTimeout, why))
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

    async fn ask(
        &self,
        device: &Device,
        row: &mut Stored<Operation>,
        job: &Job,
        mut progress: Progress,
        first: bool,
    ) -> Result<Step, Fault> {
        let target = job.target();
        if !target.expected.is_unknown() {
            // The last look before the BMC is asked for what cannot be undone.
            device.machine(&target.system_id, &target.expected).await?;
        }
        let asked = job.ask(self, device, &progress).await;
        match &asked {
            // From now on the BMC has time to show what it may have begun.
            Err(fault) if matches!(fault.reason, Reason::BmcAmbiguous | Reason::BmcProtocol) => {
                progress.asked_at = Some(self.cx.now());
                progress.notes.insert("said".to_owned(), fault.message.clone());
                self.remember(row, &progress).await?;
            }
            // It did not get there, or was refused: nothing was begun that could be begun twice. An earlier one may have been.
            Err(_) if first => {
                progress.intent = false;
                self.remember(row, &progress).await?;
            }
            Err(_) | Ok(_) => {}
        }
        match asked? {
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
