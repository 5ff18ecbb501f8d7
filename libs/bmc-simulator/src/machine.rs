use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ironyard_types::hardware::PowerState;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Drive, EraseBehaviour, MachineConfig, Rule};

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
}

/// All that changes about a machine.
pub(crate) struct State {
    pub power: PowerState,
    pub boots: u64,
    pub override_target: String,
    pub override_enabled: String,
    pub override_uri: String,
    pub boot_order: Vec<String>,
    pub bios: Map<String, Value>,
    pub pending: Map<String, Value>,
    pub reset_pending: bool,
    pub led: bool,
    pub image: Option<String>,
    pub sessions: BTreeMap<String, u64>,
    pub next_id: u64,
    pub tasks: Vec<Task>,
    pub drives: Vec<Drive>,
    pub rules: Vec<Rule>,
    pub writes: Vec<Write>,
    pub version: u64,
    /// The operating system does not react to a graceful shutdown.
    pub hung_os: bool,
    /// Resets are accepted and do nothing.
    pub power_lies: bool,
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
            bios: factory_bios(),
            pending: Map::new(),
            reset_pending: false,
            led: false,
            image: None,
            sessions: BTreeMap::new(),
            next_id: 1,
            tasks: vec![],
            drives,
            rules: vec![],
            writes: vec![],
            version: 1,
            hung_os: false,
            power_lies: false,
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
        json!({"bios": state.bios, "boot_order": state.boot_order, "led": state.led, "image": state.image, "boots": state.boots, "power": state.power.to_string()})
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

    /// An operating system that hangs, resets that do nothing.
    pub fn set_knobs(&self, hung_os: Option<bool>, power_lies: Option<bool>) {
        let mut state = self.lock();
        state.hung_os = hung_os.unwrap_or(state.hung_os);
        state.power_lies = power_lies.unwrap_or(state.power_lies);
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
            return;
        }
        state.power = PowerState::On;
        state.boots += 1;
        if std::mem::take(&mut state.reset_pending) {
            state.bios = factory_bios();
        }
        let pending = std::mem::take(&mut state.pending);
        state.bios.extend(pending);
        let medium = match (state.override_enabled.as_str(), state.override_target.as_str()) {
            ("Disabled", _) => None,
            (_, "Cd") => state.image.clone(),
            (_, "UefiHttp") => Some(state.override_uri.clone()),
            _ => None,
        };
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
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let busy = state.tasks.iter().any(|t| t.target == target && t.state == "Running");
        let dirty = state.drives.iter().any(|d| d.serial == serial && d.dirty);
        state.tasks.push(Task {
            id,
            target: target.to_owned(),
            state: "Running",
            percent: 0,
            message: String::new(),
        });
        drop(state);
        let (machine, serial, kind) = (self.clone(), serial.to_owned(), kind.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(machine.config.timing.erase / 2).await;
            machine.with_task(id, |t| t.percent = 50);
            tokio::time::sleep(machine.config.timing.erase / 2).await;
            let behaviour = machine.with_drive(&serial, |d| {
                d.erase(&kind);
                d.behaviour
            });
            machine.with_task(id, |t| match behaviour {
                Some(EraseBehaviour::Good | EraseBehaviour::Lies) => {
                    (t.state, t.percent, t.message) = ("Completed", 100, "The drive was erased.".to_owned());
                }
                Some(EraseBehaviour::Fails) => (t.state, t.message) = ("Exception", format!("Drive {serial} failed to erase.")),
                None => (t.state, t.message) = ("Exception", format!("Drive {serial} was removed.")),
            });
        });
        (id, dirty && !busy)
    }

    fn with_task(&self, id: u64, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.lock().tasks.iter_mut().find(|t| t.id == id) {
            change(task);
        }
    }
}
