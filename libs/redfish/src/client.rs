use std::{net::IpAddr, time::Duration};

use ironyard_types::Secret;
use reqwest::{Method, StatusCode, Url, header, redirect};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tracing::Instrument;

use crate::{Doc, Error, Result, Trust, error, session::Session, tls, uri};

/// Where a BMC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `https` or `http`.
    pub scheme: String,
    /// Address, resolved and checked by the caller.
    pub address: IpAddr,
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
            backoff: Duration::from_millis(500),
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
    /// Body, Null when there is none.
    pub doc: Doc,
    /// `X-Auth-Token`, when it opened a session.
    pub(crate) token: Option<Secret<String>>,
}

/// A connection to one BMC: one session, a few requests at a time.
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) login: Option<Login>,
    pub(crate) limits: Limits,
    permits: Semaphore,
    pub(crate) session: Mutex<Session>,
    pub(crate) keeper: Option<crate::session::SessionKeeper>,
    seen: tls::Seen,
}

/// Tries of a read.
const TRIES: u32 = 3;

impl Client {
    /// A client that has not connected yet.
    pub fn new(target: &Target, trust: &Trust, login: Option<Login>, limits: Limits) -> Result<Self> {
        let host = match target.address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let base = Url::parse(&format!("{}://{host}:{}/", target.scheme, target.port)).map_err(|e| Error::Protocol {
            at: "the address".to_owned(),
            problem: e.to_string(),
        })?;
        let seen = tls::Seen::default();
        #[expect(clippy::disallowed_methods, reason = "the one place that builds HTTP clients")]
        let builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            // A redirect is the BMC's to give and ours to check: see `send`.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(limits.connect)
            .pool_max_idle_per_host(limits.concurrency)
            .pool_idle_timeout(Duration::from_secs(10))
            .tls_backend_preconfigured(tls::config(trust, seen.clone())?);
        let http = builder.build().map_err(|e| Error::Tls(e.without_url().to_string()))?;
        let permits = Semaphore::new(limits.concurrency);
        Ok(Self {
            http,
            base,
            login,
            limits,
            permits,
            session: Mutex::new(Session::None),
            keeper: None,
            seen,
        })
    }

    /// Lets somebody keep the session beyond the process.
    #[must_use]
    pub fn with_keeper(mut self, keeper: crate::SessionKeeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// The fingerprint of the certificate that the BMC last showed.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.seen.lock().ok().and_then(|seen| seen.clone())
    }

    /// The service root.
    pub async fn root(&self) -> Result<Doc> {
        self.get("/redfish/v1/").await
    }

