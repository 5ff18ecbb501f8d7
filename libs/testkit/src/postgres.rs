use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A PostgreSQL server of the test's own, gone with it.
pub struct Postgres {
    server: Child,
    port: u16,
    _folder: TempDir,
}

fn binary(name: &str) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"));
    debian.chain(on_path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Counts statements, where that extension is there.
fn counting(postgres: &Path) -> Vec<String> {
    let beside = postgres
        .parent()
        .and_then(Path::parent)
        .map(|root| root.join("lib/pg_stat_statements.so"));
    match beside {
        Some(library) if library.is_file() => vec!["-c".to_owned(), "shared_preload_libraries=pg_stat_statements".to_owned()],
        Some(_) | None => vec![],
    }
}

/// PostgreSQL refuses to run as root.
fn command(program: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"));
    if root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Postgres {
    /// Starts a server; says loudly when there is none to start.
    pub async fn start() -> Option<Self> {
        match Self::try_start(false).await {
            Ok(server) => Some(server),
            Err(why) => {
                crate::skip("the PostgreSQL half", &why);
                None
            }
        }
    }

    /// One whose commits reach the disk, for benchmarks.
    pub async fn durable() -> Option<Self> {
        match Self::try_start(true).await {
            Ok(server) => Some(server),
            Err(why) => {
                crate::skip("the PostgreSQL half", &why);
                None
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    async fn try_start(durable: bool) -> Result<Self, String> {
        let (initdb, postgres) = (binary("initdb").ok_or("no initdb")?, binary("postgres").ok_or("no postgres")?);
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        let _ = Command::new("chown").arg("-R").arg("postgres").arg(folder.path()).status();
        let made = command(&initdb)
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| e.to_string())?
            .port();
        let server = command(&postgres)
            .arg("-D")
            .arg(&data)
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-c",
                if durable { "fsync=on" } else { "fsync=off" },
                "-c",
                "max_connections=300",
                "-c",
            ])
            .arg(format!("unix_socket_directories={}", folder.path().display()))
            .args(counting(&postgres))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        crate::poll::until("PostgreSQL answers", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        // A connection is accepted a moment before the server is ready; whoever connects next retries within its pool's timeout.
        Ok(Self {
            server,
            port,
            _folder: folder,
        })
    }

    /// URL of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
