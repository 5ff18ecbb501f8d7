//! What tests need and no program does.

pub mod poll;
mod postgres;

use std::{io::Write, sync::Mutex};

use ironyard_types::{Clock, Timestamp};
pub use postgres::Postgres;

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    /// Moves the time.
    pub fn advance(&self, by: std::time::Duration) {
        if let Ok(mut now) = self.0.lock() {
            *now = now.plus(by);
        }
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.0.lock().map(|now| *now).unwrap_or_default()
    }
}

/// Says loudly that a check was skipped; where everything is required (`IRONYARD_REQUIRE_ALL`), a skip is a failure.
///
/// # Panics
/// Where everything is required.
pub fn skip(what: &str, why: &str) {
    assert!(
        std::env::var_os("IRONYARD_REQUIRE_ALL").is_none(),
        "{what} must not be skipped here: {why}"
    );
    // Not by `eprintln!`, which the test harness keeps to itself where a test passes.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {what}: {why} ***\n");
}
