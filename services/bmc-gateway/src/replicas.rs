//! The gateways that share a database share the BMCs: each has an owner at one of them, and calls find it whichever gateway they come to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ironyard_reconcile::{Member, Queue, Share};
use ironyard_rpc::{
    Channel, client,
    forward::{Keys, Owners, Peer},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::device::{Consoles, Devices};

/// How the other gateways reach this one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its own address for the others, as in `https://10.0.0.5:7700`; empty: calls are answered where they come in, work is shared even so.
    pub advertise: String,
    /// Certificates to show to the others.
    pub tls: Option<client::TlsConfig>,
}

/// How often BMCs are let go that others have, should a call have started their owner here.
const LET_GO: Duration = Duration::from_secs(60);

/// The gateways that share the BMCs.
#[derive(Clone)]
pub struct Replicas {
    share: Share,
    tls: Option<client::TlsConfig>,
    /// Connections to the others, by address.
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Replicas {
    /// Knows of none but this one.
    pub fn new(share: Share, config: &Config) -> Result<Self, client::Error> {
        let replicas = Self {
            share,
            tls: config.tls.clone(),
            channels: Arc::default(),
        };
        // What is wrong with its own address or certificates is told at the start.
        if !config.advertise.is_empty() {
            replicas.channel(&config.advertise)?;
        }
        Ok(replicas)
    }

    /// Where requests name the BMC that they are about.
    pub fn keys() -> Keys {
        Keys::of("ironyard.bmc.v1", "bmc")
    }

    /// Whether this gateway has a BMC.
    pub fn is_mine(&self, bmc: &str) -> bool {
        self.share.view().is_mine(bmc)
    }

    fn channel(&self, address: &str) -> Result<Channel, client::Error> {
        if let Some(known) = self.channels.lock().ok().and_then(|channels| channels.get(address).cloned()) {
            return Ok(known);
        }
        let channel = Channel::new(address, self.tls.as_ref())?;
        if let Ok(mut channels) = self.channels.lock() {
            channels.insert(address.to_owned(), channel.clone());
        }
        Ok(channel)
    }

    fn peer(&self, owner: &Member) -> Option<Peer> {
        let channel = match self.channel(&owner.address) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "a replica says that it is where it cannot be");
                return None;
            }
        };
        let (share, id) = (self.share.clone(), owner.id.clone());
        Some(Peer {
            channel,
            gone: Box::pin(async move { share.when(|now| !now.has(&id)).await }),
        })
    }

    /// What is this gateway's, and what is each other's.
    pub fn divide<T>(&self, all: Vec<T>, bmc: impl Fn(&T) -> &str) -> (Vec<T>, Vec<(Peer, Vec<T>)>) {
        let view = self.share.view();
        let (mut mine, mut elsewhere) = (Vec::new(), HashMap::<&str, (&Member, Vec<T>)>::new());
        for one in all {
            match view.elsewhere(bmc(&one)).filter(|owner| !owner.address.is_empty()) {
                Some(owner) => elsewhere.entry(&owner.id).or_insert((owner, vec![])).1.push(one),
                None => mine.push(one),
            }
        }
        let mut others = Vec::new();
        for (owner, theirs) in elsewhere.into_values() {
            match self.peer(owner) {
                Some(peer) => others.push((peer, theirs)),
                None => mine.extend(theirs),
            }
        }
        (mine, others)
    }

    /// Lets go of what has become another's, until `shutdown`.
    pub async fn run(&self, devices: &Devices, consoles: &Consoles, queues: &[&Queue], shutdown: CancellationToken) {
        let mut before = self.share.view();
        loop {
            let changed = self.share.when(|now| *now != *before);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed => queues.iter().for_each(|queue| queue.wake()),
                () = tokio::time::sleep(LET_GO) => {}
            }
            before = self.share.view();
            devices.keep(|bmc| before.is_mine(bmc));
            consoles.keep(|bmc| before.is_mine(bmc)).await;
            if let Ok(mut channels) = self.channels.lock() {
                channels.retain(|address, _| before.reaches(address));
            }
        }
    }
}

impl Owners for Replicas {
    fn shared(&self) -> bool {
        !self.share.view().alone()
    }

    fn elsewhere(&self, bmc: &str) -> Option<Peer> {
        let view = self.share.view();
        let owner = view.elsewhere(bmc).filter(|owner| !owner.address.is_empty())?;
        self.peer(owner)
    }
}
