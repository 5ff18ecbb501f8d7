use serde::{Deserialize, Serialize};

use crate::SystemUuid;

/// What makes a machine this one and no other: its system UUID; where one is missing or a placeholder, its serial number and maker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineIdentity {
    uuid: Option<SystemUuid>,
    maker: String,
    serial: Option<String>,
}

impl MachineIdentity {
    /// From what hardware, or a record of it, says.
    pub fn new(uuid: &str, maker: &str, serial: &str) -> Self {
        let serial = serial.trim();
        Self {
            uuid: SystemUuid::from_hardware(uuid),
            maker: maker.trim().to_ascii_lowercase(),
            serial: (!is_placeholder_serial(serial)).then(|| serial.to_ascii_lowercase()),
        }
    }

    /// Whether it says nothing: any machine is this one.
    pub fn is_unknown(&self) -> bool {
        self.uuid.is_none() && self.serial.is_none()
    }

    /// The system UUID, where there is one.
    pub fn uuid(&self) -> Option<&SystemUuid> {
        self.uuid.as_ref()
    }

    /// Whether both have the same serial number from the same maker.
    pub fn same_serial(&self, shown: &Self) -> bool {
        self.serial.is_some() && self.serial == shown.serial && self.maker == shown.maker
    }

    /// Why what is shown is another machine than this one, in a clause; `None` where it is the same, or where nothing tells.
    pub fn differs(&self, shown: &Self) -> Option<String> {
        if let (Some(known), Some(shown)) = (&self.uuid, &shown.uuid) {
            // Firmware and BMC may disagree about the byte order of the first groups.
            let same = known == shown || *known == shown.swapped();
            return (!same).then(|| format!("its system UUID is {shown}, not {known}"));
        }
        if let (Some(known), Some(serial)) = (&self.serial, &shown.serial)
            && known != serial
        {
            return Some(format!("its serial number is {serial}, not {known}"));
        }
        None
    }

    /// The same, for what the machine shows from inside: firmware and BMC mean the same by a serial number only where they name the same maker.
    pub fn differs_inside(&self, shown: &Self) -> Option<String> {
        let by_uuid = self.uuid.is_some() && shown.uuid.is_some();
        (by_uuid || self.maker == shown.maker).then(|| self.differs(shown)).flatten()
    }
}

/// Serial numbers that many machines share.
pub fn is_placeholder_serial(serial: &str) -> bool {
    let known = [
        "to be filled by o.e.m.",
        "default string",
        "none",
        "n/a",
        "not specified",
        "not available",
        "unknown",
        "system serial number",
        "01234567890123456789ab",
        "0123456789",
        "123456789",
        "1234567890",
    ];
    let serial = serial.trim();
    let first = serial.chars().next();
    known.contains(&serial.to_ascii_lowercase().as_str()) || first.is_none_or(|first| serial.chars().all(|c| c == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_from_another_by_what_both_say() {
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        let (swapped, none) = ("67453e12-9be8-d312-a456-426614174000", "00000000-0000-0000-0000-000000000000");
        let other = "223e4567-e89b-12d3-a456-426614174000";
        for (known, shown, differs) in [
            ((uuid, "Dell", "A1"), (uuid, "Dell", "A1"), false),
            // A new mainboard keeps the UUID's meaning: it decides where both have one.
            ((uuid, "Dell", "A1"), (swapped, "Dell", "B1"), false),
            ((uuid, "Dell", "A1"), (other, "Dell", "A1"), true),
            ((none, "Dell", "A1"), (none, "Dell", "B1"), true),
            ((uuid, "Dell", "A1"), (none, "Dell", "B1"), true),
            ((none, "Dell", "A1"), (uuid, "Dell", "A1"), false),
            ((none, "Dell", "abc "), ("", "DELL", "ABC"), false),
            // Nothing tells.
            ((none, "", "A1"), (none, "", ""), false),
            ((none, "", "0123456789"), (none, "", "Default string"), false),
        ] {
            let [known, shown] = [known, shown].map(|(u, m, s)| MachineIdentity::new(u, m, s));
            assert_eq!(known.differs(&shown).is_some(), differs, "{known:?} {shown:?}");
        }
    }
}
