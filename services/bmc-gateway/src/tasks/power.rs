use std::time::Duration;

use ironyard_db::Stored;
use ironyard_operation::Operation;
use ironyard_redfish::ops::power;
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{
    probe::note_status,
    steps::{Operations, Step, Target},
};
use crate::{
    device::DeviceError,
    domain::power::{Action, Next, Patience, Progress, Write, plan},
};

/// Verb of these operations.
pub const VERB: &str = "SetPower";

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Which system.
    pub target: Target,
    /// What.
    pub action: Action,
    /// Seconds for a graceful shutdown; 0: the default.
    pub graceful_seconds: u64,
}

impl Operations {
    pub(crate) async fn power(&self, row: &mut Stored<Operation>) -> Result<Step, Fault> {
        let asked: Asked = serde_json::from_value(row.value.request.clone()).map_err(|e| Fault::internal(&e))?;
        let mut progress: Progress = serde_json::from_value(row.value.progress.clone()).unwrap_or_default();
        let graceful = if asked.graceful_seconds == 0 {
            self.patience.graceful
        } else {
            Duration::from_secs(asked.graceful_seconds)
        };
        let patience = Patience {
            graceful,
            settle: self.patience.power,
        };
        let device = self.devices.get(&asked.target.bmc).await?;
        device.may_write().await?;
        loop {
            let system = device.machine(&asked.target.system_id, &asked.target.expected).await?;
            let seen = power::state(&system);
            match plan(asked.action, &progress, seen, self.cx.now(), patience) {
                Next::Done => {
                    // Before the operation ends: who waits for that may read the record next.
                    note_status(&self.cx, &asked.target.bmc, &system).await;
                    let state = seen.map(|s| s.to_string()).unwrap_or_default();
                    return Ok(Step::Done(vec![("power_state", state)]));
                }
                Next::Remember(next) => {
                    progress = next;
                    self.remember(row, &progress).await?;
                }
                Next::Write(write, next) => {
                    let before = std::mem::replace(&mut progress, next);
                    self.remember(row, &progress).await?;
                    let change = match write {
                        Write::On => Some(power::Change::On),
                        Write::Ask => Some(power::Change::GracefulOff),
                        Write::Cut => Some(power::Change::ForceOff),
                        Write::Nmi => Some(power::Change::Nmi),
                        Write::Mains => None,
                    };
                    let outcome = device
                        .write(move |client| async move {
                            match change {
                                Some(change) => power::reset(&client, &system, change).await,
                                None => power::ac_cycle(&client, &system).await,
                            }
                        })
                        .await;
                    let seen_later = !matches!(write, Write::Nmi | Write::Mains);
                    match outcome {
                        Ok(()) => {}
                        // It was not sent: nothing was asked of the machine that it could be late to do.
                        Err(error @ (DeviceError::NotOwner(_) | DeviceError::Redfish(ironyard_redfish::Error::NotPermitted))) => {
                            self.remember(row, &before).await?;
                            return Err(error.into());
                        }
                        // Because it is so already, or on its way, which the next look tells; or because it does something else just now.
                        Err(DeviceError::Redfish(ironyard_redfish::Error::Refused { status, message })) if seen_later => {
                            progress.refused = Some((status, message));
                            self.remember(row, &progress).await?;
                            return Ok(Step::Wait(Duration::from_millis(500), "The BMC refused it".to_owned()));
                        }
                        Err(error @ DeviceError::Redfish(ironyard_redfish::Error::Busy { .. })) => {
                            progress.refused = Some((409, error.to_string()));
                            self.remember(row, &progress).await?;
                            return Err(error.into());
                        }
                        // An operating system that cannot be asked is cut off.
                        Err(DeviceError::Redfish(ironyard_redfish::Error::Unsupported(_))) if write == Write::Ask => {}
                        Err(error) => {
                            let unsent = matches!(error, DeviceError::Unsent(_));
                            let fault = Fault::from(error);
                            let unknown = !unsent && matches!(fault.reason, Reason::BmcAmbiguous | Reason::BmcProtocol);
                            // What shows no effect is decided on anew where it certainly did not get there.
                            if !seen_later && !unknown {
                                self.remember(row, &before).await?;
                            }
                            return Err(fault);
                        }
                    }
                    progress.acted = true;
                    self.remember(row, &progress).await?;
                    return Ok(Step::Wait(Duration::from_millis(100), phase(write).to_owned()));
                }
                Next::Wait => {
                    // The row was written last when this phase began; what it waited for before does not count.
                    if progress.intent.is_none() && self.cx.now().since(row.updated_at) > self.patience.power * 3 {
                        let state = seen.map_or("unknown".to_owned(), |s| s.to_string());
                        let why = format!("the machine does not settle: its power state stays {state}");
                        return Err(Fault::new(Reason::BmcTimeout, why));
                    }
                    let waited = progress.intent.map_or(Duration::ZERO, |(_, at)| self.cx.now().since(at));
                    // Soon at first, then as BMCs like it.
                    let wait = (waited / 2).clamp(Duration::from_millis(100), Duration::from_secs(3));
                    let now = progress
                        .intent
                        .map_or("Waiting for the machine to settle", |(write, _)| phase(write));
                    return Ok(Step::Wait(wait, now.to_owned()));
                }
                Next::Refused(why) => return Err(Fault::new(Reason::BmcRefused, why)),
                Next::GiveUp(why) => return Err(Fault::new(Reason::BmcTimeout, why)),
            }
        }
    }
}

fn phase(write: Write) -> &'static str {
    match write {
        Write::On => "Switching on",
        Write::Ask => "Asking the operating system to shut down",
        Write::Cut => "Cutting the power",
        Write::Nmi => "Interrupting the operating system",
        Write::Mains => "Cutting the mains",
    }
}
