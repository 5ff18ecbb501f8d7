use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The answer comes this many milliseconds late.
    Latency(u64),
    /// What was asked for is done, and the answer comes this many milliseconds late.
    LatencyAfter(u64),
    /// This status and an error body.
    Status(u16),
    /// This status with a message id, as families send it.
    Refuse(u16, String),
    /// This status with a `Retry-After` header.
    RetryAfter(u16, String),
    /// No answer, ever; what was asked for is not done.
    Hang,
    /// What was asked for is done, and no answer comes, ever.
    HangAfter,
    /// The connection is closed.
    Drop,
    /// What was asked for is done, and the connection is closed.
    DropAfter,
    /// The connection is closed in the middle of the body.
    DropMiddle,
    /// Half of the body.
    Truncate,
    /// A body of this many bytes.
    Oversize(usize),
    /// A small compressed body that becomes this many bytes.
    GzipBomb(usize),
    /// This many arrays in each other.
    Deep(usize),
    /// One byte a second.
    Drip,
    /// HTML.
    Html,
    /// A JSON array where an object belongs.
    NotAnObject,
    /// Numbers where texts belong, and the other way round.
    WrongTypes,
    /// Nothing but what begins with `@`.
    MissingFields,
    /// Every member and link twice.
    DuplicateIds,
    /// Every link leads back to where it is.
    LinkCycle,
    /// Every page has a next one.
    EndlessNext,
    /// A redirect to this place.
    Redirect(String),
    /// Links and targets to another host.
    LinksElsewhere,
    /// Texts full of control characters, and long.
    ControlCharacters,
    /// Nothing, with 200.
    Empty,
    /// Other values for these fields, in documents that have all of them.
    Fields(Map<String, Value>),
}

/// Which requests an action hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method; absent: every.
    #[serde(default)]
    pub method: Option<String>,
    /// Beginning of the path, as it is in a BMC without quirks.
    pub path: String,
    /// What goes wrong.
    pub action: Action,
    /// How often; absent: always.
    #[serde(default)]
    pub remaining: Option<u32>,
}

/// Takes the action that hits this request, counting it down.
pub(crate) fn take(rules: &mut Vec<Rule>, method: &str, path: &str) -> Option<Action> {
    let hit = rules
        .iter_mut()
        .find(|r| r.method.as_deref().is_none_or(|m| m == method) && path.starts_with(&r.path))?;
    let action = hit.action.clone();
    if let Some(left) = &mut hit.remaining {
        *left = left.saturating_sub(1);
    }
    rules.retain(|r| r.remaining != Some(0));
    Some(action)
}

/// Spoils a body.
pub(crate) fn spoil(action: &Action, path: &str, body: &mut Value) {
    match action {
        Action::WrongTypes => {
            if let Value::Object(map) = body {
                for (key, value) in map.iter_mut().filter(|(key, _)| !key.starts_with('@')) {
                    *value = if value.is_string() { json!(7) } else { json!(key) };
                }
            }
        }
        Action::MissingFields => {
            if let Value::Object(map) = body {
                map.retain(|key, _| key.starts_with('@'));
            }
        }
        Action::Fields(fields) => {
            if let Value::Object(map) = body
                && fields.keys().all(|key| map.contains_key(key))
            {
                map.extend(fields.clone());
            }
        }
        Action::NotAnObject => *body = json!([body.take()]),
        Action::EndlessNext => {
            let n: u64 = path.rsplit("page=").next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let base = path.split('?').next().unwrap_or(path);
            if body.get("Members").is_some() {
                body["Members@odata.nextLink"] = json!(format!("{base}?page={}", n + 1));
            }
        }
        Action::DuplicateIds | Action::LinkCycle | Action::LinksElsewhere | Action::ControlCharacters => walk(action, path, body),
        Action::Latency(_)
        | Action::LatencyAfter(_)
        | Action::Status(_)
        | Action::Refuse(..)
        | Action::RetryAfter(..)
        | Action::Hang
        | Action::HangAfter
        | Action::Drop
        | Action::DropAfter
        | Action::DropMiddle
        | Action::Truncate
        | Action::Oversize(_)
        | Action::GzipBomb(_)
        | Action::Deep(_)
        | Action::Drip
        | Action::Html
        | Action::Redirect(_)
        | Action::Empty => {}
    }
}

fn walk(action: &Action, path: &str, value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.iter_mut().for_each(|v| walk(action, path, v));
            if *action == Action::DuplicateIds {
                list.extend(list.clone());
            }
        }
        Value::Object(map) => map.values_mut().for_each(|v| walk(action, path, v)),
        Value::String(text) => match action {
            Action::LinkCycle if text.starts_with("/redfish/") => path.clone_into(text),
            Action::LinksElsewhere if text.starts_with("/redfish/") => *text = format!("http://192.0.2.1{text}"),
            Action::ControlCharacters if !text.starts_with("/redfish/") && !text.starts_with('#') => {
                *text = format!("\u{1b}[31m{text}\r\n\u{0}{}", "x".repeat(5000));
            }
            _ => {}
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
