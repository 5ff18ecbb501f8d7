//! What gRPC and the reconcilers share.

use ironyard_db::{Stored, record};
use ironyard_operation::{MutateError, Request};
use ironyard_peers::{Gateway, Inventory, Wakeups};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, Kind, update};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Metadata, random_hex, sha256_hex};

use crate::{
    Settings,
    domain::{
        agent_run::{AgentRun, Delivery, Running, Stage},
        discovery_run::DiscoveryRun,
        endpoint::Endpoint,
    },
    notifier::RunNotifier,
    store,
};

macro_rules! kind {
    ($record:ty, $noun:literal, $missing:ident, $exists:ident, $changed:ident) => {
        impl Kind for $record {
            const NOUN: &'static str = $noun;
            const NOT_FOUND: Reason = Reason::$missing;
            const EXISTS: Reason = Reason::$exists;
            const CHANGED: Reason = Reason::$changed;
        }
    };
}

kind!(Endpoint, "endpoint", EndpointNotFound, EndpointExists, EndpointChanged);
kind!(AgentRun, "agent run", AgentRunNotFound, AgentBusy, PeerUnavailable);
kind!(DiscoveryRun, "discovery run", ServerNotFound, ServerExists, PeerUnavailable);

/// Everything that the service works with.
#[derive(Clone)]
pub struct App {
    /// Database and time.
    pub cx: Context,
    /// Inventory.
    pub inventory: Inventory,
    /// The gateway.
    pub gateway: Gateway,
    /// What the site wants.
    pub settings: Settings,
    /// How BMCs reach the agent's image; empty: there is none.
    pub image_url: String,
    /// Endpoints that are due.
    pub endpoints: Queue,
    /// BMCs that are due.
    pub bmcs: Queue,
    /// Servers that are due.
    pub servers: Queue,
    /// Runs of the agent that are due.
    pub runs: Queue,
    /// Runs whose agents are on the line.
    pub notifier: RunNotifier,
    /// What waits for the gateway's operations.
    pub wakeups: Wakeups,
}

/// A failed database call, as a fault.
pub(crate) fn store_fault(error: ironyard_db::Error) -> Fault {
    Fault::internal(&error)
}

impl App {
    /// Begins a run of the agent; the same key gives the same run. One run holds a machine at a time.
    pub async fn begin_run(&self, server: &str, purpose: &str, key: &str, running: Running) -> Result<Stored<AgentRun>, Fault> {
        // The name follows from the key, so a call that is repeated after a crash finds its run.
        let name = format!(
            "run-{}",
            sha256_hex(format!("{server}/{key}").as_bytes()).get(..20).unwrap_or_default()
        );
        if let Some(run) = record::get::<AgentRun>(&self.cx.db, &name).await.map_err(store_fault)? {
            // It may have been stored by a process that died before it could make it due.
            self.runs.enqueue(&name).await.map_err(store_fault)?;
            return Ok(run);
        }
        if let Some(other) = store::running_on(&self.cx.db, server).await.map_err(store_fault)?.first() {
            let message = format!(
                "the agent run {} ({}) holds server {server}",
                other.value.metadata.name, other.value.purpose
            );
            return Err(Fault::new(Reason::AgentBusy, message).retry_after(std::time::Duration::from_secs(1)));
        }
        let run = AgentRun {
            metadata: Metadata {
                name: name.clone(),
                uid: ironyard_types::random_id(),
                ..Metadata::default()
            },
            server: server.to_owned(),
            purpose: purpose.to_owned(),
            token: random_hex(32),
            image_id: random_hex(16),
            session: String::new(),
            distrusted: None,
            stage: Stage::SwitchOff,
            started_at: self.cx.now(),
            report: None,
            commands: vec![],
            stop: false,
            end_attempts: 0,
            tidy_attempts: 0,
            left_behind: None,
            failure: None,
            running,
            on_asked: false,
            delivery: Delivery::default(),
        };
        match ironyard_operation::create::<AgentRun, Fault>(&self.cx.db, &Request::default(), run, self.cx.now()).await {
            Ok(stored) => {
                self.runs.enqueue(&name).await.map_err(store_fault)?;
                Ok(stored)
            }
            Err(MutateError::Exists) => ironyard_resource::get(&self.cx, &name).await,
            Err(error) => Err(ironyard_resource::fault_of::<AgentRun>(&name, error)),
        }
    }

    /// Changes a run; writers who collide try again.
    pub async fn change_run(&self, name: &str, change: impl Fn(&mut AgentRun) -> Result<(), Fault>) -> Result<Stored<AgentRun>, Fault> {
        let stored = update::<AgentRun>(&self.cx, &Request::default(), name, "", |run| change(run)).await?;
        self.runs.enqueue(name).await.map_err(store_fault)?;
        Ok(stored)
    }

    /// Asks a run to stop.
    pub async fn stop_run(&self, name: &str) -> Result<Stored<AgentRun>, Fault> {
        self.change_run(name, |run| {
            run.stop = true;
            Ok(())
        })
        .await
    }
}
