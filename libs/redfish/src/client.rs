use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{Method, Url, redirect};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tracing::Instrument;

use crate::{
    Doc, Error, Result, Trust,
    connection::{Body, Client, Limits, Login, Reply, Seen, Session, Target},
    rate_limiter::RateLimiter,
    tls, uri,
};

/// Tries of a read.
const TRIES: u32 = 3;

impl Client {
    /// A client that has not connected yet.
    pub fn new(target: &Target, trust: &Trust, login: Option<Login>, limits: Limits) -> Result<Self> {
        let host = match (&target.name, target.address) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(v4)) => v4.to_string(),
            (None, IpAddr::V6(v6)) => format!("[{v6}]"),
        };
        let base = Url::parse(&format!("{}://{host}:{}/", target.scheme, target.port)).map_err(|e| Error::Protocol {
            at: "the address".to_owned(),
            problem: e.to_string(),
        })?;
        let seen = Seen::default();
        #[expect(clippy::disallowed_methods, reason = "the one place that builds HTTP clients")]
        let builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            // A redirect is the BMC's to give and ours to check: see `send`.
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(&limits.user_agent)
            .connect_timeout(limits.connect)
            .pool_max_idle_per_host(limits.concurrency)
            .pool_idle_timeout(Duration::from_secs(10))
            .tls_backend_preconfigured(tls::config(trust, seen.clone())?);
        // The name is not looked up again: what was checked is what is used.
        let builder = match &target.name {
            Some(name) => builder.resolve(name, SocketAddr::new(target.address, target.port)),
            None => builder,
        };
        let http = builder.build().map_err(|e| Error::Tls(e.without_url().to_string()))?;
        let permits = Semaphore::new(limits.concurrency);
        let rate = RateLimiter::new(limits.rate, limits.burst);
        Ok(Self {
            http,
            base,
            login,
            limits,
            permits,
            rate,
            etag_step: AtomicUsize::new(0),
            session: Mutex::new(Session::None),
            refused_at: std::sync::Mutex::default(),
            keeper: None,
            holds: None,
            own_account: std::sync::Mutex::default(),
            seen,
            slow: AtomicBool::new(false),
        })
    }

    /// Lets somebody keep the session beyond the process.
    #[must_use]
    pub fn with_keeper(mut self, keeper: crate::SessionKeeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// Shows its session only while this holds.
    #[must_use]
    pub fn while_holding(mut self, holds: crate::Holds) -> Self {
        self.holds = Some(holds);
        self
    }

    /// The fingerprint of the certificate that the BMC last showed.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.seen.lock().ok().and_then(|seen| seen.clone())
    }

    /// The path of the account that logged in, where the BMC named it because its password must be changed.
    pub async fn password_change_uri(&self) -> Option<String> {
        // The login itself is what tells.
        let _ = self.login(None).await;
        self.own_account.lock().ok().and_then(|uri| uri.clone())
    }

    /// Opens a stream of server-sent events.
    pub async fn open_stream(&self, path: &str) -> Result<reqwest::Response> {
        let url = uri::resolve(&self.base, path)?;
        let auth = self.login(None).await?;
        let request = self.http.get(url).header(reqwest::header::ACCEPT, "text/event-stream");
        let opened = tokio::time::timeout(self.limits.read, auth.apply(request).send()).await;
        let response = opened
            .map_err(|_| Error::Timeout { write: false })?
            .map_err(|e| Error::Unreachable(crate::error::clean(&e.without_url().to_string())))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Error::from_status(response.status().as_u16(), path, &Value::Null, None))
        }
    }

    /// Whether the BMC takes the login, and no other: proved by a session, or by a closed resource that it then shows. What proves nothing is
    /// an error.
    pub async fn try_login(&self) -> Result<()> {
        let Some(login) = &self.login else {
            return Err(Error::AuthenticationFailed);
        };
        self.prove(login).await
    }

    /// Where a link leads to, if it is within this BMC.
    pub fn resolve(&self, link: &str) -> Result<Url> {
        uri::resolve(&self.base, link)
    }

    /// The service root.
    pub async fn root(&self) -> Result<Doc> {
        self.get("/redfish/v1/").await
    }

    /// Reads a document; repeats where that is safe and worth it.
    pub async fn get(&self, path: &str) -> Result<Doc> {
        let reply = self.get_reply(path).await?;
        if reply.doc.value.is_object() {
            Ok(reply.doc)
        } else {
            Err(Error::Protocol {
                at: reply.doc.uri,
                problem: "it is empty".to_owned(),
            })
        }
    }

    /// As `get`, and of the document only these members, by the session that is open: for what is read of thousands all the time. It never
    /// logs in, so whoever waits for it may be interrupted; without a session that is good, `None`.
    pub async fn read_partial(&self, url: &Url, wanted: &[&str]) -> Result<Option<Doc>> {
        let manner = Manner {
            only: Some(wanted),
            logs_in: false,
            ..Manner::within(self.limits.read)
        };
        match self.get_for(url, manner).await {
            Ok(reply) => Ok(Some(reply.doc)),
            Err(Error::AuthenticationFailed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As `get`, with the status: what a monitor answers may have no body.
    pub async fn get_reply(&self, path: &str) -> Result<Reply> {
        self.get_for(&self.resolve(path)?, Manner::within(self.limits.read)).await
    }

    async fn get_for(&self, url: &Url, manner: Manner<'_>) -> Result<Reply> {
        let mut attempt = 1;
        loop {
            let backoff = self.limits.backoff * (1 << (attempt - 1));
            let wait = match self.request_for(Method::GET, url.clone(), Body::None, manner).await {
                Ok(reply) => return Ok(reply),
                Err(error) if attempt == TRIES => return Err(error),
                Err(Error::Busy { retry_after, .. }) => retry_after.unwrap_or(backoff),
                Err(Error::Failed { .. } | Error::Unreachable(_)) => backoff,
                Err(error) => return Err(error),
            };
            // Many readers of one service that came back must not come back as one.
            tokio::time::sleep(wait.mul_f64(1.0 + ironyard_types::random_fraction() / 4.0)).await;
            attempt += 1;
        }
    }

    /// Calls an action or creates a resource. Never repeated.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.request(Method::POST, path, Body::Json(body), None, self.limits.write).await
    }

    /// Sends a form with a file in it. Never repeated; the time grows with the file.
    pub async fn post_form(&self, path: &str, form: reqwest::multipart::Form, bytes: u64) -> Result<Reply> {
        self.request(Method::POST, path, Body::Form(form), None, self.upload_time(bytes))
            .await
    }

    /// Sends a file as it is. Never repeated; the time grows with the file.
    pub async fn post_file(&self, path: &str, file: reqwest::Body, bytes: u64) -> Result<Reply> {
        self.request(Method::POST, path, Body::Raw(file, bytes), None, self.upload_time(bytes))
            .await
    }

    /// The slowest upload that is waited for: 10 KB/s.
    fn upload_time(&self, bytes: u64) -> Duration {
        self.limits.write + Duration::from_secs(bytes / 10_000)
    }

    /// Changes a resource. The version is sent as this BMC wants it: the ladder goes on only after a refusal of the version, and the step
    /// that was taken is where the next change begins.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        let first = self.etag_step.load(Ordering::Relaxed);
        let fresh = self.get(path).await.ok().and_then(|doc| doc.etag);
        for step in (first..ETAG_STEPS).chain(0..first) {
            let Some(etag) = etag_of(step, fresh.as_deref()) else { continue };
            let etag = etag.as_deref();
            match self.request(Method::PATCH, path, Body::Json(body), etag, self.limits.write).await {
                Err(Error::PreconditionFailed) => {}
                outcome => {
                    self.etag_step.store(step, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Err(Error::PreconditionFailed)
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.request(Method::DELETE, path, Body::None, None, self.limits.write).await
    }

    async fn request(&self, method: Method, path: &str, body: Body<'_>, if_match: Option<&str>, limit: Duration) -> Result<Reply> {
        let manner = Manner {
            if_match,
            ..Manner::within(limit)
        };
        self.request_for(method, self.resolve(path)?, body, manner).await
    }

    async fn request_for(&self, method: Method, url: Url, body: Body<'_>, manner: Manner<'_>) -> Result<Reply> {
        let span = tracing::debug_span!("bmc.request", otel.kind = "client", http.request.method = %method, url.path = url.path(), server.address = self.base.host_str());
        async {
            let closed = |_| Error::Unreachable("the client is closed".to_owned());
            let _permit = self.permits.acquire().await.map_err(closed)?;
            self.rate.wait().await;
            self.authenticated(&method, url, body, manner).await
        }
        .instrument(span)
        .await
    }

    /// Sends with the session; logs in once more when the BMC has forgotten it.
    async fn authenticated(&self, method: &Method, url: Url, body: Body<'_>, manner: Manner<'_>) -> Result<Reply> {
        // The root is open to all, and the first thing that is read.
        let open = url.path().trim_end_matches('/') == "/redfish/v1";
        let held = || match &self.holds {
            Some(holds) if !open && !holds() => Err(Error::Busy {
                message: "the BMC, and the session with it, may be another gateway's by now".to_owned(),
                retry_after: Some(Duration::from_secs(1)),
            }),
            Some(_) | None => Ok(()),
        };
        held()?;
        let mut auth = match self.open_session() {
            _ if open || self.login.is_none() => Session::None,
            Some(session) => session,
            // Rare and large: not a part of every request.
            None if manner.logs_in => Box::pin(self.login(None)).await?,
            None => return Err(Error::AuthenticationFailed),
        };
        let mut next = Some(body);
        let (mut fresh, mut renewed) = (!manner.logs_in || open, false);
        loop {
            let Some(body) = next.take() else {
                return Err(Error::Busy {
                    message: "the session ended before the upload".to_owned(),
                    retry_after: None,
                });
            };
            next = match &body {
                Body::None => Some(Body::None),
                Body::Json(json) => Some(Body::Json(json)),
                // What was streamed is gone.
                Body::Form(_) | Body::Raw(..) => None,
            };
            held()?;
            let sent = self.send_for(method, url.clone(), body, manner.if_match, &auth, manner.only);
            let outcome = self.limits.shared.through(&self.slow, manner.limit, sent).await;
            let outcome = outcome.unwrap_or(Err(Error::Timeout {
                write: *method != Method::GET,
            }));
            let refused = matches!(outcome, Err(Error::AuthenticationFailed)) && matches!(auth, Session::Token { .. });
            // The BMC has just taken the credential: it is this resource that it does not show.
            if refused && renewed {
                return Err(Error::Forbidden(format!(
                    "the BMC takes the credential, and not for {}",
                    url.path()
                )));
            }
            if !refused || fresh {
                return outcome;
            }
            auth = Box::pin(self.login(Some(&auth))).await?;
            (fresh, renewed) = (true, true);
        }
    }
}

/// How a request is made.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// How long it may take, without a login that it needs.
    limit: Duration,
    /// The version that is changed.
    if_match: Option<&'a str>,
    /// The members that are kept of what is read; `None`: all.
    only: Option<&'a [&'a str]>,
    /// Whether it may log in.
    logs_in: bool,
}

impl Manner<'_> {
    fn within(limit: Duration) -> Self {
        Self {
            limit,
            if_match: None,
            only: None,
            logs_in: true,
        }
    }
}

/// Steps of the ladder below.
const ETAG_STEPS: usize = 5;

/// If-Match at a step of the ladder: as it was read, strong, unquoted, none at all, any. `None` where the step makes no sense.
fn etag_of(step: usize, fresh: Option<&str>) -> Option<Option<String>> {
    let strong = fresh.map(|etag| etag.trim_start_matches("W/"));
    match step {
        0 => fresh.map(|etag| Some(etag.to_owned())),
        1 => strong.filter(|s| Some(*s) != fresh).map(|s| Some(s.to_owned())),
        2 => strong.filter(|s| s.contains('"')).map(|s| Some(s.trim_matches('"').to_owned())),
        3 => Some(None),
        _ => Some(Some("*".to_owned())),
    }
}
