//! A judge of a watch: does what one watcher received, in the order it received it, end in what the list says?
//!
//! It replays the events into the map that a correct client keeps (by name, holding uid and version) and compares the map with
//! the list. On the way it looks for what a watch must never do, even where a later event repairs the outcome.

use std::collections::{BTreeMap, BTreeSet};

/// How many violations one verdict spells out; the rest is counted.
const SPELLED_OUT: usize = 5;

/// One thing that a watcher received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A resource came into view.
    Added { name: String, uid: String, version: i64 },
    /// A resource changed.
    Modified { name: String, uid: String, version: i64 },
    /// A resource was deleted.
    Gone { name: String, uid: String },
    /// The server said how far the watcher has come.
    Checkpoint,
    /// The token expired: the watcher throws away what it holds, and a full listing follows.
    BeginAgain,
}

/// One row of the list that the watch is compared with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub name: String,
    pub uid: String,
    pub version: i64,
}

/// What a client knows, and what it needs to remember to catch a watch that lies.
#[derive(Default)]
struct Client<'a> {
    /// The state itself: name to uid and version.
    held: BTreeMap<&'a str, (&'a str, i64)>,
    /// The highest version seen of each uid since the last beginning.
    newest: BTreeMap<&'a str, i64>,
    /// The uids that were reported gone since the last beginning.
    gone: BTreeSet<&'a str>,
    /// The uids that another uid of the same name has replaced since the last beginning.
    replaced: BTreeSet<&'a str>,
    /// The name each uid was first seen under. A resource keeps its name for life, so a new beginning does not clear this.
    names: BTreeMap<&'a str, &'a str>,
    faults: Vec<String>,
}

impl<'a> Client<'a> {
    fn take(&mut self, seen: &'a Seen) {
        match seen {
            Seen::Added { name, uid, version } => self.put("Added", name, uid, *version),
            Seen::Modified { name, uid, version } => self.put("Modified", name, uid, *version),
            Seen::Gone { name, uid } => self.remove(name, uid),
            Seen::Checkpoint => {}
            Seen::BeginAgain => {
                self.held.clear();
                self.newest.clear();
                self.gone.clear();
                self.replaced.clear();
            }
        }
    }

    fn put(&mut self, word: &str, name: &'a str, uid: &'a str, version: i64) {
        self.check_name(word, name, uid);
        if self.gone.contains(uid) {
            self.faults.push(format!(
                "{name}: resurrected, {word} at version {version} for uid {uid} that was reported gone"
            ));
        }
        if self.replaced.contains(uid) {
            self.faults.push(format!(
                "{name}: went back, {word} at version {version} for uid {uid} after a later uid took the name"
            ));
            return; // the later one stays: a correct client does not follow
        }
        let newest = self.newest.entry(uid).or_insert(version);
        if version < *newest {
            self.faults.push(format!(
                "{name}: time went backwards, {word} at version {version} for uid {uid} after version {newest}"
            ));
        }
        *newest = version.max(*newest);
        if let Some((before, _)) = self.held.insert(name, (uid, version))
            && before != uid
        {
            self.replaced.insert(before);
        }
    }

    fn remove(&mut self, name: &'a str, uid: &'a str) {
        self.check_name("Gone", name, uid);
        self.gone.insert(uid);
        if self.held.get(name).is_some_and(|(held, _)| *held == uid) {
            self.held.remove(name);
        }
    }

    fn check_name(&mut self, word: &str, name: &'a str, uid: &'a str) {
        let first = *self.names.entry(uid).or_insert(name);
        if first != name {
            self.faults
                .push(format!("{name}: {word} for uid {uid}, which is the uid of {first}"));
        }
    }

    /// Compares the state with the list, both ways.
    fn compare(&mut self, list: &'a [Row]) {
        let mut listed = BTreeMap::new();
        for row in list {
            if listed.insert(row.name.as_str(), row).is_some() {
                self.faults.push(format!("{}: the list itself has this name twice", row.name));
            }
        }
        for (name, row) in &listed {
            let Row { uid, version, .. } = row;
            match self.held.get(name) {
                None if self.gone.contains(uid.as_str()) => {
                    self.faults.push(format!("{name}: reported gone, but uid {uid} is in the list"));
                }
                None => self.faults.push(format!(
                    "{name}: lost, uid {uid} version {version} is in the list and the watcher lacks it"
                )),
                Some((held, _)) if held != uid => {
                    self.faults
                        .push(format!("{name}: the watcher holds uid {held}, the list has uid {uid}"));
                }
                Some((_, held)) if held < version => {
                    self.faults.push(format!(
                        "{name}: a change is lost, the watcher holds version {held}, the list has {version}"
                    ));
                }
                Some((_, held)) if held > version => {
                    self.faults
                        .push(format!("{name}: the watcher holds version {held}, ahead of the list's {version}"));
                }
                Some(_) => {}
            }
        }
        for (name, (uid, _)) in &self.held {
            if !listed.contains_key(name) {
                self.faults.push(format!(
                    "{name}: a delete is lost, the watcher holds uid {uid} and the list does not have it"
                ));
            }
        }
    }
}

