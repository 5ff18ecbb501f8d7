//! What is done to a system, in the words of Redfish.

pub mod accounts;
pub mod attributes;
pub mod bios;
pub mod boot;
pub mod certificates;
pub mod drives;
pub mod events;
pub mod family;
pub mod firmware;
pub mod hardware;
pub mod led;
pub mod logs;
pub mod manager;
pub mod media;
mod nics;
mod parts;
mod pci;
pub mod power;
pub mod raw;
pub mod registry;
pub mod secure_boot;
pub mod sensors;
pub mod systems;
pub mod tasks;
pub mod topology;
pub mod volumes;

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{Client, Doc, Error, Reply, Result};

/// How long a change that the BMC goes on with is waited for, so that what is read after it is what came of it.
const SETTLES: Duration = Duration::from_secs(15);

/// Changes a resource. Where the BMC answers that it goes on with the change, its task is followed to its end; one that waits for a restart
/// of the host, or takes longer than that, is left to itself.
pub(crate) async fn change(client: &Client, path: &str, body: &Value) -> Result<Reply> {
    let reply = client.patch(path, body).await?;
    settled(client, reply).await
}

/// Follows what the BMC goes on with.
pub(crate) async fn settled(client: &Client, reply: Reply) -> Result<Reply> {
    if reply.status != 202 {
        return Ok(reply);
    }
    let begun = Instant::now();
    let mut wait = reply.retry_after.unwrap_or(Duration::from_millis(200)).min(Duration::from_secs(3));
    match tasks::begun(&reply) {
        Some(task) => {
            while begun.elapsed() < SETTLES {
                match tasks::poll(client, &task).await {
                    Ok(tasks::State::Running(_)) => sleep(wait).await,
                    Ok(tasks::State::Failed(why)) => {
                        return Err(Error::Refused { status: 202, message: why });
                    }
                    Ok(tasks::State::Completed | tasks::State::Staged | tasks::State::Vanished) => break,
                    // A monitor ends with what the change itself came to.
                    Err(
                        error @ (Error::InvalidValue { .. }
                        | Error::PreconditionFailed
                        | Error::LicenseRequired(_)
                        | Error::Unsupported(_)
                        | Error::Forbidden(_)),
                    ) => return Err(error),
                    // The password that was changed may be the one that the client logs in with.
                    Err(Error::AuthenticationFailed) => break,
                    // It was accepted: that its task cannot be read just now does not undo it.
                    Err(_) => sleep(wait).await,
                }
                wait = (wait * 2).min(Duration::from_secs(3));
            }
        }
        // It names nothing to follow: give it the time that it asked for.
        None => sleep(wait).await,
    }
    Ok(reply)
}

/// How long a change that the BMC has accepted may take to show.
const SHOWS: Duration = Duration::from_secs(5);
/// The same for an image that is inserted: the BMC reaches for it first.
const INSERT_SHOWS: Duration = Duration::from_secs(60);
/// The same for an image that is ejected. Dell goes on showing it, so after that it is believed to be out.
const EJECT_SHOWS: Duration = Duration::from_secs(30);

/// Looks until what the BMC has accepted shows. `differs` reads the BMC and tells what it shows instead; some accept first and do it a moment later.
/// It is given up on by a look that began after that time: a slow BMC has its time all the same.
pub(crate) async fn shows<F>(within: Duration, mut differs: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<Option<String>>>,
{
    let (begun, mut wait) = (Instant::now(), Duration::from_millis(200));
    loop {
        let last = begun.elapsed() >= within;
        match differs().await {
            Ok(None) => return Ok(()),
            Ok(Some(instead)) if last => return Err(Error::NotApplied(instead)),
            // It was accepted: that it cannot be read just now does not undo it, and nobody may ask for it again because of that.
            Err(error) if last && (error.is_transport() || matches!(error, Error::Busy { .. } | Error::Failed { .. })) => {
                return Err(Error::Lost(format!("it was accepted, and cannot be read back: {error}")));
            }
            Err(error) if !(error.is_transport() || matches!(error, Error::Busy { .. } | Error::Failed { .. })) => return Err(error),
            Ok(Some(_)) | Err(_) => sleep(wait).await,
        }
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

/// The document that holds what waits for the next restart, where there is one.
pub(crate) async fn settings_of(client: &Client, doc: &Doc) -> Option<Doc> {
    let link = doc.part("@Redfish.Settings").link("SettingsObject")?;
    client.get(&link).await.ok()
}
