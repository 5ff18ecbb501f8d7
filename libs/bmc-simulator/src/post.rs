use std::{sync::Arc, time::Duration};

use ironyard_types::{hardware::PowerState, random_hex};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Machine,
    management::{Account, Certificate, Subscription, Volume, now},
    profile::{Media, TaskForm},
    resources,
    response::Answer,
};

const V1: &str = "/redfish/v1";

/// Calls an action, or creates a resource.
pub(crate) fn post(machine: &Arc<Machine>, path: &str, body: &Value) -> Answer {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(rest) = path.strip_prefix("/redfish/v1/") else {
        return no_action();
    };
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["SessionService", "Sessions"] | ["SessionService", "Sessions", "Members"] => login(machine, &text("UserName"), &text("Password")),
        ["Systems", "1", "Actions", "ComputerSystem.Reset"] => reset(machine, &text("ResetType")),
        ["Chassis", "1", "Actions", "Chassis.Reset"] => {
            if machine.power() != PowerState::Off {
                return Answer::error(409, "ResourceInUse", "The host is not off.");
            }
            machine.lock().bmc.log("The mains were cut and restored.", "Warning");
            Answer::done(true)
        }
        ["Systems", "1", "Bios", "Actions", "Bios.ResetBios"] => {
            let mut state = machine.lock();
            let effect = !state.reset_pending;
            (state.reset_pending, state.version) = (true, state.version + 1);
            Answer::done(effect)
        }
        ["Systems", "1", "Bios", "Actions", "Bios.ChangePassword"] => {
            if text("PasswordName") != "SetupPassword" {
                return Answer::error(400, "ActionParameterValueNotInList", "PasswordName: use SetupPassword.");
            }
            Answer::done(true)
        }
        ["Systems", "1", "SecureBoot", "Actions", "SecureBoot.ResetKeys"] => match text("ResetKeysType").as_str() {
            "ResetAllKeysToDefault" | "DeleteAllKeys" | "DeletePK" => Answer::done(true),
            other => Answer::error(
                400,
                "ActionParameterValueNotInList",
                &format!("ResetKeysType {other:?} is not offered."),
            ),
        },
        ["Managers", "BMC", "Actions", "Manager.Reset"] => restart(machine),
        ["Managers" | "Systems", _, "VirtualMedia", "CD1", "Actions", action] => medium(machine, action, body),
        ["Systems", "1", "Storage", "1", "Drives", serial, "Actions", "Drive.SecureErase"] => {
            erase(machine, serial, &text("SanitizationType"), path)
        }
        ["Systems", "1", "Storage", "1", "Volumes"] => create_volume(machine, body, path),
        ["UpdateService", "Actions", "UpdateService.SimpleUpdate"] => {
            let image = text("ImageURI");
            // What an image is called says what is in it: `…/BIOS-2.1.0.bin`.
            let name = image.rsplit('/').next().unwrap_or_default().trim_end_matches(".bin");
            match name.rsplit_once('-') {
                Some((component, version)) if !version.is_empty() => update(machine, component, version, path),
                Some(_) | None => Answer::error(400, "ActionParameterValueFormatError", "ImageURI: no image of that name."),
            }
        }
        ["AccountService", "Accounts"] => create_account(machine, body),
        ["EventService", "Subscriptions"] => subscribe(machine, body),
        ["Managers" | "Systems", _, "LogServices", "SEL", "Actions", "LogService.ClearLog"] => {
            let mut state = machine.lock();
            let effect = !state.bmc.entries.is_empty();
            state.bmc.entries.clear();
            Answer::done(effect)
        }
        ["CertificateService", "Actions", "CertificateService.GenerateCSR"] if machine.config.profile.certificates => csr(machine, body),
        ["CertificateService", "Actions", "CertificateService.ReplaceCertificate"] if machine.config.profile.certificates => {
            replace_certificate(machine, &text("CertificateString"))
        }
        _ => no_action(),
    }
}

