//! A whole life on a machine that we did not write: UEFI firmware and a Linux kernel in QEMU, switched by libvirt, behind sushy-emulator.
//!
//! `IRONYARD_AGENT_IMAGE` is the ISO that `deploy/images/agent/build` makes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ironyard::client::Clients;
use ironyard_proto::inventory::{GetServerRequest, Server, ServerState};
use ironyard_testkit::poll;
use serde_json::Value;

use crate::{
    crash::{Process, free_port},
    seed::cli,
    sushy::{Killed, emulator, started},
};

const UUID: &str = "0f000000-0000-4000-8000-0000000000bb";
const DRIVES: [(&str, &str); 4] = [
    ("nvme1", "NVME0001"),
    ("nvme2", "NVME0001"),
    ("sata", "SATA0001"),
    ("scsi", "SCSI0001"),
];
const MIB: usize = 64;
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

/// The machine and what switches it; gone with this.
struct Lab {
    _emulator: Killed,
    _libvirt: Killed,
    folder: tempfile::TempDir,
    port: u16,
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A session of libvirt's needs no daemon of the system, but a user: root has none.
fn as_user(folder: &Path, program: &str) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--pdeathsig=KILL",
            "--",
            program,
        ]);
        command
    } else {
        Command::new(program)
    };
    for (name, at) in [
        ("RUNTIME_DIR", "run"),
        ("CONFIG_HOME", "config"),
        ("DATA_HOME", "data"),
        ("CACHE_HOME", "cache"),
    ] {
        command.env(format!("XDG_{name}"), folder.join(at));
    }
    command.env("HOME", folder.join("data")).current_dir(folder);
    command
}

impl Lab {
    async fn start() -> Option<(Self, PathBuf)> {
        let program = emulator()?;
        let image = std::env::var_os("IRONYARD_AGENT_IMAGE")
            .map(PathBuf::from)
            .filter(|image| image.is_file());
        let missing = ["libvirtd", "virsh", "qemu-system-x86_64"].into_iter().find(|tool| {
            let there = |folder: &str| Path::new(folder).join(tool).is_file();
            !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].into_iter().any(there)
        });
        let missing = missing.or((!Path::new(FIRMWARE).is_file()).then_some("OVMF"));
        let Some(image) = image.filter(|_| missing.is_none()) else {
            let why = missing.map_or("IRONYARD_AGENT_IMAGE names no image".to_owned(), |tool| {
                format!("{tool} is not here")
            });
            ironyard_testkit::skip("the machine with a real firmware", &why);
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
        let user = || {
            Some(
                String::from_utf8_lossy(&Command::new("id").args(["-u", "postgres"]).output().ok()?.stdout)
                    .trim()
                    .parse()
                    .unwrap(),
            )
        };
        for part in ["run", "config", "data", "cache", "disks", "media"] {
            fs::create_dir(root.join(part)).unwrap();
            if is_root() {
                chown(root.join(part), user(), None).unwrap();
            }
        }
        for (name, _) in DRIVES {
            plant(&root.join("disks").join(format!("{name}.img")));
            if is_root() {
                chown(root.join("disks").join(format!("{name}.img")), user(), None).unwrap();
            }
        }
        let log = fs::File::create(root.join("libvirtd.log")).unwrap();
        let libvirt = Killed(
            as_user(root, "libvirtd")
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
        let socket = root.join("run/libvirt/libvirt-sock");
        poll::until("libvirt answers", || async { socket.exists().then_some(()) }).await;
        let port = free_port();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_BOOT_LOADER_MAP = {{'UEFI': {{'x86_64': '{FIRMWARE}'}}, 'Legacy': {{'x86_64': None}}}}\n",
            root.display()
        );
        let mut command = Command::new(program);
        command.args(["--libvirt-uri", &format!("qemu+unix:///session?socket={}", socket.display())]);
        let emulator = started(&mut command, root, &config, port).await;
        let lab = Self {
            _emulator: emulator,
            _libvirt: libvirt,
            port,
            folder,
        };
        lab.virsh(&["pool-define-as", "default", "dir", "--target", &lab.at("media")]);
        lab.virsh(&["pool-start", "default"]);
        lab.define(false);
        Some((lab, image))
    }

    fn at(&self, path: &str) -> String {
        self.folder.path().join(path).display().to_string()
    }

