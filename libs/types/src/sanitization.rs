use serde::{Deserialize, Serialize};

/// How strong a wipe is, in the terms of NIST SP 800-88.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Category {
    /// Against simple recovery.
    #[default]
    Clear,
    /// Against a laboratory.
    Purge,
}

impl Category {
    /// What is not known to purge clears.
    pub fn parse(text: &str) -> Self {
        if text == "Purge" { Self::Purge } else { Self::Clear }
    }

    /// In the standard's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "Clear",
            Self::Purge => "Purge",
        }
    }
}
