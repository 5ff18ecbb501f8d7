//! The server side: the one stack of layers in front of every service.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::server::TcpIncoming,
};
use tower::{Layer, Service, ServiceBuilder};

pub use crate::tls::TlsConfig;
use crate::{fence::Fences, incoming::IncomingLayer};

/// Where and how a service listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address for calls.
    pub listen: SocketAddr,
    /// Plaintext address for health checks and metrics; absent: none.
    #[serde(default)]
    pub ops_listen: Option<SocketAddr>,
    /// Certificates; without them only loopback is served, and every caller is trusted.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TLS, and not loopback.
    #[error("refusing to listen on {0} without TLS: only loopback may be plaintext")]
    PlaintextNotLoopback(SocketAddr),
    /// The address is taken, or not ours.
    #[error("could not listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A file that cannot be read.
    #[error("could not read {0:?}")]
    File(std::path::PathBuf, #[source] std::io::Error),
    /// The transport failed.
    #[error("the server failed")]
    Transport(#[source] tonic::transport::Error),
    /// Reflection could not be built.
    #[error("could not build reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// Reflection (v1 and v1alpha, with comments and the google.rpc details) for these services.
fn add_reflection(routes: &mut RoutesBuilder, services: &[&'static str]) -> Result<(), Error> {
    let builder = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ironyard_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        for service in services {
            builder = builder.with_service_name(*service);
        }
        builder
    };
    routes.add_service(builder().build_v1().map_err(Error::Reflection)?);
    routes.add_service(builder().build_v1alpha().map_err(Error::Reflection)?);
    Ok(())
}

/// Binds the listener, so that its port is known before anything runs.
pub async fn bind(config: &Config) -> Result<TcpListener, Error> {
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        return Err(Error::PlaintextNotLoopback(config.listen));
    }
    TcpListener::bind(config.listen).await.map_err(|e| Error::Listen(config.listen, e))
}

/// Serves until `shutdown`, then lets running calls finish for at most ten seconds.
///
/// `services` are the names for health and reflection, `register` adds them.
pub async fn serve(
    config: &Config,
    listener: TcpListener,
    services: &[&'static str],
    mut routes: RoutesBuilder,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in services {
        reporter.set_service_status(*service, tonic_health::ServingStatus::Serving).await;
    }
    routes.add_service(health.clone());
    add_reflection(&mut routes, services)?;
    let routes: Routes = routes.routes();

    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = &config.tls {
        let tls = tls.load().map_err(|(path, e)| Error::File(path, e))?;
        server = server.tls_config(tls).map_err(Error::Transport)?;
    }
    let layers = ServiceBuilder::new()
        // Request id, root span, RED metrics, authentication, authorisation: see `incoming`.
        .layer(IncomingLayer {
            trust_loopback: config.tls.is_none(),
            fences: Fences::default(),
        })
        .into_inner();
    let router = server
        // A caller that asks faster than we answer is told so at once.
        .load_shed(true)
        // One connection cannot take all of us.
        .concurrency_limit_per_connection(512)
        // A call that sets no deadline gets one; a watch streams beyond it.
        .timeout(crate::deadline::LONGEST)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(layers)
        .add_routes(routes);

    let drain = shutdown.clone();
    let ops = config.ops_listen.map(|at| crate::ops::serve(at, health, shutdown.clone()));
    let ops = ops.map(tokio::spawn);
    // The builder's own setting does not reach sockets that it did not accept: without this every answer waits 40 ms for an acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = router.serve_with_incoming_shutdown(incoming, drain.cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        for service in services {
            reporter.set_service_status(*service, tonic_health::ServingStatus::NotServing).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    let outcome = tokio::select! {
        outcome = serving => outcome.map_err(Error::Transport),
        () = late => Ok(()),
    };
    if let Some(ops) = ops {
        ops.abort();
    }
    outcome
}

/// Services as a function from requests to responses, behind the same layers as on the wire; every caller is trusted.
pub fn local(routes: RoutesBuilder) -> crate::client::Local {
    let layers = IncomingLayer {
        trust_loopback: true,
        fences: Fences::default(),
    };
    let services = layers.layer(routes.routes());
    std::sync::Arc::new(move |request| {
        let mut services = services.clone();
        Box::pin(async move {
            match services.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}

/// A whole service: binds, serves, works in the background, and drains on SIGTERM. Problems go to the log; the exit code tells.
pub async fn run<B: Future<Output = ()> + Send + 'static>(
    config: &Config,
    services: &[&'static str],
    register: impl FnOnce(&mut RoutesBuilder),
    background: impl FnOnce(CancellationToken) -> B,
) -> Result<(), Error> {
    let listener = bind(config).await?;
    let shutdown = CancellationToken::new();
    let mut routes = Routes::builder();
    register(&mut routes);
    let work = tokio::spawn(background(shutdown.clone()));
    let stop = shutdown.clone();
    tokio::spawn(async move {
        crate::ops::signalled().await;
        stop.cancel();
    });
    tracing::info!(listen = %config.listen, "serving");
    let outcome = serve(config, listener, services, routes, shutdown.clone()).await;
    shutdown.cancel();
    // The reconcilers finish the step they are at and give their leases back.
    let _ = tokio::time::timeout(Duration::from_secs(15), work).await;
    outcome
}

/// What every service's `main` does: reads the file that `--config` names and the environment, starts telemetry, runs.
pub fn main<C, F>(
    name: &'static str,
    prefix: &str,
    telemetry: impl FnOnce(&C) -> crate::telemetry::Config,
    service: impl FnOnce(C) -> F,
) -> std::process::ExitCode
where
    C: serde::de::DeserializeOwned,
    F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
{
    let mut arguments = std::env::args().skip(1);
    let file = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => None,
        (Some("--config"), Some(file)) => Some(std::path::PathBuf::from(file)),
        (Some("--version"), _) => {
            println!("{name} {}", env!("CARGO_PKG_VERSION"));
            return std::process::ExitCode::SUCCESS;
        }
        (Some(_), _) => {
            eprintln!("usage: {name} [--config FILE] [--version]\n\nEvery setting can come from the environment as {prefix}_SECTION__KEY.");
            return std::process::ExitCode::from(2);
        }
    };
    let config: C = match crate::config::load(file.as_deref(), prefix) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{name}: the configuration is wrong:\n{problems}");
            return std::process::ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: could not start: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let guard = match crate::telemetry::init(name, &telemetry(&config)) {
            Ok(guard) => guard,
            Err(problem) => {
                eprintln!("{name}: {problem}");
                return std::process::ExitCode::from(2);
            }
        };
        let outcome = service(config).await;
        guard.flush();
        match outcome {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = crate::fault::chain(&*error), "stopped");
                eprintln!("{name}: {}", crate::fault::chain(&*error));
                std::process::ExitCode::FAILURE
            }
        }
    })
}
