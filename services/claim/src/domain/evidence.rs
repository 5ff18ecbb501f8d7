//! What was read from the drives before their erase and after it, and what follows from it.

use std::collections::BTreeMap;

use ironyard_types::{
    Metadata,
    sampling::{BLOCK, Sample, digest, fresh_places, mark, places},
};
use serde::{Deserialize, Serialize};

use super::sanitize::Job;

/// Everything that was read in one wipe; kept beside its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Head; the name is the certificate's.
    pub metadata: Metadata,
    /// Server.
    pub server: String,
    /// What places and marks follow from.
    pub seed: String,
    /// What the places follow from that nobody knew of during the erase.
    pub fresh_seed: String,
    /// By drive.
    pub drives: Vec<DriveEvidence>,
}

/// What was read from one drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveEvidence {
    /// Serial number.
    pub serial: String,
    /// Before the marks were written.
    pub before: Vec<Sample>,
    /// After the erase.
    pub after: Vec<Sample>,
}

/// What was found on a drive after its erase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Places read.
    pub places: u32,
    /// Of them, those that read as one repeated byte, all zeros or all ones.
    pub blank: u32,
    /// Of them, those that hold other data than before.
    pub changed: u32,
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { places, blank, changed } = self;
        write!(f, "{places} places read: {blank} blank, {changed} changed, none as before")
    }
}

/// The two seeds of a wipe.
#[derive(Debug, Clone, Copy)]
pub struct Seeds<'a> {
    /// Of places and marks.
    pub first: &'a str,
    /// Of the places that are read after the erase only.
    pub fresh: &'a str,
}

fn blocks_of(job: &Job) -> u64 {
    u64::try_from(job.capacity).unwrap_or(0) / BLOCK as u64
}

/// Whether exactly these places were read.
fn complete(serial: &str, wanted: &[u64], read: &[Sample]) -> Result<(), String> {
    let same = wanted.iter().eq(read.iter().map(|s| &s.block));
    match same && !wanted.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "drive {serial}: {} places were to be read, and the agent gave {} others or fewer",
            wanted.len(),
            read.len()
        )),
    }
}

/// Whether all was read that is to be remembered before the marks are written.
pub fn remembered(job: &Job, seed: &str, before: &[Sample]) -> Result<(), String> {
    complete(&job.serial, &places(seed, &job.serial, blocks_of(job)).all(), before)
}

