//! What a BMC can do, tried: each operation is read, and where that is allowed written and put back. For reports, and for tests on every
//! service that there is.

use std::{collections::BTreeMap, time::Duration};

use ironyard_redfish::{
    Client, Doc, Error, Limits, Login, Result, Target, Trust,
    ops::{
        accounts, bios, boot, certificates, drives, events, family, firmware, hardware, led, logs, manager, media, power, registry,
        secure_boot, sensors, systems, volumes,
    },
};
use ironyard_types::{Clock, Secret, SystemClock, Timestamp, hardware::PowerState, random_hex};
use tokio::time::Instant;

/// What may be tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Changes that are put back: boot override, LED, virtual media, NTP, an account of its own.
    pub writes: bool,
    /// The power of the machine: it is switched on and off.
    pub power: bool,
    /// Image for the virtual drive; empty: one that no BMC can fetch, as most do not try before the machine boots.
    pub image: String,
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It works; what was seen.
    Works(String),
    /// The BMC does not offer it.
    Missing(String),
    /// The BMC offers it, and it does not work.
    Fails(String),
}

/// One operation that was tried.
#[derive(Debug, Clone)]
pub struct Check {
    /// Operation, with the system that it was tried on.
    pub name: String,
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// All that was tried.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing that is offered fails.
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(|c| matches!(c.outcome, Outcome::Fails(_)))
    }

    async fn add(&mut self, name: &str, work: impl Future<Output = Result<String>>) {
        let begun = Instant::now();
        let outcome = match work.await {
            Ok(seen) => Outcome::Works(seen),
            Err(Error::Unsupported(what)) => Outcome::Missing(what),
            // A link that leads nowhere.
            Err(Error::NotFound(what)) => Outcome::Missing(what),
            Err(error) => Outcome::Fails(error.to_string()),
        };
        self.checks.push(Check {
            name: name.to_owned(),
            outcome,
            took: begun.elapsed(),
        });
    }
}

/// Tries everything that the scope allows.
pub async fn run(client: &Client, scope: &Scope, now: Timestamp) -> Report {
    let mut report = Report::default();
    let mut root = Doc::default();
    report
        .add("service root", async {
            root = client.root().await?;
            Ok(format!("Redfish {}", root.text_or_empty("RedfishVersion")))
        })
        .await;
    let mut all = vec![];
    report
        .add("systems", async {
            all = systems::list(client).await?;
            Ok(format!("{} systems", all.len()))
        })
        .await;
    let manager_doc = family::manager(client, &root, all.first()).await.ok();
    let family = family::detect(&root, manager_doc.as_ref(), all.first());
    report.add("family", async { Ok(family.as_str().to_owned()) }).await;
    bmc(client, &mut report, scope).await;
    for system in &all {
        let id = system.id();
        reads(client, &mut report, system, now).await;
        if scope.writes {
            writes(client, &mut report, system, &scope.image).await;
        }
        if scope.power {
            report.add(&format!("{id}: power"), cycle(client, system)).await;
        }
    }
    report
}

async fn bmc(client: &Client, report: &mut Report, scope: &Scope) {
    report
        .add("manager", async {
            let m = manager::read(client).await?;
            let clock = if logs::time_of(&m.date_time).is_some() {
                "a clock"
            } else {
                "no clock"
            };
            Ok(format!(
                "firmware {:?}, {clock}, {} NTP servers",
                m.firmware_version,
                m.ntp_servers.len()
            ))
        })
        .await;
    report
        .add("firmware", async {
            let (components, unreadable) = firmware::inventory(client).await?;
            let versions = components.iter().filter(|c| !c.version.is_empty()).count();
            Ok(format!(
                "{} components, {versions} with a version, {} unreadable",
                components.len(),
                unreadable.len()
            ))
        })
        .await;
    report
        .add("firmware updates", async {
            let ways = firmware::ways(client).await?;
            let mut offered = vec![];
            offered.extend(ways.simple.is_some().then_some("SimpleUpdate"));
            offered.extend(ways.multipart.is_some().then_some("multipart push"));
            offered.extend(ways.raw.is_some().then_some("raw push"));
            Ok(offered.join(", "))
        })
        .await;
    report
        .add("accounts", async {
            let all = accounts::list(client).await?;
            let rules = accounts::password_rules(client).await?;
            let bound = |n: Option<u32>| n.map_or("any".to_owned(), |n| n.to_string());
            Ok(format!(
                "{} accounts, passwords of {} to {}",
                all.len(),
                bound(rules.min),
                bound(rules.max)
            ))
        })
        .await;
    report
        .add("events", async {
            let offer = events::offer(client).await?;
            let mut offered = vec![];
            offered.extend(offer.subscriptions.is_some().then_some("subscriptions"));
            offered.extend(offer.sse.is_some().then_some("a stream"));
            Ok(offered.join(", "))
        })
        .await;
    report
        .add("certificate", async {
            let (_, present) = certificates::present(client).await?;
            Ok(format!("{} certificates", present.len()))
        })
        .await;
    if scope.writes {
        report.add("account of its own", account(client)).await;
        report.add("NTP", ntp(client)).await;
    }
}

