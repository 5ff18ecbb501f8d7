use std::fmt::Write;

use proptest::prelude::*;

use super::*;

fn claim(n: u8) -> Reference {
    Reference::new(format!("claim-{n}"), format!("uid-{n}"))
}

fn failure() -> Failure {
    Failure {
        reason: "X".into(),
        message: "x".into(),
        step: "s".into(),
        attempts: 1,
        failed_in: State::Initial,
        at: Timestamp(0),
    }
}

fn sample(kind: EventKind) -> Event {
    match kind {
        EventKind::BeginDiscovery => Event::BeginDiscovery,
        EventKind::DiscoveryDone => Event::DiscoveryDone(None),
        EventKind::Reserve => Event::Reserve(reservation()),
        EventKind::Adopt => Event::Adopt(reservation()),
        EventKind::Release => Event::Release { claim: claim(1) },
        EventKind::CleanupDone => Event::CleanupDone {
            certificate: Some(certificate(1, 1, &["A"], true)),
        },
        EventKind::BeginMaintenance => Event::BeginMaintenance { maintenance: claim(9) },
        EventKind::MaintenanceDone => Event::MaintenanceDone { maintenance: claim(9) },
        EventKind::Fail => Event::Fail(failure()),
        EventKind::Resolve => Event::Resolve,
        EventKind::Retry => Event::Retry,
        EventKind::Waive => Event::Waive,
        EventKind::Forgive => Event::Forgive(forgiven(Part::Minimum)),
    }
}

fn reservation() -> Reservation {
    Reservation {
        claim: claim(1),
        debt: "debt-1".into(),
        at: Timestamp(10),
        drives: vec!["A".into()],
        minimum: Category::Clear,
        retain: false,
    }
}

fn first(n: u8, drives: Vec<String>, minimum: Category) -> FirstWipe {
    FirstWipe {
        debt: format!("debt-{n}"),
        at: Timestamp(5),
        drives,
        minimum,
    }
}

fn forgiven(part: Part) -> Forgiven {
    Forgiven {
        part,
        by: "Ada".into(),
        reason: "r".into(),
        at: Timestamp(30),
    }
}

fn certificate(n: u8, debt: u8, drives: &[&str], passed: bool) -> Certificate {
    Certificate {
        name: format!("cert-{n}"),
        claim_uid: format!("uid-{n}"),
        debt_uid: format!("debt-{debt}"),
        drives: drives.iter().map(|d| (*d).to_owned()).collect(),
        passed,
        category: Category::Purge,
    }
}

fn debt() -> Debt {
    Debt {
        uid: "debt-1".into(),
        since: Timestamp(10),
        claim: claim(1),
        drives: vec!["A".into()],
        minimum: Category::Purge,
        retain: true,
        forgiven: vec![],
    }
}

/// A machine that was never wiped here is wiped before it is offered, where that is wanted; a certificate for that alone pays.
#[test]
fn what_is_owed_since_a_machine_was_found_is_paid_by_its_own_certificate() {
    let done = Event::DiscoveryDone(Some(first(7, vec!["A".into()], Category::Clear)));
    let Ok(Step::Moved(State::Cleanup, owing)) = step(State::Discovery, &Facts::default(), done.clone()) else {
        panic!("it owes a wipe, and is wiped")
    };
    assert!(owing.discovered && owing.claim.is_none());
    // A lost answer: the same word again changes nothing; nor does one that forgot about it.
    for again in [done, Event::DiscoveryDone(None)] {
        assert_eq!(step(State::Cleanup, &owing, again), Ok(Step::Unchanged));
    }
    let with = |claim: &str, debt: &str| Event::CleanupDone {
        certificate: Some(Certificate {
            claim_uid: claim.into(),
            debt_uid: debt.into(),
            ..certificate(1, 1, &["A"], true)
        }),
    };
    for (claim, debt) in [("", ""), ("uid-1", "debt-7"), ("debt-7", "debt-1")] {
        let refused = step(State::Cleanup, &owing, with(claim, debt));
        assert!(matches!(refused, Err(Rejected::Unpaid { .. })), "{claim} {debt}: {refused:?}");
    }
    assert!(matches!(
        step(State::Cleanup, &owing, with("debt-7", "debt-7")),
        Ok(Step::Moved(State::Available, Facts { debt: None, .. }))
    ));
}

