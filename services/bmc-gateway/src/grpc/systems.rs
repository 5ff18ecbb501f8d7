//! Systems and BIOS registries on the wire.

use ironyard_proto::bmc as pb;
use ironyard_redfish::{
    Doc,
    ops::{
        boot, led, power,
        registry::{self, Registry},
        systems,
    },
};
use ironyard_rpc::convert::power_to;

pub(super) fn registry_to(registry: &Registry) -> pb::BiosRegistry {
    let length = |n: Option<usize>| n.and_then(|n| i32::try_from(n).ok());
    let attributes = registry.attributes.iter().map(|(name, attribute)| {
        let registry::Attribute {
            kind,
            values,
            read_only,
            lower,
            upper,
            increment: _,
            min_length,
            max_length,
            display_name,
            help,
            reset_required: _,
        } = attribute.clone();
        let attribute = pb::BiosAttribute {
            r#type: kind,
            values: values.into_iter().map(|(value, _)| value).collect(),
            read_only,
            lower_bound: lower,
            upper_bound: upper,
            min_length: length(min_length),
            max_length: length(max_length),
            display_name,
            help,
        };
        (name.clone(), attribute)
    });
    pb::BiosRegistry {
        id: registry.id.clone(),
        attributes: attributes.collect(),
    }
}

pub(super) fn system_to(doc: &Doc) -> pb::System {
    let (target, enabled) = boot::override_of(doc);
    pb::System {
        system_id: doc.id(),
        system_uuid: systems::uuid(doc),
        manufacturer: doc.text_or_empty("Manufacturer"),
        model: doc.text_or_empty("Model"),
        serial_number: systems::serial(doc),
        power_state: power_to(power::state(doc)).into(),
        boot_override_target: target,
        boot_override_enabled: enabled,
        boot_order: doc.part("Boot").texts("BootOrder"),
        boot_options: vec![],
        indicator_led: led::state(doc),
        inserted_image: String::new(),
        bios_version: doc.text_or_empty("BiosVersion"),
        is_part: false,
        virtual_drives: vec![],
    }
}
