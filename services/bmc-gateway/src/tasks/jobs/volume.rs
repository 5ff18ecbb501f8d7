use std::time::Duration;

use ironyard_redfish::ops::volumes::{self, Volume, Wanted};
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{Asked, Facts, Located, NotAsked, Verdict};
use crate::{device::Device, domain::job::Progress, tasks::steps::Target};

/// Creates a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Create {
    /// Which system.
    pub target: Target,
    /// Controller; empty: the only one.
    pub storage: String,
    /// Name: how the volume is told again.
    pub name: String,
    /// RAID type.
    pub raid_type: String,
    /// Bytes; 0: all.
    pub capacity_bytes: i64,
    /// Serial numbers of its drives.
    pub drives: Vec<String>,
}

/// Deletes a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delete {
    /// Which system.
    pub target: Target,
    /// Controller; empty: whichever has it.
    pub storage: String,
    /// Id.
    pub volume: String,
}

/// All volumes of a system; one that cannot be read may be the one.
async fn all(device: &Device, target: &Target) -> Result<Vec<Volume>, Fault> {
    let system = device.machine(&target.system_id, &target.expected).await?;
    let (volumes, unreadable) = device.read(|client| async move { volumes::list(&client, &system).await }).await?;
    match unreadable.first() {
        None => Ok(volumes),
        Some(why) => Err(Fault::new(Reason::BmcProtocol, format!("not all volumes can be read: {why}"))),
    }
}

/// How often a volume is looked for.
const LOOK: Duration = Duration::from_millis(500);

impl Create {
    fn of<'a>(&self, volumes: &'a [Volume]) -> Option<&'a Volume> {
        let at = |v: &Volume| self.storage.is_empty() || v.storage == self.storage;
        volumes.iter().find(|v| v.name == self.name && at(v))
    }

    fn facts(volume: &Volume) -> Facts {
        vec![("volume_id", volume.id.clone()), ("storage_id", volume.storage.clone())]
    }

    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        if let Some(present) = self.of(&all(device, &self.target).await?) {
            return Ok(Located::Already(Self::facts(present)));
        }
        let system = device.machine(&self.target.system_id, &self.target.expected).await?;
        let storage = self.storage.clone();
        let (_, target) = device
            .read(|client| async move { volumes::collection(&client, &system, &storage).await })
            .await?;
        Ok(Located::At {
            subject: target.clone(),
            target,
            notes: vec![],
        })
    }

    pub(super) async fn ask(&self, device: &Device) -> Result<Asked, NotAsked> {
        let system = device
            .machine(&self.target.system_id, &self.target.expected)
            .await
            .map_err(Fault::from)?;
        let wanted = Wanted {
            storage: self.storage.clone(),
            name: self.name.clone(),
            raid_type: self.raid_type.clone(),
            capacity_bytes: self.capacity_bytes,
            drives: self.drives.clone(),
        };
        let begun = device
            .write(|client| async move { volumes::create(&client, &system, &wanted).await })
            .await?;
        Ok(begun.into())
    }

    pub(super) async fn verify(&self, device: &Device) -> Result<Verdict, Fault> {
        Ok(match self.of(&all(device, &self.target).await?) {
            Some(present) => Verdict::Done(Self::facts(present)),
            None => Verdict::Wait(LOOK),
        })
    }
}

impl Delete {
    fn of<'a>(&self, volumes: &'a [Volume]) -> Vec<&'a Volume> {
        let at = |v: &Volume| self.storage.is_empty() || v.storage == self.storage;
        volumes.iter().filter(|v| v.id == self.volume && at(v)).collect()
    }

    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let volumes = all(device, &self.target).await?;
        match self.of(&volumes).as_slice() {
            [] => Ok(Located::Already(vec![])),
            [one] => Ok(Located::At {
                target: one.uri.clone(),
                subject: one.uri.clone(),
                notes: vec![],
            }),
            _ => Err(Fault::field("storage_id", "several controllers have a volume of this id: name one")),
        }
    }

    pub(super) async fn ask(&self, device: &Device, progress: &Progress) -> Result<Asked, NotAsked> {
        let uri = progress.subject.clone();
        let begun = device.write(|client| async move { volumes::delete(&client, &uri).await }).await?;
        Ok(begun.into())
    }

    pub(super) async fn verify(&self, device: &Device) -> Result<Verdict, Fault> {
        let volumes = all(device, &self.target).await?;
        Ok(if self.of(&volumes).is_empty() {
            Verdict::Done(vec![])
        } else {
            Verdict::Wait(LOOK)
        })
    }
}