fn no_action() -> Answer {
    Answer::error(404, "ResourceMissingAtURI", "There is no such action.")
}

/// What a long action is answered with, in the family's way.
fn long(machine: &Machine, id: u64, effect: bool) -> Answer {
    let uri = format!("{V1}/TaskService/Tasks/{id}");
    let task = || resources::get(machine, &uri).unwrap_or_else(|| json!({}));
    let (body, location) = match machine.config.profile.task_form {
        TaskForm::Task => (task(), Some(uri.clone())),
        TaskForm::Monitor => (task(), Some(format!("{V1}/TaskService/TaskMonitors/{id}"))),
        TaskForm::Job => (Value::Null, Some(format!("{V1}/Managers/BMC/Jobs/JID_{id}"))),
        TaskForm::Hidden => {
            let info = json!({"MessageId": "Base.1.4.Success", "Message": "A new resource was created.", "MessageArgs": [uri]});
            (json!({"Accepted": {"@Message.ExtendedInfo": [info]}}), None)
        }
        TaskForm::Nothing => (Value::Null, None),
    };
    Answer {
        status: 202,
        body,
        headers: location.into_iter().map(|l| ("location", l)).collect(),
        effect,
    }
}

fn created(machine: &Machine, path: String) -> Answer {
    Answer {
        status: 201,
        body: resources::get(machine, &path).unwrap_or(Value::Null),
        headers: vec![("location", path)],
        effect: true,
    }
}

fn login(machine: &Machine, username: &str, password: &str) -> Answer {
    let mut state = machine.lock();
    if !state.bmc.knows(username, password) {
        return Answer::error(401, "ResourceAtUriUnauthorized", "The credentials are wrong.");
    }
    if state.sessions.len() >= machine.config.session_limit {
        return Answer::error(503, "SessionLimitExceeded", "The session limit is reached.");
    }
    let (token, id) = (random_hex(16), state.next_id);
    state.next_id += 1;
    state.sessions.insert(token.clone(), id);
    let account = state.bmc.accounts.iter().find(|a| a.username == username).map_or(0, |a| a.id);
    let must_change = state.bmc.password_change_required;
    drop(state);
    let mut answer = created(machine, format!("{V1}/SessionService/Sessions/{id}"));
    if must_change {
        answer.body["@Message.ExtendedInfo"] = json!([{
            "MessageId": "Base.1.18.PasswordChangeRequired", "Message": "The password must be changed.", "MessageSeverity": "Critical",
            "MessageArgs": [format!("{V1}/AccountService/Accounts/{account}")],
        }]);
    }
    answer.headers.push(("x-auth-token", token));
    answer
}

/// Deletes a session, a volume, an account or a subscription.
pub(crate) fn delete(machine: &Arc<Machine>, path: &str) -> Answer {
    let missing = || Answer::error(404, "ResourceMissingAtURI", "There is no such resource.");
    let Some((collection, id)) = path.rsplit_once('/') else {
        return missing();
    };
    let Ok(id) = id.parse::<u64>() else { return missing() };
    let mut state = machine.lock();
    match collection.strip_prefix("/redfish/v1/").unwrap_or_default() {
        "SessionService/Sessions" => {
            let before = state.sessions.len();
            state.sessions.retain(|_, session| *session != id);
            if state.sessions.len() == before {
                missing()
            } else {
                Answer::done(true)
            }
        }
        "AccountService/Accounts" => {
            if machine.config.profile.account_slots {
                return Answer::error(405, "OperationNotAllowed", "Accounts are slots.");
            }
            let before = state.bmc.accounts.len();
            state.bmc.accounts.retain(|a| a.id != id);
            if state.bmc.accounts.len() == before {
                missing()
            } else {
                Answer::done(true)
            }
        }
        "EventService/Subscriptions" => {
            let before = state.bmc.subscriptions.len();
            state.bmc.subscriptions.retain(|s| s.id != id);
            if state.bmc.subscriptions.len() == before {
                missing()
            } else {
                Answer::done(true)
            }
        }
        "Systems/1/Storage/1/Volumes" => {
            if !state.bmc.volumes.iter().any(|v| v.id == id) {
                return missing();
            }
            drop(state);
            let task = machine.begin_task(path, machine.config.timing.erase, move |machine| {
                machine.lock().bmc.volumes.retain(|v| v.id != id);
                Ok("The volume was deleted.".to_owned())
            });
            long(machine, task, true)
        }
        _ => missing(),
    }
}

