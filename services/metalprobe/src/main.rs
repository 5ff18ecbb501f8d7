//! `metalprobe`: runs on a machine that was booted into the agent's image. The image passes what it needs on the kernel's command line
//! (`ironyard.discovery=URL ironyard.token=TOKEN`) or in the environment.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use ironyard_metalprobe::{Machine, Outcome, linux::Linux, run};
use ironyard_rpc::{Channel, client::TlsConfig};

/// Looks at this machine from inside and does what discovery tells it.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the discovery service.
    #[arg(long, env = "IRONYARD_DISCOVERY")]
    discovery: Option<String>,
    /// The run's one-time token.
    #[arg(long, env = "IRONYARD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Authorities that sign discovery's certificate, PEM.
    #[arg(long, env = "IRONYARD_CA")]
    ca: Option<PathBuf>,
    /// Only print what is seen; touch nothing, call nobody.
    #[arg(long)]
    print: bool,
}

fn kernel_parameter(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let machine = Linux::new("/");
    if args.print {
        println!("{:#?}", machine.hardware());
        return ExitCode::SUCCESS;
    }
    let discovery = args.discovery.or_else(|| kernel_parameter("ironyard.discovery"));
    let token = args.token.or_else(|| kernel_parameter("ironyard.token"));
    let (Some(discovery), Some(token)) = (discovery, token) else {
        eprintln!("metalprobe: needs --discovery and --token, or ironyard.discovery= and ironyard.token= on the kernel's command line");
        return ExitCode::from(2);
    };
    let tls = args.ca.map(|ca| TlsConfig {
        server_name: None,
        ca,
        certificate: None,
        key: None,
    });
    match Channel::new(&discovery, tls.as_ref()) {
        Ok(channel) => match run(Arc::new(machine), channel, &token).await {
            Outcome::Off => ExitCode::SUCCESS,
            Outcome::Refused(why) => {
                eprintln!("metalprobe: discovery refused: {why}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("metalprobe: {error}");
            ExitCode::from(2)
        }
    }
}
