//! The client side: a deadline for every call, trace context on every call, a second try where that is safe.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use tonic::{
    body::Body,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity as TlsIdentity},
};
use tower::Service;
use tracing::Instrument;

use crate::{Fault, Reason, access, fence, telemetry};

/// Deadline of a call that sets none itself.
const DEADLINE: Duration = Duration::from_secs(30);
/// Deadline of calls that ask a BMC for a few things one after the other: some take half a minute for each.
const BMC_DEADLINE: Duration = Duration::from_secs(300);
/// Deadline of calls that read a whole machine: that may be hundreds of requests. A BMC that hangs ends them sooner.
const MACHINE_DEADLINE: Duration = Duration::from_secs(1800);
/// Those calls.
const OF_A_MACHINE: &[&str] = &["/GetHardware", "/ListDrives", "/GetSensors", "/ListLogs", "/ReadLog"];
/// Services whose calls reach a BMC.
const OF_A_BMC: &[&str] = &["SystemService", "StorageService", "TelemetryService", "ManagerService"];
/// Tries of a call that is safe to repeat.
const TRIES: u32 = 3;

/// Certificates with which a client shows who it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// File with the authorities that sign our services, PEM.
    pub ca: std::path::PathBuf,
    /// File with our own certificate, PEM; the agent has none, only its token.
    #[serde(default)]
    pub certificate: Option<std::path::PathBuf>,
    /// File with its key, PEM.
    #[serde(default)]
    pub key: Option<std::path::PathBuf>,
    /// The name that the server's certificate must have; absent: the host of its address.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// Why no channel could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URI.
    #[error("{0:?} is not an address: write http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// A file that cannot be read.
    #[error("could not read {0:?}")]
    File(std::path::PathBuf, #[source] std::io::Error),
    /// Certificates that do not fit.
    #[error("could not set up TLS")]
    Tls(#[source] tonic::transport::Error),
}

/// Services in this process, as a function from requests to responses.
pub type Local = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A way to a service: a connection that is made when needed, again when lost; or the service itself, in this process.
#[derive(Clone)]
pub struct Channel {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Wire(tonic::transport::Channel),
    Local(Local),
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner {
            Inner::Wire(channel) => f.debug_tuple("Channel").field(channel).finish(),
            Inner::Local(_) => f.write_str("Channel(local)"),
        }
    }
}

impl Channel {
    /// A channel to this address.
    pub fn new(address: &str, tls: Option<&TlsConfig>) -> Result<Self, Error> {
        let Some(tls) = tls else { return Self::over(address, None) };
        let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(|e| Error::File(path.clone(), e));
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&tls.ca)?));
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            config = config.identity(TlsIdentity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name.clone());
        }
        Self::over(address, Some(config))
    }

    /// A channel to this address that shows no certificate of its own, and trusts these authorities, PEM, and no other. Without any, the
    /// address must be `http`.
    pub fn trusting(address: &str, authority: &str) -> Result<Self, Error> {
        let tls = (!authority.is_empty()).then(|| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)));
        Self::over(address, tls)
    }

    fn over(address: &str, tls: Option<ClientTlsConfig>) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| Error::Address(address.to_owned()))?;
        if endpoint.uri().scheme().is_none() || endpoint.uri().host().is_none() {
            return Err(Error::Address(address.to_owned()));
        }
        let mut endpoint = endpoint
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(Error::Tls)?;
        }
        Ok(Self {
            inner: Inner::Wire(endpoint.connect_lazy()),
        })
    }

    /// A channel to services in this process: no transport, no deadline, no second try.
    pub fn local(services: Local) -> Self {
        Self {
            inner: Inner::Local(services),
        }
    }

    /// Sends what somebody else has asked, once, with their deadline, as a part of their trace.
    pub async fn pass_on(mut self, mut request: Request<Body>) -> Result<Response<Body>, tonic::transport::Error> {
        telemetry::inject(request.headers_mut());
        match &mut self.inner {
            Inner::Wire(inner) => {
                std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
                inner.call(request).await
            }
            Inner::Local(services) => Ok(services(request).await),
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match &mut self.inner {
            Inner::Wire(inner) => inner.poll_ready(cx),
            Inner::Local(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        std::mem::swap(&mut inner, &mut self.inner);
        let row = access::row(request.uri().path());
        let method = row.map_or("_OTHER", |row| row.method);
        let tries = if row.is_some_and(|row| row.idempotent) { TRIES } else { 1 };
        let span = tracing::debug_span!("call", otel.name = method, otel.kind = "client", rpc.method = method);
        Box::pin(async move { send(inner, request, method, tries).await }.instrument(span))
    }
}

async fn send(inner: Inner, request: Request<Body>, method: &str, tries: u32) -> Result<Response<Body>, tonic::transport::Error> {
    let (mut head, body) = request.into_parts();
    telemetry::inject(&mut head.headers);
    fence::inject(&mut head.headers);
    let mut inner = match inner {
        Inner::Wire(inner) => inner,
        Inner::Local(services) => return Ok(services(Request::from_parts(head, body)).await),
    };
    let streams = method.contains("/Watch") || method.contains("ServerReflectionInfo");
    if !head.headers.contains_key("grpc-timeout") && !streams {
        let deadline = if OF_A_MACHINE.iter().any(|call| method.ends_with(call)) {
            MACHINE_DEADLINE
        } else if OF_A_BMC
            .iter()
            .any(|service| method.contains(&format!("ironyard.bmc.v1.{service}/")))
        {
            BMC_DEADLINE
        } else {
            DEADLINE
        };
        head.headers.insert("grpc-timeout", timeout_value(deadline));
    }
    if tries == 1 || streams {
        return in_time(inner.call(Request::from_parts(head, body)).await, method);
    }
    // Requests that may be repeated are single messages: small enough to keep.
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return inner.call(Request::from_parts(head, Body::empty())).await;
    };
    let mut attempt = 1;
    loop {
        let again = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        let outcome = inner.call(again).await;
        let unavailable = match &outcome {
            Ok(response) => response.headers().get("grpc-status") == Some(&HeaderValue::from_static("14")) && !has_details(response),
            // A deadline that passed was the caller's; more of the same would only pile up.
            Err(error) => !caused_by::<tonic::TimeoutExpired>(error),
        };
        if !unavailable || attempt == tries {
            return in_time(outcome, method);
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        attempt += 1;
    }
}

/// The service answers before the deadline passes; where even that did not come, the caller is told the same.
fn in_time(outcome: Result<Response<Body>, tonic::transport::Error>, method: &str) -> Result<Response<Body>, tonic::transport::Error> {
    match outcome {
        Err(error) if caused_by::<tonic::TimeoutExpired>(&error) => {
            let late = Fault::new(Reason::DeadlineExceeded, format!("{method} was not answered in time"));
            Ok(tonic::Status::from(late).into_http())
        }
        outcome => outcome,
    }
}

/// A service that explains why it is unavailable (a BMC that does not answer) has decided; only a bare UNAVAILABLE is worth another try.
fn has_details(response: &Response<Body>) -> bool {
    response.headers().contains_key("grpc-status-details-bin")
}

/// Whether an error, or what caused it, is of a kind.
pub(crate) fn caused_by<E: std::error::Error + 'static>(error: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<E>() {
            return true;
        }
        source = inner.source();
    }
    false
}

fn timeout_value(timeout: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("{}m", timeout.as_millis())).unwrap_or_else(|_| HeaderValue::from_static("30S"))
}
