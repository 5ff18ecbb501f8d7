//! What gRPC and the reconcilers share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use ironyard_peers::TaskError as Error;
use ironyard_peers::{Gateway, Inventory, Wakeups};
use ironyard_proto::{
    discovery::{self, agent_run_service_client::AgentRunServiceClient},
    inventory,
};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, Kind};
use ironyard_rpc::{Channel, Fault, Reason, convert::selector_to};
use ironyard_types::labels::Selector;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        cleanup::{Certificate, CleanupRun},
        evidence::Evidence,
        server_claim::{Request, ServerClaim},
    },
    tasks::{binder::Reserved, pending::Pending},
};

impl Kind for ServerClaim {
    const NOUN: &'static str = "claim";
    const NOT_FOUND: Reason = Reason::ClaimNotFound;
    const EXISTS: Reason = Reason::ClaimExists;
    const CHANGED: Reason = Reason::ClaimChanged;
}

impl Kind for CleanupRun {
    const NOUN: &'static str = "cleanup run";
    const NOT_FOUND: Reason = Reason::CertificateNotFound;
    const EXISTS: Reason = Reason::ClaimExists;
    const CHANGED: Reason = Reason::PeerUnavailable;
}

impl Kind for Evidence {
    const NOUN: &'static str = "evidence";
    const NOT_FOUND: Reason = Reason::ClaimNotFound;
    const EXISTS: Reason = Reason::ClaimExists;
    const CHANGED: Reason = Reason::ClaimChanged;
}

impl Kind for Certificate {
    const NOUN: &'static str = "certificate";
    const NOT_FOUND: Reason = Reason::CertificateNotFound;
    const EXISTS: Reason = Reason::ClaimExists;
    const CHANGED: Reason = Reason::ClaimChanged;
}

/// What the site wants.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds that an operating system is given to shut down when its server is given back, before the power is cut.
    pub graceful_seconds: i32,
    /// Time for one step of a cleanup whose hardware or peer does not answer.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// Who performs wipes, for certificates.
    pub performed_by: String,
    /// How often the servers that claims hold are compared with the claims that exist.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            graceful_seconds: 120,
            patience: Duration::from_secs(900),
            performed_by: "ironyard".to_owned(),
            sweep: Duration::from_secs(600),
        }
    }
}

/// Everything that the service works with.
#[derive(Clone)]
pub struct App {
    /// Database and time.
    pub cx: Context,
    /// Inventory.
    pub inventory: Inventory,
    /// The gateway.
    pub gateway: Gateway,
    /// Discovery, to boot the agent.
    pub agent: AgentRunServiceClient<Channel>,
    /// What waits for operations and for runs of the agent.
    pub wakeups: Wakeups,
    /// What the site wants.
    pub settings: Settings,
    /// The binder: one key, so that claims are served in order.
    pub binder: Queue,
    /// Those who wake the binder.
    pub waking: Arc<Waking>,
    /// Servers as the binder got them.
    pub reserved: Arc<Reserved>,
    /// What pending claims ask for.
    pub pending: Arc<Pending>,
    /// Claims that are due.
    pub claims: Queue,
    /// Servers that are to be adopted.
    pub adoptions: Queue,
    /// Servers whose cleanup is due.
    pub cleanups: Queue,
}

/// Those who want the binder woken, for the task that wakes it: once for all who came while it was at it.
#[derive(Default)]
pub struct Waking {
    asked: Notify,
    /// Whether that task runs.
    runs: AtomicBool,
}

struct Runs<'a>(&'a AtomicBool);

impl<'a> Runs<'a> {
    fn begin(runs: &'a AtomicBool) -> Self {
        runs.store(true, Ordering::SeqCst);
        Self(runs)
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The binder's one key.
pub const BIND: &str = "bind";

/// A failed database call, as a fault.
pub(crate) fn store_fault(error: ironyard_db::Error) -> Fault {
    Fault::internal(&error)
}

/// What a claim asks inventory for.
pub fn reservation(claim: &ServerClaim) -> inventory::ReserveServerRequest {
    let Request {
        server,
        selector,
        tolerations,
        adopt,
    } = claim.request();
    inventory::ReserveServerRequest {
        claim: Some(ironyard_proto::common::Reference {
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
        }),
        server: server.unwrap_or_default(),
        selector: (selector != Selector::default()).then(|| selector_to(selector)),
        tolerations: tolerations
            .into_iter()
            .map(|(key, operator, value)| inventory::Toleration { key, operator, value })
            .collect(),
        adopt,
    }
}

impl App {
    /// Has the binder look at claims.
    pub async fn wake_binder(&self) -> ironyard_db::Result<()> {
        if self.waking.runs.load(Ordering::SeqCst) {
            self.waking.asked.notify_one();
            return Ok(());
        }
        self.binder.enqueue(BIND).await
    }

    /// Wakes the binder for all who ask, until `shutdown`. Where a process dies in between, the binder looks by itself within a minute.
    pub async fn keep_waking(&self, shutdown: &CancellationToken) {
        let _runs = Runs::begin(&self.waking.runs);
        loop {
            tokio::select! {
                () = self.waking.asked.notified() => {}
                () = shutdown.cancelled() => break,
            }
            while let Err(error) = self.binder.enqueue(BIND).await {
                tracing::warn!(%error, "could not wake the binder");
                tokio::time::sleep(Duration::from_secs(1)).await;
                if shutdown.is_cancelled() {
                    break;
                }
            }
        }
    }

    /// A run of the agent.
    pub async fn agent_run(&self, name: &str) -> Result<discovery::AgentRun, Error> {
        Ok(self
            .agent
            .clone()
            .get_agent_run(discovery::GetAgentRunRequest { name: name.to_owned() })
            .await?
            .into_inner())
    }
}
