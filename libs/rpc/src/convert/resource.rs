use ironyard_proto::common as pb;
use ironyard_types::{
    Condition, ConditionStatus, Metadata, Reference, ResourceName, Timestamp, Waiting,
    labels::{Requirement, Selector, check_annotations, check_labels},
};

use crate::Fault;

/// To the wire.
pub fn timestamp_to(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000),
        nanos,
    }
}

/// From the wire.
pub fn timestamp_from(at: prost_types::Timestamp) -> Timestamp {
    Timestamp(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1000))
}

/// To the wire, with what the row knows.
pub fn metadata_to(metadata: Metadata, etag: String, created_at: Timestamp, updated_at: Timestamp) -> pb::Metadata {
    let Metadata {
        name,
        uid,
        labels,
        annotations,
        deleted_at,
    } = metadata;
    pb::Metadata {
        name,
        uid,
        etag,
        labels,
        annotations,
        create_time: Some(timestamp_to(created_at)),
        update_time: Some(timestamp_to(updated_at)),
        delete_time: deleted_at.map(timestamp_to),
    }
}

/// From the wire, for a new resource: the name and the labels are checked, the uid is fresh. `at` is the field path.
pub fn metadata_checked(at: &str, metadata: Option<pb::Metadata>) -> Result<Metadata, Fault> {
    let metadata = metadata.ok_or_else(|| Fault::field(at, "is missing"))?;
    let pb::Metadata {
        name,
        uid: _,
        etag: _,
        labels,
        annotations,
        create_time: _,
        update_time: _,
        delete_time: _,
    } = metadata;
    let name = ResourceName::parse(&name).map_err(|e| Fault::field(format!("{at}.name"), e))?;
    labels_checked(&format!("{at}.labels"), &labels)?;
    check_annotations(&annotations).map_err(|e| Fault::field(format!("{at}.annotations"), e))?;
    Ok(Metadata {
        name: name.to_string(),
        uid: ironyard_types::random_id(),
        labels,
        annotations,
        deleted_at: None,
    })
}

/// Checks labels.
pub fn labels_checked(at: &str, labels: &ironyard_types::labels::Labels) -> Result<(), Fault> {
    check_labels(labels).map_err(|e| Fault::field(at, e))
}

/// To the wire.
pub fn reference_to(reference: Reference) -> pb::Reference {
    let Reference { name, uid } = reference;
    pb::Reference { name, uid }
}

/// From the wire.
pub fn reference_from(reference: pb::Reference) -> Reference {
    let pb::Reference { name, uid } = reference;
    Reference { name, uid }
}

/// To the wire.
pub fn waiting_to(waiting: Waiting) -> pb::WaitingBecause {
    let Waiting {
        reason,
        message,
        since,
        next_attempt,
        attempts,
    } = waiting;
    pb::WaitingBecause {
        reason,
        message,
        since: Some(timestamp_to(since)),
        next_attempt_time: next_attempt.map(timestamp_to),
        attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
    }
}

/// From the wire.
pub fn waiting_from(waiting: pb::WaitingBecause) -> Waiting {
    let pb::WaitingBecause {
        reason,
        message,
        since,
        next_attempt_time,
        attempts,
    } = waiting;
    Waiting {
        reason,
        message,
        since: since.map(timestamp_from).unwrap_or_default(),
        next_attempt: next_attempt_time.map(timestamp_from),
        attempts: u32::try_from(attempts).unwrap_or(0),
    }
}

/// To the wire.
pub fn condition_to(condition: Condition) -> pb::Condition {
    let Condition {
        kind,
        status,
        reason,
        message,
        changed_at,
    } = condition;
    let status = match status {
        ConditionStatus::True => pb::ConditionStatus::True,
        ConditionStatus::False => pb::ConditionStatus::False,
        ConditionStatus::Unknown => pb::ConditionStatus::Unknown,
    };
    pb::Condition {
        r#type: kind,
        status: status.into(),
        reason,
        message,
        last_transition_time: Some(timestamp_to(changed_at)),
    }
}

/// From the wire.
pub fn condition_from(condition: pb::Condition) -> Condition {
    let status = match condition.status() {
        pb::ConditionStatus::True => ConditionStatus::True,
        pb::ConditionStatus::False => ConditionStatus::False,
        pb::ConditionStatus::Unknown | pb::ConditionStatus::Unspecified => ConditionStatus::Unknown,
    };
    let pb::Condition {
        r#type: kind,
        status: _,
        reason,
        message,
        last_transition_time,
    } = condition;
    Condition {
        kind,
        status,
        reason,
        message,
        changed_at: last_transition_time.map(timestamp_from).unwrap_or_default(),
    }
}

/// From the wire, checked. `at` is the field path.
pub fn selector_from(at: &str, selector: Option<pb::LabelSelector>) -> Result<Selector, Fault> {
    let pb::LabelSelector {
        match_labels,
        match_expressions,
    } = selector.unwrap_or_default();
    let mut requirements = Vec::new();
    for (i, expression) in match_expressions.into_iter().enumerate() {
        let pb::LabelRequirement { key, operator, values } = expression;
        let requirement = Requirement::parse(&key, &operator, values);
        requirements.push(requirement.map_err(|e| Fault::field(format!("{at}.match_expressions[{i}]"), e))?);
    }
    let selector = Selector {
        match_labels,
        requirements,
    };
    selector.check().map_err(|e| Fault::field(format!("{at}.match_labels"), e))?;
    Ok(selector)
}

/// To the wire.
pub fn selector_to(selector: Selector) -> pb::LabelSelector {
    let Selector {
        match_labels,
        requirements,
    } = selector;
    let expression = |r| {
        let (key, operator, values) = match r {
            Requirement::In(key, values) => (key, "In", values),
            Requirement::NotIn(key, values) => (key, "NotIn", values),
            Requirement::Exists(key) => (key, "Exists", vec![]),
            Requirement::DoesNotExist(key) => (key, "DoesNotExist", vec![]),
        };
        pb::LabelRequirement {
            key,
            operator: operator.to_owned(),
            values,
        }
    };
    pb::LabelSelector {
        match_labels,
        match_expressions: requirements.into_iter().map(expression).collect(),
    }
}
