//! Which of the replicas that are there has which keys.

use ironyard_types::sha256_hex;

/// Many more than replicas, so that shares are about even; few enough to be listed in a statement.
const SLOTS: usize = 256;

/// A process that shares the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Another one with every start.
    pub id: String,
    /// Where its peers reach it; empty: nowhere.
    pub address: String,
}

/// The slot of a key.
pub fn slot(key: &str) -> usize {
    usize::try_from(number(key) % SLOTS as u64).unwrap_or(0)
}

pub(super) fn number(text: &str) -> u64 {
    let hash = sha256_hex(text.as_bytes());
    hash.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

/// Who is there, and who has what, as one replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    me: String,
    pub(super) members: Vec<Member>,
    /// The member that has each slot.
    owners: Vec<usize>,
    /// A condition on rows that have a slot: those of this one, and those that were stored before there were slots. Empty: all.
    pub(crate) condition: String,
    /// Grows each time this one is a member anew, also after it was not heard of for so long that others may have had its keys.
    pub epoch: u64,
}

impl View {
    /// What `me` and `others` have. Whoever is asked, and in whichever order: the answer is the same.
    pub fn new(me: Member, others: impl IntoIterator<Item = Member>) -> Self {
        let id = me.id.clone();
        let mut members: Vec<Member> = others.into_iter().filter(|m| m.id != id).chain([me]).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let best = |slot: usize| {
            let score = |member: &Member| (number(&format!("{slot} {}", member.id)), member.id.clone());
            (0..members.len()).max_by_key(|n| members.get(*n).map(score)).unwrap_or(0)
        };
        let owners: Vec<usize> = (0..SLOTS).map(best).collect();
        let condition = if members.len() < 2 {
            String::new()
        } else {
            let me = members.iter().position(|m| m.id == id);
            let mine = owners.iter().enumerate().filter(|(_, owner)| Some(**owner) == me);
            let list: String = mine.map(|(slot, _)| format!(",{slot}")).collect();
            format!(" and slot in (-1{list})")
        };
        Self {
            me: id,
            members,
            owners,
            condition,
            epoch: 0,
        }
    }

    /// The one that has a key; none: this one.
    pub fn elsewhere(&self, key: &str) -> Option<&Member> {
        self.of_slot(slot(key)).filter(|owner| owner.id != self.me)
    }

    /// Whether this one has a key.
    pub fn is_mine(&self, key: &str) -> bool {
        self.elsewhere(key).is_none()
    }

    /// Whether there is no other.
    pub fn alone(&self) -> bool {
        self.members.len() < 2
    }

    /// Whether it is there.
    pub fn has(&self, id: &str) -> bool {
        self.members.iter().any(|m| m.id == id)
    }

    /// Whether one is there at this address.
    pub fn reaches(&self, address: &str) -> bool {
        self.members.iter().any(|m| m.address == address)
    }

    fn of_slot(&self, slot: usize) -> Option<&Member> {
        self.owners.get(slot).and_then(|n| self.members.get(*n))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn member(n: usize) -> Member {
        Member {
            id: format!("replica-{n}"),
            address: format!("http://127.0.0.1:{n}"),
        }
    }

    fn views(count: usize) -> Vec<View> {
        (0..count).map(|me| View::new(member(me), (0..count).rev().map(member))).collect()
    }

    #[test]
    fn every_key_has_one_owner_on_whom_all_agree() {
        for count in 1..=5 {
            let views = views(count);
            let mut shares = vec![0_usize; count];
            for key in (0..10_000).map(|n| format!("bmc-{n}")) {
                let owners: Vec<usize> = (0..count).filter(|n| views[*n].is_mine(&key)).collect();
                assert_eq!(owners.len(), 1, "{key} of {count}");
                shares[owners[0]] += 1;
                for view in &views {
                    let owner = view.elsewhere(&key).unwrap_or(&member(owners[0])).id.clone();
                    assert_eq!(owner, member(owners[0]).id, "{key} of {count}");
                }
            }
            let (fair, most) = (10_000 / count, shares.iter().max().copied().unwrap_or_default());
            assert!(most < fair * 3 / 2, "{shares:?}");
        }
    }

    #[test]
    fn one_that_goes_moves_its_own_share_only() {
        let before = View::new(member(0), (0..4).map(member));
        let after = View::new(member(0), (0..3).map(member));
        for slot in 0..SLOTS {
            let owner = before.of_slot(slot).unwrap();
            if owner.id != member(3).id {
                assert_eq!(after.of_slot(slot), Some(owner));
            }
        }
    }

    #[test]
    fn the_condition_lists_what_is_mine() {
        assert_eq!(View::new(member(0), []).condition, "");
        let views = views(3);
        let listed = |view: &View| {
            let condition = view.condition.clone();
            let list = condition
                .strip_prefix(" and slot in (-1")
                .unwrap()
                .strip_suffix(')')
                .unwrap()
                .to_owned();
            list.split(',').skip(1).map(|n| n.parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let mut all: Vec<usize> = views.iter().flat_map(listed).collect();
        all.sort_unstable();
        assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
    }
}
