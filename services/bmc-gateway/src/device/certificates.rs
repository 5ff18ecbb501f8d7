//! The certificate that a BMC shows, and the one that takes its place.

use ironyard_resource::{get, update};
use ironyard_rpc::Fault;

use super::{DeviceError, Devices};
use crate::domain::bmc::{Bmc, TlsTrust};

impl Devices {
    /// The fingerprint of the certificate that a BMC shows to a new connection.
    pub async fn shown_certificate(&self, name: &str) -> Result<Option<String>, DeviceError> {
        let client = self.aside(name, None).await?;
        client.root().await?;
        Ok(client.certificate_sha256())
    }

    /// Whether a certificate would be trusted of a BMC, were it shown: one that is not would shut the gateway out.
    pub async fn would_trust(&self, name: &str, chain: &[Vec<u8>]) -> Result<(), Fault> {
        let bmc = get::<Bmc>(&self.cx, name).await?;
        let (target, trust) = self.target(&bmc).await?;
        ironyard_redfish::would_trust(&trust, &target, chain).map_err(|why| {
            let message = format!("would not be trusted of this BMC, whose certificates are trusted by authority: {why}");
            Fault::field("certificate_pem", message)
        })
    }

    /// Makes a second certificate good, for as long as it takes to put it in place of the first.
    pub async fn expect_certificate(&self, name: &str, sha256: &str) -> Result<(), Fault> {
        let expect = |bmc: &mut Bmc| {
            sha256.clone_into(&mut bmc.observed.next_certificate_sha256);
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", expect)
            .await
            .map(|_| ())
    }

    /// Makes the second certificate the only one.
    pub async fn adopt_certificate(&self, name: &str, sha256: &str) -> Result<(), Fault> {
        let default_trust = self.settings.default_trust;
        let adopt = |bmc: &mut Bmc| {
            if bmc.spec.trust.unwrap_or(default_trust) == TlsTrust::Pin {
                sha256.clone_into(&mut bmc.spec.certificate_sha256);
            }
            sha256.clone_into(&mut bmc.observed.certificate_sha256);
            bmc.observed.next_certificate_sha256.clear();
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", adopt)
            .await
            .map(|_| ())
    }
}
