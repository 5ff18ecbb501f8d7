//! Consoles over a real OpenSSH server: each login is given a shell that behaves as the BMC families' do.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ironyard_bmc_simulator::Timing;
use ironyard_proto::bmc::{self, attach_request::Part};
use ironyard_testkit::{poll, skip};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::gateway::{Alone, enroll, fleet, get_bmc, ready, reason_of, served, system};

/// What the families' shells show, and what they take. A host behind the console answers in capitals.
const SHELL: &str = r#"#!/bin/bash
case "$1" in
  idrac) prompt="racadm>>"; enter="connect com2"; leave=$'\x1c' ;;
  ilo) prompt="</>hpiLO->"; enter="vsp"; leave=$'\x1b(' ;;
  xcc) prompt="system>"; enter="console 1"; leave=$'\x1b(' ;;
  openbmc) prompt=""; enter=""; leave="~." ;;
esac
stty -echo raw 2>/dev/null
printf 'welcome to %s\r\n' "$1"
if [ -n "$prompt" ]; then
  printf '%s' "$prompt"
  line=""
  while IFS= read -r -n1 -d '' c; do
    if [ "$c" = $'\r' ] || [ "$c" = $'\n' ]; then
      [ "$line" = "$enter" ] && break
      printf '%s\r\n%s' "ran $line" "$prompt"
      line=""
    else
      line="$line$c"
    fi
  done
fi
printf 'serial console ready\r\n'
typed=""
while IFS= read -r -n1 -d '' c; do
  typed="$typed$c"
  case "$typed" in *"$leave") printf 'left\r\n'; exit 0 ;; esac
  printf '%s' "${c^^}"
done
"#;

struct Sshd {
    server: Child,
    port: u16,
    /// The one who may log in, for as long as the server runs.
    user: String,
    password: String,
    folder: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        // A shell of its may live a moment longer.
        run("userdel", &["--force", &self.user]);
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn run(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|s| s.success())
}

