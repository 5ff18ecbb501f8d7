use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes in a block.
pub(crate) const BLOCK: usize = 512;

/// What a drive does when it is asked to erase itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseBehaviour {
    /// It erases.
    #[default]
    Good,
    /// Its task ends in an exception.
    Fails,
    /// Its task completes, and nothing was erased.
    Lies,
    /// Its task completes; what was written last is gone, and every byte from before is there again.
    Restores,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Zero,
    /// Bytes derived from a seed: old data, or what a changed key makes of it.
    Noise(u64),
}

/// A drive that holds bytes: what was written is kept, the rest is one pattern.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Bytes.
    pub capacity: u64,
    /// Sanitization types that the BMC offers for it; empty: no SecureErase.
    pub sanitization: Vec<String>,
    /// What it does when asked to erase itself.
    pub behaviour: EraseBehaviour,
    /// Whether it is plugged in.
    pub present: bool,
    fill: Fill,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
    /// Whether anything was written since it was last erased.
    pub(crate) dirty: bool,
}

fn noise(seed: u64, block: u64) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    let mut x = seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in out.chunks_mut(8) {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out
}

impl Drive {
    /// A drive full of somebody's data.
    pub fn new(serial: String, model: &str, capacity: u64, sanitization: &[&str], seed: u64) -> Self {
        Self {
            serial,
            model: model.to_owned(),
            capacity,
            sanitization: sanitization.iter().map(|s| (*s).to_owned()).collect(),
            behaviour: EraseBehaviour::Good,
            present: true,
            fill: Fill::Noise(seed),
            blocks: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Reads one block.
    pub fn read(&self, block: u64) -> [u8; BLOCK] {
        match (self.blocks.get(&block), self.fill) {
            (Some(bytes), _) => **bytes,
            (None, Fill::Zero) => [0; BLOCK],
            (None, Fill::Noise(seed)) => noise(seed, block),
        }
    }

    /// Writes one block.
    pub fn write(&mut self, block: u64, bytes: [u8; BLOCK]) {
        self.dirty = true;
        self.blocks.insert(block, Box::new(bytes));
    }

    /// Overwrites everything with zeros, as a host does block by block.
    pub fn overwrite(&mut self) {
        self.fill = Fill::Zero;
        self.blocks.clear();
        self.dirty = false;
    }

    /// Erases itself in the way asked for, or pretends to.
    pub(crate) fn erase(&mut self, kind: &str) {
        match self.behaviour {
            EraseBehaviour::Good => {}
            EraseBehaviour::Fails | EraseBehaviour::Lies => return,
            EraseBehaviour::Restores => return self.blocks.clear(),
        }
        self.fill = match (kind, self.fill) {
            // Another key makes other noise of the same bytes.
            ("CryptographicErase", Fill::Noise(seed)) => Fill::Noise(seed.wrapping_mul(31).wrapping_add(7)),
            ("CryptographicErase", Fill::Zero) => Fill::Noise(7),
            _ => Fill::Zero,
        };
        self.blocks.clear();
        self.dirty = false;
    }
}
