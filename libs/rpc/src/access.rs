//! Who may call what: a table keyed by full method name. What is not in it is denied.

use crate::{Identity, Role};

const INVENTORY: Role = Role::Inventory;
const GATEWAY: Role = Role::BmcGateway;
const DISCOVERY: Role = Role::Discovery;
const CLAIM: Role = Role::Claim;
const MAINTENANCE: Role = Role::Maintenance;
const OPERATOR: Role = Role::Operator;

const EVERYONE: &[Role] = &[INVENTORY, GATEWAY, DISCOVERY, CLAIM, MAINTENANCE, OPERATOR];
/// What may not be taken back, what shows secrets, and what decides who gets in.
const ADMINISTRATORS: &[Role] = &[Role::Administrator];
/// No client certificate: health checks, and the agent, whose token is checked by the handler.
const ANYBODY: &[Role] = &[INVENTORY, GATEWAY, DISCOVERY, CLAIM, MAINTENANCE, OPERATOR, Role::Anonymous];
const OPERATORS: &[Role] = &[OPERATOR];
const OPERATORS_DISCOVERY: &[Role] = &[OPERATOR, DISCOVERY];
const HARDWARE: &[Role] = &[OPERATOR, DISCOVERY, CLAIM, MAINTENANCE];
const OPERATORS_MAINTENANCE: &[Role] = &[OPERATOR, MAINTENANCE];
const OPERATORS_CLAIM: &[Role] = &[OPERATOR, CLAIM];

/// One row: the full method name, whether a caller may repeat the call after UNAVAILABLE, and who may call it.
pub struct Row {
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Safe to repeat.
    pub idempotent: bool,
    /// Who.
    pub roles: &'static [Role],
}

macro_rules! table {
    ($($package:literal $service:literal { $($method:literal $repeat:ident $roles:expr;)* })*) => {
        /// The table.
        pub const TABLE: &[Row] = &[$($(
            Row { method: concat!($package, ".", $service, "/", $method), idempotent: table!(@$repeat), roles: $roles },
        )*)*];
    };
    (@repeat) => { true };
    (@once) => { false };
}

