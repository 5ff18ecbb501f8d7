use ironyard_proto::common as pb;
use ironyard_types::EraseCommand;
use ironyard_types::hardware::{
    Drive, FirstWipe, Hardware, Health, MemoryModule, Neighbor, NetworkInterface, Part, PciDevice, PowerState, Processor, RunningMachines,
};

use super::{timestamp_from, timestamp_to};

/// To the wire.
pub fn power_to(power: Option<PowerState>) -> pb::PowerState {
    match power {
        None => pb::PowerState::Unspecified,
        Some(PowerState::On) => pb::PowerState::On,
        Some(PowerState::Off) => pb::PowerState::Off,
        Some(PowerState::PoweringOn) => pb::PowerState::PoweringOn,
        Some(PowerState::PoweringOff) => pb::PowerState::PoweringOff,
    }
}

/// From the wire.
pub fn power_from(power: pb::PowerState) -> Option<PowerState> {
    match power {
        pb::PowerState::Unspecified => None,
        pb::PowerState::On => Some(PowerState::On),
        pb::PowerState::Off => Some(PowerState::Off),
        pb::PowerState::PoweringOn => Some(PowerState::PoweringOn),
        pb::PowerState::PoweringOff => Some(PowerState::PoweringOff),
    }
}

/// To the wire.
pub fn running_machines_to(policy: Option<RunningMachines>) -> pb::RunningMachines {
    match policy {
        None => pb::RunningMachines::Unspecified,
        Some(RunningMachines::Wait) => pb::RunningMachines::Wait,
        Some(RunningMachines::Adopt) => pb::RunningMachines::Adopt,
        Some(RunningMachines::PowerOff) => pb::RunningMachines::PowerOff,
    }
}

/// From the wire.
pub fn running_machines_from(policy: pb::RunningMachines) -> Option<RunningMachines> {
    match policy {
        pb::RunningMachines::Unspecified => None,
        pb::RunningMachines::Wait => Some(RunningMachines::Wait),
        pb::RunningMachines::Adopt => Some(RunningMachines::Adopt),
        pb::RunningMachines::PowerOff => Some(RunningMachines::PowerOff),
    }
}

/// To the wire.
pub fn first_wipe_to(policy: Option<FirstWipe>) -> pb::FirstWipe {
    match policy {
        None => pb::FirstWipe::Unspecified,
        Some(FirstWipe::Wait) => pb::FirstWipe::Wait,
        Some(FirstWipe::Wipe) => pb::FirstWipe::Wipe,
        Some(FirstWipe::Waive) => pb::FirstWipe::Waive,
    }
}

/// From the wire.
pub fn first_wipe_from(policy: pb::FirstWipe) -> Option<FirstWipe> {
    match policy {
        pb::FirstWipe::Unspecified => None,
        pb::FirstWipe::Wait => Some(FirstWipe::Wait),
        pb::FirstWipe::Wipe => Some(FirstWipe::Wipe),
        pb::FirstWipe::Waive => Some(FirstWipe::Waive),
    }
}

/// To the wire.
pub fn health_to(health: Option<Health>) -> i32 {
    match health {
        None => pb::Health::Unspecified,
        Some(Health::Ok) => pb::Health::Ok,
        Some(Health::Warning) => pb::Health::Warning,
        Some(Health::Critical) => pb::Health::Critical,
    }
    .into()
}

/// From the wire.
pub fn health_from(health: i32) -> Option<Health> {
    match pb::Health::try_from(health) {
        Ok(pb::Health::Ok) => Some(Health::Ok),
        Ok(pb::Health::Warning) => Some(Health::Warning),
        Ok(pb::Health::Critical) => Some(Health::Critical),
        Ok(pb::Health::Unspecified) | Err(_) => None,
    }
}

/// Writes both directions of a part whose fields have the same names and types on both sides; every field is named once.
macro_rules! same {
    ($to:ident, $from:ident, $name:ident { $($field:ident),* $(,)? }) => {
        fn $to(part: $name) -> pb::$name {
            let $name { $($field),* } = part;
            pb::$name { $($field),* }
        }
        fn $from(part: pb::$name) -> $name {
            let pb::$name { $($field),* } = part;
            $name { $($field),* }
        }
    };
}

same!(
    processor_to,
    processor_from,
    Processor {
        socket,
        manufacturer,
        model,
        cores,
        threads,
        max_speed_mhz
    }
);
same!(
    memory_to,
    memory_from,
    MemoryModule {
        slot,
        manufacturer,
        part_number,
        serial_number,
        capacity_mib,
        speed_mhz
    }
);
same!(
    neighbor_to,
    neighbor_from,
    Neighbor {
        chassis_id,
        system_name,
        port_id
    }
);
same!(
    pci_to,
    pci_from,
    PciDevice {
        address,
        vendor_id,
        device_id,
        manufacturer,
        name,
        class_code
    }
);

fn interface_to(nic: NetworkInterface) -> pb::NetworkInterface {
    let NetworkInterface {
        name,
        mac_address,
        speed_mbps,
        link_up,
        neighbors,
    } = nic;
    pb::NetworkInterface {
        name,
        mac_address,
        speed_mbps,
        link_up,
        neighbors: neighbors.into_iter().map(neighbor_to).collect(),
    }
}

