use ironyard_types::{Metadata, Timestamp, hardware::Hardware, sampling::Sample};
use serde::{Deserialize, Serialize};

/// One run of the agent on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRun {
    /// Head.
    pub metadata: Metadata,
    /// Server.
    pub server: String,
    /// What for.
    pub purpose: String,
    /// The one-time token, inside the image; forgotten when the run is over.
    pub token: String,
    /// What the address of the image shows. It opens nothing.
    #[serde(default)]
    pub image_id: String,
    /// The session of the agent that showed the token first; no other may speak.
    #[serde(default)]
    pub session: String,
    /// Why nothing that the agent said counts.
    #[serde(default)]
    pub distrusted: Option<String>,
    /// Where it is.
    pub stage: Stage,
    /// When it began.
    pub started_at: Timestamp,
    /// What the agent reported.
    pub report: Option<Hardware>,
    /// What it was told.
    pub commands: Vec<Command>,
    /// Whether somebody asked it to stop.
    pub stop: bool,
    /// How often switching off at the end has failed: each try has a key of its own.
    pub end_attempts: u32,
    /// How often tidying up has failed.
    #[serde(default)]
    pub tidy_attempts: u32,
    /// What is left in the machine's BMC because it could not be tidied up; what the run has reached stands.
    #[serde(default)]
    pub left_behind: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// What is done about a machine that runs when the run begins.
    #[serde(default)]
    pub running: Running,
    /// Whether it was us who switched the machine on.
    #[serde(default)]
    pub on_asked: bool,
    /// How its image was fetched.
    #[serde(default)]
    pub delivery: Delivery,
}

/// How an image was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// First.
    pub fetched_at: Option<Timestamp>,
    /// Bytes that were sent.
    pub sent: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Address that the last of them came from.
    pub refused_from: String,
}

impl Delivery {
    /// Adds what came since.
    pub fn add(&mut self, more: &Self) {
        self.fetched_at = self.fetched_at.or(more.fetched_at);
        self.sent += more.sent;
        self.refused += more.refused;
        if !more.refused_from.is_empty() {
            self.refused_from.clone_from(&more.refused_from);
        }
    }

    /// How far a machine has come that boots the image, in a sentence.
    pub fn progress(&self) -> String {
        match (self.fetched_at, self.refused) {
            (Some(_), _) => format!(
                "its image was fetched ({} KiB so far), and the agent has not reported yet",
                self.sent / 1024
            ),
            (None, 0) => "nobody has fetched its image yet".to_owned(),
            (None, count) => format!(
                "its image was not given to {}, which is not the address of the BMC and asked {count} times: see discovery.image.sources",
                self.refused_from
            ),
        }
    }
}

/// What is done about a machine that runs when the agent is to be booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Running {
    /// It is switched off.
    #[default]
    ForceOff,
    /// Its operating system is asked to shut down, then it is switched off.
    GracefulOff,
    /// It is left alone, and the run ends.
    Leave,
}

/// Steps of a run, each safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The machine is switched off, whatever runs on it.
    SwitchOff,
    /// The medium is inserted.
    Insert,
    /// The next boot goes to the medium.
    Override,
    /// The machine is switched on.
    SwitchOn,
    /// The agent is expected to report.
    Boot,
    /// The agent has reported and takes commands.
    Run,
    /// The machine is switched off.
    End,
    /// The medium is ejected, the override cleared.
    Tidy,
    /// Over.
    Over,
}

/// Something for the agent to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Id.
    pub id: String,
    /// What.
    pub verb: Verb,
    /// To which drives, with the method of their erasure.
    pub drives: Vec<DriveTask>,
    /// What the sampled places follow from.
    #[serde(default)]
    pub seed: String,
    /// What the places follow from that nobody knew of during the erase.
    #[serde(default)]
    pub fresh_seed: String,
    /// What came of it; absent while it runs.
    pub results: Option<Vec<DriveResult>>,
}

/// What an agent can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Write marks.
    Mark,
    /// Overwrite.
    Wipe,
    /// Check that nothing survives.
    Verify,
    /// Switch off.
    Off,
}

/// A drive, and what to do with it. (Stored as a pair by earlier releases, which reads as the first two fields.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveTask {
    /// Serial number.
    pub serial: String,
    /// How it was erased, for Verify.
    pub method: String,
    /// What to erase it with, for Wipe.
    #[serde(default)]
    pub erase_commands: Vec<String>,
}

/// What came of a command, for one drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveResult {
    /// Serial number.
    pub serial: String,
    /// Whether it could be done.
    pub ok: bool,
    /// Sentence.
    pub message: String,
    /// What was read.
    #[serde(default)]
    pub read: Vec<Sample>,
    /// What it was erased with.
    #[serde(default)]
    pub erase_command: String,
    /// What was tried before and failed.
    #[serde(default)]
    pub tried: Vec<String>,
}

impl AgentRun {
    /// The failure of a run that ended because the machine runs.
    pub const MACHINE_RUNS: &str = "the machine runs";

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Nothing that its agent said counts, and the run ends.
    pub fn distrust(&mut self, why: &str) {
        self.distrusted.get_or_insert_with(|| why.to_owned());
        self.failure.get_or_insert_with(|| why.to_owned());
        (self.report, self.stop) = (None, true);
        for command in &mut self.commands {
            command.results = None;
        }
    }

    /// Whether its agent has not shown its token yet.
    pub fn awaits_agent(&self) -> bool {
        matches!(self.stage, Stage::Insert | Stage::Override | Stage::SwitchOn | Stage::Boot) && self.session.is_empty() && !self.stop
    }

    /// Whether the agent may speak.
    pub fn listens(&self) -> bool {
        matches!(self.stage, Stage::SwitchOn | Stage::Boot | Stage::Run) && self.distrusted.is_none()
    }
}