/// Judges what one watcher has `seen` against the final `list`.
///
/// # Errors
/// The first violations in words, each beginning with the name it is about.
pub fn judge(seen: &[Seen], list: &[Row]) -> Result<(), String> {
    let mut client = Client::default();
    for one in seen {
        client.take(one);
    }
    client.compare(list);
    let faults = client.faults;
    if faults.is_empty() {
        return Ok(());
    }
    let words = faults.iter().take(SPELLED_OUT).cloned().collect::<Vec<_>>().join("; ");
    Err(match faults.len().saturating_sub(SPELLED_OUT) {
        0 => words,
        more => format!("{words}; and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str, uid: &str, version: i64) -> Seen {
        Seen::Added {
            name: name.into(),
            uid: uid.into(),
            version,
        }
    }

    fn modified(name: &str, uid: &str, version: i64) -> Seen {
        Seen::Modified {
            name: name.into(),
            uid: uid.into(),
            version,
        }
    }

    fn gone(name: &str, uid: &str) -> Seen {
        Seen::Gone {
            name: name.into(),
            uid: uid.into(),
        }
    }

    fn row(name: &str, uid: &str, version: i64) -> Row {
        Row {
            name: name.into(),
            uid: uid.into(),
            version,
        }
    }

    /// The verdict must be exactly one violation, which names `name` and holds `words`.
    #[track_caller]
    fn found(seen: &[Seen], list: &[Row], name: &str, words: &str) {
        let verdict = judge(seen, list).expect_err("the planted fault was not found");
        assert!(
            verdict.starts_with(&format!("{name}: ")) && verdict.contains(words) && !verdict.contains("; "),
            "{verdict}"
        );
    }

    #[test]
    fn an_honest_watch_passes() {
        let seen = [
            added("a", "u1", 1),
            added("b", "u2", 1),
            Seen::Checkpoint,
            modified("a", "u1", 4),
            modified("a", "u1", 4), // at least once: the same again is no fault
            gone("b", "u2"),
            added("b", "u3", 2),
        ];
        assert_eq!(judge(&seen, &[row("b", "u3", 2), row("a", "u1", 4)]), Ok(()));
        assert_eq!(judge(&[], &[]), Ok(()));
    }

    #[test]
    fn a_late_gone_of_the_former_uid_leaves_the_later_one() {
        let seen = [added("a", "u1", 1), added("a", "u2", 1), gone("a", "u1")];
        assert_eq!(judge(&seen, &[row("a", "u2", 1)]), Ok(()));
    }

    #[test]
    fn begin_again_empties_the_state_and_what_was_remembered() {
        let seen = [
            added("a", "u1", 1),
            added("b", "u2", 3),
            gone("b", "u2"),
            Seen::BeginAgain,
            added("b", "u2", 2),
        ];
        assert_eq!(judge(&seen, &[row("b", "u2", 2)]), Ok(()));
        // A restore of the database may bring the former uid back.
        let seen = [added("a", "u1", 1), added("a", "u2", 1), Seen::BeginAgain, added("a", "u1", 1)];
        assert_eq!(judge(&seen, &[row("a", "u1", 1)]), Ok(()));
        found(&[added("a", "u1", 1), Seen::BeginAgain], &[row("a", "u1", 1)], "a", "lost");
    }

    #[test]
    fn a_lost_create_is_found() {
        found(&[added("a", "u1", 1)], &[row("a", "u1", 1), row("b", "u2", 1)], "b", "lost");
        found(&[added("a", "u1", 1), gone("a", "u1")], &[row("a", "u2", 1)], "a", "lost");
        found(&[added("a", "u1", 1)], &[row("a", "u2", 1)], "a", "the list has uid u2");
    }

    #[test]
    fn a_lost_change_is_found() {
        found(&[added("a", "u1", 1)], &[row("a", "u1", 2)], "a", "a change is lost");
        found(&[added("a", "u1", 3)], &[row("a", "u1", 2)], "a", "ahead of the list");
    }

    #[test]
    fn a_lost_delete_is_found() {
        found(
            &[added("a", "u1", 1), added("b", "u2", 1)],
            &[row("a", "u1", 1)],
            "b",
            "a delete is lost",
        );
    }

    #[test]
    fn a_delete_merged_by_name_is_found() {
        // Deleted and created anew in one batch; merged by name, the last word says Gone of the one that exists.
        found(
            &[added("a", "u1", 1), added("a", "u2", 1), gone("a", "u2")],
            &[row("a", "u2", 1)],
            "a",
            "reported gone",
        );
        found(&[added("a", "u1", 1), gone("a", "u2")], &[row("a", "u2", 1)], "a", "holds uid u1");
    }

    #[test]
    fn going_backwards_is_found_even_when_repaired() {
        let seen = [added("a", "u1", 5), modified("a", "u1", 4), modified("a", "u1", 5)];
        found(&seen, &[row("a", "u1", 5)], "a", "backwards");
    }

    #[test]
    fn resurrection_is_found_even_when_repaired() {
        let seen = [added("a", "u1", 1), gone("a", "u1"), modified("a", "u1", 2), gone("a", "u1")];
        found(&seen, &[], "a", "resurrected");
        found(&[gone("a", "u1"), added("a", "u1", 1), gone("a", "u1")], &[], "a", "resurrected");
    }

    #[test]
    fn going_back_to_the_former_uid_is_found() {
        let seen = [added("a", "u1", 1), added("a", "u2", 1), modified("a", "u1", 2)];
        found(&seen, &[row("a", "u2", 1)], "a", "went back");
    }

    #[test]
    fn a_uid_under_two_names_is_found() {
        let seen = [added("a", "u1", 1), gone("b", "u1"), gone("a", "u1")];
        found(&seen, &[], "b", "the uid of a");
    }

    #[test]
    fn a_list_with_a_name_twice_is_found() {
        found(&[added("a", "u1", 1)], &[row("a", "u1", 1), row("a", "u1", 1)], "a", "twice");
    }

    #[test]
    fn many_faults_are_counted() {
        let list: Vec<Row> = (0..9).map(|n| row(&format!("s{n}"), &format!("u{n}"), 1)).collect();
        assert!(judge(&[], &list).expect_err("all are lost").ends_with("; and 4 more"));
    }
}