fn interface_from(nic: pb::NetworkInterface) -> NetworkInterface {
    let pb::NetworkInterface {
        name,
        mac_address,
        speed_mbps,
        link_up,
        neighbors,
    } = nic;
    NetworkInterface {
        name,
        mac_address,
        speed_mbps,
        link_up,
        neighbors: neighbors.into_iter().map(neighbor_from).collect(),
    }
}

/// To the wire.
pub fn drive_to(drive: Drive) -> pb::Drive {
    let Drive {
        uri,
        name,
        serial_number,
        manufacturer,
        model,
        revision,
        media_type,
        protocol,
        capacity_bytes,
        secure_erase,
        sanitization_types,
        device,
        health,
        erase_commands,
    } = drive;
    pb::Drive {
        uri,
        name,
        serial_number,
        manufacturer,
        model,
        revision,
        media_type,
        protocol,
        capacity_bytes,
        secure_erase,
        sanitization_types,
        device,
        health: health_to(health),
        erase_commands: erase_commands.into_iter().map(|c| c.as_str().to_owned()).collect(),
    }
}

/// From the wire.
pub fn drive_from(drive: pb::Drive) -> Drive {
    let pb::Drive {
        uri,
        name,
        serial_number,
        manufacturer,
        model,
        revision,
        media_type,
        protocol,
        capacity_bytes,
        secure_erase,
        sanitization_types,
        device,
        health,
        erase_commands,
    } = drive;
    Drive {
        uri,
        name,
        serial_number,
        manufacturer,
        model,
        revision,
        media_type,
        protocol,
        capacity_bytes,
        secure_erase,
        sanitization_types,
        device,
        health: health_from(health),
        // A newer agent may know more.
        erase_commands: erase_commands.iter().filter_map(|c| EraseCommand::parse(c)).collect(),
    }
}

fn part_to(part: Part) -> pb::Part {
    let Part {
        kind,
        name,
        manufacturer,
        model,
        part_number,
        serial_number,
        firmware_version,
        capacity_mib,
        health,
        uri,
    } = part;
    pb::Part {
        kind,
        name,
        manufacturer,
        model,
        part_number,
        serial_number,
        firmware_version,
        capacity_mib,
        health: health_to(health),
        uri,
    }
}

fn part_from(part: pb::Part) -> Part {
    let pb::Part {
        kind,
        name,
        manufacturer,
        model,
        part_number,
        serial_number,
        firmware_version,
        capacity_mib,
        health,
        uri,
    } = part;
    Part {
        kind,
        name,
        manufacturer,
        model,
        part_number,
        serial_number,
        firmware_version,
        capacity_mib,
        health: health_from(health),
        uri,
    }
}

/// To the wire.
pub fn hardware_to(hardware: Hardware) -> pb::Hardware {
    let Hardware {
        system_uuid,
        manufacturer,
        model,
        serial_number,
        sku,
        bios_version,
        host_name,
        health,
        processors,
        memory_modules,
        memory_mib,
        drives,
        network_interfaces,
        pci_devices,
        parts,
        unreadable,
        unreadable_storage,
        read_at,
    } = hardware;
    pb::Hardware {
        system_uuid,
        manufacturer,
        model,
        serial_number,
        sku,
        bios_version,
        host_name,
        health: health_to(health),
        processors: processors.into_iter().map(processor_to).collect(),
        memory_modules: memory_modules.into_iter().map(memory_to).collect(),
        memory_mib,
        drives: drives.into_iter().map(drive_to).collect(),
        network_interfaces: network_interfaces.into_iter().map(interface_to).collect(),
        pci_devices: pci_devices.into_iter().map(pci_to).collect(),
        parts: parts.into_iter().map(part_to).collect(),
        unreadable,
        unreadable_storage,
        read_time: Some(timestamp_to(read_at)),
    }
}

/// From the wire.
pub fn hardware_from(hardware: pb::Hardware) -> Hardware {
    let pb::Hardware {
        system_uuid,
        manufacturer,
        model,
        serial_number,
        sku,
        bios_version,
        host_name,
        health,
        processors,
        memory_modules,
        memory_mib,
        drives,
        network_interfaces,
        pci_devices,
        parts,
        unreadable,
        unreadable_storage,
        read_time,
    } = hardware;
    Hardware {
        system_uuid,
        manufacturer,
        model,
        serial_number,
        sku,
        bios_version,
        host_name,
        health: health_from(health),
        processors: processors.into_iter().map(processor_from).collect(),
        memory_modules: memory_modules.into_iter().map(memory_from).collect(),
        memory_mib,
        drives: drives.into_iter().map(drive_from).collect(),
        network_interfaces: network_interfaces.into_iter().map(interface_from).collect(),
        pci_devices: pci_devices.into_iter().map(pci_from).collect(),
        parts: parts.into_iter().map(part_from).collect(),
        unreadable,
        unreadable_storage,
        read_at: read_time.map(timestamp_from).unwrap_or_default(),
    }
}
