//! Labels and the selectors that match them, with the meaning that Kubernetes gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Labels of a resource.
pub type Labels = BTreeMap<String, String>;

/// All requirements must hold; an empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Exact matches.
    pub match_labels: Labels,
    /// Further requirements.
    pub requirements: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Requirement {
    /// Present with one of these values.
    In(String, Vec<String>),
    /// Absent, or present with none of these values.
    NotIn(String, Vec<String>),
    /// Present.
    Exists(String),
    /// Absent.
    DoesNotExist(String),
}

impl Requirement {
    /// Builds a requirement from its parts, as they are written in YAML.
    pub fn parse(key: &str, operator: &str, values: Vec<String>) -> Result<Self, Invalid> {
        check_key(key)?;
        values.iter().try_for_each(|v| check_value(v))?;
        if values.len() > MOST_LABELS {
            return Err(Invalid(format!("{} values are too many: at most {MOST_LABELS}", values.len())));
        }
        match (operator, values.is_empty()) {
            ("In", false) => Ok(Self::In(key.to_owned(), values)),
            ("NotIn", false) => Ok(Self::NotIn(key.to_owned(), values)),
            ("Exists", true) => Ok(Self::Exists(key.to_owned())),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist(key.to_owned())),
            ("In" | "NotIn", true) => Err(Invalid(format!("operator {operator} on {key:?} needs at least one value"))),
            ("Exists" | "DoesNotExist", false) => Err(Invalid(format!("operator {operator} on {key:?} takes no values"))),
            _ => Err(Invalid(format!(
                "{operator:?} is not an operator: use In, NotIn, Exists or DoesNotExist"
            ))),
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

impl Selector {
    /// Whether these labels match.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v)) && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.requirements.is_empty()
    }

    /// Checks keys and values, and how many there are.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.requirements.len() > MOST_REQUIREMENTS {
            let count = self.requirements.len();
            return Err(Invalid(format!("{count} requirements are too many: at most {MOST_REQUIREMENTS}")));
        }
        check_labels(&self.match_labels)
    }

    /// Reads a selector as kubectl writes it: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut selector = Self::default();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let set = |operator: &str, key: &str, list: &str| {
                let inner = list.trim().strip_prefix('(').and_then(|l| l.strip_suffix(')'));
                let inner = inner.ok_or_else(|| Invalid(format!("{part:?}: write the values in parentheses")))?;
                Requirement::parse(key.trim(), operator, inner.split(',').map(|v| v.trim().to_owned()).collect())
            };
            if let Some((key, list)) = part.split_once(" notin ") {
                selector.requirements.push(set("NotIn", key, list)?);
            } else if let Some((key, list)) = part.split_once(" in ") {
                selector.requirements.push(set("In", key, list)?);
            } else if let Some((key, value)) = part.split_once("!=") {
                selector
                    .requirements
                    .push(Requirement::parse(key.trim(), "NotIn", vec![value.trim().to_owned()])?);
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                check_key(key.trim())?;
                check_value(value.trim())?;
                selector.match_labels.insert(key.trim().to_owned(), value.trim().to_owned());
            } else if let Some(key) = part.strip_prefix('!') {
                selector.requirements.push(Requirement::parse(key.trim(), "DoesNotExist", vec![])?);
            } else {
                selector.requirements.push(Requirement::parse(part, "Exists", vec![])?);
            }
        }
        Ok(selector)
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Most labels of a resource, and exact matches of a selector: every one is a row, or a part of a statement.
const MOST_LABELS: usize = 64;
/// Most further requirements of a selector.
const MOST_REQUIREMENTS: usize = 32;
/// Most bytes of all annotations of a resource together: every watcher is sent them with every change.
const MOST_ANNOTATIONS: usize = 64 << 10;

/// Checks a resource's annotations: keys as those of labels, any values, not too much.
pub fn check_annotations(annotations: &Labels) -> Result<(), Invalid> {
    annotations.keys().try_for_each(|key| check_key(key))?;
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MOST_ANNOTATIONS {
        return Err(Invalid(format!("{bytes} bytes are too many: at most {MOST_ANNOTATIONS} together")));
    }
    Ok(())
}

/// Checks a resource's labels.
pub fn check_labels(labels: &Labels) -> Result<(), Invalid> {
    if labels.len() > MOST_LABELS {
        return Err(Invalid(format!("{} are too many: at most {MOST_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        check_key(key)?;
        check_value(value)?;
    }
    Ok(())
}

fn word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn check_key(key: &str) -> Result<(), Invalid> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let prefix_ok = prefix.is_none_or(|p| crate::ResourceName::parse(p).is_ok());
    if prefix_ok && word(name) {
        Ok(())
    } else {
        Err(Invalid(format!(
            "{key:?} is not a label key: write `name` or `prefix/name`; letters, digits, `-`, `_`, `.`; at most 63 characters"
        )))
    }
}

fn check_value(value: &str) -> Result<(), Invalid> {
    if value.is_empty() || word(value) {
        Ok(())
    } else {
        Err(Invalid(format!(
            "{value:?} is not a label value: letters, digits, `-`, `_`, `.`; at most 63 characters"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn selectors_match() {
        let gpu = labels(&[("kind", "gpu"), ("rack", "r1")]);
        for (text, expected) in [
            ("", true),
            ("kind=gpu", true),
            ("kind==gpu,rack=r2", false),
            ("kind in (cpu, gpu)", true),
            ("kind notin (gpu)", false),
            ("kind!=cpu,rack", true),
            ("!rack", false),
            ("!row,zone notin (a,b)", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&gpu), expected, "{text}");
        }
    }

    #[test]
    fn bad_selectors_say_why() {
        for bad in ["a in b", "=x", "a=b c", "-x", "a in ()x", "ke y"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        assert!(Requirement::parse("a", "in", vec!["b".into()]).is_err());
        assert!(Requirement::parse("a", "Exists", vec!["b".into()]).is_err());
    }
}
