use std::{path::PathBuf, time::Duration};

use ironyard_redfish::ops::firmware::{self, Component, Image};
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{Asked, Located, NotAsked, Verdict};
use crate::{
    device::{Device, DeviceError},
    domain::job::{Evidence, Progress},
    tasks::steps::{Operations, Target},
};

/// Installs firmware.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Firmware {
    /// Which BMC.
    pub target: Target,
    /// The image.
    pub source: Source,
    /// Paths of the components; none: those that the image is for.
    pub targets: Vec<String>,
    /// When.
    pub apply_time: String,
    /// Component whose version tells; empty: all of them.
    pub component: String,
    /// Version that it is to have; empty: another one.
    pub version: String,
}

/// Where the image is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// The BMC fetches it.
    Uri(String),
    /// It was given to us; the file goes when the work is over.
    File {
        /// Where.
        path: PathBuf,
        /// Its name.
        name: String,
        /// Bytes.
        bytes: u64,
    },
}

/// How often versions are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Versions as one text, to tell whether any changed.
fn versions(components: &[Component], only: &str) -> String {
    let of = components.iter().filter(|c| only.is_empty() || c.id == only);
    let mut all: Vec<String> = of.map(|c| format!("{}={}", c.id, c.version)).collect();
    all.sort();
    all.join(";")
}

impl Firmware {
    async fn inventory(device: &Device) -> Result<Vec<Component>, DeviceError> {
        let (components, unreadable) = device.read(|client| async move { firmware::inventory(&client).await }).await?;
        // A part of the versions looks like a change where there is none.
        if let Some(why) = unreadable.into_iter().next() {
            return Err(DeviceError::Redfish(ironyard_redfish::Error::Busy {
                message: format!("not all firmware can be read: {why}"),
                retry_after: None,
            }));
        }
        Ok(components)
    }

    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let components = Self::inventory(device).await.map_err(Fault::from)?;
        if !self.component.is_empty() {
            let known = components.iter().find(|c| c.id == self.component);
            let ids = || components.iter().map(|c| c.id.as_str()).take(50).collect::<Vec<_>>().join(", ");
            let known = known.ok_or_else(|| Fault::field("component_id", format!("the BMC has {}, not {}", ids(), self.component)))?;
            if !self.version.is_empty() && known.version == self.version {
                let facts = vec![("result", "installed".to_owned()), ("version", known.version.clone())];
                return Ok(Located::Already(facts));
            }
        }
        let ways = device.read(|client| async move { firmware::ways(&client).await }).await?;
        let target = match &self.source {
            Source::Uri(_) => ways.simple.map(|(target, _)| target),
            Source::File { .. } => ways.multipart.or(ways.raw),
        };
        let missing = || {
            let way = match &self.source {
                Source::Uri(_) => "fetches no images: push it",
                Source::File { .. } => "takes no pushed images: give a URI",
            };
            Fault::new(Reason::BmcUnsupported, format!("the BMC {way}"))
        };
        Ok(Located::At {
            target: target.ok_or_else(missing)?,
            subject: ways.service,
            notes: vec![("versions", versions(&components, &self.component))],
        })
    }

    pub(super) async fn ask(&self, device: &Device) -> Result<Asked, NotAsked> {
        let (targets, apply) = (self.targets.clone(), self.apply_time.clone());
        let begun = match self.source.clone() {
            Source::Uri(uri) => {
                device
                    .write(|client| async move { firmware::simple_update(&client, &uri, &targets, &apply).await })
                    .await?
            }
            Source::File { path, name, bytes } => {
                if !tokio::fs::try_exists(&path).await.unwrap_or(true) {
                    let why = format!("the image {name} is not here: it was pushed to another gateway, or removed");
                    return Err(Fault::new(Reason::ImageGone, why).into());
                }
                let image = Image { path, name, bytes };
                device
                    .write(|client| async move { firmware::push(&client, &image, &targets, &apply).await })
                    .await?
            }
        };
        Ok(begun.into())
    }

    /// What the versions say. A BMC that installs its own firmware is away for a while; one whose task said that it ended, and which shows
    /// the old version, waits for the host.
    pub(super) async fn verify(
        &self,
        on: &Operations,
        device: &Device,
        progress: &mut Progress,
        evidence: Evidence,
    ) -> Result<Verdict, Fault> {
        let done = |result: &str, now: String| Verdict::Done(vec![("result", result.to_owned()), ("versions", now)]);
        let components = match Self::inventory(device).await {
            Ok(components) => components,
            Err(DeviceError::Open(wait)) => return Ok(Verdict::Wait(wait.min(Duration::from_secs(5)))),
            Err(DeviceError::Redfish(_)) => return Ok(Verdict::Wait(LOOK)),
            Err(error) => return Err(error.into()),
        };
        if !self.component.is_empty() && !components.iter().any(|c| c.id == self.component) {
            return Ok(Verdict::Wait(LOOK));
        }
        let now = versions(&components, &self.component);
        let changed = progress.notes.get("versions") != Some(&now);
        let wanted = self.version.is_empty() || now == format!("{}={}", self.component, self.version);
        if changed && (self.component.is_empty() || wanted) {
            return Ok(done("installed", now));
        }
        if evidence == Evidence::Staged {
            return Ok(done("staged", now));
        }
        let since = progress.evidence.map_or(Duration::ZERO, |(_, at)| on.cx.now().since(at));
        let settled = since > on.patience.firmware_settles;
        match evidence {
            Evidence::Completed if settled => Ok(done("staged", now)),
            Evidence::Vanished | Evidence::NoTask | Evidence::AnswerLost if settled => Ok(Verdict::Failed(Fault::new(
                Reason::TaskFailed,
                format!("{}, and the versions are still {now}", evidence.words()),
            ))),
            Evidence::Completed | Evidence::Staged | Evidence::Vanished | Evidence::NoTask | Evidence::AnswerLost => {
                Ok(Verdict::Wait(LOOK))
            }
        }
    }
}
