use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::PathBuf,
};

use ironyard_proto::{bmc, claim, common::Metadata, discovery, inventory, maintenance};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::Code;

use super::Failure;
use crate::{
    client::Clients,
    json::{plain, to_json},
    manifest::{Document, Resource},
};

/// Remembers which fields, labels and annotations the last apply named: what the next one does not name any more, goes.
const LAST: &str = "ironyard.dev/last-applied";
/// As often is an apply tried that somebody else's write overtakes.
const TRIES: usize = 10;

/// How documents are applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Three ways: what the document names is set, what it named the last time and does not name now goes, the rest stays.
    Merge,
    /// What the document does not name is empty; passwords that a rotation has set are written over.
    Replace,
}

/// What an apply named.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Named {
    fields: BTreeSet<String>,
    labels: BTreeSet<String>,
    annotations: BTreeSet<String>,
}

impl Named {
    fn of(names: &[String], metadata: &Metadata) -> Self {
        Self {
            fields: names.iter().cloned().collect(),
            labels: metadata.labels.keys().cloned().collect(),
            annotations: metadata.annotations.keys().filter(|key| *key != LAST).cloned().collect(),
        }
    }

    /// What the last apply named, as the resource remembers it.
    fn last(metadata: &Metadata) -> Self {
        let text = metadata.annotations.get(LAST);
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn remember(&self, metadata: &mut Metadata) {
        let text = serde_json::to_string(self).unwrap_or_default();
        metadata.annotations.insert(LAST.to_owned(), text);
    }
}

/// What was named the last time and is not now goes, what is named now is set, the rest stays.
fn merge(live: &BTreeMap<String, String>, last: &BTreeSet<String>, new: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut merged = live.clone();
    merged.retain(|key, _| !last.contains(key));
    merged.extend(new.clone());
    merged
}

/// The metadata to write over what is there, and the fields of the spec to write.
fn merged(names: &[String], new: &Metadata, live: &Metadata) -> (Metadata, Vec<String>) {
    let (named, last) = (Named::of(names, new), Named::last(live));
    let mut metadata = Metadata {
        name: new.name.clone(),
        etag: live.etag.clone(),
        labels: merge(&live.labels, &last.labels, &new.labels),
        annotations: merge(&live.annotations, &last.annotations, &new.annotations),
        ..Metadata::default()
    };
    named.remember(&mut metadata);
    let head = ["metadata.labels", "metadata.annotations"].map(str::to_owned);
    let mask = head.into_iter().chain(named.fields.union(&last.fields).cloned()).collect();
    (metadata, mask)
}

/// What differs between two resources that people set, as `field: before → after`.
fn changes(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["/spec", "/metadata/labels", "/metadata/annotations"] {
        let of = |value: &Value| value.pointer(part).and_then(Value::as_object).cloned().unwrap_or_default();
        let (old, new) = (of(before), of(after));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|key| *key != LAST).collect();
        for key in keys.into_iter().filter(|key| old.get(*key) != new.get(*key)) {
            let show = |value: Option<&Value>| match value {
                None => "nothing".to_owned(),
                Some(Value::String(text)) => plain(text),
                Some(value) => value.to_string(),
            };
            let name = part.trim_start_matches('/').replace('/', ".");
            found.push(format!("{name}.{key}: {} → {}", show(old.get(key)), show(new.get(key))));
        }
    }
    found
}

/// Creates a resource, or changes the one of that name; whoever writes in between is read again.
macro_rules! upsert {
    ($client:expr, $kind:literal, $full:literal, $create:ident($cm:ident :: $ct:ident), $get:ident($gm:ident :: $gt:ident), $update:ident($um:ident :: $ut:ident), $field:ident, $value:expr, $names:expr, $manner:expr) => {{
        let (value, names, client) = ($value, $names, $client.clone());
        let metadata = value.metadata.clone().unwrap_or_default();
        let name = metadata.name.clone();
        let failed = |status: tonic::Status| Failure {
            message: format!("{}/{name}: {}", $kind, status.message()),
            ..status.into()
        };
        let mut first = value.clone();
        if let Some(metadata) = &mut first.metadata {
            Named::of(&names, metadata).remember(metadata);
        }
        let request = $cm::$ct {
            $field: Some(first),
            request_id: String::new(),
        };
        let mut done = match client.clone().$create(request).await {
            Ok(_) => Some("created".to_owned()),
            Err(status) if is(&status, Code::AlreadyExists, "_EXISTS") => None,
            Err(status) => return Err(failed(status)),
        };
        for again in (0..TRIES).rev() {
            if done.is_some() {
                break;
            }
            let before = client
                .clone()
                .$get($gm::$gt { name: name.clone() })
                .await
                .map_err(failed)?
                .into_inner();
            let live = before.metadata.clone().unwrap_or_default();
            let (mut head, paths) = merged(&names, &metadata, &live);
            let mut new = value.clone();
            let update_mask = match $manner {
                Manner::Merge => Some(prost_types::FieldMask { paths }),
                Manner::Replace => {
                    (head.labels, head.annotations) = (metadata.labels.clone(), metadata.annotations.clone());
                    Named::of(&names, &metadata).remember(&mut head);
                    None
                }
            };
            new.metadata = Some(head);
            let request = $um::$ut {
                $field: Some(new),
                update_mask,
                request_id: String::new(),
            };
            match client.clone().$update(request).await {
                Ok(after) => {
                    let changed = changes(&to_json($full, &before), &to_json($full, &after.into_inner()));
                    done = Some(if changed.is_empty() {
                        "unchanged".to_owned()
                    } else {
                        format!("configured ({})", changed.join(", "))
                    });
                }
                Err(status) if again > 0 && is(&status, Code::Aborted, "_CHANGED") => {}
                Err(status) => return Err(failed(status)),
            }
        }
        println!("{}/{name} {}", $kind, done.unwrap_or_default());
    }};
}

