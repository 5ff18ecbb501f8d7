use std::time::Duration;

use ironyard_redfish::ops::{manager, power, systems};
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{Asked, Located, NotAsked, Verdict};
use crate::{
    device::{Device, DeviceError},
    domain::job::Progress,
    tasks::steps::{Operations, Target},
};

/// Restarts the BMC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restart {
    /// Which.
    pub target: Target,
    /// Tells this work from the others, which have fields of their own.
    pub restart: bool,
}

/// How often the BMC is looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Restart {
    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let manager = device.read(|client| async move { manager::read(&client, None).await }).await?;
        Ok(Located::At {
            subject: manager.uri.clone(),
            target: manager.uri,
            notes: vec![("last_reset", manager.last_reset)],
        })
    }

    pub(super) async fn ask(&self, device: &Device) -> Result<Asked, NotAsked> {
        device.write(|client| async move { manager::reset(&client).await }).await?;
        Ok(Asked::Accepted)
    }

    /// It was away, or says that it started anew; and it shows its systems again. What it shows before is what it forgets.
    pub(super) async fn verify(&self, on: &Operations, device: &Device, progress: &mut Progress) -> Result<Verdict, Fault> {
        let look = device.read(|client| async move {
            let manager = manager::read(&client, None).await?;
            let systems = systems::list(&client).await?;
            let shown = !systems.is_empty() && systems.iter().all(|s| power::state(s).is_some());
            Ok((manager.last_reset, shown))
        });
        match look.await {
            Ok((last_reset, shown)) => {
                let before = progress.notes.get("last_reset").cloned().unwrap_or_default();
                let away = progress.notes.contains_key("away") || (!last_reset.is_empty() && last_reset != before);
                let waited = progress.asked_at.map_or(Duration::ZERO, |at| on.cx.now().since(at));
                if away && shown {
                    Ok(Verdict::Done(vec![("last_reset_time", last_reset)]))
                } else if !away && waited > on.patience.power {
                    let why = "the BMC accepted the restart, and has not been away since";
                    Ok(Verdict::Failed(Fault::new(Reason::BmcTimeout, why)))
                } else {
                    Ok(Verdict::Wait(LOOK))
                }
            }
            Err(DeviceError::Redfish(error)) if error.is_transport() => {
                progress.notes.insert("away".to_owned(), "yes".to_owned());
                Ok(Verdict::Wait(LOOK))
            }
            Err(DeviceError::Open(wait)) => Ok(Verdict::Wait(wait.min(Duration::from_secs(5)))),
            // It comes back in pieces.
            Err(DeviceError::Redfish(_)) => Ok(Verdict::Wait(LOOK)),
            Err(error) => Err(error.into()),
        }
    }
}
