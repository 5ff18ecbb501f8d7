//! What the agent does as the first process of a machine: mounts, drivers, network; then it runs itself as a child, and ends in a power-off, whatever
//! becomes of that child.

mod dhcp;
mod modules;
mod network;

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use modules::Modules;
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    system::RebootCommand,
};
use tokio::process::Command;

/// How often it looks for hardware that has appeared since.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// For how long what went wrong stands on the console before the machine is switched off.
const READ_ME: Duration = Duration::from_secs(20);

/// Whether this is the first process of its machine.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs the machine until its agent has ended, then switches it off.
pub async fn run() -> ExitCode {
    prepare();
    say!("metalprobe {}: looking for hardware", env!("CARGO_PKG_VERSION"));
    let mut modules = Modules::read(Path::new("/lib/modules"));
    modules.load_for(Path::new("/sys/devices"));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            // A driver that hangs at its device must not stop the rest.
            let looked = tokio::task::spawn_blocking(move || {
                modules.load_for(Path::new("/sys/devices"));
                modules
            });
            match looked.await {
                Ok(back) => modules = back,
                Err(_) => return,
            }
        }
    });
    tokio::spawn(network::run());
    let agent = match std::env::current_exe() {
        Ok(program) => Command::new(program).stdin(Stdio::null()).status().await,
        Err(error) => Err(error),
    };
    match agent {
        Ok(status) if status.success() => {}
        Ok(status) => say!(
            "metalprobe: the agent has ended with {status}; switching off in {} s",
            READ_ME.as_secs()
        ),
        Err(ref error) => say!(
            "metalprobe: the agent cannot be run: {error}; switching off in {} s",
            READ_ME.as_secs()
        ),
    }
    if !agent.is_ok_and(|status| status.success()) {
        tokio::time::sleep(READ_ME).await;
    }
    power_off();
    // Where that is not possible the machine stays as it is: the first process must not end.
    std::future::pending().await
}

/// Switches the machine off.
pub fn power_off() {
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(RebootCommand::PowerOff) {
        say!("metalprobe: could not switch off: {error}");
    }
}

/// The file systems of the kernel, and the console.
fn prepare() {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let wanted = [
        ("proc", "/proc", "proc", plain),
        ("sysfs", "/sys", "sysfs", plain),
        ("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("tmpfs", "/run", "tmpfs", plain),
        ("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", plain | MountFlags::RDONLY),
    ];
    let mut failed = Vec::new();
    for (source, target, kind, flags) in wanted {
        match mount(source, target, kind, flags, None) {
            // The kernel has mounted it already; or this firmware is none of UEFI's.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(_) if kind == "efivarfs" => {}
            Err(error) => failed.push(format!("{target}: {error}")),
        }
    }
    // Without a console node in the initramfs the kernel has given this process none; and where there is no such port, it cannot be written to.
    for console in ["/dev/console", "/dev/tty0", "/dev/null"] {
        let Ok(mut console) = OpenOptions::new().read(true).write(true).open(console) else {
            continue;
        };
        if console.write_all(b"\n").is_err() {
            continue;
        }
        let streams = [
            rustix::stdio::dup2_stdin(&console),
            rustix::stdio::dup2_stdout(&console),
            rustix::stdio::dup2_stderr(&console),
        ];
        failed.extend(
            streams
                .into_iter()
                .filter_map(|stream| Some(format!("/dev/console: {}", stream.err()?))),
        );
        break;
    }
    for why in failed {
        say!("metalprobe: {why}");
    }
}

/// A clock that was never set would make every certificate look wrong. The image says when it was made for this run: it cannot be earlier than that.
pub fn set_clock(at_least: ironyard_types::Timestamp) {
    use ironyard_types::Clock as _;
    if ironyard_types::SystemClock.now() >= at_least {
        return;
    }
    let time = rustix::time::Timespec {
        tv_sec: at_least.0 / 1_000_000,
        tv_nsec: 0,
    };
    match rustix::time::clock_settime(rustix::time::ClockId::Realtime, time) {
        Ok(()) => say!("metalprobe: this machine's clock was behind; it is set to when the run began"),
        Err(error) => say!("metalprobe: this machine's clock is behind and cannot be set: {error}"),
    }
}
