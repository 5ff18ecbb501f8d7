//! Wire ↔ domain.

use ironyard_db::Stored;
use ironyard_proto::claim as pb;
use ironyard_rpc::{
    Fault,
    convert::{metadata_checked, metadata_to, power_from, power_to, reference_to, selector_from, selector_to, timestamp_to, waiting_to},
    current_traceparent,
};
use ironyard_types::{ResourceName, hardware::PowerState, sampling::Sample};

use crate::domain::{
    cleanup::{Certificate, CleanupRun},
    evidence::{DriveEvidence, Evidence},
    sanitize::Job,
    server_claim::{Phase, ServerClaim, Spec},
};

/// To the wire.
pub fn claim_to(stored: Stored<ServerClaim>) -> pb::ServerClaim {
    let etag = stored.etag();
    let Stored {
        value,
        version: _,
        created_at,
        updated_at,
    } = stored;
    let ServerClaim {
        metadata,
        spec,
        phase,
        server,
        waiting,
        bound_at,
        power_state,
        applied: _,
        traceparent: _,
    } = value;
    let phase = match (phase, metadata.deleted_at) {
        (_, Some(_)) | (Phase::Releasing, None) => pb::ClaimPhase::Releasing,
        (Phase::Pending, None) => pb::ClaimPhase::Pending,
        (Phase::Bound, None) => pb::ClaimPhase::Bound,
    };
    let Spec {
        server: server_ref,
        selector,
        power,
        image,
        ignition,
        tolerations,
        adopt,
    } = spec;
    pb::ServerClaim {
        metadata: Some(metadata_to(metadata, etag, created_at, updated_at)),
        spec: Some(pb::ServerClaimSpec {
            server_ref: server_ref.map(|name| ironyard_proto::common::Reference { name, uid: String::new() }),
            server_selector: (!selector.is_empty()).then(|| selector_to(selector)),
            power: power_to(power).into(),
            image,
            ignition,
            tolerations: tolerations
                .into_iter()
                .map(|(key, operator, value)| pb::ClaimToleration { key, operator, value })
                .collect(),
            adopt,
        }),
        phase: phase.into(),
        bound_server: server.map(reference_to),
        waiting_because: waiting.map(waiting_to),
        bound_time: bound_at.map(timestamp_to),
        power_state: power_to(power_state).into(),
    }
}

/// From the wire, checked; with the etag that was sent.
pub fn claim_from(claim: Option<pb::ServerClaim>) -> Result<(ServerClaim, String), Fault> {
    let claim = claim.ok_or_else(|| Fault::field("server_claim", "is missing"))?;
    let etag = claim.metadata.as_ref().map(|m| m.etag.clone()).unwrap_or_default();
    let metadata = metadata_checked("server_claim.metadata", claim.metadata)?;
    let spec = claim.spec.unwrap_or_default();
    let power = power_from(spec.power());
    let pb::ServerClaimSpec {
        server_ref,
        server_selector,
        power: _,
        image,
        ignition,
        tolerations,
        adopt,
    } = spec;
    if adopt && server_ref.is_none() {
        return Err(Fault::field("server_claim.spec.server_ref", "name the server that is adopted"));
    }
    if server_ref.is_some() && server_selector.is_some() {
        return Err(Fault::field(
            "server_claim.spec.server_selector",
            "give either server_ref or server_selector, not both",
        ));
    }
    if let Some(reference) = &server_ref {
        ResourceName::parse(&reference.name).map_err(|e| Fault::field("server_claim.spec.server_ref.name", e))?;
    }
    if matches!(power, Some(PowerState::PoweringOn | PowerState::PoweringOff)) {
        return Err(Fault::field("server_claim.spec.power", "use ON or OFF"));
    }
    if image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Fault::field("server_claim.spec.image", "must have no spaces"));
    }
    for (i, toleration) in tolerations.iter().enumerate() {
        if !matches!(toleration.operator.as_str(), "" | "Equal" | "Exists") {
            return Err(Fault::field(
                format!("server_claim.spec.tolerations[{i}].operator"),
                "use Equal or Exists",
            ));
        }
    }
    let spec = Spec {
        server: server_ref.map(|r| r.name),
        selector: selector_from("server_claim.spec.server_selector", server_selector)?,
        power,
        image,
        ignition,
        tolerations: tolerations
            .into_iter()
            .map(|pb::ClaimToleration { key, operator, value }| (key, operator, value))
            .collect(),
        adopt,
    };
    let claim = ServerClaim {
        traceparent: current_traceparent(),
        ..ServerClaim::new(metadata, spec)
    };
    Ok((claim, etag))
}

