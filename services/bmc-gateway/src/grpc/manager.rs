use ironyard_proto::{
    bmc::{self as pb, manager_service_server::ManagerService, push_firmware_request::Part},
    common,
};
use ironyard_redfish::ops::{accounts, certificates::Subject, firmware, manager, raw};
use ironyard_resource::request;
use ironyard_rpc::Fault;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, convert::operation_to, upload::Spool};
use crate::{
    app::begin_operation::begun_before,
    device::Device,
    store::credential,
    tasks::{
        jobs::{Csr, Firmware, Job, Replace, Restart, Source, image_of},
        steps::Target,
    },
};

/// The service on the wire.
pub struct Grpc {
    /// What all share.
    pub shared: Shared,
    /// Where pushed images wait.
    pub spool: Spool,
}

fn target(bmc: String) -> Result<Target, Fault> {
    if bmc.is_empty() {
        return Err(Fault::field("bmc", "is missing"));
    }
    Ok(Target::of_bmc(bmc))
}

/// An image URL that every BMC can fetch: some refuse a query.
fn image_uri(uri: &str) -> Result<(), Fault> {
    let scheme = uri.starts_with("http://") || uri.starts_with("https://");
    if !scheme
        || uri.len() > 1024
        || uri
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '=' | '#'))
    {
        return Err(Fault::field("image_uri", "must be an http or https URL without a query"));
    }
    // It is stored, and shown to whoever may see operations.
    if uri.split('/').nth(2).is_some_and(|host| host.contains('@')) {
        return Err(Fault::field("image_uri", "must not carry a user or a password"));
    }
    Ok(())
}

fn apply_time(text: &str) -> Result<(), Fault> {
    match text {
        "" | "Immediate" | "OnReset" => Ok(()),
        other => Err(Fault::field(
            "apply_time",
            format!("{other:?} is not supported: use Immediate or OnReset"),
        )),
    }
}

impl Grpc {
    async fn device(&self, bmc: &str) -> Result<Device, Fault> {
        self.shared.devices.get(bmc).await
    }
}

#[tonic::async_trait]
impl ManagerService for Grpc {
    async fn get_manager(&self, request: Request<pb::GetManagerRequest>) -> Result<Response<pb::Manager>, Status> {
        let pb::GetManagerRequest { bmc, system_id } = request.into_inner();
        let device = self.device(&bmc).await?;
        let system = match system_id.as_str() {
            "" => None,
            id => Some(device.system(id).await.map_err(Fault::from)?),
        };
        let read = device.read(|client| async move { manager::read(&client, system.as_ref()).await });
        let manager::Manager {
            id,
            model,
            firmware_version,
            date_time,
            offset: _,
            ntp_servers,
            ntp_enabled,
            last_reset,
            uri: _,
        } = read.await.map_err(Fault::from)?;
        Ok(Response::new(pb::Manager {
            id,
            model,
            firmware_version,
            date_time,
            ntp_servers,
            ntp_enabled,
            last_reset_time: last_reset,
        }))
    }

    async fn reset_manager(&self, request_: Request<pb::ResetManagerRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("ResetManager", &message.request_id, &message);
        let job = Restart {
            target: target(message.bmc)?,
            restart: true,
        };
        self.shared.begin(&idempotency_key, Job::Restart(job)).await
    }

