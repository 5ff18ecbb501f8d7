use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{Arc, Mutex},
};

use ironyard_testkit::poll;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Names of spans by trace.
type Seen = Arc<Mutex<BTreeMap<Vec<u8>, BTreeSet<String>>>>;

struct Sink(Seen);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            for span in resource.scope_spans.into_iter().flat_map(|s| s.spans) {
                seen.entry(span.trace_id).or_default().insert(span.name);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_covers_every_hop_down_to_the_bmc() {
    let seen = Seen::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let sink = TraceServiceServer::new(Sink(seen.clone()));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(sink)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let data = tempfile::tempdir().unwrap();
    let port = crate::crash::free_port();
    let address = format!("http://127.0.0.1:{port}");
    let mut up = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"))
        .args([
            "up",
            "--first-wipe",
            "waive",
            "--requests-per-second",
            "0",
            "--simulate",
            "1",
            "--in-band",
            "off",
            "--port",
            &port.to_string(),
            "--data",
            &data.path().display().to_string(),
        ])
        .args(["--otlp-endpoint", &endpoint])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"));
        let status = command
            .env("IRONYARD_SERVER", &address)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    cli(&["wait", "server", "bmc-0-1", "--for", "state=Available", "--timeout", "60s"]);
    cli(&["claim", "traced", "--on"]);
    cli(&["wait", "claim", "traced", "--for", "power=On", "--timeout", "60s"]);
    let wanted = [
        "ironyard claim",
        "ironyard.claim.v1.ServerClaimService/CreateServerClaim",
        "ironyard.inventory.v1.ServerService/ReserveServers",
        "ironyard.bmc.v1.SystemService/SetPower",
        "bmc.request",
    ];
    poll::until("one trace has all of it", || async {
        let seen = seen.lock().unwrap();
        seen.values().any(|names| wanted.iter().all(|w| names.contains(*w))).then_some(())
    })
    .await;
    up.kill().unwrap();
    up.wait().unwrap();
}
