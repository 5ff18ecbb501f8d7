use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum};

use super::first_wipe::FirstWipe;

/// Bare-metal servers through their BMCs: found, inventoried, claimed, wiped with proof, offered again.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 64 + gRPC code when a service refused (68 deadline, 69 not found, 70 exists,
/// 73 precondition, 74 conflict, 78 unavailable).
#[derive(Parser)]
#[command(name = "ironyard", version, max_term_width = 120)]
pub struct Args {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the services are reached.
#[derive(ClapArgs)]
pub struct Connection {
    /// Address of the services.
    #[arg(long = "server", global = true, env = "IRONYARD_SERVER", default_value = "http://127.0.0.1:7700")]
    pub(crate) address: String,
    /// Address of inventory, where it has its own.
    #[arg(long, global = true, env = "IRONYARD_INVENTORY", hide = true)]
    pub(crate) inventory: Option<String>,
    /// Address of the gateway, where it has its own.
    #[arg(long, global = true, env = "IRONYARD_BMC_GATEWAY", hide = true)]
    pub(crate) bmc_gateway: Option<String>,
    /// Address of discovery, where it has its own.
    #[arg(long, global = true, env = "IRONYARD_DISCOVERY", hide = true)]
    pub(crate) discovery: Option<String>,
    /// Address of claim, where it has its own.
    #[arg(long, global = true, env = "IRONYARD_CLAIM", hide = true)]
    pub(crate) claim: Option<String>,
    /// Address of maintenance, where it has its own.
    #[arg(long, global = true, env = "IRONYARD_MAINTENANCE", hide = true)]
    pub(crate) maintenance: Option<String>,
    /// Authorities that sign the services' certificates, PEM.
    #[arg(long, global = true, env = "IRONYARD_CA", hide = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Own certificate, PEM.
    #[arg(long, global = true, env = "IRONYARD_CERT", hide = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Own key, PEM.
    #[arg(long, global = true, env = "IRONYARD_KEY", hide = true)]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows the whole life of a simulated fleet, in this process, and leaves nothing behind.
    Demo(Demo),
    /// Runs all services on one loopback port until it is stopped.
    Up(Up),
    /// Runs a simulated fleet whose machines boot the agent, until it is stopped.
    Simulate(Simulate),
    /// Writes certificates for development: an authority, one for each service, an operator and an administrator.
    Certs {
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
        /// Host names and addresses that the services answer on.
        #[arg(long, default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
        hosts: Vec<String>,
    },
    /// Creates or changes what YAML documents describe. What they never named is left alone.
    Apply {
        /// File, or - for standard input; may be repeated.
        #[arg(short = 'f', long = "filename", required = true)]
        files: Vec<PathBuf>,
    },
    /// As apply, but what the documents do not name is emptied, and passwords that a rotation has set are written over.
    Replace {
        /// File, or - for standard input; may be repeated.
        #[arg(short = 'f', long = "filename", required = true)]
        files: Vec<PathBuf>,
    },
    /// Takes over machines that ran when they were discovered, as they run: a claim named like each server holds it. Each owes a wipe once its
    /// claim is released.
    Adopt {
        /// Servers.
        #[arg(required_unless_present = "selector")]
        servers: Vec<String>,
        /// All servers that wait to be adopted and whose labels match, as in `a=b,c in (d,e)`.
        #[arg(short = 'l', long, conflicts_with = "servers")]
        selector: Option<String>,
        /// Say what would be adopted, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Says what machines owe that were never wiped here, before they are offered for the first time.
    FirstWipe {
        /// What: wipe destroys all that is on their drives.
        policy: FirstWipe,
        /// Servers.
        #[arg(required_unless_present = "selector")]
        servers: Vec<String>,
        /// All servers that wait for this word and whose labels match, as in `a=b,c in (d,e)`.
        #[arg(short = 'l', long, conflicts_with = "servers")]
        selector: Option<String>,
        /// Say what would change, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists resources, or shows one.
    Get {
        /// Kind: server, bmc, endpoint, claim, maintenance, secret, certificate, cleanup, operation.
        kind: String,
        /// Name.
        name: Option<String>,
        #[command(flatten)]
        output: Output,
        /// Only resources whose labels match, as in `a=b,c in (d,e)`.
        #[arg(short = 'l', long)]
        selector: Option<String>,
    },
    /// Shows all that is known about a resource.
    Describe {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// Deletes a resource. A claim gives its server back; a maintenance ends.
    Delete {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Delete a BMC or a secret whatever depends on it.
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why it is forced; it is on record.
        #[arg(long, requires = "force")]
        reason: Option<String>,
    },
    /// Waits until a resource is as wanted.
    Wait {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// `state=Available`, `phase=Bound`, `condition=Ready`, `power=On` or `delete`.
        #[arg(long = "for")]
        condition: String,
        /// Longest wait, as in `90s`.
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Prints servers as they change, until stopped.
    Watch,
    /// Shows or changes the power of a server.
    Power {
        /// Server.
        server: String,
        /// What to do; nothing: show.
        action: Option<PowerAction>,
        /// Do it to a server that a claim holds, too.
        #[arg(long)]
        yes: bool,
    },
    /// Claims a server.
    Claim {
        /// Name of the claim.
        name: String,
        /// This server.
        #[arg(long)]
        server_name: Option<String>,
        /// Any server whose labels match.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// Switch it on.
        #[arg(long)]
        on: bool,
        /// URL of an image to boot from once.
        #[arg(long, default_value = "")]
        image: String,
    },
    /// Attaches to the serial console of a server; Ctrl-] leaves.
    Console {
        /// Name of the server.
        server: String,
        /// Only look: somebody else may write.
        #[arg(long)]
        read_only: bool,
        /// Print what was shown lately, and do not attach.
        #[arg(long)]
        log: bool,
    },
    /// Tries every operation on any Redfish service, and reports which work.
    Conformance(Conformance),
    /// Gives a claim's server back: it is switched off and wiped.
    Release {
        /// Name of the claim.
        name: String,
    },
    /// Explains why something is as it is.
    Explain {
        /// `claim`.
        kind: String,
        /// Name.
        name: String,
    },
    /// Shows what happened to a server.
    History {
        /// Server.
        server: String,
        #[command(flatten)]
        output: Output,
    },
    /// Takes a server out of Error that is well again.
    Resolve(Because),
    /// Puts a server in Error back to where it failed.
    Retry(Because),
    /// Forgives the wipe that a server in Error owes; on record, under a person's name.
    WaiveSanitization {
        #[command(flatten)]
        because: Because,
        /// Forgive this part only: the wipe itself stays owed.
        #[arg(long)]
        only: Option<DebtPart>,
    },
    /// Lets go of a server whose claim is lost: it is wiped. On record, under a person's name.
    ReleaseServer(Because),
    /// Stops the wipe of a server: it goes to Error, still owing it. On record, under a person's name.
    CancelCleanup(Because),
    /// Stops an operation before its next step; what has reached the hardware is not undone.
    CancelOperation {
        /// Operation.
        name: String,
        /// Why, for the operation's error.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Seals all credentials under the gateway's present key, so that an older one can be taken away.
    RewrapCredentials,
    /// Prints a completion script.
    Completion {
        /// Shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The verb, for spans.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Demo(_) => "demo",
            Self::Up(_) => "up",
            Self::Simulate(_) => "simulate",
            Self::Certs { .. } => "certs",
            Self::Apply { .. } => "apply",
            Self::Replace { .. } => "replace",
            Self::Adopt { .. } => "adopt",
            Self::FirstWipe { .. } => "first-wipe",
            Self::Get { .. } => "get",
            Self::Describe { .. } => "describe",
            Self::Delete { .. } => "delete",
            Self::Wait { .. } => "wait",
            Self::Watch => "watch",
            Self::Power { .. } => "power",
            Self::Claim { .. } => "claim",
            Self::Console { .. } => "console",
            Self::Conformance(_) => "conformance",
            Self::Release { .. } => "release",
            Self::Explain { .. } => "explain",
            Self::History { .. } => "history",
            Self::Resolve(_) => "resolve",
            Self::Retry(_) => "retry",
            Self::WaiveSanitization { .. } => "waive-sanitization",
            Self::ReleaseServer(_) => "release-server",
            Self::CancelCleanup(_) => "cancel-cleanup",
            Self::CancelOperation { .. } => "cancel-operation",
            Self::RewrapCredentials => "rewrap-credentials",
            Self::Completion { .. } => "completion",
        }
    }
}

#[derive(ClapArgs)]
pub(crate) struct Conformance {
    /// Host name or address of the service.
    #[arg(long)]
    pub address: String,
    /// Port; 0: the scheme's own.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// `https` or `http`.
    #[arg(long, default_value = "https")]
    pub scheme: String,
    /// User name; none: no login.
    #[arg(long, default_value = "")]
    pub username: String,
    /// File with the password.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// SHA-256 of its certificate, hex; none: any is taken.
    #[arg(long, default_value = "")]
    pub pin: String,
    /// Try changes too, and put them back.
    #[arg(long)]
    pub writes: bool,
    /// Switch the machine as well.
    #[arg(long)]
    pub power: bool,
    /// Image that the service can fetch, for the virtual drive.
    #[arg(long, default_value = "")]
    pub image: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum DebtPart {
    /// The least acceptable category.
    Minimum,
    /// That the server is kept unwiped.
    Retention,
}

#[derive(ClapArgs)]
pub(crate) struct Because {
    /// Server.
    pub server: String,
    /// Why, for the history.
    #[arg(long)]
    pub reason: String,
    /// Who answers for it.
    #[arg(long = "as", env = "IRONYARD_ACTOR")]
    pub actor: String,
}

#[derive(ClapArgs)]
pub(crate) struct Output {
    /// How to print.
    #[arg(short = 'o', long = "output")]
    pub format: Option<Format>,
    /// No heading.
    #[arg(long)]
    pub no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kind and name.
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PowerAction {
    /// Switch on.
    On,
    /// Ask, then cut.
    Off,
    /// Cut.
    ForceOff,
    /// Cut, then on.
    Cycle,
    /// Ask, then cut, then on.
    Reset,
}

#[derive(ClapArgs)]
pub(crate) struct Demo {
    /// How many servers.
    #[arg(long, default_value_t = 8)]
    pub servers: u32,
}

#[derive(ClapArgs)]
pub(crate) struct Up {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 7700)]
    pub port: u16,
    /// Folder for records; kept.
    #[arg(long, default_value = "ironyard-data")]
    pub data: PathBuf,
    /// PostgreSQL instead of SQLite.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Simulate this many BMCs, and register them.
    #[arg(long, default_value_t = 0)]
    pub simulate: u32,
    /// Port for health checks and metrics on 127.0.0.1; 0: none.
    #[arg(long, default_value_t = 0)]
    pub ops_port: u16,
    /// Whether the agent is needed where a server does not say: required, optional or off.
    #[arg(long, default_value = "optional")]
    pub in_band: String,
    /// What happens to machines that run when they are discovered: wait (they are left alone), adopt or powerOff.
    #[arg(long, default_value = "wait")]
    pub running_machines: String,
    /// What machines owe that were never wiped here: wait (they are not offered before somebody says), wipe (they are wiped first, which
    /// destroys what is on their drives) or waive (they are offered as they are). Default: wait, and with --simulate waive.
    #[arg(long)]
    pub first_wipe: Option<FirstWipe>,
    /// Time for a machine to boot the agent.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub boot_timeout: Duration,
    /// File of the agent's image, which machines are booted into; `simulated`: one for simulated machines. Default: none, and with
    /// --simulate `simulated`.
    #[arg(long)]
    pub agent_image: Option<PathBuf>,
    /// Where the image is served to BMCs, over HTTP. Default: 127.0.0.1:7720, and with --simulate any port.
    #[arg(long)]
    pub agent_image_listen: Option<SocketAddr>,
    /// How BMCs reach that, as in http://10.0.0.5:7720; empty: the address it listens on.
    #[arg(long, default_value = "")]
    pub agent_image_url: String,
    /// How machines reach these services from inside, as in http://10.0.0.5:7700; empty: as everybody does.
    #[arg(long, default_value = "")]
    pub agent_url: String,
    /// Offer servers although neither their BMC nor the agent could show all of their storage, after ten minutes; they cannot be wiped.
    #[arg(long)]
    pub offer_unread_storage: bool,
    /// Network whose BMCs may be spoken to over plain http, as in 10.1.0.0/16; may be given several times. Loopback always may.
    #[arg(long = "plaintext-range")]
    pub plaintext_ranges: Vec<String>,
    /// Requests in a second to one BMC, on average; 0: no limit. Default: 5, and no limit for simulated ones.
    #[arg(long)]
    pub requests_per_second: Option<u32>,
    /// A TOML file with `[[mac_prefixes]]`.
    #[arg(long)]
    pub mac_prefixes: Option<PathBuf>,
    /// OTLP endpoint for traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// JSON log lines.
    #[arg(long)]
    pub json_logs: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Simulate {
    /// How many BMCs.
    #[arg(long, default_value_t = 8)]
    pub bmcs: u32,
    /// Address of the first one.
    #[arg(long, default_value = "127.80.0.1")]
    pub first: Ipv4Addr,
    /// Port of all of them, and of the admin API on 127.0.0.1.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// HTTPS with a self-signed certificate.
    #[arg(long)]
    pub tls: bool,
    /// Sessions that each BMC keeps; 0: as many as its family keeps.
    #[arg(long, default_value_t = 0)]
    pub session_limit: usize,
    /// Families, in turn: generic, idrac, ilo, xcc, supermicro, ami, openbmc, or all.
    #[arg(long, value_delimiter = ',', default_value = "generic")]
    pub profile: Vec<String>,
    /// Time that a power change takes.
    #[arg(long, default_value = "150ms", value_parser = humantime::parse_duration)]
    pub power_time: Duration,
}

pub(crate) fn completion(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "ironyard", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
}
