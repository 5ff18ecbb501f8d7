use ironyard_types::hardware::PowerState;
use serde_json::{Value, json};

use crate::{
    Machine, Profile,
    machine::State,
    post,
    profile::{ApplyTime, Media},
    response::Answer,
};

/// Changes a resource; the effect is whether anything is other than before.
pub(crate) fn patch(machine: &Machine, path: &str, body: &Value) -> Answer {
    let profile = machine.config.profile;
    if body
        .as_object()
        .is_some_and(|map| !map.is_empty() && map.keys().all(|key| key.starts_with("@odata.")))
    {
        return Answer::error(400, "NoOperation", "The request has nothing to change.");
    }
    let in_post = machine.power() == PowerState::PoweringOn;
    if profile.post_refusal && in_post && path.starts_with("/redfish/v1/Systems/1") {
        return Answer::error(400, "UnableToModifyDuringSystemPOST", "The system is in POST.");
    }
    if let ("/redfish/v1/Systems/1/VirtualMedia/CD1", Media::Patched) = (path, profile.media) {
        let image = body.get("Image").and_then(Value::as_str).map(str::to_owned);
        return post::insert(machine, image);
    }
    let mut state = machine.lock();
    let outcome = match path {
        "/redfish/v1/Systems/1" => system(&mut state, body, profile),
        "/redfish/v1/Systems/1/Bios/Settings" => bios(&mut state, body, profile),
        "/redfish/v1/Systems/1/SecureBoot" => secure_boot(&mut state, body),
        "/redfish/v1/Managers/BMC" => clock(&mut state, body),
        "/redfish/v1/Managers/BMC/NetworkProtocol" => ntp(&mut state, &body["NTP"]["NTPServers"]),
        "/redfish/v1/Managers/BMC/DateTime" => ntp(&mut state, &body["StaticNTPServers"]),
        _ if path.starts_with("/redfish/v1/AccountService/Accounts/") => account(&mut state, path, body),
        _ => return Answer::error(405, "OperationNotAllowed", "This resource cannot be changed."),
    };
    match outcome {
        Ok(effect) => {
            if effect {
                state.version += 1;
            }
            if profile.success_as_error {
                let info = json!({"MessageId": "iLO.2.14.SystemResetRequired"});
                let body = json!({"error": {"code": "iLO.0.10.ExtendedInfo", "message": "See @Message.ExtendedInfo for more information.", "@Message.ExtendedInfo": [info]}});
                return Answer {
                    effect,
                    ..Answer::ok(body)
                };
            }
            Answer::done(effect)
        }
        Err((property, message)) => Answer::error(400, "PropertyValueNotInList", &format!("{property}: {message}")),
    }
}

type Outcome = Result<bool, (String, String)>;

fn wrong(property: &str) -> (String, String) {
    (property.to_owned(), "the value is not one that this property takes".to_owned())
}

fn secure_boot(state: &mut State, body: &Value) -> Outcome {
    let on = body
        .get("SecureBootEnable")
        .and_then(Value::as_bool)
        .ok_or_else(|| wrong("SecureBootEnable"))?;
    Ok(std::mem::replace(&mut state.secure_boot, on) != on)
}

fn clock(state: &mut State, body: &Value) -> Outcome {
    let text = body.get("DateTime").and_then(Value::as_str).ok_or_else(|| wrong("DateTime"))?;
    let time = humantime::parse_rfc3339_weak(&text.replace("+00:00", "Z")).map_err(|_| wrong("DateTime"))?;
    let since = time
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_err(|_| wrong("DateTime"))?;
    state.bmc.clock = i64::try_from(since.as_secs()).map_err(|_| wrong("DateTime"))?;
    Ok(true)
}

fn ntp(state: &mut State, servers: &Value) -> Outcome {
    let wanted = servers.as_array().ok_or_else(|| wrong("NTPServers"))?;
    let mut servers = vec![];
    for (n, value) in wanted.iter().enumerate() {
        match value {
            Value::String(name) => servers.push(name.clone()),
            // Null takes one away, an empty object leaves it as it is.
            Value::Null => {}
            Value::Object(map) if map.is_empty() => servers.extend(state.bmc.ntp.get(n).cloned()),
            _ => return Err(wrong("NTPServers")),
        }
    }
    let effect = state.bmc.ntp != servers;
    state.bmc.ntp = servers;
    Ok(effect)
}

