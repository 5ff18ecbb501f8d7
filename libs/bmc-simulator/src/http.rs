use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, body::Bytes, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Fleet, Machine, Write, admin, auth, faults,
    management::{Certificate, CertificateKind},
    patch, post,
    profile::Etags,
    resources,
    response::{Answer, Body, Dropped, METADATA, before, compressed, events, full, json_headers, render},
};

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

/// Serves a fleet on a port (0: any), over HTTP or over HTTPS with a certificate of its own. The admin API is plain HTTP on HTTP
/// fleets, HTTPS on HTTPS fleets, on 127.0.0.1.
pub fn serve(fleet: Fleet, port: u16, tls: bool) -> io::Result<Serving> {
    let listener = listener(port)?;
    let port = listener.local_addr()?.port();
    let acceptor = if tls {
        Some(Certificate::make_for(CertificateKind::Fresh, &fleet.addresses())?.acceptor)
    } else {
        None
    };
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
    let machine = fleet.at(local);
    if machine.as_ref().is_some_and(|m| m.lock().bmc.gone) {
        return;
    }
    // A BMC that was given a certificate of its own shows that one.
    let own = machine
        .as_ref()
        .and_then(|m| m.lock().bmc.certificate.as_ref().map(|c| c.acceptor.clone()));
    let shown = machine.as_ref().and_then(|m| m.certificate_sha256());
    let acceptor = acceptor.map(|shared| own.unwrap_or(shared));
    let secure = acceptor.is_some();
    let service = service_fn(move |request| {
        let (fleet, machine, shown) = (fleet.clone(), machine.clone(), shown.clone());
        async move {
            // With another certificate its web server begins anew.
            if secure && machine.is_some_and(|m| m.certificate_sha256() != shown) {
                return Err(Dropped);
            }
            respond(&fleet, local, request).await
        }
    });
    let mut builder = http1::Builder::new();
    // Ten thousand connections at a time.
    builder.max_buf_size(16 << 10);
    // A client that goes away, or a fault that drops the connection, is no event.
    let _ = match acceptor {
        None => builder.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

/// Largest request: images are pushed.
const REQUEST: usize = 64 << 20;

async fn respond(fleet: &Fleet, local: IpAddr, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST)
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
    let profile = machine.config.profile;
    let path = profile.inside(&path);
    let fault = {
        let mut state = machine.lock();
        state.requests += 1;
        if state.bmc.gone || state.bmc.down_until.is_some_and(|until| Instant::now() < until) {
            return Err(Dropped);
        }
        let fault = faults::take(&mut state.rules, request.method().as_str(), &path);
        state.held += u64::from(fault == Some(Action::Hang));
        fault
    };
    if let Some(instead) = before(&fault).await? {
        return Ok(instead);
    }
    if request.method() == Method::GET && path.trim_end_matches('/') == "/redfish/v1/$metadata" {
        let mut response = Response::new(full(METADATA));
        json_headers(&mut response, vec![]);
        let xml = header::HeaderValue::from_static("application/xml;charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, xml);
        return Ok(response);
    }
    if request.method() == Method::GET && path == "/redfish/v1/EventService/SSE" && profile.sse && auth::allowed(&machine, &request) {
        return Ok(events(&machine));
    }
    let gzip = request
        .headers()
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("gzip"));
    let mut answer = answer(&machine, &request, &path, &body);
    match fault {
        Some(Action::HangAfter) => {
            machine.lock().held += 1;
            std::future::pending().await
        }
        Some(Action::LatencyAfter(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Some(Action::DropAfter) => return Err(Dropped),
        _ => {}
    }
    page(&mut answer, &path, request.uri().query(), profile.page);
    profile.show(&mut answer.body);
    for (name, value) in &mut answer.headers {
        if *name == "location"
            && let Some(shown) = profile.shown(value)
        {
            *value = shown;
        }
    }
    if let Some(action) = &fault
        && answer.status < 300
    {
        let whole = request.uri().path_and_query().map_or(path.as_str(), |p| p.as_str());
        faults::spoil(action, whole, &mut answer.body);
    }
    if profile.gzip_registry && path.starts_with("/redfish/v1/Registries/Store/") {
        return Ok(if gzip {
            compressed(&answer.body)
        } else {
            render(Answer::error(406, "NotAcceptable", "Only gzip."), None)
        });
    }
    Ok(render(answer, fault))
}

/// Shows a page of a collection, and where the next one is.
fn page(answer: &mut Answer, path: &str, query: Option<&str>, size: usize) {
    if size == 0 {
        return;
    }
    let Some(members) = answer.body.get_mut("Members").and_then(Value::as_array_mut) else {
        return;
    };
    let skip: usize = query
        .and_then(|q| q.strip_prefix("$skip="))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let total = members.len();
    *members = members.iter().skip(skip).take(size).cloned().collect();
    if skip + size < total {
        answer.body["Members@odata.nextLink"] = json!(format!("{path}?$skip={}", skip + size));
    }
}

fn answer(machine: &Arc<Machine>, request: &Request<Full<Bytes>>, path: &str, body: &[u8]) -> Answer {
    let open = ["/redfish", "/redfish/v1", "/redfish/v1/odata", "/redfish/v1/$metadata"];
    let sessions = path.trim_end_matches('/').trim_end_matches("/Members");
    let login = request.method() == Method::POST && sessions == "/redfish/v1/SessionService/Sessions";
    let unknown = |pair: &str| pair.starts_with('$') && !pair.starts_with("$skip=");
    if request.uri().query().is_some_and(|query| query.split('&').any(unknown)) {
        return Answer::error(501, "QueryNotSupported", "The query is not supported.");
    }
    let version = request.headers().get("odata-version").map(|v| v.to_str().unwrap_or_default());
    if version.is_some_and(|version| version != "4.0") {
        return Answer::error(412, "PreconditionFailed", "OData-Version: 4.0 is what this service speaks.");
    }
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
    let own = path.starts_with("/redfish/v1/AccountService") || path.starts_with("/redfish/v1/SessionService");
    if !own && !open.contains(&path) && machine.lock().bmc.password_change_required {
        return Answer::error(403, "PasswordChangeRequired", "The password must be changed.");
    }
    match *request.method() {
        Method::GET | Method::HEAD => match resources::get(machine, path) {
            Some(body) => {
                let mut answer = Answer::ok(body);
                if machine.config.profile.etags != Etags::None {
                    answer.headers.push(("etag", etag(machine)));
                }
                answer.headers.push(("allow", methods(machine, path).to_owned()));
                answer.headers.push(("link", schema_link(&answer.body)));
                answer
            }
            None => match monitored(machine, path) {
                Some(answer) => answer,
                None => Answer::error(
                    404,
                    "ResourceMissingAtURI",
                    &format!("The resource at the URI '{path}' was not found."),
                ),
            },
        },
        Method::POST | Method::PATCH | Method::DELETE => {
            let pushed = path == "/redfish/v1/UpdateService/upload" || path == "/redfish/v1/UpdateService/update";
            let parsed: Value = if body.is_empty() || pushed {
                json!({})
            } else {
                serde_json::from_slice(body).unwrap_or(Value::Null)
            };
            let answer = if pushed && request.method() == Method::POST {
                post::push(machine, path, body)
            } else {
                write(machine, request, path, &parsed)
            };
            // What is there and takes no such write says so otherwise than what is not there.
            let answer = if matches!(answer.status, 404 | 405) && resources::get(machine, path).is_some() {
                not_allowed(machine, path)
            } else {
                answer
            };
            let shown = if login { json!({}) } else { parsed };
            let mut state = machine.lock();
            // What a long test wrote, and no more.
            if state.writes.len() < 10_000 {
                state.writes.push(Write {
                    method: request.method().to_string(),
                    path: path.to_owned(),
                    body: shown,
                    status: answer.status,
                    effect: answer.effect,
                });
            }
            drop(state);
            answer
        }
        _ => not_allowed(machine, path),
    }
}

fn not_allowed(machine: &Machine, path: &str) -> Answer {
    let mut answer = Answer::error(405, "OperationNotAllowed", "The HTTP method is not allowed on this resource.");
    answer.headers.push(("allow", methods(machine, path).to_owned()));
    answer
}

/// A monitor of a task: 202 while it runs, then what the operation answers, once.
fn monitored(machine: &Machine, path: &str) -> Option<Answer> {
    let id: u64 = path.strip_prefix("/redfish/v1/TaskService/TaskMonitors/")?.parse().ok()?;
    let (state, message) = {
        let state = machine.lock();
        let task = state.tasks.iter().find(|t| t.id == id && !t.vanished)?;
        (task.state, task.message.clone())
    };
    Some(match state {
        "Running" => Answer {
            status: 202,
            ..Answer::done(false)
        },
        "Completed" => Answer::done(false),
        _ => Answer::error(400, "GeneralError", &message),
    })
}

fn write(machine: &Arc<Machine>, request: &Request<Full<Bytes>>, path: &str, body: &Value) -> Answer {
    if !body.is_object() {
        return Answer::error(400, "MalformedJSON", "The request body is not a JSON object.");
    }
    match *request.method() {
        Method::PATCH => {
            let given = request.headers().get(header::IF_MATCH).and_then(|v| v.to_str().ok());
            let own = etag(machine);
            let fine = match (machine.config.profile.etags, given) {
                (Etags::None, _) | (Etags::Checked | Etags::NoStar, None) => true,
                (Etags::Checked, Some(given)) => given == "*" || given == own,
                (Etags::NoStar, Some(given)) => given == own,
                (Etags::StarOnly, given) => given == Some("*"),
            };
            if !fine {
                let status = if given.is_none() { 428 } else { 412 };
                return Answer::error(status, "PreconditionFailed", "The ETag does not match.");
            }
            patch::patch(machine, path, body)
        }
        Method::DELETE => post::delete(machine, path),
        _ => post::post(machine, path, body),
    }
}

/// Where the schema of a body is.
fn schema_link(body: &Value) -> String {
    let kind = body
        .get("@odata.type")
        .and_then(Value::as_str)
        .unwrap_or("#ServiceRoot.ServiceRoot");
    let name = kind.trim_start_matches('#').split('.').next().unwrap_or_default();
    format!("<http://redfish.dmtf.org/schemas/v1/{name}.json>; rel=describedby")
}

/// What a resource lets be done to it.
fn methods(machine: &Machine, path: &str) -> &'static str {
    let rest = path.strip_prefix("/redfish/v1/").unwrap_or_default();
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["Systems", "1"] | ["Systems", "1", "Bios", "Settings"] | ["Systems", "1", "SecureBoot"] => "GET, HEAD, PATCH",
        ["Managers", "BMC"] | ["Managers", "BMC", "NetworkProtocol"] => "GET, HEAD, PATCH",
        ["SessionService", "Sessions"] | ["EventService", "Subscriptions"] => "GET, HEAD, POST",
        ["AccountService", "Accounts"] if !machine.config.profile.account_slots => "GET, HEAD, POST",
        ["AccountService", "Accounts", _] if machine.config.profile.account_slots => "GET, HEAD, PATCH",
        ["AccountService", "Accounts", _] => "GET, HEAD, PATCH, DELETE",
        ["Systems", "1", "Storage", "1", "Volumes"] => "GET, HEAD, POST",
        ["SessionService", "Sessions", _] | ["EventService", "Subscriptions", _] | ["Systems", "1", "Storage", "1", "Volumes", _] => {
            "GET, HEAD, DELETE"
        }
        _ => "GET, HEAD",
    }
}

fn etag(machine: &Machine) -> String {
    format!("W/\"{}\"", machine.lock().version)
}