table! {
    "ironyard.inventory.v1" "ServerService" {
        "GetServer" repeat EVERYONE;
        "ListServers" repeat EVERYONE;
        "CreateServer" once OPERATORS_DISCOVERY;
        "UpdateServer" once OPERATORS_DISCOVERY;
        "DeleteServer" once ADMINISTRATORS;
        "WatchServers" repeat EVERYONE;
        "ListServerHistory" repeat EVERYONE;
        "TransitionServer" repeat &[DISCOVERY, CLAIM, MAINTENANCE];
        "ReserveServer" repeat &[CLAIM];
        "ReserveServers" repeat &[CLAIM];
        "ExplainReservation" repeat EVERYONE;
        "ReportServer" repeat &[DISCOVERY, CLAIM, MAINTENANCE, GATEWAY];
        "ResolveServer" once OPERATORS;
        "RetryServer" once OPERATORS;
        "WaiveSanitization" once ADMINISTRATORS;
        "ReleaseServer" once ADMINISTRATORS;
    }
    "ironyard.bmc.v1" "BmcService" {
        "GetBmc" repeat EVERYONE;
        "ListBmcs" repeat EVERYONE;
        "CreateBmc" once OPERATORS_DISCOVERY;
        "UpdateBmc" once OPERATORS_DISCOVERY;
        "DeleteBmc" once ADMINISTRATORS;
        "WatchBmcs" repeat EVERYONE;
    }
    "ironyard.bmc.v1" "CredentialService" {
        "SetCredential" once ADMINISTRATORS;
        "ListCredentials" repeat OPERATORS_DISCOVERY;
        "DeleteCredential" once ADMINISTRATORS;
        "RotateCredential" once ADMINISTRATORS;
        "RewrapCredentials" repeat ADMINISTRATORS;
    }
    "ironyard.bmc.v1" "SystemService" {
        "ListSystems" repeat HARDWARE;
        "GetHardware" repeat HARDWARE;
        "GetSystem" repeat HARDWARE;
        "SetPower" once HARDWARE;
        "SetBootOverride" once HARDWARE;
        "SetBootOrder" once OPERATORS_MAINTENANCE;
        "GetBios" repeat HARDWARE;
        "SetBios" once OPERATORS_MAINTENANCE;
        "ResetBios" once OPERATORS_CLAIM;
        "ListDrives" repeat OPERATORS_CLAIM;
        "EraseDrive" once OPERATORS_CLAIM;
        "SetIndicatorLed" once HARDWARE;
        "InsertMedia" once HARDWARE;
        "EjectMedia" once HARDWARE;
        "GetBiosRegistry" repeat HARDWARE;
        "ChangeBiosPassword" once ADMINISTRATORS;
        "GetSecureBoot" repeat HARDWARE;
        "SetSecureBoot" once OPERATORS_MAINTENANCE;
        "ResetSecureBootKeys" once OPERATORS_MAINTENANCE;
    }
    "ironyard.bmc.v1" "StorageService" {
        "ListVolumes" repeat HARDWARE;
        "CreateVolume" once OPERATORS_MAINTENANCE;
        "DeleteVolume" once &[OPERATOR, CLAIM, MAINTENANCE];
    }
    "ironyard.bmc.v1" "TelemetryService" {
        "SweepPower" repeat HARDWARE;
        "GetSensors" repeat HARDWARE;
        "ListLogs" repeat HARDWARE;
        "ReadLog" repeat HARDWARE;
        "ClearLog" once ADMINISTRATORS;
    }
    "ironyard.bmc.v1" "ManagerService" {
        "GetManager" repeat HARDWARE;
        "ResetManager" once OPERATORS_MAINTENANCE;
        "SyncClock" once OPERATORS_MAINTENANCE;
        "SetNtp" once OPERATORS_MAINTENANCE;
        "ListAccounts" repeat ADMINISTRATORS;
        "CreateAccount" once ADMINISTRATORS;
        "DeleteAccount" once ADMINISTRATORS;
        "GenerateCsr" once ADMINISTRATORS;
        "ReplaceCertificate" once ADMINISTRATORS;
        "ListFirmware" repeat HARDWARE;
        "UpdateFirmware" once OPERATORS_MAINTENANCE;
        "PushFirmware" once OPERATORS_MAINTENANCE;
        "GetRaw" repeat ADMINISTRATORS;
    }
    "ironyard.bmc.v1" "ConsoleService" {
        "Attach" once ADMINISTRATORS;
        "GetConsoleLog" repeat OPERATORS;
    }
    "ironyard.bmc.v1" "OperationService" {
        "GetOperation" repeat EVERYONE;
        "ListOperations" repeat EVERYONE;
        "WaitOperation" repeat EVERYONE;
        "WatchOperations" repeat EVERYONE;
        "CancelOperation" once OPERATORS_CLAIM;
    }
    "ironyard.discovery.v1" "EndpointService" {
        "GetEndpoint" repeat EVERYONE;
        "ListEndpoints" repeat EVERYONE;
        "CreateEndpoint" once OPERATORS;
        "UpdateEndpoint" once OPERATORS;
        "DeleteEndpoint" once OPERATORS;
        "WatchEndpoints" repeat EVERYONE;
    }
    "ironyard.discovery.v1" "AgentRunService" {
        "CreateAgentRun" repeat &[CLAIM];
        "GetAgentRun" repeat OPERATORS_CLAIM;
        "WatchAgentRuns" repeat OPERATORS_CLAIM;
        "AddAgentCommand" repeat &[CLAIM];
        "EndAgentRun" repeat &[CLAIM];
    }
    "ironyard.discovery.v1" "AgentService" {
        "Report" repeat ANYBODY;
        "NextCommand" repeat ANYBODY;
        "FinishCommand" repeat ANYBODY;
    }
    "ironyard.claim.v1" "ServerClaimService" {
        "GetServerClaim" repeat EVERYONE;
        "ListServerClaims" repeat EVERYONE;
        "CreateServerClaim" once OPERATORS;
        "UpdateServerClaim" once OPERATORS;
        "DeleteServerClaim" once OPERATORS;
        "WatchServerClaims" repeat EVERYONE;
    }
    "ironyard.claim.v1" "SanitizationService" {
        "GetCertificate" repeat EVERYONE;
        "GetEvidence" repeat OPERATORS;
        "ListCertificates" repeat EVERYONE;
        "ListCleanupRuns" repeat EVERYONE;
        "CancelCleanup" once OPERATORS;
    }
    "ironyard.maintenance.v1" "ServerMaintenanceService" {
        "GetServerMaintenance" repeat EVERYONE;
        "ListServerMaintenances" repeat EVERYONE;
        "CreateServerMaintenance" once OPERATORS;
        "UpdateServerMaintenance" once OPERATORS;
        "DeleteServerMaintenance" once OPERATORS;
        "WatchServerMaintenances" repeat EVERYONE;
    }
    "grpc.health.v1" "Health" {
        "Check" repeat ANYBODY;
        "Watch" repeat ANYBODY;
    }
    "grpc.reflection.v1" "ServerReflection" {
        "ServerReflectionInfo" repeat EVERYONE;
    }
    "grpc.reflection.v1alpha" "ServerReflection" {
        "ServerReflectionInfo" repeat EVERYONE;
    }
}

