//! `ironyard`: the command line, the demonstration, and all services in one process.

use std::process::ExitCode;

use clap::Parser;
use ironyard::cli::{Args, run};

#[tokio::main]
async fn main() -> ExitCode {
    run(Args::parse()).await
}
