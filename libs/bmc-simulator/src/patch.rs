use serde_json::Value;

use crate::{Machine, http::Answer, machine::State};

/// Changes a resource; the effect is whether anything is other than before.
pub(crate) fn patch(machine: &Machine, path: &str, body: &Value) -> Answer {
    let mut state = machine.lock();
    let outcome = match path {
        "/redfish/v1/Systems/1" => system(&mut state, body),
        "/redfish/v1/Systems/1/Bios/Settings" => bios(&mut state, body),
        _ => return Answer::error(405, "OperationNotAllowed", "This resource cannot be changed."),
    };
    match outcome {
        Ok(effect) => {
            if effect {
                state.version += 1;
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

fn system(state: &mut State, body: &Value) -> Outcome {
    let Value::Object(map) = body else { return Ok(false) };
    let mut effect = false;
    for (key, value) in map {
        match key.as_str() {
            "LocationIndicatorActive" => {
                let on = value.as_bool().ok_or_else(|| wrong(key))?;
                effect |= state.led != on;
                state.led = on;
            }
            "Boot" => effect |= boot(state, value)?,
            _ => return Err((key.clone(), "the property is unknown or read-only".to_owned())),
        }
    }
    Ok(effect)
}

fn boot(state: &mut State, body: &Value) -> Outcome {
    let Value::Object(map) = body else { return Err(wrong("Boot")) };
    let mut effect = false;
    for (key, value) in map {
        let text = value.as_str().unwrap_or_default().to_owned();
        match key.as_str() {
            "BootSourceOverrideTarget" => {
                if !["None", "Pxe", "Cd", "Hdd", "Usb", "UefiHttp", "BiosSetup"].contains(&text.as_str()) {
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

fn bios(state: &mut State, body: &Value) -> Outcome {
    let Some(Value::Object(attributes)) = body.get("Attributes") else {
        return Err(wrong("Attributes"));
    };
    for (name, value) in attributes {
        let present = state.bios.get(name).ok_or_else(|| (name.clone(), "no such attribute".to_owned()))?;
        if std::mem::discriminant(present) != std::mem::discriminant(value) {
            return Err(wrong(name));
        }
    }
    let mut effect = false;
    for (name, value) in attributes {
        effect |= state.pending.insert(name.clone(), value.clone()).as_ref() != Some(value);
    }
    Ok(effect)
}
