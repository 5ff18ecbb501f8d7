//! What belongs together behind a BMC: systems that are servers and systems that are parts of one, the chassis that a server stands in, and
//! the manager that manages it.

use std::collections::HashSet;

use super::systems::{self, shares_serial};
use crate::{Client, Doc, Error, Members, Result, uri::identity};

/// Splits systems into those that are servers, which can be booted and switched, and those that are parts of one: the board of accelerators
/// beside a host has neither a BIOS nor anything to boot from.
pub fn split(systems: Vec<Doc>) -> (Vec<Doc>, Vec<Doc>) {
    // A list of what an override could be is no sign that there is anything to boot.
    const BOOT: [&str; 4] = ["BootOrder", "BootOptions", "BootSourceOverrideTarget", "BootSourceOverrideEnabled"];
    let boots = |system: &Doc| {
        let boot = system.part("Boot");
        system.link("Bios").is_some() || BOOT.iter().any(|key| boot.value.get(key).is_some_and(|value| !value.is_null()))
    };
    let any_boots = systems.iter().any(boots);
    let alone = systems.len() == 1;
    systems
        .into_iter()
        .partition(|system| alone || boots(system) || !any_boots && system.action("#ComputerSystem.Reset").is_some())
}

/// Why there is no one system of that id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOne {
    /// None.
    Missing,
    /// Several, and none was named.
    Several(Vec<String>),
}

/// The system of that id; for an empty id the only one, or the only one that is a server.
pub fn choose(systems: Vec<Doc>, id: &str) -> std::result::Result<Doc, NotOne> {
    if !id.is_empty() {
        return systems.into_iter().find(|s| s.id() == id).ok_or(NotOne::Missing);
    }
    let ids: Vec<String> = systems.iter().map(Doc::id).collect();
    let (mut hosts, _) = split(systems);
    match (hosts.pop(), hosts.is_empty(), ids.is_empty()) {
        (Some(one), true, _) => Ok(one),
        (None, _, true) => Err(NotOne::Missing),
        _ => Err(NotOne::Several(ids)),
    }
}

impl From<NotOne> for Error {
    fn from(not_one: NotOne) -> Self {
        match not_one {
            NotOne::Missing => Self::NotFound("the system".to_owned()),
            NotOne::Several(ids) => Self::Unsupported(format!("one system only; it has {}", ids.join(", "))),
        }
    }
}

/// A server and what belongs to it.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Systems that are parts of the server.
    pub parts: Vec<Doc>,
    /// The chassis that the server itself names.
    pub own_chassis: Vec<Doc>,
    /// The others: those that name the server, or that its own contain. All there are, where there is one server only.
    pub more_chassis: Vec<Doc>,
    /// Whether the server's serial number is that of another server too.
    pub shares_serial: bool,
    /// Paths of the chassis that other servers name too.
    shared: HashSet<String>,
}

impl Surroundings {
    /// The chassis that the server names and no other server does.
    pub fn private_chassis(&self) -> impl Iterator<Item = &Doc> {
        self.own_chassis
            .iter()
            .filter(|chassis| !self.shared.contains(&identity(&chassis.id_path())))
    }

    /// All chassis, the server's own first.
    pub fn chassis(&self) -> impl Iterator<Item = &Doc> {
        self.own_chassis.iter().chain(&self.more_chassis)
    }
}

