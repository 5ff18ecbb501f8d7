//! How a drive is wiped, in the terms of NIST SP 800-88.

use ironyard_types::{Category, EraseCommand, hardware::Drive};
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

impl Method {
    /// By the agent, with this.
    pub fn agent(command: EraseCommand) -> Self {
        Self {
            tool: Tool::Agent,
            kind: command.sanitization_type().to_owned(),
            category: command.category(),
        }
    }
}

/// The best way to wipe a drive, from what the BMC offers for it and from what it offers inside. Block erase comes before cryptographic erase: both
/// purge, and only a blank drive can be seen to be blank. A BMC that does not say how it erases is not trusted with more than the agent can verify.
pub fn best(shown: &Drive, inside: &Drive) -> Method {
    let offers = |kind: &str| shown.secure_erase && shown.sanitization_types.iter().any(|t| t == kind);
    let bmc = |kind: &str, category| Method {
        tool: Tool::Bmc,
        kind: kind.to_owned(),
        category,
    };
    let own = EraseCommand::ranked(&inside.erase_commands, Category::Clear);
    let own = own.first().copied().unwrap_or(EraseCommand::Overwrite);
    if offers("BlockErase") {
        bmc("BlockErase", Category::Purge)
    } else if own.category() == Category::Purge {
        Method::agent(own)
    } else if offers("CryptographicErase") {
        bmc("CryptographicErase", Category::Purge)
    } else if offers("Overwrite") && own == EraseCommand::Overwrite {
        bmc("Overwrite", Category::Clear)
    } else {
        Method::agent(own)
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
    /// Whether the BMC's answer was lost, so that only what is read of the drive tells whether it was erased.
    #[serde(default)]
    pub answer_lost: bool,
    /// What the agent may erase it with, best first.
    #[serde(default)]
    pub erase_commands: Vec<EraseCommand>,
    /// What the agent has erased it with.
    #[serde(default)]
    pub erased_with: Option<EraseCommand>,
    /// What was tried before and failed, each with its reason.
    #[serde(default)]
    pub tried: Vec<String>,
}

impl Job {
    /// Whether it may be on a certificate that passes. The word of whoever erased it is never enough.
    pub fn passed(&self) -> bool {
        self.erased && self.verified
    }

    /// Takes what the agent has erased it with. What it was not told to use, or what is weaker than this wipe must be, does not count.
    pub fn erased_by_agent(&mut self, command: &str, minimum: Category) -> Result<(), String> {
        // An agent that knows no commands overwrites.
        let name = if command.is_empty() { "Overwrite" } else { command };
        let told = EraseCommand::parse(name).filter(|command| self.erase_commands.contains(command) || *command == EraseCommand::Overwrite);
        let command = told.ok_or_else(|| format!("drive {}: the agent used {name:?}, which it was not told to", self.serial))?;
        if command.category() < minimum {
            let (reach, minimum) = (command.category().as_str(), minimum.as_str());
            return Err(format!("drive {}: {name} reaches {reach}, and {minimum} is asked for", self.serial));
        }
        self.method = Method::agent(command);
        (self.erased, self.erased_with) = (true, Some(command));
        Ok(())
    }

    /// What its erase is known from, in words of a certificate.
    pub fn evidence(&self) -> Vec<&'static str> {
        let erased = match self.method.tool {
            Tool::Bmc => (!self.answer_lost).then_some("ReportedByBMC"),
            Tool::Agent if self.erased_with.is_some_and(|command| command != EraseCommand::Overwrite) => Some("ReportedByDrive"),
            Tool::Agent => Some("OverwrittenByAgent"),
        };
        let sampled = self.findings.as_ref().map(|_| "SampledByAgent");
        erased.filter(|_| self.erased).into_iter().chain(sampled).collect()
    }
}

