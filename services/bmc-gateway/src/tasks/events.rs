//! Events of BMCs, as hints: each makes the gateway look again at what it polls anyway. Nothing that an event says is believed.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ironyard_db::Snapshot;
use ironyard_reconcile::Queue;
use ironyard_redfish::ops::events;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::random_fraction;
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::probe::is_ready;
use crate::{device::Devices, domain::bmc::Bmc, replicas::Replicas};

/// How events reach the gateway. Without them, what changes is seen at the next poll.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to stream events from BMCs that offer it and are not subscribed to; each costs a connection.
    pub stream: bool,
    /// Where BMCs may post events to.
    pub listen: Option<SocketAddr>,
    /// How BMCs reach that, as in `http://gateway.example.net:7702`.
    pub url: String,
    /// How often a subscription is looked after: a restarted BMC forgets it.
    #[serde(with = "humantime_serde")]
    pub renew: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream: false,
            listen: None,
            url: String::new(),
            renew: Duration::from_secs(15 * 60),
        }
    }
}

/// BMCs that post at once, how long each may take, and how much it may say.
const POSTERS: usize = 256;
const POST: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 20;
/// How often it looks which BMCs there are.
const LOOK: Duration = Duration::from_secs(2);
/// Hints of one BMC that count: one in so long.
const GAP: Duration = Duration::from_secs(2);
/// A stream that says nothing for so long is opened anew.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// Before a BMC that failed is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// Before a stream that ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);
/// Before a BMC that offers nothing is asked again: its firmware may be another one by then.
const NOTHING: Duration = Duration::from_secs(6 * 3600);

/// Listens to all BMCs.
pub struct Events {
    cx: Context,
    devices: Devices,
    probes: Queue,
    replicas: Replicas,
    config: Config,
    /// BMCs by the token in the path that is theirs.
    tokens: Mutex<HashMap<String, String>>,
    /// BMCs that gave a hint: when the next one counts, and whether one waits for that.
    hinted: Mutex<HashMap<String, (Instant, bool)>>,
}

impl Events {
    /// Nobody listens yet.
    pub fn new(cx: Context, devices: Devices, probes: Queue, replicas: Replicas, config: Config) -> Arc<Self> {
        Arc::new(Self {
            cx,
            devices,
            probes,
            replicas,
            config,
            tokens: Mutex::default(),
            hinted: Mutex::default(),
        })
    }