fn reset(machine: &Arc<Machine>, kind: &str) -> Answer {
    let running = matches!(machine.power(), PowerState::On | PowerState::PoweringOn);
    // Without a type it is the service's to choose.
    let kind = match kind {
        "" if running => "GracefulRestart",
        "" => "On",
        kind => kind,
    };
    if !machine.config.profile.resets.contains(&kind) {
        return Answer::error(400, "ActionParameterNotSupported", &format!("ResetType {kind:?} is not offered."));
    }
    match kind {
        "On" | "ForceOn" => Answer::done(machine.change_power(true)),
        "ForceOff" => Answer::done(machine.change_power(false)),
        "PushPowerButton" => Answer::done(machine.change_power(!running)),
        "GracefulShutdown" => {
            let hung = machine.lock().hung_os;
            if running && !hung {
                machine.change_power(false);
            }
            Answer::done(running)
        }
        "Nmi" => {
            machine.lock().bmc.log("An NMI was sent.", "Warning");
            Answer::done(running)
        }
        _ => {
            // A restart: off, and on when that is done.
            let effect = machine.change_power(false);
            let again = machine.clone();
            tokio::spawn(async move {
                tokio::time::sleep(again.config.timing.power * 2).await;
                again.change_power(true);
            });
            Answer::done(effect)
        }
    }
}

fn restart(machine: &Arc<Machine>) -> Answer {
    let mut state = machine.lock();
    state.sessions.clear();
    state.bmc.resets += 1;
    // A second later at least, so that the time differs.
    state.bmc.last_reset = now().max(state.bmc.last_reset + 1);
    state.bmc.subscriptions.clear();
    state.bmc.events = None;
    state.bmc.down_until = Some(Instant::now() + machine.config.timing.power * 3);
    state.bmc.log("The BMC was restarted.", "OK");
    Answer::done(true)
}

fn medium(machine: &Machine, action: &str, body: &Value) -> Answer {
    let image = body.get("Image").and_then(Value::as_str).unwrap_or_default().to_owned();
    let media = machine.config.profile.media;
    match (action, media) {
        (_, Media::Patched) => no_action(),
        ("VirtualMedia.InsertMedia", Media::Wordy) if body.get("TransferProtocolType").is_none() => {
            Answer::error(400, "ActionParameterMissing", "The parameter TransferProtocolType is missing.")
        }
        ("VirtualMedia.InsertMedia", _) => insert(machine, Some(image)),
        ("VirtualMedia.EjectMedia", _) => insert(machine, None),
        _ => no_action(),
    }
}

/// Inserts or ejects.
pub(crate) fn insert(machine: &Machine, image: Option<String>) -> Answer {
    if image
        .as_ref()
        .is_some_and(|i| !i.starts_with("http://") && !i.starts_with("https://"))
    {
        return Answer::error(400, "PropertyValueFormatError", "Image: not an http or https URL");
    }
    let mut state = machine.lock();
    let effect = state.image != image;
    (state.image, state.version) = (image, state.version + 1);
    Answer::done(effect)
}

