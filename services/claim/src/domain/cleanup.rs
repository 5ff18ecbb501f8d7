use ironyard_types::{Category, Metadata, Reference, Timestamp, Waiting, hardware::Drive};
use serde::{Deserialize, Serialize};

use super::sanitize::Job;

/// The wipe of one server after one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupRun {
    /// Head.
    pub metadata: Metadata,
    /// Server.
    pub server: Reference,
    /// Claim.
    pub claim: Reference,
    /// The debt that it pays.
    #[serde(default)]
    pub debt: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Step that is next.
    pub step: Step,
    /// When that step began.
    pub step_at: Timestamp,
    /// System UUID of the machine, as read.
    pub system_uuid: String,
    /// Drives that the BMC shows.
    pub bmc_drives: Vec<Drive>,
    /// Why the BMC could not list its drives, so that the agent alone speaks for them.
    #[serde(default)]
    pub drives_unread: Option<String>,
    /// Since when it could not.
    #[serde(default)]
    pub unread_since: Option<Timestamp>,
    /// Drives that the agent saw.
    pub agent_drives: Vec<Drive>,
    /// Run of the agent.
    pub agent_run: String,
    /// What the wipe must be at least.
    #[serde(default)]
    pub minimum: Category,
    /// Drives on their way to the certificate.
    pub jobs: Vec<Job>,
    /// What the marks and the sampled places of the drives follow from.
    #[serde(default)]
    pub seed: String,
    /// The same, of places that are sampled after the erase only.
    #[serde(default)]
    pub fresh_seed: String,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Steps that the machine does not offer, and that were left out.
    pub skipped: Vec<String>,
    /// Certificate, once written.
    pub certificate: String,
    /// Why it waits.
    pub waiting: Option<Waiting>,
    /// Whether it is over.
    pub done: bool,
    /// Trace of the call that released the server.
    pub traceparent: String,
    /// Who asked it to stop, and why.
    #[serde(default)]
    pub cancelled: Option<String>,
}

/// Runs for one debt that begin by themselves: the first, and those after an erase that never reached its BMC.
pub const MOST_RUNS: usize = 3;

impl CleanupRun {
    /// Whether all that failed is erases of which nobody knew whether they had reached the BMC, and what was read of the drives told that they had not:
    /// then they may be asked for, by another run.
    pub fn never_erased(&self) -> bool {
        let read = |failure: &Failure| failure.reason == "DRIVE_NOT_SANITIZED" && failure.step == Step::Verify;
        let unverified = || self.jobs.iter().filter(|job| !job.verified);
        self.cancelled.is_none()
            && self.failure.as_ref().is_some_and(read)
            && unverified().count() > 0
            && unverified().all(|job| job.answer_lost)
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason code.
    pub reason: String,
    /// Sentence.
    pub message: String,
    /// Step.
    pub step: Step,
}

/// Steps, in order; each is safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Switched off, observed.
    PowerOff,
    /// Kept until an operator lets it go.
    Retain,
    /// The machine is the one that the record is about.
    Identify,
    /// BIOS defaults at the next boot.
    ResetBios,
    /// No boot override.
    ClearBoot,
    /// No medium.
    EjectMedia,
    /// Locator LED off.
    LedOff,
    /// Drives that the BMC shows.
    ListDrives,
    /// The agent boots and reports.
    BootAgent,
    /// The agent marks every drive.
    Mark,
    /// Every drive is erased.
    Erase,
    /// The agent checks every drive.
    Verify,
    /// The agent ends, the machine is off.
    EndAgent,
    /// The certificate is written.
    Certify,
    /// Inventory is told.
    Finish,
}

impl Step {
    /// The step after this one.
    pub fn next(self) -> Self {
        match self {
            Self::PowerOff => Self::Retain,
            Self::Retain => Self::Identify,
            Self::Identify => Self::ResetBios,
            Self::ResetBios => Self::ClearBoot,
            Self::ClearBoot => Self::EjectMedia,
            Self::EjectMedia => Self::LedOff,
            Self::LedOff => Self::ListDrives,
            Self::ListDrives => Self::BootAgent,
            Self::BootAgent => Self::Mark,
            Self::Mark => Self::Erase,
            Self::Erase => Self::Verify,
            Self::Verify => Self::EndAgent,
            Self::EndAgent => Self::Certify,
            Self::Certify | Self::Finish => Self::Finish,
        }
    }

    /// Whether a machine that does not offer it may go without: it is then named on the run.
    pub fn is_optional(self) -> bool {
        match self {
            Self::ResetBios | Self::ClearBoot | Self::EjectMedia | Self::LedOff => true,
            Self::PowerOff
            | Self::Retain
            | Self::Identify
            | Self::ListDrives
            | Self::BootAgent
            | Self::Mark
            | Self::Erase
            | Self::Verify
            | Self::EndAgent
            | Self::Certify
            | Self::Finish => false,
        }
    }
}

impl CleanupRun {
    /// How it ended, if it has.
    pub fn outcome(&self) -> &'static str {
        match (&self.failure, self.done) {
            (Some(_), _) => "Failed",
            (None, true) => "Passed",
            (None, false) => "Running",
        }
    }

    /// Why it failed, with the step.
    pub fn why(&self) -> String {
        self.failure
            .as_ref()
            .map(|f| format!("{:?}: {}", f.step, f.message))
            .unwrap_or_default()
    }

    /// Whether every drive passed, and nothing went wrong.
    pub fn passed(&self) -> bool {
        // A drive whose findings are not on record was verified by an older version, on the agent's word.
        let proven = |job: &Job| job.passed() && job.findings.is_some();
        self.failure.is_none() && !self.jobs.is_empty() && self.jobs.iter().all(proven)
    }

    /// The weakest of what was done to its drives.
    pub fn category(&self) -> Category {
        self.jobs.iter().map(|job| job.method.category).min().unwrap_or_default()
    }

    /// Remembers what went wrong and goes on to switch the agent off; the first failure counts.
    pub fn fail(&mut self, reason: &str, message: String, now: Timestamp) {
        let step = self.step;
        self.failure.get_or_insert(Failure {
            reason: reason.to_owned(),
            message,
            step,
        });
        // Whatever fails, the agent is ended; and if that fails too, the record is written all the same.
        self.step = if self.step < Step::EndAgent {
            Step::EndAgent
        } else {
            Step::Certify
        };
        (self.step_at, self.waiting) = (now, None);
    }
}

/// Proof that a server was wiped, or the record that it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Head.
    pub metadata: Metadata,
    /// Server.
    pub server: Reference,
    /// Claim.
    pub claim: Reference,
    /// System UUID, as read.
    pub system_uuid: String,
    /// Whether every drive passed.
    pub passed: bool,
    /// By drive.
    pub drives: Vec<Job>,
    /// When the wipe began.
    pub started_at: Timestamp,
    /// When this was written.
    pub issued_at: Timestamp,
    /// Who performed it.
    #[serde(default)]
    pub performed_by: String,
    /// What the wipe had to be at least.
    #[serde(default)]
    pub minimum: Category,
    /// What was to happen after the claim, as it was wanted at the reservation.
    #[serde(default)]
    pub reclaim_policy: String,
    /// What of that was forgiven since.
    #[serde(default)]
    pub forgiven: Vec<String>,
    /// Why it did not pass.
    #[serde(default)]
    pub failure: String,
}
