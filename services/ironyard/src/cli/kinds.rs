use ironyard_proto::{bmc, claim, common::LabelSelector, discovery, inventory, maintenance};
use serde_json::Value;

use super::{Failure, output::Column};
use crate::{client::Clients, json::to_json};

/// What can be named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Bmc,
    Endpoint,
    Claim,
    Maintenance,
    Secret,
    Certificate,
    Cleanup,
    Operation,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text.to_ascii_lowercase().trim_end_matches('s') {
            "server" | "srv" => Ok(Self::Server),
            "bmc" => Ok(Self::Bmc),
            "endpoint" => Ok(Self::Endpoint),
            "claim" | "serverclaim" => Ok(Self::Claim),
            "maintenance" | "servermaintenance" => Ok(Self::Maintenance),
            "secret" | "bmcsecret" | "credential" => Ok(Self::Secret),
            "certificate" | "cert" => Ok(Self::Certificate),
            "cleanup" => Ok(Self::Cleanup),
            "operation" | "op" => Ok(Self::Operation),
            _ => Err(Failure::usage(format!(
                "{text:?} is not a kind: use server, bmc, endpoint, claim, maintenance, secret, certificate, cleanup or operation"
            ))),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Bmc => "BMC",
            Self::Endpoint => "Endpoint",
            Self::Claim => "ServerClaim",
            Self::Maintenance => "ServerMaintenance",
            Self::Secret => "BMCSecret",
            Self::Certificate => "SanitizationCertificate",
            Self::Cleanup => "CleanupRun",
            Self::Operation => "Operation",
        }
    }

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Server => &[
                ("NAME", "name", false),
                ("STATE", "/state", false),
                ("POWER", "/observed/powerState", false),
                ("HEALTH", "/observed/health", true),
                ("BMC", "/spec/bmcRef/name", false),
                ("CLAIM", "/claimRef/name", false),
                ("WAITING", "/waitingBecause/reason", false),
                ("MODEL", "/observed/hardware/model", true),
                ("SERIAL", "/observed/hardware/serialNumber", true),
                ("UUID", "/spec/systemUuid", true),
                ("MESSAGE", "/waitingBecause/message", true),
                ("FAILURE", "/failure/message", true),
            ],
            Self::Bmc => &[
                ("NAME", "name", false),
                ("READY", "ready", false),
                ("ADDRESS", "/spec/address", false),
                ("PORT", "/spec/port", false),
                ("VENDOR", "/observed/vendor", false),
                ("PRODUCT", "/observed/product", true),
                ("REDFISH", "/observed/redfishVersion", true),
                ("FIRMWARE", "/observed/firmwareVersion", true),
                ("SYSTEMS", "/observed/systems", true),
                ("CERTIFICATE", "/observed/certificateSha256", true),
            ],
            Self::Endpoint => &[
                ("NAME", "name", false),
                ("MAC", "/spec/macAddress", false),
                ("IP", "/spec/ip", false),
                ("BMC", "/bmcRef/name", false),
            ],
            Self::Claim => &[
                ("NAME", "name", false),
                ("PHASE", "/phase", false),
                ("SERVER", "/boundServer/name", false),
                ("POWER", "/powerState", false),
                ("WAITING", "/waitingBecause/message", false),
                ("CREATED", "/metadata/createTime", true),
            ],
            Self::Maintenance => &[
                ("NAME", "name", false),
                ("PHASE", "/phase", false),
                ("SERVER", "/spec/serverRef/name", false),
                ("REASON", "/spec/reason", false),
                ("WAITING", "/waitingBecause/message", true),
            ],
            Self::Secret => &[
                ("NAME", "name", false),
                ("VERSION", "/version", false),
                ("UPDATED", "/updateTime", false),
            ],
            Self::Certificate => &[
                ("NAME", "name", false),
                ("SERVER", "/server/name", false),
                ("CLAIM", "/claim/name", false),
                ("PASSED", "/passed", false),
                ("ISSUED", "/issueTime", false),
                ("FAILURE", "/failure", false),
            ],
            Self::Cleanup => &[
                ("NAME", "name", false),
                ("SERVER", "/server/name", false),
                ("OUTCOME", "/outcome", false),
                ("STEP", "/step", false),
                ("WAITING", "/waitingBecause/message", false),
                ("FAILURE", "/failure", false),
            ],
            Self::Operation => &[
                ("NAME", "name", false),
                ("VERB", "/verb", false),
                ("TARGET", "/target", false),
                ("DONE", "/done", false),
                ("PHASE", "/phase", false),
                ("ERROR", "/error/message", true),
            ],
        }
    }
}

