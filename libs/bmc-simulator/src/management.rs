//! The BMC's own state: accounts, firmware, volumes, logs, subscriptions, its clock and its certificate.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::broadcast, time::Instant};
use tokio_rustls::TlsAcceptor;

use crate::MachineConfig;

pub(crate) struct Account {
    pub id: u64,
    pub username: String,
    pub password: String,
    pub role: String,
    pub enabled: bool,
}

pub(crate) struct Volume {
    pub id: u64,
    pub name: String,
    pub raid: String,
    pub drives: Vec<String>,
    pub bytes: u64,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub id: u64,
    pub at: i64,
    pub severity: &'static str,
    pub message: String,
}

pub(crate) struct Subscription {
    pub id: u64,
    pub destination: String,
    pub context: String,
}

/// Which certificate a BMC shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    /// A new one.
    Fresh,
    /// One whose time is over.
    Expired,
}

/// A certificate of one BMC's own.
pub(crate) struct Certificate {
    pub pem: String,
    pub sha256: String,
    pub acceptor: TlsAcceptor,
}

impl Certificate {
    pub(crate) fn make(kind: CertificateKind) -> io::Result<Self> {
        Self::make_for(kind, &[])
    }

    /// For these addresses too, so that strict clients can be told to trust it.
    pub(crate) fn make_for(kind: CertificateKind, addresses: &[std::net::IpAddr]) -> io::Result<Self> {
        let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let names = addresses.iter().take(16).map(ToString::to_string);
        let names: Vec<String> = std::iter::once("simulated-bmc".to_owned()).chain(names).collect();
        let mut parameters = rcgen::CertificateParams::new(names).map_err(|e| other(&e))?;
        if kind == CertificateKind::Expired {
            parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = rcgen::KeyPair::generate().map_err(|e| other(&e))?;
        let made = parameters.self_signed(&key).map_err(|e| other(&e))?;
        Self::of(vec![made.der().clone()], key.serialize_der(), made.pem())
    }

    /// From a chain and its key.
    pub(crate) fn of(chain: Vec<rustls::pki_types::CertificateDer<'static>>, key: Vec<u8>, pem: String) -> io::Result<Self> {
        let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let sha256 = chain.first().map(|c| ironyard_types::sha256_hex(c)).unwrap_or_default();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| other(&e))?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))
            .map_err(|e| other(&e))?;
        Ok(Self {
            pem,
            sha256,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}

pub(crate) struct Management {
    pub accounts: Vec<Account>,
    pub password_change_required: bool,
    pub gone: bool,
    /// Wrong passwords in a row.
    pub wrong_passwords: u32,
    pub firmware: BTreeMap<String, String>,
    /// Versions that the next start of the host brings.
    pub staged: BTreeMap<String, String>,
    pub busy: bool,
    /// Whether a job will apply the pending BIOS.
    pub bios_job: bool,
    pub volumes: Vec<Volume>,
    pub entries: Vec<Entry>,
    pub next_entry: u64,
    pub subscriptions: Vec<Subscription>,
    pub events: Option<broadcast::Sender<Value>>,
    pub ntp: Vec<String>,
    /// Seconds since 1970, when it was last set; it does not go.
    pub clock: i64,
    pub resets: u64,
    pub last_reset: i64,
    /// It answers nobody before that.
    pub down_until: Option<Instant>,
    pub certificate: Option<Certificate>,
    /// The key of a request to sign that is open.
    pub csr_key: Option<rcgen::KeyPair>,
}

#[expect(clippy::disallowed_methods, reason = "a simulated BMC has a clock of its own")]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

/// RFC 3339, seconds.
pub(crate) fn time_text(seconds: i64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Management {
    pub(crate) fn new(config: &MachineConfig) -> Self {
        let account = |id, username: &str, password: &str, role: &str| Account {
            id,
            username: username.to_owned(),
            password: password.to_owned(),
            role: role.to_owned(),
            enabled: !username.is_empty(),
        };
        let accounts = if config.profile.account_slots {
            let own = [
                account(1, "", "", "None"),
                account(2, &config.username, &config.password, "Administrator"),
            ];
            own.into_iter().chain((3..=16).map(|n| account(n, "", "", "None"))).collect()
        } else {
            vec![account(1, &config.username, &config.password, "Administrator")]
        };
        let mut made = Self {
            accounts,
            password_change_required: false,
            gone: false,
            wrong_passwords: 0,
            firmware: BTreeMap::from([
                ("BMC".to_owned(), config.profile.firmware.to_owned()),
                ("BIOS".to_owned(), config.bios_version.clone()),
                ("NIC1".to_owned(), "22.31.6".to_owned()),
            ]),
            staged: BTreeMap::new(),
            busy: false,
            bios_job: false,
            volumes: vec![],
            entries: vec![],
            next_entry: 1,
            subscriptions: vec![],
            events: None,
            ntp: vec![],
            clock: now(),
            resets: 0,
            last_reset: now(),
            down_until: None,
            certificate: None,
            csr_key: None,
        };
        made.log("The BMC was started.", "OK");
        made
    }

    /// Whether a user name and a password are those of an account. Five wrong ones in a row lock everyone out for good: no client of ours
    /// may ever come there.
    pub(crate) fn knows(&mut self, username: &str, password: &str) -> bool {
        let of = |a: &Account| a.enabled && a.username == username && a.password == password;
        let known = !username.is_empty() && !self.locked_out() && self.accounts.iter().any(of);
        self.wrong_passwords = if known { 0 } else { self.wrong_passwords + 1 };
        known
    }

    pub(crate) fn locked_out(&self) -> bool {
        self.wrong_passwords >= 5
    }

    /// Writes an entry, forgets the oldest, and tells who listens.
    pub(crate) fn log(&mut self, message: &str, severity: &'static str) {
        let id = self.next_entry;
        self.next_entry += 1;
        self.entries.push(Entry {
            id,
            at: now(),
            severity,
            message: message.to_owned(),
        });
        if self.entries.len() > 64 {
            self.entries.remove(0);
        }
        if self.events.is_none() && self.subscriptions.is_empty() {
            return;
        }
        let event = serde_json::json!({
                "@odata.type": "#Event.v1_9_0.Event", "Id": id.to_string(), "Name": "Event",
                "Events": [{
                    "EventType": "StatusChange", "MemberId": "0", "EventId": id.to_string(), "Severity": severity, "Message": message,
                    "MessageId": "ResourceEvent.1.3.ResourceChanged", "EventTimestamp": time_text(now()),
                    "OriginOfCondition": {"@odata.id": "/redfish/v1/Systems/1"},
                }],
        });
        if let Some(events) = &self.events {
            let _ = events.send(event.clone());
        }
        for subscription in &self.subscriptions {
            let mut event = event.clone();
            event["Context"] = subscription.context.clone().into();
            crate::webhook::post(&subscription.destination, &event);
        }
    }
}
