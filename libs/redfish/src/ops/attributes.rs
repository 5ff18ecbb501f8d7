//! BIOS attributes as text, and which of them are secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Whether what is called so is a secret, or a hash that one can be guessed from.
pub(crate) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 30] = [
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "secret",
        "salt",
        "token",
        "community",
        "credential",
        "privatekey",
        "privkey",
        "encryptionkey",
        "authkey",
        "authenticationkey",
        "ipmikey",
        "v3key",
        "keystring",
        "licensekey",
        "activationkey",
        "productkey",
        "presharedkey",
        "signingkey",
        "unlockkey",
        "masterkey",
        "sessionkey",
        "authorizationheader",
        "pwd",
        "apikey",
        "accesskey",
        "sharedkey",
    ];
    // What is said of secrets, and what each member of a schema may be.
    const ABOUT: [&str; 6] = [
        "passwordstatus",
        "passwordexpiration",
        "passwordchangerequired",
        "passwordname",
        "keyidentifier",
        "@",
    ];
    let letters = |c: &char| c.is_ascii_alphanumeric() || *c == '@';
    let name: String = name.to_ascii_lowercase().chars().filter(letters).collect();
    name == "authorization"
        || name.ends_with("psk")
        || WORDS.iter().any(|word| name.contains(word)) && !ABOUT.iter().any(|word| name.contains(word))
}

/// Longest value of an attribute: some keep the whole boot order in one.
const LONGEST: usize = 64 << 10;

/// An attribute's value as text: nothing for a null, JSON for a structure.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => crate::error::clean_to(text, LONGEST),
        Value::Null => String::new(),
        other => crate::error::clean_to(&open(other).to_string(), LONGEST),
    }
}

/// A structure without the secrets in it.
fn open(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let shown = map.iter().map(|(name, value)| {
                let value = if holds_secret(name, value) {
                    Value::String("[secret]".to_owned())
                } else {
                    open(value)
                };
                (name.clone(), value)
            });
            Value::Object(shown.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(open).collect()),
        plain => plain.clone(),
    }
}

/// Whether an attribute holds a secret, by its name; a switch that is called after one does not.
pub(crate) fn holds_secret(name: &str, value: &Value) -> bool {
    const SWITCHES: [&str; 10] = [
        "enabled",
        "disabled",
        "enable",
        "disable",
        "installed",
        "notinstalled",
        "not installed",
        "set",
        "notset",
        "not set",
    ];
    let plain = match value {
        Value::String(text) => SWITCHES.contains(&text.trim().to_ascii_lowercase().as_str()),
        Value::Bool(_) => true,
        // Passwords are shown as nulls.
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    };
    !plain && is_secret(name)
}

/// All attributes as text, without secrets.
pub fn as_texts(attributes: &Map<String, Value>) -> BTreeMap<String, String> {
    let keep = attributes.iter().filter(|(name, value)| !holds_secret(name, value));
    keep.map(|(name, value)| (name.clone(), as_text(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_not_shown_whatever_they_are_in() {
        let Value::Object(attributes) = json!({
            "AdminPassword": null, "SetupPassword": "x", "LegacyPasswordEnable": false, "LoadAuthentication_Key": "Disabled",
            "Target": {"Name": "a", "ChapSecret": "hush", "Ports": [{"AuthKey": "hush", "Lun": 1}]}, "Order": ["HD", "NIC"], "Empty": null,
        }) else {
            panic!()
        };
        let shown = as_texts(&attributes);
        let names: Vec<&str> = shown.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["Empty", "LegacyPasswordEnable", "LoadAuthentication_Key", "Order", "Target"]
        );
        assert_eq!((shown["Order"].as_str(), shown["Empty"].as_str()), (r#"["HD","NIC"]"#, ""));
        let target = &shown["Target"];
        assert!(
            !target.contains("hush") && target.contains("[secret]") && target.contains("Lun"),
            "{target}"
        );
    }
}
