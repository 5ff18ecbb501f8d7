//! Boot override and boot order.

use ironyard_types::MacAddress;
use serde_json::{Value, json};

use crate::{Client, Doc, Error, Members, Result};

/// Target and mode of the override, as the BMC shows them.
pub fn override_of(system: &Doc) -> (String, String) {
    let boot = system.part("Boot");
    let target = boot.text("BootSourceOverrideTarget").unwrap_or_else(|| "None".to_owned());
    let enabled = boot.text("BootSourceOverrideEnabled").unwrap_or_else(|| "Disabled".to_owned());
    (target, enabled)
}

/// An override that is wanted.
#[derive(Debug, Clone, Default)]
pub struct Override {
    /// `None` (which disables it), `Pxe`, `Cd`, `Hdd`, `Usb`, `UefiHttp`, `BiosSetup`, `UefiBootNext`.
    pub target: String,
    /// Every boot rather than the next one only.
    pub continuous: bool,
    /// URI for `UefiHttp`.
    pub http_uri: String,
    /// `UEFI`, `Legacy` or empty for what it is.
    pub mode: String,
    /// Boot option, by reference or by the MAC address of its interface, for the next boot only.
    pub option: String,
}

/// Sets the override unless it is as wanted; true when something was written. What the BMC stored is read back.
pub async fn set_override(client: &Client, system: &Doc, wanted: &Override) -> Result<bool> {
    let boot = system.part("Boot");
    if !boot.value.is_object() {
        return Err(Error::Unsupported("a boot override".to_owned()));
    }
    let body = match wanted.option.as_str() {
        "" => wanted_body(&boot, wanted),
        name => {
            let options = options(client, system).await;
            let option = find_option(&options, name).ok_or_else(|| Error::NotFound(format!("a boot option {name}")))?;
            json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "UefiBootNext", "BootNext": option.reference})
        }
    };
    if holds(&boot, &body) {
        return Ok(false);
    }
    if wanted.option.is_empty() && wanted.target == "None" {
        return clear(client, system, &boot).await;
    }
    let mode = match wanted.mode.as_str() {
        "" => boot.text("BootSourceOverrideMode").unwrap_or_else(|| "UEFI".to_owned()),
        mode => mode.to_owned(),
    };
    let mut full = body.clone();
    full["BootSourceOverrideMode"] = json!(mode);
    // Supermicro's virtual CD is a CD at the USB.
    let usb_cd = (wanted.target == "Cd"
        && boot
            .texts("BootSourceOverrideTarget@Redfish.AllowableValues")
            .iter()
            .any(|v| v == "UsbCd"))
    .then(|| {
        let mut usb = full.clone();
        usb["BootSourceOverrideTarget"] = json!("UsbCd");
        usb
    });
    let settings = system.part("@Redfish.Settings").link("SettingsObject");
    let own = Some(system.uri.clone());
    // Without the mode where it is not writable; but a mode that was asked for is not dropped in silence.
    let short = wanted.mode.is_empty().then_some(body.clone());
    let ladder = [
        (own.clone(), usb_cd),
        (own.clone(), Some(full.clone())),
        (own, short.clone()),
        (settings, short.or(Some(full))),
    ];
    let mut last = Error::Unsupported("a boot override".to_owned());
    for (path, body) in ladder {
        let (Some(path), Some(body)) = (path, body) else { continue };
        match super::change(client, &path, &json!({"Boot": body})).await {
            Ok(_) => {
                let differs = || async {
                    // Where it was written: what waits for the next boot may show there only, or nowhere at all.
                    let shown = match client.get(&path).await {
                        Ok(doc) => doc.part("Boot"),
                        Err(error) if path != system.uri && error.is_refusal() => Doc::default(),
                        Err(error) => return Err(error),
                    };
                    let (target, enabled) = (
                        shown.text_or_empty("BootSourceOverrideTarget"),
                        shown.text_or_empty("BootSourceOverrideEnabled"),
                    );
                    let silent = path != system.uri && target.is_empty() && enabled.is_empty();
                    let taken = async || Ok::<_, Error>(holds(&client.get(&system.uri).await?.part("Boot"), &body));
                    let as_wanted = silent || holds(&shown, &body) || (path != system.uri && taken().await?);
                    Ok((!as_wanted).then(|| format!("{target}, {enabled}")))
                };
                return super::shows(super::SHOWS, differs).await.map(|()| true);
            }
            Err(error) if error.is_refusal() => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Clears the override. Some BMCs know no target `None`, and fail when they are told it: there, a boot from the disk is what was before.
async fn clear(client: &Client, system: &Doc, boot: &Doc) -> Result<bool> {
    let allowed = boot.texts("BootSourceOverrideTarget@Redfish.AllowableValues");
    let offers = |target: &str| allowed.iter().any(|t| t == target);
    let disk = !offers("None") && offers("Hdd");
    let mode = boot.text("BootSourceOverrideMode").unwrap_or_else(|| "UEFI".to_owned());
    let none = json!({"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"});
    let mut with_mode = none.clone();
    with_mode["BootSourceOverrideMode"] = json!(mode);
    let to_disk = json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Hdd"});
    let bodies = [
        (!disk).then_some(with_mode),
        (!disk).then_some(none),
        Some(json!({"BootSourceOverrideEnabled": "Disabled"})),
        disk.then_some(to_disk),
    ];
    let settings = system.part("@Redfish.Settings").link("SettingsObject");
    let mut last = Error::Unsupported("a boot override".to_owned());
    for path in [Some(system.uri.clone()), settings].into_iter().flatten() {
        for body in bodies.iter().flatten() {
            match super::change(client, &path, &json!({"Boot": body})).await {
                Ok(_) if path != system.uri => return Ok(true),
                Ok(_) => {
                    let differs = || async {
                        let shown = client.get(&system.uri).await?.part("Boot");
                        let cleared = json!({"BootSourceOverrideEnabled": "Disabled"});
                        let (target, enabled) = (
                            shown.text_or_empty("BootSourceOverrideTarget"),
                            shown.text_or_empty("BootSourceOverrideEnabled"),
                        );
                        let as_wanted = holds(&shown, &cleared) || (disk && target == "Hdd");
                        Ok((!as_wanted).then(|| format!("{target}, {enabled}")))
                    };
                    match super::shows(super::SHOWS, differs).await {
                        Ok(()) => return Ok(true),
                        Err(error @ Error::NotApplied(_)) => last = error,
                        Err(error) => return Err(error),
                    }
                }
                // It says what it is to be, so asking in another form repeats nothing.
                Err(error) if error.is_refusal() || matches!(error, Error::Failed { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
    }
    Err(last)
}

fn wanted_body(boot: &Doc, wanted: &Override) -> Value {
    if wanted.target == "None" {
        return json!({"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"});
    }
    let enabled = if wanted.continuous { "Continuous" } else { "Once" };
    let mut body = json!({"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": wanted.target});
    if !wanted.http_uri.is_empty() && boot.text("HttpBootUri").as_deref() != Some(&wanted.http_uri) {
        body["HttpBootUri"] = json!(wanted.http_uri);
    }
    body
}

/// Whether a system shows an override. Some store Once as Continuous: a target that is enabled at all is as wanted.
fn holds(shown: &Doc, body: &Value) -> bool {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let target = shown.text("BootSourceOverrideTarget").unwrap_or_else(|| "None".to_owned());
    let disabled = target == "None" || shown.text("BootSourceOverrideEnabled").is_none_or(|e| e == "Disabled");
    if text("BootSourceOverrideEnabled") == Some("Disabled") {
        return disabled;
    }
    let same = |key: &str| text(key).is_none_or(|wanted| shown.text(key).as_deref() == Some(wanted));
    let target = text("BootSourceOverrideTarget") == Some(target.as_str());
    let continuous = text("BootSourceOverrideEnabled") != Some("Continuous") || same("BootSourceOverrideEnabled");
    // A mode that the BMC does not show cannot be compared.
    let mode = shown.text("BootSourceOverrideMode").is_none() || same("BootSourceOverrideMode");
    target && !disabled && continuous && mode && same("HttpBootUri") && same("BootNext")
}

/// The option of that reference, or the first one of the interface with that MAC address.
fn find_option<'a>(options: &'a [BootOption], name: &str) -> Option<&'a BootOption> {
    options.iter().find(|o| o.reference == name).or_else(|| {
        let mac = MacAddress::parse(name).ok()?.to_string();
        options.iter().find(|o| o.mac == mac)
    })
}

/// The MAC address in a device path `…/MAC(B83FD2D7F74A,0x1)/…`, or in a name.
fn mac_of(path: &str, name: &str) -> String {
    let in_path = path.split("MAC(").nth(1).and_then(|rest| rest.get(..12));
    let with_colons = in_path.map(|hex| {
        let pairs: Vec<&str> = (0..6).filter_map(|n| hex.get(2 * n..2 * n + 2)).collect();
        pairs.join(":")
    });
    let in_name = || {
        name.split(|c: char| c.is_whitespace() || c == '(' || c == ')')
            .find(|word| word.len() == 17)
            .map(str::to_owned)
    };
    let found = with_colons.or_else(in_name).and_then(|text| MacAddress::parse(&text).ok());
    found.map(|mac| mac.to_string()).unwrap_or_default()
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
    /// MAC address of its interface, or empty.
    pub mac: String,
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
            let path = doc.text_or_empty("UefiDevicePath");
            let device = device_of(&display_name, &path, &doc.text_or_empty("Alias"));
            found.push(BootOption {
                reference,
                mac: mac_of(&path, &display_name),
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
                mac: mac_of("", reference),
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

/// Whether a name means an option: its symbolic device, its reference or the MAC address of its interface.
fn means(name: &str, option: &BootOption) -> bool {
    let mac = || MacAddress::parse(name).is_ok_and(|mac| mac.to_string() == option.mac);
    !name.is_empty() && (name == option.device || name == option.reference || mac())
}

/// The order that puts these first and keeps the rest as it is.
pub fn order_for(options: &[BootOption], devices: &[String]) -> Vec<String> {
    let rank = |o: &BootOption| devices.iter().position(|d| means(d, o)).unwrap_or(usize::MAX);
    let mut sorted: Vec<&BootOption> = options.iter().collect();
    sorted.sort_by_key(|o| rank(o));
    sorted.into_iter().map(|o| o.reference.clone()).collect()
}

/// Sets the boot order by symbolic device unless it is as wanted; true when something was written.
pub async fn set_order(client: &Client, system: &Doc, devices: &[String]) -> Result<bool> {
    let options = options(client, system).await;
    if let Some(missing) = devices.iter().find(|d| !options.iter().any(|o| means(d, o))) {
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
    match super::change(client, &system.uri, &body).await {
        Ok(_) => {}
        Err(error) if error.is_refusal() => match &settings {
            Some(path) => super::change(client, path, &body).await.map(|_| ())?,
            None => return Err(error),
        },
        Err(error) => return Err(error),
    }
    let order = |doc: Doc| doc.part("Boot").texts("BootOrder");
    let wanted = body["Boot"]["BootOrder"].clone();
    let differs = || async {
        let shown = order(client.get(&system.uri).await?);
        let pending = match &settings {
            Some(path) => client.get(path).await.map(order).unwrap_or_default(),
            None => vec![],
        };
        let as_wanted = json!(shown) == wanted || json!(pending) == wanted || settings.is_some() && pending.is_empty();
        Ok((!as_wanted).then(|| format!("the boot order {}", shown.join(", "))))
    };
    super::shows(super::SHOWS, differs).await.map(|()| true)
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
    fn interfaces_are_found_by_their_address() {
        assert_eq!(mac_of("PciRoot(0x0)/MAC(B83FD2D7F74A,0x1)/IPv4(0.0.0.0)", ""), "b8:3f:d2:d7:f7:4a");
        assert_eq!(mac_of("", "Slot 5 : NIC - B8:3F:D2:D7:F7:4A (PXE)"), "b8:3f:d2:d7:f7:4a");
        assert_eq!(mac_of("MAC(ä", "x"), "");
        assert_eq!(mac_of("MAC(", ""), "");
    }

    #[test]
    fn wanted_devices_come_first_and_the_rest_stays() {
        let option = |reference: &str, device| BootOption {
            reference: reference.into(),
            display_name: String::new(),
            device,
            mac: String::new(),
        };
        let options = [option("1", "Disk"), option("2", ""), option("3", "Network"), option("4", "Network")];
        assert_eq!(order_for(&options, &["Network".into()]), ["3", "4", "1", "2"]);
    }
}
