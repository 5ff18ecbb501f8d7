//! The command line, under a name that tests can find.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    ironyard::cli::run(ironyard::cli::Args::parse()).await
}
