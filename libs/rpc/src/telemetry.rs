//! Logs, traces and metrics.

use std::sync::OnceLock;

use http::HeaderMap;
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
    trace::{TraceContextExt, TracerProvider as _},
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::Deserialize;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// How a service tells what it does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to log, as in `info` or `info,ironyard_claim=debug`.
    pub filter: Option<String>,
    /// `json` (default for services) or `text`.
    pub format: Format,
    /// OTLP endpoint for traces (gRPC), as in `http://localhost:4317`; absent: no traces.
    pub otlp_endpoint: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What must live as long as the process; call [`Guard::flush`] before it ends.
#[derive(Default)]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what has not been sent.
    pub fn flush(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "could not send the last traces");
        }
    }
}

static METRICS: OnceLock<prometheus::Registry> = OnceLock::new();

/// Starts logs, traces and metrics. Only the first call of a process has an effect.
pub fn init(service: &'static str, config: &Config) -> Result<Guard, String> {
    let resource = Resource::builder().with_service_name(service).build();
    let registry = prometheus::Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(|e| e.to_string())?;
    if METRICS.set(registry).is_ok() {
        global::set_meter_provider(
            SdkMeterProvider::builder()
                .with_resource(resource.clone())
                .with_reader(exporter)
                .build(),
        );
    }
    let filter = match config.filter.as_deref() {
        Some(text) => EnvFilter::try_new(text).map_err(|e| format!("telemetry.filter: {e}"))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        Format::Json => Box::new(
            tracing_subscriber::fmt::layer()
                .json()
                .with_writer(std::io::stderr)
                .with_filter(filter),
        ),
        Format::Text => Box::new(
            tracing_subscriber::fmt::layer()
                .compact()
                .with_ansi(colours())
                .with_writer(std::io::stderr)
                .with_filter(filter),
        ),
    };
    let traces = match &config.otlp_endpoint {
        None => None,
        Some(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()
                .map_err(|e| format!("telemetry.otlp_endpoint: {e}"))?;
            global::set_text_map_propagator(TraceContextPropagator::new());
            Some(
                SdkTracerProvider::builder()
                    .with_resource(resource)
                    .with_batch_exporter(exporter)
                    .build(),
            )
        }
    };
    let spans = traces.as_ref().map(|provider| {
        // Only our own spans: those of the HTTP stack below would drown them.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("ironyard"))
            .with_filter(EnvFilter::new("off,ironyard=debug"))
    });
    let _ = tracing_subscriber::registry().with(lines).with(spans).try_init();
    Ok(Guard { traces })
}

/// Colours only for people, and not for those who asked for none.
fn colours() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}

/// The metrics in Prometheus' text format.
pub fn metrics_text() -> String {
    let families = METRICS.get().map(prometheus::Registry::gather).unwrap_or_default();
    prometheus::TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|v| v.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::from_bytes(key.as_bytes()), http::HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

/// Makes a span the child of the caller's.
pub(crate) fn continue_from(span: &Span, headers: &HeaderMap) {
    let parent = global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
    if parent.span().span_context().is_valid() {
        let _ = span.set_parent(parent);
    }
}

/// Tells the callee which span it serves.
pub(crate) fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut HeadersMut(headers)));
}

/// The current span as W3C `traceparent`, to store with work that goes on later; empty without traces.
pub fn current_traceparent() -> String {
    let mut headers = HeaderMap::new();
    inject(&mut headers);
    headers
        .get("traceparent")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// Lets the current span, begun by a reconciler, continue the trace of the call that caused the work.
pub fn follow(span: &Span, traceparent: &str) {
    if let Ok(value) = http::HeaderValue::from_str(traceparent)
        && !traceparent.is_empty()
    {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value);
        continue_from(span, &headers);
    }
}