/// Reads every page of a list.
macro_rules! pages {
    ($client:expr, $method:ident, $m:ident :: $t:ident, $field:ident, $full:literal $(, $selector:expr)?) => {{
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let request = $m::$t {
                page_size: 500,
                page_token: token,
                $(selector: $selector.clone(),)?
                ..Default::default()
            };
            let page = $client.clone().$method(request).await?.into_inner();
            items.extend(page.$field.iter().map(|item| to_json($full, item)));
            token = page.next_page_token;
            if token.is_empty() {
                break items;
            }
        }
    }};
}

#[expect(clippy::needless_update, reason = "one of the requests has fields of its own")]
pub(crate) async fn list(clients: &Clients, kind: Kind, selector: Option<LabelSelector>) -> Result<Vec<Value>, Failure> {
    if selector.is_some() && matches!(kind, Kind::Secret | Kind::Certificate | Kind::Cleanup | Kind::Operation) {
        return Err(Failure::usage(format!("-l: {kind:?}s have no labels to select by").to_lowercase()));
    }
    Ok(match kind {
        Kind::Server => pages!(
            clients.servers,
            list_servers,
            inventory::ListServersRequest,
            servers,
            "ironyard.inventory.v1.Server",
            selector
        ),
        Kind::Bmc => pages!(clients.bmcs, list_bmcs, bmc::ListBmcsRequest, bmcs, "ironyard.bmc.v1.Bmc", selector),
        Kind::Endpoint => {
            pages!(
                clients.endpoints,
                list_endpoints,
                discovery::ListEndpointsRequest,
                endpoints,
                "ironyard.discovery.v1.Endpoint",
                selector
            )
        }
        Kind::Claim => {
            pages!(
                clients.claims,
                list_server_claims,
                claim::ListServerClaimsRequest,
                server_claims,
                "ironyard.claim.v1.ServerClaim",
                selector
            )
        }
        Kind::Maintenance => pages!(
            clients.maintenances,
            list_server_maintenances,
            maintenance::ListServerMaintenancesRequest,
            server_maintenances,
            "ironyard.maintenance.v1.ServerMaintenance",
            selector
        ),
        Kind::Secret => {
            let reply = clients
                .credentials
                .clone()
                .list_credentials(bmc::ListCredentialsRequest {})
                .await?
                .into_inner();
            reply.credentials.iter().map(|c| to_json("ironyard.bmc.v1.Credential", c)).collect()
        }
        Kind::Certificate => pages!(
            clients.sanitization,
            list_certificates,
            claim::ListCertificatesRequest,
            certificates,
            "ironyard.claim.v1.SanitizationCertificate"
        ),
        Kind::Cleanup => pages!(
            clients.sanitization,
            list_cleanup_runs,
            claim::ListCleanupRunsRequest,
            cleanup_runs,
            "ironyard.claim.v1.CleanupRun"
        ),
        Kind::Operation => pages!(
            clients.operations,
            list_operations,
            bmc::ListOperationsRequest,
            operations,
            "ironyard.common.v1.Operation"
        ),
    })
}

