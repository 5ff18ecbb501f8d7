//! One dead BMC costs one probe now and then, and nobody else anything.

use std::time::Duration;

use ironyard_types::Timestamp;

/// Failures of the transport in a row before the breaker opens; first and longest pause.
const FAILURES: u32 = 5;
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);

/// Whether a BMC is worth asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Timestamp>,
    /// The credential was refused: it is not tried again before it changes.
    latched: bool,
}

/// Why a request is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The BMC did not answer lately; try again after this.
    Open(Duration),
    /// The credential was refused.
    Latched,
}

impl Breaker {
    /// Whether a request may be sent; after a pause one probe may, and the next pause begins at once for everyone else.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), Closed> {
        if self.latched {
            return Err(Closed::Latched);
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

    /// The transport failed.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now.plus(self.pause()));
        }
    }

    /// One that begins latched: the credential was refused before the process started.
    pub fn latched() -> Self {
        Self {
            latched: true,
            ..Self::default()
        }
    }

    /// Whether the credential was refused.
    pub fn is_latched(self) -> bool {
        self.latched
    }

    /// The credential was refused.
    pub fn refused(&mut self) {
        self.latched = true;
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
        breaker.refused();
        assert_eq!(breaker.admit(at(999)), Err(Closed::Latched));
    }
}