/// The drives to wipe: all that the BMC shows and all that the agent sees. An error names a drive that is known and missing, that
/// cannot be told from others, that is reached in part only, or that cannot be wiped well enough.
///
/// `known` are earlier sightings, each of all drives at once. A drive that the BMC shows without a serial number is one of those that the agent
/// sees, if one of its size and model is there that the BMC does not show otherwise, and no controller hides drives from the agent.
pub fn jobs(known: &[Vec<Drive>], bmc: &[Drive], agent: &[Drive], hidden: Option<&str>, minimum: Category) -> Result<Vec<Job>, String> {
    let unexplained = known
        .iter()
        .map(Vec::as_slice)
        .chain([bmc])
        .find_map(|seen| unexplained(seen, agent, hidden));
    if let Some(nameless) = unexplained.or_else(|| agent.iter().find(|d| d.serial_number.is_empty())) {
        return Err(format!(
            "drive {} cannot be told from others, so its wipe cannot be proven{}",
            nameless.label(),
            hidden.map(|why| format!(" ({why})")).unwrap_or_default()
        ));
    }
    let on_agent = |serial: &str| serial.is_empty() || agent.iter().any(|d| d.serial_number == serial);
    if let Some(missing) = known.iter().flatten().chain(bmc).find(|d| !on_agent(&d.serial_number)) {
        return Err(format!("drive {} is known and missing: the agent does not see it", missing.label()));
    }
    if agent.is_empty() {
        return Err("no drive was found, neither by the BMC nor by the agent; a server that really has none needs a waiver".to_owned());
    }
    // A volume of a RAID controller looks like a drive. Where there is one, the BMC must show each as a drive of its own.
    let in_bmc = |drive: &&Drive| bmc.iter().any(|d| d.serial_number == drive.serial_number);
    if let (Some(why), Some(volume)) = (hidden, agent.iter().find(|drive| !in_bmc(drive))) {
        return Err(format!(
            "drive {} is not among those that the BMC shows, and may be a volume: {why}",
            volume.label()
        ));
    }
    let mut jobs: Vec<Job> = Vec::new();
    for drive in agent {
        if jobs.iter().any(|j| j.serial == drive.serial_number) {
            return Err(format!("two drives have serial number {}", drive.serial_number));
        }
        let shown = bmc.iter().find(|d| d.serial_number == drive.serial_number).unwrap_or(drive);
        let method = best(shown, drive);
        // What the agent cannot reach, it can neither overwrite nor read: sectors that are hidden from the host, space that belongs to no
        // namespace. A hundredth is left for the ways in which capacities are told.
        let same = known.iter().flatten().filter(|d| d.serial_number == drive.serial_number);
        let whole = same.map(|d| d.capacity_bytes).fold(shown.capacity_bytes, i64::max);
        if drive.capacity_bytes < whole / 100 * 99 {
            return Err(format!(
                "drive {} has {} bytes, of which the agent reaches {}: the rest could not be verified",
                drive.label(),
                whole,
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
            erase_commands: match method.tool {
                Tool::Agent => EraseCommand::ranked(&drive.erase_commands, minimum),
                Tool::Bmc => vec![],
            },
            erased_with: None,
            tried: vec![],
            method,
            erased: false,
            verified: false,
            findings: None,
            note: String::new(),
            operation: String::new(),
            answer_lost: false,
        });
    }
    Ok(jobs)
}

/// A drive of this sighting without a serial number that is none of those that the agent sees.
fn unexplained<'a>(seen: &'a [Drive], agent: &[Drive], hidden: Option<&str>) -> Option<&'a Drive> {
    // What was seen from inside alone explains what the BMC shows; what the BMC shows with its serial number is another drive.
    let by_name: Vec<&str> = seen
        .iter()
        .filter(|d| !d.uri.is_empty() || d.device.is_empty())
        .map(|d| d.serial_number.as_str())
        .collect();
    let mut free: Vec<&Drive> = agent.iter().filter(|d| !by_name.contains(&d.serial_number.as_str())).collect();
    seen.iter().filter(|d| d.serial_number.is_empty()).find(|nameless| {
        let one = free.iter().position(|drive| nameless.device.is_empty() && alike(nameless, drive));
        match one.filter(|_| hidden.is_none()) {
            Some(at) => {
                free.remove(at);
                false
            }
            None => true,
        }
    })
}

