use ironyard_db::Stored;
use ironyard_proto::{common::PowerState as WirePower, inventory as pb};
use ironyard_rpc::{
    Fault,
    convert::{
        condition_to, first_wipe_from, first_wipe_to, hardware_to, health_to, metadata_checked, metadata_to, power_from, power_to,
        reference_from, reference_to, running_machines_from, running_machines_to, timestamp_to, waiting_to,
    },
};
use ironyard_types::{Category, ResourceName, SystemUuid, hardware::PowerState};

use crate::domain::{
    claimability::Toleration,
    lifecycle::{Certificate, Debt, Failure, Forgiven, Part, State},
    server::{BiosSettings, BootOrderEntry, InBand, InlineBmc, Server, Spec, Taint},
};

/// Symbolic boot devices.
const DEVICES: [&str; 5] = ["Network", "Http", "Disk", "Cd", "Usb"];

/// To the wire.
pub fn server_to(stored: Stored<Server>) -> pb::Server {
    let etag = stored.etag();
    let hardware = stored.value.hardware();
    let Stored {
        value,
        version: _,
        created_at,
        updated_at,
    } = stored;
    let Server {
        metadata,
        spec,
        state,
        facts,
        out_of_band: _,
        in_band: _,
        power_state,
        health,
        system_id,
        in_band_at,
        conditions,
        waiting,
    } = value;
    pb::Server {
        metadata: Some(metadata_to(metadata, etag, created_at, updated_at)),
        spec: Some(spec_to(spec)),
        observed: Some(pb::ServerObserved {
            hardware: Some(hardware_to(hardware)),
            power_state: power_to(power_state).into(),
            system_id,
            in_band_time: in_band_at.map(timestamp_to),
            health: health_to(health),
        }),
        state: state_to(state).into(),
        conditions: conditions.into_iter().map(condition_to).collect(),
        claim_ref: facts.claim.map(reference_to),
        maintenance_ref: facts.maintenance.map(reference_to),
        sanitization_debt: facts.debt.map(debt_to),
        waiting_because: waiting.map(waiting_to),
        failure: facts.failure.map(failure_to),
        discovered: facts.discovered,
    }
}

fn debt_to(debt: Debt) -> pb::SanitizationDebt {
    let Debt {
        uid,
        since,
        claim,
        drives,
        minimum,
        retain,
        forgiven,
    } = debt;
    pb::SanitizationDebt {
        uid,
        since: Some(timestamp_to(since)),
        claim_ref: Some(reference_to(claim)),
        minimum: minimum.as_str().to_owned(),
        drive_serial_numbers: drives,
        reclaim_policy: reclaim_to(retain).into(),
        forgiven: forgiven.into_iter().map(forgiven_to).collect(),
    }
}

fn reclaim_to(retain: bool) -> pb::ReclaimPolicy {
    if retain {
        pb::ReclaimPolicy::Retain
    } else {
        pb::ReclaimPolicy::Recycle
    }
}

fn forgiven_to(forgiven: Forgiven) -> pb::ForgivenPart {
    let Forgiven { part, by, reason, at } = forgiven;
    let part = match part {
        Part::Minimum => pb::SanitizationPart::Minimum,
        Part::Retention => pb::SanitizationPart::Retention,
    };
    pb::ForgivenPart {
        part: part.into(),
        actor: by,
        reason,
        time: Some(timestamp_to(at)),
    }
}

/// To the wire.
pub fn state_to(state: State) -> pb::ServerState {
    match state {
        State::Initial => pb::ServerState::Initial,
        State::Discovery => pb::ServerState::Discovery,
        State::Available => pb::ServerState::Available,
        State::Reserved => pb::ServerState::Reserved,
        State::Cleanup => pb::ServerState::Cleanup,
        State::Maintenance => pb::ServerState::Maintenance,
        State::Error => pb::ServerState::Error,
    }
}

fn failure_to(failure: Failure) -> pb::ServerFailure {
    let Failure {
        reason,
        message,
        step,
        attempts,
        failed_in,
        at,
    } = failure;
    pb::ServerFailure {
        reason,
        message,
        step,
        attempts,
        failed_in: state_to(failed_in).into(),
        time: Some(timestamp_to(at)),
    }
}

