use ironyard_db::Stored;
use ironyard_operation::Request;
use ironyard_resource::{Context, Mask};
use ironyard_rpc::Fault;
use ironyard_types::Metadata;

use super::change;
use crate::{
    domain::server::{Server, Spec},
    store::history::Entry,
};

/// Fields that an update may name.
pub const FIELDS: &[&str] = &[
    "metadata.labels",
    "metadata.annotations",
    "spec",
    "spec.system_uuid",
    "spec.bmc_ref",
    "spec.bmc",
    "spec.system_id",
    "spec.power",
    "spec.boot_order",
    "spec.bios",
    "spec.taints",
    "spec.unclaimable",
    "spec.reclaim_policy",
    "spec.locator_led",
    "spec.sanitization",
    "spec.in_band",
    "spec.running_machines",
    "spec.first_wipe",
];

/// Changes what the user wants. The machine behind a server cannot be exchanged for another one.
pub async fn update_server(
    cx: &Context,
    request: &Request,
    metadata: Metadata,
    etag: &str,
    spec: Spec,
    mask: &Mask,
    actor: &str,
) -> Result<Stored<Server>, Fault> {
    let name = metadata.name.clone();
    let now = cx.now();
    change(cx, request, &name, etag, |server| {
        let before = server.spec.clone();
        mask.apply("metadata.labels", &mut server.metadata.labels, metadata.labels);
        mask.apply("metadata.annotations", &mut server.metadata.annotations, metadata.annotations);
        let Spec {
            system_uuid,
            bmc,
            inline_bmc,
            system_id,
            power,
            boot_order,
            bios,
            taints,
            unclaimable,
            retain,
            locator_led,
            sanitization_minimum,
            in_band,
            running_machines,
            first_wipe,
        } = spec;
        // An identity that is known stays: leaving it out leaves it alone, another one is another machine.
        if mask.covers("spec.system_uuid") && system_uuid.is_some() && system_uuid != server.spec.system_uuid {
            if server.facts.claim.is_some() || server.facts.debt.is_some() {
                return Err(Fault::field(
                    "server.spec.system_uuid",
                    "cannot change while the server is claimed or owes a wipe",
                ));
            }
            if server.spec.system_uuid.is_some() {
                return Err(Fault::field(
                    "server.spec.system_uuid",
                    "cannot change: another UUID is another server",
                ));
            }
            server.spec.system_uuid = system_uuid;
        }
        let held = server.facts.claim.is_some() || server.facts.debt.is_some();
        let given = bmc.is_some() || inline_bmc.is_some();
        if (mask.covers("spec.bmc_ref") || mask.covers("spec.bmc")) && given {
            // The reference that discovery made of an inline BMC goes on pointing at it.
            let bmc = if inline_bmc.is_some() && bmc.is_none() {
                server.spec.bmc.clone()
            } else {
                bmc
            };
            if held && bmc != server.spec.bmc {
                return Err(Fault::field(
                    "server.spec.bmc_ref",
                    "cannot change while the server is claimed or owes a wipe",
                ));
            }
            server.spec.bmc = bmc;
            server.spec.inline_bmc = inline_bmc;
        }
        if mask.covers("spec.system_id") && !system_id.is_empty() && system_id != server.spec.system_id {
            if held {
                return Err(Fault::field(
                    "server.spec.system_id",
                    "cannot change while the server is claimed or owes a wipe",
                ));
            }
            server.spec.system_id = system_id;
        }
        let to = &mut server.spec;
        mask.apply("spec.power", &mut to.power, power);
        mask.apply("spec.boot_order", &mut to.boot_order, boot_order);
        mask.apply("spec.bios", &mut to.bios, bios);
        mask.apply("spec.taints", &mut to.taints, taints);
        mask.apply("spec.unclaimable", &mut to.unclaimable, unclaimable);
        mask.apply("spec.reclaim_policy", &mut to.retain, retain);
        mask.apply("spec.locator_led", &mut to.locator_led, locator_led);
        mask.apply("spec.sanitization", &mut to.sanitization_minimum, sanitization_minimum);
        mask.apply("spec.in_band", &mut to.in_band, in_band);
        mask.apply("spec.running_machines", &mut to.running_machines, running_machines);
        mask.apply("spec.first_wipe", &mut to.first_wipe, first_wipe);
        let entry = |reason| Entry {
            event: "Update".to_owned(),
            from: Some(server.state),
            to: Some(server.state),
            actor: actor.to_owned(),
            reason,
            at: now,
        };
        Ok(server.spec.changes_since(&before).map(entry))
    })
    .await
}
