use std::{cell::Cell, fmt};

use serde::{Deserialize, Serialize};

/// A value that a caller got wrong: what is wrong with it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// An error with this sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Name of a resource: a DNS subdomain (RFC 1123), so that it can be a Kubernetes name too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

impl ResourceName {
    /// The longest name, as in Kubernetes.
    pub const MAX: usize = 253;

    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let ok = !text.is_empty()
            && text.len() <= Self::MAX
            && text.split('.').all(|label| {
                let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
                ends(label.chars().next())
                    && ends(label.chars().last())
                    && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            });
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid(format!(
                "{text:?} is not a name: use lower case letters, digits, `-` and `.`, begin and end with a letter or digit, at most {} characters",
                Self::MAX
            )))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

/// Turns free text (a Redfish id, say) into something that can be part of a name.
pub fn dns_label(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => out.push(c),
            _ if !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// A fresh random identifier.
#[expect(clippy::disallowed_methods, reason = "the one place where identifiers come from")]
pub fn random_id() -> String {
    let repeatable = REPEATABLE.with(|next| {
        let id = next.get();
        next.set(id.map(|n| n + 1));
        id
    });
    let Some(n) = repeatable else {
        return uuid::Uuid::new_v4().to_string();
    };
    let hash = sha256_hex(&n.to_be_bytes());
    uuid::Builder::from_random_bytes(std::array::from_fn(|i| hash.as_bytes().get(i * 2).copied().unwrap_or(0)))
        .into_uuid()
        .to_string()
}

thread_local! {
    static REPEATABLE: Cell<Option<u128>> = const { Cell::new(None) };
}

/// Makes everything random on this thread follow from a seed, so that a simulation can be repeated. A service never does this.
pub fn seed_ids(seed: u64) {
    REPEATABLE.set(Some(u128::from(seed) << 64));
}

/// `bytes` random bytes from the operating system's generator, as hex: for tokens.
pub fn random_hex(bytes: usize) -> String {
    let mut out = String::with_capacity(bytes * 2);
    while out.len() < bytes * 2 {
        out.push_str(&random_id().replace('-', ""));
    }
    sha256_hex(out.as_bytes()).chars().cycle().take(bytes * 2).collect()
}

/// A random number in [0, 1): for jitter.
pub fn random_fraction() -> f64 {
    let bits = u32::from_str_radix(&random_hex(4), 16).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// A random password that every BMC family takes: 18 characters, letters and digits with one `-`, no look-alikes, about 80 bits.
pub fn random_password() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
    let bytes = hex::decode(random_hex(32)).unwrap_or_default();
    let mut text: String = bytes
        .iter()
        .take(17)
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect();
    // One of each class, whatever the draw: most BMCs insist.
    text.insert(9, '-');
    text.replace_range(0..1, "K");
    text.replace_range(1..2, "m");
    text.replace_range(2..3, "7");
    text
}

/// SHA-256, hex.
pub fn sha256_hex(data: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "my-server", "rack1.node-2", "9"] {
            assert!(ResourceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", "a_b", "a/b", &"x".repeat(254)] {
            assert!(ResourceName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn free_text_becomes_a_label() {
        assert_eq!(dns_label("System.Embedded.1"), "system-embedded-1");
        assert_eq!(dns_label("__DGX__"), "dgx");
    }
}
