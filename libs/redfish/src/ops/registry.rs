//! The BIOS attribute registry: what each attribute may be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::attributes::{as_text, holds_secret};
use crate::{Client, Doc, Error, Members, Result, error::clean};

/// What one attribute may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// `Enumeration`, `String`, `Integer`, `Boolean`, `Password`; empty when the registry does not say.
    pub kind: String,
    /// Values of an enumeration, and how people see each.
    pub values: Vec<(String, String)>,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Least integer.
    pub lower: Option<i64>,
    /// Greatest integer.
    pub upper: Option<i64>,
    /// Step between integers, from the least one.
    pub increment: Option<i64>,
    /// Shortest text.
    pub min_length: Option<usize>,
    /// Longest text.
    pub max_length: Option<usize>,
    /// Name for people.
    pub display_name: String,
    /// What it does.
    pub help: String,
    /// Whether it takes a restart; absent when the registry does not say.
    pub reset_required: Option<bool>,
}

/// Attributes by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// Its id, such as `BiosAttributeRegistry.v1_0_3`.
    pub id: String,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// Reads the registry of a BIOS: the one that it names, by any of its names; else the only one there is that knows all of its attributes.
/// `None` where there is none.
pub async fn read(client: &Client, bios: &Doc) -> Result<Option<Registry>> {
    let id = bios.text_or_empty("AttributeRegistry");
    let root = client.root().await?;
    let Some(link) = root.link("Registries") else { return Ok(None) };
    let members = Members::new(client);
    let links = client.get(&link).await?.links("Members");
    // Most name the file after the registry; reading all of a hundred files costs a minute.
    let wanted = if id.is_empty() { "BiosAttributeRegistry" } else { &id };
    let last = |link: &String| link.trim_end_matches('/').rsplit('/').next().map(stem);
    let (named, others): (Vec<String>, Vec<String>) = links.into_iter().partition(|l| last(l) == Some(stem(wanted)));
    let mut near = Vec::new();
    for group in [named, if id.is_empty() { vec![] } else { others }] {
        for file in members.linked(group).await {
            let names: Vec<String> = [file.text("Registry"), Some(file.id())].into_iter().flatten().collect();
            let Some(uri) = location(&file) else { continue };
            if !id.is_empty() && names.iter().any(|name| same_registry(name, &id)) {
                return match client.get(&uri).await {
                    Ok(doc) => Ok(Some(parse(&id, &doc.value))),
                    // Some name a file that they do not have.
                    Err(Error::NotFound(_)) => Ok(None),
                    Err(error) => Err(error),
                };
            }
            if names.iter().any(|name| stem(name) == stem(wanted)) {
                near.push(uri);
            }
        }
    }
    // A file that names an older version may lead to the right one; and a BIOS that names none may still have one.
    for doc in members.linked(near).await {
        let registry = parse(&doc.text("Id").unwrap_or_else(|| id.clone()), &doc.value);
        let attributes = bios.value.get("Attributes").and_then(Value::as_object);
        let knows_all = attributes.is_some_and(|all| !all.is_empty() && all.keys().all(|name| registry.attributes.contains_key(name)));
        if !id.is_empty() && same_registry(&registry.id, &id) || knows_all {
            return Ok(Some(registry));
        }
    }
    Ok(None)
}

/// The name of a registry without its version, however that is written.
fn stem(name: &str) -> String {
    let letters = name
        .chars()
        .take_while(|c| !c.is_ascii_digit())
        .collect::<String>()
        .to_ascii_lowercase();
    letters.trim_end_matches('v').trim_end_matches(['.', '_']).to_owned()
}

/// `BiosAttributeRegistry.v1_0_3` and `BiosAttributeRegistry.1.0.3`, or one without its version.
fn same_registry(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace(".v", ".").replace('_', ".");
    let (a, b) = (plain(a), plain(b));
    a == b || b.strip_prefix(&a).is_some_and(|rest| rest.starts_with('.')) || a.strip_prefix(&b).is_some_and(|rest| rest.starts_with('.'))
}

fn location(file: &Doc) -> Option<String> {
    let parts = file.parts("Location");
    let english = parts.iter().find(|l| l.text("Language").is_some_and(|l| l.starts_with("en")));
    let uri = |l: &Doc| l.link("Uri");
    english.and_then(uri).or_else(|| parts.iter().find_map(uri))
}

