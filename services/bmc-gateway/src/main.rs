//! The bmc-gateway service as a process of its own.

use std::{process::ExitCode, sync::Arc};

use ironyard_bmc_gateway::{Config, Service};
use ironyard_rpc::server;
use ironyard_types::SystemClock;

fn main() -> ExitCode {
    server::main(
        "bmc-gateway",
        "BMC_GATEWAY",
        |config: &Config| config.telemetry.clone(),
        |config| async move {
            let service = Service::open(&config.database, config.gateway, Arc::new(SystemClock)).await?;
            let worker = service.clone();
            server::run(
                &config.server,
                Service::NAMES,
                |routes| service.register(routes),
                |shutdown| worker.run(shutdown),
            )
            .await?;
            Ok(())
        },
    )
}
