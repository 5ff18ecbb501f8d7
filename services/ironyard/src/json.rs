//! Messages as JSON, in protobuf's own mapping.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(ironyard_proto::DESCRIPTORS).unwrap_or_default())
}

/// A message of this full name as JSON; Null when the name is unknown.
pub fn to_json<M: prost::Message>(full_name: &str, message: &M) -> Value {
    let Some(descriptor) = pool().get_message_by_name(full_name) else {
        return Value::Null;
    };
    match DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()) {
        Ok(dynamic) => serde_json::to_value(dynamic).unwrap_or(Value::Null),
        Err(_) => Value::Null,
    }
}

/// The text at a JSON pointer, without an enum's prefix; empty when absent.
pub fn text_at(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => plain(text),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(Value::Null | Value::Object(_)) | None => String::new(),
    }
}

/// The values of the enum of this full name, as people write them.
pub fn enum_words(full_name: &str) -> Vec<String> {
    let values = pool().get_enum_by_name(full_name);
    let words = values
        .iter()
        .flat_map(|of| of.values().map(|value| plain(value.name())).collect::<Vec<_>>());
    words.filter(|word| !word.is_empty()).collect()
}

/// `SERVER_STATE_AVAILABLE` as `Available`.
pub fn plain(text: &str) -> String {
    let prefixes = [
        "SERVER_STATE_",
        "POWER_STATE_",
        "CLAIM_PHASE_",
        "MAINTENANCE_PHASE_",
        "CONDITION_STATUS_",
        "HEALTH_",
    ];
    match prefixes.iter().find_map(|p| text.strip_prefix(p)) {
        Some("UNSPECIFIED") => String::new(),
        Some(rest) => rest.split('_').map(capital).collect(),
        None => text.to_owned(),
    }
}

fn capital(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let mut chars = lower.chars();
    chars
        .next()
        .map(|c| c.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}
