use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{Action, Fleet, Machine, Write, admin, auth, faults, patch, post, resources};

/// An answer before it is a response.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
    /// Whether a write changed anything.
    pub effect: bool,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self {
            status: 200,
            body,
            headers: vec![],
            effect: false,
        }
    }

    pub(crate) fn done(effect: bool) -> Self {
        Self {
            status: 204,
            body: Value::Null,
            headers: vec![],
            effect,
        }
    }

    pub(crate) fn error(status: u16, id: &str, message: &str) -> Self {
        let info = json!({
            "@odata.type": "#Message.v1_1_2.Message", "MessageId": format!("Base.1.18.{id}"), "Message": message,
            "Severity": "Critical", "MessageSeverity": "Critical", "Resolution": "None.",
        });
        let body = json!({"error": {"code": format!("Base.1.18.{id}"), "message": message, "@Message.ExtendedInfo": [info]}});
        Self {
            status,
            body,
            headers: vec![],
            effect: false,
        }
    }
}

/// A fleet that is being served; it stops when this is dropped.
pub struct Serving {
    /// Port of every BMC and of the admin API.
    pub port: u16,
    stop: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Listens on every loopback address at once (device `lo`, so that nothing else reaches it).
fn listener(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn acceptor() -> io::Result<TlsAcceptor> {
    let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let made = rcgen::generate_simple_self_signed(vec!["simulated-bmc".to_owned()]).map_err(|e| other(&e))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| other(&e))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|e| other(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves a fleet on a port (0: any), over HTTP or over HTTPS with a certificate of its own. The admin API is plain HTTP on HTTP
/// fleets, HTTPS on HTTPS fleets, on 127.0.0.1.
pub fn serve(fleet: Fleet, port: u16, tls: bool) -> io::Result<Serving> {
    let listener = listener(port)?;
    let port = listener.local_addr()?.port();
    let acceptor = if tls { Some(acceptor()?) } else { None };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (fleet, acceptor, stopped) = (fleet.clone(), acceptor.clone(), stopped.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = connection(fleet, acceptor, stream) => {}
                    () = stopped.cancelled() => {}
                }
            });
        }
    });
    Ok(Serving { port, stop })
}

async fn connection(fleet: Fleet, acceptor: Option<TlsAcceptor>, stream: TcpStream) {
    let Ok(local) = stream.local_addr().map(|a| a.ip()) else { return };
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let fleet = fleet.clone();
        async move { respond(&fleet, local, request).await }
    });
    let builder = http1::Builder::new();
    // A client that goes away, or a fault that drops the connection, is no event.
    let _ = match acceptor {
        None => builder.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped")
    }
}

impl std::error::Error for Dropped {}

