//! What a connection to a BMC consists of.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize},
    time::{Duration, Instant},
};

use ironyard_types::Secret;
use reqwest::Url;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};

use crate::{ConcurrencyLimit, Doc, rate_limiter::RateLimiter};

/// Where a BMC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `https` or `http`.
    pub scheme: String,
    /// Address, resolved and checked by the caller; the only one that is connected to.
    pub address: IpAddr,
    /// Name that a certificate is checked for, when the BMC is known by one.
    pub name: Option<String>,
    /// Port.
    pub port: u16,
}

/// Who logs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret<String>,
    /// The password that a change in progress may have set already; tried once, after the other was refused.
    pub pending: Option<Secret<String>>,
}

/// What one BMC may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connecting, with TLS.
    pub connect: Duration,
    /// A whole read.
    pub read: Duration,
    /// A whole write.
    pub write: Duration,
    /// Bytes of a document, after decompression.
    pub body: usize,
    /// Requests in flight.
    pub concurrency: usize,
    /// First wait before a read is repeated; it doubles.
    pub backoff: Duration,
    /// Requests in a second, on average; 0: no limit.
    pub rate: u32,
    /// Requests at once before the rate holds.
    pub burst: u32,
    /// What all BMCs share.
    pub shared: ConcurrencyLimit,
    /// `User-Agent`, by which the BMC's own log tells who asked.
    pub user_agent: String,
}

impl Default for Limits {
    /// From what BMCs are known to need: slow first bytes, documents up to 7 MB, trouble beyond four requests at once.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(60),
            write: Duration::from_secs(120),
            body: 16 << 20,
            concurrency: 2,
            backoff: Duration::from_secs(1),
            rate: 0,
            burst: 10,
            shared: ConcurrencyLimit::default(),
            user_agent: concat!("ironyard/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// An answer to a write.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// `Location`, resolved.
    pub location: Option<String>,
    /// When to look again, if it said so.
    pub retry_after: Option<Duration>,
    /// Body, Null when there is none.
    pub doc: Doc,
    /// `X-Auth-Token`, when it opened a session.
    pub(crate) token: Option<Secret<String>>,
}

/// The fingerprint of the certificate that was last shown.
pub(crate) type Seen = std::sync::Arc<std::sync::Mutex<Option<String>>>;

/// A connection to one BMC: one session, a few requests at a time.
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) login: Option<Login>,
    pub(crate) limits: Limits,
    pub(crate) permits: Semaphore,
    pub(crate) rate: RateLimiter,
    /// The form of If-Match that this BMC takes: a step of the ladder.
    pub(crate) etag_step: AtomicUsize,
    pub(crate) session: Mutex<Session>,
    /// When the BMC last refused a login.
    pub(crate) refused_at: std::sync::Mutex<Option<Instant>>,
    pub(crate) keeper: Option<SessionKeeper>,
    /// Whether the session is still this client's to use: another process may go on with it.
    pub(crate) holds: Option<Holds>,
    /// The account whose password the BMC wants changed, as it said at the login.
    pub(crate) own_account: std::sync::Mutex<Option<String>>,
    pub(crate) seen: Seen,
    /// Whether its last answer was long in coming.
    pub(crate) slow: AtomicBool,
}

/// How requests show who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Session {
    /// Not at all.
    None,
    /// With the token of a session.
    Token {
        token: ironyard_types::Secret<String>,
        location: Option<String>,
    },
    /// With user name and password on every request: where the BMC has no sessions, or for a while where it has none left.
    Basic(String, ironyard_types::Secret<String>, Option<Instant>),
}

/// A session that outlives the process, so that a restart takes no other one from the BMC.
#[derive(Debug, Clone)]
pub struct SavedSession {
    /// Token.
    pub token: Secret<String>,
    /// Where it is ended.
    pub location: Option<String>,
}

/// Called when a session was opened (to save it) and when it was ended (to forget it).
pub type SessionKeeper = Box<dyn Fn(Option<SavedSession>) + Send + Sync>;

/// Asked before each request that shows a session.
pub type Holds = Box<dyn Fn() -> bool + Send + Sync>;

/// What a request carries.
pub(crate) enum Body<'a> {
    /// Nothing.
    None,
    /// A document.
    Json(&'a Value),
    /// Parts of a form.
    Form(reqwest::multipart::Form),
    /// A file as it is, and its length.
    Raw(reqwest::Body, u64),
}
