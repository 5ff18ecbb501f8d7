//! Finding systems.

use ironyard_types::{SystemUuid, is_placeholder_serial};

use crate::{Client, Doc, Error, Members, Result};

/// All systems behind the BMC, in its order.
pub async fn list(client: &Client) -> Result<Vec<Doc>> {
    let root = client.root().await?;
    let Some(systems) = root.link("Systems") else { return Ok(vec![]) };
    // The collection itself must be readable; a member that is not is left out.
    client.get(&systems).await?;
    Ok(Members::new(client).of(&systems).await)
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
        None => Ok(all),
    }
}

/// Why there is no one system of that id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOne {
    /// None.
    Missing,
    /// Several, and none was named.
    Several(Vec<String>),
}

/// The system of that id; for an empty id the only one, or the only one that looks like a host (it has a BIOS).
pub fn choose(systems: Vec<Doc>, id: &str) -> std::result::Result<Doc, NotOne> {
    if !id.is_empty() {
        return systems.into_iter().find(|s| s.id() == id).ok_or(NotOne::Missing);
    }
    let ids: Vec<String> = systems.iter().map(Doc::id).collect();
    let mut hosts: Vec<Doc> = systems;
    if hosts.len() > 1 {
        hosts.retain(|s| s.link("Bios").is_some());
    }
    match (hosts.pop(), hosts.is_empty(), ids.is_empty()) {
        (Some(one), true, _) => Ok(one),
        (None, _, true) => Err(NotOne::Missing),
        _ => Err(NotOne::Several(ids)),
    }
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

impl From<NotOne> for Error {
    fn from(not_one: NotOne) -> Self {
        match not_one {
            NotOne::Missing => Self::NotFound("the system".to_owned()),
            NotOne::Several(ids) => Self::Unsupported(format!("one system only; it has {}", ids.join(", "))),
        }
    }
}