    /// Listens until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if !self.config.stream && self.config.listen.is_none() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            ((), ()) = async { tokio::join!(self.receive(), self.listen_to_all()) } => {}
        }
    }

    /// Takes what BMCs post. One request a connection, little time, and few at once: whoever posts is not trusted.
    async fn receive(self: &Arc<Self>) {
        let Some(at) = self.config.listen else { return };
        let listener = match TcpListener::bind(at).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%at, %error, "could not listen for events");
                return;
            }
        };
        let places = Arc::new(Semaphore::new(POSTERS));
        // Those that are left when this ends, end with it.
        let mut posters = JoinSet::new();
        loop {
            while posters.try_join_next().is_some() {}
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let connection = match listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::debug!(%error, "could not take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let events = self.clone();
            posters.spawn(async move {
                let answer = service_fn(move |request| events.clone().posted(request));
                let serving = http1::Builder::new()
                    .keep_alive(false)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(connection), answer);
                let _ = tokio::time::timeout(POST, serving).await;
                drop(place);
            });
        }
    }

    /// What a BMC posts is not looked at: that it posts is the hint. It is read to its end, or some BMCs count the delivery as failed.
    async fn posted(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, std::convert::Infallible> {
        let (head, mut body) = request.into_parts();
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > LARGEST {
                break;
            }
        }
        let token = head.uri.path().strip_prefix("/events/");
        let name = token.and_then(|token| self.tokens.lock().ok()?.get(token).cloned());
        let status = match name {
            None => StatusCode::NOT_FOUND,
            Some(_) if head.method != Method::POST => StatusCode::METHOD_NOT_ALLOWED,
            Some(name) => {
                self.hint(&name);
                StatusCode::NO_CONTENT
            }
        };
        let mut response = Response::new(Empty::new());
        *response.status_mut() = status;
        Ok(response)
    }

    /// Keeps one ear at every BMC of this gateway that can be used.
    async fn listen_to_all(self: &Arc<Self>) {
        let bmcs = Snapshot::<Bmc>::default();
        let mut ears: HashMap<String, AbortHandle> = HashMap::new();
        // Those that are left when this ends, end with it.
        let mut running = JoinSet::new();
        loop {
            match bmcs.read(&self.cx.db).await {
                Ok(all) => {
                    let ready: HashMap<_, _> = all
                        .iter()
                        .filter(|bmc| is_ready(bmc) && self.replicas.is_mine(&bmc.value.metadata.name))
                        .map(|bmc| (bmc.value.metadata.uid.as_str(), bmc.value.metadata.name.as_str()))
                        .collect();
                    self.know(all.iter().map(|bmc| &bmc.value));
                    ears.retain(|uid, ear| {
                        let stays = ready.contains_key(uid.as_str());
                        if !stays {
                            ear.abort();
                        }
                        stays
                    });
                    for (uid, name) in ready {
                        if !ears.contains_key(uid) {
                            let ear = running.spawn(self.clone().ear(name.to_owned(), uid.to_owned()));
                            ears.insert(uid.to_owned(), ear);
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "could not look for BMCs to listen to"),
            }
            while running.try_join_next().is_some() {}
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Knows these BMCs, and forgets all others.
    fn know<'a>(&self, bmcs: impl Iterator<Item = &'a Bmc> + Clone) {
        let names: HashSet<&str> = bmcs.clone().map(|bmc| bmc.metadata.name.as_str()).collect();
        if let Ok(mut hinted) = self.hinted.lock() {
            hinted.retain(|name, _| names.contains(name.as_str()));
        }
        if self.config.listen.is_some()
            && let Ok(mut tokens) = self.tokens.lock()
        {
            *tokens = bmcs
                .flat_map(|bmc| {
                    let tokens = self.devices.tokens(&bmc.metadata.uid);
                    tokens.into_iter().map(|token| (token, bmc.metadata.name.clone()))
                })
                .collect();
        }
    }

    async fn ear(self: Arc<Self>, name: String, uid: String) {
        loop {
            let wait = match self.clone().hear(&name, &uid).await {
                Ok(wait) => wait,
                Err(fault) => {
                    tracing::debug!(bmc.name = name, reason = fault.reason.as_str(), "could not listen");
                    AGAIN
                }
            };
            tokio::time::sleep(wait.mul_f64(0.9 + random_fraction() / 5.0)).await;
        }
    }

    /// Subscribes, or streams for as long as it lasts; how long to wait before the next time.
    async fn hear(self: Arc<Self>, name: &str, uid: &str) -> Result<Duration, Fault> {
        // It may have become another's a moment ago.
        if !self.replicas.is_mine(name) {
            return Ok(LOOK);
        }
        let device = self.devices.get(name).await?;
        let offer = match device.read(|client| async move { events::offer(&client).await }).await {
            Ok(offer) => offer,
            Err(error) => return nothing(error.into()),
        };
        if self.config.listen.is_some() && offer.enabled && offer.subscriptions.is_some() {
            let token = self.devices.token(uid);
            let destination = format!("{}/events/{token}", self.config.url.trim_end_matches('/'));
            let subscribed = device.write(|client| async move { events::subscribe(&client, &destination, "ironyard").await });
            return match subscribed.await {
                Ok(fresh) => {
                    // What happened before, nobody has told.
                    if fresh {
                        self.hint(name);
                    }
                    Ok(self.config.renew)
                }
                Err(error) => nothing(error.into()),
            };
        }
        let Some(uri) = offer.sse.filter(|_| self.config.stream && offer.enabled) else {
            return Ok(NOTHING);
        };
        let hint = {
            let (events, name) = (self.clone(), name.to_owned());
            move || events.hint(&name)
        };
        let opened = Instant::now();
        match device.listen(&uri, IDLE, hint).await {
            // One that does not last is not worth much.
            Ok(()) => Ok(if opened.elapsed() > AGAIN { REOPEN } else { AGAIN }),
            Err(error) => nothing(error.into()),
        }
    }

    /// Somebody says that something changed at a BMC. However often: it is looked at once in a while, and once after the last hint.
    fn hint(self: &Arc<Self>, name: &str) {
        let now = Instant::now();
        let Ok(mut hinted) = self.hinted.lock() else { return };
        let (next, waits) = hinted.entry(name.to_owned()).or_insert((now, false));
        if std::mem::replace(waits, true) {
            return;
        }
        let at = *next;
        let (events, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Ok(mut hinted) = events.hinted.lock() {
                hinted.insert(name.clone(), (Instant::now() + GAP, false));
            }
            if let Err(error) = events.probes.enqueue(&name).await {
                tracing::debug!(%error, bmc.name = name, "could not follow a hint");
            }
        });
    }
}

/// A BMC that cannot is asked again when its firmware may be another one; all else, soon.
fn nothing(fault: Fault) -> Result<Duration, Fault> {
    match fault.reason {
        Reason::BmcUnsupported | Reason::BmcRefused | Reason::BmcForbidden | Reason::BmcLicenseRequired => Ok(NOTHING),
        _ => Err(fault),
    }
}
