//! Which operations on a BMC wait for which: one that changes a machine does not meet another that the machine must not lose.

/// What kind of work an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Power and resets of a system.
    Power,
    /// The erasure of one drive.
    Erase,
    /// Volumes.
    Volume,
    /// Firmware, of whatever component: the BMC installs it.
    Firmware,
    /// The BMC itself: its restart, its certificate.
    Manager,
}

/// An operation, as far as others care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work<'a> {
    /// What it is.
    pub kind: Kind,
    /// The system; empty: the only one, or the BMC as a whole.
    pub system: &'a str,
    /// Whether the BMC does nothing more for it by itself: it has done its part, or waits for a restart of the machine.
    pub settled: bool,
}

/// Whether an operation waits until one that was asked for earlier is over.
pub fn waits_for(later: &Work<'_>, earlier: &Work<'_>) -> bool {
    let same_machine = later.system.is_empty() || earlier.system.is_empty() || later.system == earlier.system;
    match (later.kind, earlier.kind) {
        // Drives are erased side by side.
        (Kind::Erase, Kind::Erase) => false,
        // A BMC that hangs is restarted although its machine does not react.
        (Kind::Manager, Kind::Power) | (Kind::Power, Kind::Manager) => false,
        // Some work takes effect when the machine is restarted.
        (Kind::Power, Kind::Firmware) => !earlier.settled,
        (Kind::Power, Kind::Erase | Kind::Volume) => same_machine && !earlier.settled,
        (Kind::Firmware | Kind::Manager, _) | (_, Kind::Firmware | Kind::Manager) => true,
        (Kind::Power | Kind::Erase | Kind::Volume, Kind::Power | Kind::Erase | Kind::Volume) => same_machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(kind: Kind, system: &str) -> Work<'_> {
        Work {
            kind,
            system,
            settled: false,
        }
    }

    #[test]
    fn power_waits_for_what_it_would_destroy() {
        for earlier in [Kind::Power, Kind::Erase, Kind::Volume, Kind::Firmware] {
            assert!(waits_for(&work(Kind::Power, "1"), &work(earlier, "1")), "{earlier:?}");
            assert!(waits_for(&work(earlier, "1"), &work(Kind::Power, "1")), "{earlier:?}");
        }
        let settled = Work {
            settled: true,
            ..work(Kind::Firmware, "")
        };
        assert!(!waits_for(&work(Kind::Power, "1"), &settled));
        for kind in [Kind::Erase, Kind::Volume] {
            assert!(
                !waits_for(&work(Kind::Power, "1"), &Work { kind, ..settled.clone() }),
                "{kind:?} that is staged"
            );
        }
        assert!(waits_for(&work(Kind::Firmware, ""), &settled));
        assert!(!waits_for(&work(Kind::Manager, ""), &work(Kind::Power, "1")));
        assert!(waits_for(&work(Kind::Manager, ""), &work(Kind::Erase, "1")));
    }

    #[test]
    fn one_machine_has_one_name_here() {
        let power = |system| work(Kind::Power, system);
        assert!(waits_for(&power(""), &power("1")) && waits_for(&power("1"), &power("")));
        assert!(!waits_for(&power("1"), &power("2")), "two machines behind one BMC");
        assert!(!waits_for(&work(Kind::Erase, "1"), &work(Kind::Erase, "1")));
        // Firmware is the BMC's, whatever system it is asked for.
        assert!(waits_for(&power("2"), &work(Kind::Firmware, "1")));
    }
}