/// An OpenSSH server on loopback whose every login gets the shell of a family; `None` where there is none, or nobody may make a user.
async fn sshd(family: &str, key: &str) -> Option<Sshd> {
    let program = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).is_file());
    let Some(program) = program else {
        skip("consoles over SSH", "there is no sshd: install openssh-server");
        return None;
    };
    // It makes a user: only where somebody has said that nothing may be skipped.
    if std::env::var_os("IRONYARD_REQUIRE_ALL").is_none() {
        skip(
            "consoles over SSH",
            "it makes a user for a while: set IRONYARD_REQUIRE_ALL, as root",
        );
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (user, password) = (format!("ironyard-console-{port}"), ironyard_types::random_password());
    assert!(
        run("useradd", &["--system", "--shell", "/bin/bash", &user]),
        "a user cannot be made: run as root"
    );
    let set = format!("echo '{user}:{password}' | chpasswd");
    assert!(run("sh", &["-c", &set]));
    fs::create_dir_all("/run/sshd").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    write(&at("shell"), SHELL, 0o755);
    assert!(run(
        "ssh-keygen",
        &["-q", "-t", key, "-N", "", "-f", &at("key").display().to_string()]
    ));
    let config = format!(
        "Port {port}\nListenAddress {ADDRESS}\nHostKey {}\nPidFile {}\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\nUsePAM no\n\
        PermitRootLogin no\nAllowUsers {user}\nPrintMotd no\nForceCommand {} {family}\n",
        at("key").display(),
        at("pid").display(),
        at("shell").display(),
    );
    write(&at("config"), &config, 0o644);
    let child = Command::new(program)
        .args(["-D", "-e", "-f", &at("config").display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(at("log")).unwrap())
        .spawn()
        .unwrap();
    let mut sshd = Sshd {
        server: child,
        port,
        user,
        password,
        folder,
    };
    let log = sshd.folder.path().join("log");
    let server = std::cell::RefCell::new(&mut sshd.server);
    poll::until("the SSH server listens", || async {
        if let Ok(Some(_)) = server.borrow_mut().try_wait() {
            panic!("the SSH server ended: {}", fs::read_to_string(&log).unwrap_or_default());
        }
        tokio::net::TcpStream::connect((ADDRESS, port)).await.ok().map(drop)
    })
    .await;
    Some(sshd)
}

const ADDRESS: &str = "127.96.0.1";

struct Session {
    typed: mpsc::Sender<bmc::AttachRequest>,
    shown: Streaming<bmc::AttachResponse>,
    text: String,
}

impl Session {
    async fn attach(alone: &Alone, name: &str, read_only: bool) -> Result<Self, Status> {
        let (typed, requests) = mpsc::channel(16);
        let head = bmc::AttachHead {
            system: system(name),
            read_only,
        };
        typed
            .send(bmc::AttachRequest {
                part: Some(Part::Head(head)),
            })
            .await
            .unwrap();
        let shown = alone
            .clients
            .consoles
            .clone()
            .attach(ReceiverStream::new(requests))
            .await?
            .into_inner();
        Ok(Self {
            typed,
            shown,
            text: String::new(),
        })
    }

    async fn types(&self, bytes: &[u8]) {
        let part = Some(Part::Data(bytes.to_vec()));
        self.typed.send(bmc::AttachRequest { part }).await.unwrap();
    }

    /// Reads until the text was shown.
    async fn shows(&mut self, part: &str) {
        let wait = async {
            while !self.text.contains(part) {
                let next = self
                    .shown
                    .message()
                    .await
                    .unwrap()
                    .unwrap_or_else(|| panic!("it ended at {:?}", self.text));
                self.text.push_str(&String::from_utf8_lossy(&next.data));
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok();
        assert!(seen, "{part:?} is not in {:?}", self.text);
    }
}

async fn change(alone: &Alone, name: &str, change: impl Fn(&mut bmc::BmcSpec)) {
    let mut bmc = get_bmc(&alone.clients, name).await.unwrap();
    change(bmc.spec.as_mut().unwrap());
    bmc.metadata.as_mut().unwrap().etag.clear();
    let request = bmc::UpdateBmcRequest {
        bmc: Some(bmc),
        update_mask: None,
        request_id: String::new(),
    };
    alone.clients.bmcs.clone().update_bmc(request).await.unwrap();
}

async fn fails(alone: &Alone, name: &str, read_only: bool) -> (Code, String) {
    match Session::attach(alone, name, read_only).await {
        Ok(_) => panic!("it attached"),
        Err(status) => (status.code(), reason_of(&status)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_of_four_families_over_openssh() {
    for (n, family, escape, after) in [
        (1, "idrac", &b"\x1c"[..], ""),
        (2, "ilo", b"\x1b(", "\u{1b}"),
        (3, "xcc", b"\x1b(", "\u{1b}"),
        (6, "openbmc", b"~.", "~"),
    ] {
        let Some(sshd) = sshd(family, "ed25519").await else { return };
        let (fleet, mut config) = fleet(7, [127, 96, 0, 1], Timing::default(), true);
        config.username.clone_from(&sshd.user);
        config.password.clone_from(&sshd.password);
        let fleet = ironyard_bmc_simulator::Fleet::of(
            fleet
                .machines()
                .iter()
                .map(|m| ironyard_bmc_simulator::MachineConfig {
                    username: config.username.clone(),
                    password: config.password.clone(),
                    // One address for all: the SSH server listens there.
                    address: if m.config.number == n {
                        ADDRESS.parse().unwrap()
                    } else {
                        m.config.address
                    },
                    ..m.config.clone()
                })
                .filter(|m| m.number == n),
            None,
        );
        let serving = served(&fleet, false);
        let alone = Alone::start(|_| {}).await;
        let machine = fleet.machines()[0].clone();
        let name = enroll(&alone.clients, &machine, &config, serving.port, "http").await;
        ready(&alone.clients, &name).await;
        change(&alone, &name, |spec| spec.console_port = sshd.port.into()).await;

        let mut writer = Session::attach(&alone, &name, false)
            .await
            .unwrap_or_else(|e| panic!("{family}: {e:?}"));
        writer.shows("serial console ready").await;
        writer.types(b"root ").await;
        writer.shows("ROOT").await;
        // A second one sees what was shown before, and may read but not write.
        assert_eq!(fails(&alone, &name, false).await.1, "CONSOLE_BUSY");
        let mut reader = Session::attach(&alone, &name, true).await.unwrap();
        reader.shows("ROOT").await;
        // What would leave the console is kept back, also in pieces; what is typed next arrives.
        for byte in escape {
            writer.types(&[*byte]).await;
        }
        writer.types(b"uptime ").await;
        let seen = format!("ROOT {after}UPTIME");
        writer.shows(&seen).await;
        reader.shows(&seen).await;
        assert!(!writer.text.contains("left"), "{family}: {:?}", writer.text);
        let request = bmc::GetConsoleLogRequest { system: system(&name) };
        let log = alone
            .clients
            .consoles
            .clone()
            .get_console_log(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(log.attached && String::from_utf8_lossy(&log.data).contains("UPTIME"));
        // The host key that came first is pinned now; another one is refused.
        let pinned = get_bmc(&alone.clients, &name).await.unwrap();
        assert!(pinned.spec.unwrap().console_host_key.is_empty());
        drop((writer, reader));
        poll::until("the console is left", || async {
            let log = alone
                .clients
                .consoles
                .clone()
                .get_console_log(request.clone())
                .await
                .ok()?
                .into_inner();
            (!log.attached).then_some(())
        })
        .await;
        change(&alone, &name, |spec| spec.console_host_key = format!("SHA256:{}", "A".repeat(43))).await;
        assert_eq!(fails(&alone, &name, true).await.1, "CONSOLE_HOST_KEY_REFUSED", "{family}");
        change(&alone, &name, |spec| spec.console_host_key.clear()).await;
        // The first key is still the one: the same server is taken again.
        let mut again = Session::attach(&alone, &name, true).await.unwrap();
        again.shows("serial console ready").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_that_cannot_be_say_why() {
    let (fleet, config) = fleet(7, [127, 96, 1, 1], Timing::default(), true);
    let serving = served(&fleet, false);
    let alone = Alone::start(|_| {}).await;
    let machines = fleet.machines();
    let ami = enroll(&alone.clients, &machines[5], &config, serving.port, "http").await;
    ready(&alone.clients, &ami).await;
    assert_eq!(
        fails(&alone, &ami, false).await,
        (Code::FailedPrecondition, "BMC_UNSUPPORTED".into())
    );
    let dell = enroll(&alone.clients, &machines[1], &config, serving.port, "http").await;
    ready(&alone.clients, &dell).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    change(&alone, &dell, |spec| spec.console_port = port.into()).await;
    assert_eq!(fails(&alone, &dell, false).await, (Code::Unavailable, "BMC_UNREACHABLE".into()));
    change(&alone, &dell, |spec| spec.console_protocol = "IPMI".into()).await;
    assert_eq!(fails(&alone, &dell, false).await.1, "BMC_UNSUPPORTED");
    // RSA host keys are not taken.
    let Some(sshd) = sshd("idrac", "rsa").await else { return };
    let (spec_port, address) = (sshd.port, ADDRESS);
    change(&alone, &dell, |spec| {
        spec.console_protocol.clear();
        spec.console_port = spec_port.into();
        spec.address = address.to_owned();
    })
    .await;
    assert_eq!(fails(&alone, &dell, false).await.1, "BMC_UNREACHABLE");
}
