//! What is done to a system, in the words of Redfish.

pub mod accounts;
pub mod bios;
pub mod boot;
pub mod certificates;
pub mod drives;
pub mod events;
pub mod family;
pub mod firmware;
pub mod hardware;
pub mod led;
pub mod logs;
pub mod manager;
pub mod media;
pub mod power;
pub mod raw;
pub mod registry;
pub mod secure_boot;
pub mod sensors;
pub mod systems;
pub mod tasks;
pub mod volumes;

use crate::{Client, Doc};

/// The document that holds what waits for the next restart, where there is one.
pub(crate) async fn settings_of(client: &Client, doc: &Doc) -> Option<Doc> {
    let link = doc.part("@Redfish.Settings").link("SettingsObject")?;
    client.get(&link).await.ok()
}
