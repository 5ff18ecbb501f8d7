use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::Reason;

/// The small closed set of kinds; each is one canonical code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// INVALID_ARGUMENT.
    Invalid,
    /// NOT_FOUND.
    NotFound,
    /// ALREADY_EXISTS.
    Exists,
    /// ABORTED.
    Aborted,
    /// FAILED_PRECONDITION.
    Precondition,
    /// OUT_OF_RANGE.
    OutOfRange,
    /// PERMISSION_DENIED.
    Denied,
    /// UNAUTHENTICATED.
    Unauthenticated,
    /// UNAVAILABLE.
    Unavailable,
    /// DEADLINE_EXCEEDED.
    Deadline,
    /// CANCELLED.
    Cancelled,
    /// INTERNAL.
    Internal,
    /// UNKNOWN.
    Unknown,
}

impl Kind {
    /// The canonical code.
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::Aborted => Code::Aborted,
            Self::Precondition => Code::FailedPrecondition,
            Self::OutOfRange => Code::OutOfRange,
            Self::Denied => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Unavailable => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Unknown => Code::Unknown,
            Self::Cancelled => Code::Cancelled,
            Self::Internal => Code::Internal,
        }
    }
}

/// An error as callers see it. The only way to a [`Status`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Fields that are wrong: path and what is wrong.
    pub fields: Vec<(String, String)>,
    /// When to try again.
    pub retry: Option<Duration>,
    /// What it is about: a kind and a name.
    pub subject: Option<(&'static str, String)>,
}

impl Fault {
    /// A fault with a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            fields: vec![],
            retry: None,
            subject: None,
        }
    }

    /// A field that is wrong.
    pub fn field(path: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let (path, problem) = (path.into(), problem.to_string());
        Self {
            fields: vec![(path.clone(), problem.clone())],
            ..Self::new(Reason::InvalidField, format!("{path}: {problem}"))
        }
    }

    /// A defect: the chain goes to the log, the caller sees that it happened.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "internal error");
        Self::new(Reason::Internal, "internal error; the service's log has more under the request id")
    }

    /// Says what it is about.
    #[must_use]
    pub fn about(mut self, kind: &'static str, name: impl Into<String>) -> Self {
        self.subject = Some((kind, name.into()));
        self
    }

    /// Worth trying again after a while.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry = Some(wait);
        self
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut metadata = HashMap::new();
        if let Some((kind, name)) = fault.subject {
            metadata.insert("resourceType".to_owned(), kind.to_owned());
            metadata.insert("resourceName".to_owned(), name);
        }
        if let Some((path, _)) = fault.fields.first() {
            metadata.insert("field".to_owned(), path.clone());
        }
        let mut details = ErrorDetails::with_error_info(fault.reason.as_str(), "ironyard", metadata);
        for (path, problem) in &fault.fields {
            details.add_bad_request_violation(path, problem);
        }
        if let Some(wait) = fault.retry {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(fault.reason.kind().code(), fault.message, details)
    }
}

/// The reason that a status carries.
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
