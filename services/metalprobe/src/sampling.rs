//! Reads and marks the places by which an erased drive is told from one that claims to be. What was found is judged by who asked for
//! the wipe, and kept: the agent only says what it read.

use ironyard_types::sampling::{Sample, digest, fresh_places, mark, places};

use crate::{Machine, Problem};

fn read(machine: &dyn Machine, serial: &str, blocks: &[u64]) -> Result<Vec<Sample>, Problem> {
    if blocks.is_empty() {
        return Err(Problem(format!("drive {serial} has no blocks to look at")));
    }
    let read = machine.read(serial, blocks)?;
    let sample = |(block, bytes): (&u64, &crate::Block)| Sample {
        block: *block,
        digest: digest(bytes),
    };
    Ok(blocks.iter().zip(&read).map(sample).collect())
}

/// Reads all places, then marks some; what is written is read back: a drive that cannot be marked cannot be verified.
pub(crate) fn mark_drive(machine: &dyn Machine, seed: &str, serial: &str) -> Result<Vec<Sample>, Problem> {
    let places = places(seed, serial, machine.blocks(serial)?);
    let before = read(machine, serial, &places.all())?;
    let marks: Vec<_> = places.marked.iter().map(|block| (*block, mark(seed, serial, *block))).collect();
    machine.write(serial, &marks)?;
    let kept = machine.read(serial, &places.marked)?;
    match marks.iter().zip(&kept).find(|((_, mark), kept)| mark != *kept) {
        Some(((block, _), _)) => Err(Problem(format!("drive {serial} does not keep what is written to block {block}"))),
        None => Ok(before),
    }
}

/// Reads all places again, and some that nobody knew of during the erase.
pub(crate) fn read_again(machine: &dyn Machine, seed: &str, fresh_seed: &str, serial: &str) -> Result<Vec<Sample>, Problem> {
    let blocks = machine.blocks(serial)?;
    let mut all = places(seed, serial, blocks).all();
    all.extend(fresh_places(fresh_seed, serial, blocks));
    all.sort_unstable();
    all.dedup();
    read(machine, serial, &all)
}
