use std::time::Duration;

use ironyard_db::Stored;
use ironyard_operation::Operation;
use ironyard_redfish::ops::{drives, tasks};
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::operations::{Operations, Step, Target};
use crate::domain::erase::{Next, Progress, plan};

/// Verb of these operations.
pub const VERB: &str = "EraseDrive";

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Which system.
    pub target: Target,
    /// Serial number of the drive.
    pub serial: String,
    /// Sanitization type; empty: the BMC's default.
    pub kind: String,
}

impl Operations {
    pub(crate) async fn erase(&self, row: &mut Stored<Operation>) -> Result<Step, Fault> {
        let asked: Asked = serde_json::from_value(row.value.request.clone()).map_err(|e| Fault::internal(&e))?;
        let mut progress: Progress = serde_json::from_value(row.value.progress.clone()).unwrap_or_default();
        if self.cx.now().since(row.created_at) > self.patience.erase {
            return Err(Fault::new(
                Reason::BmcTimeout,
                format!("drive {} was not erased in time", asked.serial),
            ));
        }
        let device = self.devices.get(&asked.target.bmc).await?;
        let soon = |phase: &str| Step::Wait(Duration::from_millis(20), phase.to_owned());
        match plan(&progress) {
            Next::Locate => {
                let system = device.system(&asked.target.system_id).await?;
                let all = device
                    .read(|client| async move { drives::read_all(&client, &system).await })
                    .await?;
                let all = all.map_err(|why| Fault::new(Reason::DrivesUnreadable, why))?;
                let drive = all.into_iter().find(|d| d.serial_number == asked.serial);
                let drive =
                    drive.ok_or_else(|| Fault::new(Reason::DriveNotFound, format!("no drive has serial number {}", asked.serial)))?;
                let uri = drive.uri.clone();
                progress.target = device
                    .read(|client| async move { drives::erase_target(&client, &uri).await })
                    .await?;
                progress.drive_uri = drive.uri;
                let target = progress.target.clone();
                let before = device.read(|client| async move { tasks::find(&client, &target).await }).await?;
                progress.before = before.map(|task| task.uri);
                self.remember(row, &progress).await?;
                Ok(soon("Found the drive"))
            }
            Next::Ask => {
                progress.intent = true;
                self.remember(row, &progress).await?;
                self.ask(&device, row, &asked, progress).await
            }
            Next::Recover => {
                let target = progress.target.clone();
                let found = device.read(|client| async move { tasks::find(&client, &target).await }).await?;
                match found.map(|task| task.uri).filter(|found| Some(found) != progress.before.as_ref()) {
                    Some(task) => {
                        progress.task = Some(task);
                        self.remember(row, &progress).await?;
                        Ok(soon("Found the task again"))
                    }
                    // The BMC knows nothing of it: the request never arrived.
                    None => self.ask(&device, row, &asked, progress).await,
                }
            }
            Next::Poll => {
                let Some(uri) = progress.task.clone() else {
                    return Ok(soon("Looking for the task"));
                };
                let task = tasks::Handle { uri };
                match device.read(move |client| async move { tasks::poll(&client, &task).await }).await? {
                    tasks::State::Running(percent) => {
                        if row.value.percent != percent {
                            row.value.percent = percent.clamp(0, 99);
                            self.save(row).await?;
                        }
                        let waited = self.cx.now().since(row.created_at);
                        Ok(Step::Wait(
                            (waited / 4).clamp(Duration::from_millis(100), Duration::from_secs(15)),
                            "Erasing".to_owned(),
                        ))
                    }
                    tasks::State::Completed => Ok(done(&asked, "the BMC's task completed")),
                    // Nobody can tell from here; who verifies the drive will.
                    tasks::State::Vanished => Ok(done(&asked, "the BMC's task vanished")),
                    tasks::State::Failed(why) => Err(Fault::new(Reason::TaskFailed, format!("drive {}: {why}", asked.serial))),
                }
            }
            Next::Done => Ok(done(&asked, "the BMC accepted without a task")),
        }
    }

    async fn ask(
        &self,
        device: &crate::device::Device,
        row: &mut Stored<Operation>,
        asked: &Asked,
        mut progress: Progress,
    ) -> Result<Step, Fault> {
        let (uri, kind) = (progress.drive_uri.clone(), asked.kind.clone());
        let begun = device
            .write(|client| async move { drives::secure_erase(&client, &uri, &kind).await })
            .await?;
        progress.task = begun.map(|task| task.uri);
        progress.accepted = progress.task.is_none();
        self.remember(row, &progress).await?;
        Ok(Step::Wait(Duration::from_millis(100), "Erasing".to_owned()))
    }
}

fn done(asked: &Asked, evidence: &str) -> Step {
    Step::Done(vec![
        ("serial_number", asked.serial.clone()),
        ("method", asked.kind.clone()),
        ("evidence", evidence.to_owned()),
    ])
}
