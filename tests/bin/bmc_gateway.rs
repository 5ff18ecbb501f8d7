//! The bmc-gateway service, under a name that tests can find.

fn main() -> std::process::ExitCode {
    ironyard_bmc_gateway::main()
}
