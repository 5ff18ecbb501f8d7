//! A judge of histories of servers: what a simulation recorded while it drove the real services with faults.
//!
//! Every invariant is one small function over the facts of one server, in the order of their sequence numbers. Each keeps its own
//! memory, so that one of them being wrong cannot hide what another would find.

use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a server when its claim lets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaim {
    Recycle,
    Retain,
}

/// What a cleanup run does to a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectKind {
    PowerOff,
    BootAgent,
    Erase { drive: String },
    Verify { drive: String },
    EndAgent,
}

/// One recorded fact; `at` is its place in the one order of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Inventory reserved the server for the claim and fixed its terms.
    Reserved {
        at: i64,
        server: String,
        claim: String,
        policy: Reclaim,
        minimum: Option<u8>,
    },
    /// The claim let go.
    Released { at: i64, server: String, claim: String },
    /// The server was offered.
    Available { at: i64, server: String },
    /// A step of a cleanup run changed durably.
    StepTaken {
        at: i64,
        server: String,
        run: String,
        from: String,
        to: String,
    },
    /// Something of a cleanup run reached hardware under this idempotency key; `lost` when the machine lost it again.
    Effect {
        at: i64,
        server: String,
        run: String,
        kind: EffectKind,
        key: String,
        lost: bool,
    },
    /// The tenant put data on the drive.
    Wrote { at: i64, server: String, drive: String },
    /// The machine really erased the drive.
    Erased { at: i64, server: String, drive: String },
    /// A sanitization certificate was issued.
    Certificate {
        at: i64,
        server: String,
        run: String,
        claim: String,
        passed: bool,
        drives: Vec<String>,
    },
    /// An administrator waived the wipe.
    Waived { at: i64, server: String, by: String },
    /// The schedule ended.
    Ended { at: i64 },
}

use Fact::{Available, Certificate, Effect, Ended, Erased, Released, Reserved, StepTaken, Waived, Wrote};

/// What the judge is told about the services.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The steps of a cleanup run, in order; a run begins at the first and ends at the last.
    pub steps: Vec<&'static str>,
}

/// How a server was found at the end: its name, its state, and whether it waits with a reason.
pub type AtRest = (String, String, bool);

/// Judges a history. The answer is every violation in words, each beginning with what it is about; a good history has none.
#[must_use]
pub fn judge(facts: &[Fact], expected: &Expected, at_rest: &[AtRest]) -> Vec<String> {
    let mut ordered: Vec<&Fact> = facts.iter().collect();
    ordered.sort_by_key(|fact| place(fact).0);
    let mut servers: BTreeMap<&str, Vec<&Fact>> = at_rest.iter().map(|(server, ..)| (server.as_str(), Vec::new())).collect();
    for fact in &ordered {
        if let (_, Some(server)) = place(fact) {
            servers.entry(server).or_default().push(fact);
        }
    }
    let mut found = whole(&ordered);
    found.extend(one_server_per_claim(&ordered));
    for (server, facts) in &servers {
        let end = at_rest.iter().find(|(name, ..)| name == server);
        let faults = [
            debt_is_paid(facts, end),
            one_claim_per_server(facts),
            nothing_kept_is_touched(facts),
            no_step_skipped(facts, expected),
            certificates_are_earned(facts, expected),
            no_effect_repeated(facts),
            is_at_rest(facts, end),
        ];
        found.extend(faults.concat().iter().map(|fault| format!("{server}: {fault}")));
    }
    found
}

/// Where a fact belongs: its sequence number and its server.
fn place(fact: &Fact) -> (i64, Option<&str>) {
    match fact {
        Reserved { at, server, .. } | Released { at, server, .. } | Available { at, server } => (*at, Some(server)),
        StepTaken { at, server, .. } | Effect { at, server, .. } | Wrote { at, server, .. } => (*at, Some(server)),
        Erased { at, server, .. } | Certificate { at, server, .. } | Waived { at, server, .. } => (*at, Some(server)),
        Ended { at } => (*at, None),
    }
}

