use ironyard_redfish::ops::drives;
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{Asked, Located, NotAsked, Verdict};
use crate::{
    device::Device,
    domain::job::{Evidence, Progress},
    tasks::steps::Target,
};

/// Erases one drive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Erase {
    /// Which system.
    pub target: Target,
    /// Serial number of the drive.
    pub serial: String,
    /// Sanitization type; empty: the BMC's default.
    pub kind: String,
}

impl Erase {
    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let system = device.machine(&self.target.system_id, &self.target.expected).await?;
        let all = device
            .read(|client| async move { Ok(drives::read(&client, &system, true).await) })
            .await?;
        if !all.unreadable.is_empty() {
            return Err(Fault::new(Reason::DrivesUnreadable, all.unreadable.join("; ")));
        }
        let drive = all.drives.into_iter().find(|d| d.serial_number == self.serial);
        let drive = drive.ok_or_else(|| Fault::new(Reason::DriveNotFound, format!("no drive has serial number {}", self.serial)))?;
        let uri = drive.uri.clone();
        let target = device
            .read(|client| async move { drives::erase_target(&client, &uri).await })
            .await?;
        Ok(Located::At {
            target,
            subject: drive.uri,
            notes: vec![],
        })
    }

    pub(super) async fn ask(&self, device: &Device, progress: &Progress) -> Result<Asked, NotAsked> {
        let (target, kind) = (progress.target.clone(), self.kind.clone());
        let begun = device
            .write(|client| async move { drives::secure_erase(&client, &target, &kind).await })
            .await?;
        Ok(begun.into())
    }

    /// Nobody can tell from here; who verifies the drive will.
    pub(super) fn verify(&self, evidence: Evidence) -> Verdict {
        match evidence {
            Evidence::Completed | Evidence::Staged | Evidence::Vanished | Evidence::NoTask | Evidence::AnswerLost => {
                Verdict::Done(vec![("serial_number", self.serial.clone()), ("method", self.kind.clone())])
            }
        }
    }
}
