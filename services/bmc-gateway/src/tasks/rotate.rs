use std::time::Duration;

use ironyard_db::Stored;
use ironyard_operation::Operation;
use ironyard_redfish::{Error, ops::accounts};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::random_password;
use serde::{Deserialize, Serialize};

use super::steps::{Operations, Step, Target, transient};
use crate::{
    device::DeviceError,
    domain::rotation::{Next, Progress, plan},
    store::credential,
};

/// Verb of these operations.
pub const VERB: &str = "RotateCredential";

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Which BMC.
    pub target: Target,
    /// Its credential.
    pub credential: String,
}

/// Time between two logins with a password that was refused: no BMC locks an account for that.
const PATIENT: Duration = Duration::from_secs(60);
/// Tries with the new password, a minute between them, after the BMC accepted it.
const VERIFIES: u32 = 3;
/// Tries to set it without an answer.
const SETS: u32 = 3;

impl Operations {
    pub(crate) async fn rotate(&self, row: &mut Stored<Operation>) -> Result<Step, Fault> {
        let asked: Asked = serde_json::from_value(row.value.request.clone()).map_err(|e| Fault::internal(&e))?;
        let mut progress: Progress = serde_json::from_value(row.value.progress.clone()).unwrap_or_default();
        let name = asked.credential.clone();
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let gone = || Fault::new(Reason::CredentialNotFound, format!("credential {name} was deleted"));
        let bmc = asked.target.bmc.as_str();
        let soon = |phase: &str| Ok(Step::Wait(Duration::from_millis(10), phase.to_owned()));
        // Whoever lets the BMC name another one meanwhile, or points it elsewhere, is shown neither password.
        let now = ironyard_resource::get::<crate::domain::bmc::Bmc>(&self.cx, bmc)
            .await?
            .value
            .spec
            .credential;
        if now != name {
            let why = format!("BMC {bmc} names another credential than {name} since the rotation began; give it back, and rotate again");
            return Err(Fault::new(Reason::BmcNotReady, why));
        }
        match plan(&progress) {
            Next::Store => {
                let stored = credential::get(&self.cx.db, &name).await.map_err(store)?.ok_or_else(gone)?;
                // One that an earlier rotation left: the BMC may have it already.
                progress.intent = stored.pending.is_some();
                if stored.pending.is_none() {
                    let login = self.devices.open_credential(&stored)?;
                    let sealed = self.devices.seal(&name, &login.username, &random_password())?;
                    if !credential::put_pending(&self.cx.db, &name, stored.version, &sealed)
                        .await
                        .map_err(store)?
                    {
                        return soon("Storing the new password");
                    }
                }
                (progress.credential, progress.stored) = (name, true);
                self.remember(row, &progress).await?;
                soon("Stored the new password")
            }
            Next::Set => {
                let stored = credential::get(&self.cx.db, &name).await.map_err(store)?.ok_or_else(gone)?;
                let Some(pending) = stored.pending.as_ref() else {
                    return Err(replaced(&name));
                };
                self.devices.open_for(bmc, &stored).await?;
                let login = self.devices.open_sealed(&name, pending)?;
                let device = self.devices.get(bmc).await?;
                device.may_write().await?;
                progress.intent = true;
                self.remember(row, &progress).await?;
                let (username, password) = (login.username, login.password);
                let set = device
                    .write(|client| async move { accounts::set_password(&client, &username, &password).await })
                    .await;
                progress.sets += 1;
                match set {
                    Ok(()) => progress.set = true,
                    // It was not sent.
                    Err(error @ (DeviceError::NotOwner(_) | DeviceError::Redfish(Error::NotPermitted))) => {
                        progress.intent = false;
                        self.remember(row, &progress).await?;
                        return Err(error.into());
                    }
                    // Whatever it says, it may have taken it: the logins tell.
                    Err(error) => {
                        let fault = Fault::from(error);
                        progress.refused = (!transient(fault.reason)).then(|| (fault.reason.as_str().to_owned(), fault.message.clone()));
                        self.remember(row, &progress).await?;
                        let wait = fault.retry.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(10));
                        return Ok(Step::Wait(wait, format!("Finding out: {}", fault.message)));
                    }
                }
                self.remember(row, &progress).await?;
                soon("Set the new password")
            }
            Next::Find | Next::Verify => {
                let stored = credential::get(&self.cx.db, &name).await.map_err(store)?.ok_or_else(gone)?;
                let Some(pending) = stored.pending.as_ref() else {
                    return Err(replaced(&name));
                };
                // Each by itself: a login that falls back to the other one would prove nothing.
                let (new, old) = (
                    self.devices.open_sealed(&name, pending)?,
                    self.devices.open_sealed(&name, &stored.sealed)?,
                );
                match self.devices.try_login(bmc, &stored, new).await {
                    Ok(()) => {
                        (progress.set, progress.verified) = (true, true);
                        self.remember(row, &progress).await?;
                        return soon("Logged in with the new password");
                    }
                    Err(DeviceError::Redfish(Error::AuthenticationFailed)) => {}
                    Err(error) => return Err(error.into()),
                }
                if progress.set && progress.verifies < VERIFIES {
                    // Some take a while until a new password is good.
                    progress.verifies += 1;
                    self.remember(row, &progress).await?;
                    return Ok(Step::Wait(PATIENT, "The BMC does not take the new password yet".to_owned()));
                }
                match self.devices.try_login(bmc, &stored, old).await {
                    Ok(()) if progress.set || progress.refused.is_some() || progress.sets >= SETS => {
                        credential::drop_pending(&self.cx.db, &name, stored.version).await.map_err(store)?;
                        let (reason, why) = progress.refused.clone().unwrap_or_default();
                        let why = if why.is_empty() {
                            "it does not take a new password".to_owned()
                        } else {
                            why
                        };
                        let reason = Reason::ALL
                            .iter()
                            .copied()
                            .find(|r| r.as_str() == reason)
                            .unwrap_or(Reason::BmcRefused);
                        Err(Fault::new(reason, format!("the password of credential {name} is as it was: {why}")))
                    }
                    // It was not set: set it.
                    Ok(()) => {
                        progress.intent = false;
                        self.remember(row, &progress).await?;
                        soon("The old password is still good")
                    }
                    // Both are kept; nobody tries either again before somebody says which one is good.
                    Err(DeviceError::Redfish(Error::AuthenticationFailed)) => Err(Fault::new(
                        Reason::BmcAuthenticationFailed,
                        format!("the BMC takes neither the old nor the new password of credential {name}; both are kept"),
                    )),
                    Err(error) => Err(error.into()),
                }
            }
            Next::Promote => {
                let now = self.cx.now();
                let stored = credential::get(&self.cx.db, &name).await.map_err(store)?.ok_or_else(gone)?;
                // False after a crash: it was promoted already.
                credential::promote(&self.cx.db, &name, stored.version, now).await.map_err(store)?;
                // Sessions that were opened with the old one may live on: end them.
                self.devices.forget(bmc);
                Ok(Step::Done(vec![("credential", name)]))
            }
        }
    }
}

fn replaced(name: &str) -> Fault {
    Fault::new(
        Reason::OperationCancelled,
        format!("credential {name} was set by somebody in the middle of its rotation"),
    )
}
