//! A document as it is, for diagnosis.

use serde_json::{Value, json};

use super::bios::is_secret;
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

fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let token = [
                    "token",
                    "authorization",
                    "privatekey",
                    "encryptionkey",
                    "authkey",
                    "privkey",
                    "community",
                ];
                let lower = key.to_ascii_lowercase();
                let secret = is_secret(key) || token.iter().any(|word| lower.contains(word));
                // Rules about passwords are numbers and flags; links to certificates are no secrets.
                if secret && value.is_string() {
                    *value = json!("[secret]");
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::String(text) => *text = clean(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
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
}
