//! How a change of power goes on: precheck, act, observe; safe to stop and go on at any point.

use std::time::Duration;

use ironyard_types::{Timestamp, hardware::PowerState};
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// On.
    On,
    /// Ask, then cut.
    GracefulOff,
    /// Cut.
    ForceOff,
    /// Cut, then on.
    Cycle,
    /// Ask, then cut, then on.
    Reset,
    /// Interrupt the operating system.
    Nmi,
    /// Cut, take the mains away, then on.
    AcCycle,
}

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// On.
    On,
    /// Ask the operating system.
    Ask,
    /// Cut.
    Cut,
    /// Interrupt the operating system; nothing shows that it happened.
    Nmi,
    /// Take the mains away and give them back; nothing shows that it happened.
    Mains,
}

/// What is remembered between steps. `intent` is stored before the write, `acted` after the BMC has accepted it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Phases that are over: a cycle has two.
    pub phase: usize,
    /// The write that was decided on, and when.
    #[serde(default)]
    pub intent: Option<(Write, Timestamp)>,
    /// Whether the BMC has accepted it.
    pub acted: bool,
    /// Writes of this phase so far.
    pub writes: u32,
    /// HTTP status and words with which the BMC refused the last one; that one changed nothing.
    #[serde(default)]
    pub refused: Option<(u16, String)>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A graceful shutdown, before the power is cut.
    pub graceful: Duration,
    /// A change that was accepted, before it counts as failed.
    pub settle: Duration,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The wanted state was observed.
    Done,
    /// Remember this and look again at once.
    Remember(Progress),
    /// Remember this intent, then write.
    Write(Write, Progress),
    /// Look again later.
    Wait,
    /// It does not happen.
    GiveUp(String),
    /// The BMC does not do it.
    Refused(String),
}

/// Time after which an intent that may not have reached the BMC is written again: a machine that had taken it would show it by then.
const LOST: Duration = Duration::from_secs(4);

fn phases(action: Action) -> &'static [Write] {
    match action {
        Action::On => &[Write::On],
        Action::GracefulOff => &[Write::Ask],
        Action::ForceOff => &[Write::Cut],
        Action::Cycle => &[Write::Cut, Write::On],
        Action::Reset => &[Write::Ask, Write::On],
        Action::Nmi => &[Write::Nmi],
        Action::AcCycle => &[Write::Cut, Write::Mains, Write::On],
    }
}

/// Decides the next step from what was remembered and what is seen.
pub fn plan(action: Action, progress: &Progress, seen: Option<PowerState>, now: Timestamp, patience: Patience) -> Next {
    let Some(first) = phases(action).get(progress.phase).copied() else {
        return Next::Done;
    };
    let over = Progress {
        phase: progress.phase + 1,
        ..Progress::default()
    };
    let (wanted, on_its_way) = match first {
        Write::On => (PowerState::On, PowerState::PoweringOn),
        Write::Ask | Write::Cut => (PowerState::Off, PowerState::PoweringOff),
        Write::Nmi | Write::Mains => return unseen(first, progress, over, now),
    };
    if seen == Some(wanted) {
        return Next::Remember(over);
    }
    let write = |write| {
        Next::Write(
            write,
            Progress {
                intent: Some((write, now)),
                acted: false,
                writes: progress.writes + 1,
                phase: progress.phase,
                refused: None,
            },
        )
    };
    match progress.intent {
        // On its way already, by somebody else's hand or ours before a crash.
        None if seen == Some(on_its_way) => Next::Remember(Progress {
            intent: Some((first, now)),
            acted: true,
            ..progress.clone()
        }),
        // A BMC that does not know the state, or a machine that turns the other way, settles first.
        None if seen.is_none() || matches!(seen, Some(PowerState::PoweringOn | PowerState::PoweringOff)) => Next::Wait,
        None => write(first),
        Some((last, at)) => {
            let waited = now.since(at);
            // What was refused changed nothing, and may be taken once the machine is through with what it does.
            let busy = matches!(progress.refused, Some((409, _)));
            let most = if busy { 30 } else { 4 };
            if last != Write::Ask && !progress.acted && seen != Some(on_its_way) && waited >= LOST && progress.writes < most {
                return write(last);
            }
            match (last, &progress.refused) {
                (Write::On | Write::Cut, Some((_, why))) if waited >= LOST && seen != Some(on_its_way) => Next::Refused(format!(
                    "the BMC refused the change {} times, the last time with: {why}",
                    progress.writes
                )),
                (Write::Ask, _) if waited >= patience.graceful => write(Write::Cut),
                (Write::On | Write::Cut, _) if waited >= patience.settle => Next::GiveUp(format!(
                    "the BMC accepted the change {} s ago, and the machine is still {}",
                    waited.as_secs(),
                    seen.map_or("in an unknown state".to_owned(), |s| s.to_string())
                )),
                (Write::Ask | Write::On | Write::Cut | Write::Nmi | Write::Mains, _) => Next::Wait,
            }
        }
    }
}

