//! One dead BMC costs one probe now and then, and nobody else anything.

use std::time::Duration;

use ironyard_types::Timestamp;

/// Failures of the transport in a row before the breaker opens; first and longest pause.
const FAILURES: u32 = 5;
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);

/// First and longest pause after a credential was refused. Accounts lock after a few refusals within minutes; a directory that is away comes
/// back by itself.
const REFUSED_FIRST: Duration = Duration::from_secs(600);
const REFUSED_LONGEST: Duration = Duration::from_secs(3600);

/// Whether a BMC is worth asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Timestamp>,
    /// How often in a row the credential was refused, and until when it is not tried again.
    refused: Option<(u32, Timestamp)>,
}

/// Why a request is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The BMC did not answer lately; try again after this.
    Open(Duration),
    /// The credential was refused; it is tried again after this.
    Refused(Duration),
}

impl Breaker {
    /// Whether a request may be sent; after a pause one probe may, and the next pause begins at once for everyone else.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Closed> {
        if let Some((_, until)) = self.refused
            && now < until
        {
            return Err(Closed::Refused(until.since(now)));
        }
        match self.open_until {
            Some(until) if now < until => Err(Closed::Open(until.since(now))),
            Some(_) => {
                self.open_until = Some(now.plus(self.pause()));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn pause(self) -> Duration {
        (FIRST * (1 << self.failures.saturating_sub(FAILURES).min(7))).min(LONGEST)
    }

    /// The BMC answered, whatever it said.
    pub fn answered(&mut self) {
        (self.failures, self.open_until) = (0, None);
    }

    /// It took the credential.
    pub fn accepted(&mut self) {
        self.refused = None;
    }

    /// The transport failed.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now.plus(self.pause()));
        }
    }

    /// One whose credential was refused before the process started.
    pub fn refused_before(now: Timestamp) -> Self {
        let mut breaker = Self::default();
        breaker.refused(now);
        breaker
    }

    /// Whether the credential was refused.
    pub fn is_refused(self) -> bool {
        self.refused.is_some()
    }

    /// The credential was refused.
    pub fn refused(&mut self, now: Timestamp) {
        let times = self.refused.map_or(0, |(times, _)| times);
        let pause = (REFUSED_FIRST * (1 << times.min(3))).min(REFUSED_LONGEST);
        self.refused = Some((times.saturating_add(1), now.plus(pause)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_and_lets_one_probe_through() {
        let mut breaker = Breaker::default();
        let at = |s: u64| Timestamp(0).plus(Duration::from_secs(s));
        for _ in 0..FAILURES {
            assert!(breaker.admit(at(0)).is_ok());
            breaker.failed(at(0));
        }
        assert_eq!(breaker.admit(at(1)), Err(Closed::Open(Duration::from_secs(4))));
        assert!(breaker.admit(at(5)).is_ok());
        assert!(breaker.admit(at(5)).is_err(), "one probe only");
        breaker.answered();
        assert!(breaker.admit(at(5)).is_ok());
    }

    #[test]
    fn a_refused_credential_is_tried_again_seldom() {
        let mut breaker = Breaker::default();
        let at = |minutes: u64| Timestamp(0).plus(Duration::from_secs(60 * minutes));
        let minutes = |n: u64| Err(Closed::Refused(Duration::from_secs(60 * n)));
        breaker.refused(at(0));
        assert_eq!(breaker.admit(at(3)), minutes(7));
        assert!(breaker.admit(at(10)).is_ok());
        breaker.answered();
        breaker.refused(at(10));
        assert_eq!(breaker.admit(at(11)), minutes(19));
        for now in [30, 70, 130] {
            assert!(breaker.admit(at(now)).is_ok(), "{now}");
            breaker.refused(at(now));
        }
        assert_eq!(breaker.admit(at(130)), minutes(60), "at most an hour");
        breaker.answered();
        assert!(breaker.admit(at(131)).is_err(), "a root that is open to all proves nothing");
        breaker.accepted();
        assert!(breaker.admit(at(131)).is_ok() && !breaker.is_refused());
        assert_eq!(
            Breaker::refused_before(at(0)).admit(at(0)),
            minutes(10),
            "a restart is no reason to try"
        );
    }
}
