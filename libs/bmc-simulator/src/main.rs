//! `bmc-simulator`: a fleet of BMCs on loopback, for development. Machines boot no agent here; `ironyard simulate` gives them one.

use std::net::Ipv4Addr;

use clap::Parser;
use ironyard_bmc_simulator::{Fleet, FleetConfig, serve};

/// Serves simulated BMCs on loopback.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How many BMCs.
    #[arg(long, default_value_t = 8)]
    bmcs: u32,
    /// Address of the first one.
    #[arg(long, default_value = "127.80.0.1")]
    first: Ipv4Addr,
    /// Port of all of them, and of the admin API on 127.0.0.1.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// HTTPS with a self-signed certificate.
    #[arg(long)]
    tls: bool,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let config = FleetConfig {
        count: args.bmcs,
        first: args.first,
        ..FleetConfig::default()
    };
    let serving = serve(Fleet::new(&config, None), args.port, args.tls)?;
    tracing::info!(bmcs = args.bmcs, first = %args.first, port = serving.port, "serving; user {} password {}", config.username, config.password);
    tokio::signal::ctrl_c().await
}