impl From<Infallible> for Dropped {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn respond(fleet: &Fleet, local: IpAddr, request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let request = Request::from_parts(head, Full::new(body.clone()));
    let path = request.uri().path().to_owned();
    if let Some(tree) = fleet.tree(local) {
        let answer = tree.get(&path).map_or_else(
            || Answer::error(404, "ResourceMissingAtURI", "no such resource"),
            |b| Answer::ok(b.clone()),
        );
        return Ok(render(answer, None));
    }
    let Some(machine) = fleet.at(local) else {
        return Ok(render(admin::answer(fleet, request.method(), &path, &body), None));
    };
    let fault = faults::take(&mut machine.lock().rules, request.method().as_str(), &path);
    match &fault {
        Some(Action::Latency(ms)) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(Action::Hang) => std::future::pending().await,
        Some(Action::Drop) => return Err(Dropped),
        Some(Action::Status(status)) => return Ok(render(Answer::error(*status, "GeneralError", "a simulated fault"), None)),
        Some(Action::Oversize(bytes)) => {
            let body = json!({"Name": "x".repeat(*bytes)});
            return Ok(render(Answer::ok(body), None));
        }
        Some(Action::Truncate | Action::WrongTypes) | None => {}
    }
    let answer = answer(&machine, &request, &path, &body);
    Ok(render(answer, fault))
}

fn answer(machine: &Arc<Machine>, request: &Request<Full<Bytes>>, path: &str, body: &[u8]) -> Answer {
    let open = ["/redfish", "/redfish/v1", "/redfish/v1/odata", "/redfish/v1/$metadata"];
    let login = request.method() == Method::POST && path.trim_end_matches('/') == "/redfish/v1/SessionService/Sessions";
    if !login && !open.contains(&path.trim_end_matches('/')) && !auth::allowed(machine, request) {
        let mut answer = Answer::error(
            401,
            "NoValidSession",
            "There is no valid session established with the implementation.",
        );
        answer.headers.push(("www-authenticate", "Basic realm=\"simulated\"".to_owned()));
        return answer;
    }
    let path = path.trim_end_matches('/');
    match *request.method() {
        Method::GET | Method::HEAD => match resources::get(machine, path) {
            Some(body) => {
                let mut answer = Answer::ok(body);
                answer.headers.push(("etag", etag(machine)));
                answer.headers.push(("allow", methods(path).to_owned()));
                answer
            }
            None => Answer::error(
                404,
                "ResourceMissingAtURI",
                &format!("The resource at the URI '{path}' was not found."),
            ),
        },
        Method::POST | Method::PATCH | Method::DELETE => {
            let parsed: Value = if body.is_empty() {
                json!({})
            } else {
                serde_json::from_slice(body).unwrap_or(Value::Null)
            };
            let answer = write(machine, request, path, &parsed);
            let shown = if login { json!({}) } else { parsed };
            machine.lock().writes.push(Write {
                method: request.method().to_string(),
                path: path.to_owned(),
                body: shown,
                status: answer.status,
                effect: answer.effect,
            });
            answer
        }
        _ => Answer::error(405, "OperationNotAllowed", "The HTTP method is not allowed on this resource."),
    }
}

fn write(machine: &Arc<Machine>, request: &Request<Full<Bytes>>, path: &str, body: &Value) -> Answer {
    if !body.is_object() {
        return Answer::error(400, "MalformedJSON", "The request body is not a JSON object.");
    }
    match *request.method() {
        Method::PATCH => {
            let given = request.headers().get(header::IF_MATCH).and_then(|v| v.to_str().ok());
            if given.is_some_and(|given| given != "*" && given != etag(machine)) {
                return Answer::error(412, "PreconditionFailed", "The ETag does not match.");
            }
            patch::patch(machine, path, body)
        }
        Method::DELETE => post::delete(machine, path),
        _ => post::post(machine, path, body),
    }
}

/// What a resource lets be done to it.
fn methods(path: &str) -> &'static str {
    match path {
        "/redfish/v1/Systems/1" | "/redfish/v1/Systems/1/Bios/Settings" => "GET, HEAD, PATCH",
        "/redfish/v1/SessionService/Sessions" => "GET, HEAD, POST",
        _ if path.starts_with("/redfish/v1/SessionService/Sessions/") => "GET, HEAD, DELETE",
        _ => "GET, HEAD",
    }
}

fn etag(machine: &Machine) -> String {
    format!("W/\"{}\"", machine.lock().version)
}

fn render(answer: Answer, fault: Option<Action>) -> Response<Full<Bytes>> {
    let Answer {
        status,
        mut body,
        headers,
        effect: _,
    } = answer;
    if fault == Some(Action::WrongTypes)
        && let Value::Object(map) = &mut body
    {
        for (key, value) in map.iter_mut().filter(|(key, _)| !key.starts_with('@')) {
            *value = if value.is_string() { json!(7) } else { json!(key) };
        }
    }
    let mut bytes = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
    if fault == Some(Action::Truncate) {
        bytes.truncate(bytes.len() / 2);
    }
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fixed = [
        ("content-type", "application/json; charset=utf-8"),
        ("odata-version", "4.0"),
        ("cache-control", "no-cache"),
    ];
    let all = fixed.into_iter().map(|(k, v)| (k, v.to_owned())).chain(headers);
    for (name, value) in all {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
