//! The gateway over ten thousand BMCs, beside a bare HTTP load generator and PyPI's sushy, against the same simulator in the same run.
//!
//! `cargo bench -p ironyard-tests` (BMCS=10000, IRONYARD_VENV for sushy). Numbers are ratios of things measured in one run: machines differ.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use ironyard::client::Clients;
use ironyard_proto::{
    bmc::{self, Bmc, BmcSpec, SystemName},
    common::Metadata,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// Requests that the bare generator and a sweep have in flight at once.
const AT_ONCE: usize = 500;
const PATH: &str = "/redfish/v1/Systems/1";

struct Process(Child, &'static str);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// CPU seconds so far.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime, in clock ticks of which Linux shows a hundred a second.
        (rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory, KiB.
    fn kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn simulator(first: Ipv4Addr, count: usize, tls: bool) -> (Process, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironyard-under-test"));
    command.args([
        "simulate",
        "--port",
        "0",
        "--bmcs",
        &count.to_string(),
        "--first",
        &first.to_string(),
    ]);
    if tls {
        command.arg("--tls");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.split(" port ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    (Process(child, "simulator"), port)
}

/// Where BMCs are: in two processes, because one may not open enough files for ten thousand connections of each client.
#[derive(Clone, Copy)]
struct Places {
    ports: [u16; 2],
    half: usize,
}

const FIRST: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 80, 0, 1), Ipv4Addr::new(127, 84, 0, 1)];

impl Places {
    fn of(&self, n: usize) -> SocketAddr {
        let which = usize::from(n >= self.half);
        let offset = u32::try_from(n - which * self.half).unwrap();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(u32::from(FIRST[which]) + offset)), self.ports[which])
    }
}

async fn gateway(folder: &Path) -> (Process, Clients) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n[database]\nurl = \"sqlite://{0}/gateway.db\"\n[gateway]\nkey_file = \"{0}/key\"\ncreate_key = true\n\
        allowed_ranges = [\"127.0.0.0/8\"]\nrequests_per_second = 0\nread_timeout = \"20s\"\n[gateway.polling]\npower = \"10h\"\nfull = \"10h\"\n[telemetry]\nfilter = \"error\"\n",
        folder.display(),
    );
    fs::write(folder.join("gateway.toml"), config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_bmc-gateway-under-test"))
        .args([PathBuf::from("--config"), folder.join("gateway.toml")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let clients = Clients::at(&format!("http://127.0.0.1:{port}")).unwrap();
    while clients.bmcs.clone().list_bmcs(bmc::ListBmcsRequest::default()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (Process(child, "gateway"), clients)
}

/// Tells the gateway of all BMCs, and waits until it knows their systems.
async fn enroll(clients: &Clients, count: usize, places: Places, scheme: &str) {
    let credential = bmc::SetCredentialRequest {
        name: "all".into(),
        username: "admin".into(),
        password: "simulated".into(),
        replace: false,
        networks: vec![],
    };
    clients.credentials.clone().set_credential(credential).await.unwrap();
    stream::iter(0..count)
        .for_each_concurrent(32, |n| async move {
            let bmc = Bmc {
                metadata: Some(Metadata {
                    name: format!("bmc-{n}"),
                    ..Metadata::default()
                }),
                spec: Some(BmcSpec {
                    address: places.of(n).ip().to_string(),
                    credential: "all".into(),
                    scheme: scheme.into(),
                    port: places.of(n).port().into(),
                    ..BmcSpec::default()
                }),
                ..Bmc::default()
            };
            let request = bmc::CreateBmcRequest {
                bmc: Some(bmc),
                request_id: String::new(),
            };
            clients.bmcs.clone().create_bmc(request).await.unwrap();
        })
        .await;
    let known = || async {
        let (mut known, mut token) = (0, String::new());
        loop {
            let request = bmc::ListBmcsRequest {
                page_size: 1000,
                page_token: token,
                ..Default::default()
            };
            let page = clients.bmcs.clone().list_bmcs(request).await.unwrap().into_inner();
            known += page
                .bmcs
                .iter()
                .filter(|b| b.observed.as_ref().is_some_and(|o| !o.systems.is_empty()))
                .count();
            token = page.next_page_token;
            if token.is_empty() {
                return known;
            }
        }
    };
    while known().await < count {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// One sweep through the gateway: seconds, and systems whose power was read.
async fn sweep(clients: &Clients) -> (f64, usize) {
    let begin = Instant::now();
    let mut answers = clients
        .telemetry
        .clone()
        .sweep_power(bmc::SweepPowerRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut read = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        read += answer.readings.iter().filter(|r| r.reason.is_empty()).count();
    }
    (begin.elapsed().as_secs_f64(), read)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection of the bare generator: it knows as much of HTTP as it takes to see where an answer ends.
struct Bare {
    stream: Box<dyn Stream>,
    token: String,
    buffer: Vec<u8>,
}

impl Bare {
    async fn open(at: SocketAddr, tls: Option<&tokio_rustls::TlsConnector>) -> Self {
        let tcp = TcpStream::connect(at).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(tls.connect(ServerName::from(at.ip()), tcp).await.unwrap()),
            None => Box::new(tcp),
        };
        let mut bare = Self {
            stream,
            token: String::new(),
            buffer: Vec::with_capacity(8 << 10),
        };
        let body = r#"{"UserName":"admin","Password":"simulated"}"#;
        let request = format!(
            "POST /redfish/v1/SessionService/Sessions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            at.ip(),
            body.len()
        );
        let head = bare.call(request.as_bytes()).await;
        let line = head
            .lines()
            .find(|l| l.to_ascii_lowercase().starts_with("x-auth-token:"))
            .unwrap()
            .to_owned();
        bare.token = line.split(':').nth(1).unwrap().trim().to_owned();
        bare
    }

    /// Sends, reads one whole answer; its head.
    async fn call(&mut self, request: &[u8]) -> String {
        self.stream.write_all(request).await.unwrap();
        self.stream.flush().await.unwrap();
        self.buffer.clear();
        loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0);
            let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end]).unwrap();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |l| l.trim().parse::<usize>().unwrap());
            if self.buffer.len() >= end + 4 + length {
                return head.to_owned();
            }
        }
    }

    async fn read(&mut self) {
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: bmc\r\nAccept: application/json\r\nX-Auth-Token: {}\r\n\r\n",
            self.token
        );
        let head = self.call(request.as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(self.buffer.windows(12).any(|w| w == b"\"PowerState\""));
    }
}

