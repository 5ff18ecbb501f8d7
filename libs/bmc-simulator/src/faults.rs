use serde::{Deserialize, Serialize};

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The answer comes this many milliseconds late.
    Latency(u64),
    /// This status and an error body.
    Status(u16),
    /// No answer, ever.
    Hang,
    /// The connection is closed.
    Drop,
    /// Half of the body.
    Truncate,
    /// A body of this many bytes.
    Oversize(usize),
    /// Numbers where texts belong, and the other way round.
    WrongTypes,
}

/// Which requests an action hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method; absent: every.
    #[serde(default)]
    pub method: Option<String>,
    /// Beginning of the path.
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