/// To the wire.
pub fn certificate_to(stored: Stored<Certificate>) -> pb::SanitizationCertificate {
    let Certificate {
        metadata,
        server,
        claim,
        system_uuid,
        passed,
        drives,
        started_at,
        issued_at,
        performed_by,
        minimum,
        reclaim_policy,
        forgiven,
        failure,
    } = stored.value;
    let drive = |job: Job| {
        let (passed, evidence) = (job.passed(), job.evidence());
        let Job {
            serial,
            model,
            capacity,
            method,
            erased: _,
            verified: _,
            findings,
            operation: _,
            note,
            answer_lost: _,
            erase_commands: _,
            erased_with,
            tried,
        } = job;
        pb::DriveSanitization {
            serial_number: serial,
            model,
            capacity_bytes: capacity,
            category: method.category.as_str().to_owned(),
            method: method.kind,
            tool: method.tool.as_str().to_owned(),
            passed,
            verification: note,
            evidence: evidence.into_iter().map(str::to_owned).collect(),
            places_read: findings.as_ref().map_or(0, |f| f.places.into()),
            places_blank: findings.as_ref().map_or(0, |f| f.blank.into()),
            places_changed: findings.as_ref().map_or(0, |f| f.changed.into()),
            erase_command: erased_with.map(|command| command.as_str().to_owned()).unwrap_or_default(),
            tried,
        }
    };
    pb::SanitizationCertificate {
        name: metadata.name,
        server: Some(reference_to(server)),
        claim: Some(reference_to(claim)),
        system_uuid,
        passed,
        drives: drives.into_iter().map(drive).collect(),
        start_time: Some(timestamp_to(started_at)),
        issue_time: Some(timestamp_to(issued_at)),
        performed_by,
        minimum: minimum.as_str().to_owned(),
        reclaim_policy,
        forgiven,
        failure,
    }
}

/// To the wire.
pub fn evidence_to(evidence: Evidence) -> pb::SanitizationEvidence {
    let Evidence {
        metadata,
        server,
        seed,
        fresh_seed,
        drives,
    } = evidence;
    let sample = |Sample { block, digest }| pb::PlaceSample {
        block: i64::try_from(block).unwrap_or(i64::MAX),
        digest,
    };
    let drive = |DriveEvidence { serial, before, after }| pb::DriveEvidence {
        serial_number: serial,
        before: before.into_iter().map(sample).collect(),
        after: after.into_iter().map(sample).collect(),
    };
    pb::SanitizationEvidence {
        certificate: metadata.name,
        server,
        seed,
        fresh_seed,
        drives: drives.into_iter().map(drive).collect(),
    }
}

/// To the wire.
pub fn run_to(stored: Stored<CleanupRun>) -> pb::CleanupRun {
    let run = stored.value;
    pb::CleanupRun {
        outcome: run.outcome().to_owned(),
        failure: run.why(),
        name: run.metadata.name,
        server: Some(reference_to(run.server)),
        claim: Some(reference_to(run.claim)),
        step: format!("{:?}", run.step),
        done: run.done,
        certificate: run.certificate,
        waiting_because: run.waiting.map(waiting_to),
        create_time: Some(timestamp_to(run.started_at)),
    }
}