/// The row of a method, given its path (`/package.Service/Method`).
pub fn row(path: &str) -> Option<&'static Row> {
    let method = path.strip_prefix('/')?;
    TABLE.iter().find(|row| row.method == method)
}

/// Whether this caller may call this method.
pub(crate) fn allowed(row: Option<&Row>, caller: &Identity) -> bool {
    // An administrator may do what an operator may.
    let operates = |row: &Row| caller.role == Role::Administrator && row.roles.contains(&OPERATOR);
    row.is_some_and(|row| caller.local || row.roles.contains(&caller.role) || operates(row))
}

/// Whether this caller may call this method for somebody else: a replica that asked itself whether they may. Only within its own package.
pub(crate) fn may_pass_on(row: Option<&Row>, caller: &Identity) -> bool {
    row.is_some_and(|row| caller.local || caller.role == GATEWAY && row.method.starts_with("ironyard.bmc.v1."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_and_callers_are_denied() {
        let caller = |role| Identity {
            role,
            name: String::new(),
            local: false,
        };
        let waive = row("/ironyard.inventory.v1.ServerService/WaiveSanitization");
        assert!(allowed(waive, &caller(Role::Administrator)));
        for role in [
            Role::Operator,
            Role::Claim,
            Role::Discovery,
            Role::Maintenance,
            Role::BmcGateway,
            Role::Anonymous,
        ] {
            assert!(!allowed(waive, &caller(role)), "{role:?}");
        }
        let retry = row("/ironyard.inventory.v1.ServerService/RetryServer");
        for role in [Role::Operator, Role::Administrator] {
            assert!(allowed(retry, &caller(role)), "{role:?}");
        }
        assert!(!allowed(row("/ironyard.inventory.v1.ServerService/Nothing"), &Identity::local()));
        let clear = row("/ironyard.bmc.v1.TelemetryService/ClearLog");
        assert!(may_pass_on(clear, &caller(Role::BmcGateway)) && !allowed(clear, &caller(Role::BmcGateway)));
        assert!(!may_pass_on(waive, &caller(Role::BmcGateway)));
        for role in [
            Role::Operator,
            Role::Claim,
            Role::Discovery,
            Role::Maintenance,
            Role::Inventory,
            Role::Anonymous,
        ] {
            assert!(!may_pass_on(clear, &caller(role)), "{role:?}");
        }
    }
}