    async fn sync_clock(&self, request: Request<pb::SyncClockRequest>) -> Result<Response<pb::SyncClockResponse>, Status> {
        let device = self.device(&request.into_inner().bmc).await?;
        // BMCs want no fractions.
        let text = self.shared.cx.now().to_string();
        let date_time = format!("{}+00:00", text.get(..19).unwrap_or(&text));
        let sent = date_time.clone();
        let write = device.write(|client| async move { manager::set_clock(&client, &sent).await });
        write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::SyncClockResponse { date_time }))
    }

    async fn set_ntp(&self, request: Request<pb::SetNtpRequest>) -> Result<Response<pb::SetNtpResponse>, Status> {
        let pb::SetNtpRequest { bmc, servers } = request.into_inner();
        let named =
            |s: &String| !s.is_empty() && s.len() <= 253 && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-'));
        if let Some(bad) = servers.iter().find(|s| !named(s)) {
            return Err(Fault::field("servers", format!("{bad:?} is not a host name or address")).into());
        }
        let device = self.device(&bmc).await?;
        let write = device.write(|client| async move { manager::set_ntp(&client, &servers).await });
        let changed = write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::SetNtpResponse { changed }))
    }

    async fn list_accounts(&self, request: Request<pb::ListAccountsRequest>) -> Result<Response<pb::ListAccountsResponse>, Status> {
        let device = self.device(&request.into_inner().bmc).await?;
        let read = device.read(|client| async move { accounts::list(&client).await });
        let account_to = |account: accounts::Account| {
            let accounts::Account {
                id,
                username,
                role,
                enabled,
                locked,
                uri: _,
            } = account;
            pb::Account {
                id,
                username,
                role,
                enabled,
                locked,
            }
        };
        Ok(Response::new(pb::ListAccountsResponse {
            accounts: read.await.map_err(Fault::from)?.into_iter().map(account_to).collect(),
        }))
    }

    async fn create_account(&self, request: Request<pb::CreateAccountRequest>) -> Result<Response<pb::CreateAccountResponse>, Status> {
        let pb::CreateAccountRequest { bmc, credential, role } = request.into_inner();
        if !["Administrator", "Operator", "ReadOnly"].contains(&role.as_str()) {
            return Err(Fault::field("role", format!("{role:?} is not a role: use Administrator, Operator or ReadOnly")).into());
        }
        let login = self.shared.credential(&bmc, &credential).await?;
        let device = self.device(&bmc).await?;
        let write = device.write(|client| async move { accounts::create(&client, &login.username, &login.password, &role).await });
        write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::CreateAccountResponse {}))
    }

    async fn delete_account(&self, request: Request<pb::DeleteAccountRequest>) -> Result<Response<pb::DeleteAccountResponse>, Status> {
        let pb::DeleteAccountRequest { bmc, username } = request.into_inner();
        if username.is_empty() {
            return Err(Fault::field("username", "is missing").into());
        }
        let own = ironyard_resource::get::<crate::domain::bmc::Bmc>(&self.shared.cx, &bmc).await?;
        let own = credential::get(&self.shared.cx.db, &own.value.spec.credential)
            .await
            .map_err(|e| Fault::internal(&e))?;
        if let Some(own) = own
            && self.shared.devices.open_credential(&own)?.username == username
        {
            return Err(Fault::field("username", "is the account that the gateway itself uses").into());
        }
        let device = self.device(&bmc).await?;
        let write = device.write(|client| async move { accounts::delete(&client, &username).await });
        let changed = write.await.map_err(Fault::from)?;
        Ok(Response::new(pb::DeleteAccountResponse { changed }))
    }

    async fn generate_csr(&self, request_: Request<pb::GenerateCsrRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("GenerateCsr", &message.request_id, &message);
        let pb::GenerateCsrRequest {
            bmc,
            common_name,
            alternative_names,
            organization,
            organizational_unit,
            city,
            state,
            country,
            request_id: _,
        } = message;
        if common_name.is_empty() {
            return Err(Fault::field("common_name", "is missing").into());
        }
        let subject = Subject {
            common_name,
            alternative_names,
            organization,
            organizational_unit,
            city,
            state,
            country,
        };
        let target = target(bmc)?;
        let job = Csr { target, subject };
        self.shared.begin(&idempotency_key, Job::Csr(job)).await
    }

    async fn replace_certificate(&self, request_: Request<pb::ReplaceCertificateRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("ReplaceCertificate", &message.request_id, &message);
        let pem = message.certificate_pem.clone();
        let wrong = |why: &str| Fault::field("certificate_pem", why);
        if pem.contains("PRIVATE KEY") {
            return Err(wrong("holds a private key; the BMC has it, and nobody else should").into());
        }
        let first = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong("is not a certificate in PEM"))?;
        x509_parser::parse_x509_certificate(&first).map_err(|_| wrong("is not an X.509 certificate"))?;
        let sha256 = ironyard_types::sha256_hex(&first);
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| wrong("holds something that is no certificate in PEM"))?;
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        self.shared.devices.would_trust(&message.bmc, &chain).await?;
        let job = Replace {
            target: target(message.bmc)?,
            pem,
            sha256,
        };
        self.shared.begin(&idempotency_key, Job::Replace(job)).await
    }

    async fn list_firmware(&self, request: Request<pb::ListFirmwareRequest>) -> Result<Response<pb::ListFirmwareResponse>, Status> {
        let device = self.device(&request.into_inner().bmc).await?;
        let read = device.read(|client| async move {
            let (mut components, mut unreadable) = firmware::inventory(&client).await?;
            let (more, missed) = firmware::software(&client).await?;
            components.extend(
                more.into_iter()
                    .filter(|s| !components.iter().any(|c| c.uri == s.uri))
                    .collect::<Vec<_>>(),
            );
            unreadable.extend(missed);
            Ok((components, unreadable))
        });
        let (components, unreadable) = read.await.map_err(Fault::from)?;
        let component_to = |component: firmware::Component| {
            let firmware::Component {
                id,
                name,
                version,
                updateable,
                related: _,
                uri: _,
            } = component;
            pb::FirmwareComponent {
                id,
                name,
                version,
                updateable,
            }
        };
        Ok(Response::new(pb::ListFirmwareResponse {
            components: components.into_iter().map(component_to).collect(),
            unreadable,
        }))
    }

    async fn update_firmware(&self, request_: Request<pb::UpdateFirmwareRequest>) -> Result<Response<common::Operation>, Status> {
        let message = request_.into_inner();
        let idempotency_key = request("UpdateFirmware", &message.request_id, &message);
        let pb::UpdateFirmwareRequest {
            bmc,
            image_uri: uri,
            targets,
            apply_time: apply,
            component_id: component,
            version,
            request_id: _,
        } = message;
        image_uri(&uri)?;
        apply_time(&apply)?;
        let job = Firmware {
            target: target(bmc)?,
            source: Source::Uri(uri),
            targets,
            apply_time: apply,
            component,
            version,
        };
        self.shared.begin(&idempotency_key, Job::Firmware(job)).await
    }

    async fn push_firmware(&self, request_: Request<Streaming<pb::PushFirmwareRequest>>) -> Result<Response<common::Operation>, Status> {
        let mut stream = request_.into_inner();
        let Some(Part::Head(head)) = stream.message().await?.and_then(|m| m.part) else {
            return Err(Fault::field("part", "the first message carries the head").into());
        };
        let idempotency_key = request("PushFirmware", &head.request_id, &head);
        let pb::PushFirmwareHead {
            bmc,
            file_name: name,
            sha256,
            targets,
            apply_time: apply,
            component_id: component,
            version,
            request_id: _,
        } = head;
        if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_control() || matches!(c, '/' | '"' | '\\')) {
            return Err(Fault::field("head.file_name", "must be a plain file name").into());
        }
        apply_time(&apply)?;
        let target = target(bmc)?;
        self.device(&target.bmc).await?;
        if let Some(known) = begun_before(&self.shared.cx, &idempotency_key).await? {
            return Ok(Response::new(operation_to(known)));
        }
        let mut spooled = self.spool.place();
        let path = spooled.path().cloned().unwrap_or_default();
        let bytes = self.spool.receive(&mut stream, &path, &sha256).await?;
        let job = Firmware {
            target,
            source: Source::File { path, name, bytes },
            targets,
            apply_time: apply,
            component,
            version,
        };
        // A caller who hangs up now must not take the image of an operation that has begun.
        let shared = self.shared.clone();
        let beginning = tokio::spawn(async move {
            let begun = shared.begin_stored(&idempotency_key, Job::Firmware(job)).await?;
            // From here on it is the operation's; not if another call with the same id was faster.
            if image_of(&begun.value).as_ref() == spooled.path() {
                spooled.keep();
            }
            Ok::<_, Fault>(begun)
        });
        let begun = beginning.await.map_err(|e| Fault::internal(&e))??;
        Ok(Response::new(operation_to(begun)))
    }

    async fn get_raw(&self, request: Request<pb::GetRawRequest>) -> Result<Response<pb::GetRawResponse>, Status> {
        let pb::GetRawRequest { bmc, path } = request.into_inner();
        if !path.starts_with("/redfish/") {
            return Err(Fault::field("path", "must begin with /redfish/").into());
        }
        let device = self.device(&bmc).await?;
        let read = device.read(|client| async move { raw::read(&client, &path).await });
        Ok(Response::new(pb::GetRawResponse {
            json: read.await.map_err(Fault::from)?,
        }))
    }
}