fn erase(machine: &Arc<Machine>, serial: &str, kind: &str, target: &str) -> Answer {
    let offered = machine.with_drive(serial, |d| d.sanitization.clone()).unwrap_or_default();
    let Some(first) = offered.first() else {
        return no_action();
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
    long(machine, id, effect)
}

fn create_volume(machine: &Arc<Machine>, body: &Value, path: &str) -> Answer {
    let raid = body.get("RAIDType").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !["RAID0", "RAID1"].contains(&raid.as_str()) {
        return Answer::error(400, "PropertyValueNotInList", "RAIDType: use RAID0 or RAID1");
    }
    let links = body["Links"]["Drives"].as_array().cloned().unwrap_or_default();
    let serials: Vec<String> = links
        .iter()
        .filter_map(|l| l["@odata.id"].as_str()?.rsplit('/').next().map(str::to_owned))
        .collect();
    let present = machine.drives();
    if serials.is_empty() || !serials.iter().all(|s| present.iter().any(|d| d.serial == *s)) {
        return Answer::error(400, "PropertyValueNotInList", "Links: no such drive");
    }
    let smallest = present
        .iter()
        .filter(|d| serials.contains(&d.serial))
        .map(|d| d.capacity)
        .min()
        .unwrap_or(0);
    let name = body.get("Name").and_then(Value::as_str).unwrap_or("Volume").to_owned();
    let effect = !machine.lock().bmc.volumes.iter().any(|v| v.name == name);
    let task = machine.begin_task(path, machine.config.timing.erase, move |machine| {
        let mut state = machine.lock();
        let id = state.next_id;
        state.next_id += 1;
        let bytes = if raid == "RAID1" {
            smallest
        } else {
            smallest * serials.len() as u64
        };
        state.bmc.volumes.push(Volume {
            id,
            name,
            raid,
            drives: serials,
            bytes,
        });
        Ok("The volume was created.".to_owned())
    });
    long(machine, task, effect)
}

/// Takes an image that was pushed: `component=BIOS version=2.1.0` somewhere in it.
pub(crate) fn push(machine: &Arc<Machine>, path: &str, body: &[u8]) -> Answer {
    let profile = machine.config.profile;
    let offered = path.ends_with("/upload") && profile.multipart || path.ends_with("/update") && profile.raw_push;
    if !offered {
        return no_action();
    }
    let text = String::from_utf8_lossy(body);
    let word = |key: &str| {
        let rest = text.split(&format!("{key}=")).nth(1)?;
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
            .collect();
        (!word.is_empty()).then_some(word)
    };
    match (word("component"), word("version")) {
        (Some(component), Some(version)) => update(machine, &component, &version, path),
        _ => Answer::error(400, "InvalidUpload", "The image is none that this BMC knows."),
    }
}

/// Installs a version: the BIOS at the next start of the host, everything else at once; the BMC restarts for its own.
fn update(machine: &Arc<Machine>, component: &str, version: &str, target: &str) -> Answer {
    let (component, version) = (component.to_owned(), version.to_owned());
    {
        let mut state = machine.lock();
        if !state.bmc.firmware.contains_key(&component) {
            return Answer::error(400, "ActionParameterValueNotInList", &format!("There is no component {component}."));
        }
        if std::mem::replace(&mut state.bmc.busy, true) {
            return Answer::error(409, "ResourceInUse", "Another update is running.");
        }
    }
    let effect = {
        let state = machine.lock();
        let staged = state.bmc.staged.get(&component) == Some(&version);
        state.bmc.firmware.get(&component) != Some(&version) && !staged
    };
    let task = machine.begin_task(target, machine.config.timing.erase, move |machine| {
        let mut state = machine.lock();
        state.bmc.busy = false;
        match component.as_str() {
            "BIOS" => {
                state.bmc.staged.insert(component, version);
                Ok("The image is staged; restart the host.".to_owned())
            }
            _ => {
                let own = component == "BMC";
                state.bmc.firmware.insert(component, version);
                drop(state);
                if own {
                    restart(machine);
                    machine.lock().tasks.clear();
                }
                Ok("The image was installed.".to_owned())
            }
        }
    });
    long(machine, task, effect)
}

fn create_account(machine: &Machine, body: &Value) -> Answer {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if machine.config.profile.account_slots {
        return Answer::error(405, "OperationNotAllowed", "Accounts are slots: PATCH an empty one.");
    }
    let (username, password) = (text("UserName"), text("Password"));
    if username.is_empty() || !(8..=20).contains(&password.len()) {
        return Answer::error(400, "PropertyValueFormatError", "Password: 8 to 20 characters");
    }
    let mut state = machine.lock();
    if state.bmc.accounts.iter().any(|a| a.username == username) {
        return Answer::error(409, "ResourceAlreadyExists", "An account of this name exists.");
    }
    let id = state.next_id.max(10);
    state.next_id = id + 1;
    state.bmc.accounts.push(Account {
        id,
        username,
        password,
        role: text("RoleId"),
        enabled: true,
    });
    drop(state);
    created(machine, format!("{V1}/AccountService/Accounts/{id}"))
}

fn subscribe(machine: &Machine, body: &Value) -> Answer {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let profile = machine.config.profile;
    if !text("Destination").starts_with("http") || text("Protocol") != "Redfish" {
        return Answer::error(400, "PropertyValueFormatError", "Destination: not an http or https URL");
    }
    if profile.event_types && body.get("EventTypes").is_none() {
        return Answer::error(400, "PropertyMissing", "The property EventTypes is missing.");
    }
    let mut state = machine.lock();
    if state.bmc.subscriptions.len() >= 20 {
        return Answer::error(400, "EventSubscriptionLimitExceeded", "There are too many subscriptions.");
    }
    let id = state.next_id;
    state.next_id += 1;
    state.bmc.subscriptions.push(Subscription {
        id,
        destination: text("Destination"),
        context: text("Context"),
    });
    drop(state);
    created(machine, format!("{V1}/EventService/Subscriptions/{id}"))
}

fn csr(machine: &Machine, body: &Value) -> Answer {
    let name = body.get("CommonName").and_then(Value::as_str).unwrap_or("simulated-bmc").to_owned();
    let failed = |e: &dyn std::fmt::Display| Answer::error(400, "GeneralError", &e.to_string());
    let key = match rcgen::KeyPair::generate() {
        Ok(key) => key,
        Err(error) => return failed(&error),
    };
    let made = rcgen::CertificateParams::new(vec![name])
        .and_then(|p| p.serialize_request(&key))
        .and_then(|r| r.pem());
    match made {
        Ok(pem) => {
            machine.lock().bmc.csr_key = Some(key);
            let link = json!({"@odata.id": format!("{V1}/Managers/BMC/NetworkProtocol/HTTPS/Certificates")});
            Answer {
                effect: true,
                ..Answer::ok(json!({"CSRString": pem, "CertificateCollection": link}))
            }
        }
        Err(error) => failed(&error),
    }
}

/// Shows another certificate from now on: one for the request that is open, or one that brings its key.
fn replace_certificate(machine: &Arc<Machine>, pem: &str) -> Answer {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let wrong = || {
        Answer::error(
            400,
            "ActionParameterValueFormatError",
            "CertificateString: no certificate, or no key for it.",
        )
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let brought = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok().map(|k| k.secret_der().to_vec());
    let key = brought.or_else(|| machine.lock().bmc.csr_key.as_ref().map(rcgen::KeyPair::serialize_der));
    let (false, Some(key)) = (chain.is_empty(), key) else {
        return wrong();
    };
    match Certificate::of(chain, key, pem.to_owned()) {
        Ok(certificate) => {
            let machine = machine.clone();
            tokio::spawn(async move {
                // The answer goes out under the old one.
                tokio::time::sleep(Duration::from_millis(20)).await;
                machine.lock().bmc.certificate = Some(certificate);
            });
            Answer::done(true)
        }
        Err(_) => wrong(),
    }
}
