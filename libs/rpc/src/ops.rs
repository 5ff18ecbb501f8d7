//! The plaintext port for the platform: gRPC health for probes, Prometheus metrics for scrapes, nothing else.

use std::net::SocketAddr;

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

/// Serves health and metrics until `shutdown`.
pub(crate) async fn serve<H: tonic_health::pb::health_server::Health>(
    at: SocketAddr,
    health: HealthServer<H>,
    shutdown: CancellationToken,
) {
    let router: Router = Routes::new(health)
        .into_axum_router()
        .route("/metrics", get(async || crate::telemetry::metrics_text()));
    match TcpListener::bind(at).await {
        Ok(listener) => {
            let stop = async move { shutdown.cancelled().await };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "the health port failed");
            }
        }
        Err(error) => tracing::error!(%at, %error, "could not listen for health checks"),
    }
}

/// Completes on SIGTERM or Ctrl-C.
pub async fn signalled() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