/// The record itself: it has one order, and it was not cut off.
fn whole(facts: &[&Fact]) -> Vec<String> {
    let mut found = Vec::new();
    for pair in facts.windows(2).filter(|pair| place(pair[0]).0 == place(pair[1]).0) {
        found.push(format!("record: two facts have one number: {:?}, {:?}", pair[0], pair[1]));
    }
    if !facts.iter().any(|fact| matches!(fact, Ended { .. })) {
        found.push("record: cut off, the schedule never ended".into());
    }
    found
}

/// What a server owes since it was reserved.
#[derive(Default)]
struct Debt<'a> {
    claim: &'a str,
    released: bool,
    waived: bool,
    written: BTreeMap<&'a str, i64>,
    erased: Vec<(&'a str, i64)>,
    certificates: Vec<(i64, &'a [String])>,
}

impl Debt<'_> {
    /// Why the debt is not paid, if it is not. One certificate must cover all that was written.
    fn open(&self) -> Option<String> {
        if !self.released {
            return Some(format!("claim {} never let go", self.claim));
        }
        if self.waived {
            return None;
        }
        let mut why = format!("no passed certificate for {} and no waiver after it let go", self.claim);
        for (issued, drives) in &self.certificates {
            let erased = |drive: &str, wrote: i64| self.erased.iter().any(|(d, at)| *d == drive && wrote < *at && at < issued);
            let covers = |drive: &str, wrote: i64| drives.iter().any(|named| named == drive) && erased(drive, wrote);
            // Nothing uncovered means paid.
            let (drive, wrote) = self.written.iter().find(|(drive, wrote)| !covers(drive, **wrote))?;
            why = format!("drive {drive}, written at {wrote}, is not both erased since then and named by the certificate at {issued}");
        }
        Some(why)
    }
}

/// (a) A server that was reserved is not offered, nor given to another claim, before its wipe is proven or waived.
fn debt_is_paid(facts: &[&Fact], end: Option<&AtRest>) -> Vec<String> {
    let mut found = Vec::new();
    let mut owed: Option<Debt> = None;
    let mut offered_again = false;
    for fact in facts {
        match (fact, &mut owed) {
            // The same claim again: what it wrote stays owed, and what was proven or waived before does not count for the new term.
            (Reserved { claim, .. }, Some(debt)) if debt.claim == claim => {
                (debt.released, debt.waived) = (false, false);
                debt.certificates.clear();
            }
            (Reserved { at, claim, .. }, debt) => {
                let why = debt.as_ref().and_then(Debt::open);
                found.extend(why.map(|why| format!("reserved for {claim} at {at} with a wipe owed: {why}")));
                owed = Some(Debt { claim, ..Debt::default() });
            }
            (Available { at, .. }, Some(debt)) => {
                found.extend(debt.open().map(|why| format!("offered at {at} with a wipe owed: {why}")));
                if debt.released {
                    (owed, offered_again) = (None, true);
                }
            }
            (Released { claim, .. }, Some(debt)) if debt.claim == claim => debt.released = true,
            (Waived { at, by, .. }, _) if by.is_empty() => found.push(format!("waived at {at} by nobody")),
            (Waived { .. }, Some(debt)) if debt.released => debt.waived = true,
            (Wrote { at, drive, .. }, Some(debt)) => drop(debt.written.insert(drive, *at)),
            (Wrote { at, drive, .. }, None) if offered_again => found.push(format!("{drive} written at {at}, after it was offered again")),
            (Erased { at, drive, .. }, Some(debt)) => debt.erased.push((drive, *at)),
            (Certificate { claim, .. }, Some(debt)) if !debt.released || debt.claim != claim => {}
            (Certificate { at, passed, drives, .. }, Some(debt)) if *passed => debt.certificates.push((*at, drives)),
            _ => {}
        }
    }
    // An offer that nobody recorded is still an offer.
    let offered = end.is_some_and(|(_, state, _)| state == "Available");
    let why = owed.filter(|_| offered).and_then(|debt| debt.open());
    found.extend(why.map(|why| format!("Available at the end with a wipe owed: {why}")));
    found
}

