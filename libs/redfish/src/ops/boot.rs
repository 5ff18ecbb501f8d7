//! Boot override and boot order.

use serde_json::{Value, json};

use crate::{Client, Doc, Error, Members, Result};

/// Target and mode of the override, as the BMC shows them.
pub fn override_of(system: &Doc) -> (String, String) {
    let boot = system.part("Boot");
    let target = boot.text("BootSourceOverrideTarget").unwrap_or_else(|| "None".to_owned());
    let enabled = boot.text("BootSourceOverrideEnabled").unwrap_or_else(|| "Disabled".to_owned());
    (target, enabled)
}

/// Sets the override unless it is as wanted; true when something was written. `None` disables it.
pub async fn set_override(client: &Client, system: &Doc, target: &str, continuous: bool, http_uri: &str) -> Result<bool> {
    let (now_target, now_enabled) = override_of(system);
    let boot = system.part("Boot");
    let wanted = if target == "None" {
        "Disabled"
    } else if continuous {
        "Continuous"
    } else {
        "Once"
    };
    let same_uri = http_uri.is_empty() || boot.text("HttpBootUri").as_deref() == Some(http_uri);
    // Some BMCs store Once as Continuous; the same target that is enabled at all is as wanted.
    let same = if wanted == "Disabled" {
        now_enabled == "Disabled" || now_target == "None"
    } else {
        now_target == target && now_enabled != "Disabled"
    };
    if same && same_uri {
        return Ok(false);
    }
    if !boot.value.is_object() {
        return Err(Error::Unsupported("a boot override".to_owned()));
    }
    let mut short = json!({"BootSourceOverrideEnabled": wanted, "BootSourceOverrideTarget": target});
    if !http_uri.is_empty() {
        short["HttpBootUri"] = json!(http_uri);
    }
    let mut full = short.clone();
    full["BootSourceOverrideMode"] = json!(boot.text("BootSourceOverrideMode").unwrap_or_else(|| "UEFI".to_owned()));
    let settings = system.part("@Redfish.Settings").link("SettingsObject");
    let mut last = Error::Unsupported("a boot override".to_owned());
    for (path, body) in [
        (Some(system.uri.clone()), &full),
        (Some(system.uri.clone()), &short),
        (settings, &short),
    ] {
        let Some(path) = path else { continue };
        match client.patch(&path, &json!({"Boot": body})).await {
            Ok(_) => return Ok(true),
            Err(error @ (Error::Refused { .. } | Error::Unsupported(_) | Error::NotFound(_))) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// One thing that a system can boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOption {
    /// Reference, as in BootOrder.
    pub reference: String,
    /// Name for people.
    pub display_name: String,
    /// Symbolic device, or empty.
    pub device: &'static str,
}

/// Options in boot order; those that the order does not name come last.
pub async fn options(client: &Client, system: &Doc) -> Vec<BootOption> {
    let boot = system.part("Boot");
    let order = boot.texts("BootOrder");
    let mut found: Vec<BootOption> = Vec::new();
    if let Some(link) = boot.link("BootOptions") {
        for doc in Members::new(client).of(&link).await {
            let reference = doc.text("BootOptionReference").unwrap_or_else(|| doc.id());
            let display_name = doc.text_or_empty("DisplayName");
            let device = device_of(&display_name, &doc.text_or_empty("UefiDevicePath"), &doc.text_or_empty("Alias"));
            found.push(BootOption {
                reference,
                display_name,
                device,
            });
        }
    }
    for reference in &order {
        if !found.iter().any(|o| o.reference == *reference) {
            // Some BMCs name the option in the order itself: `Boot0019: Ubuntu`, `Pxe`.
            found.push(BootOption {
                reference: reference.clone(),
                display_name: reference.clone(),
                device: device_of(reference, "", reference),
            });
        }
    }
    found.sort_by_key(|o| order.iter().position(|r| *r == o.reference).unwrap_or(usize::MAX));
    found
}

/// The symbolic device behind an option: from its alias, else its device path, else its name.
fn device_of(name: &str, path: &str, alias: &str) -> &'static str {
    match alias {
        "Pxe" => return "Network",
        "UefiHttp" => return "Http",
        "Hdd" => return "Disk",
        "Cd" => return "Cd",
        "Usb" => return "Usb",
        _ => {}
    }
    let (name, path) = (name.to_ascii_lowercase(), path.to_ascii_lowercase());
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if path.contains("uri(") || has(&["http"]) {
        "Http"
    } else if path.contains("mac(") || has(&["pxe", "network", "nic", "lan", "ipv4", "ipv6", "ethernet"]) {
        "Network"
    } else if path.contains("cdrom(") || has(&["cd-rom", "cdrom", "dvd", "optical", "virtual cd"]) {
        "Cd"
    } else if path.contains("usb(") || has(&["usb"]) {
        "Usb"
    } else if path.contains("nvme(")
        || path.contains("sata(")
        || path.contains("scsi(")
        || path.contains("hd(")
        || has(&["nvme", "sata", "disk", "hard", "ssd", "hdd", "raid", "ubuntu", "windows"])
    {
        "Disk"
    } else {
        ""
    }
}

/// The order that puts these devices first and keeps the rest as it is.
pub fn order_for(options: &[BootOption], devices: &[String]) -> Vec<String> {
    let rank = |o: &BootOption| devices.iter().position(|d| d == o.device).unwrap_or(usize::MAX);
    let mut sorted: Vec<&BootOption> = options.iter().collect();
    sorted.sort_by_key(|o| rank(o));
    sorted.into_iter().map(|o| o.reference.clone()).collect()
}

/// Sets the boot order by symbolic device unless it is as wanted; true when something was written.
pub async fn set_order(client: &Client, system: &Doc, devices: &[String]) -> Result<bool> {
    let options = options(client, system).await;
    if let Some(missing) = devices.iter().find(|d| !options.iter().any(|o| o.device == *d)) {
        return Err(Error::Unsupported(format!("to boot from {missing}: no boot option is one")));
    }
    let wanted = order_for(&options, devices);
    let settings = system.part("@Redfish.Settings").link("SettingsObject");
    let mut present = system.part("Boot").texts("BootOrder");
    if let Some(path) = &settings
        && let Ok(pending) = client.get(path).await
    {
        let order = pending.part("Boot").texts("BootOrder");
        if !order.is_empty() {
            present = order;
        }
    }
    if present == wanted {
        return Ok(false);
    }
    let body = json!({"Boot": {"BootOrder": wanted.into_iter().map(Value::String).collect::<Vec<_>>()}});
    match client.patch(&system.uri, &body).await {
        Ok(_) => Ok(true),
        Err(error @ (Error::Refused { .. } | Error::Unsupported(_))) => match settings {
            Some(path) => client.patch(&path, &body).await.map(|_| true),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_recognised() {
        for (name, path, alias, device) in [
            ("HTTP Device 1: NIC in Slot 5 Port 1", "VenHw(9)", "", "Http"),
            ("UEFI PXEv4", "PciRoot(0x0)/MAC(B83FD2D7F74A,0x1)/IPv4(0.0.0.0)", "", "Network"),
            ("x", "PciRoot(0x0)/NVMe(0x1,00)", "", "Disk"),
            ("Virtual CD", "", "", "Cd"),
            ("anything", "", "Usb", "Usb"),
            ("Embedded Shell", "Fv(1)", "", ""),
        ] {
            assert_eq!(device_of(name, path, alias), device, "{name}");
        }
    }

    #[test]
    fn wanted_devices_come_first_and_the_rest_stays() {
        let option = |reference: &str, device| BootOption {
            reference: reference.into(),
            display_name: String::new(),
            device,
        };
        let options = [option("1", "Disk"), option("2", ""), option("3", "Network"), option("4", "Network")];
        assert_eq!(order_for(&options, &["Network".into()]), ["3", "4", "1", "2"]);
    }
}
