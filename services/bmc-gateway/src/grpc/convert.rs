//! Wire ↔ domain.

use ironyard_db::Stored;
use ironyard_operation::{Failure, Operation};
use ironyard_proto::{bmc as pb, common};
use ironyard_rpc::{
    Fault,
    convert::{
        condition_to, first_wipe_from, first_wipe_to, health_to, metadata_checked, metadata_to, power_to, reference_from, reference_to,
        running_machines_from, running_machines_to, timestamp_to,
    },
};
use ironyard_types::{MacAddress, ResourceName};

use crate::domain::bmc::{Bmc, Observed, Spec, SystemStatus, TlsTrust, TlsWeakness};

/// To the wire.
pub fn bmc_to(stored: Stored<Bmc>) -> pb::Bmc {
    let etag = stored.etag();
    let Stored {
        value,
        version: _,
        created_at,
        updated_at,
    } = stored;
    let Bmc {
        metadata,
        spec,
        observed,
        conditions,
    } = value;
    let Spec {
        address,
        endpoint,
        mac,
        credential,
        scheme,
        port,
        trust,
        certificate_sha256,
        console_protocol,
        console_port,
        console_host_key,
        running_machines,
        first_wipe,
        weaknesses,
    } = spec;
    let Observed {
        vendor,
        product,
        redfish_version,
        firmware_version,
        certificate_sha256: seen,
        systems,
        family,
        model,
        serial_number,
        statuses,
        next_certificate_sha256: _,
        refused_credential: _,
        console_host_key: _,
        last_contact,
    } = observed;
    let trust = match trust {
        None => pb::TlsTrust::Unspecified,
        Some(TlsTrust::Ca) => pb::TlsTrust::Ca,
        Some(TlsTrust::Pin) => pb::TlsTrust::Pin,
        Some(TlsTrust::FirstUse) => pb::TlsTrust::FirstUse,
        Some(TlsTrust::Insecure) => pb::TlsTrust::Insecure,
    };
    pb::Bmc {
        metadata: Some(metadata_to(metadata, etag, created_at, updated_at)),
        spec: Some(pb::BmcSpec {
            address,
            endpoint_ref: endpoint.map(reference_to),
            credential,
            protocol: "Redfish".to_owned(),
            scheme,
            port: port.into(),
            tls_trust: trust.into(),
            certificate_sha256,
            console_protocol,
            console_port: console_port.into(),
            console_host_key,
            mac_address: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            running_machines: running_machines_to(running_machines).into(),
            first_wipe: first_wipe_to(first_wipe).into(),
            tls_weaknesses: weaknesses.into_iter().map(|weakness| weakness_to(weakness).into()).collect(),
        }),
        observed: Some(pb::BmcObserved {
            vendor,
            product,
            redfish_version,
            certificate_sha256: seen,
            systems,
            last_contact_time: last_contact.map(timestamp_to),
            firmware_version,
            family,
            model,
            serial_number,
            system_status: statuses.into_iter().map(status_to).collect(),
        }),
        conditions: conditions.into_iter().map(condition_to).collect(),
    }
}

fn weakness_to(weakness: TlsWeakness) -> pb::TlsWeakness {
    match weakness {
        TlsWeakness::Rsa1024 => pb::TlsWeakness::Rsa1024,
        TlsWeakness::X509V1 => pb::TlsWeakness::X509V1,
    }
}

fn status_to(status: SystemStatus) -> pb::SystemStatus {
    let SystemStatus { id, power, health } = status;
    pb::SystemStatus {
        system_id: id,
        power_state: power_to(power).into(),
        health: health_to(health),
    }
}

/// From the wire, checked; with the etag that was sent.
pub fn bmc_from(bmc: Option<pb::Bmc>) -> Result<(Bmc, String), Fault> {
    let bmc = bmc.ok_or_else(|| Fault::field("bmc", "is missing"))?;
    let etag = bmc.metadata.as_ref().map(|m| m.etag.clone()).unwrap_or_default();
    let metadata = metadata_checked("bmc.metadata", bmc.metadata)?;
    let spec = spec_from(bmc.spec.unwrap_or_default())?;
    Ok((
        Bmc {
            metadata,
            spec,
            observed: Observed::default(),
            conditions: vec![],
        },
        etag,
    ))
}