/// (b) A server has one claim at a time, whose terms stay, and only who held a server lets go of it.
fn one_claim_per_server(facts: &[&Fact]) -> Vec<String> {
    let mut found = Vec::new();
    let mut holder: Option<(&str, Reclaim, Option<u8>)> = None;
    let mut ever: BTreeSet<&str> = BTreeSet::new();
    for fact in facts {
        match fact {
            Reserved { at, claim, policy, .. } => {
                ever.insert(claim);
                let Reserved { minimum, .. } = fact else { continue };
                let terms = (claim.as_str(), *policy, *minimum);
                match holder.replace(terms) {
                    Some((other, ..)) if other != claim => found.push(format!("reserved for {claim} at {at} while {other} holds it")),
                    Some(fixed) if fixed != terms => found.push(format!("reserved again for {claim} at {at} with other terms")),
                    _ => {}
                }
            }
            Released { at, claim, .. } => {
                holder = holder.filter(|(held, ..)| held != claim);
                if !ever.contains(claim.as_str()) {
                    found.push(format!("released at {at} by {claim}, which never held it"));
                }
            }
            _ => {}
        }
    }
    found
}

/// (b) A claim has one server at a time. This one is over the facts of all servers.
fn one_server_per_claim(facts: &[&Fact]) -> Vec<String> {
    let mut found = Vec::new();
    let mut holds: BTreeMap<&str, &str> = BTreeMap::new();
    for fact in facts {
        match fact {
            Reserved { at, server, claim, .. } => {
                let other = holds.insert(claim, server).filter(|other| other != server);
                found.extend(other.map(|other| format!("{claim}: got {server} at {at} while it holds {other}")));
            }
            Released { server, claim, .. } if holds.get(claim.as_str()) == Some(&server.as_str()) => drop(holds.remove(claim.as_str())),
            _ => {}
        }
    }
    found
}

/// (c) Nothing is erased on a server that is retained, and no cleanup touches one that a claim holds.
fn nothing_kept_is_touched(facts: &[&Fact]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut held, mut retained): (Option<&str>, Option<&str>) = (None, None);
    for fact in facts {
        let (at, deed, erases) = match fact {
            Reserved { claim, policy, .. } => {
                // Under Recycle it is the holding that protects the server, until it is released.
                (held, retained) = (Some(claim.as_str()), Some(claim.as_str()).filter(|_| *policy == Reclaim::Retain));
                continue;
            }
            Released { claim, .. } => {
                held = held.filter(|held| held != claim);
                continue;
            }
            Waived { by, .. } if !by.is_empty() => {
                retained = None;
                continue;
            }
            Erased { at, drive, .. } => (at, format!("{drive} erased"), true),
            Effect { at, run, kind, .. } => (at, format!("{kind:?} of run {run}"), matches!(kind, EffectKind::Erase { .. })),
            _ => continue,
        };
        if let Some(claim) = held {
            found.push(format!("{deed} at {at} while {claim} holds it"));
        } else if let Some(claim) = retained.filter(|_| erases) {
            found.push(format!("{deed} at {at} although it is retained for {claim}"));
        }
    }
    found
}

/// (d) A run goes from each step to the next one, once.
fn no_step_skipped(facts: &[&Fact], expected: &Expected) -> Vec<String> {
    let mut found = Vec::new();
    let mut present: BTreeMap<&str, &str> = BTreeMap::new();
    let mut left: BTreeSet<(&str, &str)> = BTreeSet::new();
    for fact in facts {
        let StepTaken { at, run, from, to, .. } = fact else { continue };
        let stands = present.insert(run, to).or(expected.steps.first().copied()).unwrap_or("no step");
        let pair = expected.steps.windows(2).find(|pair| pair[0] == from);
        let next = pair.map_or("no step", |pair| pair[1]);
        let again = !left.insert((run, from));
        let fault = if from == to {
            "repeats a step".to_string()
        } else if again {
            "leaves that step a second time".to_string()
        } else if from != stands {
            format!("but the run stands at {stands}")
        } else if to != next {
            format!("but the next one is {next}")
        } else {
            continue;
        };
        found.push(format!("step of run {run} from {from} to {to} at {at} {fault}"));
    }
    found
}

