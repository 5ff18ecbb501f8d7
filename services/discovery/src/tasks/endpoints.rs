use std::time::Duration;

use ironyard_db::record;
use ironyard_proto::{bmc as pb, common};
use ironyard_reconcile::{Next, Pass, Reconcile};
use ironyard_rpc::convert::{first_wipe_to, running_machines_to};
use ironyard_types::{Condition, ConditionStatus, Reference};

use super::Error;
use crate::{
    app::{App, store_fault},
    domain::endpoint::{Endpoint, recognise},
};

/// Makes a BMC of each endpoint that the MAC-prefix list recognises, and tells BMCs that refer to one where it is.
pub struct Endpoints(pub App);

impl Reconcile for Endpoints {
    type Error = Error;

    async fn reconcile(&self, pass: &Pass) -> Result<Next, Error> {
        let (app, name) = (&self.0, pass.key());
        let endpoint = record::get::<Endpoint>(&app.cx.db, name).await.map_err(store_fault)?;
        let mut referred = None;
        let mut page_token = String::new();
        loop {
            let request = pb::ListBmcsRequest {
                page_size: 1000,
                page_token,
                selector: None,
            };
            let page = app
                .gateway
                .bmcs
                .clone()
                .list_bmcs(request)
                .await
                .map_err(ironyard_peers::PeerError::from)?
                .into_inner();
            for bmc in page.bmcs {
                let spec = bmc.spec.unwrap_or_default();
                let named = spec.endpoint_ref.as_ref().is_some_and(|e| e.name == name);
                let points = named || spec.endpoint_ref.is_none() && endpoint.as_ref().is_some_and(|e| e.value.has_mac(&spec.mac_address));
                if let (true, Some(metadata)) = (points, bmc.metadata) {
                    app.bmcs.enqueue(&metadata.name).await.map_err(store_fault)?;
                    referred = Some(metadata.name);
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let Some(mut endpoint) = endpoint else { return Ok(Next::Done) };
        let known = recognise(endpoint.value.mac, &app.settings.mac_prefixes);
        if let (None, Some(prefix)) = (&referred, known) {
            let bmc = pb::Bmc {
                metadata: Some(common::Metadata {
                    name: name.to_owned(),
                    labels: endpoint.value.metadata.labels.clone(),
                    ..Default::default()
                }),
                spec: Some(pb::BmcSpec {
                    endpoint_ref: Some(common::Reference {
                        name: name.to_owned(),
                        uid: String::new(),
                    }),
                    address: endpoint.value.ip.to_string(),
                    credential: prefix.credential.clone(),
                    scheme: prefix.scheme.clone(),
                    port: prefix.port.into(),
                    running_machines: running_machines_to(prefix.running_machines).into(),
                    first_wipe: first_wipe_to(prefix.first_wipe).into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let request = pb::CreateBmcRequest {
                bmc: Some(bmc),
                request_id: format!("endpoint-{}", endpoint.value.metadata.uid),
            };
            app.gateway
                .bmcs
                .clone()
                .create_bmc(request)
                .await
                .map_err(ironyard_peers::PeerError::from)?;
            referred = Some(name.to_owned());
        }
        let now = app.cx.now();
        let change = |endpoint: &mut Endpoint| {
            let (status, reason, message) = match (&referred, known) {
                (Some(bmc), _) => (ConditionStatus::True, "BmcKnown", format!("BMC {bmc} stands here")),
                (None, _) => (
                    ConditionStatus::False,
                    "UnknownPrefix",
                    "no MAC prefix in the configuration fits, and no BMC refers to it".to_owned(),
                ),
            };
            Condition::set(&mut endpoint.conditions, "Recognized", status, reason, &message, now);
            endpoint.bmc = referred.map(Reference::named);
        };
        pass.save(&mut endpoint, now, change).await?;
        Ok(Next::After(Duration::from_secs(300)))
    }
}