/// From the wire; the lifecycle sets where it failed.
pub fn failure_from(failure: pb::ServerFailure, at: ironyard_types::Timestamp) -> Failure {
    let pb::ServerFailure {
        reason,
        message,
        step,
        attempts,
        failed_in: _,
        time: _,
    } = failure;
    Failure {
        reason,
        message,
        step,
        attempts,
        failed_in: State::Error,
        at,
    }
}

/// From the wire.
pub fn certificate_from(certificate: pb::CertificateSummary) -> Certificate {
    let pb::CertificateSummary {
        name,
        claim_uid,
        debt_uid,
        drive_serial_numbers,
        passed,
        category,
    } = certificate;
    Certificate {
        name,
        claim_uid,
        debt_uid,
        drives: drive_serial_numbers,
        passed,
        category: Category::parse(&category),
    }
}

/// From the wire.
pub fn toleration_from(at: String, toleration: pb::Toleration) -> Result<Toleration, Fault> {
    let pb::Toleration { key, operator, value } = toleration;
    let exists = match operator.as_str() {
        "" | "Equal" => false,
        "Exists" => true,
        other => {
            return Err(Fault::field(
                format!("{at}.operator"),
                format!("{other:?} is not an operator: use Equal or Exists"),
            ));
        }
    };
    Ok(Toleration { key, exists, value })
}

/// From the wire, checked.
pub fn server_from(server: Option<pb::Server>) -> Result<(Server, String), Fault> {
    let server = server.ok_or_else(|| Fault::field("server", "is missing"))?;
    let etag = server.metadata.as_ref().map(|m| m.etag.clone()).unwrap_or_default();
    let metadata = metadata_checked("server.metadata", server.metadata)?;
    Ok((Server::new(metadata, spec_from(server.spec.unwrap_or_default())?), etag))
}

fn spec_to(spec: Spec) -> pb::ServerSpec {
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
    let reclaim = reclaim_to(retain);
    let in_band = match in_band {
        None => pb::InBandPolicy::Unspecified,
        Some(InBand::Required) => pb::InBandPolicy::Required,
        Some(InBand::Optional) => pb::InBandPolicy::Optional,
        Some(InBand::Off) => pb::InBandPolicy::Off,
    };
    pb::ServerSpec {
        system_uuid: system_uuid.map(|u| u.to_string()).unwrap_or_default(),
        bmc_ref: bmc.map(reference_to),
        bmc: inline_bmc.map(
            |InlineBmc {
                 protocol,
                 scheme,
                 address,
                 port,
                 credential,
             }| pb::InlineBmc {
                protocol,
                scheme,
                address,
                port,
                credential,
            },
        ),
        system_id,
        power: power_to(power).into(),
        boot_order: boot_order
            .into_iter()
            .map(|BootOrderEntry { name, priority, device }| pb::BootOrderEntry { name, priority, device })
            .collect(),
        bios: bios
            .into_iter()
            .map(|BiosSettings { version, settings }| pb::BiosSettings { version, settings })
            .collect(),
        taints: taints
            .into_iter()
            .map(|Taint { key, value, effect }| pb::Taint { key, value, effect })
            .collect(),
        unclaimable,
        reclaim_policy: reclaim.into(),
        locator_led,
        sanitization: (!sanitization_minimum.is_empty()).then_some(pb::SanitizationPolicy {
            minimum: sanitization_minimum,
        }),
        in_band: in_band.into(),
        running_machines: running_machines_to(running_machines).into(),
        first_wipe: first_wipe_to(first_wipe).into(),
    }
}