/// Tells an erased drive from one that claims to be, or says which place shows that it is not.
///
/// Neither a mark nor what stood at a place before may be there again. After an overwrite or a block erase every place must read as one
/// repeated byte; after a cryptographic erase it may read as anything else.
pub fn judge(job: &Job, seeds: Seeds<'_>, before: &[Sample], after: &[Sample]) -> Result<Findings, String> {
    let (serial, blocks) = (&job.serial, blocks_of(job));
    if seeds.first.is_empty() || seeds.fresh.is_empty() {
        return Err(format!("drive {serial}: the places to be read were not chosen before"));
    }
    let planned = places(seeds.first, serial, blocks);
    remembered(job, seeds.first, before)?;
    let mut all = [planned.all(), fresh_places(seeds.fresh, serial, blocks)].concat();
    all.sort_unstable();
    all.dedup();
    complete(serial, &all, after)?;
    let before: BTreeMap<u64, &str> = before.iter().map(|s| (s.block, s.digest.as_str())).collect();
    let blank = [digest(&[0; BLOCK]), digest(&[0xff; BLOCK])];
    let mut findings = Findings::default();
    for Sample { block, digest: now } in after {
        findings.places += 1;
        if blank.contains(now) {
            findings.blank += 1;
            continue;
        }
        if planned.marked.binary_search(block).is_ok() && *now == digest(&mark(seeds.first, serial, *block)) {
            return Err(format!(
                "drive {serial} still holds at block {block} what was written before the erase"
            ));
        }
        match before.get(block) {
            Some(then) if then == now => {
                return Err(format!("drive {serial} holds at block {block} what it held before the erase"));
            }
            Some(_) => findings.changed += 1,
            None => {}
        }
        if job.method.kind != "CryptographicErase" {
            return Err(format!("drive {serial} still holds data at block {block}"));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use ironyard_types::Category;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::sanitize::{Method, Tool};

    const BLOCKS: u64 = 100_000;
    const SEEDS: Seeds<'_> = Seeds {
        first: "first",
        fresh: "fresh",
    };

    fn job(kind: &str) -> Job {
        Job {
            serial: "S".into(),
            model: String::new(),
            capacity: i64::try_from(BLOCKS * BLOCK as u64).unwrap(),
            method: Method {
                tool: Tool::Bmc,
                kind: kind.into(),
                category: Category::Purge,
            },
            erased: true,
            verified: false,
            findings: None,
            note: String::new(),
            operation: String::new(),
            answer_lost: false,
            erase_commands: vec![],
            erased_with: None,
            tried: vec![],
        }
    }

    /// What a tenant left: data at most places, zeros at some.
    fn tenant(block: u64) -> [u8; BLOCK] {
        if block.is_multiple_of(3) {
            [0; BLOCK]
        } else {
            mark("tenant", "S", block)
        }
    }

    fn read(blocks: &[u64], content: impl Fn(u64) -> [u8; BLOCK]) -> Vec<Sample> {
        let sample = |block: &u64| Sample {
            block: *block,
            digest: digest(&content(*block)),
        };
        blocks.iter().map(sample).collect()
    }

    /// The verdict on a drive that holds this after its erase.
    fn verdict(kind: &str, after: impl Fn(u64) -> [u8; BLOCK]) -> Result<Findings, String> {
        let planned = places(SEEDS.first, "S", BLOCKS).all();
        let mut all = [planned.clone(), fresh_places(SEEDS.fresh, "S", BLOCKS)].concat();
        all.sort_unstable();
        all.dedup();
        judge(&job(kind), SEEDS, &read(&planned, tenant), &read(&all, after))
    }

    fn marked(block: u64) -> bool {
        places(SEEDS.first, "S", BLOCKS).marked.contains(&block)
    }

    #[test]
    fn a_drive_that_was_erased_passes() {
        for kind in ["Overwrite", "BlockErase", "CryptographicErase"] {
            assert_eq!(
                verdict(kind, |_| [0; BLOCK]).unwrap().blank,
                verdict(kind, |_| [0xff; BLOCK]).unwrap().places
            );
        }
        let findings = verdict("CryptographicErase", |block| mark("new key", "S", block)).unwrap();
        assert!(findings.changed > 250 && findings.blank == 0, "{findings:?}");
        assert!(verdict("BlockErase", |block| mark("new key", "S", block)).is_err());
    }

    #[test]
    fn drives_that_lie_are_found() {
        for kind in ["Overwrite", "BlockErase", "CryptographicErase"] {
            let found = |what: &str, after: &dyn Fn(u64) -> [u8; BLOCK]| assert!(verdict(kind, after).is_err(), "{kind}: {what}");
            found("nothing was done", &|b| {
                if marked(b) { mark(SEEDS.first, "S", b) } else { tenant(b) }
            });
            found("every old byte is back", &tenant);
            found("only what was written since is gone", &|b| {
                if marked(b) { [0; BLOCK] } else { tenant(b) }
            });
            found("only the first half is gone", &|b| {
                if b < BLOCKS / 2 { [0; BLOCK] } else { tenant(b) }
            });
            found("all is gone but the last block", &|b| {
                if b < BLOCKS - 1 { [0; BLOCK] } else { mark(SEEDS.first, "S", b) }
            });
        }
        // A drive that knows all places that were read before is found by the fresh ones.
        let planned = places(SEEDS.first, "S", BLOCKS).all();
        assert!(verdict("BlockErase", |b| if planned.contains(&b) { [0; BLOCK] } else { tenant(b) }).is_err());
    }

    #[test]
    fn what_was_not_read_is_no_evidence() {
        let planned = places(SEEDS.first, "S", BLOCKS).all();
        let before = read(&planned, tenant);
        for (before, after) in [
            (vec![], vec![]),
            (before.clone(), vec![]),
            (before.clone(), before.clone()),
            (vec![], before),
        ] {
            assert!(judge(&job("Overwrite"), SEEDS, &before, &after).is_err());
        }
        let empty = Job {
            capacity: 0,
            ..job("Overwrite")
        };
        assert!(judge(&empty, SEEDS, &[], &[]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A tenth of the drive that was left out, wherever it lies, is found.
        #[test]
        fn a_part_that_was_left_out_is_found(start in 0..BLOCKS * 9 / 10, kind in prop::sample::select(vec!["BlockErase", "CryptographicErase"])) {
            let left_out = start..start + BLOCKS / 10;
            let found = verdict(kind, |b| if left_out.contains(&b) { tenant(b) } else { [0; BLOCK] });
            prop_assert!(found.is_err());
        }
    }
}
