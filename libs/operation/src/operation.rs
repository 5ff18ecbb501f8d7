use std::{collections::BTreeMap, time::Duration};

use ironyard_db::{Record, Retention};
use ironyard_types::{Metadata, Timestamp};
use serde::{Deserialize, Serialize};

/// Work that outlives the call that began it and the process that does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Name and uid.
    pub metadata: Metadata,
    /// What it does.
    pub verb: String,
    /// To what.
    pub target: String,
    /// What it was asked, for the service that owns it.
    pub request: serde_json::Value,
    /// How far it is, for the service that owns it: what is needed to go on after a crash.
    pub progress: serde_json::Value,
    /// Percent.
    pub percent: i32,
    /// What it is doing, for people.
    pub phase: String,
    /// Facts about the outcome.
    pub facts: BTreeMap<String, String>,
    /// Since when it waits for hardware that does not answer.
    #[serde(default)]
    pub blocked_since: Option<Timestamp>,
    /// Whether it has ended.
    pub done: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether somebody asked it to stop.
    pub cancel: bool,
    /// Who asked it to stop, and why.
    #[serde(default)]
    pub cancelled_by: String,
    /// Those with the same line go one after the other; none: it goes beside all others.
    #[serde(default)]
    pub line: Option<String>,
    /// W3C trace context of the call that began it.
    pub traceparent: String,
}

/// How an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Canonical gRPC code.
    pub code: i32,
    /// Reason code.
    pub reason: String,
    /// Sentence.
    pub message: String,
}

impl Operation {
    /// A new one.
    pub fn new(verb: &str, target: String, line: Option<String>, request: serde_json::Value, traceparent: String) -> Self {
        let uid = ironyard_types::random_id();
        Self {
            metadata: Metadata {
                name: format!("{}-{uid}", ironyard_types::dns_label(verb)),
                uid,
                ..Metadata::default()
            },
            verb: verb.to_owned(),
            target,
            request,
            progress: serde_json::Value::Null,
            percent: 0,
            phase: "Queued".to_owned(),
            facts: BTreeMap::new(),
            blocked_since: None,
            done: false,
            failure: None,
            cancel: false,
            cancelled_by: String::new(),
            line,
            traceparent,
        }
    }
}

impl Record for Operation {
    const TABLE: &'static str = "operation";
    const INDEX: &'static [&'static str] = &["done", "line"];
    fn index(&self) -> Vec<Option<String>> {
        // Who is done waits for nobody, and nobody for it.
        vec![Some(self.done.to_string()), self.line.clone().filter(|_| !self.done)]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// Operations that have ended are kept for a month, the last twenty thousand of them.
pub const ENDED: Retention = Retention {
    table: "operation",
    key: "operation_id",
    over: "done = 'true'",
    since: "updated_at",
    keep: Duration::from_secs(30 * 24 * 3600),
    most: 20_000,
};
