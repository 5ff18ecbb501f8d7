//! How a drive is wiped, in the terms of NIST SP 800-88.

use ironyard_types::{Category, hardware::Drive};
use serde::{Deserialize, Serialize};

use super::evidence::Findings;

/// Who wipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// The BMC, by `Drive.SecureErase`.
    Bmc,
    /// The agent, from inside.
    Agent,
}

impl Tool {
    /// As on a certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bmc => "Redfish SecureErase",
            Self::Agent => "agent",
        }
    }
}

/// A way to wipe one drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Who.
    pub tool: Tool,
    /// `BlockErase`, `CryptographicErase` or `Overwrite`.
    pub kind: String,
    /// How strong.
    pub category: Category,
}

/// The best way to wipe a drive. Block erase comes before cryptographic erase: both purge, and only a blank drive can be seen to be
/// blank. A BMC that does not say how it erases is not trusted with more than the agent can verify: the agent overwrites instead.
pub fn best(drive: &Drive) -> Method {
    let offers = |kind: &str| drive.secure_erase && drive.sanitization_types.iter().any(|t| t == kind);
    let bmc = |kind: &str, category| Method {
        tool: Tool::Bmc,
        kind: kind.to_owned(),
        category,
    };
    if offers("BlockErase") {
        bmc("BlockErase", Category::Purge)
    } else if offers("CryptographicErase") {
        bmc("CryptographicErase", Category::Purge)
    } else if offers("Overwrite") {
        bmc("Overwrite", Category::Clear)
    } else {
        Method {
            tool: Tool::Agent,
            kind: "Overwrite".to_owned(),
            category: Category::Clear,
        }
    }
}

/// A drive on its way to the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Serial number.
    pub serial: String,
    /// Maker and model.
    pub model: String,
    /// Bytes.
    pub capacity: i64,
    /// How it is wiped.
    pub method: Method,
    /// Whether the erase has ended well.
    pub erased: bool,
    /// Whether what the agent read shows that it is clean.
    pub verified: bool,
    /// What that was.
    #[serde(default)]
    pub findings: Option<Findings>,
    /// How it was verified, or why it failed.
    pub note: String,
    /// The gateway's operation that erases it.
    #[serde(default)]
    pub operation: String,
}

impl Job {
    /// Whether it may be on a certificate that passes. The word of whoever erased it is never enough.
    pub fn passed(&self) -> bool {
        self.erased && self.verified
    }

    /// What its erase is known from, in words of a certificate.
    pub fn evidence(&self) -> Vec<&'static str> {
        let erased = match self.method.tool {
            Tool::Bmc => "ReportedByBMC",
            Tool::Agent => "OverwrittenByAgent",
        };
        let sampled = self.findings.as_ref().map(|_| "SampledByAgent");
        self.erased.then_some(erased).into_iter().chain(sampled).collect()
    }
}

/// The drives to wipe: all that the BMC shows and all that the agent sees. An error names a drive that is known and missing, that
/// cannot be told from others, that is reached in part only, or that cannot be wiped well enough.
pub fn jobs(known: &[Drive], bmc: &[Drive], agent: &[Drive], minimum: Category) -> Result<Vec<Job>, String> {
    if let Some(nameless) = known.iter().chain(bmc).chain(agent).find(|d| d.serial_number.is_empty()) {
        return Err(format!(
            "drive {} cannot be told from others, so its wipe cannot be proven",
            nameless.label()
        ));
    }
    let on_agent = |serial: &str| agent.iter().any(|d| d.serial_number == serial);
    if let Some(missing) = known.iter().chain(bmc).find(|d| !on_agent(&d.serial_number)) {
        return Err(format!("drive {} is known and missing: the agent does not see it", missing.label()));
    }
    if agent.is_empty() {
        return Err("no drive was found, neither by the BMC nor by the agent; a server that really has none needs a waiver".to_owned());
    }
    let mut jobs: Vec<Job> = Vec::new();
    for drive in agent {
        if jobs.iter().any(|j| j.serial == drive.serial_number) {
            return Err(format!("two drives have serial number {}", drive.serial_number));
        }
        let shown = bmc.iter().find(|d| d.serial_number == drive.serial_number).unwrap_or(drive);
        let method = best(shown);
        // What the agent cannot reach, it can neither overwrite nor read: sectors that are hidden from the host, space that belongs to no
        // namespace. A hundredth is left for the ways in which capacities are told.
        if drive.capacity_bytes < shown.capacity_bytes / 100 * 99 {
            return Err(format!(
                "drive {} has {} bytes, of which the agent reaches {}: the rest could not be verified",
                drive.label(),
                shown.capacity_bytes,
                drive.capacity_bytes
            ));
        }
        if method.category < minimum {
            let reach = method.category.as_str();
            return Err(format!(
                "drive {} can be wiped only to {reach}, and {} is asked for",
                drive.label(),
                minimum.as_str()
            ));
        }
        jobs.push(Job {
            serial: drive.serial_number.clone(),
            model: format!("{} {}", shown.manufacturer, shown.model).trim().to_owned(),
            capacity: drive.capacity_bytes,
            method,
            erased: false,
            verified: false,
            findings: None,
            note: String::new(),
            operation: String::new(),
        });
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(serial: &str, types: &[&str]) -> Drive {
        Drive {
            serial_number: serial.into(),
            secure_erase: !types.is_empty(),
            sanitization_types: types.iter().map(|t| (*t).to_owned()).collect(),
            ..Drive::default()
        }
    }

    #[test]
    fn the_best_method_is_chosen() {
        let method = |types: &[&str]| {
            let m = best(&drive("A", types));
            (m.tool, m.kind, m.category)
        };
        assert_eq!(
            method(&["CryptographicErase", "BlockErase"]),
            (Tool::Bmc, "BlockErase".into(), Category::Purge)
        );
        assert_eq!(
            method(&["Overwrite", "CryptographicErase"]),
            (Tool::Bmc, "CryptographicErase".into(), Category::Purge)
        );
        assert_eq!(method(&[]), (Tool::Agent, "Overwrite".into(), Category::Clear));
    }

    #[test]
    fn a_drive_that_is_missing_nameless_or_too_weak_stops_the_wipe() {
        let (a, b) = (drive("A", &["BlockErase"]), drive("B", &[]));
        let both = [a.clone(), b.clone()];
        assert_eq!(jobs(&both, &both, &both, Category::Clear).unwrap().len(), 2);
        for (name, known, bmc, agent, minimum) in [
            (
                "missing everywhere",
                vec![b.clone()],
                vec![a.clone()],
                vec![a.clone()],
                Category::Clear,
            ),
            ("missing inside", vec![], both.to_vec(), vec![a.clone()], Category::Clear),
            ("nameless", vec![], vec![drive("", &[])], vec![], Category::Clear),
            (
                "nameless before",
                vec![drive("", &[])],
                both.to_vec(),
                both.to_vec(),
                Category::Clear,
            ),
            ("none at all", vec![], vec![], vec![], Category::Clear),
            ("twice", vec![], vec![a.clone()], vec![a.clone(), a.clone()], Category::Clear),
            ("too weak", vec![], both.to_vec(), both.to_vec(), Category::Purge),
            (
                "reached in part",
                vec![],
                vec![Drive {
                    capacity_bytes: 1000,
                    ..b.clone()
                }],
                vec![Drive {
                    capacity_bytes: 900,
                    ..b.clone()
                }],
                Category::Clear,
            ),
        ] {
            assert!(jobs(&known, &bmc, &agent, minimum).is_err(), "{name}");
        }
    }
}
