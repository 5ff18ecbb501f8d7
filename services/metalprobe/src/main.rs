//! `metalprobe`: runs on a machine that was booted into the agent's image. What it needs is in the image's configuration, which the boot
//! stub hands to the initramfs as a credential.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use ironyard_metalprobe::{Machine, Outcome, channel, linux::Linux, run};
use ironyard_types::agent_image::AgentConfiguration;

/// Looks at this machine from inside and does what discovery tells it.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration of the run, as the image holds it.
    #[arg(long, env = "IRONYARD_CREDENTIAL", default_value = "/.extra/credentials/ironyard.cred")]
    credential: PathBuf,
    /// Only print what is seen; touch nothing, call nobody.
    #[arg(long)]
    print: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let machine = Linux::new("/");
    if args.print {
        println!("{:#?}", machine.hardware());
        return ExitCode::SUCCESS;
    }
    let configuration = std::fs::read(&args.credential)
        .map_err(|e| e.to_string())
        .and_then(|window| AgentConfiguration::from_window(&window).map_err(|e| e.to_string()));
    let configuration = match configuration {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("metalprobe: {}: {error}", args.credential.display());
            return ExitCode::from(2);
        }
    };
    match channel(&configuration) {
        Ok(channel) => match run(Arc::new(machine), channel, configuration.token.expose()).await {
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
