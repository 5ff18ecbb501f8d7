//! Machines and their BMCs in memory, behind the gateway's interface. Written from the interface texts alone, as a second opinion:
//! it shares nothing with the gateway nor with the BMC simulator. Nothing happens to a machine unless the schedule says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ironyard_proto::{
    bmc::{
        self, PowerAction, System, SystemName,
        bmc_service_server::{BmcService, BmcServiceServer},
        operation_service_server::{OperationService, OperationServiceServer},
        system_service_server::{SystemService, SystemServiceServer},
    },
    common::{self, Operation, OperationError, PowerState},
    discovery::{AgentCommand, AgentVerb, DriveResult, Sample},
};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::sampling;
use tonic::{Request, Response, Status, service::RoutesBuilder};

const MANUFACTURER: &str = "Contoso";
/// Bytes of every drive.
const CAPACITY: i64 = 960_197_124_096;
const BIOS_VERSION: &str = "1.0";
/// What a machine can boot from, in the order of the factory.
const BOOT_ORDER: [&str; 3] = ["Disk", "Cd", "Network"];
const BOOT_TARGETS: [&str; 7] = ["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup"];

type Answer<T> = Result<Response<T>, Status>;

/// Every machine, and the gateway to their BMCs.
#[derive(Clone, Default)]
pub struct Hardware(Arc<Mutex<State>>);

/// A drive to put into a machine.
#[derive(Clone, PartialEq)]
pub struct DriveModel {
    pub serial: String,
    /// Sanitization types that the BMC offers; empty: only the agent can wipe it.
    pub bmc_erases: Vec<String>,
    /// The BMC says that an erase succeeded, and has done nothing.
    pub lies: bool,
}

/// How the next step of an operation ends.
pub enum Luck {
    Good,
    /// With an error.
    Bad,
}

/// What happened to a machine, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Power went away that was there. `key`: request id of the call, or id of the agent's command, that did it.
    SwitchedOff { server: String, key: String },
    /// The machine was switched on and boots: the agent's medium (then `token`), or anything else.
    Booted {
        server: String,
        token: Option<String>,
        key: String,
    },
    /// Whatever boots that is not the agent writes on a drive.
    Wrote { server: String, drive: String },
    /// An erase by the BMC began, under this request id.
    EraseBegun { server: String, drive: String, key: String },
    /// The drive's content is really gone.
    Erased { server: String, drive: String },
    /// The agent wiped this drive: the command `id` of the run with this token.
    AgentWiped {
        server: String,
        drive: String,
        token: String,
        id: String,
    },
    /// The agent verified this drive, and answers `ok`.
    AgentVerified {
        server: String,
        drive: String,
        token: String,
        id: String,
        ok: bool,
    },
}

#[derive(Default)]
struct State {
    /// By name of the BMC.
    machines: BTreeMap<String, Machine>,
    /// Oldest first.
    works: Vec<Work>,
    deeds: Vec<Deed>,
}

#[derive(Clone, PartialEq)]
struct Machine {
    bmc: String,
    server: String,
    /// Version of the BMC's record.
    version: u64,
    /// Power as it was last seen, while the BMC does not answer.
    last_seen: Option<PowerState>,
    on: bool,
    /// Token of the agent that runs.
    agent: Option<String>,
    disks: Vec<Disk>,
    /// Identity, boot, media, LED; power is filled in when it is read.
    system: System,
    http_boot_uri: String,
    bios: bmc::Bios,
}

#[derive(Clone, PartialEq)]
struct Disk {
    model: DriveModel,
    /// An operating system wrote on it since it was erased.
    written: bool,
    /// It carries the marks of the agent that follow from this seed.
    marked: Option<String>,
}

impl Disk {
    /// What the agent reads before the marks are written, and with a second seed after the erase: some content for each state.
    fn read(&self, command: &AgentCommand) -> Vec<Sample> {
        let (serial, blocks) = (&self.model.serial, CAPACITY.unsigned_abs() / 512);
        let mut all = sampling::places(&command.seed, serial, blocks).all();
        if !command.fresh_seed.is_empty() {
            all.extend(sampling::fresh_places(&command.fresh_seed, serial, blocks));
            all.sort_unstable();
            all.dedup();
        }
        let marked = self
            .marked
            .as_ref()
            .map(|seed| (seed, sampling::places(seed, serial, blocks).marked));
        let sample = |block: u64| {
            let content = match &marked {
                Some((seed, places)) if places.binary_search(&block).is_ok() => sampling::mark(seed, serial, block),
                _ if self.written => sampling::mark("an operating system", serial, block),
                _ => [0; 512],
            };
            Sample {
                block: block.cast_signed(),
                digest: sampling::digest(&content),
            }
        };
        all.into_iter().map(sample).collect()
    }
}

/// An operation and the call that began it.
struct Work {
    task: Task,
    begun: bool,
    operation: Operation,
}

/// What a call asked for.
#[derive(PartialEq)]
struct Task {
    /// The request id.
    key: String,
    system: SystemName,
    verb: Verb,
}

#[derive(PartialEq)]
enum Verb {
    Power { action: PowerAction, graceful_seconds: i32 },
    Erase { drive: String, method: String },
}

impl Hardware {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Forgets everything and begins with no machine.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    /// A BMC with one system, off, with these drives. `uuid` and `serial` are its identity. Its BMC record is Ready.
    pub fn add(&self, bmc: &str, server: &str, uuid: &str, serial: &str, drives: Vec<DriveModel>) {
        let blank = |model| Disk {
            model,
            written: false,
            marked: None,
        };
        let machine = Machine {
            bmc: bmc.to_owned(),
            server: server.to_owned(),
            version: 1,
            last_seen: None,
            on: false,
            agent: None,
            disks: drives.into_iter().map(blank).collect(),
            system: System {
                system_id: "1".to_owned(),
                system_uuid: uuid.to_lowercase(),
                manufacturer: MANUFACTURER.to_owned(),
                model: "Simulated".to_owned(),
                serial_number: serial.to_owned(),
                boot_override_target: "None".to_owned(),
                boot_override_enabled: "Disabled".to_owned(),
                boot_order: BOOT_ORDER.map(str::to_owned).to_vec(),
                indicator_led: Some(false),
                bios_version: BIOS_VERSION.to_owned(),
                ..Default::default()
            },
            http_boot_uri: String::new(),
            bios: bmc::Bios {
                version: BIOS_VERSION.to_owned(),
                attributes: bios_defaults(),
                ..Default::default()
            },
        };
        self.state().machines.insert(bmc.to_owned(), machine);
    }

