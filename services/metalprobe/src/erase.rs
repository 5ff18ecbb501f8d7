//! What a drive can do to erase itself, asked of and told to it with `nvme` (nvme-cli). Answers are read in the standard's binary layouts: what the
//! tool prints for people differs from release to release.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ironyard_types::EraseCommand;

use crate::Problem;

/// How long a drive may take to answer a question.
const QUESTION: Duration = Duration::from_secs(30);
/// How long an erase may take: a sanitize has no limit in the standard, and block and cryptographic erases take minutes.
const ERASE: Duration = Duration::from_secs(6 * 3600);
/// How often a tool and a drive are asked whether they are done.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The programs that speak to drives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    /// Where they are; absent: on the path.
    pub(crate) folder: Option<PathBuf>,
    /// How long an erase may take, where it is not the usual time.
    pub(crate) erase_limit: Option<Duration>,
}

impl Tools {
    /// Runs a program to its end, for so long at most.
    fn run(&self, program: &str, arguments: &[&str], device: &Path, most: Duration) -> Result<Vec<u8>, Problem> {
        let path = self
            .folder
            .as_ref()
            .map_or_else(|| PathBuf::from(program), |folder| folder.join(program));
        let what = format!("{program} {} {}", arguments.join(" "), device.display());
        let child = Command::new(path)
            .args(arguments)
            .arg(device)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|e| Problem(format!("{what}: {e}")))?;
        // Read while it runs: a full pipe would stop it.
        let (out, err) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        let Some(status) = wait(&mut child, most) else {
            let _ = child.kill();
            // One that hangs in the kernel stays; nobody waits for it.
            let _ = wait(&mut child, Duration::from_secs(2));
            return Err(Problem(format!("{what}: no answer within {} s", most.as_secs())));
        };
        let text = |thread: Option<std::thread::JoinHandle<Vec<u8>>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
        let (out, err) = (text(out), text(err));
        if status.success() {
            return Ok(out);
        }
        let said = [err, out].map(|bytes| String::from_utf8_lossy(&bytes).trim().replace('\n', "; "));
        let said: String = said.into_iter().find(|s| !s.is_empty()).unwrap_or_default();
        Err(Problem(format!("{what}: {status}: {}", said.chars().take(200).collect::<String>())))
    }

    /// The commands that the NVMe drive of this namespace says it has. None where it cannot be asked.
    pub(crate) fn nvme_commands(&self, namespace: &Path) -> Vec<EraseCommand> {
        let identify = self.run("nvme", &["id-ctrl", "--raw-binary"], namespace, QUESTION);
        identify.map(|bytes| nvme_commands(&bytes)).unwrap_or_default()
    }

    /// Erases an NVMe drive, of which these are the namespaces, and waits until it says that it is done.
    pub(crate) fn nvme_erase(&self, namespaces: &[PathBuf], command: EraseCommand) -> Result<(), Problem> {
        let first = namespaces
            .first()
            .ok_or_else(|| Problem("the drive shows no namespace".to_owned()))?;
        match command {
            EraseCommand::NvmeSanitizeBlock => self.nvme_sanitize(first, "--sanact=2"),
            EraseCommand::NvmeSanitizeCrypto => self.nvme_sanitize(first, "--sanact=4"),
            EraseCommand::NvmeFormat => self.nvme_format(namespaces, "--ses=1"),
            EraseCommand::NvmeFormatCrypto => self.nvme_format(namespaces, "--ses=2"),
            EraseCommand::Overwrite => Err(Problem("overwriting is no command of a drive".to_owned())),
        }
    }

    /// One sanitize is for the whole drive, with all of its namespaces.
    fn nvme_sanitize(&self, namespace: &Path, action: &str) -> Result<(), Problem> {
        self.run("nvme", &["sanitize", action], namespace, QUESTION)?;
        let (began, most) = (Instant::now(), self.erase_limit.unwrap_or(ERASE));
        loop {
            let log = self.run("nvme", &["sanitize-log", "--raw-binary"], namespace, QUESTION)?;
            match sanitize_status(&log)? {
                Sanitize::Done => return Ok(()),
                Sanitize::Working if began.elapsed() < most => {}
                Sanitize::Working => {
                    return Err(Problem(format!(
                        "{}: the sanitize has not ended after {} s",
                        namespace.display(),
                        most.as_secs()
                    )));
                }
                Sanitize::Failed => {
                    // Else the drive refuses everything, and the next way too.
                    let _ = self.run("nvme", &["sanitize", "--sanact=1"], namespace, QUESTION);
                    return Err(Problem(format!("{}: the sanitize has failed", namespace.display())));
                }
                Sanitize::Never => {
                    return Err(Problem(format!(
                        "{}: the drive accepted a sanitize and knows of none",
                        namespace.display()
                    )));
                }
            }
            std::thread::sleep(ASK_AGAIN * if began.elapsed() > QUESTION { 20 } else { 1 });
        }
    }

    /// Formats each namespace as it is formatted already. What is not named, the tool takes to be the drive's first format: another size of blocks.
    fn nvme_format(&self, namespaces: &[PathBuf], settings: &str) -> Result<(), Problem> {
        let most = self.erase_limit.unwrap_or(ERASE);
        let limit = format!("--timeout={}", most.as_millis().min(u128::from(u32::MAX)));
        let first = namespaces
            .first()
            .ok_or_else(|| Problem("the drive shows no namespace".to_owned()))?;
        let identify = self.run("nvme", &["id-ctrl", "--raw-binary"], first, QUESTION)?;
        // FNA (byte 524) bit 0.
        let all_at_once = identify
            .get(524)
            .ok_or_else(|| Problem(format!("{}: the drive does not say what a format is for", first.display())))?
            & 1
            == 1;
        let mut formats = Vec::new();
        for namespace in namespaces {
            let identify = self.run("nvme", &["id-ns", "--raw-binary"], namespace, QUESTION)?;
            let format = namespace_format(&identify);
            formats.push(format.ok_or_else(|| Problem(format!("{}: it does not say how it is formatted", namespace.display())))?);
        }
        if all_at_once && formats.iter().any(|format| Some(format) != formats.first()) {
            return Err(Problem(format!(
                "{}: a format is for all namespaces of the drive, which are formatted in different ways",
                first.display()
            )));
        }
        for (namespace, format) in namespaces.iter().zip(&formats) {
            let format: Vec<&str> = format.iter().map(String::as_str).collect();
            let arguments = [&["format", settings, "--force", &limit], &format[..]].concat();
            self.run("nvme", &arguments, namespace, most)?;
        }
        Ok(())
    }
}

