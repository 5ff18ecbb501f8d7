use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// A MAC address; written lower case with colons, read in any usual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Its bytes, as on the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Reads `00:1a:2b:3c:4d:5e`, `00-1A-2B-3C-4D-5E` or `001a2b3c4d5e`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid(format!("{text:?} is not a MAC address: write six bytes as in `00:1a:2b:3c:4d:5e`"));
        let digits: String = text.chars().filter(|c| *c != ':' && *c != '-').collect();
        if digits.len() != 12 || !digits.is_ascii() || !matches!(text.len(), 12 | 17) {
            return Err(invalid());
        }
        let mut bytes = [0; 6];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }

    /// Whether it was given locally, and not by the maker of the interface.
    pub fn is_local(&self) -> bool {
        self.0[0] & 0b10 != 0
    }

    /// Whether the address begins with `prefix` (`00:1a:2b`, any usual form).
    pub fn has_prefix(&self, prefix: &str) -> bool {
        let digits: String = prefix.chars().filter(char::is_ascii_hexdigit).collect();
        !digits.is_empty() && hex::encode(self.0).starts_with(&digits.to_ascii_lowercase())
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let mac = MacAddress::parse("00-1A-2B-3C-4D-5E").unwrap();
        assert_eq!(mac.to_string(), "00:1a:2b:3c:4d:5e");
        assert!(mac.has_prefix("00:1A:2B") && !mac.has_prefix("00:1a:2c") && !mac.has_prefix(""));
        for bad in ["", "00:1a:2b:3c:4d", "00:1a:2b:3c:4d:5g", "00:1a:2b:3c:4d:5e:6f", "ééé"] {
            assert!(MacAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