    /// Adds BmcService, SystemService and OperationService.
    pub fn register(&self, routes: &mut RoutesBuilder) {
        routes
            .add_service(BmcServiceServer::new(self.clone()))
            .add_service(SystemServiceServer::new(self.clone()))
            .add_service(OperationServiceServer::new(self.clone()));
    }

    /// Operations that are not done, oldest first.
    pub fn running(&self) -> Vec<String> {
        let state = self.state();
        let running = state.works.iter().filter(|work| !work.operation.done);
        running.map(|work| work.operation.name.clone()).collect()
    }

    /// Lets one operation go one step on: first it begins, then it is done. With bad luck the step has no effect and the operation
    /// ends with an error. One that is done, or unknown, stays as it is.
    pub fn progress(&self, operation: &str, luck: Luck) {
        let mut state = self.state();
        let State { machines, works, deeds } = &mut *state;
        let found = works.iter_mut().find(|work| work.operation.name == operation);
        let Some(work) = found.filter(|work| !work.operation.done) else {
            return;
        };
        let Some(machine) = machines.get_mut(&work.task.system.bmc) else {
            return;
        };
        if matches!(luck, Luck::Bad) {
            return work.end(machine, Some(work.task.verb.failure()));
        }
        if work.begun {
            machine.finish(&work.task, deeds);
            return work.end(machine, None);
        }
        machine.begin(&work.task, deeds);
        work.begun = true;
        work.operation.progress_percent = 50;
        "begun".clone_into(&mut work.operation.phase);
    }

    /// While false, calls that need the BMC fail with BMC_UNREACHABLE, and its record is not Ready. Operations go on: they were recorded.
    pub fn reachable(&self, bmc: &str, reachable: bool) {
        if let Some(machine) = self.state().machines.get_mut(bmc) {
            machine.version += 1;
            machine.last_seen = if reachable { None } else { Some(machine.seen_power()) };
        }
    }

    /// Machines that run the agent now: server and token.
    pub fn agents(&self) -> Vec<(String, String)> {
        let agent = |machine: &Machine| Some((machine.server.clone(), machine.agent.clone()?));
        self.state().machines.values().filter_map(agent).collect()
    }

    /// What the agent sees of its machine.
    pub fn seen_inside(&self, server: &str) -> common::Hardware {
        let mut state = self.state();
        let mut hardware = state.of_server(server).0.hardware();
        for (n, drive) in hardware.drives.iter_mut().enumerate() {
            *drive = common::Drive {
                uri: String::new(),
                secure_erase: false,
                sanitization_types: Vec::new(),
                device: format!("/dev/nvme{n}n1"),
                ..std::mem::take(drive)
            };
        }
        hardware
    }

    /// The agent executes a command. Results by drive; none when the machine does not run the agent of this token.
    pub fn execute(&self, server: &str, token: &str, command: &AgentCommand) -> Vec<DriveResult> {
        let mut state = self.state();
        let (machine, deeds) = state.of_server(server);
        if machine.agent.as_deref() != Some(token) {
            return Vec::new();
        }
        if command.verb() == AgentVerb::Off {
            machine.switch_off(&command.id, deeds);
            return Vec::new();
        }
        let tasks = command.drives.iter();
        tasks
            .map(|task| machine.agent_does(command, token, &task.serial_number, deeds))
            .collect()
    }

    /// Power, for assertions: true is on.
    pub fn is_on(&self, server: &str) -> bool {
        self.state().of_server(server).0.on
    }

    /// Deeds since the last call, in order.
    pub fn take_deeds(&self) -> Vec<Deed> {
        std::mem::take(&mut self.state().deeds)
    }

    /// Reads something that only the BMC knows.
    fn read<T>(&self, system: Option<SystemName>, of: impl FnOnce(&Machine) -> T) -> Answer<T> {
        let mut state = self.state();
        Ok(Response::new(of(state.system(&system.unwrap_or_default())?)))
    }

    /// Changes something at once; the edit of a call that fails is dropped.
    fn change(&self, system: Option<SystemName>, edit: impl FnOnce(&mut Machine) -> Result<(), Fault>) -> Answer<bmc::ChangeResponse> {
        let mut state = self.state();
        let machine = state.system(&system.unwrap_or_default())?;
        let mut edited = machine.clone();
        edit(&mut edited)?;
        let changed = *machine != edited;
        *machine = edited;
        Ok(Response::new(bmc::ChangeResponse { changed }))
    }

    /// Records what is to be done, once for each request id.
    fn submit(&self, key: String, system: Option<SystemName>, verb: Verb) -> Answer<Operation> {
        let mut system = system.unwrap_or_default();
        if system.system_id.is_empty() {
            "1".clone_into(&mut system.system_id);
        }
        let task = Task { key, system, verb };
        let mut state = self.state();
        let earlier = state.works.iter().find(|work| work.task.key == task.key);
        if let Some(earlier) = earlier.filter(|_| !task.key.is_empty()) {
            if earlier.task == task {
                return Ok(Response::new(earlier.operation.clone()));
            }
            let message = format!("request id {} was used for {}", task.key, earlier.operation.name);
            return Err(Fault::new(Reason::RequestIdReused, message).into());
        }
        let name = format!("op-{}", state.works.len() + 1);
        let machine = state.system(&task.system)?;
        let holds = machine.check(&task.verb)?;
        let operation = Operation {
            name,
            verb: task.verb.name().to_owned(),
            target: format!("{}/systems/1", machine.bmc),
            phase: "recorded".to_owned(),
            ..Default::default()
        };
        let begun = false;
        let mut work = Work { task, begun, operation };
        if holds {
            work.end(machine, None);
        }
        let operation = work.operation.clone();
        state.works.push(work);
        Ok(Response::new(operation))
    }

    fn operation(&self, name: &str) -> Answer<Operation> {
        let mut state = self.state();
        Ok(Response::new(find(&mut state.works, name)?.operation.clone()))
    }
}

fn bios_defaults() -> BTreeMap<String, String> {
    let defaults = [("BootMode", "Uefi"), ("HyperThreading", "Enabled")];
    defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn find<'a>(works: &'a mut [Work], name: &str) -> Result<&'a mut Work, Fault> {
    let found = works.iter_mut().find(|work| work.operation.name == name);
    found.ok_or_else(|| Fault::new(Reason::OperationNotFound, format!("there is no operation {name}")))
}

fn not_simulated<T>() -> Answer<T> {
    Err(Status::unimplemented("not simulated"))
}

impl State {
    fn bmc(&mut self, name: &str) -> Result<&mut Machine, Fault> {
        let found = self.machines.get_mut(name);
        found.ok_or_else(|| Fault::new(Reason::BmcNotFound, format!("there is no BMC {name}")))
    }

