use std::sync::Arc;

use ironyard_types::{hardware::PowerState, random_hex};
use serde_json::{Value, json};

use crate::{Machine, http::Answer, resources};

/// Calls an action, or opens a session.
pub(crate) fn post(machine: &Arc<Machine>, path: &str, body: &Value) -> Answer {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match path {
        "/redfish/v1/SessionService/Sessions" => login(machine, &text("UserName"), &text("Password")),
        "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset" => reset(machine, &text("ResetType")),
        "/redfish/v1/Systems/1/Bios/Actions/Bios.ResetBios" => {
            let mut state = machine.lock();
            let effect = !state.reset_pending;
            (state.reset_pending, state.version) = (true, state.version + 1);
            Answer::done(effect)
        }
        "/redfish/v1/Managers/BMC/VirtualMedia/CD1/Actions/VirtualMedia.InsertMedia" => {
            let image = text("Image");
            if !image.starts_with("http://") && !image.starts_with("https://") {
                return Answer::error(400, "PropertyValueFormatError", "Image: not an http or https URL");
            }
            let mut state = machine.lock();
            let effect = state.image.as_deref() != Some(&image);
            (state.image, state.version) = (Some(image), state.version + 1);
            Answer::done(effect)
        }
        "/redfish/v1/Managers/BMC/VirtualMedia/CD1/Actions/VirtualMedia.EjectMedia" => {
            let mut state = machine.lock();
            let effect = state.image.take().is_some();
            state.version += 1;
            Answer::done(effect)
        }
        "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate" => {
            Answer::error(501, "ActionNotSupported", "Firmware updates are not simulated.")
        }
        _ => match path
            .strip_suffix("/Actions/Drive.SecureErase")
            .and_then(|p| p.strip_prefix("/redfish/v1/Systems/1/Storage/1/Drives/"))
        {
            Some(serial) => erase(machine, serial, &text("SanitizationType"), path),
            None => Answer::error(404, "ResourceMissingAtURI", "There is no such action."),
        },
    }
}

fn login(machine: &Machine, username: &str, password: &str) -> Answer {
    if username != machine.config.username || password != machine.config.password {
        return Answer::error(401, "ResourceAtUriUnauthorized", "The credentials are wrong.");
    }
    let mut state = machine.lock();
    if state.sessions.len() >= machine.config.session_limit {
        return Answer::error(503, "SessionLimitExceeded", "The session limit is reached.");
    }
    let (token, id) = (random_hex(16), state.next_id);
    state.next_id += 1;
    state.sessions.insert(token.clone(), id);
    drop(state);
    let body = resources::session(machine, id);
    let location = format!("/redfish/v1/SessionService/Sessions/{id}");
    Answer {
        status: 201,
        body,
        headers: vec![("x-auth-token", token), ("location", location)],
        effect: true,
    }
}

/// Ends a session.
pub(crate) fn delete(machine: &Machine, path: &str) -> Answer {
    let id = path
        .strip_prefix("/redfish/v1/SessionService/Sessions/")
        .and_then(|id| id.parse::<u64>().ok());
    let mut state = machine.lock();
    let before = state.sessions.len();
    state.sessions.retain(|_, session| Some(*session) != id);
    if state.sessions.len() == before {
        return Answer::error(404, "ResourceMissingAtURI", "There is no such session.");
    }
    Answer::done(true)
}

fn reset(machine: &Arc<Machine>, kind: &str) -> Answer {
    let power = machine.power();
    match kind {
        "On" => Answer::done(machine.change_power(true)),
        "ForceOff" => Answer::done(machine.change_power(false)),
        "GracefulShutdown" => {
            let hung = machine.lock().hung_os;
            let effect = matches!(power, PowerState::On | PowerState::PoweringOn);
            if effect && !hung {
                machine.change_power(false);
            }
            Answer::done(effect)
        }
        _ => Answer::error(400, "ActionParameterNotSupported", &format!("ResetType {kind:?} is not offered.")),
    }
}

fn erase(machine: &Arc<Machine>, serial: &str, kind: &str, target: &str) -> Answer {
    let offered = machine.with_drive(serial, |d| d.sanitization.clone()).unwrap_or_default();
    let Some(first) = offered.first() else {
        return Answer::error(404, "ResourceMissingAtURI", "There is no such action.");
    };
    let kind = if kind.is_empty() { first.as_str() } else { kind };
    if !offered.iter().any(|o| o == kind) {
        return Answer::error(
            400,
            "ActionParameterValueNotInList",
            &format!("SanitizationType {kind:?} is not offered."),
        );
    }
    let (id, effect) = machine.begin_erase(serial, kind, target);
    let location = format!("/redfish/v1/TaskService/Tasks/{id}");
    let body = resources::get(machine, &location).unwrap_or_else(|| json!({}));
    Answer {
        status: 202,
        body,
        headers: vec![("location", location)],
        effect,
    }
}
