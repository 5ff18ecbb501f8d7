//! The bmc-gateway service as a process of its own.

fn main() -> std::process::ExitCode {
    ironyard_bmc_gateway::main()
}
