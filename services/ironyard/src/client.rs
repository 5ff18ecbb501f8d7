//! Every client that the command line and the tests need, over one channel or several.

use ironyard_proto::{
    bmc::{
        bmc_service_client::BmcServiceClient, console_service_client::ConsoleServiceClient,
        credential_service_client::CredentialServiceClient, manager_service_client::ManagerServiceClient,
        operation_service_client::OperationServiceClient, storage_service_client::StorageServiceClient,
        system_service_client::SystemServiceClient, telemetry_service_client::TelemetryServiceClient,
    },
    claim::{sanitization_service_client::SanitizationServiceClient, server_claim_service_client::ServerClaimServiceClient},
    discovery::endpoint_service_client::EndpointServiceClient,
    inventory::server_service_client::ServerServiceClient,
    maintenance::server_maintenance_service_client::ServerMaintenanceServiceClient,
};
use ironyard_rpc::{
    Channel,
    client::{Error, TlsConfig},
};

/// Where the services are.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Inventory.
    pub inventory: String,
    /// Gateway.
    pub bmc_gateway: String,
    /// Discovery.
    pub discovery: String,
    /// Claim.
    pub claim: String,
    /// Maintenance.
    pub maintenance: String,
}

impl Addresses {
    /// All at one address.
    pub fn all_at(address: &str) -> Self {
        let at = || address.to_owned();
        Self {
            inventory: at(),
            bmc_gateway: at(),
            discovery: at(),
            claim: at(),
            maintenance: at(),
        }
    }
}

/// All clients.
#[derive(Clone)]
pub struct Clients {
    /// Servers.
    pub servers: ServerServiceClient<Channel>,
    /// BMCs.
    pub bmcs: BmcServiceClient<Channel>,
    /// Credentials.
    pub credentials: CredentialServiceClient<Channel>,
    /// Systems.
    pub systems: SystemServiceClient<Channel>,
    /// Volumes.
    pub storage: StorageServiceClient<Channel>,
    /// Sensors, logs, power of many.
    pub telemetry: TelemetryServiceClient<Channel>,
    /// BMCs themselves.
    pub managers: ManagerServiceClient<Channel>,
    /// Consoles.
    pub consoles: ConsoleServiceClient<Channel>,
    /// Operations.
    pub operations: OperationServiceClient<Channel>,
    /// Endpoints.
    pub endpoints: EndpointServiceClient<Channel>,
    /// Claims.
    pub claims: ServerClaimServiceClient<Channel>,
    /// Certificates.
    pub sanitization: SanitizationServiceClient<Channel>,
    /// Maintenances.
    pub maintenances: ServerMaintenanceServiceClient<Channel>,
}

impl Clients {
    /// Connects when needed.
    pub fn new(addresses: &Addresses, tls: Option<&TlsConfig>) -> Result<Self, Error> {
        let big = 64 << 20;
        let gateway = Channel::new(&addresses.bmc_gateway, tls)?;
        let claim = Channel::new(&addresses.claim, tls)?;
        Ok(Self {
            servers: ServerServiceClient::new(Channel::new(&addresses.inventory, tls)?).max_decoding_message_size(big),
            bmcs: BmcServiceClient::new(gateway.clone()).max_decoding_message_size(big),
            credentials: CredentialServiceClient::new(gateway.clone()),
            systems: SystemServiceClient::new(gateway.clone()).max_decoding_message_size(big),
            storage: StorageServiceClient::new(gateway.clone()),
            telemetry: TelemetryServiceClient::new(gateway.clone()).max_decoding_message_size(big),
            managers: ManagerServiceClient::new(gateway.clone()).max_decoding_message_size(big),
            consoles: ConsoleServiceClient::new(gateway.clone()),
            operations: OperationServiceClient::new(gateway).max_decoding_message_size(big),
            endpoints: EndpointServiceClient::new(Channel::new(&addresses.discovery, tls)?),
            claims: ServerClaimServiceClient::new(claim.clone()).max_decoding_message_size(big),
            sanitization: SanitizationServiceClient::new(claim).max_decoding_message_size(big),
            maintenances: ServerMaintenanceServiceClient::new(Channel::new(&addresses.maintenance, tls)?),
        })
    }

    /// All at one address, without certificates.
    pub fn at(address: &str) -> Result<Self, Error> {
        Self::new(&Addresses::all_at(address), None)
    }
}