/// What was wanted at the reservation is owed: a weaker wipe does not pay, whatever the policy says since.
#[test]
fn a_purge_is_paid_by_a_purge() {
    let owing = Facts {
        discovered: true,
        debt: Some(debt()),
        ..Facts::default()
    };
    let with = |category| Event::CleanupDone {
        certificate: Some(Certificate {
            category,
            ..certificate(1, 1, &["A"], true)
        }),
    };
    let refused = step(State::Cleanup, &owing, with(Category::Clear)).unwrap_err();
    assert!(refused.to_string().contains("Purge is owed"), "{refused}");
    assert!(matches!(
        step(State::Cleanup, &owing, with(Category::Purge)),
        Ok(Step::Moved(State::Available, Facts { debt: None, .. }))
    ));
    // An administrator may forgive that, and it is on record; the wipe itself stays owed.
    let Ok(Step::Moved(State::Cleanup, lowered)) = step(State::Cleanup, &owing, Event::Forgive(forgiven(Part::Minimum))) else {
        panic!("it is forgiven")
    };
    let debt = lowered.debt.clone().unwrap();
    assert_eq!(
        (debt.minimum, debt.retain, debt.forgiven),
        (Category::Clear, true, vec![forgiven(Part::Minimum)])
    );
    assert!(matches!(
        step(State::Cleanup, &lowered, with(Category::Clear)),
        Ok(Step::Moved(State::Available, _))
    ));
    assert_eq!(
        step(State::Cleanup, &lowered, Event::Forgive(forgiven(Part::Minimum))),
        Ok(Step::Unchanged)
    );
    assert!(step(State::Available, &Facts::default(), Event::Forgive(forgiven(Part::Minimum))).is_err());
}

/// Every combination of facts that a state can come with.
fn facts_of(state: State) -> Vec<(&'static str, Facts)> {
    let base = Facts {
        discovered: true,
        ..Facts::default()
    };
    let owing = Facts {
        debt: Some(debt()),
        ..base.clone()
    };
    let held = Facts {
        claim: Some(claim(1)),
        ..owing.clone()
    };
    let in_error = |facts: &Facts, failed_in| Facts {
        failure: Some(Failure { failed_in, ..failure() }),
        ..facts.clone()
    };
    let maintained = |facts: &Facts| Facts {
        maintenance: Some(claim(9)),
        ..facts.clone()
    };
    match state {
        State::Initial | State::Discovery => vec![("", Facts::default())],
        State::Available => vec![("", base)],
        State::Reserved => vec![("", held)],
        State::Cleanup => vec![("", owing)],
        State::Maintenance => vec![
            ("", maintained(&base)),
            (" claimed", maintained(&held)),
            (" owing", maintained(&owing)),
            (" undiscovered", maintained(&Facts::default())),
        ],
        State::Error => vec![
            ("", in_error(&base, State::Available)),
            (" claimed", in_error(&held, State::Reserved)),
            (" owing", in_error(&owing, State::Cleanup)),
            (" undiscovered", in_error(&Facts::default(), State::Discovery)),
        ],
    }
}

