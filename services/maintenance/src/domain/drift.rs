use std::collections::BTreeMap;

use ironyard_types::hardware::PowerState;

/// What the owner of a server wants, and what is seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Wanted power.
    pub power_wanted: Option<PowerState>,
    /// Seen power.
    pub power: Option<PowerState>,
    /// Wanted LED.
    pub led_wanted: bool,
    /// Seen LED; absent: none.
    pub led: Option<bool>,
    /// Wanted first devices.
    pub devices_wanted: Vec<String>,
    /// Devices in boot order.
    pub devices: Vec<String>,
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// Boot order.
    BootOrder(Vec<String>),
    /// LED.
    Led(bool),
    /// Power.
    Power(PowerState),
}

/// What to mend first, of what can be mended while a server is Available. Power comes last, so that a machine that is switched on boots
/// in the wanted order.
pub fn mend(seen: &Seen) -> Option<Mend> {
    if !seen.devices_wanted.is_empty() && !ordered(&seen.devices, &seen.devices_wanted) {
        return Some(Mend::BootOrder(seen.devices_wanted.clone()));
    }
    if seen.led.is_some_and(|led| led != seen.led_wanted) {
        return Some(Mend::Led(seen.led_wanted));
    }
    match (seen.power_wanted, seen.power) {
        (Some(wanted), Some(now)) if wanted != now => Some(Mend::Power(wanted)),
        (Some(_) | None, Some(_) | None) => None,
    }
}

/// Whether the wanted devices come first, in their order.
fn ordered(devices: &[String], wanted: &[String]) -> bool {
    let rank = |d: &String| wanted.iter().position(|w| w == d).unwrap_or(usize::MAX);
    devices.iter().map(rank).is_sorted()
}

/// The settings for this BIOS version: those for exactly this version, laid over those for any. `None` when entries exist and none fits.
pub fn wanted_settings(entries: &[(String, BTreeMap<String, String>)], version: &str) -> Option<BTreeMap<String, String>> {
    let mut wanted = BTreeMap::new();
    let mut fits = entries.is_empty();
    for (entry_version, settings) in entries
        .iter()
        .filter(|(v, _)| v.is_empty())
        .chain(entries.iter().filter(|(v, _)| v == version && !v.is_empty()))
    {
        let _ = entry_version;
        fits = true;
        wanted.extend(settings.clone());
    }
    fits.then_some(wanted)
}

/// A mark of these settings, by which a failure to apply them is told from a failure to apply others.
pub fn mark(wanted: &BTreeMap<String, String>) -> String {
    let digest = ironyard_types::sha256_hex(format!("{wanted:?}").as_bytes());
    format!("settings {}", digest.get(..8).unwrap_or_default())
}

/// Settings that differ from what the BMC shows; attributes that it does not have differ.
pub fn differing(wanted: &BTreeMap<String, String>, present: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    wanted
        .iter()
        .filter(|(k, v)| present.get(*k) != Some(*v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_order_is_mended_before_power() {
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut seen = Seen {
            power_wanted: Some(PowerState::On),
            power: Some(PowerState::Off),
            devices_wanted: text(&["Network"]),
            devices: text(&["Disk", "Network"]),
            ..Seen::default()
        };
        assert!(matches!(mend(&seen), Some(Mend::BootOrder(_))));
        seen.devices = text(&["Network", "Disk"]);
        assert_eq!(mend(&seen), Some(Mend::Power(PowerState::On)));
        seen.power = Some(PowerState::On);
        assert_eq!(mend(&seen), None);
        seen.led = Some(true);
        assert_eq!(mend(&seen), Some(Mend::Led(false)));
    }

    #[test]
    fn settings_are_for_a_version() {
        let one = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        let entries = [("1.0".to_owned(), one("A", "x")), (String::new(), one("A", "y"))];
        assert_eq!(wanted_settings(&entries, "1.0"), Some(one("A", "x")));
        assert_eq!(wanted_settings(&entries[..1], "2.0"), None);
        assert_eq!(wanted_settings(&[], "2.0"), Some(BTreeMap::new()));
        assert_eq!(differing(&one("A", "x"), &one("A", "z")), one("A", "x"));
    }
}
