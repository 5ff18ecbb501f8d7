//! What a BMC can do, tried: each operation is read, and where that is allowed written and put back. For reports, and for tests on every
//! service that there is.

mod reads;
mod writes;

use std::time::Duration;

use ironyard_redfish::{
    Client, Doc, Error, Limits, Login, Result, Target, Trust,
    ops::{accounts, certificates, events, family, firmware, logs, manager, systems, topology},
};
use ironyard_types::{Clock, Secret, SystemClock, Timestamp};
use tokio::time::Instant;

use reads::reads;
use writes::{account, cycle, ntp, writes};

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
    let manager_doc = topology::manager(client, &root, None).await.ok();
    let family = family::detect(&root, manager_doc.as_ref(), all.first());
    report.add("family", async { Ok(family.as_str().to_owned()) }).await;
    bmc(client, &mut report, scope).await;
    let (servers, _) = topology::split(all);
    for system in &servers {
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
            let m = manager::read(client, None).await?;
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
        pin => Trust::Pin(vec![pin.to_owned()], ironyard_redfish::Weaknesses::default()),
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
