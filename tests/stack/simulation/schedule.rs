//! One schedule: who takes the next turn, what users and machines do, and what goes wrong.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use ironyard_proto::{
    common::Reference,
    discovery,
    inventory::{self, InBandPolicy, ReclaimPolicy, Server, ServerSpec},
};
use serde_json::Value;
use tokio::sync::watch::Receiver;

use super::{
    actors::{Actor, Chance},
    hardware::{DriveModel, Luck},
    record::Recorder,
    users::{Act, Clients, Plan, act, metadata, plan, server},
    world::{CLAIM, DISCOVERY, INVENTORY, Replica, Service, World},
};
use crate::checkers::history::{Expected, Fact, judge};

/// Why a claim may wait for ever where nothing but machinery fails: there is no server for it.
const NONE: [&str; 2] = ["NO_SERVER_MATCHES", "SERVER_NOT_AVAILABLE"];

/// Steps of a cleanup, as its documentation has them.
const STEPS: [&str; 15] = [
    "PowerOff",
    "Retain",
    "Identify",
    "ResetBios",
    "ClearBoot",
    "EjectMedia",
    "LedOff",
    "ListDrives",
    "BootAgent",
    "Mark",
    "Erase",
    "Verify",
    "EndAgent",
    "Certify",
    "Finish",
];

/// Turns after which a schedule that is not at rest is given up.
const MOST: u64 = 20_000;
pub const SECOND: i64 = 1_000_000;

/// What came of a schedule.
pub struct Outcome {
    pub found: Vec<String>,
    pub turns: u64,
    /// The history without names that differ from run to run.
    pub shape: Vec<String>,
}

/// A process of the schedule.
struct Process {
    service: Service,
    place: usize,
    db: usize,
    replica: Arc<Replica>,
}

/// A schedule that runs.
struct Schedule<'w> {
    world: &'w World,
    chance: Chance,
    plan: Plan,
    clients: Clients,
    processes: Vec<Process>,
    actors: Vec<Actor>,
    recorder: Recorder,
    grown: [Receiver<i64>; 4],
    /// Servers that changed, as the watches have yet to tell.
    untold: BTreeMap<(usize, String), i64>,
    /// Due times by database, and the count of moves that they are of.
    due: [(u64, Vec<(String, i64)>); 4],
    begun: i64,
    turns: u64,
    trace: bool,
}

/// Runs the schedule of a seed.
pub async fn run(world: &World, seed: u64, trace: bool) -> Outcome {
    world.reset(seed).await;
    let mut chance = Chance::new(seed);
    let plan = plan(world, &mut chance);
    world.start_gateway();
    for place in 0..2 {
        let offset = if plan.steps { chance.between(-60, 60) * SECOND } else { 0 };
        world.start_inventory(place, &world.skewed(offset));
    }
    let mut processes = Vec::new();
    for (service, db) in [
        (Service::Discovery, DISCOVERY),
        (Service::Claim, CLAIM),
        (Service::Maintenance, super::world::MAINTENANCE),
    ] {
        for place in 0..2 + usize::from(service == Service::Claim && chance.permille(300)) {
            let offset = if plan.steps { chance.between(-60, 60) * SECOND } else { 0 };
            let clock = world.skewed(offset);
            let replica = Arc::new(world.start(service, place, &clock));
            processes.push(Process {
                service,
                place,
                db,
                replica,
            });
        }
    }
    let mut schedule = Schedule {
        world,
        chance,
        plan,
        clients: Clients::of(world),
        processes,
        actors: vec![],
        recorder: Recorder::default(),
        grown: world.dbs.each_ref().map(ironyard_db::Db::subscribe),
        untold: BTreeMap::new(),
        due: Default::default(),
        begun: world.time.micros(),
        turns: 0,
        trace,
    };
    schedule.populate().await;
    let rested = schedule.go().await;
    schedule.verdict(rested).await
}