/// Reads a registry document, attribute by attribute; what makes no sense is absent.
pub fn parse(id: &str, value: &Value) -> Registry {
    let entries = value
        .get("RegistryEntries")
        .and_then(|e| e.get("Attributes"))
        .and_then(Value::as_array);
    let mut attributes = BTreeMap::new();
    for entry in entries.into_iter().flatten().take(10_000) {
        let doc = Doc {
            value: entry.clone(),
            ..Doc::default()
        };
        let Some(name) = doc.text("AttributeName") else { continue };
        // -1 is how some say that there is no bound.
        let length = |key: &str| doc.integer::<i64>(key).and_then(|n| usize::try_from(n).ok());
        let values = doc.parts("Value").into_iter().filter_map(|v| {
            let name = v.text("ValueName")?;
            let shown = v.text("ValueDisplayName").unwrap_or_else(|| name.clone());
            Some((name, shown))
        });
        let (lower, upper) = (doc.integer("LowerBound"), doc.integer("UpperBound"));
        let bounded = !matches!((lower, upper), (Some(a), Some(b)) if a > b || (a, b) == (-1, -1));
        let attribute = Attribute {
            kind: doc.text_or_empty("Type"),
            values: values.collect(),
            read_only: doc.boolean("ReadOnly").or_else(|| doc.boolean("Readonly")).unwrap_or(false)
                || doc.boolean("Immutable").unwrap_or(false),
            lower: lower.filter(|_| bounded),
            upper: upper.filter(|_| bounded),
            increment: doc.integer("ScalarIncrement").filter(|n: &i64| *n > 1),
            min_length: length("MinLength"),
            max_length: length("MaxLength").filter(|n| *n > 0),
            display_name: doc.text_or_empty("DisplayName"),
            help: doc.text_or_empty("HelpText"),
            reset_required: doc.boolean("ResetRequired"),
        };
        attributes.insert(name, attribute);
    }
    Registry { id: clean(id), attributes }
}

/// What still differs from the wanted values, in the types that the registry and the BMC want. Bad values are told all at once, each with
/// what would do. Dependencies among attributes are left to the BMC.
pub fn difference(
    present: &Map<String, Value>,
    pending: &Map<String, Value>,
    registry: Option<&Registry>,
    wanted: &BTreeMap<String, String>,
) -> Result<Map<String, Value>> {
    let mut change = Map::new();
    let mut problems: Vec<(String, String)> = Vec::new();
    for (name, text) in wanted {
        let Some(now) = present.get(name) else {
            let near = present.keys().find(|k| k.eq_ignore_ascii_case(name));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            problems.push((name.clone(), format!("the BIOS has no attribute {name}{hint}")));
            continue;
        };
        let coming = pending.get(name).unwrap_or(now);
        let known = registry.and_then(|r| r.attributes.get(name));
        match value_for(name, text, now, known) {
            Ok(value) => {
                // Some show the words for people where they want the names.
                let shown = known.and_then(|k| k.values.iter().find(|(n, _)| Some(n.as_str()) == value.as_str()));
                let same =
                    *coming == value || as_text(coming) == *text || shown.is_some_and(|(_, display)| coming.as_str() == Some(display));
                if !same {
                    change.insert(name.clone(), value);
                }
            }
            Err(problem) => problems.push((name.clone(), problem)),
        }
    }
    match problems.first() {
        None => Ok(change),
        Some((property, _)) => Err(Error::InvalidValue {
            property: property.clone(),
            message: problems.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; "),
        }),
    }
}

