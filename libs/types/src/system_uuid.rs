use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// A system UUID (SMBIOS), compared without regard to case. Placeholders are not system UUIDs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemUuid(String);

impl SystemUuid {
    /// Checks a UUID that a user wrote.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let parsed = uuid::Uuid::parse_str(text.trim()).map_err(|_| {
            Invalid(format!(
                "{text:?} is not a UUID: write it as in `123e4567-e89b-12d3-a456-426614174000`"
            ))
        })?;
        if is_placeholder(&parsed) {
            return Err(Invalid(format!(
                "{text:?} is a placeholder that many machines share, not a system UUID"
            )));
        }
        Ok(Self(parsed.hyphenated().to_string()))
    }

    /// Takes a UUID from hardware: `None` when it is none or a placeholder.
    pub fn from_hardware(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    /// Lower case, with hyphens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same UUID with the byte order of its first three groups reversed: SMBIOS and Redfish do not agree on it.
    pub fn swapped(&self) -> Self {
        match uuid::Uuid::parse_str(&self.0) {
            Ok(parsed) => Self(uuid::Uuid::from_bytes(parsed.to_bytes_le()).hyphenated().to_string()),
            Err(_) => self.clone(),
        }
    }
}

fn is_placeholder(uuid: &uuid::Uuid) -> bool {
    let bytes = uuid.as_bytes();
    bytes.iter().all(|b| *b == 0)
        || bytes.iter().all(|b| *b == 0xff)
        || uuid.hyphenated().to_string() == "03000200-0400-0500-0006-000700080009"
}

impl fmt::Display for SystemUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SystemUuid {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<SystemUuid> for String {
    fn from(uuid: SystemUuid) -> Self {
        uuid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_identity() {
        for bad in [
            "",
            "none",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
        ] {
            assert_eq!(SystemUuid::from_hardware(bad), None, "{bad}");
        }
        let upper = SystemUuid::parse("123E4567-E89B-12D3-A456-426614174000").unwrap();
        assert_eq!(upper.as_str(), "123e4567-e89b-12d3-a456-426614174000");
        assert_eq!(upper.swapped().as_str(), "67453e12-9be8-d312-a456-426614174000");
    }
}
