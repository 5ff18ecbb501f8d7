//! The gateways that share a database share the BMCs: each has an owner at one of them, and calls find it whichever gateway they come to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard_reconcile::{Member, Membership, Queue, slot};
use ironyard_rpc::{
    Channel, client,
    forward::{Keys, Owners, Peer},
};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::device::{Consoles, Devices};

/// How the other gateways reach this one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its own address for the others, as in `https://10.0.0.5:7700`; empty: reads are answered where they come in, and writes only
    /// where that is the gateway that has the BMC.
    pub advertise: String,
    /// Certificates to show to the others.
    pub tls: Option<client::TlsConfig>,
}

/// How often BMCs are let go that others have, should a call have started their owner here.
const LET_GO: Duration = Duration::from_secs(15);
/// Connections to another gateway: one serves 512 calls at once, and many may wait for slow BMCs.
const CONNECTIONS: usize = 16;

/// The gateways that share the BMCs.
#[derive(Clone)]
pub struct Replicas {
    membership: Membership,
    tls: Option<client::TlsConfig>,
    /// Connections to the others, by address and number.
    channels: Arc<Mutex<HashMap<(String, usize), Channel>>>,
}

impl Replicas {
    /// Knows of none but this one.
    pub fn new(membership: Membership, config: &Config) -> Result<Self, client::Error> {
        let replicas = Self {
            membership,
            tls: config.tls.clone(),
            channels: Arc::default(),
        };
        // What is wrong with its own address or certificates is told at the start.
        if !config.advertise.is_empty() {
            replicas.new_channel(&config.advertise)?;
        }
        Ok(replicas)
    }

    /// Where requests name the BMC that they are about.
    pub fn keys() -> Keys {
        Keys::of("ironyard.bmc.v1", "bmc")
    }

    /// Whether this gateway has a BMC.
    pub fn is_mine(&self, bmc: &str) -> bool {
        self.membership.view().is_mine(bmc)
    }

    /// The connection that calls about a BMC share with some others.
    fn channel(&self, address: &str, bmc: &str) -> Result<Channel, client::Error> {
        let key = (address.to_owned(), slot(bmc) % CONNECTIONS);
        if let Some(known) = self.channels.lock().ok().and_then(|channels| channels.get(&key).cloned()) {
            return Ok(known);
        }
        let channel = self.new_channel(address)?;
        if let Ok(mut channels) = self.channels.lock() {
            channels.insert(key, channel.clone());
        }
        Ok(channel)
    }

    fn new_channel(&self, address: &str) -> Result<Channel, client::Error> {
        Channel::new(address, self.tls.as_ref())
    }

    fn peer(&self, owner: &Member, channel: Result<Channel, client::Error>) -> Option<Peer> {
        let channel = match channel {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "a replica says that it is where it cannot be");
                return None;
            }
        };
        let (membership, id) = (self.membership.clone(), owner.id.clone());
        Some(Peer {
            channel,
            gone: Box::pin(async move { membership.when(|now| !now.has(&id)).await }),
        })
    }

    /// What is this gateway's, and what is each other's.
    pub fn divide<T>(&self, all: Vec<T>, bmc: impl Fn(&T) -> &str) -> (Vec<T>, Vec<(Peer, Vec<T>)>) {
        let view = self.membership.view();
        let (mut mine, mut elsewhere) = (Vec::new(), HashMap::<&str, (&Member, Vec<T>)>::new());
        for one in all {
            match view.elsewhere(bmc(&one)).filter(|owner| !owner.address.is_empty()) {
                Some(owner) => elsewhere.entry(&owner.id).or_insert((owner, vec![])).1.push(one),
                None => mine.push(one),
            }
        }
        let mut others = Vec::new();
        for (owner, theirs) in elsewhere.into_values() {
            match self.peer(owner, self.new_channel(&owner.address)) {
                Some(peer) => others.push((peer, theirs)),
                None => mine.extend(theirs),
            }
        }
        (mine, others)
    }

    /// Lets go of what has become another's, until `shutdown`.
    pub async fn run(&self, devices: &Devices, consoles: &Consoles, queues: &[&Queue], shutdown: CancellationToken) {
        let mut epoch = self.membership.view().epoch;
        loop {
            let before = self.membership.view();
            if std::mem::replace(&mut epoch, before.epoch) != before.epoch {
                // Others may have had them in the meantime: nothing of what was known of them, not even a session, is this one's any more.
                devices.keep(|_| false);
            }
            // One whose owner cannot be reached from here is served here.
            let stays = |bmc: &str| before.elsewhere(bmc).is_none_or(|owner| owner.address.is_empty());
            devices.keep(stays);
            consoles.keep(stays).await;
            if let Ok(mut channels) = self.channels.lock() {
                channels.retain(|(address, _), _| before.reaches(address));
            }
            let changed = self.membership.when(|now| *now != *before);
            let latest = Instant::now() + LET_GO;
            let again = self.membership.writes_from().map_or(latest, |from| from.min(latest));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed => queues.iter().for_each(|queue| queue.wake()),
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }
}

impl Owners for Replicas {
    fn shared(&self) -> bool {
        !self.membership.view().alone()
    }

    fn elsewhere(&self, bmc: &str, lasts: bool) -> Option<Peer> {
        let view = self.membership.view();
        let owner = view.elsewhere(bmc).filter(|owner| !owner.address.is_empty())?;
        let channel = if lasts {
            self.new_channel(&owner.address)
        } else {
            self.channel(&owner.address, bmc)
        };
        self.peer(owner, channel)
    }
}
