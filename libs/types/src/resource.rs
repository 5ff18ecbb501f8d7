use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The head of a resource. Its version lives beside it, in the row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When deletion was asked for.
    pub deleted_at: Option<Timestamp>,
}

/// A reference to another resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// Uid; empty where the reference is by name only.
    pub uid: String,
}

impl Reference {
    /// A reference to that very resource.
    pub fn new(name: impl Into<String>, uid: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            uid: uid.into(),
        }
    }

    /// A reference by name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new(name, "")
    }
}

/// Why a resource that is not at rest does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Reason code.
    pub reason: String,
    /// Sentence.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// Next attempt.
    pub next_attempt: Option<Timestamp>,
    /// Attempts that failed in a row.
    #[serde(default)]
    pub attempts: u32,
}

impl Waiting {
    /// The new reason to wait, keeping `since` where the reason did not change. A message may change meanwhile.
    pub fn renew(previous: Option<&Self>, reason: &str, message: String, now: Timestamp, next: Option<Duration>) -> Self {
        let since = match previous {
            Some(p) if p.reason == reason => p.since,
            Some(_) | None => now,
        };
        Self {
            reason: reason.to_owned(),
            message,
            since,
            next_attempt: next.map(|d| now.plus(d)),
            attempts: 0,
        }
    }

    /// The reason to wait after an attempt that failed; the next one comes after `again`.
    pub fn retry(
        previous: Option<&Self>,
        reason: &str,
        message: impl std::fmt::Display,
        attempts: u32,
        now: Timestamp,
        again: Duration,
    ) -> Self {
        Self {
            attempts,
            ..Self::renew(previous, reason, message.to_string(), now, Some(again))
        }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// One aspect of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Aspect.
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Reason code.
    pub reason: String,
    /// Sentence.
    pub message: String,
    /// Last change of `status`.
    pub changed_at: Timestamp,
}

impl Condition {
    /// Sets a condition in a list, by type, keeping the time of change where the status stays. True when anything changed.
    pub fn set(list: &mut Vec<Self>, kind: &str, status: ConditionStatus, reason: &str, message: &str, now: Timestamp) -> bool {
        let new = |changed_at| Self {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            changed_at,
        };
        match list.iter_mut().find(|c| c.kind == kind) {
            Some(old) => {
                let next = new(if old.status == status { old.changed_at } else { now });
                let changed = *old != next;
                *old = next;
                changed
            }
            None => {
                list.push(new(now));
                true
            }
        }
    }
}
