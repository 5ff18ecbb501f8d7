//! The admin API: what a test or a developer does to the simulated world from outside of Redfish.
//!
//! `GET /admin/bmcs`, `GET /admin/bmcs/N`, `GET /admin/bmcs/N/writes`, `POST /admin/bmcs/N/faults` (a rule), `DELETE …/faults`,
//! `POST /admin/bmcs/N/drives/SERIAL` (`{"erase": "good|fails|lies|restores", "present": bool}`), `POST /admin/bmcs/N/knobs`
//! (`{"hung_os": bool, "power_lies": bool, "tasks_stick": bool, "tasks_vanish": bool, "password_change_required": bool, "gone": bool, "clock_1970": bool,
//! "certificate": "fresh|expired", "healthy": bool}`).

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{EraseBehaviour, Fleet, Knobs, Machine, Rule, response::Answer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DriveKnobs {
    erase: Option<EraseBehaviour>,
    present: Option<bool>,
}

fn overview(machine: &Machine) -> Value {
    let drives: Vec<Value> = {
        let state = machine.lock();
        state
            .drives
            .iter()
            .map(|d| json!({"serial": d.serial, "present": d.present, "dirty": d.dirty, "erase": d.behaviour}))
            .collect()
    };
    json!({"number": machine.config.number, "address": machine.address().to_string(), "uuid": machine.config.uuid, "profile": machine.config.profile.name, "requests": machine.requests(), "sessions": machine.sessions(), "settings": machine.settings(), "drives": drives})
}

pub(crate) fn answer(fleet: &Fleet, method: &Method, path: &str, body: &[u8]) -> Answer {
    let bad = |e: &dyn std::fmt::Display| Answer::error(400, "PropertyValueFormatError", &e.to_string());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let machines = fleet.machines();
    if let ("GET", ["admin", "bmcs"]) = (method.as_str(), parts.as_slice()) {
        return Answer::ok(json!({"bmcs": machines.iter().map(|m| overview(m)).collect::<Vec<_>>()}));
    }
    let ["admin", "bmcs", number, rest @ ..] = parts.as_slice() else {
        return Answer::error(404, "ResourceMissingAtURI", "no BMC has this address; see GET /admin/bmcs");
    };
    let Some(machine) = machines.iter().find(|m| m.config.number.to_string() == **number) else {
        return Answer::error(404, "ResourceMissingAtURI", "no BMC has this number");
    };
    match (method.as_str(), rest) {
        ("GET", []) => Answer::ok(overview(machine)),
        ("GET", ["writes"]) => Answer::ok(json!({"writes": machine.writes()})),
        ("POST", ["faults"]) => match serde_json::from_slice::<Rule>(body) {
            Ok(rule) => {
                machine.add_rule(rule);
                Answer::done(true)
            }
            Err(error) => bad(&error),
        },
        ("DELETE", ["faults"]) => {
            machine.clear_rules();
            Answer::done(true)
        }
        ("POST", ["knobs"]) => match serde_json::from_slice::<Knobs>(body) {
            Ok(knobs) => {
                machine.set_knobs(knobs);
                Answer::done(true)
            }
            Err(error) => bad(&error),
        },
        ("POST", ["drives", serial]) => match serde_json::from_slice::<DriveKnobs>(body) {
            Ok(knobs) => {
                if let Some(present) = knobs.present {
                    machine.set_present(serial, present);
                }
                if let Some(erase) = knobs.erase {
                    machine.set_erase(serial, erase);
                }
                Answer::done(true)
            }
            Err(error) => bad(&error),
        },
        _ => Answer::error(404, "ResourceMissingAtURI", "no such admin call"),
    }
}
