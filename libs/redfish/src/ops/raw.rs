//! A document as it is, for diagnosis.

use serde_json::{Value, json};

use super::attributes::is_secret;
use crate::{Client, Result, error::clean};

/// Largest text that is shown.
const MOST: usize = 3 << 20;

/// Reads a document: pretty, its secrets replaced, its texts cleaned.
pub async fn read(client: &Client, path: &str) -> Result<String> {
    let mut value = client.get(path).await?.value;
    redact(&mut value);
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    if text.len() > MOST {
        return Err(crate::Error::TooLarge {
            at: path.to_owned(),
            cap: MOST,
        });
    }
    Ok(text)
}

/// Takes what is secret-like out of a document, by the names that the standard and vendors give it, however deep it lies.
pub fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Some vendors write attributes as pairs of a name and values.
            let named = ["AttributeName", "Name", "Id", "name"]
                .iter()
                .filter_map(|key| map.get(*key)?.as_str());
            let pair = named.into_iter().any(is_secret);
            for (key, value) in map {
                let of_pair = pair && (key.ends_with("Value") || key == "value");
                // An action is told by its name; what is secret about it is among its parameters.
                if of_pair || is_secret(key) && !key.starts_with('#') {
                    hide(value);
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::String(text) => *text = redact_text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides every text: rules about secrets are numbers and flags, and stay.
fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let inner = map.iter_mut().filter(|(key, _)| !key.starts_with("@odata"));
            inner.for_each(|(_, value)| hide(value));
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::String(text) if !text.is_empty() => *value = json!("[secret]"),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text that may be a document of its own, or a header.
fn redact_text(text: &str) -> String {
    let text = clean(text);
    if text.trim_start().starts_with(['{', '['])
        && let Ok(mut inner) = serde_json::from_str::<Value>(&text)
    {
        redact(&mut inner);
        return inner.to_string();
    }
    match text.split_once(':') {
        Some((name, _)) if is_secret(name.trim()) => format!("{name}: [secret]"),
        _ => without_login(&text),
    }
}

/// A URL without user name and password.
pub(super) fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((login, _)) => format!("{scheme}://[secret]{}", &rest[login.len()..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut value = json!({
            "Password": "hunter2", "MinPasswordLength": 8, "Users.2.SHA256Password": "abc", "X-Auth-Token": "t", "Name": "a\u{7}b",
            "Oem": {"Keys": [{"PrivateKey": "k"}]},
        });
        redact(&mut value);
        let text = value.to_string();
        for secret in ["hunter2", "abc", "\"t\"", "\"k\""] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("\"ab\"") && text.contains('8'));
    }

    #[test]
    fn secrets_are_told_by_vendors_names_and_forms() {
        let mut value = json!({
            "Attributes": {
                "Users.2.IPMIKey": "s1", "Users.2.SHA1v3Key": "s2", "Users.2.MD5v3Key": "s3", "SNMP.1.AgentCommunity": "s4",
                "Users.2.EnableSNMPv3Passphrase": "s5", "Users.2.AuthenticationProtocol": "SHA", "PasswordStatus": "Unlocked",
            },
            "SNMP": {"AuthenticationKey": "Passphrase:s6", "CommunityStrings": [{"AccessMode": 1, "CommunityString": "s7", "Name": "s8"}]},
            "CommunityNames": ["s9"],
            "List": [{"AttributeName": "Users.2.IPMIKey", "CurrentValue": "s10"}, {"Name": "BootMode", "CurrentValue": "Uefi"}],
            "Image": "http://admin:s11@10.0.0.1/a@b.iso", "ImageToo": "https://10.0.0.1/user@host",
            "Payload": {"JsonBody": "{\"Password\": \"s14\"}", "HttpHeaders": ["X-Auth-Token: s15", "Host: bmc"]}, "private_key": "s16", "AdminPwd": "s17",
            "Actions": {"#Bios.ChangePassword": {"target": "/redfish/v1/x"}},
            "KeyString": "s12", "LicenseKey": "s13", "Hash": "ab12",
        });
        redact(&mut value);
        let text = value.to_string();
        for n in 1..=17 {
            assert!(!text.contains(&format!("s{n}\\")), "s{n} in {text}");
            assert!(
                !text.contains(&format!("s{n}\"")) && !text.contains(&format!("s{n}@")),
                "s{n} in {text}"
            );
        }
        for shown in [
            "SHA",
            "Unlocked",
            "Uefi",
            "http://[secret]@10.0.0.1/a@b.iso",
            "https://10.0.0.1/user@host",
            "ab12",
            "Host: bmc",
            "/redfish/v1/x",
        ] {
            assert!(text.contains(shown), "{shown} is not in {text}");
        }
    }
}
