//! How the erasure of a drive goes on.

use serde::{Deserialize, Serialize};

/// What is remembered between steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Path of the drive, once found.
    pub drive_uri: String,
    /// Where the erase is asked for.
    pub target: String,
    /// Path of the last task to that target before we asked: not ours.
    pub before: Option<String>,
    /// Whether we decided to ask; stored before asking.
    pub intent: bool,
    /// Path of the task that we began.
    pub task: Option<String>,
    /// Whether the BMC accepted without a task to follow.
    pub accepted: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Find the drive and what was asked of it before.
    Locate,
    /// Remember the intent, then ask.
    Ask,
    /// We may have asked before a crash: look for the task.
    Recover,
    /// Look at the task.
    Poll,
    /// The BMC says that it is done.
    Done,
}

/// Decides the next step from what was remembered.
pub fn plan(progress: &Progress) -> Next {
    match (
        progress.target.is_empty(),
        progress.intent,
        progress.task.is_some(),
        progress.accepted,
    ) {
        (true, _, _, _) => Next::Locate,
        (false, false, _, _) => Next::Ask,
        (false, true, true, _) => Next::Poll,
        (false, true, false, true) => Next::Done,
        (false, true, false, false) => Next::Recover,
    }
}
