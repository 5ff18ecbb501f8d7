//! Whether what an agent reports is the machine that its run is about.

use ironyard_types::{MachineIdentity, hardware::Hardware};

/// Nothing may speak against it; and where the record knows a system UUID, something must speak for it: the same UUID, or from a machine
/// that shows none inside, the same serial number, a network interface or a drive that the record knows.
pub fn is_machine(known: &MachineIdentity, observed: &Hardware, shown: &Hardware) -> Result<(), String> {
    let identity = shown.identity();
    if let Some(why) = known.differs_inside(&identity) {
        return Err(why);
    }
    let Some(uuid) = known.uuid() else { return Ok(()) };
    let interface = |mac: &str| observed.network_interfaces.iter().any(|i| !mac.is_empty() && i.mac_address == mac);
    let drive = |serial: &str| observed.drives.iter().any(|d| !serial.is_empty() && d.serial_number == serial);
    let confirmed = identity.uuid().is_some()
        || known.same_serial(&identity)
        || shown.network_interfaces.iter().any(|i| interface(&i.mac_address))
        || shown.drives.iter().any(|d| drive(&d.serial_number));
    if confirmed {
        return Ok(());
    }
    Err(format!(
        "it shows no system UUID, where {uuid} is expected, and neither a serial number, a network interface nor a drive that is known"
    ))
}

#[cfg(test)]
mod tests {
    use ironyard_types::hardware::{Drive, NetworkInterface};

    use super::*;

    const UUID: &str = "123e4567-e89b-12d3-a456-426614174000";

    #[test]
    fn a_report_must_show_the_machine() {
        let hardware = |uuid: &str, serial: &str, mac: &str, drive: &str| Hardware {
            system_uuid: uuid.into(),
            manufacturer: "Dell".into(),
            serial_number: serial.into(),
            network_interfaces: vec![NetworkInterface {
                mac_address: mac.into(),
                ..NetworkInterface::default()
            }],
            drives: vec![Drive {
                serial_number: drive.into(),
                ..Drive::default()
            }],
            ..Hardware::default()
        };
        let record = hardware(UUID, "A1", "02:00:00:00:00:01", "D1");
        for (shown, accepted) in [
            (hardware(UUID, "", "", ""), true),
            (
                hardware("223e4567-e89b-12d3-a456-426614174000", "A1", "02:00:00:00:00:01", "D1"),
                false,
            ),
            // Without a UUID something else must speak for it.
            (hardware("", "", "", ""), false),
            (hardware("", "", "02:00:00:00:00:99", "D9"), false),
            (hardware("", "A1", "", ""), true),
            (hardware("", "B1", "02:00:00:00:00:01", "D1"), false),
            (hardware("", "", "02:00:00:00:00:01", ""), true),
            (hardware("", "", "", "D1"), true),
        ] {
            assert_eq!(is_machine(&record.identity(), &record, &shown).is_ok(), accepted, "{shown:?}");
        }
        // Where the record knows nothing, nothing can be asked for.
        assert!(is_machine(&MachineIdentity::default(), &Hardware::default(), &hardware("", "", "", "")).is_ok());
    }
}