/// Looks for what belongs to a server. What cannot be read is noted by the reader and left out.
pub async fn surroundings(client: &Client, members: &Members<'_>, system: &Doc) -> Surroundings {
    let own_chassis = members.linked(system.part("Links").links("Chassis")).await;
    let Ok(root) = client.root().await else {
        return Surroundings {
            own_chassis,
            ..Surroundings::default()
        };
    };
    // Whether there are other servers is not known while one of the systems cannot be read.
    let missed = members.unreadable().len();
    let systems = match root.link("Systems") {
        Some(link) => members.of(&link).await,
        None => vec![],
    };
    let all_read = members.unreadable().len() == missed;
    let all = match root.link("Chassis") {
        Some(link) => members.of(&link).await,
        None => vec![],
    };
    let (servers, parts) = split(systems);
    let here = |doc: &Doc| identity(&doc.id_path());
    let known: HashSet<String> = own_chassis.iter().map(here).collect();
    let others: Vec<Doc> = all.into_iter().filter(|chassis| !known.contains(&here(chassis))).collect();
    if servers.len() <= 1 && all_read {
        return Surroundings {
            parts,
            own_chassis,
            more_chassis: others,
            ..Surroundings::default()
        };
    }
    let me = here(system);
    let named_by_others = servers.iter().filter(|server| here(server) != me);
    let shared = named_by_others
        .flat_map(|server| server.part("Links").links("Chassis"))
        .map(|link| identity(&link))
        .collect();
    let shares_serial = servers.iter().any(|server| here(server) == me && shares_serial(server, &servers));
    let more_chassis = of_one_server(system, &servers, &own_chassis, others);
    // Of several servers none is known to own a part, unless one of its chassis holds it.
    let chassis: HashSet<String> = own_chassis.iter().chain(&more_chassis).map(here).collect();
    let held = |part: &Doc| {
        part.part("Links")
            .links("Chassis")
            .iter()
            .any(|link| chassis.contains(&identity(link)))
    };
    Surroundings {
        parts: parts.into_iter().filter(held).collect(),
        own_chassis,
        more_chassis,
        shares_serial,
        shared,
    }
}

/// The chassis of one server among several: those that name it alone, and those within its own that it does not share.
fn of_one_server(system: &Doc, servers: &[Doc], own: &[Doc], others: Vec<Doc>) -> Vec<Doc> {
    let here = |doc: &Doc| identity(&doc.id_path());
    let me = here(system);
    let mut foreign: HashSet<String> = HashSet::new();
    for server in servers.iter().filter(|server| here(server) != me) {
        foreign.extend(server.part("Links").links("Chassis").iter().map(|link| identity(link)));
    }
    let names = |chassis: &Doc| -> Vec<String> {
        let links = chassis.part("Links").links("ComputerSystems");
        links.iter().map(|link| identity(link)).collect()
    };
    // What is shared holds the others' parts too.
    let mut mine: HashSet<String> = own.iter().map(here).filter(|path| !foreign.contains(path)).collect();
    let (mut left, mut taken) = (others, Vec::new());
    loop {
        let before = left.len();
        let (more, rest): (Vec<Doc>, Vec<Doc>) = left.into_iter().partition(|chassis| {
            let named = names(chassis);
            let within = chassis
                .part("Links")
                .link("ContainedBy")
                .is_some_and(|above| mine.contains(&identity(&above)));
            !foreign.contains(&here(chassis)) && named.iter().all(|name| *name == me) && (!named.is_empty() || within)
        });
        mine.extend(more.iter().map(here));
        taken.extend(more);
        left = rest;
        if left.len() == before {
            return taken;
        }
    }
}

/// How likely a manager is the BMC: some list an auxiliary controller, a service or the enclosure's manager first.
fn rank(manager: &Doc) -> u8 {
    match manager.text("ManagerType").as_deref() {
        Some("BMC") | None => 0,
        Some("ManagementController") => 1,
        Some("EnclosureManager" | "RackManager") => 2,
        Some(_) => 3,
    }
}

