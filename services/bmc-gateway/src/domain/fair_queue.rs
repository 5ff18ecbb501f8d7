//! Fair use of one BMC: whoever asks for much waits behind themselves.

use std::collections::VecDeque;

/// Things that wait for one BMC.
pub const MOST: usize = 64;
/// Of them, those of one caller: there is always room for another.
const OF_ONE: usize = MOST / 2;

/// Things that wait, by who brought them. Callers take turns; what one has brought keeps its order.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Callers, the next one first; none has nothing.
    lines: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    /// Adds one; gives it back where too many wait.
    pub fn push(&mut self, who: &str, one: T) -> Result<(), T> {
        let all: usize = self.lines.iter().map(|(_, line)| line.len()).sum();
        if all >= MOST {
            return Err(one);
        }
        match self.lines.iter_mut().find(|(name, _)| name == who) {
            Some((_, line)) if line.len() >= OF_ONE => return Err(one),
            Some((_, line)) => line.push_back(one),
            None => self.lines.push_back((who.to_owned(), VecDeque::from([one]))),
        }
        Ok(())
    }

    /// The next one: of the caller whose last turn is longest ago.
    pub fn pop(&mut self) -> Option<T> {
        let (who, mut line) = self.lines.pop_front()?;
        let one = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((who, line));
        }
        one
    }

    /// Forgets those that nobody wants any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        for (_, line) in &mut self.lines {
            line.retain(&mut wanted);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns() {
        let mut turns = FairQueue::default();
        for n in 0..10 {
            turns.push("greedy", ("greedy", n)).unwrap();
        }
        turns.push("modest", ("modest", 0)).unwrap();
        turns.push("modest", ("modest", 1)).unwrap();
        turns.push("third", ("third", 0)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        let expected = [
            ("greedy", 0),
            ("modest", 0),
            ("third", 0),
            ("greedy", 1),
            ("modest", 1),
            ("greedy", 2),
        ];
        assert_eq!(order[..6], expected);
        assert_eq!(order.len(), 13);
        assert!(order[6..].iter().map(|(_, n)| *n).eq(3..10));
    }

    #[test]
    fn there_is_room_beside_a_greedy_one_and_an_end() {
        let mut turns = FairQueue::default();
        let taken = (0..1000).filter(|n| turns.push("greedy", *n).is_ok()).count();
        assert_eq!(taken, OF_ONE);
        let others = (0..1000).filter(|n| turns.push(&format!("other {n}"), *n).is_ok()).count();
        assert_eq!(others, MOST - OF_ONE);
        turns.retain(|n| n % 2 == 0);
        assert_eq!(std::iter::from_fn(|| turns.pop()).count(), MOST / 2);
        assert_eq!(turns.pop(), None);
    }
}
