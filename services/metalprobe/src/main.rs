//! `metalprobe`: runs on a machine that was booted into the agent's image. What it needs is in the image's configuration, which the boot
//! stub hands to the initramfs as a credential.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use ironyard_metalprobe::{Machine, Outcome, channel, init, linux::Linux, run};
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

/// A console that cannot be written to is no reason to end.
fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[tokio::main]
async fn main() -> ExitCode {
    if init::is_first() {
        return init::run().await;
    }
    // A console has no colours, and a machine that has just started no time of day.
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .log_internal_errors(false);
    subscriber.with_env_filter("ironyard_metalprobe=debug").init();
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
            say(format_args!("metalprobe: {}: {error}", args.credential.display()));
            return ExitCode::from(2);
        }
    };
    machine.settle().await;
    say(format_args!("metalprobe: reports to {}", configuration.discovery));
    init::set_clock(configuration.begun);
    match channel(&configuration) {
        Ok(channel) => match run(Arc::new(machine), channel, configuration.token.expose()).await {
            Outcome::Off => ExitCode::SUCCESS,
            Outcome::Refused(why) => {
                say(format_args!("metalprobe: discovery refused: {why}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            say(format_args!("metalprobe: {error}"));
            ExitCode::from(2)
        }
    }
}