    /// A system behind a BMC that answers.
    fn system(&mut self, name: &SystemName) -> Result<&mut Machine, Fault> {
        let machine = self.bmc(&name.bmc)?;
        if machine.last_seen.is_some() {
            let fault = Fault::new(Reason::BmcUnreachable, format!("BMC {} does not answer", name.bmc));
            return Err(fault.retry_after(Duration::from_secs(1)));
        }
        match name.system_id.as_str() {
            "" | "1" => Ok(machine),
            other => Err(Fault::new(
                Reason::SystemNotFound,
                format!("BMC {} has no system {other}", name.bmc),
            )),
        }
    }

    fn of_server(&mut self, server: &str) -> (&mut Machine, &mut Vec<Deed>) {
        let found = self.machines.values_mut().find(|machine| machine.server == server);
        (found.unwrap(), &mut self.deeds)
    }
}

impl Machine {
    fn power(&self) -> PowerState {
        if self.on { PowerState::On } else { PowerState::Off }
    }

    /// Power as the gateway last saw it.
    fn seen_power(&self) -> PowerState {
        self.last_seen.unwrap_or(self.power())
    }

    fn switch_off(&mut self, key: &str, deeds: &mut Vec<Deed>) {
        if !self.on {
            return;
        }
        (self.on, self.agent) = (false, None);
        self.version += 1;
        let (server, key) = (self.server.clone(), key.to_owned());
        deeds.push(Deed::SwitchedOff { server, key });
    }

    fn switch_on(&mut self, key: &str, deeds: &mut Vec<Deed>) {
        if self.on {
            return;
        }
        self.on = true;
        self.version += 1;
        if std::mem::take(&mut self.bios.reset_pending) {
            self.bios.attributes = bios_defaults();
        }
        self.bios.attributes.append(&mut self.bios.pending);
        let image = match self.system.boot_override_target.as_str() {
            "Cd" => self.system.inserted_image.clone(),
            "UefiHttp" => self.http_boot_uri.clone(),
            _ => String::new(),
        };
        if self.system.boot_override_enabled == "Once" {
            self.clear_boot_override();
        }
        let agent = image.rsplit_once("/agent/").map(|(_, file)| file);
        self.agent = agent.map(|file| file.strip_suffix(".iso").unwrap_or(file).to_owned());
        let (server, token, key) = (self.server.clone(), self.agent.clone(), key.to_owned());
        deeds.push(Deed::Booted { server, token, key });
        // A system is installed as long as one drive still has it.
        let installed = self.disks.iter().any(|disk| disk.written);
        if self.agent.is_none() && (installed || !image.is_empty()) {
            for disk in &mut self.disks {
                disk.written = true;
                let (server, drive) = (self.server.clone(), disk.model.serial.clone());
                deeds.push(Deed::Wrote { server, drive });
            }
        }
    }

    fn clear_boot_override(&mut self) {
        "None".clone_into(&mut self.system.boot_override_target);
        "Disabled".clone_into(&mut self.system.boot_override_enabled);
        self.http_boot_uri.clear();
    }

    fn disk(&mut self, serial: &str) -> Option<&mut Disk> {
        self.disks.iter_mut().find(|disk| disk.model.serial == serial)
    }

    fn erase(&mut self, serial: &str, deeds: &mut Vec<Deed>) {
        if let Some(disk) = self.disk(serial) {
            (disk.written, disk.marked) = (false, None);
            let (server, drive) = (self.server.clone(), serial.to_owned());
            deeds.push(Deed::Erased { server, drive });
        }
    }

    /// Whether what is asked for holds already, or why it cannot be done.
    fn check(&mut self, verb: &Verb) -> Result<bool, Fault> {
        match verb {
            Verb::Power { action, .. } => match action {
                PowerAction::Unspecified => Err(Fault::field("action", "say what to do")),
                PowerAction::On => Ok(self.on),
                PowerAction::GracefulOff | PowerAction::ForceOff => Ok(!self.on),
                PowerAction::Cycle | PowerAction::Reset | PowerAction::Nmi | PowerAction::AcCycle => Ok(false),
            },
            Verb::Erase { drive, method } => {
                let Some(disk) = self.disk(drive) else {
                    return Err(Fault::new(Reason::DriveNotFound, format!("there is no drive {drive}")));
                };
                let offers = &disk.model.bmc_erases;
                if offers.is_empty() || !(method.is_empty() || offers.contains(method)) {
                    let message = format!("the BMC does not erase drive {drive} by '{method}'");
                    return Err(Fault::new(Reason::BmcUnsupported, message));
                }
                Ok(false)
            }
        }
    }

    /// The first step.
    fn begin(&mut self, task: &Task, deeds: &mut Vec<Deed>) {
        match &task.verb {
            Verb::Power { action, .. } => match action {
                PowerAction::Cycle | PowerAction::Reset | PowerAction::AcCycle => self.switch_off(&task.key, deeds),
                PowerAction::On | PowerAction::GracefulOff | PowerAction::ForceOff | PowerAction::Nmi | PowerAction::Unspecified => {}
            },
            Verb::Erase { drive, .. } => {
                let (server, drive, key) = (self.server.clone(), drive.clone(), task.key.clone());
                deeds.push(Deed::EraseBegun { server, drive, key });
            }
        }
    }

    /// The last step.
    fn finish(&mut self, task: &Task, deeds: &mut Vec<Deed>) {
        match &task.verb {
            Verb::Power { action, .. } => match action {
                PowerAction::GracefulOff | PowerAction::ForceOff => self.switch_off(&task.key, deeds),
                PowerAction::On | PowerAction::Cycle | PowerAction::Reset | PowerAction::AcCycle => self.switch_on(&task.key, deeds),
                PowerAction::Nmi | PowerAction::Unspecified => {}
            },
            Verb::Erase { drive, .. } => {
                if self.disk(drive).is_some_and(|disk| !disk.model.lies) {
                    self.erase(drive, deeds);
                }
            }
        }
    }

    /// The agent does to one drive what it is told.
    fn agent_does(&mut self, command: &AgentCommand, token: &str, serial: &str, deeds: &mut Vec<Deed>) -> DriveResult {
        let mut result = DriveResult {
            serial_number: serial.to_owned(),
            ..Default::default()
        };
        let (server, drive) = (self.server.clone(), serial.to_owned());
        let (token, id) = (token.to_owned(), command.id.clone());
        let Some(disk) = self.disk(serial) else {
            "no such drive".clone_into(&mut result.message);
            return result;
        };
        match command.verb() {
            AgentVerb::Mark => {
                (result.ok, result.samples) = (true, disk.read(command));
                disk.marked = Some(command.seed.clone());
            }
            AgentVerb::Wipe => {
                deeds.push(Deed::AgentWiped { server, drive, token, id });
                self.erase(serial, deeds);
                result.ok = true;
            }
            AgentVerb::Verify => {
                let ok = !disk.written && disk.marked.is_none();
                (result.ok, result.samples) = (true, disk.read(command));
                deeds.push(Deed::AgentVerified {
                    server,
                    drive,
                    token,
                    id,
                    ok,
                });
            }
            AgentVerb::Unspecified | AgentVerb::Off => {}
        }
        result
    }

