//! What is done to a system, in the words of Redfish.

pub mod bios;
pub mod boot;
pub mod drives;
pub mod hardware;
pub mod led;
pub mod media;
pub mod power;
pub mod systems;
pub mod tasks;
