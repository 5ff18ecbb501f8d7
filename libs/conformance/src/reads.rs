//! What can be read.

use ironyard_redfish::{
    Client, Doc, Error,
    ops::{bios, boot, drives, hardware, led, logs, media, power, registry, secure_boot, sensors, volumes},
};
use ironyard_types::Timestamp;

use crate::Report;

pub(crate) async fn reads(client: &Client, report: &mut Report, system: &Doc, now: Timestamp) {
    let id = system.id();
    let name = |what: &str| format!("{id}: {what}");
    report
        .add(&name("hardware"), async {
            let seen = hardware::read(client, system, now).await?;
            let yes = |text: &str| if text.is_empty() { "no" } else { "yes" };
            Ok(format!(
                "uuid {} serial {} cpus {} dimms {} MiB {} drives {} with serial {} nics {} pci {} unreadable {}",
                yes(&seen.system_uuid),
                yes(&seen.serial_number),
                seen.processors.len(),
                seen.memory_modules.len(),
                seen.memory_mib,
                seen.drives.len(),
                seen.drives.iter().filter(|d| !d.serial_number.is_empty()).count(),
                seen.network_interfaces.len(),
                seen.pci_devices.len(),
                seen.unreadable.len(),
            ))
        })
        .await;
    report
        .add(&name("power state"), async {
            let state = power::state(system).map_or("unknown".to_owned(), |s| s.to_string());
            let offered = power::offered(client, system).await?;
            Ok(format!("{state}, {} ways to change it", offered.len()))
        })
        .await;
    report
        .add(&name("boot"), async {
            let options = boot::options(client, system).await;
            let known = options.iter().filter(|o| !o.device.is_empty()).count();
            let with_mac = options.iter().filter(|o| !o.mac.is_empty()).count();
            Ok(format!(
                "{} options, {known} of a known kind, {with_mac} with a MAC address",
                options.len()
            ))
        })
        .await;
    report
        .add(&name("BIOS"), async {
            let read = bios::read(client, system).await?;
            let known = registry::read(client, &read.doc).await?;
            let known = known.map_or("no registry".to_owned(), |r| format!("{} in the registry", r.attributes.len()));
            Ok(format!(
                "{} attributes, {} pending, {known}",
                read.attributes.len(),
                read.pending.len()
            ))
        })
        .await;
    report
        .add(&name("Secure Boot"), async {
            let read = secure_boot::read(client, system).await?;
            Ok(read
                .enabled
                .map_or("unknown".to_owned(), |on| if on { "on" } else { "off" }.to_owned()))
        })
        .await;
    report
        .add(&name("erasable drives"), async {
            let all = drives::read(client, system, true).await;
            let erasable = all.drives.iter().filter(|d| d.secure_erase).count();
            match all.unreadable.first() {
                None => Ok(format!("{erasable} of {}", all.drives.len())),
                Some(why) => Err(Error::Unsupported(format!(
                    "all of its drives: {}",
                    why.chars().take(100).collect::<String>()
                ))),
            }
        })
        .await;
    report
        .add(&name("volumes"), async {
            let (volumes, unreadable) = volumes::list(client, system).await?;
            Ok(format!("{} volumes, {} unreadable", volumes.len(), unreadable.len()))
        })
        .await;
    report
        .add(&name("virtual media"), async {
            let slots = media::count(client, system).await?;
            Ok(format!("{slots} drives that take a CD"))
        })
        .await;
    report
        .add(&name("LED"), async {
            let state = led::state(system).ok_or_else(|| Error::Unsupported("a locator LED".to_owned()))?;
            Ok(if state { "on" } else { "off" }.to_owned())
        })
        .await;
    report
        .add(&name("sensors"), async {
            let read = sensors::read(client, system).await?;
            let with = read.sensors.iter().filter(|s| s.reading.is_some()).count();
            if with == 0 && read.watts.is_none() {
                return Err(Error::Unsupported("sensors with a reading".to_owned()));
            }
            let watts = if read.watts.is_some() { "its power" } else { "no power" };
            Ok(format!(
                "{} sensors, {with} with a reading, {watts}, {} unreadable",
                read.sensors.len(),
                read.unreadable.len()
            ))
        })
        .await;
    report
        .add(&name("logs"), async {
            let all = logs::list(client, system).await?;
            if all.is_empty() {
                return Err(Error::Unsupported("logs".to_owned()));
            }
            let mut entries = 0;
            for log in &all {
                let query = logs::Query {
                    top: logs::MOST,
                    ..logs::Query::default()
                };
                entries += logs::read(client, system, &log.uri, &query).await?.0.len();
            }
            Ok(format!("{} logs, {entries} entries", all.len()))
        })
        .await;
}
