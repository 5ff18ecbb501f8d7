use ironyard_db::record;
use ironyard_proto::{
    bmc::{self as pb, credential_service_server::CredentialService},
    common,
};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, get, request};
use ironyard_rpc::{Fault, Reason, convert::timestamp_to};
use ironyard_types::ResourceName;
use tonic::{Request, Response, Status};

use super::convert::operation_to;
use crate::{
    app::begin_operation::begin_operation,
    device::Devices,
    domain::bmc::Bmc,
    store::credential::{self, StoredCredential},
    tasks::{operations::Target, rotate},
};

/// The service on the wire.
pub struct Grpc {
    /// Database and time.
    pub cx: Context,
    /// Owners, with the vault.
    pub devices: Devices,
    /// Probes.
    pub probes: Queue,
    /// Operations.
    pub operations: Queue,
}

#[tonic::async_trait]
impl CredentialService for Grpc {
    async fn set_credential(&self, request: Request<pb::SetCredentialRequest>) -> Result<Response<pb::Credential>, Status> {
        let pb::SetCredentialRequest {
            name,
            username,
            password,
            replace_pending,
        } = request.into_inner();
        let name = ResourceName::parse(&name).map_err(|e| Fault::field("name", e))?.to_string();
        if username.is_empty() || username.contains('\0') {
            return Err(Fault::field("username", "is missing").into());
        }
        let sealed = self.devices.seal(&name, &username, &password)?;
        let now = self.cx.now();
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let version = credential::put(&self.cx.db, &name, &sealed, replace_pending, now)
            .await
            .map_err(store)?;
        let version = version.ok_or_else(|| {
            let why = format!("credential {name} is being rotated: the BMC may have the pending password, which would be lost");
            Fault::new(Reason::CredentialRotating, why)
        })?;
        // A new credential ends the latch of the old one.
        for bmc in record::list::<Bmc>(&self.cx.db, "", 100_000, &[("credential", &name)])
            .await
            .map_err(store)?
        {
            self.probes.poke(&bmc.value.metadata.name).await.map_err(store)?;
        }
        Ok(Response::new(pb::Credential {
            name,
            version,
            update_time: Some(timestamp_to(now)),
            rotating: false,
        }))
    }

    async fn list_credentials(&self, _: Request<pb::ListCredentialsRequest>) -> Result<Response<pb::ListCredentialsResponse>, Status> {
        let rows = credential::list(&self.cx.db).await.map_err(|e| Fault::internal(&e))?;
        let shown = |StoredCredential {
                         name,
                         version,
                         sealed: _,
                         pending,
                         updated_at,
                     }| pb::Credential {
            name,
            version,
            update_time: Some(timestamp_to(updated_at)),
            rotating: pending.is_some(),
        };
        Ok(Response::new(pb::ListCredentialsResponse {
            credentials: rows.into_iter().map(shown).collect(),
        }))
    }

    async fn delete_credential(
        &self,
        request: Request<pb::DeleteCredentialRequest>,
    ) -> Result<Response<pb::DeleteCredentialResponse>, Status> {
        let name = request.into_inner().name;
        if !credential::delete(&self.cx.db, &name).await.map_err(|e| Fault::internal(&e))? {
            return Err(Fault::new(Reason::CredentialNotFound, format!("no credential is called {name:?}")).into());
        }
        Ok(Response::new(pb::DeleteCredentialResponse {}))
    }

    async fn rotate_credential(&self, request_: Request<pb::RotateCredentialRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let ledger = request("RotateCredential", &message.request_id, &message);
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let bmc = get::<Bmc>(&self.cx, &message.bmc).await?;
        let name = bmc.value.spec.credential.clone();
        if name.is_empty() {
            return Err(Fault::new(Reason::BmcNotReady, "the BMC has no credential").into());
        }
        let users = record::list::<Bmc>(&self.cx.db, "", 2, &[("credential", &name)])
            .await
            .map_err(store)?;
        if users.len() > 1 {
            let why = format!("other BMCs use credential {name} too");
            return Err(Fault::new(Reason::CredentialShared, why).into());
        }
        let line = Some(format!("credential {name}"));
        let asked = rotate::Asked {
            target: Target {
                bmc: message.bmc.clone(),
                system_id: String::new(),
            },
            credential: name,
        };
        let stored = begin_operation(&self.cx, &self.operations, &ledger, rotate::VERB, message.bmc, line, &asked).await?;
        Ok(Response::new(operation_to(stored)))
    }
}
