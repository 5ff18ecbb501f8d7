use ipnet::IpNet;
use ironyard_db::{Stored, record};
use ironyard_proto::{
    bmc::{self as pb, credential_service_server::CredentialService},
    common,
};
use ironyard_reconcile::Queue;
use ironyard_resource::{Context, get, request};
use ironyard_rpc::{Fault, Identity, Reason, convert::timestamp_to};
use ironyard_types::ResourceName;
use tonic::{Request, Response, Status};

use super::convert::operation_to;
use crate::{
    app::begin_operation::begin_operation,
    device::Devices,
    domain::bmc::Bmc,
    store::credential::{self, StoredCredential},
    tasks::{rotate, steps::Target},
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

impl Grpc {
    async fn stored(&self, name: &str) -> Result<StoredCredential, Fault> {
        let stored = credential::get(&self.cx.db, name).await.map_err(|e| Fault::internal(&e))?;
        stored.ok_or_else(|| Fault::new(Reason::CredentialNotFound, format!("no credential is called {name:?}")))
    }

    async fn users(&self, name: &str) -> Result<Vec<Stored<Bmc>>, Fault> {
        let users = record::list::<Bmc>(&self.cx.db, "", 100_000, &[("credential", name)]).await;
        users.map_err(|e| Fault::internal(&e))
    }
}

/// Why a password that a rotation made is not forgotten.
fn rotation_kept(stored: &StoredCredential) -> Fault {
    let name = &stored.name;
    if stored.pending.is_some() {
        let why = format!("credential {name} is being rotated: the BMC may have the pending password, which would be lost");
        return Fault::new(Reason::CredentialRotating, why);
    }
    let why = format!("credential {name} was rotated: the BMC has a password that only this record knows, and it would be lost");
    Fault::new(Reason::CredentialRotated, why)
}

fn shown(
    StoredCredential {
        name,
        version,
        sealed,
        pending,
        set,
        networks,
        updated_at,
    }: StoredCredential,
) -> pb::Credential {
    pb::Credential {
        name,
        version,
        update_time: Some(timestamp_to(updated_at)),
        rotating: pending.is_some(),
        rotated: set.is_some(),
        networks: listed(&networks),
        sealing_key_id: sealed.key_id().to_owned(),
    }
}

fn listed(networks: &str) -> Vec<String> {
    networks
        .split(',')
        .filter(|network| !network.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tonic::async_trait]
impl CredentialService for Grpc {
    async fn set_credential(&self, request: Request<pb::SetCredentialRequest>) -> Result<Response<pb::Credential>, Status> {
        let pb::SetCredentialRequest {
            name,
            username,
            password,
            replace,
            networks,
        } = request.into_inner();
        let name = ResourceName::parse(&name).map_err(|e| Fault::field("name", e))?.to_string();
        if username.is_empty() || username.contains('\0') {
            return Err(Fault::field("username", "is missing").into());
        }
        let mut only = Vec::new();
        for (i, text) in networks.iter().enumerate() {
            let network: IpNet = text.parse().map_err(|_| {
                Fault::field(
                    format!("networks[{i}]"),
                    format!("{text:?} is not a network: write one as in 10.1.0.0/16"),
                )
            })?;
            only.push(network.trunc().to_string());
        }
        let sealed = self.devices.seal(&name, &username, &password)?;
        let now = self.cx.now();
        let store = |e: ironyard_db::Error| Fault::internal(&e);
        let Some(version) = credential::put(&self.cx.db, &name, &sealed, &only.join(","), replace, now)
            .await
            .map_err(store)?
        else {
            let rotated = self.stored(&name).await?;
            // What was set before the rotation is no news: a file that is applied again.
            let before = self.devices.open_sealed(&name, rotated.set.as_ref().unwrap_or(&rotated.sealed))?;
            if before.username == username && before.password.expose() == &password {
                // Which networks it is for may be news all the same.
                let only = only.join(",");
                if rotated.networks != only {
                    credential::set_networks(&self.cx.db, &name, rotated.version, &only, now)
                        .await
                        .map_err(store)?;
                    for bmc in self.users(&name).await? {
                        self.probes.enqueue(&bmc.value.metadata.name).await.map_err(store)?;
                    }
                }
                return Ok(Response::new(shown(self.stored(&name).await?)));
            }
            return Err(rotation_kept(&rotated).into());
        };
        // A new credential ends the latch of the old one.
        for bmc in self.users(&name).await? {
            self.probes.enqueue(&bmc.value.metadata.name).await.map_err(store)?;
        }
        Ok(Response::new(pb::Credential {
            name,
            version,
            update_time: Some(timestamp_to(now)),
            rotating: false,
            rotated: false,
            networks: only,
            sealing_key_id: self.devices.sealing_key_id().to_owned(),
        }))
    }

    async fn list_credentials(&self, _: Request<pb::ListCredentialsRequest>) -> Result<Response<pb::ListCredentialsResponse>, Status> {
        let rows = credential::list(&self.cx.db).await.map_err(|e| Fault::internal(&e))?;
        Ok(Response::new(pb::ListCredentialsResponse {
            credentials: rows.into_iter().map(shown).collect(),
        }))
    }

    async fn delete_credential(
        &self,
        request: Request<pb::DeleteCredentialRequest>,
    ) -> Result<Response<pb::DeleteCredentialResponse>, Status> {
        let actor = request.extensions().get::<Identity>().map(|i| i.name.clone()).unwrap_or_default();
        let pb::DeleteCredentialRequest { name, force, reason } = request.into_inner();
        let stored = self.stored(&name).await?;
        let users = self.users(&name).await?;
        if force {
            super::forced("credential", &name, &reason, &actor)?;
        } else if let [first, more @ ..] = users.as_slice() {
            let (first, more) = (&first.value.metadata.name, more.len());
            let why = format!("credential {name} is used by BMC {first} and {more} others; give them another one first, or force it");
            return Err(Fault::new(Reason::CredentialInUse, why).into());
        } else if stored.set.is_some() || stored.pending.is_some() {
            return Err(rotation_kept(&stored).into());
        }
        if !credential::delete(&self.cx.db, &name, stored.version)
            .await
            .map_err(|e| Fault::internal(&e))?
        {
            return Err(Fault::new(
                Reason::CredentialNotFound,
                format!("credential {name} was changed or deleted by someone else"),
            )
            .into());
        }
        Ok(Response::new(pb::DeleteCredentialResponse {}))
    }

    async fn rewrap_credentials(
        &self,
        _: Request<pb::RewrapCredentialsRequest>,
    ) -> Result<Response<pb::RewrapCredentialsResponse>, Status> {
        let (rewrapped, already) = self.devices.rewrap().await?;
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        Ok(Response::new(pb::RewrapCredentialsResponse {
            sealing_key_id: self.devices.sealing_key_id().to_owned(),
            rewrapped: count(rewrapped),
            already: count(already),
        }))
    }

    async fn rotate_credential(&self, request_: Request<pb::RotateCredentialRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("RotateCredential", &message.request_id, &message);
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
            target: Target::of_bmc(message.bmc.clone()),
            credential: name,
        };
        let stored = begin_operation(
            &self.cx,
            &self.operations,
            &idempotency_key,
            rotate::VERB,
            message.bmc,
            line,
            &asked,
        )
        .await?;
        Ok(Response::new(operation_to(stored)))
    }
}