/// The manager of a system: of those that it names the BMC. Without a system, the one that all servers share: that of the only server, or
/// the one that none of several has to itself.
pub async fn manager(client: &Client, root: &Doc, system: Option<&Doc>) -> Result<Doc> {
    let members = Members::new(client);
    let none = || Error::Unsupported("a readable manager".to_owned());
    let best = |mut managers: Vec<Doc>| {
        managers.sort_by_key(rank);
        (!managers.is_empty()).then(|| managers.remove(0))
    };
    let managed_by = |system: &Doc| system.part("Links").links("ManagedBy");
    let servers = match system {
        Some(system) => vec![system.clone()],
        None => split(systems::list(client).await.unwrap_or_default()).0,
    };
    if let [only] = servers.as_slice()
        && let Some(manager) = best(members.linked(managed_by(only)).await)
    {
        return Ok(manager);
    }
    let collection = members.try_get(&root.link("Managers").ok_or_else(none)?).await?;
    let mut links = collection.links("Members");
    if servers.len() > 1 {
        let private: HashSet<String> = servers.iter().flat_map(managed_by).map(|link| identity(&link)).collect();
        let shared = |link: &String| {
            servers
                .iter()
                .all(|server| managed_by(server).iter().any(|l| identity(l) == identity(link)))
        };
        // What all name first; then what none has to itself.
        let common: Vec<String> = links.iter().filter(|link| shared(link)).cloned().collect();
        let nobodys: Vec<String> = links.iter().filter(|link| !private.contains(&identity(link))).cloned().collect();
        for links in [common, nobodys] {
            if let Some(manager) = best(members.linked(links).await) {
                return Ok(manager);
            }
        }
    }
    links.truncate(64);
    match best(members.linked(links).await) {
        Some(manager) => Ok(manager),
        None => Err(members.unreadable().first().map_or_else(none, |why| Error::Protocol {
            at: "the managers".to_owned(),
            problem: why.clone(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn doc(value: serde_json::Value) -> Doc {
        Doc { value, ..Doc::default() }
    }

    #[test]
    fn what_can_neither_be_booted_nor_switched_is_a_part() {
        let host = doc(json!({"Id": "DGX", "Bios": {"@odata.id": "/b"}, "Actions": {"#ComputerSystem.Reset": {}}}));
        let boot = json!({"BootOrderPropertySelection": "BootOrder", "BootSourceOverrideTarget@Redfish.AllowableValues": ["Pxe"]});
        let board = doc(json!({"Id": "HGX_Baseboard_0", "Boot": boot, "Actions": {"#ComputerSystem.Reset": {}}}));
        let ids = |docs: &[Doc]| docs.iter().map(Doc::id).collect::<Vec<_>>();
        let (servers, parts) = split(vec![board.clone(), host.clone()]);
        assert_eq!(
            (ids(&servers), ids(&parts)),
            (vec!["DGX".to_owned()], vec!["HGX_Baseboard_0".to_owned()])
        );
        // Old services tell no more of a server than that it can be switched; and what is alone is one.
        let plain = |id: &str| doc(json!({"Id": id, "Actions": {"#ComputerSystem.Reset": {}}}));
        assert_eq!(split(vec![plain("1"), plain("2"), doc(json!({"Id": "3"}))]).0.len(), 2);
        assert_eq!(split(vec![doc(json!({"Id": "1"}))]).0.len(), 1);
    }

    #[test]
    fn of_several_servers_each_has_its_own_chassis() {
        let chassis = |id: &str, above: &str, systems: &[&str]| {
            let systems: Vec<_> = systems.iter().map(|s| json!({"@odata.id": format!("/S/{s}")})).collect();
            doc(
                json!({"@odata.id": format!("/C/{id}"), "Links": {"ContainedBy": {"@odata.id": format!("/C/{above}")}, "ComputerSystems": systems}}),
            )
        };
        let server = |id: &str| {
            let linked = [json!({"@odata.id": format!("/C/blade{id}")}), json!({"@odata.id": "/C/enclosure"})];
            doc(json!({"@odata.id": format!("/S/{id}"), "Links": {"Chassis": linked}}))
        };
        let servers = [server("1"), server("2")];
        let own = [chassis("blade1", "enclosure", &["1"]), chassis("enclosure", "", &["1", "2"])];
        let others = vec![
            chassis("blade2", "enclosure", &["2"]),
            chassis("riser", "card", &[]),
            chassis("card", "blade1", &[]),
            chassis("fan", "enclosure", &[]),
            chassis("stray", "", &["1"]),
        ];
        let mut found: Vec<String> = of_one_server(&servers[0], &servers, &own, others)
            .iter()
            .map(Doc::id_path)
            .collect();
        found.sort();
        assert_eq!(found, ["/C/card", "/C/riser", "/C/stray"]);
    }
}
