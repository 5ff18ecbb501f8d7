use std::time::Duration;

use serde_json::Value;

/// What can go wrong with a BMC. Texts from the BMC are stripped of control characters and capped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("the BMC does not answer: {0}")]
    Unreachable(String),
    /// The certificate is not the trusted one.
    #[error("TLS with the BMC is refused: {0}")]
    Tls(String),
    /// The credential was refused.
    #[error("the BMC refused the credential")]
    AuthenticationFailed,
    /// Every session of the BMC is taken.
    #[error("the BMC has no session left")]
    SessionLimit,
    /// The account may do nothing but change its own password.
    #[error("the BMC wants the password of this account changed before anything else")]
    PasswordChangeRequired,
    /// A licence is missing.
    #[error("the BMC wants a licence for this: {0}")]
    LicenseRequired(String),
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
    /// A property or parameter has a value that the BMC does not take.
    #[error("the BMC does not take this value of {property}: {message}")]
    InvalidValue {
        /// Which, as far as the BMC says.
        property: String,
        /// Its words.
        message: String,
    },
    /// The BMC accepted a change and shows another state.
    #[error("the BMC accepted the change, and still shows {0}")]
    NotApplied(String),
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
    /// The connection broke after the request was sent: nobody knows whether it took effect. Read, never repeat blindly.
    #[error("the connection to the BMC broke in the middle of a change: {0}")]
    Lost(String),
    /// Whoever wanted the change had no right to it any more when it was its turn: it was not sent.
    #[error("the change was not sent: whoever asked for it may not make it any more")]
    NotPermitted,
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
    /// The image on this side.
    #[error("the image cannot be read: {0}")]
    Image(String),
    /// One operation asked for too much.
    #[error("reading it took more than {0} requests")]
    Budget(usize),
}

impl Error {
    /// Whether the transport failed, as opposed to the BMC having answered: what a breaker counts.
    pub fn is_transport(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Timeout { .. } => true,
            Self::Tls(_)
            | Self::AuthenticationFailed
            | Self::SessionLimit
            | Self::PasswordChangeRequired
            | Self::LicenseRequired(_)
            | Self::InvalidValue { .. }
            | Self::NotApplied(_)
            | Self::NotPermitted
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
            | Self::Image(_)
            | Self::Budget(_) => false,
        }
    }

    /// Whether a change may or may not have taken effect: only the BMC's state tells.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Timeout { write: true })
    }

    /// Whether the BMC does not take the request in this form, so that another form is worth a try.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::InvalidValue { .. } | Self::NotFound(_) | Self::Unsupported(_)
        )
    }

    /// From an answer that is not a success.
    pub(crate) fn from_status(status: u16, at: &str, body: &Value, retry_after: Option<Duration>) -> Self {
        let info = ExtendedInfo::of(body);
        let message = if info.words.is_empty() { at.to_owned() } else { info.words.clone() };
        if info.says(&["RAC0218", "SessionLimitExceeded", "CreateLimitReachedForResource"]) {
            return Self::SessionLimit;
        }
        if info.says(&["PasswordChangeRequired"]) {
            return Self::PasswordChangeRequired;
        }
        if info.says(&[
            "LicenseRequired",
            "LicenseKeyRequired",
            "LicenseNotInstalled",
            "OemLicenseNotPassed",
        ]) {
            return Self::LicenseRequired(message);
        }
        let property = || info.properties.first().cloned().unwrap_or_else(|| "a property".to_owned());
        match status {
            401 => Self::AuthenticationFailed,
            403 => Self::Forbidden(message),
            404 | 410 => Self::NotFound(at.to_owned()),
            405 | 501 => Self::Unsupported(at.to_owned()),
            412 | 428 => Self::PreconditionFailed,
            429 | 503 => Self::Busy { message, retry_after },
            _ if info.says(NOT_NOW) => Self::Busy { message, retry_after },
            400..=499 if info.says(BAD_VALUE) => Self::InvalidValue {
                property: property(),
                message,
            },
            400..=499 => Self::Refused { status, message },
            _ => Self::Failed { status, message },
        }
    }

    /// A refusal that comes as a success: a 200 whose messages are critical.
    pub(crate) fn in_success(status: u16, body: &Value) -> Option<Self> {
        let info = ExtendedInfo::of(body);
        // A login may say so, and is a login all the same.
        let login = info.says(&["PasswordChangeRequired"]);
        (info.critical && !login).then_some(Self::Refused {
            status,
            message: info.words,
        })
    }
}