    /// Reads a document; repeats where that is safe and worth it.
    pub async fn get(&self, path: &str) -> Result<Doc> {
        let mut attempt = 1;
        loop {
            let wait = match self.request(Method::GET, path, None, None).await {
                Ok(reply) => return Ok(reply.doc),
                Err(error) if attempt == TRIES => return Err(error),
                Err(Error::Busy { retry_after, .. }) => retry_after.unwrap_or(self.limits.backoff).min(Duration::from_secs(60)),
                Err(Error::Failed { .. } | Error::Unreachable(_)) => self.limits.backoff * (1 << (attempt - 1)),
                Err(error) => return Err(error),
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Calls an action or creates a resource. Never repeated.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.request(Method::POST, path, Some(body), None).await
    }

    /// Changes a resource. The version is sent as BMCs want it: the ladder goes on only after a refusal of the version.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        let fresh = self.get(path).await.ok().and_then(|doc| doc.etag).filter(|etag| !etag.is_empty());
        let mut ladder: Vec<Option<String>> = Vec::new();
        if let Some(etag) = fresh {
            ladder.push(Some(etag.clone()));
            if let Some(strong) = etag.strip_prefix("W/") {
                ladder.push(Some(strong.to_owned()));
            }
            ladder.push(Some(etag.trim_start_matches("W/").trim_matches('"').to_owned()));
        }
        ladder.extend([None, Some("*".to_owned())]);
        let mut refused = Error::PreconditionFailed;
        for etag in ladder {
            match self.request(Method::PATCH, path, Some(body), etag.as_deref()).await {
                Err(Error::PreconditionFailed) => refused = Error::PreconditionFailed,
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.request(Method::DELETE, path, None, None).await
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>, if_match: Option<&str>) -> Result<Reply> {
        let url = uri::resolve(&self.base, path)?;
        let span = tracing::debug_span!("bmc.request", otel.kind = "client", http.request.method = %method, url.path = url.path(), server.address = self.base.host_str());
        async {
            let _permit = self
                .permits
                .acquire()
                .await
                .map_err(|_| Error::Unreachable("the client is closed".to_owned()))?;
            let write = method != Method::GET;
            let limit = if write { self.limits.write } else { self.limits.read };
            match tokio::time::timeout(limit, self.authenticated(&method, url, body, if_match)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::Timeout { write }),
            }
        }
        .instrument(span)
        .await
    }

    /// Sends with the session; logs in once more when the BMC has forgotten it.
    async fn authenticated(&self, method: &Method, url: Url, body: Option<&Value>, if_match: Option<&str>) -> Result<Reply> {
        // The root is open to all, and the first thing that is read.
        let open = url.path().trim_end_matches('/') == "/redfish/v1";
        let mut auth = if open { Session::None } else { self.login(None).await? };
        let outcome = self.send(method, url.clone(), body, if_match, &auth).await;
        if matches!(outcome, Err(Error::AuthenticationFailed)) && !open && matches!(auth, Session::Token { .. }) {
            auth = self.login(Some(&auth)).await?;
            return self.send(method, url, body, if_match, &auth).await;
        }
        outcome
    }

    pub(crate) async fn send(
        &self,
        method: &Method,
        url: Url,
        body: Option<&Value>,
        if_match: Option<&str>,
        auth: &Session,
    ) -> Result<Reply> {
        let mut url = url;
        for _ in 0..3 {
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .header(header::ACCEPT, "application/json")
                .header("OData-Version", "4.0");
            request = auth.apply(request);
            if let Some(etag) = if_match {
                request = request.header(header::IF_MATCH, etag);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await.map_err(|e| transport(e, method))?;
            let status = response.status();
            if matches!(
                status,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
            ) && *method == Method::GET
                && let Some(to) = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok())
            {
                url = uri::resolve(&self.base, to)?;
                continue;
            }
            return self.read(response, method, url.path()).await;
        }
        Err(Error::Protocol {
            at: url.path().to_owned(),
            problem: "it redirects in a circle".to_owned(),
        })
    }

    async fn read(&self, mut response: reqwest::Response, method: &Method, at: &str) -> Result<Reply> {
        let status = response.status();
        let head = |name: header::HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (etag, location, retry_after) = (head(header::ETAG), head(header::LOCATION), head(header::RETRY_AFTER));
        // A BMC that names itself otherwise than we do has done its work all the same; its link is just not followed.
        let location = location
            .and_then(|to| uri::resolve(&self.base, &to).ok())
            .map(|url| url.path().to_owned());
        let token = response
            .headers()
            .get("x-auth-token")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let cap = if status.is_success() { self.limits.body } else { 256 << 10 };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| transport(e, method))? {
            if bytes.len() + chunk.len() > cap {
                return Err(Error::TooLarge { at: at.to_owned(), cap });
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let parsed: std::result::Result<Value, _> = if text.iter().all(u8::is_ascii_whitespace) {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(text)
        };
        if !status.is_success() {
            let retry_after = retry_after.as_deref().and_then(retry_after_of);
            return Err(Error::from_status(status.as_u16(), at, &parsed.unwrap_or(Value::Null), retry_after));
        }
        let value = match parsed {
            Ok(value) => value,
            Err(problem) if *method == Method::GET => {
                return Err(Error::Protocol {
                    at: at.to_owned(),
                    problem: problem.to_string(),
                });
            }
            // Some BMCs answer actions with HTML or plain text; the status is what counts.
            Err(_) => Value::Null,
        };
        if *method == Method::GET && !value.is_object() {
            return Err(Error::Protocol {
                at: at.to_owned(),
                problem: "it is not a JSON object".to_owned(),
            });
        }
        let etag = etag.or_else(|| value.get("@odata.etag").and_then(Value::as_str).map(str::to_owned));
        let doc = Doc {
            uri: at.to_owned(),
            etag,
            value,
            size: bytes.len(),
        };
        let location = location.or_else(|| (status == StatusCode::CREATED).then(|| doc.text("@odata.id")).flatten());
        let token = token.map(Secret::new);
        Ok(Reply {
            status: status.as_u16(),
            location,
            doc,
            token,
        })
    }
}

/// A transport error without its URL and without anything the BMC said.
fn transport(error: reqwest::Error, method: &Method) -> Error {
    if error.is_timeout() && !error.is_connect() {
        return Error::Timeout {
            write: *method != Method::GET,
        };
    }
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = source {
        text = inner.to_string();
        if let Some(rustls) = inner.downcast_ref::<rustls::Error>() {
            return Error::Tls(error::clean(&rustls.to_string()));
        }
        source = inner.source();
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && let Some(rustls) = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>())
        {
            return Error::Tls(error::clean(&rustls.to_string()));
        }
    }
    Error::Unreachable(error::clean(&text))
}

/// `Retry-After`: seconds or an HTTP date.
fn retry_after_of(text: &str) -> Option<Duration> {
    // A date needs the BMC's clock, which may be years off; half a minute is what it means.
    Some(text.trim().parse().map_or(Duration::from_secs(30), Duration::from_secs))
}
