use std::{sync::OnceLock, time::Instant};

use opentelemetry::{KeyValue, metrics::Histogram};

/// Bounds of `rpc.*.call.duration` in seconds, as the semantic conventions give them.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Measures one call; records when dropped, because a deadline drops the handler.
pub(crate) struct Call {
    method: &'static str,
    status: i32,
    start: Instant,
}

impl Call {
    /// A call that counts as cancelled until it is told otherwise.
    pub(crate) fn begin(method: &'static str) -> Self {
        Self {
            method,
            status: tonic::Code::Cancelled as i32,
            start: Instant::now(),
        }
    }

    pub(crate) fn end(&mut self, status: i32) {
        self.status = status;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
        let histogram = DURATION.get_or_init(|| {
            opentelemetry::global::meter("ironyard")
                .f64_histogram("rpc.server.call.duration")
                .with_unit("s")
                .with_description("Duration of calls that this service answered")
                .with_boundaries(BOUNDS.to_vec())
                .build()
        });
        let status = format!("{:?}", tonic::Code::from_i32(self.status));
        histogram.record(
            self.start.elapsed().as_secs_f64(),
            &[
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", self.method),
                KeyValue::new("rpc.status_code", status),
            ],
        );
    }
}
