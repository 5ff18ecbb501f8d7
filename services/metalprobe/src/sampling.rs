//! Reads and marks the places by which an erased drive is told from one that claims to be. What was found is judged by who asked for
//! the wipe, and kept: the agent only says what it read.

use ironyard_types::{
    EraseCommand,
    sampling::{Sample, digest, fresh_places, mark, places},
};

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

/// Erases a drive with the first of these after which nothing of what was marked is there. What that was, and what failed before it.
pub(crate) fn erase(
    machine: &dyn Machine,
    seed: &str,
    serial: &str,
    commands: &[EraseCommand],
) -> (Result<EraseCommand, Problem>, Vec<String>) {
    let mut tried = Vec::new();
    for command in commands {
        let erased = machine
            .erase(serial, *command)
            .and_then(|()| erased(machine, seed, serial, *command));
        match erased {
            Ok(()) => return (Ok(*command), tried),
            Err(Problem(why)) => tried.push(format!("{}: {why}", command.as_str())),
        }
    }
    let why = match &tried[..] {
        [] => format!("drive {serial}: nothing is known to erase it with"),
        [only] => only.strip_prefix("Overwrite: ").unwrap_or(only).to_owned(),
        several => several.join("; "),
    };
    (Err(Problem(why)), tried)
}

/// Whether a command has done what it says, at the places that were marked. The whole judgement is made elsewhere, and later.
fn erased(machine: &dyn Machine, seed: &str, serial: &str, command: EraseCommand) -> Result<(), Problem> {
    let places = places(seed, serial, machine.blocks(serial)?);
    let read = machine.read(serial, &places.marked)?;
    let blank = |bytes: &crate::Block| *bytes == [0; crate::BLOCK] || *bytes == [0xff; crate::BLOCK];
    let may_be_random = command.sanitization_type() == "CryptographicErase";
    let left = places.marked.iter().zip(&read).find(|(block, bytes)| {
        let marked = **bytes == mark(seed, serial, **block);
        marked || !(may_be_random || blank(bytes))
    });
    match left {
        Some((block, _)) => Err(Problem(format!(
            "drive {serial} says that it is done, and holds data at block {block}"
        ))),
        None => Ok(()),
    }
}
