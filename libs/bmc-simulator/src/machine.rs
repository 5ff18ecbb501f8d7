use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ironyard_types::hardware::PowerState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Drive, EraseBehaviour, MachineConfig, Rule,
    management::{Certificate, CertificateKind, Management},
    profile::ApplyTime,
};

/// What runs on a machine that booted from a medium: given the machine, the medium's URL, and the token that ends with its power.
pub type OnBoot = Arc<dyn Fn(Arc<Machine>, String, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Switching on or off.
    pub power: Duration,
    /// Erasing a drive.
    pub erase: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            power: Duration::from_millis(150),
            erase: Duration::from_millis(250),
        }
    }
}

/// What a test or a developer turns on a machine; absent: as it is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// The operating system does not react to a graceful shutdown.
    pub hung_os: Option<bool>,
    /// Resets are accepted and do nothing.
    pub power_lies: Option<bool>,
    /// Tasks stay at 99 %.
    pub tasks_stick: Option<bool>,
    /// Tasks answer 404 when they are over.
    pub tasks_vanish: Option<bool>,
    /// The account must change its password before anything else.
    pub password_change_required: Option<bool>,
    /// Nobody is there: connections are closed as they come.
    pub gone: Option<bool>,
    /// The clock stands at 1970.
    pub clock_1970: Option<bool>,
    /// Another certificate from now on.
    pub certificate: Option<CertificateKind>,
    /// Whether the machine is well.
    pub healthy: Option<bool>,
    /// It has a storage controller that the agent has no driver for, and that the BMC does not show.
    pub storage_without_driver: Option<bool>,
}

/// A write that reached the BMC.
#[derive(Debug, Clone, Serialize)]
pub struct Write {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Body.
    pub body: Value,
    /// Status of the answer.
    pub status: u16,
    /// Whether it changed anything: a write without effect had been done before.
    pub effect: bool,
}

pub(crate) struct Task {
    pub id: u64,
    pub target: String,
    pub state: &'static str,
    pub percent: i32,
    pub message: String,
    /// Whether it shows itself, or answers 404 as if it had never been.
    pub vanished: bool,
}

/// All that changes about a machine.
pub(crate) struct State {
    pub power: PowerState,
    pub boots: u64,
    pub override_target: String,
    pub override_enabled: String,
    pub override_uri: String,
    pub boot_order: Vec<String>,
    pub boot_next: Option<String>,
    pub bios: Map<String, Value>,
    pub pending: Map<String, Value>,
    pub reset_pending: bool,
    pub led: bool,
    pub secure_boot: bool,
    pub image: Option<String>,
    pub sessions: BTreeMap<String, u64>,
    pub next_id: u64,
    pub tasks: Vec<Task>,
    pub drives: Vec<Drive>,
    pub rules: Vec<Rule>,
    pub writes: Vec<Write>,
    pub version: u64,
    /// Requests of any kind, also those that a fault hit.
    pub requests: u64,
    /// Requests that a fault holds for ever.
    pub held: u64,
    /// What belongs to the BMC itself.
    pub bmc: Management,
    /// The operating system does not react to a graceful shutdown.
    pub hung_os: bool,
    /// Resets are accepted and do nothing.
    pub power_lies: bool,
    /// Tasks stay at 99 %.
    pub tasks_stick: bool,
    /// Tasks are gone once they run.
    pub tasks_vanish: bool,
    /// Something is broken.
    pub broken: bool,
    /// It has a storage controller that the agent has no driver for.
    pub storage_without_driver: bool,
    running: CancellationToken,
}

/// One simulated machine and its BMC.
pub struct Machine {
    /// What it was made from.
    pub config: MachineConfig,
    pub(crate) state: Mutex<State>,
    on_boot: Option<OnBoot>,
}

/// BIOS attributes of a machine that comes from the factory.
pub(crate) fn factory_bios() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "BootMode": "UEFI", "HyperThreading": "Disabled", "Virtualization": "Disabled", "NumLock": true, "BootTimeout": 5, "SriovEnable": "Disabled",
    }) else {
        return Map::new();
    };
    map
}

