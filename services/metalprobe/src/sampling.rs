//! How the agent tells an erased drive from one that claims to be.
//!
//! Before an erase it writes marks (blocks that only this run can have written) to sampled places: the first and last blocks, where
//! partition tables live, and places spread over the whole drive. After the erase, a drive that was overwritten or block-erased must
//! read as one repeated byte (all zeros or all ones) at every place; one that was erased by changing its key may read as anything but
//! the mark. A place that cannot be read is a failure.

use ironyard_types::sha256_hex;

use crate::{BLOCK, Machine, Problem};

/// Places at either end, and spread between them.
const EDGE: u64 = 8;
const SPREAD: u64 = 48;

/// The places that are sampled, the same ones for marking and verifying.
pub(crate) fn places(serial: &str, blocks: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..EDGE.min(blocks)).chain(blocks.saturating_sub(EDGE)..blocks).collect();
    let stride = blocks / SPREAD.max(1);
    for n in 0..SPREAD {
        // One place in each stretch of the drive, where in it depends on the serial number.
        let hash = sha256_hex(format!("{serial}/{n}").as_bytes());
        let offset = u64::from_str_radix(hash.get(..15).unwrap_or("0"), 16).unwrap_or(0);
        if stride > 0 {
            places.push(n * stride + offset % stride);
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// What only this run can have written at this place.
fn mark_of(run: &str, serial: &str, block: u64) -> [u8; BLOCK] {
    let hash = sha256_hex(format!("ironyard mark {run}/{serial}/{block}").as_bytes());
    let mut out = [0; BLOCK];
    for (to, from) in out.iter_mut().zip(hash.bytes().cycle()) {
        *to = from;
    }
    out
}

/// Writes the marks and reads them back: a drive that cannot be marked cannot be verified.
pub(crate) fn mark(machine: &dyn Machine, run: &str, serial: &str) -> Result<i64, Problem> {
    let places = places(serial, machine.blocks(serial)?);
    for block in &places {
        machine.write(serial, *block, &mark_of(run, serial, *block))?;
    }
    for block in &places {
        if machine.read(serial, *block)? != mark_of(run, serial, *block) {
            return Err(Problem(format!("drive {serial} does not keep what is written to block {block}")));
        }
    }
    Ok(i64::try_from(places.len()).unwrap_or(i64::MAX))
}

/// Checks every place after an erase by `method`.
pub(crate) fn verify(machine: &dyn Machine, run: &str, serial: &str, method: &str) -> Result<i64, Problem> {
    let places = places(serial, machine.blocks(serial)?);
    if places.is_empty() {
        return Err(Problem(format!("drive {serial} has no blocks to verify")));
    }
    for block in &places {
        let bytes = machine.read(serial, *block)?;
        let uniform = bytes.iter().all(|b| *b == 0) || bytes.iter().all(|b| *b == 0xff);
        if bytes == mark_of(run, serial, *block) {
            return Err(Problem(format!(
                "drive {serial} still holds what was written before the erase, at block {block}"
            )));
        }
        if !uniform && method != "CryptographicErase" {
            return Err(Problem(format!("drive {serial} still holds data at block {block}")));
        }
    }
    Ok(i64::try_from(places.len()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_cover_both_ends_and_the_middle() {
        let places = places("X", 1_000_000);
        assert!(places.contains(&0) && places.contains(&999_999) && places.len() > 60);
        assert!(places.iter().any(|p| (400_000..600_000).contains(p)) && places.iter().all(|p| *p < 1_000_000));
        assert_eq!(super::places("X", 3), [0, 1, 2]);
    }
}