/// Message ids (their last segment) of a state that passes.
const NOT_NOW: &[&str] = &[
    "ResourceInUse",
    "ServiceTemporarilyUnavailable",
    "InvalidOperationForSystemState",
    "UnableToModifyDuringSystemPOST",
    "SYS518",
];
/// Message ids of a value that is not taken.
const BAD_VALUE: &[&str] = &[
    "PropertyValueNotInList",
    "PropertyValueFormatError",
    "PropertyValueTypeError",
    "PropertyValueError",
    "PropertyValueIncorrect",
    "PropertyValueOutOfRange",
    "PropertyNotWritable",
    "ActionParameterValueNotInList",
    "ActionParameterValueFormatError",
    "ActionParameterValueTypeError",
    "ActionParameterValueError",
];

/// What `@Message.ExtendedInfo` says; it comes as an array, as one object, or not at all.
#[derive(Default)]
struct ExtendedInfo {
    ids: Vec<String>,
    words: String,
    properties: Vec<String>,
    critical: bool,
}

impl ExtendedInfo {
    fn of(body: &Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        let entries: &[Value] = match error.get("@Message.ExtendedInfo") {
            Some(Value::Array(list)) => list,
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            Some(_) | None => &[],
        };
        let mut info = Self::default();
        let mut words: Vec<String> = vec![];
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(clean);
        for entry in entries.iter().take(20) {
            // Some send the id alone.
            let id = text(entry, "MessageId").or_else(|| text(entry, "MessageID"));
            info.ids.extend(id.or_else(|| entry.as_str().map(clean)));
            words.extend(text(entry, "Message").filter(|m| !m.is_empty()));
            let related = entry.get("RelatedProperties").and_then(Value::as_array);
            info.properties
                .extend(related.into_iter().flatten().filter_map(Value::as_str).map(clean));
            let args = entry.get("MessageArgs").and_then(Value::as_array);
            info.properties
                .extend(args.and_then(|a| a.last()).and_then(Value::as_str).map(clean));
            let severity = text(entry, "MessageSeverity").or_else(|| text(entry, "Severity"));
            info.critical |= severity.as_deref() == Some("Critical");
        }
        info.ids.extend(text(error, "code"));
        if words.is_empty() {
            words.extend(text(error, "message").filter(|m| !m.is_empty()));
        }
        info.words = words.join(" ").chars().take(500).collect();
        info
    }

    fn says(&self, words: &[&str]) -> bool {
        self.ids
            .iter()
            .any(|id| id.rsplit('.').next().is_some_and(|last| words.contains(&last)))
    }
}

/// Text from a BMC, fit to be stored and logged: no control characters, at most 1 KiB.
pub(crate) fn clean(text: &str) -> String {
    clean_to(text, 1024)
}

/// The same, of another length.
pub(crate) fn clean_to(text: &str, most: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_have_one_meaning() {
        let says =
            |id: &str| json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id, "Message": "m", "MessageArgs": ["x", "Boot"]}]}});
        let one = json!({"error": {"@Message.ExtendedInfo": {"MessageId": "IDRAC.2.8.RAC0218", "Message": "max"}}});
        let of = |status, body: &Value| Error::from_status(status, "/x", body, None);
        assert_eq!(of(503, &one), Error::SessionLimit);
        assert_eq!(of(403, &says("Base.1.8.PasswordChangeRequired")), Error::PasswordChangeRequired);
        assert!(matches!(of(403, &Value::Null), Error::Forbidden(_)));
        assert!(matches!(
            of(400, &says("iLO.2.14.UnableToModifyDuringSystemPOST")),
            Error::Busy { .. }
        ));
        assert!(matches!(of(400, &says("Base.1.8.PropertyValueNotInList")), Error::InvalidValue { property, .. } if property == "Boot"));
        assert!(matches!(
            of(400, &json!({"error": {"@Message.ExtendedInfo": [7, null, "Base.1.Oops"]}})),
            Error::Refused { .. }
        ));
        let fine =
            json!({"error": {"code": "iLO.0.10.ExtendedInfo", "@Message.ExtendedInfo": [{"MessageId": "iLO.2.14.SystemResetRequired"}]}});
        assert_eq!(Error::in_success(200, &fine), None);
        let bad = json!({"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS410", "Severity": "Critical", "Message": "no"}]});
        assert!(matches!(Error::in_success(200, &bad), Some(Error::Refused { .. })));
    }
}
