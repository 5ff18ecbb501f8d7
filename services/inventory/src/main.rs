//! The inventory service as a process of its own.

use std::{process::ExitCode, sync::Arc};

use ironyard_inventory::{Config, Service};
use ironyard_rpc::server;
use ironyard_types::SystemClock;

fn main() -> ExitCode {
    server::main(
        "inventory",
        "INVENTORY",
        |config: &Config| config.telemetry.clone(),
        |config| async move {
            let service = Service::open(&config.database, Arc::new(SystemClock)).await?;
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