async fn reads(client: &Client, report: &mut Report, system: &Doc, now: Timestamp) {
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
            let known = registry::read(client, &read.doc.text_or_empty("AttributeRegistry")).await?;
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
            match drives::read_all(client, system).await? {
                Ok(all) => Ok(format!("{} of {}", all.iter().filter(|d| d.secure_erase).count(), all.len())),
                Err(why) => Err(Error::Unsupported(format!(
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

async fn writes(client: &Client, report: &mut Report, system: &Doc, image: &str) {
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
                .find_map(|(name, value)| Some((name.clone(), bios::as_text(value).filter(|_| value.is_string())?)))
                .ok_or_else(|| Error::Unsupported("a BIOS attribute".to_owned()))?;
            let registry = registry::read(client, &read.doc.text_or_empty("AttributeRegistry")).await?;
            match registry::difference(&read, registry.as_ref(), &BTreeMap::from([(name, value)])) {
                Ok(change) if change.is_empty() => Ok("what holds is not written".to_owned()),
                Ok(_) => Err(Error::NotApplied("a difference where there is none".to_owned())),
                // The first one may be read-only.
                Err(Error::InvalidValue { .. }) => Ok("read-only attributes are known".to_owned()),
                Err(error) => Err(error),
            }
        })
        .await;
}

async fn account(client: &Client) -> Result<String> {
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

async fn ntp(client: &Client) -> Result<String> {
    let before = manager::read(client).await?.ntp_servers;
    manager::set_ntp(client, &["192.0.2.1".to_owned()]).await?;
    let shown = manager::read(client).await?.ntp_servers;
    manager::set_ntp(client, &before).await?;
    if shown == ["192.0.2.1"] {
        Ok("set and put back".to_owned())
    } else {
        Err(Error::NotApplied(shown.join(", ")))
    }
}

/// Switches the machine to the other state and back.
async fn cycle(client: &Client, system: &Doc) -> Result<String> {
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

/// Any Redfish service.
#[derive(Debug, Clone)]
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// `https` or `http`.
    pub scheme: String,
    /// Port; 0: the scheme's own.
    pub port: u16,
    /// User name; empty: no login.
    pub username: String,
    /// Password.
    pub password: String,
    /// Fingerprint of its certificate; empty: any is taken.
    pub certificate_sha256: String,
}

/// Tries everything that the scope allows on a service that no gateway knows.
pub async fn by_address(place: &Place, scope: &Scope) -> std::result::Result<Report, String> {
    ironyard_redfish::install_crypto();
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let address = found.ok().and_then(|mut all| all.next());
    let address = address
        .ok_or_else(|| format!("{:?} does not resolve to an address", place.host))?
        .ip();
    let port = match (place.port, place.scheme.as_str()) {
        (0, "http") => 80,
        (0, "https") => 443,
        (port, "http" | "https") => port,
        (_, other) => return Err(format!("{other:?} is not a scheme: use https or http")),
    };
    let target = Target {
        scheme: place.scheme.clone(),
        address,
        name: None,
        port,
    };
    let trust = match place.certificate_sha256.as_str() {
        "" => Trust::Any,
        pin => Trust::Pin(vec![pin.to_owned()]),
    };
    let login = (!place.username.is_empty()).then(|| Login {
        username: place.username.clone(),
        password: Secret::new(place.password.clone()),
        pending: None,
    });
    let client = Client::new(&target, &trust, login, Limits::default()).map_err(|e| e.to_string())?;
    let report = run(&client, scope, SystemClock.now()).await;
    client.logout().await;
    Ok(report)
}
