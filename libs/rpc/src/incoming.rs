use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span, info_span};

use crate::{
    Fault, Identity, Reason, access, deadline,
    fence::{Fences, Heard},
    forward::{ON_BEHALF_OF, PassedOn},
    identity::serving,
    metrics::Call,
    telemetry,
};

/// What stands in front of every method: request id and root span, RED metrics, who calls, whether they may.
#[derive(Debug, Clone)]
pub(crate) struct IncomingLayer {
    /// Callers without a certificate are processes on this machine.
    pub(crate) trust_loopback: bool,
    /// The leases that were heard of.
    pub(crate) fences: Fences,
}

impl<S> Layer<S> for IncomingLayer {
    type Service = Incoming<S>;
    fn layer(&self, inner: S) -> Incoming<S> {
        Incoming {
            inner,
            trust_loopback: self.trust_loopback,
            fences: self.fences.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Incoming<S> {
    inner: S,
    trust_loopback: bool,
    fences: Fences,
}

impl<S> Service<Request<Body>> for Incoming<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let row = access::row(request.uri().path());
        // Unknown names share one label: a caller must not be able to grow our metrics.
        let method = row.map_or("_OTHER", |row| row.method);
        let request_id = request_id(&request);
        let mut caller = if self.trust_loopback {
            Identity::local()
        } else {
            Identity::of(request.extensions())
        };
        // Who is served is the same, whichever replica the call came to.
        let mut name = caller.name.clone();
        let behalf = request.headers_mut().remove(ON_BEHALF_OF);
        let behalf = behalf.filter(|_| access::may_pass_on(row, &caller));
        if let Some(whom) = &behalf {
            let whom: String = String::from_utf8_lossy(whom.as_bytes()).chars().take(128).collect();
            caller.name = format!("{whom} through {}", caller.name);
            name = whom;
            request.extensions_mut().insert(PassedOn);
        }
        let span = info_span!(
            "rpc",
            otel.name = method,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.status_code = tracing::field::Empty,
            request.id = request_id,
            caller = caller.name,
        );
        telemetry::continue_from(&span, request.headers());
        let allowed = behalf.is_some() || access::allowed(row, &caller);
        let heard = if allowed {
            self.fences.check(&name, request.headers()).map_err(Status::from)
        } else {
            Err(refusal(method, &caller))
        };
        request.extensions_mut().insert(caller);
        let mut inner = self.inner.clone();
        std::mem::swap(&mut inner, &mut self.inner);
        let mut call = Call::begin(method);
        let work = async move {
            let response = match heard {
                Err(status) => Ok(status.into_http()),
                Ok(heard) => {
                    let deadline = deadline::of(request.headers());
                    match deadline::keep(deadline, Heard::serving(heard, inner.call(request))).await {
                        Ok(answer) => answer,
                        Err(late) => Ok(Status::from(late).into_http()),
                    }
                }
            };
            let code = response.as_ref().map_or(Code::Unknown, status_of);
            call.end(code as i32);
            Span::current().record("rpc.status_code", tracing::field::debug(code));
            match code {
                Code::Ok => tracing::debug!("answered"),
                Code::Internal | Code::Unknown | Code::DataLoss => tracing::warn!(?code, "answered"),
                _ => tracing::info!(?code, "answered"),
            }
            response
        };
        Box::pin(serving(&name, work.instrument(span)))
    }
}

fn refusal(method: &str, caller: &Identity) -> Status {
    if caller.role == crate::Role::Anonymous {
        Fault::new(Reason::Unauthenticated, format!("{method} needs a client certificate")).into()
    } else {
        Fault::new(Reason::PermissionDenied, format!("{} may not call {method}", caller.name)).into()
    }
}

fn request_id(request: &Request<Body>) -> String {
    let given = request.headers().get("x-request-id").and_then(|v| v.to_str().ok());
    let fits = |id: &&str| id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    given.filter(fits).map_or_else(ironyard_types::random_id, str::to_owned)
}

/// Handlers that fail answer with headers alone; whatever has a body succeeded, or will say so in its trailers.
fn status_of(response: &Response<Body>) -> Code {
    let code = response
        .headers()
        .get("grpc-status")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    code.map_or(Code::Ok, Code::from_i32)
}
