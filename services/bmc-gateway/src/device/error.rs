use std::time::Duration;

use ironyard_redfish::Error;
use ironyard_rpc::{Fault, Reason};

/// Why the BMC was not asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No address, no credential, a bad address.
    #[error("{0}")]
    NotReady(String),
    /// Why it could not be asked.
    #[error("{0}")]
    NotAsked(Fault),
    /// It did not answer lately.
    #[error("the BMC does not answer; it is tried again in {} s", .0.as_secs() + 1)]
    Open(Duration),
    /// Its credential was refused.
    #[error("the BMC refused the credential; it is tried again in {} min, or when another one is set", .0.as_secs() / 60 + 1)]
    Refused(Duration),
    /// Too much waits in front of it.
    #[error("too many requests wait for this BMC")]
    Full,
    /// This owner has no right to change anything any more, or not yet.
    #[error("{0}; nothing was sent")]
    NotOwner(&'static str),
    /// The BMC has no such system.
    #[error("{0}")]
    NotOneSystem(String, bool),
    /// Another machine stands in the place of the one that was meant.
    #[error("the BMC shows another machine than the one that is meant: {0}; nothing was written to it")]
    WrongMachine(String),
    /// What it answered.
    #[error("{0}")]
    Redfish(#[from] Error),
    /// What it answered to a read before the change, of which nothing was sent.
    #[error("{0}")]
    Unsent(Error),
}

impl From<DeviceError> for Fault {
    fn from(error: DeviceError) -> Self {
        if let DeviceError::NotAsked(fault) = error {
            return fault;
        }
        // Several texts of a BMC, each capped, may stand in it.
        let message: String = error.to_string().chars().take(2000).collect();
        let wrong = match &error {
            DeviceError::Redfish(Error::InvalidValue { property, message }) => Some((property.clone(), message.clone())),
            _ => None,
        };
        let (reason, retry) = match error {
            DeviceError::NotReady(_) | DeviceError::NotAsked(_) => (Reason::BmcNotReady, None),
            DeviceError::Open(wait) => (Reason::BmcUnreachable, Some(wait)),
            DeviceError::Refused(_) => (Reason::BmcAuthenticationFailed, None),
            DeviceError::Full | DeviceError::NotOwner(_) => (Reason::BmcBusy, Some(Duration::from_secs(1))),
            DeviceError::NotOneSystem(_, true) => (Reason::SystemAmbiguous, None),
            DeviceError::WrongMachine(_) => (Reason::WrongMachine, None),
            DeviceError::NotOneSystem(_, false) => (Reason::SystemNotFound, None),
            DeviceError::Redfish(error) | DeviceError::Unsent(error) => match error {
                Error::Timeout { write: true } | Error::Lost(_) => (Reason::BmcAmbiguous, None),
                Error::Unreachable(_) | Error::Timeout { write: false } => (Reason::BmcUnreachable, Some(Duration::from_secs(2))),
                Error::Tls(_) => (Reason::BmcTlsRefused, None),
                Error::AuthenticationFailed => (Reason::BmcAuthenticationFailed, None),
                Error::Forbidden(_) => (Reason::BmcForbidden, None),
                Error::PasswordChangeRequired => (Reason::BmcPasswordChangeRequired, None),
                Error::LicenseRequired(_) => (Reason::BmcLicenseRequired, None),
                Error::InvalidValue { .. } => (Reason::BmcInvalidValue, None),
                Error::NotApplied(_) => (Reason::BmcRefused, None),
                Error::NotPermitted => (Reason::StaleFence, None),
                Error::SessionLimit => (Reason::BmcBusy, Some(Duration::from_secs(30))),
                Error::Busy { retry_after, .. } => (Reason::BmcBusy, Some(retry_after.unwrap_or(Duration::from_secs(5)))),
                Error::NotFound(_) | Error::Unsupported(_) => (Reason::BmcUnsupported, None),
                Error::PreconditionFailed | Error::Refused { .. } => (Reason::BmcRefused, None),
                Error::Image(_) => (Reason::Internal, None),
                Error::Failed { .. } | Error::Protocol { .. } | Error::TooLarge { .. } | Error::CrossOrigin(_) | Error::Budget(_) => {
                    (Reason::BmcProtocol, None)
                }
            },
        };
        let mut fault = Self::new(reason, message);
        fault.fields.extend(wrong);
        match retry {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        }
    }
}
