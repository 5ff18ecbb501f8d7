//! What can be changed, and put back.

use std::{collections::BTreeMap, time::Duration};

use ironyard_redfish::{
    Client, Doc, Error, Result,
    ops::{accounts, attributes, bios, boot, led, manager, media, power, registry, systems},
};
use ironyard_types::{Secret, hardware::PowerState, random_hex};
use tokio::time::Instant;

use crate::Report;

pub(crate) async fn writes(client: &Client, report: &mut Report, system: &Doc, image: &str) {
    let id = system.id();
    let image = if image.is_empty() {
        "http://192.0.2.1/conformance.iso"
    } else {
        image
    };
    let name = |what: &str| format!("{id}: {what}");
    report
        .add(&name("boot override"), async {
            let fresh = systems::reread(client, system).await?;
            let (target, enabled) = boot::override_of(&fresh);
            let wanted = boot::Override {
                target: "Pxe".to_owned(),
                ..boot::Override::default()
            };
            boot::set_override(client, &fresh, &wanted).await?;
            let back = boot::Override {
                target: if enabled == "Disabled" { "None".to_owned() } else { target },
                continuous: enabled == "Continuous",
                ..boot::Override::default()
            };
            boot::set_override(client, &systems::reread(client, system).await?, &back).await?;
            Ok("set and put back".to_owned())
        })
        .await;
    report
        .add(&name("LED, switched"), async {
            let before = led::state(system).ok_or_else(|| Error::Unsupported("a locator LED".to_owned()))?;
            led::set(client, system, !before).await?;
            led::set(client, &systems::reread(client, system).await?, before).await?;
            Ok("switched and put back".to_owned())
        })
        .await;
    report
        .add(&name("virtual media, inserted"), async {
            media::insert(client, system, image).await?;
            let shown = media::inserted(client, system).await?;
            media::eject(client, system).await?;
            let after = media::inserted(client, system).await?;
            match (shown == image, after.is_empty()) {
                (true, true) => Ok("inserted and ejected".to_owned()),
                _ => Err(Error::NotApplied(format!("{shown:?}, then {after:?}"))),
            }
        })
        .await;
    report
        .add(&name("BIOS, set"), async {
            let read = bios::read(client, system).await?;
            // What holds already is written nowhere: this tries the check, not the hardware.
            let (name, value) = read
                .attributes
                .iter()
                .find_map(|(name, value)| value.is_string().then(|| (name.clone(), attributes::as_text(value))))
                .ok_or_else(|| Error::Unsupported("a BIOS attribute".to_owned()))?;
            let registry = registry::read(client, &read.doc).await?;
            match registry::difference(&read.attributes, &read.pending, registry.as_ref(), &BTreeMap::from([(name, value)])) {
                Ok(change) if change.is_empty() => Ok("what holds is not written".to_owned()),
                Ok(_) => Err(Error::NotApplied("a difference where there is none".to_owned())),
                // The first one may be read-only.
                Err(Error::InvalidValue { .. }) => Ok("read-only attributes are known".to_owned()),
                Err(error) => Err(error),
            }
        })
        .await;
}

pub(crate) async fn account(client: &Client) -> Result<String> {
    let username = format!("iy{}", random_hex(3));
    let password = Secret::new(ironyard_types::random_password());
    accounts::create(client, &username, &password, "ReadOnly").await?;
    let seen = accounts::find(client, &username).await?.is_some();
    accounts::delete(client, &username).await?;
    let gone = accounts::find(client, &username).await?.is_none();
    match (seen, gone) {
        (true, true) => Ok("created and deleted".to_owned()),
        (false, _) => Err(Error::NotApplied("no account that was created".to_owned())),
        (true, false) => Err(Error::NotApplied("an account that was deleted".to_owned())),
    }
}

pub(crate) async fn ntp(client: &Client) -> Result<String> {
    let before = manager::read(client, None).await?.ntp_servers;
    manager::set_ntp(client, &["192.0.2.1".to_owned()]).await?;
    let shown = manager::read(client, None).await?.ntp_servers;
    manager::set_ntp(client, &before).await?;
    if shown == ["192.0.2.1"] {
        Ok("set and put back".to_owned())
    } else {
        Err(Error::NotApplied(shown.join(", ")))
    }
}

/// Switches the machine to the other state and back.
pub(crate) async fn cycle(client: &Client, system: &Doc) -> Result<String> {
    let first = power::state(&systems::reread(client, system).await?);
    let (there, back) = match first {
        Some(PowerState::On) => (PowerState::Off, PowerState::On),
        _ => (PowerState::On, PowerState::Off),
    };
    for wanted in [there, back] {
        let change = if wanted == PowerState::On {
            power::Change::On
        } else {
            power::Change::ForceOff
        };
        power::reset(client, &systems::reread(client, system).await?, change).await?;
        let begun = Instant::now();
        while power::state(&systems::reread(client, system).await?) != Some(wanted) {
            if begun.elapsed() > Duration::from_secs(120) {
                return Err(Error::NotApplied(format!("another power state than {wanted}")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(format!("switched {there} and {back}"))
}