/// A write whose effect no state shows: done when it was accepted. One that may or may not have arrived is never repeated.
fn unseen(write: Write, progress: &Progress, over: Progress, now: Timestamp) -> Next {
    match (progress.intent, progress.acted) {
        (Some(_), true) => Next::Remember(over),
        (Some(_), false) if write == Write::Mains => Next::GiveUp(
            "nobody knows whether the request to cut the mains reached the BMC: look at the machine, then ask again".to_owned(),
        ),
        (Some(_), false) => Next::GiveUp("nobody knows whether the interrupt reached the machine".to_owned()),
        (None, _) => Next::Write(
            write,
            Progress {
                intent: Some((write, now)),
                acted: false,
                writes: progress.writes + 1,
                phase: progress.phase,
                refused: None,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        graceful: Duration::from_secs(10),
        settle: Duration::from_secs(60),
    };

    fn at(s: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_secs(s))
    }

    #[test]
    fn a_state_that_holds_writes_nothing() {
        let next = plan(Action::On, &Progress::default(), Some(PowerState::On), at(0), PATIENCE);
        let Next::Remember(progress) = next else { panic!("{next:?}") };
        assert_eq!(plan(Action::On, &progress, Some(PowerState::On), at(0), PATIENCE), Next::Done);
    }

    #[test]
    fn a_graceful_shutdown_escalates_once() {
        let mut progress = Progress {
            intent: Some((Write::Ask, at(0))),
            acted: true,
            writes: 1,
            phase: 0,
            refused: None,
        };
        assert_eq!(
            plan(Action::GracefulOff, &progress, Some(PowerState::On), at(9), PATIENCE),
            Next::Wait
        );
        let Next::Write(Write::Cut, after) = plan(Action::GracefulOff, &progress, Some(PowerState::On), at(10), PATIENCE) else {
            panic!()
        };
        progress = Progress { acted: true, ..after };
        assert_eq!(
            plan(Action::GracefulOff, &progress, Some(PowerState::On), at(20), PATIENCE),
            Next::Wait
        );
        assert!(matches!(
            plan(Action::GracefulOff, &progress, Some(PowerState::On), at(70), PATIENCE),
            Next::GiveUp(_)
        ));
    }

    #[test]
    fn after_a_crash_the_machine_is_believed() {
        let lost = Progress {
            intent: Some((Write::On, at(0))),
            acted: false,
            writes: 1,
            phase: 0,
            refused: None,
        };
        assert_eq!(plan(Action::On, &lost, Some(PowerState::PoweringOn), at(30), PATIENCE), Next::Wait);
        assert!(matches!(
            plan(Action::On, &lost, Some(PowerState::Off), at(5), PATIENCE),
            Next::Write(Write::On, _)
        ));
        assert_eq!(plan(Action::On, &lost, Some(PowerState::Off), at(1), PATIENCE), Next::Wait);
    }

    #[test]
    fn what_was_refused_is_asked_for_again_and_never_counts_as_accepted() {
        let mut progress = Progress::default();
        for n in 1..=30 {
            let now = at(4 * n);
            let Next::Write(Write::On, next) = plan(Action::On, &progress, Some(PowerState::Off), now, PATIENCE) else {
                panic!("{n}")
            };
            let refused = Some((409, "it is busy".to_owned()));
            progress = Progress { refused, ..next };
            assert_eq!(plan(Action::On, &progress, Some(PowerState::Off), now, PATIENCE), Next::Wait);
        }
        let end = plan(Action::On, &progress, Some(PowerState::Off), at(200), PATIENCE);
        assert!(
            matches!(&end, Next::Refused(why) if why.contains("30 times") && why.contains("it is busy")),
            "{end:?}"
        );
        let seen = plan(Action::On, &progress, Some(PowerState::On), at(200), PATIENCE);
        assert!(matches!(seen, Next::Remember(_)), "whoever did it");
    }

    #[test]
    fn what_no_state_shows_is_written_once() {
        let phase = |phase| Progress {
            phase,
            ..Progress::default()
        };
        for (action, before, wanted) in [(Action::Nmi, phase(0), Write::Nmi), (Action::AcCycle, phase(1), Write::Mains)] {
            let Next::Write(write, lost) = plan(action, &before, Some(PowerState::Off), at(0), PATIENCE) else {
                panic!("{action:?}")
            };
            assert_eq!(write, wanted);
            for later in [0, 5, 500] {
                let next = plan(action, &lost, Some(PowerState::Off), at(later), PATIENCE);
                assert!(matches!(&next, Next::GiveUp(why) if why.contains("nobody knows")), "{next:?}");
            }
            let taken = Progress { acted: true, ..lost };
            assert!(matches!(
                plan(action, &taken, Some(PowerState::Off), at(1), PATIENCE),
                Next::Remember(_)
            ));
        }
    }

    #[test]
    fn a_cycle_has_two_phases() {
        let half = Progress {
            phase: 1,
            ..Progress::default()
        };
        assert!(matches!(
            plan(Action::Cycle, &half, Some(PowerState::Off), at(0), PATIENCE),
            Next::Write(Write::On, _)
        ));
    }
}