fn is(status: &tonic::Status, code: Code, reason: &str) -> bool {
    status.code() == code && ironyard_rpc::reason_of(status).is_some_and(|r| r.ends_with(reason))
}

/// Applies all documents of all files; nothing is applied unless all of them can be read.
pub(crate) async fn files(clients: &Clients, files: &[PathBuf], manner: Manner) -> Result<(), Failure> {
    let mut documents = Vec::new();
    for file in files {
        let text = if file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(Failure::other)?;
            text
        } else {
            std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?
        };
        documents.extend(crate::manifest::parse(&text).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?);
    }
    documents.sort_by_key(Document::order);
    for document in documents {
        one(clients, document, manner).await?;
    }
    Ok(())
}

/// Applies one document.
pub(crate) async fn one(clients: &Clients, document: Document, manner: Manner) -> Result<(), Failure> {
    let Document { resource, names } = document;
    match resource {
        Resource::Secret(mut request) => {
            request.replace = manner == Manner::Replace;
            let name = request.name.clone();
            let reply = clients.credentials.clone().set_credential(request).await?.into_inner();
            let done = match reply {
                bmc::Credential { rotating: true, .. } | bmc::Credential { rotated: true, .. } => {
                    "unchanged (a rotation has set its password)"
                }
                bmc::Credential { version: 1, .. } => "created",
                _ => "configured",
            };
            println!("bmcsecret/{name} {done}");
        }
        Resource::Endpoint(value) => upsert!(
            clients.endpoints,
            "endpoint",
            "ironyard.discovery.v1.Endpoint",
            create_endpoint(discovery::CreateEndpointRequest),
            get_endpoint(discovery::GetEndpointRequest),
            update_endpoint(discovery::UpdateEndpointRequest),
            endpoint,
            value,
            names,
            manner
        ),
        Resource::Server(value) => upsert!(
            clients.servers,
            "server",
            "ironyard.inventory.v1.Server",
            create_server(inventory::CreateServerRequest),
            get_server(inventory::GetServerRequest),
            update_server(inventory::UpdateServerRequest),
            server,
            *value,
            names,
            manner
        ),
        Resource::Bmc(value) => upsert!(
            clients.bmcs,
            "bmc",
            "ironyard.bmc.v1.Bmc",
            create_bmc(bmc::CreateBmcRequest),
            get_bmc(bmc::GetBmcRequest),
            update_bmc(bmc::UpdateBmcRequest),
            bmc,
            *value,
            names,
            manner
        ),
        Resource::Claim(value) => upsert!(
            clients.claims,
            "serverclaim",
            "ironyard.claim.v1.ServerClaim",
            create_server_claim(claim::CreateServerClaimRequest),
            get_server_claim(claim::GetServerClaimRequest),
            update_server_claim(claim::UpdateServerClaimRequest),
            server_claim,
            value,
            names,
            manner
        ),
        Resource::Maintenance(value) => upsert!(
            clients.maintenances,
            "servermaintenance",
            "ironyard.maintenance.v1.ServerMaintenance",
            create_server_maintenance(maintenance::CreateServerMaintenanceRequest),
            get_server_maintenance(maintenance::GetServerMaintenanceRequest),
            update_server_maintenance(maintenance::UpdateServerMaintenanceRequest),
            server_maintenance,
            value,
            names,
            manner
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn metadata(labels: &[(&str, &str)]) -> Metadata {
        Metadata {
            name: "a".to_owned(),
            labels: map(labels),
            ..Metadata::default()
        }
    }

    #[test]
    fn what_a_file_never_named_is_left_alone() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        // Somebody else labelled it.
        let mut live = metadata(&[("theirs", "1")]);
        let (first, mask) = merged(
            &names(&["spec.power", "spec.taints"]),
            &metadata(&[("rack", "1"), ("row", "2")]),
            &live,
        );
        assert_eq!(first.labels, map(&[("theirs", "1"), ("rack", "1"), ("row", "2")]));
        assert_eq!(mask, ["metadata.labels", "metadata.annotations", "spec.power", "spec.taints"]);
        (live.labels, live.annotations) = (first.labels, first.annotations);
        // The file names less now: that goes, and what it never named stays.
        let (second, mask) = merged(&names(&["spec.power"]), &metadata(&[("rack", "3")]), &live);
        assert_eq!(second.labels, map(&[("theirs", "1"), ("rack", "3")]));
        assert_eq!(mask, ["metadata.labels", "metadata.annotations", "spec.power", "spec.taints"]);
        (live.labels, live.annotations) = (second.labels, second.annotations);
        let (_, mask) = merged(&names(&["spec.power"]), &metadata(&[]), &live);
        assert_eq!(
            mask,
            ["metadata.labels", "metadata.annotations", "spec.power"],
            "it is forgotten once it is gone"
        );
    }

    #[test]
    fn changes_are_told_by_field() {
        let json = |power: &str, rack: &str| {
            serde_json::json!({
                "spec": {"power": power, "same": 1},
                "metadata": {"labels": {"rack": rack}, "annotations": {LAST: rack}},
                "state": rack,
            })
        };
        assert_eq!(
            changes(&json("POWER_STATE_ON", "1"), &json("POWER_STATE_OFF", "2")),
            ["spec.power: On → Off", "metadata.labels.rack: 1 → 2"]
        );
        assert!(changes(&json("a", "1"), &json("a", "1")).is_empty());
    }
}