/// (e) A certificate passes only when each drive it names was erased and then verified in its run, and the run went through its
/// steps. The last step may be recorded after the certificate (they may be one transaction), if no deed comes between.
fn certificates_are_earned(facts: &[&Fact], expected: &Expected) -> Vec<String> {
    let mut found = Vec::new();
    let [mut erased, mut verified, mut reached]: [BTreeSet<(&str, &str)>; 3] = Default::default();
    for (index, fact) in facts.iter().enumerate() {
        match fact {
            StepTaken { run, to, .. } => drop(reached.insert((run, to))),
            Effect { run, kind, lost, .. } => match kind {
                EffectKind::Erase { drive } if !lost => drop(erased.insert((run, drive))),
                EffectKind::Verify { drive } if !lost && erased.contains(&(run, drive)) => drop(verified.insert((run, drive))),
                _ => {}
            },
            Certificate {
                at, run, passed, drives, ..
            } if *passed => {
                let unproven = drives.iter().filter(|drive| !verified.contains(&(run, drive)));
                found.extend(unproven.map(|drive| format!("run {run} passed at {at} without an erase of {drive} and a verify after it")));
                let mut ahead: Vec<&str> = expected.steps.iter().skip(1).copied().collect();
                ahead.retain(|step| !reached.contains(&(run, step)));
                // What the run does next, if anything.
                let next = facts[index..].iter().find_map(|fact| match fact {
                    StepTaken { run: of, .. } if of == run => Some("step"),
                    Effect { run: of, .. } if of == run => Some("deed"),
                    _ => None,
                });
                let only_last = ahead.len() == 1 && ahead.last() == expected.steps.last();
                if !ahead.is_empty() && (!only_last || next == Some("deed")) {
                    found.push(format!("run {run} passed at {at} before its steps {}", ahead.join(", ")));
                }
            }
            _ => {}
        }
    }
    found
}

/// (f) The same deed of a run does not reach the machine under a second key, unless the machine lost the first. No key is always new.
fn no_effect_repeated(facts: &[&Fact]) -> Vec<String> {
    let mut found = Vec::new();
    let mut done: BTreeMap<(&str, &EffectKind), &str> = BTreeMap::new();
    for fact in facts {
        let Effect { at, run, kind, key, .. } = fact else { continue };
        let lost = matches!(fact, Effect { lost: true, .. });
        let of = (run.as_str(), kind);
        if let Some(former) = done.get(&of).filter(|former| *former != key || key.is_empty()) {
            found.push(format!("{kind:?} of run {run} repeated at {at}: key '{key}' after '{former}'"));
        } else if !lost {
            done.insert(of, key);
        }
    }
    found
}