    fn virsh(&self, arguments: &[&str]) {
        let mut command = as_user(self.folder.path(), "virsh");
        let output = command.args(["-q", "-c", "qemu:///session"]).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Two network interfaces, an NVMe drive of two namespaces, a SATA and a SCSI disk, which may fail at each write.
    fn define(&self, scsi_fails: bool) {
        let file = |name: &str| self.at(&format!("disks/{name}.img"));
        let node = |name: &str| format!("driver=file,node-name={name},filename={},cache.no-flush=on", file(name));
        let scsi = match scsi_fails {
            false => format!("driver=raw,node-name=bad,file.driver=file,file.filename={}", file("scsi")),
            true => format!(
                "driver=blkdebug,node-name=bad,image.driver=file,image.filename={},inject-error.0.event=pwritev,inject-error.0.errno=5",
                file("scsi")
            ),
        };
        let arguments = [
            ("-blockdev", node("nvme1")),
            ("-blockdev", node("nvme2")),
            ("-device", "nvme,id=nv,serial=NVME0001,addr=0x1a".to_owned()),
            ("-device", "nvme-ns,drive=nvme1,bus=nv,nsid=1".to_owned()),
            ("-device", "nvme-ns,drive=nvme2,bus=nv,nsid=2".to_owned()),
            ("-blockdev", scsi),
            ("-device", "virtio-scsi-pci,id=vs,addr=0x1b".to_owned()),
            ("-device", "scsi-hd,drive=bad,bus=vs.0,serial=SCSI0001,write-cache=on".to_owned()),
        ];
        let arguments: String = arguments
            .iter()
            .map(|(name, value)| format!("<qemu:arg value='{name}'/><qemu:arg value='{value}'/>"))
            .collect();
        let domain = format!(
            r"<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>machine</name><uuid>{UUID}</uuid><memory unit='MiB'>512</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>{FIRMWARE}</loader>
  <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{}</nvram><boot dev='hd'/></os>
  <features><acpi/></features><cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/><source file='{}'/><target dev='sda' bus='sata'/><serial>SATA0001</serial></disk>
  <interface type='user'><mac address='52:54:00:00:00:01'/><model type='e1000e'/></interface>
  <interface type='user'><mac address='52:54:00:00:00:02'/><model type='virtio'/></interface>
  <serial type='file'><source path='{}' append='on'/></serial><video><model type='none'/></video><memballoon model='none'/></devices>
  <qemu:commandline>{arguments}</qemu:commandline></domain>",
            self.at("disks/vars.fd"),
            file("sata"),
            self.at("disks/serial.log"),
        );
        let at = self.folder.path().join("domain.xml");
        fs::write(&at, domain).unwrap();
        self.virsh(&["define", &at.display().to_string()]);
    }

    /// What the machine has written to its console.
    fn console(&self) -> String {
        fs::read(self.at("disks/serial.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How much of what a tenant wrote is left on a drive, as read from outside.
    fn left(&self, name: &str) -> usize {
        let bytes = fs::read(self.at(&format!("disks/{name}.img"))).unwrap();
        bytes.chunks(32).filter(|chunk| chunk.starts_with(PATTERN)).count()
    }

    fn plant(&self) {
        DRIVES
            .iter()
            .for_each(|(name, _)| plant(&self.folder.path().join("disks").join(format!("{name}.img"))));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut command = as_user(self.folder.path(), "virsh");
        let _ = command
            .args(["-q", "-c", "qemu:///session", "destroy", "machine"])
            .stderr(Stdio::null())
            .status();
    }
}

const PATTERN: &[u8] = b"what a tenant has left behind.. ";

fn plant(file: &Path) {
    fs::write(file, PATTERN.repeat(MIB * (1 << 20) / PATTERN.len())).unwrap();
}

async fn server(clients: &Clients, name: &str) -> Option<Server> {
    let request = GetServerRequest { name: name.to_owned() };
    clients
        .servers
        .clone()
        .get_server(request)
        .await
        .ok()
        .map(tonic::Response::into_inner)
}

/// Waits for a state; a failure is told with the console's last lines.
async fn reaches(lab: &Lab, clients: &Clients, name: &str, wanted: ServerState) -> Server {
    poll::within(
        Duration::from_secs(400),
        &format!("the machine is {}", wanted.as_str_name()),
        || async {
            let server = server(clients, name).await?;
            let failed = server.state() == ServerState::Error && wanted != ServerState::Error;
            let console = lab.console();
            let last = console.get(console.len().saturating_sub(2000)..).unwrap_or_default();
            assert!(!failed, "{:?}\n{last}", server.failure);
            (server.state() == wanted).then_some(server)
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_real_firmware_lives_its_life() {
    let Some((lab, image)) = Lab::start().await else { return };
    let (port, images, data) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let up = || {
        let arguments = [
            ("--first-wipe", "waive".to_owned()),
            ("--in-band", "required".to_owned()),
            ("--agent-image", image.display().to_string()),
            ("--agent-image-listen", format!("127.0.0.1:{images}")),
            // The host, as a machine behind QEMU's own network sees it.
            ("--agent-url", format!("http://10.0.2.2:{port}")),
            ("--port", port.to_string()),
            ("--data", data.path().display().to_string()),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        Process::start(&["up".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>())
    };
    let mut running = up();
    let address = format!("http://127.0.0.1:{port}");
    let clients = Clients::at(&address).unwrap();
    let documents = format!(
        "apiVersion: v1alpha1\nkind: Endpoint\nmetadata:\n  name: lab\nspec:\n  macAddress: 02:00:00:00:00:01\n  ip: 127.0.0.1\n---\napiVersion: v1alpha1\nkind: BMC\nmetadata:\n  name: lab\nspec:\n  endpointRef:\n    name: lab\n  protocol:\n    name: Redfish\n    scheme: http\n    port: {}\n",
        lab.port
    );
    let file = data.path().join("lab.yaml");
    fs::write(&file, documents).unwrap();
    cli(&address, &["apply", "-f", &file.display().to_string()]).unwrap();
    let name = format!("lab-{UUID}");

    // Found from outside and from inside, without another touch.
    let found = reaches(&lab, &clients, &name, ServerState::Available).await;
    let hardware = found.observed.unwrap().hardware.unwrap();
    let size = |count: usize| i64::try_from(count * MIB * (1 << 20)).unwrap();
    let mut drives: Vec<_> = hardware
        .drives
        .iter()
        .map(|d| (d.serial_number.as_str(), d.capacity_bytes))
        .collect();
    drives.sort_unstable();
    assert_eq!(drives, [("NVME0001", size(2)), ("SATA0001", size(1)), ("SCSI0001", size(1))]);
    let mut macs: Vec<_> = hardware.network_interfaces.iter().map(|nic| nic.mac_address.as_str()).collect();
    macs.sort_unstable();
    assert_eq!(macs, ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
    assert_eq!(
        (hardware.system_uuid.as_str(), hardware.memory_mib, hardware.processors.len()),
        (UUID, 512, 2)
    );
    assert_eq!(hardware.memory_modules.iter().map(|m| m.capacity_mib).sum::<i64>(), 512);
    assert!(DRIVES.iter().all(|(name, _)| lab.left(name) > 0), "looking erases nothing");

    // Claimed, used, given back; whoever runs it is killed in the middle of the wipe.
    cli(&address, &["claim", "mine", "--on"]).unwrap();
    cli(&address, &["wait", "claim", "mine", "--for", "power=On", "--timeout", "60s"]).unwrap();
    cli(&address, &["release", "mine"]).unwrap();
    poll::within(Duration::from_secs(300), "the agent is told to wipe", || async {
        lab.console().contains("AGENT_VERB_MARK").then_some(())
    })
    .await;
    drop(running);
    running = up();
    reaches(&lab, &clients, &name, ServerState::Available).await;
    for (drive, _) in DRIVES {
        assert_eq!(lab.left(drive), 0, "of {drive}, read from outside");
    }
    let certificates: Value = serde_json::from_str(&cli(&address, &["get", "certificates", "-o", "json"]).unwrap()).unwrap();
    let certificate = &certificates["items"][0];
    assert_eq!(certificate["passed"], true, "{certificate}");
    let mut named: Vec<_> = certificate["drives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["serialNumber"].as_str().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["NVME0001", "SATA0001", "SCSI0001"], "{certificate}");
    // QEMU's NVMe drive knows Format NVM, and no sanitize; the others can only be overwritten.
    for drive in certificate["drives"].as_array().unwrap() {
        let (command, evidence) = match drive["serialNumber"].as_str() {
            Some("NVME0001") => ("NvmeFormat", "ReportedByDrive"),
            _ => ("Overwrite", "OverwrittenByAgent"),
        };
        assert_eq!(drive["eraseCommand"], command, "{certificate}");
        assert!(drive["evidence"].as_array().unwrap().iter().any(|e| e == evidence), "{certificate}");
    }

    // A drive that fails is named, and nothing passes.
    lab.plant();
    lab.define(true);
    cli(&address, &["claim", "again", "--on"]).unwrap();
    cli(&address, &["wait", "claim", "again", "--for", "power=On", "--timeout", "60s"]).unwrap();
    cli(&address, &["release", "again"]).unwrap();
    let failed = reaches(&lab, &clients, &name, ServerState::Error).await;
    let failure = failed.failure.unwrap();
    assert!(failure.message.contains("SCSI0001"), "{failure:?}");
    assert!(failed.sanitization_debt.is_some(), "{failure:?}");
    let request = ironyard_proto::claim::ListCertificatesRequest::default();
    let certificates = clients
        .sanitization
        .clone()
        .list_certificates(request)
        .await
        .unwrap()
        .into_inner()
        .certificates;
    let passed: Vec<_> = certificates.iter().map(|c| c.passed).collect();
    assert_eq!(passed, [false, true], "{certificates:?}");
    drop(running);
}
