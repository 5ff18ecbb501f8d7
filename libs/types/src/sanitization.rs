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

/// What lets a drive erase itself, or that the agent overwrites it. In the order of what is tried first where the category is the same: only a
/// blank drive can be seen to be blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EraseCommand {
    /// NVMe Sanitize, block erase.
    NvmeSanitizeBlock,
    /// NVMe Sanitize, cryptographic erase.
    NvmeSanitizeCrypto,
    /// NVMe Format NVM with Secure Erase Settings 2, cryptographic erase.
    NvmeFormatCrypto,
    /// NVMe Format NVM with Secure Erase Settings 1, user data erase.
    NvmeFormat,
    /// Every block that the host can address is written with zeros.
    Overwrite,
}

impl EraseCommand {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::NvmeSanitizeBlock,
        Self::NvmeSanitizeCrypto,
        Self::NvmeFormatCrypto,
        Self::NvmeFormat,
        Self::Overwrite,
    ];

    /// As on the wire and on a certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NvmeSanitizeBlock => "NvmeSanitizeBlock",
            Self::NvmeSanitizeCrypto => "NvmeSanitizeCrypto",
            Self::NvmeFormatCrypto => "NvmeFormatCrypto",
            Self::NvmeFormat => "NvmeFormat",
            Self::Overwrite => "Overwrite",
        }
    }

    /// The command of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str() == text)
    }

    /// What it does to the media, in Redfish's words: `BlockErase`, `CryptographicErase` or `Overwrite`.
    pub fn sanitization_type(self) -> &'static str {
        match self {
            Self::NvmeSanitizeBlock | Self::NvmeFormat => "BlockErase",
            Self::NvmeSanitizeCrypto | Self::NvmeFormatCrypto => "CryptographicErase",
            Self::Overwrite => "Overwrite",
        }
    }

    /// How strong it is. A format that erases user data reaches what namespaces hold; whether it reaches spare blocks is the vendor's choice.
    pub fn category(self) -> Category {
        match self {
            Self::NvmeFormat | Self::Overwrite => Category::Clear,
            _ => Category::Purge,
        }
    }

    /// These, and the overwrite that every drive can take, if they are strong enough: the strongest first.
    pub fn ranked(offered: &[Self], minimum: Category) -> Vec<Self> {
        let mut ranked: Vec<Self> = offered.iter().copied().chain([Self::Overwrite]).collect();
        ranked.retain(|command| command.category() >= minimum);
        ranked.sort_by_key(|command| (std::cmp::Reverse(command.category()), *command));
        ranked.dedup();
        ranked
    }
}