/// A value in the type that is wanted, or why it is none.
fn value_for(name: &str, text: &str, present: &Value, known: Option<&Attribute>) -> std::result::Result<Value, String> {
    let kind = known.map_or("", |k| k.kind.as_str());
    if known.is_some_and(|k| k.read_only) {
        return Err(format!("{name} is read-only"));
    }
    if kind == "Password" || !matches!(kind, "Enumeration" | "Boolean" | "Integer") && holds_secret(name, present) {
        return Err(format!("{name} is a password: change it with the BIOS password call"));
    }
    match (kind, present) {
        ("Integer", _) | ("", Value::Number(_)) => {
            let number: i64 = text.trim().parse().map_err(|_| format!("{name} is a whole number, not {text:?}"))?;
            let known = known.cloned().unwrap_or_default();
            let (low, high) = (known.lower.unwrap_or(i64::MIN), known.upper.unwrap_or(i64::MAX));
            if number < low || number > high {
                return Err(format!("{name} must lie between {low} and {high}, not {number}"));
            }
            if let (Some(step), Some(low)) = (known.increment, known.lower)
                && number.saturating_sub(low) % step != 0
            {
                return Err(format!("{name} goes in steps of {step} from {low}, not {number}"));
            }
            // A BMC that shows the number as text wants it as text.
            Ok(if present.is_string() { json!(text.trim()) } else { json!(number) })
        }
        ("Boolean", _) | ("", Value::Bool(_)) => match text.to_ascii_lowercase().as_str() {
            "true" | "enabled" => Ok(json!(true)),
            "false" | "disabled" => Ok(json!(false)),
            _ => Err(format!("{name} is true or false, not {text:?}")),
        },
        ("Enumeration", _) => {
            let known = known.cloned().unwrap_or_default();
            if known.values.is_empty() || known.values.iter().any(|(value, _)| value == text) {
                return Ok(json!(text));
            }
            if let Some((value, _)) = known.values.iter().find(|(_, shown)| shown == text) {
                return Ok(json!(value));
            }
            let all: Vec<&str> = known.values.iter().map(|(value, _)| value.as_str()).take(30).collect();
            Err(format!("{name} is one of {}, not {text:?}", all.join(", ")))
        }
        _ => {
            let (min, max) = known.map_or((None, None), |k| (k.min_length, k.max_length));
            let length = text.chars().count();
            if length < min.unwrap_or(0) || length > max.unwrap_or(usize::MAX) {
                let (min, max) = (min.unwrap_or(0), max.map_or("any".to_owned(), |m| m.to_string()));
                return Err(format!("{name} takes {min} to {max} characters, not {length}"));
            }
            Ok(json!(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        parse(
            "R.v1_0_0",
            &json!({"RegistryEntries": {"Attributes": [
                {"AttributeName": "Mode", "Type": "Enumeration", "Value": [{"ValueName": "A", "ValueDisplayName": "Mode A"}, {"ValueName": "B"}]},
                {"AttributeName": "Delay", "Type": "Integer", "LowerBound": 0, "UpperBound": 60, "ScalarIncrement": 5},
                {"AttributeName": "Free", "Type": "Integer", "LowerBound": -1, "UpperBound": -1},
                {"AttributeName": "Fixed", "Type": "String", "Readonly": true},
                {"AttributeName": "Tag", "Type": "String", "MinLength": 2, "MaxLength": 4},
                {"AttributeName": "SetupPassword", "Type": "Password"},
                7, {"Type": "String"},
            ]}}),
        )
    }

    #[test]
    fn values_are_checked_before_they_are_sent() {
        let Value::Object(attributes) =
            json!({"Mode": "Mode A", "Delay": 5, "Free": 0, "Fixed": "x", "Tag": "ab", "SetupPassword": "", "Loose": true})
        else {
            panic!()
        };
        let (registry, pending) = (registry(), Map::new());
        let one = |name: &str, text: &str| {
            difference(
                &attributes,
                &pending,
                Some(&registry),
                &BTreeMap::from([(name.to_owned(), text.to_owned())]),
            )
        };
        for (name, text, value) in [
            ("Mode", "B", json!("B")),
            ("Delay", "60", json!(60)),
            ("Free", "12345", json!(12345)),
            ("Tag", "abcd", json!("abcd")),
            ("Loose", "disabled", json!(false)),
        ] {
            assert_eq!(one(name, text).unwrap().get(name), Some(&value), "{name}={text}");
        }
        for (name, text) in [("Mode", "A"), ("Mode", "Mode A"), ("Delay", "5"), ("Loose", "true")] {
            assert!(one(name, text).unwrap().is_empty(), "{name}={text} holds already");
        }
        for (name, text, says) in [
            ("Mode", "C", "one of A, B"),
            ("Delay", "61", "between 0 and 60"),
            ("Delay", "7", "steps of 5"),
            ("Delay", "x", "whole number"),
            ("Fixed", "y", "read-only"),
            ("Tag", "a", "2 to 4 characters"),
            ("SetupPassword", "x", "password"),
            ("mode", "A", "did you mean Mode?"),
        ] {
            let error = one(name, text).unwrap_err().to_string();
            assert!(error.contains(says), "{name}={text}: {error}");
        }
    }

    #[test]
    fn registries_are_found_by_any_of_their_names() {
        for (a, b, same) in [
            ("BiosAttributeRegistry.v1_0_3", "BiosAttributeRegistry.v1_0_3", true),
            ("BiosAttributeRegistry.1.0.3", "BiosAttributeRegistry.v1_0_3", true),
            ("BiosAttributeRegistry", "BiosAttributeRegistry.v1_0_3", true),
            ("BiosAttributeRegistryA42", "BiosAttributeRegistryA43.v1_0_0", false),
            ("BiosAttributeRegistry1.0", "BiosAttributeRegistry.v1_0_3", false),
        ] {
            assert_eq!(same_registry(a, b), same, "{a} {b}");
        }
        for name in [
            "BiosAttributeRegistry.v1_0_3",
            "BiosAttributeRegistry1.0",
            "BiosAttributeRegistry.1.0",
            "biosattributeregistry",
        ] {
            assert_eq!(stem(name), "biosattributeregistry", "{name}");
        }
    }
}
