//! The command line.

/// Says something; a reader who has seen enough (`| head`) ends the program, as with any other tool.
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::say(format_args!($($text)*)) };
}

/// The same, and ends the line.
macro_rules! println {
    ($($text:tt)*) => { $crate::cli::say(format_args!("{}\n", format_args!($($text)*))) };
}

mod adopt;
mod apply;
mod args;
mod conformance;
mod console;
mod first_wipe;
mod kinds;
mod output;
mod serve;
mod verbs;
mod wait;

use std::process::ExitCode;

pub use args::Args;
use args::{Command, Connection};

use crate::client::{Addresses, Clients};

fn say(text: std::fmt::Arguments<'_>) {
    if let Err(error) = std::io::Write::write_fmt(&mut std::io::stdout(), text) {
        // 128 and the number of SIGPIPE, or sysexits' EX_IOERR.
        std::process::exit(if error.kind() == std::io::ErrorKind::BrokenPipe { 141 } else { 74 });
    }
}

/// What went wrong, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    /// Exit code: 1 generic, 2 usage, 64 + gRPC code for what a service refused.
    pub code: u8,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A mistake of the caller's.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// Anything else.
    pub fn other(message: impl std::fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let code = 64_u8.saturating_add(u8::try_from(status.code() as i32).unwrap_or(2));
        let reason = ironyard_rpc::reason_of(&status).map(|r| format!(" [{r}]")).unwrap_or_default();
        let message = match status.code() {
            tonic::Code::Unavailable if reason.is_empty() => {
                format!(
                    "no service answers ({}); is `ironyard up` running, is --server right?",
                    status.message()
                )
            }
            _ => format!("{}{reason}", status.message()),
        };
        Self { code, message }
    }
}

impl Connection {
    pub(crate) fn clients(&self) -> Result<Clients, Failure> {
        let at = |own: &Option<String>| own.clone().unwrap_or_else(|| self.address.clone());
        let addresses = Addresses {
            inventory: at(&self.inventory),
            bmc_gateway: at(&self.bmc_gateway),
            discovery: at(&self.discovery),
            claim: at(&self.claim),
            maintenance: at(&self.maintenance),
        };
        let tls = self.ca.clone().map(|ca| ironyard_rpc::client::TlsConfig {
            server_name: None,
            ca,
            certificate: self.cert.clone(),
            key: self.key.clone(),
        });
        Clients::new(&addresses, tls.as_ref()).map_err(Failure::other)
    }
}

/// Runs a command.
pub async fn run(args: Args) -> ExitCode {
    let outcome = match args.command {
        Command::Demo(demo) => crate::demo::run(demo.servers).await.map_err(Failure::other),
        Command::Up(up) => serve::up(up).await,
        Command::Simulate(simulate) => serve::simulate(simulate).await,
        Command::Conformance(args) => conformance::run(args).await,
        Command::Certs { out, hosts } => serve::certificates(&out, &hosts),
        Command::Completion { shell } => {
            args::completion(shell);
            Ok(())
        }
        command => match args.connection.clients() {
            Ok(clients) => traced(&clients, command).await,
            Err(failure) => Err(failure),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a verb under a span of its own; where an OTLP endpoint is configured, the trace begins here.
async fn traced(clients: &Clients, command: Command) -> Result<(), Failure> {
    let Ok(endpoint) = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT") else {
        return verbs::run(clients, command).await;
    };
    let config = ironyard_rpc::telemetry::Config {
        filter: Some("error".to_owned()),
        otlp_endpoint: Some(endpoint),
        ..Default::default()
    };
    let guard = ironyard_rpc::telemetry::init("ironyard-cli", &config).map_err(Failure::usage)?;
    let span = tracing::info_span!("cli", otel.name = format!("ironyard {}", command.verb()));
    let outcome = tracing::Instrument::instrument(verbs::run(clients, command), span).await;
    guard.flush();
    outcome
}