    /// The hardware as the BMC shows it.
    fn hardware(&self) -> common::Hardware {
        let drive = |(n, disk): (usize, &Disk)| common::Drive {
            uri: format!("/redfish/v1/Systems/1/Storage/1/Drives/{n}"),
            name: format!("Drive {n}"),
            serial_number: disk.model.serial.clone(),
            manufacturer: MANUFACTURER.to_owned(),
            media_type: "SSD".to_owned(),
            protocol: "NVMe".to_owned(),
            capacity_bytes: CAPACITY,
            secure_erase: !disk.model.bmc_erases.is_empty(),
            sanitization_types: disk.model.bmc_erases.clone(),
            health: common::Health::Ok.into(),
            ..Default::default()
        };
        common::Hardware {
            system_uuid: self.system.system_uuid.clone(),
            manufacturer: self.system.manufacturer.clone(),
            model: self.system.model.clone(),
            serial_number: self.system.serial_number.clone(),
            bios_version: self.system.bios_version.clone(),
            health: common::Health::Ok.into(),
            memory_mib: 65_536,
            drives: self.disks.iter().enumerate().map(drive).collect(),
            ..Default::default()
        }
    }

    fn shown_system(&self) -> System {
        System {
            power_state: self.power().into(),
            ..self.system.clone()
        }
    }

    fn record(&self) -> bmc::Bmc {
        let answers = self.last_seen.is_none();
        let condition = |(kind, holds): (&str, bool)| common::Condition {
            r#type: kind.to_owned(),
            status: if holds {
                common::ConditionStatus::True
            } else {
                common::ConditionStatus::False
            }
            .into(),
            reason: if holds { kind } else { "BmcUnreachable" }.to_owned(),
            ..Default::default()
        };
        let conditions = [
            ("Addressed", true),
            ("Reachable", answers),
            ("Authenticated", true),
            ("Ready", answers),
        ];
        bmc::Bmc {
            metadata: Some(common::Metadata {
                name: self.bmc.clone(),
                uid: format!("uid-{}", self.bmc),
                etag: self.version.to_string(),
                ..Default::default()
            }),
            spec: Some(bmc::BmcSpec {
                address: format!("{}.example", self.bmc),
                credential: self.bmc.clone(),
                protocol: "Redfish".to_owned(),
                ..Default::default()
            }),
            observed: Some(bmc::BmcObserved {
                vendor: MANUFACTURER.to_owned(),
                systems: vec![self.system.system_id.clone()],
                family: "Other".to_owned(),
                serial_number: self.system.serial_number.clone(),
                system_status: vec![bmc::SystemStatus {
                    system_id: self.system.system_id.clone(),
                    power_state: self.seen_power().into(),
                    health: common::Health::Ok.into(),
                }],
                ..Default::default()
            }),
            conditions: conditions.map(condition).to_vec(),
        }
    }
}

impl Work {
    fn end(&mut self, machine: &Machine, fault: Option<Fault>) {
        self.operation.done = true;
        self.operation.progress_percent = 100;
        "done".clone_into(&mut self.operation.phase);
        if let (Verb::Power { .. }, None) = (&self.task.verb, &fault) {
            let power = if machine.on { "On" } else { "Off" };
            self.operation.metadata.insert("power_state".to_owned(), power.to_owned());
        }
        self.operation.error = fault.map(|fault| OperationError {
            code: fault.reason.kind().code().into(),
            reason: fault.reason.as_str().to_owned(),
            message: fault.message,
        });
    }
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Self::Power { .. } => "SetPower",
            Self::Erase { .. } => "EraseDrive",
        }
    }

    /// How it fails on bad luck.
    fn failure(&self) -> Fault {
        match self {
            Self::Power { .. } => Fault::new(Reason::BmcTimeout, "the power state was not reached"),
            Self::Erase { .. } => Fault::new(Reason::TaskFailed, "the erase failed"),
        }
    }
}

#[tonic::async_trait]
impl BmcService for Hardware {
    type WatchBmcsStream = tokio_stream::Empty<Result<bmc::WatchBmcsResponse, Status>>;

    async fn get_bmc(&self, request: Request<bmc::GetBmcRequest>) -> Answer<bmc::Bmc> {
        Ok(Response::new(self.state().bmc(&request.get_ref().name)?.record()))
    }

    /// All in one page: a simulation has few.
    async fn list_bmcs(&self, _: Request<bmc::ListBmcsRequest>) -> Answer<bmc::ListBmcsResponse> {
        Ok(Response::new(bmc::ListBmcsResponse {
            bmcs: self.state().machines.values().map(Machine::record).collect(),
            next_page_token: String::new(),
        }))
    }

    async fn create_bmc(&self, _: Request<bmc::CreateBmcRequest>) -> Answer<bmc::Bmc> {
        not_simulated()
    }

    async fn update_bmc(&self, _: Request<bmc::UpdateBmcRequest>) -> Answer<bmc::Bmc> {
        not_simulated()
    }

    async fn delete_bmc(&self, _: Request<bmc::DeleteBmcRequest>) -> Answer<bmc::DeleteBmcResponse> {
        not_simulated()
    }

    async fn watch_bmcs(&self, _: Request<bmc::WatchBmcsRequest>) -> Answer<Self::WatchBmcsStream> {
        not_simulated()
    }
}

#[tonic::async_trait]
impl SystemService for Hardware {
    async fn list_systems(&self, request: Request<bmc::ListSystemsRequest>) -> Answer<bmc::ListSystemsResponse> {
        let system = SystemName {
            bmc: request.into_inner().bmc,
            ..Default::default()
        };
        self.read(Some(system), |machine| bmc::ListSystemsResponse {
            systems: vec![machine.shown_system()],
        })
    }

    async fn get_hardware(&self, request: Request<bmc::GetHardwareRequest>) -> Answer<common::Hardware> {
        self.read(request.into_inner().system, Machine::hardware)
    }

    async fn get_system(&self, request: Request<bmc::GetSystemRequest>) -> Answer<System> {
        self.read(request.into_inner().system, Machine::shown_system)
    }

