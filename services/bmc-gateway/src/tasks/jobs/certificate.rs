use std::time::Duration;

use ironyard_redfish::ops::{certificates, certificates::Subject, manager};
use ironyard_rpc::{Fault, Reason};
use serde::{Deserialize, Serialize};

use super::{Asked, Located, NotAsked, Verdict};
use crate::{
    device::Device,
    domain::job::Progress,
    tasks::steps::{Operations, Target},
};

/// Makes a request to sign a certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Csr {
    /// Which BMC.
    pub target: Target,
    /// Who it is for.
    #[serde(flatten)]
    pub subject: Subject,
}

/// Replaces the certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replace {
    /// Which BMC.
    pub target: Target,
    /// The certificate and its issuers.
    pub pem: String,
    /// Its fingerprint.
    pub sha256: String,
}

impl Csr {
    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let manager = device.read(|client| async move { manager::read(&client, None).await }).await?;
        Ok(Located::At {
            subject: manager.uri.clone(),
            target: manager.uri,
            notes: vec![],
        })
    }

    pub(super) async fn ask(&self, device: &Device) -> Result<Asked, NotAsked> {
        let subject = self.subject.clone();
        let made = device.write(|client| async move { certificates::generate_csr(&client, &subject).await });
        Ok(match made.await? {
            certificates::Csr::Ready(pem) => Asked::Done(vec![("csr", pem)]),
            certificates::Csr::Task(task) => Asked::Task(task),
        })
    }

    /// The request is in what the task ended with.
    pub(super) async fn verify(&self, device: &Device, progress: &Progress) -> Result<Verdict, Fault> {
        let task = progress.task.clone().unwrap_or_default();
        let reply = device.read(|client| async move { client.get_reply(&task).await }).await?;
        Ok(match certificates::csr_of(&reply) {
            Some(pem) => Verdict::Done(vec![("csr", pem)]),
            None => Verdict::Failed(Fault::new(Reason::BmcProtocol, "the BMC's task ended without a request to sign")),
        })
    }
}

impl Replace {
    pub(super) async fn locate(&self, device: &Device) -> Result<Located, Fault> {
        let manager = device.read(|client| async move { manager::read(&client, None).await }).await?;
        if device.certificate_sha256().as_deref() == Some(&self.sha256) {
            return Ok(Located::Already(vec![("certificate_sha256", self.sha256.clone())]));
        }
        Ok(Located::At {
            subject: manager.uri.clone(),
            target: manager.uri,
            notes: vec![],
        })
    }

    pub(super) async fn ask(&self, on: &Operations, _: &Device) -> Result<Asked, NotAsked> {
        // From here on both are good: the BMC may show either.
        on.devices.expect_certificate(&self.target.bmc, &self.sha256).await?;
        let device = on.devices.get(&self.target.bmc).await?;
        let pem = self.pem.clone();
        let begun = device
            .write(|client| async move { certificates::replace(&client, &pem).await })
            .await?;
        Ok(begun.into())
    }

    /// Seen on a connection of its own: those that are open still show the old one.
    pub(super) async fn verify(&self, on: &Operations, _: &Device) -> Result<Verdict, Fault> {
        let shown = on.devices.shown_certificate(&self.target.bmc).await?;
        if shown.as_deref() != Some(&self.sha256) {
            return Ok(Verdict::Wait(Duration::from_millis(500)));
        }
        on.devices.adopt_certificate(&self.target.bmc, &self.sha256).await?;
        Ok(Verdict::Done(vec![("certificate_sha256", self.sha256.clone())]))
    }
}