fn spec_from(spec: pb::ServerSpec) -> Result<Spec, Fault> {
    let (power, reclaim, in_band) = (spec.power(), spec.reclaim_policy(), spec.in_band());
    let running_machines = running_machines_from(spec.running_machines());
    let first_wipe = first_wipe_from(spec.first_wipe());
    let pb::ServerSpec {
        system_uuid,
        bmc_ref,
        bmc,
        system_id,
        power: _,
        boot_order,
        bios,
        taints,
        unclaimable,
        reclaim_policy: _,
        locator_led,
        sanitization,
        in_band: _,
        running_machines: _,
        first_wipe: _,
    } = spec;
    let uuid = (!system_uuid.is_empty()).then(|| SystemUuid::parse(&system_uuid)).transpose();
    let system_uuid = uuid.map_err(|e| Fault::field("server.spec.system_uuid", e))?;
    if bmc_ref.is_some() && bmc.is_some() {
        return Err(Fault::field("server.spec.bmc", "give either bmc_ref or bmc, not both"));
    }
    if let Some(reference) = &bmc_ref {
        ResourceName::parse(&reference.name).map_err(|e| Fault::field("server.spec.bmc_ref.name", e))?;
    }
    let power = match power_from(power) {
        None => None,
        Some(state @ (PowerState::On | PowerState::Off)) => Some(state),
        Some(PowerState::PoweringOn | PowerState::PoweringOff) => {
            let problem = format!(
                "{} cannot be wanted: use ON or OFF",
                WirePower::as_str_name(&power_to(power_from(power)))
            );
            return Err(Fault::field("server.spec.power", problem));
        }
    };
    let inline_bmc = bmc.map(inline_from).transpose()?;
    let mut order = Vec::new();
    for (i, pb::BootOrderEntry { name, priority, device }) in boot_order.into_iter().enumerate() {
        if !DEVICES.contains(&device.as_str()) {
            let problem = format!("{device:?} is not a device: use {}", DEVICES.join(", "));
            return Err(Fault::field(format!("server.spec.boot_order[{i}].device"), problem));
        }
        order.push(BootOrderEntry { name, priority, device });
    }
    let mut kept = Vec::new();
    for (i, pb::Taint { key, value, effect }) in taints.into_iter().enumerate() {
        if key.is_empty() || !matches!(effect.as_str(), "" | "NoClaim") {
            return Err(Fault::field(
                format!("server.spec.taints[{i}]"),
                "needs a key, and the effect NoClaim",
            ));
        }
        kept.push(Taint {
            key,
            value,
            effect: "NoClaim".to_owned(),
        });
    }
    let sanitization_minimum = sanitization.map(|s| s.minimum).unwrap_or_default();
    if !matches!(sanitization_minimum.as_str(), "" | "Clear" | "Purge") {
        let problem = format!("{sanitization_minimum:?} is not a category: use Clear or Purge");
        return Err(Fault::field("server.spec.sanitization.minimum", problem));
    }
    Ok(Spec {
        system_uuid,
        bmc: bmc_ref.map(reference_from),
        inline_bmc,
        system_id,
        power,
        boot_order: order,
        bios: bios
            .into_iter()
            .map(|pb::BiosSettings { version, settings }| BiosSettings { version, settings })
            .collect(),
        taints: kept,
        unclaimable,
        retain: match reclaim {
            pb::ReclaimPolicy::Retain => true,
            pb::ReclaimPolicy::Recycle | pb::ReclaimPolicy::Unspecified => false,
        },
        locator_led,
        sanitization_minimum,
        in_band: match in_band {
            pb::InBandPolicy::Unspecified => None,
            pb::InBandPolicy::Required => Some(InBand::Required),
            pb::InBandPolicy::Optional => Some(InBand::Optional),
            pb::InBandPolicy::Off => Some(InBand::Off),
        },
        running_machines,
        first_wipe,
    })
}

fn inline_from(bmc: pb::InlineBmc) -> Result<InlineBmc, Fault> {
    let pb::InlineBmc {
        protocol,
        scheme,
        address,
        port,
        credential,
    } = bmc;
    if !matches!(protocol.as_str(), "" | "Redfish") {
        return Err(Fault::field(
            "server.spec.bmc.protocol",
            format!("{protocol:?} is not supported: use Redfish"),
        ));
    }
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        return Err(Fault::field(
            "server.spec.bmc.scheme",
            format!("{scheme:?} is not a scheme: use https or http"),
        ));
    }
    if address.is_empty() {
        return Err(Fault::field("server.spec.bmc.address", "is missing"));
    }
    if !(0..=65535).contains(&port) {
        return Err(Fault::field("server.spec.bmc.port", "must lie between 0 and 65535"));
    }
    Ok(InlineBmc {
        protocol,
        scheme,
        address,
        port,
        credential,
    })
}
