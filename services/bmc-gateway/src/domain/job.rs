//! How long work on a BMC goes on: what is asked once, what the BMC's task says of it, and what is believed.

use std::collections::BTreeMap;

use ironyard_types::Timestamp;
use serde::{Deserialize, Serialize};

/// What is remembered between steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Path of the thing that is worked on, once found.
    #[serde(alias = "drive_uri")]
    pub subject: String,
    /// Where it is asked for.
    pub target: String,
    /// Paths of the tasks that were there before we asked: not ours. None: nobody looked.
    pub tasks_before: Option<Vec<String>>,
    /// How things stood before we asked.
    pub notes: BTreeMap<String, String>,
    /// When it began: what it waited for before does not count.
    pub begun_at: Option<Timestamp>,
    /// Whether we decided to ask; stored before asking.
    pub intent: bool,
    /// When that was.
    pub asked_at: Option<Timestamp>,
    /// Path of the task that we began.
    pub task: Option<String>,
    /// Whether its task waits for a restart of the host.
    pub staged: bool,
    /// Whether the BMC accepted without a task to follow.
    pub accepted: bool,
    /// What the BMC's task came to, and when that was seen.
    pub evidence: Option<(Evidence, Timestamp)>,
}

/// What the BMC's task came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// It completed.
    Completed,
    /// It waits for a restart of the host.
    Staged,
    /// It is gone.
    Vanished,
    /// There was none.
    NoTask,
    /// Nobody knows whether the BMC was reached: its answer was lost, and no task showed.
    AnswerLost,
}

impl Evidence {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Completed => "the BMC's task completed",
            Self::Staged => "the BMC's task waits for a restart of the host",
            Self::Vanished => "the BMC's task vanished",
            Self::NoTask => "the BMC accepted without a task",
            Self::AnswerLost => "the BMC's answer was lost and no task showed",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Find what is worked on, how it stands, and what was asked of it before.
    Locate,
    /// Remember the intent, then ask.
    Ask,
    /// We may have asked, and do not know: look for the effect, then for the task. It is never asked again.
    Recover,
    /// Look at the task.
    Poll,
    /// Look at the effect.
    Verify(Evidence),
}

/// Decides the next step from what was remembered.
pub fn plan(progress: &Progress) -> Next {
    if progress.target.is_empty() {
        return Next::Locate;
    }
    if let Some((evidence, _)) = progress.evidence {
        return Next::Verify(evidence);
    }
    match (progress.intent, progress.task.is_some(), progress.accepted) {
        (false, _, _) => Next::Ask,
        (true, true, _) => Next::Poll,
        (true, false, true) => Next::Verify(Evidence::NoTask),
        (true, false, false) => Next::Recover,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_twice_without_a_look() {
        let mut progress = Progress::default();
        assert_eq!(plan(&progress), Next::Locate);
        progress.target = "/x".to_owned();
        assert_eq!(plan(&progress), Next::Ask);
        progress.intent = true;
        assert_eq!(plan(&progress), Next::Recover, "a crash, or no answer, after the intent");
        progress.accepted = true;
        assert_eq!(plan(&progress), Next::Verify(Evidence::NoTask));
        progress.task = Some("/t".to_owned());
        assert_eq!(plan(&progress), Next::Poll);
        progress.evidence = Some((Evidence::Vanished, Timestamp(0)));
        assert_eq!(plan(&progress), Next::Verify(Evidence::Vanished));
    }
}
