//! The kinds of work, and what each step of one is.

use std::time::Duration;

use ironyard_rpc::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Asked, Create, Csr, Delete, Erase, Firmware, Located, NotAsked, Replace, Restart, Verdict};
use crate::{
    device::Device,
    domain::{
        exclusion::Kind,
        job::{Evidence, Progress},
    },
    tasks::steps::{Operations, Patience, Target},
};

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Job {
    /// Erase a drive.
    Erase(Erase),
    /// Create a volume.
    CreateVolume(Create),
    /// Delete a volume.
    DeleteVolume(Delete),
    /// Install firmware.
    Firmware(Firmware),
    /// Restart the BMC.
    Restart(Restart),
    /// Make a request to sign a certificate.
    Csr(Csr),
    /// Replace the certificate.
    Replace(Replace),
}

impl Job {
    /// The work of an operation; `None` for verbs that are none.
    pub fn of(verb: &str, request: &Value) -> Option<Result<Self, serde_json::Error>> {
        fn read<T: serde::de::DeserializeOwned>(request: &Value, job: fn(T) -> Job) -> Option<Result<Job, serde_json::Error>> {
            Some(serde_json::from_value(request.clone()).map(job))
        }
        match verb {
            "EraseDrive" => read(request, Self::Erase),
            "CreateVolume" => read(request, Self::CreateVolume),
            "DeleteVolume" => read(request, Self::DeleteVolume),
            "UpdateFirmware" => read(request, Self::Firmware),
            "ResetManager" => read(request, Self::Restart),
            "GenerateCsr" => read(request, Self::Csr),
            "ReplaceCertificate" => read(request, Self::Replace),
            _ => None,
        }
    }

    /// Name of the work.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Erase(_) => "EraseDrive",
            Self::CreateVolume(_) => "CreateVolume",
            Self::DeleteVolume(_) => "DeleteVolume",
            Self::Firmware(_) => "UpdateFirmware",
            Self::Restart(_) => "ResetManager",
            Self::Csr(_) => "GenerateCsr",
            Self::Replace(_) => "ReplaceCertificate",
        }
    }

    /// Which BMC, and which of its systems.
    pub fn target(&self) -> &Target {
        match self {
            Self::Erase(job) => &job.target,
            Self::CreateVolume(job) => &job.target,
            Self::DeleteVolume(job) => &job.target,
            Self::Firmware(job) => &job.target,
            Self::Restart(job) => &job.target,
            Self::Csr(job) => &job.target,
            Self::Replace(job) => &job.target,
        }
    }

    /// For people.
    pub fn label(&self) -> String {
        let at = self.target().label();
        match self {
            Self::Erase(job) => format!("{at} drive {}", job.serial),
            Self::CreateVolume(job) => format!("{at} volume {}", job.name),
            Self::DeleteVolume(job) => format!("{at} volume {}", job.volume),
            Self::Firmware(_) | Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => at,
        }
    }

    /// What kind of work it is, for those that come after it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Erase(_) => Kind::Erase,
            Self::CreateVolume(_) | Self::DeleteVolume(_) => Kind::Volume,
            Self::Firmware(_) => Kind::Firmware,
            Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => Kind::Manager,
        }
    }

    pub(super) fn patience(&self, patience: Patience) -> Duration {
        match self {
            Self::Erase(_) => patience.erase,
            Self::CreateVolume(_) | Self::DeleteVolume(_) => patience.volume,
            Self::Firmware(_) => patience.firmware,
            Self::Restart(_) | Self::Csr(_) | Self::Replace(_) => patience.manager,
        }
    }

    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        match self {
            Self::Erase(job) => job.locate(device).await,
            Self::CreateVolume(job) => job.locate(device).await,
            Self::DeleteVolume(job) => job.locate(device).await,
            Self::Firmware(job) => job.locate(device).await,
            Self::Restart(job) => job.locate(device).await,
            Self::Csr(job) => job.locate(device).await,
            Self::Replace(job) => job.locate(device).await,
        }
    }

    pub(super) async fn ask(&self, on: &Operations, device: &Device, progress: &Progress) -> Result<Asked, NotAsked> {
        match self {
            Self::Erase(job) => job.ask(device, progress).await,
            Self::CreateVolume(job) => job.ask(device).await,
            Self::DeleteVolume(job) => job.ask(device, progress).await,
            Self::Firmware(job) => job.ask(device).await,
            Self::Restart(job) => job.ask(device).await,
            Self::Csr(job) => job.ask(device).await,
            Self::Replace(job) => job.ask(on, device).await,
        }
    }

    pub(super) async fn verify(
        &self,
        on: &Operations,
        device: &Device,
        progress: &mut Progress,
        evidence: Evidence,
    ) -> Result<Verdict, Fault> {
        match self {
            Self::Erase(job) => Ok(job.verify(evidence)),
            Self::CreateVolume(job) => job.verify(device).await,
            Self::DeleteVolume(job) => job.verify(device).await,
            Self::Firmware(job) => job.verify(on, device, progress, evidence).await,
            Self::Restart(job) => job.verify(on, device, progress).await,
            Self::Csr(job) => job.verify(device, progress).await,
            Self::Replace(job) => job.verify(on, device).await,
        }
    }

    /// Whether the effect alone tells, without knowing whether the BMC was asked.
    pub(super) fn shows(&self) -> bool {
        match self {
            Self::CreateVolume(_) | Self::DeleteVolume(_) | Self::Replace(_) | Self::Restart(_) => true,
            Self::Firmware(job) => !job.component.is_empty(),
            Self::Erase(_) | Self::Csr(_) => false,
        }
    }
}