fn table() -> String {
    let mut text = String::from(
        "# Lifecycle of a server\n\nWritten by a test from `step` in `services/inventory/src/domain/lifecycle.rs`; do not edit.\n\
        Rows are states (with the facts that matter), columns are events; `=` repeats without effect, empty is refused.\n\n",
    );
    let _ = write!(text, "| from |");
    for kind in EventKind::ALL {
        let _ = write!(text, " {kind:?} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(EventKind::ALL.len()));
    for state in State::ALL {
        for (name, facts) in facts_of(state) {
            let _ = write!(text, "| {state}{name} |");
            for kind in EventKind::ALL {
                let cell = match step(state, &facts, sample(kind)) {
                    Ok(Step::Moved(to, _)) => to.to_string(),
                    Ok(Step::Unchanged) => "=".to_owned(),
                    Err(_) => String::new(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }
    text.push_str(
        "\nA server owes a wipe from the moment it is Reserved. Only a passing certificate that names that very reservation's debt, is for that \
        claim and names\nevery drive that the server was known to have pays it; or an administrator waives it, by name and on record. What the wipe must \
        be at least, and\nwhether the server is kept first, is fixed at the reservation; an administrator may forgive that part, by name and on \
        record.\n",
    );
    text
}

#[test]
fn the_table_is_what_the_document_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lifecycle.md");
    let (written, now) = (std::fs::read_to_string(path).unwrap_or_default(), table());
    if written != now {
        std::fs::write(path, &now).unwrap();
        panic!("docs/lifecycle.md was out of date; it has been written again");
    }
}

#[test]
fn the_seed_draws_these_arrows() {
    let moved = |state, facts: &Facts, event| match step(state, facts, event) {
        Ok(Step::Moved(to, _)) => Some(to),
        Ok(Step::Unchanged) | Err(_) => None,
    };
    let first = |state| facts_of(state).remove(0).1;
    for (from, kind, to) in [
        (State::Initial, EventKind::BeginDiscovery, State::Discovery),
        (State::Discovery, EventKind::DiscoveryDone, State::Available),
        (State::Available, EventKind::Reserve, State::Reserved),
        (State::Reserved, EventKind::Release, State::Cleanup),
        (State::Cleanup, EventKind::CleanupDone, State::Available),
        (State::Available, EventKind::BeginMaintenance, State::Maintenance),
        (State::Maintenance, EventKind::MaintenanceDone, State::Available),
        (State::Available, EventKind::Fail, State::Error),
        (State::Reserved, EventKind::Fail, State::Error),
        (State::Discovery, EventKind::Fail, State::Error),
        (State::Cleanup, EventKind::Fail, State::Error),
        (State::Maintenance, EventKind::Fail, State::Error),
        (State::Error, EventKind::BeginMaintenance, State::Maintenance),
        (State::Error, EventKind::Resolve, State::Available),
    ] {
        assert_eq!(moved(from, &first(from), sample(kind)), Some(to), "{from} {kind:?}");
    }
}

#[test]
fn every_arrow_that_is_taken_is_listed_as_open() {
    for state in State::ALL {
        for (_, facts) in facts_of(state) {
            for kind in EventKind::ALL {
                if let Ok(Step::Moved(..)) = step(state, &facts, sample(kind)) {
                    // Letting go of a maintenance in Error is housekeeping, not an arrow.
                    assert!(
                        open(state).contains(&kind) || kind == EventKind::MaintenanceDone,
                        "{state} {kind:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_certificate_must_fit_the_debt() {
    let owing = Facts {
        discovered: true,
        debt: Some(debt()),
        ..Facts::default()
    };
    for (name, bad) in [
        ("failed", certificate(1, 1, &["A"], false)),
        ("other claim", certificate(2, 1, &["A"], true)),
        ("an earlier reservation", certificate(1, 0, &["A"], true)),
        ("a drive is missing", certificate(1, 1, &["B"], true)),
    ] {
        let outcome = step(State::Cleanup, &owing, Event::CleanupDone { certificate: Some(bad) });
        assert!(matches!(outcome, Err(Rejected::Unpaid { .. })), "{name}: {outcome:?}");
    }
    assert!(step(State::Cleanup, &owing, Event::CleanupDone { certificate: None }).is_err());
    assert!(matches!(
        step(State::Cleanup, &owing, sample(EventKind::CleanupDone)),
        Ok(Step::Moved(State::Available, Facts { debt: None, .. }))
    ));
}

fn events() -> impl Strategy<Value = Event> {
    let reference = (0_u8..3).prop_map(claim);
    let drives = prop::sample::subsequence(vec!["A".to_owned(), "B".to_owned()], 0..=2);
    let category = prop::sample::select(vec![Category::Clear, Category::Purge]);
    prop_oneof![
        Just(Event::BeginDiscovery),
        Just(Event::DiscoveryDone(None)),
        (0_u8..3, drives.clone(), category.clone()).prop_map(|(n, drives, minimum)| Event::DiscoveryDone(Some(first(n, drives, minimum)))),
        (
            reference.clone(),
            0_u8..3,
            drives.clone(),
            category.clone(),
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(claim, n, drives, minimum, retain, adopt)| {
                let by = Reservation {
                    claim,
                    debt: format!("debt-{n}"),
                    at: Timestamp(10),
                    drives,
                    minimum,
                    retain,
                };
                if adopt { Event::Adopt(by) } else { Event::Reserve(by) }
            }),
        prop::sample::select(vec![Part::Minimum, Part::Retention]).prop_map(|part| Event::Forgive(forgiven(part))),
        reference.clone().prop_map(|claim| Event::Release { claim }),
        (0_u8..3, 0_u8..3, drives, any::<bool>(), any::<bool>(), category).prop_map(|(n, debt, drives, passed, some, category)| {
            let drives: Vec<&str> = drives.iter().map(String::as_str).collect();
            Event::CleanupDone {
                certificate: some.then(|| Certificate {
                    category,
                    ..certificate(n, debt, &drives, passed)
                }),
            }
        }),
        reference.clone().prop_map(|maintenance| Event::BeginMaintenance { maintenance }),
        reference.prop_map(|maintenance| Event::MaintenanceDone { maintenance }),
        Just(Event::Fail(failure())),
        Just(Event::Resolve),
        Just(Event::Retry),
        Just(Event::Waive),
    ]
}

/// Whether this event, here, is one of the two that may drop a debt.
fn pays(state: State, debt: &Debt, event: &Event) -> bool {
    let certificate = if let Event::CleanupDone { certificate } = event {
        certificate.as_ref()
    } else {
        None
    };
    let fits = certificate.is_some_and(|c| {
        let drives = debt.drives.iter().all(|d| c.drives.contains(d));
        c.passed && c.claim_uid == debt.claim.uid && c.debt_uid == debt.uid && drives && c.category >= debt.minimum
    });
    fits || (*event == Event::Waive && state == State::Error)
}

/// Whether this event forgives exactly what it says, and leaves a record of it.
fn forgives(before: &Debt, after: Option<&Debt>, event: &Event) -> bool {
    let Event::Forgive(forgiven) = event else { return false };
    let mut expected = before.clone();
    match forgiven.part {
        Part::Minimum => expected.minimum = Category::Clear,
        Part::Retention => expected.retain = false,
    }
    expected.forgiven.push(forgiven.clone());
    after == Some(&expected)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_no_debt_is_available_or_forgotten(events in prop::collection::vec(events(), 1..60)) {
        let (mut state, mut facts) = (State::Initial, Facts::default());
        for event in events {
            let Ok(Step::Moved(next, after)) = step(state, &facts, event.clone()) else { continue };
            if let Some(debt) = &facts.debt
                && after.debt.as_ref() != Some(debt)
            {
                let paid = after.debt.is_none() && pays(state, debt, &event);
                prop_assert!(paid || forgives(debt, after.debt.as_ref(), &event), "{state} {event:?} dropped {debt:?}");
            }
            (state, facts) = (next, after);
            prop_assert!(state != State::Available || (facts.debt.is_none() && facts.claim.is_none() && facts.discovered));
            prop_assert!(state != State::Reserved || (facts.debt.is_some() && facts.claim.is_some()));
            prop_assert!(state != State::Cleanup || (facts.debt.is_some() && facts.claim.is_none()));
            prop_assert!((state == State::Error) == facts.failure.is_some());
            prop_assert!(state != State::Maintenance || facts.maintenance.is_some());
        }
    }

    #[test]
    fn invariant_repeating_an_event_changes_nothing(events in prop::collection::vec(events(), 1..40)) {
        let (mut state, mut facts) = (State::Initial, Facts::default());
        for event in events {
            let Ok(Step::Moved(next, after)) = step(state, &facts, event.clone()) else { continue };
            (state, facts) = (next, after);
            // Retry is a request, not a fact; a repeated waiver or resolution may be refused but never moves.
            if event.kind() != EventKind::Retry
                && let Ok(Step::Moved(again, other)) = step(state, &facts, event.clone())
            {
                prop_assert!(again == state && other == facts, "{event:?} moved twice");
            }
        }
    }
}