/// Whether a drive of the BMC without a serial number may be this one: of the same size, or where the BMC tells none of the same model.
fn alike(nameless: &Drive, drive: &Drive) -> bool {
    let models = (nameless.model.trim().to_lowercase(), drive.model.trim().to_lowercase());
    let other_model = !models.0.is_empty() && !models.1.is_empty() && !models.0.contains(&models.1) && !models.1.contains(&models.0);
    if nameless.capacity_bytes <= 0 {
        return models.0.len() >= 6 && models.0 == models.1;
    }
    !other_model && nameless.capacity_bytes.abs_diff(drive.capacity_bytes) <= nameless.capacity_bytes.unsigned_abs() / 100
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
            let m = best(&drive("A", types), &Drive::default());
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
        let inside = |types: &[&str], commands: &[EraseCommand]| {
            let inside = Drive {
                erase_commands: commands.to_vec(),
                ..Drive::default()
            };
            let m = best(&drive("A", types), &inside);
            (m.tool, m.kind, m.category)
        };
        use EraseCommand::{NvmeFormat, NvmeSanitizeBlock, NvmeSanitizeCrypto};
        let purge = |tool, kind: &str| (tool, kind.to_owned(), Category::Purge);
        assert_eq!(inside(&["BlockErase"], &[NvmeSanitizeBlock]), purge(Tool::Bmc, "BlockErase"));
        assert_eq!(
            inside(&["CryptographicErase"], &[NvmeSanitizeCrypto, NvmeSanitizeBlock]),
            purge(Tool::Agent, "BlockErase")
        );
        assert_eq!(
            inside(&["CryptographicErase"], &[NvmeFormat]),
            purge(Tool::Bmc, "CryptographicErase")
        );
        assert_eq!(
            inside(&["Overwrite"], &[NvmeFormat]),
            (Tool::Agent, "BlockErase".into(), Category::Clear)
        );
        assert_eq!(inside(&["Overwrite"], &[]), (Tool::Bmc, "Overwrite".into(), Category::Clear));
    }

    #[test]
    fn an_agent_is_believed_to_have_used_what_it_was_told_to_and_no_less_than_is_asked_for() {
        let inside = Drive {
            erase_commands: vec![EraseCommand::NvmeFormat, EraseCommand::NvmeSanitizeCrypto],
            ..drive("A", &[])
        };
        let job = |minimum| jobs(&[], &[], std::slice::from_ref(&inside), None, minimum).unwrap().remove(0);
        let names = |job: &Job| job.erase_commands.iter().map(|c| c.as_str()).collect::<Vec<_>>();
        assert_eq!(names(&job(Category::Clear)), ["NvmeSanitizeCrypto", "NvmeFormat", "Overwrite"]);
        assert_eq!(names(&job(Category::Purge)), ["NvmeSanitizeCrypto"]);
        for (command, minimum, category) in [
            ("NvmeSanitizeCrypto", Category::Purge, Some(Category::Purge)),
            ("NvmeFormat", Category::Clear, Some(Category::Clear)),
            ("", Category::Clear, Some(Category::Clear)),
            ("Overwrite", Category::Purge, None),
            ("", Category::Purge, None),
            ("NvmeSanitizeBlock", Category::Clear, None),
            ("Magic", Category::Clear, None),
        ] {
            let mut job = job(minimum);
            let outcome = job.erased_by_agent(command, minimum);
            assert_eq!(outcome.is_ok(), category.is_some(), "{command}: {outcome:?}");
            assert_eq!(job.erased, category.is_some(), "{command}");
            if let Some(category) = category {
                assert_eq!(job.method.category, category, "{command}");
            }
        }
    }

    #[test]
    fn a_drive_that_is_missing_nameless_or_too_weak_stops_the_wipe() {
        let (a, b) = (drive("A", &["BlockErase"]), drive("B", &[]));
        let both = [a.clone(), b.clone()];
        assert_eq!(jobs(&[both.to_vec()], &both, &both, None, Category::Clear).unwrap().len(), 2);
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
            assert!(jobs(&[known], &bmc, &agent, None, minimum).is_err(), "{name}");
        }
    }

    #[test]
    fn a_drive_without_a_serial_number_is_one_of_those_inside_or_stops_the_wipe() {
        let sized = |serial: &str, uri: &str, device: &str, bytes: i64, model: &str| Drive {
            serial_number: serial.into(),
            uri: uri.into(),
            device: device.into(),
            capacity_bytes: bytes,
            model: model.into(),
            ..Drive::default()
        };
        let (a, b) = (
            sized("A", "", "/dev/sda", 1_000_000, "X 1"),
            sized("B", "", "/dev/sdb", 2_000_000, "Yankee"),
        );
        let inside = [a.clone(), b.clone()];
        let nameless = |bytes, model| sized("", "/1", "", bytes, model);
        let ok = |known: &[Vec<Drive>], bmc: &[Drive], hidden| jobs(known, bmc, &inside, hidden, Category::Clear).is_ok();
        assert!(ok(&[], &[nameless(1_000_000, "")], None));
        assert!(ok(&[], &[nameless(999_000, "Acme X 1"), nameless(2_010_000, "")], None));
        assert!(ok(&[], &[nameless(0, "yankee")], None));
        // What both have seen, as it is known since an earlier look.
        assert!(ok(
            &[vec![nameless(1_000_000, ""), a.clone(), b.clone()], vec![nameless(1_000_000, "")]],
            &[],
            None
        ));
        for (bmc, why) in [
            (vec![nameless(1_500_000, "")], "of no size that is there"),
            (vec![nameless(1_000_000, "Z")], "of another model"),
            (vec![nameless(0, "")], "of nothing"),
            (vec![nameless(0, "Yank")], "of a part of its model's name"),
            (vec![nameless(1_000_000, ""), nameless(1_000_000, "")], "one more than there are"),
            (
                vec![nameless(1_000_000, ""), sized("A", "/2", "", 1_000_000, "X 1")],
                "beside the only one of its size, which is shown too",
            ),
            (vec![sized("", "", "/dev/sdc", 1_000_000, "")], "seen from inside"),
        ] {
            assert!(!ok(&[], &bmc, None), "{why}");
            assert!(!ok(&[bmc], &[], None), "{why}, earlier");
        }
        assert!(!ok(&[], &[nameless(1_000_000, "")], Some("a controller hides drives")));
        // A volume is no drive of the BMC's.
        assert!(!ok(&[], &[], Some("a controller hides drives")));
        let shown = [("A", 1_000_000), ("B", 2_000_000)].map(|(serial, bytes)| sized(serial, "/1", "", bytes, ""));
        assert!(ok(&[], &shown, Some("a controller hides drives")));
        // Smaller than it was.
        assert!(!ok(&[vec![sized("A", "/1", "", 1_100_000, "")]], &[], None));
    }
}