/// (g) At the end a server is Available, or Reserved (held, or retained), or waits with a reason.
fn is_at_rest(facts: &[&Fact], end: Option<&AtRest>) -> Vec<String> {
    let mut kept = None;
    for fact in facts {
        match fact {
            Reserved { claim, policy, .. } => kept = Some((claim, policy)),
            Released { claim, .. } => kept = kept.filter(|(held, policy)| *held != claim || **policy == Reclaim::Retain),
            _ => {}
        }
    }
    let Some((_, state, waits)) = end else {
        return vec!["has a history, but nobody looked at it at the end".into()];
    };
    match state.as_str() {
        "Available" => Vec::new(),
        "Reserved" if kept.is_some() => Vec::new(),
        _ if *waits => Vec::new(),
        "Reserved" => vec!["Reserved at the end though no claim holds it".into()],
        state => vec![format!("not at rest: {state} at the end, and waits without a reason")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: (&str, bool) = ("Reserved", false);
    const OFFERED: (&str, bool) = ("Available", false);
    const WAITS: (&str, bool) = ("Cleanup", true);

    /// A whole life: claimed, used, given back, wiped with proof, claimed again. One fact between two semicolons.
    const GOOD: &str = "available; reserved c1; wrote d1; wrote d2; released c1; off r1 k1; step r1 power-off erase; \
        boot r1 k0 lost; boot r1 k2; erase r1 k3 d1; erased d1; erase r1 k4 d2; erase r1 k4 d2; erased d2; \
        step r1 erase verify; verify r1 k5 d1; verify r1 k6 d2; end r1 k7; certificate r1 c1 passed d1 d2; \
        step r1 verify done; available; reserved c2 retain; ended";

    /// Reads a history, all of server s1 unless a fact begins with another. The place of a fact is its number.
    fn read(text: &str) -> Vec<Fact> {
        let fact = |(at, line): (i64, &str)| {
            let mut words = line.split_whitespace().map(String::from).peekable();
            let server = words.next_if(|word| word == "s2").unwrap_or("s1".into());
            let (verb, rest) = (words.next().unwrap(), words.collect::<Vec<_>>());
            let word = |n: usize| rest.get(n).cloned().unwrap_or_default();
            let (claim, run, key, drive, by) = (word(0), word(0), word(1), word(0), word(0));
            let (policy, minimum) = (if word(1) == "retain" { Reclaim::Retain } else { Reclaim::Recycle }, None);
            let kind = match verb.as_str() {
                "off" => EffectKind::PowerOff,
                "boot" => EffectKind::BootAgent,
                "erase" => EffectKind::Erase { drive: word(2) },
                "verify" => EffectKind::Verify { drive: word(2) },
                _ => EffectKind::EndAgent,
            };
            let lost = rest.last().is_some_and(|word| word == "lost");
            let (from, to) = (word(1), word(2));
            match verb.as_str() {
                "reserved" => Reserved {
                    at,
                    server,
                    claim,
                    policy,
                    minimum,
                },
                "released" => Released { at, server, claim },
                "available" => Available { at, server },
                "step" => StepTaken { at, server, run, from, to },
                "off" | "boot" | "erase" | "verify" | "end" => Effect {
                    at,
                    server,
                    run,
                    kind,
                    key,
                    lost,
                },
                "wrote" => Wrote { at, server, drive },
                "erased" => Erased { at, server, drive },
                "certificate" => {
                    let (claim, passed, drives) = (word(1), word(2) == "passed", rest[3..].to_vec());
                    Certificate {
                        at,
                        server,
                        run,
                        claim,
                        passed,
                        drives,
                    }
                }
                "waived" => Waived { at, server, by },
                "ended" => Ended { at },
                other => panic!("no such fact: {other}"),
            }
        };
        (0..).zip(text.split(';')).map(fact).collect()
    }

    fn steps() -> Expected {
        Expected {
            steps: vec!["power-off", "erase", "verify", "done"],
        }
    }

    fn ends(ends: &[(&str, bool)]) -> Vec<AtRest> {
        ends.iter()
            .zip(["s1", "s2"])
            .map(|(end, server)| (server.into(), end.0.into(), end.1))
            .collect()
    }

    #[track_caller]
    fn good(history: &str, end: &[(&str, bool)]) {
        assert_eq!(judge(&read(history), &steps(), &ends(end)), Vec::<String>::new());
    }

    /// Exactly the one fault is found.
    #[track_caller]
    fn fault(history: &str, end: (&str, bool), words: &str) {
        let found = judge(&read(history), &steps(), &ends(&[end]));
        assert!(found.len() == 1 && found[0].contains(words), "wanted '{words}': {found:#?}");
    }

    /// Exactly the one fault is found in the good history with this changed.
    #[track_caller]
    fn spoilt(from: &str, to: &str, words: &str) {
        assert!(GOOD.contains(from), "the good history has no {from}");
        fault(&GOOD.replacen(from, to, 1), HELD, words);
    }

    #[test]
    fn good_histories_pass() {
        good(GOOD, &[HELD]);
        good("reserved c1; wrote d1; released c1; waived ann; available; ended", &[OFFERED]);
        good("reserved c1 retain; released c1; ended", &[HELD]);
        good(
            "reserved c1 retain; released c1; waived ann; erase r1 k1 d1; erased d1; available; reserved c2; ended",
            &[HELD],
        );
        let reversed: Vec<Fact> = read(GOOD).into_iter().rev().collect();
        assert!(
            judge(&reversed, &steps(), &ends(&[HELD])).is_empty(),
            "the order is that of the numbers"
        );
    }

    #[test]
    fn a_cut_or_disordered_record_is_found() {
        fault("available", OFFERED, "cut off");
        let facts = [Ended { at: 1 }, Ended { at: 1 }];
        assert!(judge(&facts, &steps(), &[])[0].contains("one number"));
    }

    #[test]
    fn an_unpaid_debt_is_found() {
        spoilt("certificate r1 c1 passed d1 d2; ", "", "no passed certificate");
        spoilt("c1 passed", "c1 failed", "no passed certificate");
        spoilt("r1 c1 passed", "r1 c0 passed", "no passed certificate");
        spoilt("passed d1 d2", "passed d1", "drive d2");
        spoilt("erased d1; ", "", "drive d1");
        spoilt("end r1 k7", "wrote d2", "drive d2");
        spoilt(
            "certificate r1 c1 passed d1 d2",
            "wrote d1; certificate r1 c1 passed d1 d2; erased d1",
            "drive d1",
        );
        spoilt(
            "c2 retain",
            "c2; released c2; reserved c3",
            "reserved for c3 at 23 with a wipe owed",
        );
        spoilt("reserved c2", "wrote d1; reserved c2", "after it was offered again");
        fault("reserved c1; waived ann; released c1; available; ended", OFFERED, "no waiver");
        fault("reserved c1; available; ended", HELD, "never let go");
        fault("reserved c1; released c1; ended", OFFERED, "at the end with a wipe owed");
        fault("reserved c1; released c1; waived; ended", WAITS, "by nobody");
    }

    #[test]
    fn two_claims_or_two_servers_are_found() {
        let found = judge(&read("reserved c1; reserved c2; ended"), &steps(), &ends(&[HELD]));
        assert!(found.iter().any(|fault| fault.contains("while c1 holds it")), "{found:?}");
        let found = judge(&read("reserved c1; s2 reserved c1; ended"), &steps(), &ends(&[HELD, HELD]));
        assert_eq!(found, ["c1: got s2 at 1 while it holds s1"]);
        good("reserved c1; reserved c1; s2 reserved c2; ended", &[HELD, HELD]);
        fault("reserved c1; reserved c1 retain; ended", HELD, "other terms");
        fault("reserved c1; released c9; ended", HELD, "never held it");
    }

    #[test]
    fn a_touched_server_is_found() {
        fault(
            "reserved c1 retain; released c1; erased d1; ended",
            HELD,
            "although it is retained for c1",
        );
        fault(
            "reserved c1 retain; released c1; erase r1 k1 d1; ended",
            HELD,
            "although it is retained for c1",
        );
        spoilt("c2 retain", "c2; erased d1", "while c2 holds it");
        spoilt("c2 retain", "c2; end r1 k7", "while c2 holds it");
    }

    #[test]
    fn a_wrong_step_is_found() {
        fault("step r1 power-off verify; ended", WAITS, "the next one is erase");
        fault("step r1 power-off power-off; ended", WAITS, "repeats a step");
        fault("step r1 power-off erase; step r1 power-off erase; ended", WAITS, "a second time");
        fault("step r1 erase verify; ended", WAITS, "stands at power-off");
        fault(
            "step r1 power-off erase; step r1 erase power-off; ended",
            WAITS,
            "the next one is verify",
        );
        good("step r1 power-off erase; step r2 power-off erase; ended", &[WAITS]);
    }

    #[test]
    fn an_unearned_certificate_is_found() {
        for change in ["", "erase r1 k3 d1 lost; ", "erase r2 k3 d1; "] {
            spoilt("erase r1 k3 d1; ", change, "without an erase of d1");
        }
        spoilt("verify r1 k5 d1; ", "", "a verify after it");
        spoilt("verify r1 k5 d1; ", "verify r1 k5 d1 lost; ", "a verify after it");
        spoilt("step r1 verify done", "end r1 k7; step r1 verify done", "before its steps done");
        fault(
            "reserved c1; released c1; certificate r1 c1 passed; ended",
            OFFERED,
            "before its steps erase, verify, done",
        );
    }

    #[test]
    fn a_repeated_effect_is_found() {
        spoilt("k0 lost", "k0", "key 'k2' after 'k0'");
        spoilt("erase r1 k4 d2; ", "erase r1 k8 d2; ", "repeated");
        fault("off r1; off r1; ended", WAITS, "repeated");
    }

    #[test]
    fn what_is_not_at_rest_is_found() {
        good("reserved c1; released c1; ended", &[WAITS]);
        fault("reserved c1; released c1; ended", ("Cleanup", false), "not at rest: Cleanup");
        fault("reserved c1; released c1; ended", HELD, "though no claim holds it");
        assert!(judge(&read("reserved c1; ended"), &steps(), &[])[0].contains("nobody looked"));
    }
}