fn account(state: &mut State, path: &str, body: &Value) -> Outcome {
    let id: u64 = path.rsplit('/').next().and_then(|id| id.parse().ok()).ok_or_else(|| wrong("Id"))?;
    let known = [
        "Password",
        "UserName",
        "RoleId",
        "Enabled",
        "Locked",
        "PasswordChangeRequired",
        "OldPassword",
        "AccountTypes",
    ];
    let keys = body.as_object().into_iter().flat_map(|map| map.keys());
    if let Some(unknown) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
        return Err((unknown.clone(), "the property is unknown".to_owned()));
    }
    let account = state.bmc.accounts.iter_mut().find(|a| a.id == id).ok_or_else(|| wrong("Id"))?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut effect = false;
    if let Some(password) = text("Password") {
        if !(8..=20).contains(&password.len()) {
            return Err(("Password".to_owned(), "8 to 20 characters".to_owned()));
        }
        effect |= account.password != password;
        account.password = password;
    }
    if let Some(username) = text("UserName") {
        effect |= account.username != username;
        account.username = username;
    }
    if let Some(role) = text("RoleId") {
        account.role = role;
        effect = true;
    }
    if let Some(enabled) = body.get("Enabled").and_then(Value::as_bool) {
        effect |= account.enabled != enabled;
        account.enabled = enabled;
    }
    if body.get("Password").is_some() {
        state.bmc.password_change_required = false;
    }
    Ok(effect)
}

fn system(state: &mut State, body: &Value, profile: &Profile) -> Outcome {
    let Value::Object(map) = body else { return Ok(false) };
    let mut effect = false;
    for (key, value) in map {
        match key.as_str() {
            "LocationIndicatorActive" => {
                let on = value.as_bool().ok_or_else(|| wrong(key))?;
                effect |= state.led != on;
                state.led = on;
            }
            "Boot" => effect |= boot(state, value, profile)?,
            _ => return Err((key.clone(), "the property is unknown or read-only".to_owned())),
        }
    }
    Ok(effect)
}

fn boot(state: &mut State, body: &Value, profile: &Profile) -> Outcome {
    let Value::Object(map) = body else { return Err(wrong("Boot")) };
    let mut effect = false;
    for (key, value) in map {
        let text = value.as_str().unwrap_or_default().to_owned();
        match key.as_str() {
            "BootSourceOverrideTarget" => {
                if !["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup", "UefiBootNext"].contains(&text.as_str()) {
                    return Err(wrong(key));
                }
                effect |= state.override_target != text;
                state.override_target = text;
            }
            "BootSourceOverrideEnabled" => {
                if !["Disabled", "Once", "Continuous"].contains(&text.as_str()) {
                    return Err(wrong(key));
                }
                effect |= state.override_enabled != text;
                state.override_enabled = text;
            }
            "BootNext" => {
                if !state.boot_order.contains(&text) {
                    return Err(wrong(key));
                }
                effect |= state.boot_next.as_deref() != Some(&text);
                state.boot_next = Some(text);
            }
            "BootSourceOverrideMode" if !profile.mode_writable => {
                return Err((key.clone(), "the property is read-only".to_owned()));
            }
            "BootSourceOverrideMode" => {
                if !["UEFI", "Legacy"].contains(&text.as_str()) {
                    return Err(wrong(key));
                }
            }
            "HttpBootUri" => {
                effect |= state.override_uri != text;
                state.override_uri = text;
            }
            "BootOrder" => {
                let order: Vec<String> = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect();
                let (mut a, mut b) = (order.clone(), state.boot_order.clone());
                a.sort();
                b.sort();
                if a != b {
                    return Err(wrong(key));
                }
                effect |= state.boot_order != order;
                state.boot_order = order;
            }
            _ => return Err((key.clone(), "the property is unknown or read-only".to_owned())),
        }
    }
    Ok(effect)
}

fn bios(state: &mut State, body: &Value, profile: &Profile) -> Outcome {
    let Some(Value::Object(attributes)) = body.get("Attributes") else {
        return Err(wrong("Attributes"));
    };
    let timed = body.get("@Redfish.SettingsApplyTime").is_some();
    if timed && profile.apply_time == ApplyTime::Refused {
        return Err(("@Redfish.SettingsApplyTime".to_owned(), "the property is unknown".to_owned()));
    }
    for (name, value) in attributes {
        let present = state.bios.get(name).ok_or_else(|| (name.clone(), "no such attribute".to_owned()))?;
        if std::mem::discriminant(present) != std::mem::discriminant(value) {
            return Err(wrong(name));
        }
    }
    let mut effect = false;
    state.bmc.bios_job |= timed;
    for (name, value) in attributes {
        effect |= state.pending.insert(name.clone(), value.clone()).as_ref() != Some(value);
    }
    Ok(effect)
}
