use ironyard_db::record;
use ironyard_proto::bmc::{self as pb, credential_service_server::CredentialService};
use ironyard_reconcile::Queue;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason, convert::timestamp_to};
use ironyard_types::ResourceName;
use tonic::{Request, Response, Status};

use crate::{
    device::Devices,
    domain::bmc::Bmc,
    store::credential::{self, StoredCredential},
};

/// The service on the wire.
pub struct Grpc {
    /// Database and time.
    pub cx: Context,
    /// Owners, with the vault.
    pub devices: Devices,
    /// Probes.
    pub probes: Queue,
}

#[tonic::async_trait]
impl CredentialService for Grpc {
    async fn set_credential(&self, request: Request<pb::SetCredentialRequest>) -> Result<Response<pb::Credential>, Status> {
        let pb::SetCredentialRequest { name, username, password } = request.into_inner();
        let name = ResourceName::parse(&name).map_err(|e| Fault::field("name", e))?.to_string();
        if username.is_empty() || username.contains('\0') {
            return Err(Fault::field("username", "is missing").into());
        }
        let secret = format!("{username}\0{password}");
        let sealed = self
            .devices
            .vault()
            .seal(&name, secret.as_bytes())
            .map_err(|e| Fault::internal(&e))?;
        let now = self.cx.now();
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let version = credential::put(&self.cx.db, &name, &sealed, now).await.map_err(store)?;
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
        }))
    }

    async fn list_credentials(&self, _: Request<pb::ListCredentialsRequest>) -> Result<Response<pb::ListCredentialsResponse>, Status> {
        let rows = credential::list(&self.cx.db).await.map_err(|e| Fault::internal(&e))?;
        let shown = |StoredCredential {
                         name,
                         version,
                         sealed: _,
                         updated_at,
                     }| pb::Credential {
            name,
            version,
            update_time: Some(timestamp_to(updated_at)),
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
}
