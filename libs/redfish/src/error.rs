use std::time::Duration;

use serde_json::Value;

/// What can go wrong with a BMC. Texts from the BMC are stripped of control characters and capped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("the BMC does not answer: {0}")]
    Unreachable(String),
    /// The certificate is not the trusted one.
    #[error("the BMC's certificate is not trusted: {0}")]
    Tls(String),
    /// The credential was refused.
    #[error("the BMC refused the credential")]
    AuthenticationFailed,
    /// Every session of the BMC is taken.
    #[error("the BMC has no session left")]
    SessionLimit,
    /// The account may not do this.
    #[error("the account may not do this: {0}")]
    Forbidden(String),
    /// No such resource.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The BMC does not offer this.
    #[error("the BMC does not offer {0}")]
    Unsupported(String),
    /// If-Match was refused.
    #[error("the BMC refused the version of the resource")]
    PreconditionFailed,
    /// Busy, or in a state that forbids it now.
    #[error("the BMC is busy: {message}")]
    Busy {
        /// Its words.
        message: String,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The request was refused.
    #[error("the BMC refused the request ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The BMC failed.
    #[error("the BMC failed ({status}): {message}")]
    Failed {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// No answer in time. After a write nobody knows whether it took effect: read, never repeat blindly.
    #[error("the BMC did not answer in time")]
    Timeout {
        /// Whether it was a write.
        write: bool,
    },
    /// Nonsense.
    #[error("the BMC answered nonsense at {at}: {problem}")]
    Protocol {
        /// Path.
        at: String,
        /// What.
        problem: String,
    },
    /// More than the cap.
    #[error("the answer at {at} is larger than {cap} bytes")]
    TooLarge {
        /// Path.
        at: String,
        /// Cap.
        cap: usize,
    },
    /// A link or redirect to another host.
    #[error("the BMC points to another host: {0}")]
    CrossOrigin(String),
    /// One operation asked for too much.
    #[error("reading it took more than {0} requests")]
    Budget(usize),
}

impl Error {
    /// Whether the transport failed, as opposed to the BMC having answered: what a breaker counts.
    pub fn is_transport(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout { .. } => true,
            Self::Tls(_)
            | Self::AuthenticationFailed
            | Self::SessionLimit
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Unsupported(_)
            | Self::PreconditionFailed
            | Self::Busy { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::CrossOrigin(_)
            | Self::Budget(_) => false,
        }
    }

    /// From an answer that is not a success.
    pub(crate) fn from_status(status: u16, at: &str, body: &Value, retry_after: Option<Duration>) -> Self {
        let (ids, message) = extended_info(body);
        let says = |word: &str| ids.iter().any(|id| id.rsplit('.').next() == Some(word));
        let text = if message.is_empty() { at.to_owned() } else { message };
        if says("RAC0218") || says("SessionLimitExceeded") {
            return Self::SessionLimit;
        }
        let not_now = [
            "ResourceInUse",
            "ServiceTemporarilyUnavailable",
            "InvalidOperationForSystemState",
            "UnableToModifyDuringSystemPOST",
            "SYS518",
        ];
        match status {
            401 => Self::AuthenticationFailed,
            403 => Self::Forbidden(text),
            404 | 410 => Self::NotFound(at.to_owned()),
            405 | 501 => Self::Unsupported(at.to_owned()),
            412 | 428 => Self::PreconditionFailed,
            429 | 503 => Self::Busy {
                message: text,
                retry_after,
            },
            _ if not_now.iter().any(|word| says(word)) => Self::Busy {
                message: text,
                retry_after,
            },
            400..=499 => Self::Refused { status, message: text },
            _ => Self::Failed { status, message: text },
        }
    }
}

/// Message ids and texts of `@Message.ExtendedInfo`, which comes as an array, one object, or not at all.
pub(crate) fn extended_info(body: &Value) -> (Vec<String>, String) {
    let error = body.get("error").unwrap_or(body);
    let info = error.get("@Message.ExtendedInfo");
    let entries: Vec<&Value> = match info {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        Some(_) | None => vec![],
    };
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(clean);
    let ids: Vec<String> = entries
        .iter()
        .filter_map(|e| text(e, "MessageId").or_else(|| text(e, "MessageID")))
        .collect();
    let mut words: Vec<String> = entries
        .iter()
        .filter_map(|e| text(e, "Message"))
        .filter(|m| !m.is_empty())
        .collect();
    if words.is_empty() {
        words.extend(text(error, "message").filter(|m| !m.is_empty()));
    }
    (ids, words.join(" ").chars().take(500).collect())
}

/// Text from a BMC, fit to be stored and logged: no control characters, at most 1 KiB.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(1024)
        .collect::<String>()
        .trim()
        .to_owned()
}