/// From Identify Namespace, how it is formatted, in the tool's words: FLBAS (byte 26), whose bits 6:5 are the upper part of the format's number and
/// whose bit 4 tells where metadata lies, and DPS (byte 29), the protection information.
fn namespace_format(identify: &[u8]) -> Option<[String; 4]> {
    let (flbas, dps) = (*identify.get(26)?, *identify.get(29)?);
    Some([
        format!("--lbaf={}", (flbas >> 5 & 3) << 4 | flbas & 15),
        format!("--ms={}", flbas >> 4 & 1),
        format!("--pi={}", dps & 7),
        format!("--pil={}", dps >> 3 & 1),
    ])
}

fn drain(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Far more than any answer; what a tool says beyond that is nobody's.
        let _ = pipe.by_ref().take(1 << 20).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        bytes
    })
}

fn wait(child: &mut Child, most: Duration) -> Option<std::process::ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if began.elapsed() < most => std::thread::sleep(ASK_AGAIN.min(began.elapsed().max(Duration::from_millis(5)))),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// From Identify Controller: OACS (byte 256) bit 1, format; SANICAP (byte 328) bit 0, cryptographic erase, bit 1, block erase; FNA (byte 524) bit 2,
/// a format that erases cryptographically.
fn nvme_commands(identify: &[u8]) -> Vec<EraseCommand> {
    // A short answer is none.
    if identify.len() < 4096 {
        return vec![];
    }
    let has = |byte: usize, bit: u8| identify.get(byte).is_some_and(|byte| byte >> bit & 1 == 1);
    let format = has(256, 1);
    [
        (has(328, 1), EraseCommand::NvmeSanitizeBlock),
        (has(328, 0), EraseCommand::NvmeSanitizeCrypto),
        (format && has(524, 2), EraseCommand::NvmeFormatCrypto),
        (format, EraseCommand::NvmeFormat),
    ]
    .into_iter()
    .filter_map(|(offered, command)| offered.then_some(command))
    .collect()
}

