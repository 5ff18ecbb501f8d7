//! Where a BMC is, how it is trusted, and which login is for it.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use ironyard_db::Stored;
use ironyard_redfish::{Client, Login, Target, Trust, Weaknesses};
use ironyard_resource::{get, update};
use ironyard_rpc::{Fault, Reason};

use super::{DeviceError, Devices, Place};
use crate::{
    domain::{
        address,
        bmc::{Bmc, TlsTrust, TlsWeakness},
        console,
    },
    store::credential::{self, StoredCredential},
};

pub(super) fn not_ready(why: String) -> Fault {
    Fault::from(DeviceError::NotReady(why))
}

/// Whether a credential is for BMCs at this address: who points a BMC at a host of their own is not shown its password.
pub(super) fn for_address(credential: &StoredCredential, address: IpAddr) -> Result<(), Fault> {
    let mut networks = credential.networks.split(',').filter(|network| !network.is_empty()).peekable();
    let within = |network: &str| network.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
    if networks.peek().is_none() || networks.any(within) {
        return Ok(());
    }
    let (name, only) = (&credential.name, credential.networks.replace(',', ", "));
    Err(not_ready(format!(
        "credential {name} is for BMCs in {only}, and this one is at {address}"
    )))
}

fn weaknesses(named: &[TlsWeakness]) -> Weaknesses {
    Weaknesses {
        rsa_1024: named.contains(&TlsWeakness::Rsa1024),
        x509_v1: named.contains(&TlsWeakness::X509V1),
    }
}

impl Devices {
    /// Where a BMC is and how its certificate is trusted. A name is resolved anew each time: one that has moved is another device.
    pub(super) async fn target(&self, bmc: &Stored<Bmc>) -> Result<(Target, Trust), Fault> {
        let (spec, observed) = (&bmc.value.spec, &bmc.value.observed);
        if spec.address.is_empty() {
            return Err(not_ready(match (&spec.endpoint, spec.mac) {
                (Some(endpoint), _) => format!("waiting for the address of endpoint {}", endpoint.name),
                (None, Some(mac)) => format!("waiting for an endpoint that has the MAC address {mac}"),
                (None, None) => "it has no address".to_owned(),
            }));
        }
        let with_next = |pin: &String| {
            let next = Some(&observed.next_certificate_sha256).filter(|next| !next.is_empty());
            let weaknesses = match spec.trust {
                Some(TlsTrust::Pin) => weaknesses(&spec.weaknesses),
                Some(TlsTrust::Ca | TlsTrust::FirstUse | TlsTrust::Insecure) | None => Weaknesses::default(),
            };
            Trust::Pin([Some(pin), next].into_iter().flatten().cloned().collect(), weaknesses)
        };
        let trust = match spec.trust.unwrap_or(self.settings.default_trust) {
            TlsTrust::Ca => Trust::Ca(self.settings.authorities.clone()),
            TlsTrust::Pin => with_next(&spec.certificate_sha256),
            TlsTrust::FirstUse if observed.certificate_sha256.is_empty() => Trust::Any,
            TlsTrust::FirstUse => with_next(&observed.certificate_sha256),
            TlsTrust::Insecure if self.settings.allow_insecure => Trust::Any,
            TlsTrust::Insecure => {
                return Err(not_ready(
                    "TLS_TRUST_INSECURE is not allowed by the gateway's configuration".to_owned(),
                ));
            }
        };
        let address = resolve(&spec.address, &self.settings.allowed).await?;
        if spec.scheme == "http" {
            address::check_plaintext(address, &self.settings.plaintext).map_err(|why| Fault::new(Reason::AddressRefused, why))?;
        }
        let target = Target {
            scheme: spec.scheme.clone(),
            address,
            name: spec.address.parse::<IpAddr>().is_err().then(|| spec.address.to_ascii_lowercase()),
            port: spec.port_or_default(),
        };
        Ok((target, trust))
    }

