//! Which places of a drive are looked at to tell an erased drive from one that claims to be, and what is written there.
//!
//! All follows from seeds that are random and made for one wipe, so nobody knows the places before: neither a drive nor who made it.

use serde::{Deserialize, Serialize};

use crate::sha256_hex;

/// Bytes in a block, the unit of sampling.
pub const BLOCK: usize = 512;

/// Blocks that are looked at on either end, where partition tables live.
const EDGE: u64 = 8;
/// Stretches of equal length that a drive is divided into: in each, one block is marked and one is only read.
const STRETCHES: u64 = 128;

/// The places of one drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Read, then marked.
    pub marked: Vec<u64>,
    /// Read only: a drive that erases what was just written, and nothing else, is found by them.
    pub unmarked: Vec<u64>,
}

fn one_in_each_stretch(seed: &str, what: &str, serial: &str, blocks: u64) -> Vec<u64> {
    let stretch = blocks.div_ceil(STRETCHES).max(1);
    let place = |n: u64| {
        let hash = sha256_hex(format!("{seed}/{what}/{serial}/{n}").as_bytes());
        let offset = u64::from_str_radix(hash.get(..15).unwrap_or("0"), 16).unwrap_or(0);
        n * stretch + offset % stretch
    };
    (0..STRETCHES).map(place).filter(|block| *block < blocks).collect()
}

fn sorted(mut places: Vec<u64>) -> Vec<u64> {
    places.sort_unstable();
    places.dedup();
    places
}

/// What is looked at before an erase and after it.
pub fn places(seed: &str, serial: &str, blocks: u64) -> Places {
    let edges = (0..EDGE.min(blocks)).chain(blocks.saturating_sub(EDGE)..blocks);
    let marked = sorted(edges.chain(one_in_each_stretch(seed, "mark", serial, blocks)).collect());
    let mut unmarked = one_in_each_stretch(seed, "unmarked", serial, blocks);
    unmarked.retain(|block| marked.binary_search(block).is_err());
    Places { marked, unmarked }
}

/// What is looked at after the erase only; its seed is made when the erase has ended.
pub fn fresh_places(seed: &str, serial: &str, blocks: u64) -> Vec<u64> {
    sorted(one_in_each_stretch(seed, "fresh", serial, blocks))
}

impl Places {
    /// All of them, in order.
    pub fn all(&self) -> Vec<u64> {
        sorted([self.marked.as_slice(), &self.unmarked].concat())
    }
}

/// What was read at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Block.
    pub block: u64,
    /// What stood there.
    pub digest: String,
}

/// Most samples that one reading of a drive has.
pub const MOST_SAMPLES: usize = 2 * EDGE as usize + 3 * STRETCHES as usize;

/// What only a wipe with this seed can have written at this place.
pub fn mark(seed: &str, serial: &str, block: u64) -> [u8; BLOCK] {
    let hash = sha256_hex(format!("{seed}/content/{serial}/{block}").as_bytes());
    let mut out = [0; BLOCK];
    for (to, from) in out.iter_mut().zip(hash.bytes().cycle()) {
        *to = from;
    }
    out
}

/// What stands for the content of a block: the first 16 hexadecimal digits of its SHA-256.
pub fn digest(content: &[u8]) -> String {
    let mut hash = sha256_hex(content);
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_cover_the_drive_and_follow_from_the_seed() {
        let places = |seed: &str| super::places(seed, "X", 1_000_000);
        let one = places("one");
        assert!(one.marked.contains(&0) && one.marked.contains(&999_999));
        assert!(one.marked.len() + one.unmarked.len() > 250 && one.all().iter().all(|p| *p < 1_000_000));
        // Any sixty-fourth of the drive has at least one of each kind.
        for part in 0..64 {
            let within = |list: &[u64]| list.iter().any(|p| (part * 15_626..(part + 1) * 15_626).contains(p));
            assert!(within(&one.marked) && within(&one.unmarked), "nothing in part {part}");
        }
        let same = |a: &[u64], b: &[u64]| a.iter().filter(|p| b.contains(p)).count();
        assert!(same(&one.marked, &places("two").marked) < 20 && same(&one.marked, &one.unmarked) == 0);
        assert!(same(&one.marked, &fresh_places("one", "X", 1_000_000)) < 10);
        assert_eq!(one, places("one"));
    }

    #[test]
    fn a_small_drive_is_looked_at_whole() {
        assert_eq!(places("s", "X", 3).all(), [0, 1, 2]);
        assert_eq!(places("s", "X", 0).all(), Vec::<u64>::new());
        for blocks in [1, 15, 16, 17, 127, 128, 129, 300] {
            let all = [places("s", "X", blocks).all(), fresh_places("s", "X", blocks)].concat();
            assert!(all.iter().all(|p| *p < blocks), "{blocks}");
        }
    }
}
