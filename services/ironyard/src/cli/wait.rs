use std::time::Duration;

use serde_json::Value;

use super::{
    Failure,
    kinds::{self, Kind},
    output::condition,
};
use crate::{
    client::Clients,
    json::{enum_words, text_at},
};

/// Whether a resource is as wanted.
fn holds(item: &Value, wanted: &str) -> Result<bool, Failure> {
    let same = |pointer: &str, value: &str| text_at(item, pointer).eq_ignore_ascii_case(value);
    match wanted.split_once('=') {
        Some(("state", value)) => Ok(same("/state", value)),
        Some(("phase", value)) => Ok(same("/phase", value)),
        Some(("power", value)) => Ok(same("/observed/powerState", value) || same("/powerState", value)),
        Some(("condition", value)) => Ok(condition(item, value) == "True"),
        _ => Err(Failure::usage(format!(
            "--for {wanted:?}: use state=…, phase=…, power=…, condition=… or delete"
        ))),
    }
}

/// A state that does not exist would be waited for in vain.
fn check(kind: Kind, wanted: &str) -> Result<(), Failure> {
    let (of, what, value) = match (kind, wanted.split_once('=')) {
        (Kind::Server, Some(("state", value))) => ("ironyard.inventory.v1.ServerState", "state", value),
        (Kind::Claim, Some(("phase", value))) => ("ironyard.claim.v1.ClaimPhase", "phase", value),
        (_, Some(("power", value))) => ("ironyard.common.v1.PowerState", "power", value),
        _ => return Ok(()),
    };
    let known = enum_words(of);
    if known.iter().any(|one| one.eq_ignore_ascii_case(value)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--for {wanted}: there is no {what} {value:?}; use {}",
        known.join(", ")
    )))
}

/// Waits until a resource is as wanted.
pub(crate) async fn run(clients: &Clients, kind: Kind, name: &str, wanted: &str, timeout: Duration) -> Result<(), Failure> {
    check(kind, wanted)?;
    // What was last seen, for those who wait in vain.
    let seen = std::sync::Mutex::new(String::new());
    let note = |text: String| {
        if let Ok(mut seen) = seen.lock() {
            *seen = text;
        }
    };
    let work = async {
        let mut told = false;
        loop {
            match kinds::get(clients, kind, name).await {
                Ok(item) if wanted != "delete" => {
                    let state = [text_at(&item, "/state"), text_at(&item, "/phase")].concat();
                    note(format!("it is {state} {}", text_at(&item, "/waitingBecause/message")));
                    if holds(&item, wanted)? {
                        println!("{}/{name} {wanted}", kind.name().to_ascii_lowercase());
                        return Ok(());
                    }
                    if wanted == "state=Available" && text_at(&item, "/state") == "Error" {
                        return Err(Failure::other(format!(
                            "{name} is in Error: {}",
                            text_at(&item, "/failure/message")
                        )));
                    }
                }
                Ok(_) => note("it is still there".to_owned()),
                Err(failure) if failure.code == 69 && wanted == "delete" => {
                    println!("{}/{name} deleted", kind.name().to_ascii_lowercase());
                    return Ok(());
                }
                // It may come yet; a service that is away may come back.
                Err(failure) if failure.code == 69 || failure.code == 78 => {
                    if !told {
                        eprintln!("{}; waiting for it", failure.message);
                        told = true;
                    }
                    note(failure.message);
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure {
            code: 68,
            message: format!(
                "{name} did not reach {wanted} in {}: {}",
                humantime::format_duration(timeout),
                seen.lock().map(|seen| seen.trim_end().to_owned()).unwrap_or_default()
            ),
        }),
    }
}