    async fn set_power(&self, request: Request<bmc::SetPowerRequest>) -> Answer<Operation> {
        let request = request.into_inner();
        let (action, graceful_seconds) = (request.action(), request.graceful_timeout_seconds);
        self.submit(request.request_id, request.system, Verb::Power { action, graceful_seconds })
    }

    async fn set_boot_override(&self, request: Request<bmc::SetBootOverrideRequest>) -> Answer<bmc::ChangeResponse> {
        let request = request.into_inner();
        self.change(request.system, |machine| {
            if !request.boot_option.is_empty() {
                return Err(Fault::new(Reason::BmcUnsupported, "the BMC boots targets only"));
            }
            if !BOOT_TARGETS.contains(&request.target.as_str()) {
                return Err(Fault::new(Reason::BmcInvalidValue, format!("no boot target '{}'", request.target)));
            }
            machine.clear_boot_override();
            if request.target != "None" {
                machine.system.boot_override_target = request.target;
                machine.system.boot_override_enabled = if request.continuous { "Continuous" } else { "Once" }.to_owned();
                machine.http_boot_uri = request.http_boot_uri;
            }
            Ok(())
        })
    }

    async fn set_boot_order(&self, request: Request<bmc::SetBootOrderRequest>) -> Answer<bmc::ChangeResponse> {
        let request = request.into_inner();
        self.change(request.system, |machine| {
            if let Some(unknown) = request.devices.iter().find(|device| !BOOT_ORDER.contains(&device.as_str())) {
                return Err(Fault::new(Reason::BmcInvalidValue, format!("no boot device '{unknown}'")));
            }
            let mut order = request.devices;
            order.append(&mut machine.system.boot_order);
            for device in order {
                if !machine.system.boot_order.contains(&device) {
                    machine.system.boot_order.push(device);
                }
            }
            Ok(())
        })
    }

    async fn get_bios(&self, request: Request<bmc::GetBiosRequest>) -> Answer<bmc::Bios> {
        self.read(request.into_inner().system, |machine| machine.bios.clone())
    }

    async fn set_bios(&self, request: Request<bmc::SetBiosRequest>) -> Answer<bmc::ChangeResponse> {
        let request = request.into_inner();
        self.change(request.system, |machine| {
            let bios = &mut machine.bios;
            for (name, value) in request.attributes {
                match bios.attributes.get(&name) {
                    None => return Err(Fault::new(Reason::BmcInvalidValue, format!("no BIOS attribute '{name}'"))),
                    Some(present) if *present == value && !bios.reset_pending => drop(bios.pending.remove(&name)),
                    Some(_) => drop(bios.pending.insert(name, value)),
                }
            }
            Ok(())
        })
    }

    async fn reset_bios(&self, request: Request<bmc::ResetBiosRequest>) -> Answer<bmc::ChangeResponse> {
        self.change(request.into_inner().system, |machine| {
            // What was set before the reset is lost with it.
            if !machine.bios.reset_pending {
                machine.bios.reset_pending = true;
                machine.bios.pending.clear();
            }
            Ok(())
        })
    }

    async fn list_drives(&self, request: Request<bmc::ListDrivesRequest>) -> Answer<bmc::ListDrivesResponse> {
        self.read(request.into_inner().system, |machine| bmc::ListDrivesResponse {
            drives: machine.hardware().drives,
        })
    }

    async fn erase_drive(&self, request: Request<bmc::EraseDriveRequest>) -> Answer<Operation> {
        let request = request.into_inner();
        let (drive, method) = (request.drive_serial_number, request.sanitization_type);
        self.submit(request.request_id, request.system, Verb::Erase { drive, method })
    }

    async fn set_indicator_led(&self, request: Request<bmc::SetIndicatorLedRequest>) -> Answer<bmc::ChangeResponse> {
        let request = request.into_inner();
        self.change(request.system, |machine| {
            machine.system.indicator_led = Some(request.on);
            Ok(())
        })
    }

    async fn insert_media(&self, request: Request<bmc::InsertMediaRequest>) -> Answer<bmc::ChangeResponse> {
        let request = request.into_inner();
        self.change(request.system, |machine| {
            if request.image.is_empty() {
                return Err(Fault::field("image", "say which"));
            }
            machine.system.inserted_image = request.image;
            Ok(())
        })
    }

    async fn eject_media(&self, request: Request<bmc::EjectMediaRequest>) -> Answer<bmc::ChangeResponse> {
        self.change(request.into_inner().system, |machine| {
            machine.system.inserted_image.clear();
            Ok(())
        })
    }

    async fn get_bios_registry(&self, _: Request<bmc::GetBiosRegistryRequest>) -> Answer<bmc::BiosRegistry> {
        not_simulated()
    }

    async fn change_bios_password(&self, _: Request<bmc::ChangeBiosPasswordRequest>) -> Answer<bmc::ChangeBiosPasswordResponse> {
        not_simulated()
    }

    async fn get_secure_boot(&self, _: Request<bmc::GetSecureBootRequest>) -> Answer<bmc::SecureBoot> {
        not_simulated()
    }

    async fn set_secure_boot(&self, _: Request<bmc::SetSecureBootRequest>) -> Answer<bmc::ChangeResponse> {
        not_simulated()
    }

    async fn reset_secure_boot_keys(&self, _: Request<bmc::ResetSecureBootKeysRequest>) -> Answer<bmc::ResetSecureBootKeysResponse> {
        not_simulated()
    }
}

#[tonic::async_trait]
impl OperationService for Hardware {
    async fn get_operation(&self, request: Request<bmc::GetOperationRequest>) -> Answer<Operation> {
        self.operation(&request.get_ref().name)
    }

    async fn list_operations(&self, request: Request<bmc::ListOperationsRequest>) -> Answer<bmc::ListOperationsResponse> {
        let all = request.into_inner();
        let state = self.state();
        let newest = state.works.iter().rev().map(|work| &work.operation);
        let operations = newest
            .filter(|operation| !(all.running_only && operation.done))
            .take(1000)
            .cloned()
            .collect();
        Ok(Response::new(bmc::ListOperationsResponse {
            operations,
            ..Default::default()
        }))
    }

    /// Here no time passes within a call: the deadline is over at once.
    async fn wait_operation(&self, request: Request<bmc::WaitOperationRequest>) -> Answer<Operation> {
        self.operation(&request.get_ref().name)
    }

    type WatchOperationsStream = tokio_stream::Empty<Result<bmc::WatchOperationsResponse, Status>>;

    async fn watch_operations(&self, _: Request<bmc::WatchOperationsRequest>) -> Answer<Self::WatchOperationsStream> {
        Err(Status::unimplemented(
            "nobody follows operations in a simulation: what waits looks again after a while",
        ))
    }

