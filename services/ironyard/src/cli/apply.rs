use std::{io::Read, path::PathBuf};

use ironyard_proto::{bmc, claim, discovery, inventory, maintenance};
use tonic::Code;

use super::Failure;
use crate::{client::Clients, manifest::Document};

/// Creates a resource, or updates the one of that name with the version that was read.
macro_rules! upsert {
    ($client:expr, $kind:literal, $create:ident($cm:ident :: $ct:ident), $get:ident($gm:ident :: $gt:ident), $update:ident($um:ident :: $ut:ident), $field:ident, $value:expr) => {{
        let value = $value;
        let name = value.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request = $cm::$ct {
            $field: Some(value.clone()),
            request_id: String::new(),
        };
        let done = match $client.clone().$create(request).await {
            Ok(_) => "created",
            Err(status)
                if status.code() == Code::AlreadyExists && ironyard_rpc::reason_of(&status).is_some_and(|r| r.ends_with("_EXISTS")) =>
            {
                let old = $client.clone().$get($gm::$gt { name: name.clone() }).await?.into_inner();
                let before = old.metadata.clone().unwrap_or_default();
                let mut new = value;
                if let Some(metadata) = &mut new.metadata {
                    metadata.etag.clone_from(&before.etag);
                }
                let request = $um::$ut {
                    $field: Some(new),
                    update_mask: None,
                    request_id: String::new(),
                };
                let after = $client.clone().$update(request).await?.into_inner().metadata.unwrap_or_default();
                if after.etag == before.etag { "unchanged" } else { "configured" }
            }
            Err(status) => {
                return Err(Failure {
                    message: format!("{}/{name}: {}", $kind, status.message()),
                    ..status.into()
                });
            }
        };
        println!("{}/{name} {done}", $kind);
    }};
}

/// Applies all documents of all files; nothing is applied unless all of them can be read.
pub(crate) async fn files(clients: &Clients, files: &[PathBuf], replace: bool) -> Result<(), Failure> {
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
    for mut document in documents {
        if let Document::Secret(request) = &mut document {
            request.replace = replace;
        }
        one(clients, document).await?;
    }
    Ok(())
}

/// Applies one document.
pub(crate) async fn one(clients: &Clients, document: Document) -> Result<(), Failure> {
    match document {
        Document::Secret(request) => {
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
        Document::Endpoint(value) => upsert!(
            clients.endpoints,
            "endpoint",
            create_endpoint(discovery::CreateEndpointRequest),
            get_endpoint(discovery::GetEndpointRequest),
            update_endpoint(discovery::UpdateEndpointRequest),
            endpoint,
            value
        ),
        Document::Server(value) => upsert!(
            clients.servers,
            "server",
            create_server(inventory::CreateServerRequest),
            get_server(inventory::GetServerRequest),
            update_server(inventory::UpdateServerRequest),
            server,
            *value
        ),
        Document::Bmc(value) => upsert!(
            clients.bmcs,
            "bmc",
            create_bmc(bmc::CreateBmcRequest),
            get_bmc(bmc::GetBmcRequest),
            update_bmc(bmc::UpdateBmcRequest),
            bmc,
            value
        ),
        Document::Claim(value) => upsert!(
            clients.claims,
            "serverclaim",
            create_server_claim(claim::CreateServerClaimRequest),
            get_server_claim(claim::GetServerClaimRequest),
            update_server_claim(claim::UpdateServerClaimRequest),
            server_claim,
            value
        ),
        Document::Maintenance(value) => upsert!(
            clients.maintenances,
            "servermaintenance",
            create_server_maintenance(maintenance::CreateServerMaintenanceRequest),
            get_server_maintenance(maintenance::GetServerMaintenanceRequest),
            update_server_maintenance(maintenance::UpdateServerMaintenanceRequest),
            server_maintenance,
            value
        ),
    }
    Ok(())
}