pub(crate) async fn get(clients: &Clients, kind: Kind, name: &str) -> Result<Value, Failure> {
    let name = name.to_owned();
    Ok(match kind {
        Kind::Server => {
            let one = clients
                .servers
                .clone()
                .get_server(inventory::GetServerRequest { name })
                .await?
                .into_inner();
            to_json("ironyard.inventory.v1.Server", &one)
        }
        Kind::Bmc => to_json(
            "ironyard.bmc.v1.Bmc",
            &clients.bmcs.clone().get_bmc(bmc::GetBmcRequest { name }).await?.into_inner(),
        ),
        Kind::Endpoint => {
            let one = clients
                .endpoints
                .clone()
                .get_endpoint(discovery::GetEndpointRequest { name })
                .await?
                .into_inner();
            to_json("ironyard.discovery.v1.Endpoint", &one)
        }
        Kind::Claim => {
            let one = clients
                .claims
                .clone()
                .get_server_claim(claim::GetServerClaimRequest { name })
                .await?
                .into_inner();
            to_json("ironyard.claim.v1.ServerClaim", &one)
        }
        Kind::Maintenance => {
            let request = maintenance::GetServerMaintenanceRequest { name };
            let one = clients.maintenances.clone().get_server_maintenance(request).await?.into_inner();
            to_json("ironyard.maintenance.v1.ServerMaintenance", &one)
        }
        Kind::Certificate => {
            let one = clients
                .sanitization
                .clone()
                .get_certificate(claim::GetCertificateRequest { name })
                .await?
                .into_inner();
            to_json("ironyard.claim.v1.SanitizationCertificate", &one)
        }
        Kind::Operation => {
            let one = clients
                .operations
                .clone()
                .get_operation(bmc::GetOperationRequest { name })
                .await?
                .into_inner();
            to_json("ironyard.common.v1.Operation", &one)
        }
        Kind::Secret | Kind::Cleanup => {
            let found = list(clients, kind, None)
                .await?
                .into_iter()
                .find(|item| super::output::name_of(item) == name);
            found.ok_or_else(|| Failure {
                code: 69,
                message: format!("no {} is called {name:?}", kind.name()),
            })?
        }
    })
}

/// Deletes a resource; with a reason, whatever depends on it.
pub(crate) async fn delete(clients: &Clients, kind: Kind, name: &str, forced: Option<String>) -> Result<(), Failure> {
    let (name, etag) = (name.to_owned(), String::new());
    let (force, reason) = (forced.is_some(), forced.unwrap_or_default());
    match kind {
        Kind::Server => drop(
            clients
                .servers
                .clone()
                .delete_server(inventory::DeleteServerRequest { name, etag })
                .await?,
        ),
        Kind::Bmc => {
            let request = bmc::DeleteBmcRequest { name, etag, force, reason };
            drop(clients.bmcs.clone().delete_bmc(request).await?);
        }
        Kind::Endpoint => drop(
            clients
                .endpoints
                .clone()
                .delete_endpoint(discovery::DeleteEndpointRequest { name, etag })
                .await?,
        ),
        Kind::Claim => drop(
            clients
                .claims
                .clone()
                .delete_server_claim(claim::DeleteServerClaimRequest { name, etag })
                .await?,
        ),
        Kind::Maintenance => {
            let request = maintenance::DeleteServerMaintenanceRequest { name, etag };
            drop(clients.maintenances.clone().delete_server_maintenance(request).await?);
        }
        Kind::Secret => drop(
            clients
                .credentials
                .clone()
                .delete_credential(bmc::DeleteCredentialRequest { name, force, reason })
                .await?,
        ),
        Kind::Operation => {
            return Err(Failure::usage(format!(
                "operations are not deleted; `ironyard cancel-operation {name}` stops one"
            )));
        }
        Kind::Certificate | Kind::Cleanup => return Err(Failure::usage("records of wipes cannot be deleted")),
    }
    Ok(())
}