impl Schedule<'_> {
    /// Makes the machines, and the servers that stand for them.
    async fn populate(&mut self) {
        for n in 0..self.plan.servers {
            let mut drives = Vec::new();
            for drive in 0..1 + self.chance.below(2) {
                let lies = self.plan.bad > 0 && self.chance.permille(100);
                drives.push(DriveModel {
                    serial: format!("d{n}{drive}"),
                    bmc_erases: if self.chance.permille(600) {
                        vec!["CryptographicErase".to_owned()]
                    } else {
                        vec![]
                    },
                    lies,
                });
            }
            let uuid = format!("3d6b4c3a-0000-4000-8000-00000000000{n}");
            self.world
                .hardware
                .add(&format!("bmc-{n}"), &server(n), &uuid, &format!("serial-{n}"), drives);
            let retain = self.chance.permille(200);
            let in_band = if self.chance.permille(100) {
                InBandPolicy::Required
            } else {
                InBandPolicy::Off
            };
            let spec = ServerSpec {
                bmc_ref: Some(Reference {
                    name: format!("bmc-{n}"),
                    uid: String::new(),
                }),
                system_uuid: uuid,
                reclaim_policy: if retain { ReclaimPolicy::Retain } else { ReclaimPolicy::Recycle }.into(),
                in_band: in_band.into(),
                ..Default::default()
            };
            let request = inventory::CreateServerRequest {
                server: Some(Server {
                    metadata: metadata(server(n)),
                    spec: Some(spec),
                    ..Default::default()
                }),
                request_id: format!("create-{n}"),
            };
            let mut servers = self.clients.servers.clone();
            self.actors.push(Actor::new("create", None, async move {
                for _ in 0..50 {
                    if servers.create_server(request.clone()).await.is_ok() {
                        return;
                    }
                }
            }));
        }
    }

    fn now(&self) -> i64 {
        self.world.time.micros() - self.begun
    }

    fn calm(&self) -> bool {
        self.now() > self.plan.until
    }

    fn say(&self, words: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>5} {:>10.3} {}", self.turns, self.now() as f64 / 1e6, words());
        }
    }

    /// Turns until all is at rest; whether it came to that.
    async fn go(&mut self) -> bool {
        let mut resting = 0;
        while self.turns < MOST {
            self.turns += 1;
            if self.calm() {
                for rate in [
                    &self.world.net.faults.lost,
                    &self.world.net.faults.unanswered,
                    &self.world.net.faults.delayed,
                ] {
                    rate.store(0, Ordering::Relaxed);
                }
            }
            let moved = self.turn().await;
            self.look().await;
            if moved {
                resting = 0;
            } else {
                resting += 1;
                if self.calm() && self.plan.acts.is_empty() && self.actors.is_empty() && self.at_rest().await {
                    return true;
                }
                self.leap(resting).await;
            }
        }
        false
    }

    /// Nothing can go on now: time passes until something can.
    async fn leap(&mut self, resting: u32) {
        let now = self.world.time.micros();
        let mut next = now + 60 * SECOND;
        for db in DISCOVERY..4 {
            for (_, at) in self.world.due(db).await {
                next = next.min(at);
            }
        }
        if let Some((at, _)) = self.plan.acts.front() {
            next = next.min(self.begun + at);
        }
        let least = if resting > 50 { SECOND } else { 1000 };
        self.world.time.advance((next - now).max(least));
    }

    /// One thing happens; false when nothing can.
    async fn turn(&mut self) -> bool {
        self.world.time.advance(self.chance.between(0, 20_000));
        if !self.calm() && self.storm() {
            return true;
        }
        let now = self.world.time.micros();
        // What may happen, and how likely.
        let running = self.world.hardware.running();
        let agents = self.agents();
        let stray = self.world.net.stray.lock().unwrap().len();
        let workers = self.due_workers(now).await;
        let act_due = self.plan.acts.front().is_some_and(|(at, _)| self.begun + at <= now);
        let weights = [
            12 * self.actors.len() as u64,
            6 * workers.len() as u64,
            3 * running.len() as u64,
            4 * agents.len() as u64,
            6 * self.untold.len() as u64,
            if act_due { 8 } else { 0 },
            stray as u64,
        ];
        if weights.iter().sum::<u64>() == 0 {
            return false;
        }
        match self.chance.weighted(&weights) {
            0 => {
                let n = self.chance.below(self.actors.len());
                self.say(|| self.actors[n].name.clone());
                if self.actors[n].turn(&self.world.gate).await {
                    drop(self.actors.swap_remove(n));
                }
            }
            1 => {
                let (process, controller) = workers[self.chance.below(workers.len())];
                let replica = self.processes[process].replica.clone();
                let name = format!("{}#{process}", replica.controllers[controller].queue().name());
                self.actors.push(Actor::new(name, Some(process), async move {
                    drop(replica.controllers[controller].step().await);
                }));
            }
            2 => {
                let operation = &running[self.chance.below(running.len())];
                let bad = !self.calm() && self.chance.permille(self.plan.bad);
                self.say(|| format!("hardware: {operation} bad={bad}"));
                self.world.hardware.progress(operation, if bad { Luck::Bad } else { Luck::Good });
            }
            3 => {
                let n = self.chance.below(agents.len());
                self.agent(agents[n].clone()).await;
            }
            4 => self.tell(),
            5 => {
                if let Some((_, next)) = self.plan.acts.pop_front() {
                    self.user(next);
                }
            }
            _ => {
                let n = self.chance.below(stray);
                let actor = self.world.net.stray.lock().unwrap().remove(n);
                self.actors.extend(actor);
            }
        }
        true
    }

    /// Something goes wrong, now and then.
    fn storm(&mut self) -> bool {
        if self.plan.kills && self.chance.permille(4) {
            let n = self.chance.below(self.processes.len());
            self.say(|| format!("process {n} dies"));
            self.actors.retain(|actor| actor.process != Some(n));
            let process = &mut self.processes[n];
            process.replica = Arc::new(self.world.start(process.service, process.place, &process.replica.clock));
            return true;
        }
        if self.plan.kills && self.chance.permille(1) {
            self.say(|| "the gateway restarts".to_owned());
            self.world.start_gateway();
            return true;
        }
        if self.plan.steps && self.chance.permille(4) {
            let n = self.chance.below(self.processes.len());
            let offset = self.chance.between(-60, 60) * SECOND;
            self.say(|| format!("clock of process {n} steps to {}", offset / SECOND));
            self.processes[n].replica.clock.offset.store(offset, Ordering::Relaxed);
            return true;
        }
        if self.plan.pauses && self.chance.permille(6) {
            // Whoever is in the middle of something is paused for longer than its lease.
            let pause = self.chance.between(1, 30) * SECOND;
            self.say(|| format!("everybody who is busy pauses for {} s", pause / SECOND));
            self.world.time.advance(pause);
            return true;
        }
        false
    }

    /// Controllers that have something to do.
    async fn due_workers(&mut self, now: i64) -> Vec<(usize, usize)> {
        // Inventory has no queue.
        for db in DISCOVERY..4 {
            let moves = self.world.moves[db].load(Ordering::Relaxed);
            if self.due[db].0 != moves || self.due[db].1.is_empty() {
                self.due[db] = (moves, self.world.due(db).await);
            }
        }
        let mut workers = Vec::new();
        for (p, process) in self.processes.iter().enumerate() {
            for (queue, at) in &self.due[process.db].1 {
                let index = process.replica.controllers.iter().position(|c| c.queue().name() == queue);
                let Some(index) = index.filter(|_| *at <= now) else { continue };
                let name = format!("{queue}#{p}");
                if self.actors.iter().filter(|actor| actor.name == name).count() < 2 {
                    workers.push((p, index));
                }
            }
        }
        workers
    }

    /// Machines that run the agent, and whose agent is not busy.
    fn agents(&self) -> Vec<(String, String)> {
        let mut agents = self.world.hardware.agents();
        agents.retain(|(server, _)| !self.actors.iter().any(|actor| actor.name == format!("agent of {server}")));
        agents
    }

    /// The agent of a machine does what it is told.
    async fn agent(&mut self, (server, image): (String, String)) {
        let rows = self.world.bodies(DISCOVERY, "agent_run").await;
        let run = rows.iter().find(|row| row["image_id"] == image.as_str());
        // What the image holds inside.
        let token = run.and_then(|run| run["token"].as_str()).unwrap_or_default().to_owned();
        let session = format!("session of the agent in {image}").replace(' ', "-");
        let reported = run.is_some_and(|run| !run["report"].is_null());
        let told = run.is_some_and(|run| {
            run["commands"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["results"].is_null()))
        });
        let mut client = self.clients.agents.clone();
        let hardware = self.world.hardware.clone();
        let name = format!("agent of {server}");
        if !reported {
            let seen = hardware.seen_inside(&server);
            self.actors.push(Actor::new(name, None, async move {
                let request = discovery::ReportRequest {
                    token,
                    session,
                    hardware: Some(seen),
                };
                drop(client.report(request).await);
            }));
        } else if told {
            self.actors.push(Actor::new(name, None, async move {
                let request = discovery::NextCommandRequest {
                    token: token.clone(),
                    session: session.clone(),
                };
                let next = client.next_command(request).await;
                let Some(command) = next.ok().and_then(|reply| reply.into_inner().command) else {
                    return;
                };
                let results = hardware.execute(&server, &image, &command);
                let request = discovery::FinishCommandRequest {
                    token,
                    session,
                    id: command.id,
                    results,
                };
                drop(client.finish_command(request).await);
            }));
        } else {
            // It asks, and there is nothing: time passes.
            self.world.time.advance(100_000);
        }
    }

    /// A watch tells one service of a server.
    fn tell(&mut self) {
        let n = self.chance.below(self.untold.len());
        let Some(key) = self.untold.keys().nth(n).cloned() else { return };
        self.untold.remove(&key);
        let (db, name) = key;
        let listeners: Vec<usize> = (0..self.processes.len()).filter(|p| self.processes[*p].db == db).collect();
        let replica = self.processes[listeners[self.chance.below(listeners.len())]].replica.clone();
        let mut servers = self.clients.servers.clone();
        // A watch that breaks goes on where it was: it outlives its process.
        self.actors.push(Actor::new(format!("watch of {name}"), None, async move {
            for _ in 0..100 {
                if let Ok(server) = servers.get_server(inventory::GetServerRequest { name: name.clone() }).await {
                    return replica.kind.saw(&server.into_inner()).await;
                }
            }
        }));
    }

    fn user(&mut self, next: Act) {
        self.say(|| format!("user: {next:?}"));
        match &next {
            Act::Reach { server: n, reachable } => return self.world.hardware.reachable(&format!("bmc-{n}"), *reachable),
            Act::Waive { server: n } => drop(self.recorder.waivers.insert(server(*n), "administrator".to_owned())),
            _ => {}
        }
        let clients = self.clients.clone();
        self.actors.push(Actor::new("user", None, act(next, clients)));
    }

    /// Notes what the databases and the machines show since the last turn.
    async fn look(&mut self) {
        for deed in self.world.hardware.take_deeds() {
            self.say(|| format!("{deed:?}"));
            self.recorder.deed(deed);
        }
        let grown: [bool; 4] = std::array::from_fn(|db| self.grown[db].has_changed().unwrap_or(false));
        for (receiver, _) in self.grown.iter_mut().zip(grown).filter(|(_, grown)| *grown) {
            receiver.mark_unchanged();
        }
        if grown[INVENTORY] {
            let rows = self.world.bodies(INVENTORY, "server").await;
            for row in &rows {
                let name = row["metadata"]["name"].as_str().unwrap_or_default();
                for db in 1..4 {
                    self.untold.insert((db, name.to_owned()), self.now());
                }
                self.say(|| {
                    format!(
                        "{name}: {} {} {}",
                        row["state"], row["facts"]["claim"]["name"], row["waiting"]["reason"]
                    )
                });
            }
            self.recorder.servers(&rows);
        }
        if grown[CLAIM] {
            let runs = self.world.bodies(CLAIM, "cleanup_run").await;
            for run in &runs {
                self.say(|| format!("{}: {} {}", run["metadata"]["name"], run["step"], run["failure"]));
            }
            let certificates = self.world.bodies(CLAIM, "certificate").await;
            self.recorder.claims(&runs, &certificates);
        }
        if grown[DISCOVERY] {
            let runs = self.world.bodies(DISCOVERY, "agent_run").await;
            self.recorder.agents(&runs);
        }
    }

    /// Whether everything is where it may stay.
    async fn at_rest(&mut self) -> bool {
        self.unrest().await.is_empty()
    }

    /// What is not where it may stay.
    async fn unrest(&mut self) -> Vec<String> {
        let mut unrest = Vec::new();
        if !self.world.hardware.running().is_empty() {
            unrest.push("operations run".to_owned());
        }
        for row in self.world.bodies(INVENTORY, "server").await {
            let kept = row["waiting"]["reason"] == "RETAINED";
            let state = row["state"].as_str().unwrap_or_default();
            let rests = matches!(state, "Available" | "Reserved" | "Error" | "Maintenance") || (state == "Cleanup" && kept);
            if !rests {
                unrest.push(format!("{} is {state}: {}", row["metadata"]["name"], row["waiting"]));
            }
        }
        for row in self.world.bodies(CLAIM, "server_claim").await {
            let (phase, waits) = (row["phase"].as_str().unwrap_or_default(), row["waiting"].is_object());
            let leaves = !row["metadata"]["deleted_at"].is_null();
            let settled = row["spec"]["power"].is_null() || row["applied"]["power"] == row["spec"]["power"];
            // Where nothing but machinery fails, waiting is no place to stay for a claim that has its server, or that leaves.
            let excused = waits && !self.plan.sound;
            let reason = row["waiting"]["reason"].as_str().unwrap_or_default();
            let none = waits && (!self.plan.sound || NONE.contains(&reason));
            if (phase == "Bound" && !settled && !excused) || (phase == "Pending" && !none) || (leaves && !excused) {
                unrest.push(format!("claim {} is {phase}: {}", row["metadata"]["name"], row));
            }
        }
        unrest
    }

    /// Servers that are held for claims that do not exist: where nothing but machinery fails, any; else those of which nobody says so after
    /// a sweep.
    async fn orphans(&mut self) -> Vec<String> {
        let claims = self.world.bodies(CLAIM, "server_claim").await;
        let known = |uid: &str| claims.iter().any(|claim| claim["metadata"]["uid"] == uid);
        let held = |row: &Value| row["facts"]["claim"]["uid"].as_str().is_some_and(|uid| !known(uid));
        let rows = self.world.bodies(INVENTORY, "server").await;
        for row in rows.iter().filter(|row| held(row)) {
            let name = row["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let replica = self
                .processes
                .iter()
                .find(|process| process.db == CLAIM)
                .map(|process| process.replica.clone());
            let (mut servers, replica) = (self.clients.servers.clone(), replica.unwrap());
            let mut actor = Actor::new("sweep", None, async move {
                let server = servers.get_server(inventory::GetServerRequest { name }).await.unwrap();
                replica.kind.sweep(&server.into_inner()).await;
            });
            while !actor.turn(&self.world.gate).await {}
        }
        let rows = self.world.bodies(INVENTORY, "server").await;
        let sound = self.plan.sound;
        let says = |row: &Value| {
            let conditions = row["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["kind"] == "ClaimExists" && c["status"] == "False")
        };
        let lost = rows.iter().filter(|row| held(row) && (sound || !says(row)));
        lost.map(|row| format!("held for a claim that does not exist: {row}")).collect()
    }

    async fn verdict(mut self, rested: bool) -> Outcome {
        let mut found = std::mem::take(&mut self.recorder.found);
        if !rested {
            for what in self.unrest().await {
                found.push(format!("not at rest after {} turns: {what}", self.turns));
            }
            if found.is_empty() {
                let busy: Vec<&String> = self.actors.iter().map(|actor| &actor.name).collect();
                found.push(format!("not at rest after {} turns: {busy:?}, {:?}", self.turns, self.plan.acts));
            }
        }
        found.extend(self.orphans().await);
        if self.plan.sound {
            found.extend(
                self.recorder
                    .errors
                    .iter()
                    .map(|error| format!("an error where nothing failed: {error}")),
            );
        }
        let turns = self.turns;
        let maintenances = self.world.bodies(super::world::MAINTENANCE, "server_maintenance").await;
        for maintenance in maintenances.iter().filter(|row| row["metadata"]["deleted_at"].is_null()) {
            self.recorder.held(maintenance["spec"]["server"].as_str().unwrap_or_default());
        }
        let (facts, at_rest) = self.recorder.finish();
        let expected = Expected { steps: STEPS.to_vec() };
        found.extend(judge(&facts, &expected, &at_rest));
        let shape = facts.iter().map(kind_of).collect();
        Outcome { found, turns, shape }
    }
}

/// A fact without the names that chance gives.
fn kind_of(fact: &Fact) -> String {
    let text = format!("{fact:?}");
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
