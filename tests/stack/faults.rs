//! Every fault against every operation: each yields a typed error in bounded time and requests, and no BMC suffers for another.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use ironyard_bmc_simulator::{Action, CertificateKind, Knobs, Machine, Rule, Timing};

use ironyard_testkit::poll;

use crate::{
    gateway::{Alone, enroll, enroll_with, fleet, is_ready, name_of, ready, served, set_credential},
    verbs::VERBS,
};

/// What goes wrong.
enum Fault {
    /// With every request.
    Rule(Action),
    /// With writes only.
    Write(Action),
    /// With the machine.
    Knob(Knobs),
}

/// Reasons that a call may end with under a fault; `OK` where it may succeed all the same.
type Table = Vec<(&'static str, Fault, &'static [&'static str])>;

fn table() -> Table {
    use Action as A;
    let knob = |change: fn(&mut Knobs)| {
        let mut knobs = Knobs::default();
        change(&mut knobs);
        Fault::Knob(knobs)
    };
    const AWAY: &[&str] = &["BMC_UNREACHABLE", "BMC_AMBIGUOUS", "BMC_TIMEOUT"];
    const NONSENSE: &[&str] = &["BMC_PROTOCOL", "BMC_AMBIGUOUS", "BMC_UNREACHABLE"];
    // A tree whose parts are missing or odd degrades to what is readable.
    const DEGRADED: &[&str] = &[
        "OK",
        "BMC_PROTOCOL",
        "BMC_UNSUPPORTED",
        "BMC_REFUSED",
        "BMC_TIMEOUT",
        "SYSTEM_NOT_FOUND",
        "SYSTEM_AMBIGUOUS",
        "DRIVES_UNREADABLE",
        "DRIVE_NOT_FOUND",
        "TASK_FAILED",
        "INVALID_FIELD",
        "BMC_INVALID_VALUE",
        "BMC_AUTHENTICATION_FAILED",
        "BMC_BUSY",
    ];
    vec![
        ("no connection", knob(|k| k.gone = Some(true)), AWAY),
        ("reset connection", Fault::Rule(A::Drop), AWAY),
        ("broken in the middle", Fault::Rule(A::DropMiddle), NONSENSE),
        ("no answer", Fault::Rule(A::Hang), AWAY),
        (
            "no answer to a write that was done",
            Fault::Write(A::HangAfter),
            DEGRADED_OR_AMBIGUOUS,
        ),
        (
            "connection lost after a write that was done",
            Fault::Write(A::DropAfter),
            DEGRADED_OR_AMBIGUOUS,
        ),
        ("401", Fault::Rule(A::Status(401)), &["BMC_AUTHENTICATION_FAILED"]),
        (
            "403",
            Fault::Rule(A::Status(403)),
            &["BMC_FORBIDDEN", "BMC_AUTHENTICATION_FAILED", "DRIVES_UNREADABLE", "BMC_PROTOCOL"],
        ),
        (
            "404",
            Fault::Rule(A::Status(404)),
            &["BMC_UNSUPPORTED", "SYSTEM_NOT_FOUND", "BMC_PROTOCOL"],
        ),
        ("409", Fault::Rule(A::Status(409)), &["BMC_REFUSED", "BMC_PROTOCOL"]),
        ("412 to writes", Fault::Write(A::Status(412)), &["OK", "BMC_REFUSED", "BMC_TIMEOUT"]),
        ("429", Fault::Rule(A::RetryAfter(429, "1".into())), &["BMC_BUSY", "BMC_PROTOCOL"]),
        ("500", Fault::Rule(A::Status(500)), &["BMC_PROTOCOL"]),
        (
            "503, seconds",
            Fault::Rule(A::RetryAfter(503, "1".into())),
            &["BMC_BUSY", "BMC_PROTOCOL"],
        ),
        (
            "503, a date",
            Fault::Rule(A::RetryAfter(503, "Thu, 01 Jan 1970 00:00:00 GMT".into())),
            &["BMC_BUSY", "BMC_PROTOCOL"],
        ),
        (
            "no session left",
            Fault::Rule(A::Refuse(503, "RAC0218".into())),
            &["BMC_BUSY", "BMC_PROTOCOL", "BMC_TIMEOUT"],
        ),
        (
            "no licence",
            Fault::Write(A::Refuse(400, "LicenseRequired".into())),
            &["OK", "BMC_LICENSE_REQUIRED", "BMC_TIMEOUT"],
        ),
        (
            "in POST",
            Fault::Write(A::Refuse(400, "UnableToModifyDuringSystemPOST".into())),
            &["OK", "BMC_BUSY", "BMC_TIMEOUT"],
        ),
        ("truncated JSON", Fault::Rule(A::Truncate), NONSENSE),
        ("a body of 100 MB", Fault::Rule(A::Oversize(100 << 20)), NONSENSE),
        ("a gzip bomb of 100 MB", Fault::Rule(A::GzipBomb(100 << 20)), NONSENSE),
        ("deep nesting", Fault::Rule(A::Deep(10_000)), NONSENSE),
        ("one byte a second", Fault::Rule(A::Drip), AWAY),
        ("HTML", Fault::Rule(A::Html), NONSENSE),
        ("an array", Fault::Rule(A::NotAnObject), NONSENSE),
        ("nothing", Fault::Rule(A::Empty), NONSENSE),
        ("wrong types", Fault::Rule(A::WrongTypes), DEGRADED),
        ("missing fields", Fault::Rule(A::MissingFields), DEGRADED),
        ("duplicate ids", Fault::Rule(A::DuplicateIds), DEGRADED),
        ("a cycle of links", Fault::Rule(A::LinkCycle), DEGRADED),
        ("pages without end", Fault::Rule(A::EndlessNext), DEGRADED),
        (
            "a redirect to another host",
            Fault::Rule(A::Redirect("http://192.0.2.1/redfish/v1/".into())),
            &["BMC_PROTOCOL", "BMC_UNSUPPORTED", "BMC_REFUSED"],
        ),
        (
            "a redirect to itself",
            Fault::Rule(A::Redirect("/redfish/v1/".into())),
            &["BMC_PROTOCOL"],
        ),
        ("links to another host", Fault::Rule(A::LinksElsewhere), DEGRADED),
        ("control characters", Fault::Rule(A::ControlCharacters), DEGRADED),
        ("tasks at 99 %", knob(|k| k.tasks_stick = Some(true)), &["OK", "BMC_TIMEOUT"]),
        ("tasks that vanish", knob(|k| k.tasks_vanish = Some(true)), &["OK"]),
        (
            "power that never changes",
            knob(|k| k.power_lies = Some(true)),
            &["OK", "BMC_TIMEOUT"],
        ),
        ("a clock at 1970", knob(|k| k.clock_1970 = Some(true)), &["OK"]),
    ]
}

const DEGRADED_OR_AMBIGUOUS: &[&str] = &[
    "OK",
    "BMC_AMBIGUOUS",
    "BMC_UNREACHABLE",
    "BMC_TIMEOUT",
    "BMC_REFUSED",
    "TASK_FAILED",
    "BMC_BUSY",
];

/// Longest call. Operations wait for a BMC that is away for two seconds; tasks that never end are given twenty.
const LONGEST: Duration = Duration::from_secs(60);
/// Requests that one call may make: what an inventory of everything takes, three tries each, and the polls of an operation.
const REQUESTS: u64 = 2500;

fn spoil(machine: &Machine, fault: &Fault) {
    let rule = |method: Option<&str>, action: &Action| {
        machine.add_rule(Rule {
            method: method.map(str::to_owned),
            path: "/redfish/v1".into(),
            action: action.clone(),
            remaining: None,
        });
    };
    match fault {
        Fault::Rule(action) => rule(None, action),
        Fault::Write(action) => ["POST", "PATCH", "DELETE"].into_iter().for_each(|m| rule(Some(m), action)),
        Fault::Knob(knobs) => machine.set_knobs(*knobs),
    }
}

/// The most memory that this process has held: gateway, simulator and test together.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_against_every_operation() {
    run(table(), false, [127, 94, 0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_certificate_against_every_operation() {
    let certificate = |kind| {
        Fault::Knob(Knobs {
            certificate: Some(kind),
            ..Knobs::default()
        })
    };
    let table: Table = vec![
        ("another certificate", certificate(CertificateKind::Fresh), &["BMC_TLS_REFUSED"]),
        ("another one, expired", certificate(CertificateKind::Expired), &["BMC_TLS_REFUSED"]),
    ];
    run(table, true, [127, 94, 128, 1]).await;
}

/// A place where connecting takes for ever: a listener whose queue is full, so that Linux answers nobody.
fn deaf(address: IpAddr) -> (socket2::Socket, Vec<socket2::Socket>, u16) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::new(address, 0).into()).unwrap();
    listener.listen(0).unwrap();
    let at = listener.local_addr().unwrap();
    let full = (0..4).map(|_| {
        let one = socket();
        one.set_nonblocking(true).unwrap();
        let _ = one.connect(&at);
        one
    });
    (listener, full.collect(), at.as_socket().unwrap().port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_opens_ends_every_operation() {
    let count = u32::try_from(VERBS.len()).unwrap();
    let (fleet, config) = fleet(count, [127, 94, 192, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let opens = Duration::from_millis(300);
    let alone = Alone::start(|settings| settings.connect_timeout = opens).await;
    let (clients, machines) = (&alone.clients, fleet.machines());
    for machine in &machines {
        enroll(clients, machine, &config, serving.port, "http").await;
    }
    for machine in &machines {
        ready(clients, &name_of(machine)).await;
    }
    let calls = machines.iter().zip(VERBS).map(|(machine, (verb, call))| async move {
        let name = name_of(machine);
        let mut bmc = ready(clients, &name).await;
        let place = deaf(machine.address());
        bmc.spec.as_mut().unwrap().port = place.2.into();
        bmc.metadata.as_mut().unwrap().etag.clear();
        let request = ironyard_proto::bmc::UpdateBmcRequest {
            bmc: Some(bmc),
            update_mask: None,
            request_id: String::new(),
        };
        clients.bmcs.clone().update_bmc(request).await.unwrap();
        let begun = Instant::now();
        let outcome = tokio::time::timeout(LONGEST, call(clients, &name)).await;
        drop(place);
        (verb, outcome, begun.elapsed())
    });
    for (verb, outcome, took) in futures_util::future::join_all(calls).await {
        let (reason, message) = outcome.unwrap().unwrap_err();
        assert_eq!(reason, "BMC_UNREACHABLE", "{verb}: {message}");
        // It was tried, and nobody said no.
        assert!(took >= opens && !message.contains("refused"), "{verb}: {message} after {took:?}");
    }
}

/// A BMC that hangs for longer than its caller waits: the caller learns in time that it was the BMC.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_deadline_passes_is_told_what_it_waited_for() {
    let (fleet, config) = fleet(1, [127, 94, 193, 1], Timing::default(), false);
    let serving = served(&fleet, false);
    let alone = Alone::start(|settings| settings.read_timeout = Duration::from_secs(600)).await;
    let machine = fleet.machines().remove(0);
    let name = name_of(&machine);
    enroll(&alone.clients, &machine, &config, serving.port, "http").await;
    ready(&alone.clients, &name).await;
    spoil(&machine, &Fault::Rule(Action::Hang));
    for _ in 0..2 {
        let mut request = tonic::Request::new(ironyard_proto::bmc::GetManagerRequest {
            bmc: name.clone(),
            ..Default::default()
        });
        request.set_timeout(Duration::from_secs(1));
        let status = alone.clients.managers.clone().get_manager(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
        assert_eq!(ironyard_rpc::reason_of(&status).as_deref(), Some("DEADLINE_EXCEEDED"));
        assert!(
            status.message().contains("waits for the BMC at 127.94.193."),
            "{}",
            status.message()
        );
    }
}

/// What was asked of a machine a second time after an answer was lost: nobody knew whether the first had taken effect. Logins aside.
fn repeated(machine: &Machine, fault: &Fault) -> Vec<String> {
    if !matches!(fault, Fault::Write(Action::HangAfter | Action::DropAfter)) {
        return vec![];
    }
    let mut seen = BTreeMap::<String, usize>::new();
    for write in machine.writes() {
        if write.method == "POST" && !write.path.contains("/SessionService/") {
            *seen.entry(format!("{} {} {}", write.method, write.path, write.body)).or_default() += 1;
        }
    }
    seen.into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(what, times)| format!("{times} × {what}"))
        .collect()
}

async fn run(table: Table, tls: bool, first: [u8; 4]) {
    let (verbs, scheme) = (VERBS, if tls { "https" } else { "http" });
    let cells = u32::try_from(table.len() * verbs.len()).unwrap();
    // One BMC for each cell, and one that is well.
    let (fleet, config) = fleet(cells + 1, first, Timing::default(), false);
    let begin = Instant::now();
    let serving = served(&fleet, tls);
    let alone = Alone::start(|_| {}).await;
    let (clients, machines, config, port) = (&alone.clients, fleet.machines(), &config, serving.port);
    set_credential(clients, "all", config).await;
    stream::iter(machines.iter().enumerate())
        .for_each_concurrent(16, |(n, machine)| async move {
            // What is done to a credential is done to one of its own.
            let own = verbs
                .get(n % verbs.len())
                .is_some_and(|(verb, _)| verb.contains("Credential") || verb.contains("Password"));
            if own {
                enroll(clients, machine, config, port, scheme).await;
            } else {
                enroll_with(clients, machine, "all", port, scheme).await;
            }
        })
        .await;
    poll::until("all BMCs are ready", || async {
        let request = ironyard_proto::bmc::ListBmcsRequest {
            page_size: 1000,
            ..Default::default()
        };
        let page = clients.bmcs.clone().list_bmcs(request).await.ok()?.into_inner();
        page.bmcs.iter().all(is_ready).then_some(())
    })
    .await;
    for machine in &machines {
        ready(clients, &name_of(machine)).await;
    }
    let enrolled = begin.elapsed();
    // The one that is well is asked all the time, and always answers.
    let well = name_of(machines.last().unwrap());
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let watch = tokio::spawn({
        let (clients, over, asked) = (clients.clone(), over.clone(), asked.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                for (name, call) in VERBS.iter().filter(|(name, _)| name.starts_with("Get")) {
                    let outcome = call(&clients, &well).await;
                    assert_eq!(outcome, Ok(()), "{name} of the BMC that is well");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let mut wrong = Vec::new();
    let mut told: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
    let work = table
        .iter()
        .enumerate()
        .flat_map(|(f, row)| verbs.iter().enumerate().map(move |(v, verb)| (f, row, v, verb)));
    let calls = work.map(|(f, (fault, how, allowed), v, (verb, call))| {
        let machine = machines[f * verbs.len() + v].clone();
        async move {
            let name = name_of(&machine);
            spoil(&machine, how);
            let (before, begun) = (machine.requests(), Instant::now());
            let outcome = tokio::time::timeout(LONGEST, call(clients, &name)).await;
            let (requests, took) = (machine.requests() - before, begun.elapsed());
            let (reason, message) = match &outcome {
                Ok(Ok(())) => ("OK", String::new()),
                Ok(Err((reason, message))) => (reason.as_str(), message.clone()),
                Err(_) => ("no end", String::new()),
            };
            let clean = message.len() < 4096 && !message.chars().any(char::is_control);
            let twice = repeated(&machine, how);
            let fine = allowed.contains(&reason) && requests <= REQUESTS && clean && twice.is_empty();
            let problem = (!fine).then(|| format!("{fault} × {verb}: {reason} ({message}), {requests} requests, {took:?}; {twice:?}"));
            (*fault, reason.to_owned(), problem, (took, format!("{fault} × {verb}")))
        }
    });
    let mut outcomes = stream::iter(calls).buffer_unordered(150);
    let mut slow = vec![];
    while let Some((fault, reason, problem, took)) = outcomes.next().await {
        slow.push(took);
        *told.entry(fault).or_default().entry(reason).or_default() += 1;
        wrong.extend(problem);
    }
    over.store(true, Ordering::Relaxed);
    watch.await.unwrap();
    println!(
        "{} faults × {} operations; the BMC that was well answered {} calls; peak memory of gateway, simulator and test {} MiB",
        table.len(),
        verbs.len(),
        asked.load(Ordering::Relaxed),
        peak_mib()
    );
    slow.sort();
    println!(
        "enrolled after {enrolled:?}, over after {:?}; slowest calls: {:?}",
        begin.elapsed(),
        slow.iter().rev().take(5).collect::<Vec<_>>()
    );
    for (fault, reasons) in told {
        println!("  {fault}: {reasons:?}");
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(peak_mib() < 1024, "peak memory {} MiB", peak_mib());
}
