//! Wire ↔ domain for what all packages share. Conversions name every field, so that a new one breaks the build.

mod hardware;
mod resource;

pub use hardware::{
    drive_from, drive_to, first_wipe_from, first_wipe_to, hardware_from, hardware_to, health_from, health_to, power_from, power_to,
    running_machines_from, running_machines_to,
};
pub use resource::{
    condition_from, condition_to, labels_checked, metadata_checked, metadata_to, reference_from, reference_to, selector_from, selector_to,
    timestamp_from, timestamp_to, waiting_from, waiting_to,
};