async fn bare_sweep(all: &mut [Bare]) -> f64 {
    let begin = Instant::now();
    stream::iter(all.iter_mut()).for_each_concurrent(AT_ONCE, Bare::read).await;
    begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const SUSHY: &str = r#"
import resource, sys, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.CRITICAL)
import sushy
port, count, scheme = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
systems = []
for n in range(count):
    auth = sushy.auth.SessionAuth(username="admin", password="simulated")
    root = sushy.Sushy(f"{scheme}://127.80.{(n + 1) // 256}.{(n + 1) % 256}:{port}/redfish/v1", auth=auth, verify=False)
    systems.append(root.get_system("/redfish/v1/Systems/1"))
before = resource.getrusage(resource.RUSAGE_SELF)
reads = 0
for _ in range(1000 // count):
    for system in systems:
        system.invalidate(); system.refresh()
        assert system.power_state is not None
        reads += 1
after = resource.getrusage(resource.RUSAGE_SELF)
print((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / reads)
"#;

/// CPU seconds for one read with sushy; `None` without it.
fn sushy(port: u16, scheme: &str) -> Option<f64> {
    let python = PathBuf::from(std::env::var_os("IRONYARD_VENV")?).join("bin/python");
    let output = Command::new(python)
        // Over HTTPS it takes too long to log in to more.
        .args(["-c", SUSHY, &port.to_string(), if scheme == "http" { "500" } else { "50" }, scheme])
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connector() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// The admin API of the simulator.
fn admin(port: u16, method: &str, path: &str, body: &str) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
}

/// Reads of healthy BMCs while sweeps of all go on beside: how long each took, seconds.
async fn read_healthy(clients: &Clients, count: usize, hung: usize) -> Vec<f64> {
    let over = Arc::new(AtomicBool::new(false));
    let sweeps = tokio::spawn({
        let (clients, over) = (clients.clone(), over.clone());
        async move {
            let mut running = tokio::task::JoinSet::new();
            while !over.load(Ordering::Relaxed) {
                let clients = clients.clone();
                running.spawn(async move { sweep(&clients).await });
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            running.abort_all();
        }
    });
    let (next, end) = (AtomicUsize::new(0), Instant::now() + Duration::from_secs(8));
    let workers = (0..16).map(|_| async {
        let mut took = vec![];
        while Instant::now() < end {
            let n = hung + next.fetch_add(7919, Ordering::Relaxed) % (count - hung);
            let request = bmc::GetBiosRequest {
                system: Some(SystemName {
                    bmc: format!("bmc-{n}"),
                    system_id: "1".into(),
                    ..Default::default()
                }),
            };
            let begin = Instant::now();
            clients.systems.clone().get_bios(request).await.unwrap();
            took.push(begin.elapsed().as_secs_f64());
        }
        took
    });
    let all = futures_util::future::join_all(workers).await.concat();
    over.store(true, Ordering::Relaxed);
    sweeps.await.unwrap();
    all
}

fn p99(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() * 99 / 100]
}

#[tokio::main]
async fn main() {
    let count: usize = std::env::var("BMCS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut verdicts = vec![];
    let mut goal = |what: String, holds: bool| {
        println!("{} {what}", if holds { "ok  " } else { "MISS" });
        verdicts.push(holds);
    };
    {
        let (one, port) = simulator(FIRST[0], count, false);
        let places = Places {
            ports: [port, port],
            half: count,
        };
        let mut bare: Vec<Bare> = stream::iter(0..count)
            .map(|n| Bare::open(places.of(n), None))
            .buffered(64)
            .collect()
            .await;
        bare_sweep(&mut bare).await;
        let mib = one.kib() / 1024;
        goal(
            format!("a simulator of {count} BMCs, all of them connected, in {mib} MiB (goal: below 1024)"),
            mib < 1024,
        );
    }
    for tls in [false, true] {
        let scheme = if tls { "https" } else { "http" };
        let half = count / 2;
        let (first, port) = simulator(FIRST[0], half, tls);
        let (second, other) = simulator(FIRST[1], count - half, tls);
        let places = Places {
            ports: [port, other],
            half,
        };
        let folder = tempfile::tempdir().unwrap();
        let (gateway, clients) = gateway(folder.path()).await;
        let empty = gateway.kib();
        let begin = Instant::now();
        enroll(&clients, count, places, scheme).await;
        println!(
            "\n{scheme}: {count} BMCs enrolled and known after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        let connector = tls.then(connector);
        let (mut ours, mut theirs, mut cpu, mut reads, mut connected) = (vec![], vec![], 0.0, 0, 0);
        for round in 0..2 {
            let open = stream::iter(0..count).map(|n| Bare::open(places.of(n), connector.as_ref()));
            let mut bare: Vec<Bare> = open.buffered(64).collect().await;
            for _ in 0..5 {
                theirs.push(count as f64 / bare_sweep(&mut bare).await);
            }
            drop(bare);
            let (took, read) = sweep(&clients).await;
            println!("round {round}: a sweep that connects takes {took:.2} s, {read} read");
            for _ in 0..5 {
                let before = gateway.cpu();
                let (took, read) = sweep(&clients).await;
                assert_eq!(read, count);
                ours.push(count as f64 / took);
                cpu += gateway.cpu() - before;
                reads += read;
            }
            connected = connected.max(gateway.kib());
        }
        let (ours, theirs, each) = (median(ours), median(theirs), cpu / reads as f64);
        println!(
            "power sweep: gateway {ours:.0}/s, bare generator {theirs:.0}/s; gateway {:.0} µs CPU a read",
            each * 1e6
        );
        goal(
            format!("{scheme}: {:.2} of the bare generator's rate (goal: 0.6)", ours / theirs),
            ours / theirs >= 0.6,
        );
        match sushy(port, scheme) {
            Some(sushy) => {
                println!("sushy: {:.0} µs CPU a read", sushy * 1e6);
                goal(
                    format!("{scheme}: {:.0} times fewer CPU seconds a read than sushy (goal: 20)", sushy / each),
                    sushy / each >= 20.0,
                );
            }
            None => println!("*** SKIPPED: sushy: set IRONYARD_VENV ***"),
        }
        let kib = (connected.saturating_sub(empty)) as f64 / count as f64;
        println!(
            "gateway: {} MiB empty, {} MiB with {count} BMCs connected",
            empty / 1024,
            connected / 1024
        );
        if tls {
            goal(format!("{kib:.0} KiB for each connected TLS BMC (goal: below 64)"), kib < 64.0);
        }
        if !tls {
            let hung = count / 20;
            let (mut without, mut with) = (vec![], vec![]);
            // In turn, and all reads of one kind together: the machine's own moods are larger than what is looked for.
            for _ in 0..5 {
                without.extend(read_healthy(&clients, count, hung).await);
                for n in 0..hung {
                    admin(
                        port,
                        "POST",
                        &format!("/admin/bmcs/{n}/faults"),
                        r#"{"path": "/redfish", "action": "hang"}"#,
                    );
                }
                with.extend(read_healthy(&clients, count, hung).await);
                for n in 0..hung {
                    admin(port, "DELETE", &format!("/admin/bmcs/{n}/faults"), "");
                }
            }
            let counts = (without.len(), with.len());
            let (without, with) = (p99(without), p99(with));
            println!("p99 of healthy BMCs, none hung {without:.3} s, {hung} hung {with:.3} s ({counts:?} reads)");
            let ratio = with / without;
            goal(
                format!("p99 of healthy BMCs with 5 % hung: {ratio:.2} of without (goal: at most 1.10)"),
                ratio <= 1.10,
            );
        }
        println!("({}, {} and {} are stopped)", first.1, second.1, gateway.1);
    }
    if verdicts.contains(&false) {
        std::process::exit(1);
    }
}