fn spec_from(spec: pb::BmcSpec) -> Result<Spec, Fault> {
    let trust = match spec.tls_trust() {
        pb::TlsTrust::Unspecified => None,
        pb::TlsTrust::Ca => Some(TlsTrust::Ca),
        pb::TlsTrust::Pin => Some(TlsTrust::Pin),
        pb::TlsTrust::FirstUse => Some(TlsTrust::FirstUse),
        pb::TlsTrust::Insecure => Some(TlsTrust::Insecure),
    };
    let running_machines = running_machines_from(spec.running_machines());
    let first_wipe = first_wipe_from(spec.first_wipe());
    let mut weaknesses = vec![];
    for weakness in spec.tls_weaknesses() {
        weaknesses.push(match weakness {
            pb::TlsWeakness::Unspecified => {
                let why = "is not a weakness: use TLS_WEAKNESS_RSA_1024 or TLS_WEAKNESS_X509_V1";
                return Err(Fault::field("bmc.spec.tls_weaknesses", why));
            }
            pb::TlsWeakness::Rsa1024 => TlsWeakness::Rsa1024,
            pb::TlsWeakness::X509V1 => TlsWeakness::X509V1,
        });
    }
    weaknesses.sort_unstable();
    weaknesses.dedup();
    let pb::BmcSpec {
        address,
        endpoint_ref,
        credential,
        protocol,
        scheme,
        port: number,
        tls_trust: _,
        certificate_sha256,
        console_protocol,
        console_port,
        console_host_key,
        mac_address,
        running_machines: _,
        first_wipe: _,
        tls_weaknesses: _,
    } = spec;
    let mac = match mac_address.as_str() {
        "" => None,
        mac => Some(MacAddress::parse(mac).map_err(|e| Fault::field("bmc.spec.mac_address", e))?),
    };
    let port = |field: &str, port: i32| u16::try_from(port).map_err(|_| Fault::field(field, "must lie between 0 and 65535"));
    if !matches!(protocol.as_str(), "" | "Redfish") {
        return Err(Fault::field(
            "bmc.spec.protocol",
            format!("{protocol:?} is not supported: use Redfish"),
        ));
    }
    let scheme = match scheme.as_str() {
        "" => "https".to_owned(),
        "http" | "https" => scheme,
        other => {
            return Err(Fault::field(
                "bmc.spec.scheme",
                format!("{other:?} is not a scheme: use https or http"),
            ));
        }
    };
    if !matches!(console_protocol.as_str(), "" | "SSH" | "IPMI" | "SSHLenovo") {
        return Err(Fault::field(
            "bmc.spec.console_protocol",
            format!("{console_protocol:?} is not supported: use SSH, IPMI or SSHLenovo"),
        ));
    }
    if address.is_empty() && endpoint_ref.is_none() && mac.is_none() {
        let why = "give an address, a mac_address or an endpoint_ref";
        return Err(Fault::field("bmc.spec.address", why));
    }
    if address.len() > 253 || !address.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-')) {
        return Err(Fault::field(
            "bmc.spec.address",
            format!("{address:?} is not a host name or address"),
        ));
    }
    if !console_host_key.is_empty() && !console_host_key.starts_with("SHA256:") {
        return Err(Fault::field(
            "bmc.spec.console_host_key",
            "must begin with SHA256:, as ssh-keygen -l shows it",
        ));
    }
    if !credential.is_empty() {
        ResourceName::parse(&credential).map_err(|e| Fault::field("bmc.spec.credential", e))?;
    }
    let is_hash = certificate_sha256.len() == 64 && certificate_sha256.chars().all(|c| c.is_ascii_hexdigit());
    if trust == Some(TlsTrust::Pin) && !is_hash {
        return Err(Fault::field("bmc.spec.certificate_sha256", "a pin needs 64 hex digits"));
    }
    Ok(Spec {
        address,
        endpoint: endpoint_ref.map(reference_from),
        mac,
        credential,
        scheme,
        port: port("bmc.spec.port", number)?,
        trust,
        certificate_sha256,
        console_protocol,
        console_port: port("bmc.spec.console_port", console_port)?,
        console_host_key,
        running_machines,
        first_wipe,
        weaknesses,
    })
}

/// What a specification as a whole must hold.
pub fn check_spec(spec: &Spec) -> Result<(), Fault> {
    if !spec.weaknesses.is_empty() && spec.trust != Some(TlsTrust::Pin) {
        let why = "are put up with only together with TLS_TRUST_PIN and certificate_sha256: of that one certificate, and no other";
        return Err(Fault::field("bmc.spec.tls_weaknesses", why));
    }
    Ok(())
}

/// To the wire.
pub fn operation_to(stored: Stored<Operation>) -> common::Operation {
    let Stored {
        value,
        version,
        created_at,
        updated_at,
    } = stored;
    let Operation {
        metadata,
        verb,
        target,
        request: _,
        progress: _,
        percent,
        phase,
        facts,
        blocked_since: _,
        done,
        failure,
        cancel: _,
        cancelled_by: _,
        line: _,
        traceparent: _,
    } = value;
    common::Operation {
        name: metadata.name,
        verb,
        target,
        done,
        progress_percent: percent,
        phase,
        error: failure.map(|Failure { code, reason, message }| common::OperationError { code, reason, message }),
        metadata: facts,
        create_time: Some(timestamp_to(created_at)),
        update_time: Some(timestamp_to(updated_at)),
        version,
    }
}