    /// A connection of its own, beside the owner's: nothing of it is kept. A login goes only where its credential is for.
    pub(super) async fn aside(&self, name: &str, login: Option<(&StoredCredential, Login)>) -> Result<Client, DeviceError> {
        let bmc = get::<Bmc>(&self.cx, name).await.map_err(DeviceError::NotAsked)?;
        let (target, trust) = self.target(&bmc).await.map_err(DeviceError::NotAsked)?;
        if let Some((credential, _)) = &login {
            for_address(credential, target.address).map_err(DeviceError::NotAsked)?;
        }
        let login = login.map(|(_, login)| login);
        Ok(Client::new(&target, &trust, login, self.settings.limits.clone())?)
    }

    /// Whether a BMC takes a login of a credential, tried once.
    pub async fn try_login(&self, name: &str, credential: &StoredCredential, login: Login) -> Result<(), DeviceError> {
        Ok(self.aside(name, Some((credential, login))).await?.try_login().await?)
    }

    /// The login of a credential, for this BMC: what is in it is shown to no BMC elsewhere, whichever way.
    pub async fn open_for(&self, name: &str, credential: &StoredCredential) -> Result<Login, Fault> {
        let bmc = get::<Bmc>(&self.cx, name).await?;
        let (target, _) = self.target(&bmc).await?;
        for_address(credential, target.address)?;
        self.open_credential(credential)
    }

    /// Where the console of a BMC is, and how it is opened.
    pub async fn console(&self, name: &str) -> Result<Place, Fault> {
        let bmc = get::<Bmc>(&self.cx, name).await?;
        let (spec, observed) = (&bmc.value.spec, &bmc.value.observed);
        let unsupported = |why: String| Fault::new(Reason::BmcUnsupported, format!("the BMC does not offer {why}"));
        let mut entry = console::entry(&spec.console_protocol, &observed.family).map_err(unsupported)?;
        if spec.console_port != 0 {
            entry.port = spec.console_port;
        }
        let row = credential::get(&self.cx.db, &spec.credential)
            .await
            .map_err(|e| Fault::internal(&e))?;
        let row = row.ok_or_else(|| not_ready("it has no credential".to_owned()))?;
        let host_key = [&spec.console_host_key, &observed.console_host_key]
            .into_iter()
            .find(|k| !k.is_empty());
        let address = resolve(&spec.address, &self.settings.allowed).await?;
        for_address(&row, address)?;
        Ok(Place {
            address,
            entry,
            login: self.open_credential(&row)?,
            host_key: host_key.cloned().unwrap_or_default(),
        })
    }

    /// Pins the host key that a console showed first.
    pub async fn pin_console(&self, name: &str, key: &str) -> Result<(), Fault> {
        let pin = |bmc: &mut Bmc| {
            key.clone_into(&mut bmc.observed.console_host_key);
            Ok(())
        };
        update::<Bmc>(&self.cx, &ironyard_operation::Request::default(), name, "", pin)
            .await
            .map(|_| ())
    }
}

/// When a name that did not resolve is looked up again.
const AGAIN: Duration = Duration::from_secs(5);

/// Resolves once and checks what was found; the checked address is the one that is used.
pub(crate) async fn resolve(host: &str, allowed: &[IpNet]) -> Result<IpAddr, Fault> {
    let refused = |why: String| Fault::new(Reason::AddressRefused, why);
    let found = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            // It may resolve in a moment: a name server that is away ends nothing.
            let unknown = || Fault::new(Reason::BmcUnreachable, format!("{host:?} does not resolve to an address")).retry_after(AGAIN);
            let mut found = tokio::net::lookup_host((host, 0)).await.map_err(|_| unknown())?;
            found.next().map(|a| a.ip()).ok_or_else(unknown)?
        }
    };
    address::check(found, allowed).map_err(refused)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_may_do_so_later_and_a_forbidden_address_never() {
        let unknown = resolve("nobody.invalid", &[]).await.unwrap_err();
        assert_eq!((unknown.reason, unknown.retry), (Reason::BmcUnreachable, Some(AGAIN)));
        assert_eq!(resolve("localhost", &[]).await.unwrap_err().reason, Reason::AddressRefused);
        assert_eq!(resolve("169.254.1.1", &[]).await.unwrap_err().reason, Reason::AddressRefused);
    }
}
