//! Finding systems.

use ironyard_types::{SystemUuid, is_placeholder_serial};

use crate::{Client, Doc, Error, Members, Result, uri::identity};

/// All systems behind the BMC, in its order.
pub async fn list(client: &Client) -> Result<Vec<Doc>> {
    let root = client.root().await?;
    let Some(systems) = root.link("Systems") else { return Ok(vec![]) };
    // The collection itself must be readable; a member that is not is left out.
    client.get(&systems).await?;
    Ok(without_shared_serials(Members::new(client).of(&systems).await))
}

/// All systems, or an error if one of them cannot be read: "the only one" must not be the only readable one.
pub async fn list_all(client: &Client) -> Result<Vec<Doc>> {
    let root = client.root().await?;
    let Some(systems) = root.link("Systems") else { return Ok(vec![]) };
    let members = Members::new(client);
    let all = members.of(&systems).await;
    match members.unreadable().first() {
        Some(unreadable) => Err(Error::Protocol {
            at: "the systems".to_owned(),
            problem: unreadable.clone(),
        }),
        None => Ok(without_shared_serials(all)),
    }
}

/// Whether another of these has the serial number of this one: then it is that of what holds them both, as with the halves of a blade.
pub(crate) fn shares_serial(system: &Doc, all: &[Doc]) -> bool {
    let (own, here) = (serial(system), identity(&system.id_path()));
    !own.is_empty() && all.iter().any(|other| identity(&other.id_path()) != here && serial(other) == own)
}

/// A serial number that several systems of one BMC show tells none from the other.
fn without_shared_serials(mut systems: Vec<Doc>) -> Vec<Doc> {
    let shared: Vec<bool> = systems.iter().map(|system| shares_serial(system, &systems)).collect();
    for (system, _) in systems.iter_mut().zip(shared).filter(|(_, shared)| *shared) {
        if let Some(values) = system.value.as_object_mut() {
            // Dell's is in the SKU.
            values.retain(|key, _| key != "SerialNumber" && key != "SKU");
        }
    }
    systems
}

/// The system UUID; empty for none and for placeholders.
pub fn uuid(system: &Doc) -> String {
    system
        .text("UUID")
        .and_then(|u| SystemUuid::from_hardware(&u))
        .map(|u| u.to_string())
        .unwrap_or_default()
}

/// The serial number; Dell's service tag lives in SKU. Placeholders are none.
pub fn serial(system: &Doc) -> String {
    let dell = system.text("Manufacturer").is_some_and(|m| m.to_ascii_lowercase().contains("dell"));
    let serial = if dell {
        system.text("SKU").or_else(|| system.text("SerialNumber"))
    } else {
        system.text("SerialNumber")
    };
    serial.filter(|s| !is_placeholder_serial(s)).unwrap_or_default()
}

/// Reads the system at a path, fresh.
pub async fn reread(client: &Client, system: &Doc) -> Result<Doc> {
    client.get(&system.uri).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_serial_number_that_several_systems_show_is_none_of_theirs() {
        let system = |id: &str, serial: &str, sku: &str, maker: &str| Doc {
            value: json!({"@odata.id": format!("/redfish/v1/Systems/{id}"), "SerialNumber": serial, "SKU": sku, "Manufacturer": maker}),
            ..Doc::default()
        };
        let serials = |systems: Vec<Doc>| without_shared_serials(systems).iter().map(serial).collect::<Vec<_>>();
        let blades = vec![
            system("1", "A1", "X", "Quanta"),
            system("2", "A1", "X", "Quanta"),
            system("3", "A3", "X", "Quanta"),
        ];
        assert_eq!(serials(blades), ["", "", "A3"]);
        let dells = vec![system("1", "CN1", "TAG", "Dell Inc."), system("2", "CN2", "TAG", "Dell Inc.")];
        assert_eq!(serials(dells), ["", ""]);
        // One that is listed twice is one.
        let twice = vec![system("1", "A1", "", "Quanta"), system("1", "A1", "", "Quanta")];
        assert_eq!(serials(twice), ["A1", "A1"]);
    }
}
