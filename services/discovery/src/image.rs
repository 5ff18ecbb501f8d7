//! Serves the agent's image to BMCs over HTTP.
//!
//! A BMC shows the address of its medium to whoever may read it, and so do logs: it names the run and opens nothing. What lets the agent
//! speak for its machine is the token in the image's configuration. That is served to the BMC of the machine alone, and only while its
//! agent is awaited.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use ironyard_types::{Invalid, Secret, Timestamp, agent_image::AgentConfiguration};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::agent_run::{AgentRun, Delivery},
    image_file::Image,
    store,
};

/// The agent's image, and how BMCs reach it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The image. Exactly one of this and `simulated` is given.
    pub file: Option<PathBuf>,
    /// An image that holds the configuration and no system, for simulated machines.
    #[serde(default)]
    pub simulated: bool,
    /// Where it is served, over HTTP.
    pub listen: SocketAddr,
    /// How BMCs reach that, as in `http://10.0.0.5:7720`; empty: the address it listens on.
    #[serde(default)]
    pub url: String,
    /// Authorities that sign this service's certificate, PEM: the agent trusts no other.
    pub authority: Option<PathBuf>,
    /// Networks that may fetch the image of any machine, beside the address of the machine's BMC: for BMCs behind NAT.
    #[serde(default)]
    pub sources: Vec<IpNet>,
}

impl Config {
    /// An image for simulated machines.
    pub fn simulated(listen: SocketAddr) -> Self {
        Self {
            file: None,
            simulated: true,
            listen,
            url: String::new(),
            authority: None,
            sources: vec![],
        }
    }
}

/// Why the image cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("the agent's image: {0}")]
pub struct Error(pub(crate) String);

/// Connections at once, and how long one may take to ask.
const CONNECTIONS: usize = 512;
const ASK: Duration = Duration::from_secs(30);
/// For how long the addresses of a BMC are remembered.
const REMEMBER: Duration = Duration::from_secs(30);
/// How often what was fetched is written down, if anything was.
const WRITE_DOWN: Duration = Duration::from_secs(1);

type Body = BoxBody<Bytes, io::Error>;