#[derive(Debug, PartialEq)]
enum Sanitize {
    Never,
    Working,
    Done,
    Failed,
}

/// From the sanitize status log (page 81h): the lowest three bits of SSTAT, byte 2.
fn sanitize_status(log: &[u8]) -> Result<Sanitize, Problem> {
    match log.get(2).map(|status| status & 7) {
        Some(0) => Ok(Sanitize::Never),
        Some(1 | 4) => Ok(Sanitize::Done),
        Some(2) => Ok(Sanitize::Working),
        Some(3) => Ok(Sanitize::Failed),
        other => Err(Problem(format!("the drive tells a sanitize status that is none: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use ironyard_types::Category;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Machine as _, linux::Linux, sampling};

    /// A machine with one NVMe drive of two namespaces, reached by the tools of `tests/foreign/drive_tools`, which were written from the standard and
    /// from nvme-cli's sources by somebody who had not read this.
    struct Lab {
        folder: tempfile::TempDir,
        machine: Linux,
    }

    impl Lab {
        fn new(drive: &Value, state: &Value) -> Option<Self> {
            if Command::new("python3").arg("--version").output().is_err() {
                ironyard_testkit::skip("erasing with the commands of drives", "python3 is not here");
                return None;
            }
            let folder = tempfile::tempdir().unwrap();
            let put = |path: &str, text: &str| {
                let path = folder.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            put("proc/sys/vm/drop_caches", "");
            for name in ["nvme0n1", "nvme0n2"] {
                put(&format!("sys/block/{name}/device/serial"), "N1\n");
                put(&format!("sys/block/{name}/wwid"), &format!("{name}\n"));
                put(&format!("sys/block/{name}/size"), "64\n");
                put(&format!("dev/{name}"), &"x".repeat(64 * 512));
            }
            put("dev/nvme0.drive.json", &drive.to_string());
            put("dev/nvme0.state.json", &state.to_string());
            let mut machine = Linux::new(folder.path());
            machine.tools = Tools {
                folder: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/foreign/drive_tools")),
                erase_limit: Some(Duration::from_secs(2)),
            };
            Some(Self { folder, machine })
        }

        /// Marks and erases the drive with what it offers.
        fn erase(&self, minimum: Category) -> (Result<EraseCommand, Problem>, Vec<String>) {
            let offered = self.machine.hardware().drives[0].erase_commands.clone();
            sampling::mark_drive(&self.machine, "seed", "N1").unwrap();
            sampling::erase(&self.machine, "seed", "N1", &EraseCommand::ranked(&offered, minimum))
        }

        fn is_blank(&self) -> bool {
            let blank = |name: &str| {
                let bytes = std::fs::read(self.folder.path().join("dev").join(name)).unwrap();
                bytes.len() == 64 * 512 && bytes.iter().all(|b| *b == 0)
            };
            blank("nvme0n1") && blank("nvme0n2")
        }

        /// The format of each namespace's blocks.
        fn formats(&self) -> Value {
            let state = std::fs::read_to_string(self.folder.path().join("dev/nvme0.state.json")).unwrap();
            serde_json::from_str::<Value>(&state).unwrap()["lbaf"].clone()
        }
    }

    #[test]
    fn what_refuses_fails_lies_or_never_ends_is_followed_by_the_next_way_and_told() {
        for fault in [
            None,
            Some("refuses"),
            Some("fails"),
            Some("lies"),
            Some("lies_half"),
            Some("silent"),
        ] {
            let drive = json!({"kind": "nvme", "sanitize": ["block"], "format": true, "fault": fault});
            let Some(lab) = Lab::new(&drive, &json!({})) else { return };
            // Where nothing weaker is allowed, nothing else is tried.
            let (purged, tried) = lab.erase(Category::Purge);
            assert_eq!(purged.is_ok(), fault.is_none(), "{fault:?}: {purged:?}");
            assert_eq!(tried.len(), usize::from(fault.is_some()), "{fault:?}: {tried:?}");
            let (erased, tried) = lab.erase(Category::Clear);
            let names: Vec<&str> = tried.iter().filter_map(|t| Some(t.split_once(':')?.0)).collect();
            match fault {
                None => assert_eq!((erased, names), (Ok(EraseCommand::NvmeSanitizeBlock), vec![])),
                Some(_) => assert_eq!(
                    (erased, names),
                    (Ok(EraseCommand::Overwrite), vec!["NvmeSanitizeBlock", "NvmeFormat"]),
                    "{fault:?}: {tried:?}"
                ),
            }
            assert!(lab.is_blank(), "{fault:?}");
        }
    }

    #[test]
    fn a_drive_that_vanishes_is_not_erased() {
        let drive = json!({"kind": "nvme", "sanitize": ["block"], "format": true, "fault": "vanishes"});
        let Some(lab) = Lab::new(&drive, &json!({})) else { return };
        let (erased, tried) = lab.erase(Category::Clear);
        assert!(erased.is_err() && tried.len() == 3, "{erased:?}: {tried:?}");
    }

    #[test]
    fn a_cryptographic_erase_may_leave_noise() {
        let drive = json!({"kind": "nvme", "sanitize": ["crypto"]});
        let Some(lab) = Lab::new(&drive, &json!({})) else { return };
        assert_eq!(lab.erase(Category::Purge), (Ok(EraseCommand::NvmeSanitizeCrypto), vec![]));
    }

    #[test]
    fn a_namespace_says_how_it_is_formatted() {
        let mut identify = vec![0; 4096];
        (identify[26], identify[29]) = (0b0011_0010, 0b1001);
        assert_eq!(namespace_format(&identify).unwrap(), ["--lbaf=18", "--ms=1", "--pi=1", "--pil=1"]);
        assert!(namespace_format(&identify[..29]).is_none());
    }

    #[test]
    fn a_format_keeps_the_size_of_blocks() {
        for (all, formats, by) in [
            (false, json!({"1": 1, "2": 1}), EraseCommand::NvmeFormat),
            (false, json!({"1": 0, "2": 1}), EraseCommand::NvmeFormat),
            (true, json!({"1": 1, "2": 1}), EraseCommand::NvmeFormat),
            // One format is for all of them, so one would change.
            (true, json!({"1": 0, "2": 1}), EraseCommand::Overwrite),
        ] {
            let drive = json!({"kind": "nvme", "format": true, "format_all_namespaces": all});
            let Some(lab) = Lab::new(&drive, &json!({ "lbaf": formats })) else {
                return;
            };
            let (erased, tried) = lab.erase(Category::Clear);
            assert_eq!(lab.formats(), formats, "for all: {all}: {tried:?}");
            assert_eq!(erased, Ok(by), "{tried:?}");
            assert!(lab.is_blank());
        }
    }

    #[test]
    fn identify_tells_what_a_drive_can_do() {
        let mut identify = vec![0; 4096];
        assert!(nvme_commands(&identify).is_empty());
        identify[256] = 2;
        assert_eq!(nvme_commands(&identify), [EraseCommand::NvmeFormat]);
        (identify[328], identify[524]) = (3, 4);
        assert_eq!(nvme_commands(&identify).len(), 4);
        identify[256] = 0;
        assert_eq!(
            nvme_commands(&identify),
            [EraseCommand::NvmeSanitizeBlock, EraseCommand::NvmeSanitizeCrypto]
        );
        assert!(nvme_commands(&identify[..4095]).is_empty());
    }

    #[test]
    fn a_program_that_is_not_there_fails_or_hangs_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let tools = Tools {
            folder: Some(folder.path().to_owned()),
            erase_limit: None,
        };
        let device = Path::new("/dev/nvme0n1");
        assert!(tools.nvme_commands(device).is_empty());
        let bin = |program: &str, arguments: &[&str]| {
            let tools = Tools {
                folder: Some("/bin".into()),
                erase_limit: None,
            };
            tools.run(program, arguments, Path::new("30"), Duration::from_millis(50))
        };
        assert!(bin("sleep", &[]).unwrap_err().0.contains("no answer"));
        assert!(bin("false", &[]).unwrap_err().0.contains("exit status: 1"));
        assert_eq!(bin("echo", &["a"]).unwrap(), b"a 30\n");
    }
}