    async fn cancel_operation(&self, request: Request<bmc::CancelOperationRequest>) -> Answer<Operation> {
        let request = request.into_inner();
        let mut state = self.state();
        let State { machines, works, deeds } = &mut *state;
        let work = find(works, &request.name)?;
        if let Some(machine) = machines.get_mut(&work.task.system.bmc).filter(|_| !work.operation.done) {
            // A drive that erases itself does not stop.
            if work.begun && matches!(work.task.verb, Verb::Erase { .. }) {
                machine.finish(&work.task, deeds);
            }
            let message = format!("cancelled: {}", request.reason);
            work.end(machine, Some(Fault::new(Reason::OperationCancelled, message)));
        }
        Ok(Response::new(work.operation.clone()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ironyard_proto::discovery::DriveTask;
    use ironyard_rpc::reason_of;
    use tonic::Code;

    use super::*;

    const AGENT: &str = "http://discovery/agent/t1.iso";
    const SYSTEM: &str = "http://images/os.iso";

    /// Two drives: the BMC erases the first, only the agent the second. Or the first one's BMC lies.
    fn machine(lies: bool) -> Hardware {
        let hardware = Hardware::default();
        let drive = |serial: &str, bmc_erases: &[&str]| DriveModel {
            serial: serial.to_owned(),
            bmc_erases: bmc_erases.iter().map(|&erase| erase.to_owned()).collect(),
            lies,
        };
        let drives = vec![drive("d1", &["CryptographicErase"]), drive("d2", &[])];
        hardware.add("b1", "s1", "UUID-1", "serial-1", drives);
        hardware
    }

    /// No call waits for anything.
    fn now<T>(answer: impl Future<Output = Answer<T>>) -> Result<T, Status> {
        answer.now_or_never().unwrap().map(Response::into_inner)
    }

    #[track_caller]
    fn refused<T>(answer: Result<T, Status>) -> String {
        reason_of(&answer.err().unwrap()).unwrap()
    }

    fn system() -> Option<SystemName> {
        Some(SystemName {
            bmc: "b1".to_owned(),
            ..Default::default()
        })
    }

    fn power(hardware: &Hardware, key: &str, action: PowerAction) -> Result<Operation, Status> {
        now(hardware.set_power(Request::new(bmc::SetPowerRequest {
            system: system(),
            action: action.into(),
            request_id: key.to_owned(),
            ..Default::default()
        })))
    }

    fn erase(hardware: &Hardware, key: &str, drive: &str) -> Result<Operation, Status> {
        now(hardware.erase_drive(Request::new(bmc::EraseDriveRequest {
            system: system(),
            drive_serial_number: drive.to_owned(),
            request_id: key.to_owned(),
            ..Default::default()
        })))
    }

    fn get(hardware: &Hardware, name: &str) -> Result<Operation, Status> {
        now(hardware.get_operation(Request::new(bmc::GetOperationRequest { name: name.to_owned() })))
    }

    fn cancel(hardware: &Hardware, name: &str) -> Operation {
        let (name, reason) = (name.to_owned(), "enough".to_owned());
        now(hardware.cancel_operation(Request::new(bmc::CancelOperationRequest { name, reason }))).unwrap()
    }

    /// Everything that runs comes to its end.
    fn finish(hardware: &Hardware) {
        while let Some(operation) = hardware.running().first() {
            hardware.progress(operation, Luck::Good);
        }
    }

    fn insert(hardware: &Hardware, image: &str) -> bool {
        let (system, image) = (system(), image.to_owned());
        now(hardware.insert_media(Request::new(bmc::InsertMediaRequest { system, image })))
            .unwrap()
            .changed
    }

    fn boot_next(hardware: &Hardware, target: &str) -> bool {
        let request = bmc::SetBootOverrideRequest {
            system: system(),
            target: target.to_owned(),
            ..Default::default()
        };
        now(hardware.set_boot_override(Request::new(request))).unwrap().changed
    }

    /// Boots this image, once.
    fn boot(hardware: &Hardware, image: &str) {
        insert(hardware, image);
        boot_next(hardware, "Cd");
        power(hardware, "", PowerAction::Cycle).unwrap();
        finish(hardware);
    }

    fn tell(hardware: &Hardware, verb: AgentVerb, drives: &[&str]) -> Vec<bool> {
        let task = |&drive: &&str| DriveTask {
            serial_number: drive.to_owned(),
            ..Default::default()
        };
        let command = AgentCommand {
            id: "c1".to_owned(),
            verb: verb.into(),
            drives: drives.iter().map(task).collect(),
            ..Default::default()
        };
        let results = hardware.execute("s1", "t1", &command);
        results.into_iter().map(|result| result.ok).collect()
    }

    /// Deeds in words.
    fn deeds(hardware: &Hardware) -> Vec<String> {
        let word = |deed| match deed {
            Deed::SwitchedOff { server, key } => format!("{server} off {key}"),
            Deed::Booted { server, token, key } => format!("{server} boots {} {key}", token.unwrap_or_default()),
            Deed::Wrote { drive, .. } => format!("wrote {drive}"),
            Deed::EraseBegun { drive, key, .. } => format!("erase {drive} {key}"),
            Deed::Erased { drive, .. } => format!("erased {drive}"),
            Deed::AgentWiped { drive, token, id, .. } => format!("{token} wiped {drive} {id}"),
            Deed::AgentVerified { drive, ok, .. } => format!("verified {drive} {ok}"),
        };
        hardware.take_deeds().into_iter().map(word).collect()
    }

    #[test]
    fn power_changes_when_the_operation_goes_on() {
        let hardware = machine(false);
        assert!(power(&hardware, "k0", PowerAction::ForceOff).unwrap().done);
        let on = power(&hardware, "k1", PowerAction::On).unwrap();
        hardware.progress(&on.name, Luck::Good);
        assert!(!on.done && !hardware.is_on("s1"));
        assert_eq!(hardware.running(), ["op-2"]);
        hardware.progress(&on.name, Luck::Good);
        assert!(hardware.is_on("s1") && hardware.running().is_empty());
        assert_eq!(get(&hardware, "op-2").unwrap().metadata["power_state"], "On");
        let cycle = power(&hardware, "k2", PowerAction::Cycle).unwrap();
        hardware.progress(&cycle.name, Luck::Good);
        hardware.progress(&cycle.name, Luck::Bad);
        assert!(!hardware.is_on("s1"));
        assert_eq!(get(&hardware, &cycle.name).unwrap().error.unwrap().reason, "BMC_TIMEOUT");
        assert_eq!(deeds(&hardware), ["s1 boots  k1", "s1 off k2"]);
        assert_eq!(refused(power(&hardware, "k3", PowerAction::Unspecified)), "INVALID_FIELD");
        hardware.reset();
        assert_eq!(refused(power(&hardware, "k4", PowerAction::On)), "BMC_NOT_FOUND");
    }

    #[test]
    fn a_request_id_is_one_operation() {
        let hardware = machine(false);
        let on = power(&hardware, "k1", PowerAction::On).unwrap();
        assert_eq!(power(&hardware, "k1", PowerAction::On).unwrap(), on);
        hardware.reachable("b1", false);
        assert_eq!(power(&hardware, "k1", PowerAction::On).unwrap(), on, "it needs no BMC");
        hardware.reachable("b1", true);
        finish(&hardware);
        assert!(power(&hardware, "k1", PowerAction::On).unwrap().done);
        assert_eq!(refused(power(&hardware, "k1", PowerAction::Cycle)), "REQUEST_ID_REUSED");
        assert_eq!(refused(erase(&hardware, "k1", "d1")), "REQUEST_ID_REUSED");
        let other = power(&hardware, "", PowerAction::Cycle).unwrap();
        assert_ne!(power(&hardware, "", PowerAction::Cycle).unwrap().name, other.name);
        let list = |running_only| {
            now(hardware.list_operations(Request::new(bmc::ListOperationsRequest {
                running_only,
                ..Default::default()
            })))
            .unwrap()
        };
        assert_eq!((list(false).operations.len(), list(true).operations.len()), (3, 2));
        assert_eq!(list(false).operations[2].name, "op-1");
    }

    #[test]
    fn an_operation_is_cancelled() {
        let hardware = machine(false);
        let on = power(&hardware, "k1", PowerAction::On).unwrap().name;
        let ended = cancel(&hardware, &on);
        assert_eq!(ended.error.as_ref().unwrap().reason, "OPERATION_CANCELLED");
        hardware.progress(&on, Luck::Good);
        assert_eq!(cancel(&hardware, &on), ended);
        assert!(deeds(&hardware).is_empty());
        let begun = erase(&hardware, "k2", "d1").unwrap().name;
        hardware.progress(&begun, Luck::Good);
        assert!(cancel(&hardware, &begun).error.is_some());
        assert_eq!(deeds(&hardware), ["erase d1 k2", "erased d1"]);
        let wait = bmc::WaitOperationRequest { name: begun };
        assert!(now(hardware.wait_operation(Request::new(wait))).unwrap().done);
        assert_eq!(refused(get(&hardware, "op-9")), "OPERATION_NOT_FOUND");
    }

    #[test]
    fn a_system_writes_until_every_drive_is_erased() {
        let hardware = machine(false);
        boot(&hardware, SYSTEM);
        assert_eq!(deeds(&hardware), ["s1 boots  ", "wrote d1", "wrote d2"]);
        erase(&hardware, "k1", "d1").unwrap();
        power(&hardware, "k2", PowerAction::Reset).unwrap();
        finish(&hardware);
        let expected = ["erase d1 k1", "erased d1", "s1 off k2", "s1 boots  k2", "wrote d1", "wrote d2"];
        assert_eq!(deeds(&hardware), expected, "the override was for once");
        assert_eq!(refused(erase(&hardware, "k3", "d9")), "DRIVE_NOT_FOUND");
        assert_eq!(refused(erase(&hardware, "k3", "d2")), "BMC_UNSUPPORTED");
        boot(&hardware, AGENT);
        assert_eq!(tell(&hardware, AgentVerb::Wipe, &["d1", "d2"]), [true, true]);
        deeds(&hardware);
        power(&hardware, "k4", PowerAction::Cycle).unwrap();
        finish(&hardware);
        assert_eq!(deeds(&hardware), ["s1 off k4", "s1 boots  k4"], "nothing is left to boot");
        assert!(hardware.agents().is_empty());
    }

    #[test]
    fn an_override_counts_once_or_until_it_is_cleared() {
        let hardware = machine(false);
        let cycle = |target: &str, continuous, uri: &str| {
            let request = bmc::SetBootOverrideRequest {
                system: system(),
                target: target.to_owned(),
                continuous,
                http_boot_uri: uri.to_owned(),
                ..Default::default()
            };
            now(hardware.set_boot_override(Request::new(request))).unwrap();
            for _ in 0..2 {
                power(&hardware, "", PowerAction::Cycle).unwrap();
                finish(&hardware);
            }
            let mut boots = deeds(&hardware);
            boots.retain(|deed| deed.contains("boots"));
            boots
        };
        insert(&hardware, AGENT);
        assert_eq!(cycle("Cd", true, ""), ["s1 boots t1 ", "s1 boots t1 "]);
        assert_eq!(cycle("Cd", false, ""), ["s1 boots t1 ", "s1 boots  "]);
        assert_eq!(cycle("None", false, ""), ["s1 boots  ", "s1 boots  "]);
        assert_eq!(cycle("UefiHttp", false, AGENT), ["s1 boots t1 ", "s1 boots  "]);
    }

    #[test]
    fn an_erase_leaves_nothing_unless_the_bmc_lies_or_fails() {
        for (lies, luck, ok) in [(false, Luck::Good, true), (false, Luck::Bad, false), (true, Luck::Good, false)] {
            let hardware = machine(lies);
            boot(&hardware, AGENT);
            assert_eq!(hardware.agents(), [("s1".to_owned(), "t1".to_owned())]);
            assert_eq!(tell(&hardware, AgentVerb::Mark, &["d1", "d9"]), [true, false]);
            let operation = erase(&hardware, "k1", "d1").unwrap().name;
            let bad = matches!(luck, Luck::Bad);
            hardware.progress(&operation, Luck::Good);
            hardware.progress(&operation, luck);
            assert_eq!(get(&hardware, &operation).unwrap().error.is_some(), bad);
            assert_eq!(tell(&hardware, AgentVerb::Verify, &["d1", "d2"]), [true, true]);
            let deeds = deeds(&hardware);
            assert!(deeds.contains(&format!("verified d1 {ok}")));
            assert_eq!(deeds.contains(&"erased d1".to_owned()), ok);
            assert_eq!(deeds.last().unwrap(), "verified d2 true");
        }
    }

    #[test]
    fn only_the_running_agent_does_anything() {
        let hardware = machine(false);
        assert!(tell(&hardware, AgentVerb::Wipe, &["d1"]).is_empty());
        boot(&hardware, "http://discovery/agent/t2.iso");
        assert!(tell(&hardware, AgentVerb::Wipe, &["d1"]).is_empty());
        boot(&hardware, AGENT);
        assert_eq!(tell(&hardware, AgentVerb::Wipe, &["d1"]), [true]);
        assert!(tell(&hardware, AgentVerb::Off, &[]).is_empty());
        assert!(!hardware.is_on("s1"));
        let expected = [
            "s1 boots t2 ",
            "s1 off ",
            "s1 boots t1 ",
            "t1 wiped d1 c1",
            "erased d1",
            "s1 off c1",
        ];
        assert_eq!(deeds(&hardware), expected);
    }

    #[test]
    fn a_bmc_that_does_not_answer_is_known_still() {
        let hardware = machine(false);
        let name = || "b1".to_owned();
        let record = || now(hardware.get_bmc(Request::new(bmc::GetBmcRequest { name: name() }))).unwrap();
        let ready = |bmc: &bmc::Bmc| {
            bmc.conditions
                .iter()
                .find(|condition| condition.r#type == "Ready")
                .unwrap()
                .status()
        };
        let look = || now(hardware.get_system(Request::new(bmc::GetSystemRequest { system: system() })));
        let before = record();
        assert_eq!(ready(&before), common::ConditionStatus::True);
        power(&hardware, "k1", PowerAction::On).unwrap();
        hardware.reachable("b1", false);
        finish(&hardware);
        assert!(hardware.is_on("s1"));
        assert_eq!(record().observed, before.observed, "as it was last seen");
        assert_eq!(ready(&record()), common::ConditionStatus::False);
        assert_eq!(refused(look()), "BMC_UNREACHABLE");
        assert_eq!(refused(power(&hardware, "k2", PowerAction::Cycle)), "BMC_UNREACHABLE");
        hardware.reachable("b1", true);
        assert_eq!(look().unwrap().power_state(), PowerState::On);
        assert_ne!(record().metadata, before.metadata);
        assert_eq!(
            now(hardware.list_bmcs(Request::new(bmc::ListBmcsRequest::default()))).unwrap().bmcs,
            [record()]
        );
        let unknown = bmc::GetBmcRequest { name: "b2".to_owned() };
        assert_eq!(refused(now(hardware.get_bmc(Request::new(unknown)))), "BMC_NOT_FOUND");
        let unknown = SystemName {
            bmc: name(),
            system_id: "2".to_owned(),
            ..Default::default()
        };
        let request = bmc::GetSystemRequest { system: Some(unknown) };
        assert_eq!(refused(now(hardware.get_system(Request::new(request)))), "SYSTEM_NOT_FOUND");
        let watched = hardware
            .watch_bmcs(Request::new(bmc::WatchBmcsRequest::default()))
            .now_or_never()
            .unwrap();
        assert_eq!(watched.err().unwrap().code(), Code::Unimplemented);
    }

    #[test]
    fn both_sides_show_one_machine() {
        let hardware = machine(false);
        hardware.register(&mut tonic::service::Routes::builder());
        let outside = now(hardware.get_hardware(Request::new(bmc::GetHardwareRequest { system: system() }))).unwrap();
        let inside = hardware.seen_inside("s1");
        assert_eq!(
            (&outside.system_uuid, &outside.serial_number),
            (&"uuid-1".to_owned(), &"serial-1".to_owned())
        );
        assert_eq!(
            (&outside.system_uuid, &outside.serial_number),
            (&inside.system_uuid, &inside.serial_number)
        );
        assert_eq!(outside.drives[0].sanitization_types, ["CryptographicErase"]);
        assert!(outside.drives[0].secure_erase && !outside.drives[1].secure_erase && !inside.drives[0].secure_erase);
        assert_eq!(
            (inside.drives[1].serial_number.as_str(), inside.drives[1].device.as_str()),
            ("d2", "/dev/nvme1n1")
        );
        let drives = now(hardware.list_drives(Request::new(bmc::ListDrivesRequest { system: system() }))).unwrap();
        assert_eq!(drives.drives, outside.drives);
        let systems = now(hardware.list_systems(Request::new(bmc::ListSystemsRequest { bmc: "b1".to_owned() }))).unwrap();
        assert_eq!((systems.systems.len(), systems.systems[0].system_id.as_str()), (1, "1"));
    }

    #[test]
    fn settings_change_once() {
        let hardware = machine(false);
        let led = |on| now(hardware.set_indicator_led(Request::new(bmc::SetIndicatorLedRequest { system: system(), on })));
        let eject = || now(hardware.eject_media(Request::new(bmc::EjectMediaRequest { system: system() })));
        let order = |device: &str| {
            let devices = vec![device.to_owned()];
            now(hardware.set_boot_order(Request::new(bmc::SetBootOrderRequest { system: system(), devices })))
        };
        let set = |name: &str, value: &str| {
            let attributes = [(name.to_owned(), value.to_owned())].into();
            now(hardware.set_bios(Request::new(bmc::SetBiosRequest {
                system: system(),
                attributes,
            })))
        };
        let reset = || now(hardware.reset_bios(Request::new(bmc::ResetBiosRequest { system: system() })));
        for expected in [true, false] {
            assert_eq!(led(true).unwrap().changed, expected);
            assert_eq!(insert(&hardware, SYSTEM), expected);
            assert_eq!(boot_next(&hardware, "Pxe"), expected);
            assert_eq!(order("Network").unwrap().changed, expected);
            assert_eq!(set("HyperThreading", "Disabled").unwrap().changed, expected);
        }
        assert!(eject().unwrap().changed && !eject().unwrap().changed);
        assert!(boot_next(&hardware, "None") && !boot_next(&hardware, "None"));
        assert_eq!(refused(order("Floppy")), "BMC_INVALID_VALUE");
        assert_eq!(refused(set("Nonsense", "1")), "BMC_INVALID_VALUE");
        let look = now(hardware.get_system(Request::new(bmc::GetSystemRequest { system: system() }))).unwrap();
        assert_eq!(look.boot_order, ["Network", "Disk", "Cd"]);
        let bios = || now(hardware.get_bios(Request::new(bmc::GetBiosRequest { system: system() }))).unwrap();
        assert_eq!((bios().attributes["HyperThreading"].as_str(), bios().pending.len()), ("Enabled", 1));
        power(&hardware, "k1", PowerAction::On).unwrap();
        finish(&hardware);
        assert_eq!(
            (bios().attributes["HyperThreading"].as_str(), bios().pending.len()),
            ("Disabled", 0)
        );
        assert!(reset().unwrap().changed && !reset().unwrap().changed);
        power(&hardware, "k2", PowerAction::Cycle).unwrap();
        finish(&hardware);
        assert_eq!(bios().attributes, bios_defaults());
        assert!(!bios().reset_pending);
    }
}