/// The first and the last byte that a `Range` asks for; `None` for the whole, an error for what cannot be had.
fn range_of(header: Option<&str>, length: u64) -> Result<Option<Range<u64>>, Invalid> {
    // Several ranges at once may be answered with the whole.
    let Some(range) = header.and_then(|h| h.trim().strip_prefix("bytes=")).filter(|r| !r.contains(',')) else {
        return Ok(None);
    };
    let unusable = || Invalid::new("the range lies outside of the image");
    let (first, last) = range.split_once('-').ok_or_else(unusable)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| unusable());
    let range = match (first.trim(), last.trim()) {
        ("", last) => length.saturating_sub(number(last)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    if range.start < range.end {
        Ok(Some(range))
    } else {
        Err(unusable())
    }
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

/// The listener.
pub(crate) struct ImageServer {
    image: Arc<Image>,
    listener: TcpListener,
    authority: String,
    sources: Vec<IpNet>,
    /// Addresses of the BMCs of servers, and when they were looked up.
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    counts: Counts,
}

/// What was fetched since it was last written down, by run.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<String, Delivery>>>);

impl Counts {
    fn add(&self, run: &str, more: &Delivery) {
        if let Ok(mut counts) = self.0.lock() {
            counts.entry(run.to_owned()).or_default().add(more);
        }
    }

    /// Writes them down, for ever.
    async fn keep(self, app: App) {
        loop {
            tokio::time::sleep(WRITE_DOWN).await;
            let counts = self.0.lock().map(|mut counts| std::mem::take(&mut *counts)).unwrap_or_default();
            for (run, more) in counts {
                let kept = app.change_run(&run, |run| {
                    run.delivery.add(&more);
                    Ok(())
                });
                if let Err(error) = kept.await {
                    tracing::debug!(%error, run, "could not write down how an image was fetched");
                }
            }
        }
    }
}

impl ImageServer {
    /// Opens the image and listens. Returns how BMCs reach it, too.
    pub(crate) async fn open(config: &Config, agent_url: &str) -> Result<(Self, String), Error> {
        if agent_url.starts_with("https://") && config.authority.is_none() {
            return Err(Error(
                "give the `authority` that signs discovery's certificate: the agent trusts no other".to_owned(),
            ));
        }
        let image = match (&config.file, config.simulated) {
            (Some(file), false) => Image::open(file)?,
            (None, true) => Image::simulated(),
            (Some(_), true) | (None, false) => return Err(Error("give either `file` or `simulated = true`".to_owned())),
        };
        let authority = match &config.authority {
            Some(path) => std::fs::read_to_string(path).map_err(|e| Error(format!("{}: {e}", path.display())))?,
            None => String::new(),
        };
        // That it fits is better known now than when a machine boots.
        let trial = AgentConfiguration {
            discovery: "x".repeat(256),
            token: Secret::new("x".repeat(64)),
            authority: authority.clone(),
            begun: Timestamp(i64::MAX),
        };
        trial.window().map_err(|e| Error(e.to_string()))?;
        let failed = |error: io::Error| Error(format!("cannot listen on {}: {error}", config.listen));
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let url = match config.url.trim_end_matches('/') {
            "" => format!("http://{}", listener.local_addr().map_err(failed)?),
            url => url.to_owned(),
        };
        let server = Self {
            image: Arc::new(image),
            listener,
            authority,
            sources: config.sources.clone(),
            known: Mutex::default(),
            counts: Counts::default(),
        };
        Ok((server, url))
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, app: App, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Those that are left when this ends, end with it.
        let mut connections = JoinSet::new();
        connections.spawn(self.counts.clone().keep(app.clone()));
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "could not take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Whoever comes when all places are taken is sent away; a BMC asks again.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (server, app) = (self.clone(), app.clone());
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let (server, app) = (server.clone(), app.clone());
                    async move { Ok::<_, Infallible>(server.serve(&app, peer.ip().to_canonical(), &request).await) }
                });
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(ASK)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), service);
                // A BMC that goes away is no event.
                let _ = serving.await;
                drop(place);
            });
        }
    }

    async fn serve(&self, app: &App, peer: IpAddr, request: &Request<Incoming>) -> Response<Body> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return answer(StatusCode::METHOD_NOT_ALLOWED);
        }
        let id = request
            .uri()
            .path()
            .strip_prefix("/agent/")
            .and_then(|name| name.strip_suffix(".iso"));
        let run = match id {
            Some(id) => store::run_of_image(&app.cx.db, id).await,
            None => Ok(None),
        };
        let run = match run {
            Ok(Some(run)) => run,
            Ok(None) => return answer(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::warn!(%error, "could not look for the run of an image");
                return answer(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        let (run, begun) = (run.value, run.created_at);
        if !self.may_fetch(app, &run, peer).await {
            tracing::warn!(run = run.metadata.name, %peer, "the agent's image was asked for by another than the BMC; see discovery.image.sources");
            let refused = Delivery {
                refused: 1,
                refused_from: peer.to_string(),
                ..Delivery::default()
            };
            self.counts.add(&run.metadata.name, &refused);
            return answer(StatusCode::FORBIDDEN);
        }
        let window = if run.awaits_agent() {
            let configuration = AgentConfiguration {
                discovery: app.settings.agent_url.clone(),
                token: Secret::new(run.token.clone()),
                authority: self.authority.clone(),
                begun,
            };
            match configuration.window() {
                Ok(window) => window,
                Err(error) => {
                    tracing::error!(%error, "the agent's image cannot be served");
                    return answer(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
        } else {
            AgentConfiguration::empty_window()
        };
        let asked = request.headers().get(header::RANGE).and_then(|h| h.to_str().ok());
        let length = self.image.length;
        let (range, status) = match range_of(asked, length) {
            Ok(Some(range)) => (range, StatusCode::PARTIAL_CONTENT),
            Ok(None) => (0..length, StatusCode::OK),
            Err(_) => {
                let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE);
                insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
                return response;
            }
        };
        let mut response = answer(status);
        if status == StatusCode::PARTIAL_CONTENT {
            let content = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            insert(&mut response, header::CONTENT_RANGE, &content);
        }
        insert(&mut response, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
        insert(&mut response, header::CONTENT_TYPE, "application/octet-stream");
        insert(&mut response, header::ACCEPT_RANGES, "bytes");
        insert(&mut response, header::CACHE_CONTROL, "no-store");
        if request.method() == Method::GET {
            let (counts, run, clock) = (self.counts.clone(), run.metadata.name, app.cx.clock.clone());
            let sent = move |bytes| {
                let sent = Delivery {
                    fetched_at: Some(clock.now()),
                    sent: bytes,
                    ..Delivery::default()
                };
                counts.add(&run, &sent);
            };
            *response.body_mut() = body(self.image.clone(), range, window, sent);
        }
        response
    }

    /// Whether this address is the one of the BMC, or lies in a network that may fetch every image.
    async fn may_fetch(&self, app: &App, run: &AgentRun, peer: IpAddr) -> bool {
        if self.sources.iter().any(|network| network.contains(&peer)) {
            return true;
        }
        let remembered = self.known.lock().ok().and_then(|known| known.get(&run.server).cloned());
        let addresses = match remembered {
            Some((at, addresses)) if at.elapsed() < REMEMBER => addresses,
            _ => {
                let addresses = addresses(app, &run.server).await;
                if let Ok(mut known) = self.known.lock() {
                    known.retain(|_, (at, _)| at.elapsed() < REMEMBER);
                    known.insert(run.server.clone(), (Instant::now(), addresses.clone()));
                }
                addresses
            }
        };
        addresses.contains(&peer)
    }
}

/// Addresses of the BMC of a server; none where they cannot be had.
async fn addresses(app: &App, server: &str) -> Vec<IpAddr> {
    let found = async {
        let server = app.inventory.get(server).await?;
        let name = server.and_then(|s| s.spec?.bmc_ref).map(|r| r.name).unwrap_or_default();
        app.gateway.bmc(&name).await
    };
    let host = match found.await {
        Ok(bmc) => bmc.and_then(|b| b.spec).map(|s| s.address).unwrap_or_default(),
        Err(error) => {
            tracing::warn!(error = error.message, "could not look up the address of a BMC");
            return vec![];
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(address) => vec![address],
        Err(_) => match tokio::net::lookup_host((host, 0)).await {
            Ok(found) => found.map(|a| a.ip().to_canonical()).collect(),
            Err(error) => {
                tracing::warn!(host, %error, "could not look up the address of a BMC");
                vec![]
            }
        },
    }
}

fn insert(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A range of the image, a chunk at a time.
fn body(image: Arc<Image>, range: Range<u64>, window: Vec<u8>, sent: impl Fn(u64) + Send + Sync + 'static) -> Body {
    let (window, sent) = (Arc::new(window), Arc::new(sent));
    let chunks = stream::try_unfold(range, move |left| {
        let (image, window, sent) = (image.clone(), window.clone(), sent.clone());
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let wanted = left.clone();
            let read = tokio::task::spawn_blocking(move || image.read(wanted, &window)).await;
            let bytes = read.map_err(io::Error::other)??;
            let next = left.start + bytes.len() as u64;
            sent(bytes.len() as u64);
            Ok(Some((Frame::data(bytes), next..left.end)))
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(chunks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_http_means_it() {
        for (header, expected) in [
            (None, Ok(None)),
            (Some("bytes=0-0"), Ok(Some(0..1))),
            (Some("bytes=10-"), Ok(Some(10..100))),
            (Some("bytes=-10"), Ok(Some(90..100))),
            (Some("bytes=-1000"), Ok(Some(0..100))),
            (Some("bytes=90-1000"), Ok(Some(90..100))),
            (Some("bytes=0-1,5-6"), Ok(None)),
            (Some("lines=1-2"), Ok(None)),
            (Some("bytes=100-"), Err(())),
            (Some("bytes=5-2"), Err(())),
            (Some("bytes=-0"), Err(())),
            (Some("bytes=x-y"), Err(())),
            (Some("bytes=18446744073709551615-18446744073709551615"), Err(())),
        ] {
            assert_eq!(range_of(header, 100).map_err(|_| ()), expected, "{header:?}");
        }
    }
}