impl Machine {
    pub(crate) fn new(config: MachineConfig, on_boot: Option<OnBoot>) -> Arc<Self> {
        let drives = config.drives();
        let state = State {
            power: PowerState::Off,
            boots: 0,
            override_target: "None".to_owned(),
            override_enabled: "Disabled".to_owned(),
            override_uri: String::new(),
            boot_order: ["Boot0001", "Boot0002", "Boot0003", "Boot0004"].map(str::to_owned).to_vec(),
            boot_next: None,
            bios: factory_bios(),
            pending: Map::new(),
            reset_pending: false,
            led: false,
            secure_boot: false,
            image: None,
            sessions: BTreeMap::new(),
            next_id: 1,
            tasks: vec![],
            drives,
            rules: vec![],
            writes: vec![],
            version: 1,
            hung_os: false,
            broken: false,
            storage_without_driver: false,
            power_lies: false,
            tasks_stick: false,
            tasks_vanish: false,
            requests: 0,
            held: 0,
            bmc: Management::new(&config),
            running: CancellationToken::new(),
        };
        Arc::new(Self {
            config,
            state: Mutex::new(state),
            on_boot,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Address of its BMC.
    pub fn address(&self) -> IpAddr {
        self.config.address
    }

    /// Power.
    pub fn power(&self) -> PowerState {
        self.lock().power
    }

    /// Every write that reached it.
    pub fn writes(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    /// Its drives that are plugged in.
    pub fn drives(&self) -> Vec<Drive> {
        self.lock().drives.iter().filter(|d| d.present).cloned().collect()
    }

    /// Changes one drive.
    pub fn with_drive<R>(&self, serial: &str, change: impl FnOnce(&mut Drive) -> R) -> Option<R> {
        self.lock().drives.iter_mut().find(|d| d.serial == serial && d.present).map(change)
    }

    /// BIOS attributes, boot order, LED: what a test wants to see on the hardware itself.
    pub fn settings(&self) -> Value {
        let state = self.lock();
        let bmc = &state.bmc;
        json!({"secure_boot": state.secure_boot, "volumes": bmc.volumes.len(), "firmware": bmc.firmware, "staged": bmc.staged, "ntp": bmc.ntp, "resets": bmc.resets, "bios": state.bios, "boot_order": state.boot_order, "led": state.led, "image": state.image, "boots": state.boots, "power": state.power.to_string()})
    }

    /// Adds a fault.
    pub fn add_rule(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// Removes all faults.
    pub fn clear_rules(&self) {
        self.lock().rules.clear();
    }

    /// Sets what one drive does when asked to erase itself.
    pub fn set_erase(&self, serial: &str, behaviour: EraseBehaviour) {
        self.with_drive(serial, |d| d.behaviour = behaviour);
    }

    /// Pulls a drive out, or plugs it in again.
    pub fn set_present(&self, serial: &str, present: bool) {
        if let Some(drive) = self.lock().drives.iter_mut().find(|d| d.serial == serial) {
            drive.present = present;
        }
    }

    /// Whether it has a storage controller that the agent has no driver for.
    pub fn has_storage_without_driver(&self) -> bool {
        self.lock().storage_without_driver
    }

    /// Turns knobs.
    pub fn set_knobs(&self, knobs: Knobs) {
        let mut state = self.lock();
        let Knobs {
            hung_os,
            power_lies,
            tasks_stick,
            tasks_vanish,
            password_change_required,
            gone,
            clock_1970,
            certificate,
            healthy,
            storage_without_driver,
        } = knobs;
        state.storage_without_driver = storage_without_driver.unwrap_or(state.storage_without_driver);
        state.broken = healthy.map_or(state.broken, |healthy| !healthy);
        state.hung_os = hung_os.unwrap_or(state.hung_os);
        state.power_lies = power_lies.unwrap_or(state.power_lies);
        state.tasks_stick = tasks_stick.unwrap_or(state.tasks_stick);
        state.tasks_vanish = tasks_vanish.unwrap_or(state.tasks_vanish);
        state.bmc.password_change_required = password_change_required.unwrap_or(state.bmc.password_change_required);
        state.bmc.gone = gone.unwrap_or(state.bmc.gone);
        if clock_1970 == Some(true) {
            state.bmc.clock = 0;
        }
        if let Some(kind) = certificate {
            state.bmc.certificate = Certificate::make(kind).ok();
        }
    }

    /// Requests that reached it so far.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Who is told of events: subscribers, and streams that are open.
    pub fn listeners(&self) -> usize {
        let state = self.lock();
        state.bmc.subscriptions.len() + state.bmc.events.as_ref().map_or(0, tokio::sync::broadcast::Sender::receiver_count)
    }

    /// Requests that were held for ever so far.
    pub fn held(&self) -> u64 {
        self.lock().held
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether too many wrong passwords locked the accounts.
    pub fn locked_out(&self) -> bool {
        self.lock().bmc.locked_out()
    }

    /// The present password of an account.
    pub fn password_of(&self, username: &str) -> Option<String> {
        let state = self.lock();
        state
            .bmc
            .accounts
            .iter()
            .find(|a| a.username == username)
            .map(|a| a.password.clone())
    }

    /// The SHA-256 of the certificate of its own, where it has one.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.lock().bmc.certificate.as_ref().map(|c| c.sha256.clone())
    }

    /// Begins to switch on or off; true when that changes anything.
    pub(crate) fn change_power(self: &Arc<Self>, on: bool) -> bool {
        let mut state = self.lock();
        let already = if on {
            [PowerState::On, PowerState::PoweringOn]
        } else {
            [PowerState::Off, PowerState::PoweringOff]
        };
        if already.contains(&state.power) {
            return false;
        }
        if state.power_lies {
            return true;
        }
        state.version += 1;
        state.power = if on { PowerState::PoweringOn } else { PowerState::PoweringOff };
        if !on {
            state.running.cancel();
        }
        drop(state);
        let machine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(machine.config.timing.power).await;
            machine.settle_power(on);
        });
        true
    }

    fn settle_power(self: &Arc<Self>, on: bool) {
        let mut state = self.lock();
        let coming = if on { PowerState::PoweringOn } else { PowerState::PoweringOff };
        if state.power != coming {
            return;
        }
        state.version += 1;
        if !on {
            state.power = PowerState::Off;
            state.bmc.log("The system was powered off.", "OK");
            return;
        }
        state.power = PowerState::On;
        state.boots += 1;
        state.bmc.log("The system was powered on.", "OK");
        if std::mem::take(&mut state.reset_pending) {
            state.bios = factory_bios();
        }
        if self.config.profile.apply_time != ApplyTime::Needed || std::mem::take(&mut state.bmc.bios_job) {
            let pending = std::mem::take(&mut state.pending);
            state.bios.extend(pending);
        }
        let staged = std::mem::take(&mut state.bmc.staged);
        state.bmc.firmware.extend(staged);
        let medium = match (state.override_enabled.as_str(), state.override_target.as_str()) {
            ("Disabled", _) => None,
            (_, "Cd") => state.image.clone(),
            (_, "UefiHttp") => Some(state.override_uri.clone()),
            _ => None,
        };
        state.boot_next = None;
        if state.override_enabled == "Once" {
            state.override_enabled = "Disabled".to_owned();
            state.override_target = "None".to_owned();
        }
        state.running = CancellationToken::new();
        let running = state.running.clone();
        drop(state);
        if let (Some(medium), Some(on_boot)) = (medium, &self.on_boot) {
            let work = on_boot(self.clone(), medium, running.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = work => {}
                    () = running.cancelled() => {}
                }
            });
        }
    }

    /// Switches off from inside, as an operating system does.
    pub fn shut_down(self: &Arc<Self>) {
        self.change_power(false);
    }

    /// Begins to erase a drive; the task's id, and whether it changes anything.
    pub(crate) fn begin_erase(self: &Arc<Self>, serial: &str, kind: &str, target: &str) -> (u64, bool) {
        let (busy, dirty) = {
            let state = self.lock();
            let busy = state.tasks.iter().any(|t| t.target == target && t.state == "Running");
            (busy, state.drives.iter().any(|d| d.serial == serial && d.dirty))
        };
        let (serial, kind) = (serial.to_owned(), kind.to_owned());
        let id = self.begin_task(target, self.config.timing.erase, move |machine| {
            let behaviour = machine.with_drive(&serial, |d| {
                d.erase(&kind);
                d.behaviour
            });
            match behaviour {
                Some(EraseBehaviour::Good | EraseBehaviour::Lies | EraseBehaviour::Restores) => Ok("The drive was erased.".to_owned()),
                Some(EraseBehaviour::Fails) => Err(format!("Drive {serial} failed to erase.")),
                None => Err(format!("Drive {serial} was removed.")),
            }
        });
        (id, dirty && !busy)
    }

    /// Begins a task that does its work when its time is over.
    pub(crate) fn begin_task(
        self: &Arc<Self>,
        target: &str,
        takes: Duration,
        work: impl FnOnce(&Arc<Self>) -> Result<String, String> + Send + 'static,
    ) -> u64 {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let sticks = state.tasks_stick;
        let vanishes = state.tasks_vanish;
        state.tasks.push(Task {
            id,
            target: target.to_owned(),
            state: "Running",
            percent: 0,
            message: String::new(),
            vanished: false,
        });
        // Old ones are forgotten, as BMCs do.
        if state.tasks.len() > 100 {
            state.tasks.remove(0);
        }
        drop(state);
        let machine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(takes / 2).await;
            machine.with_task(id, |t| t.percent = if sticks { 99 } else { 50 });
            if sticks {
                return;
            }
            tokio::time::sleep(takes / 2).await;
            let outcome = work(&machine);
            machine.with_task(id, |t| {
                t.vanished = vanishes;
                (t.state, t.percent, t.message) = match outcome {
                    Ok(message) => ("Completed", 100, message),
                    Err(message) => ("Exception", t.percent, message),
                };
            });
        });
        id
    }

    fn with_task(&self, id: u64, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.lock().tasks.iter_mut().find(|t| t.id == id) {
            change(task);
        }
    }
}
