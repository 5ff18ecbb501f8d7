//! The BIOS attribute registry: what each attribute may be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::bios::{Bios, as_text, is_secret};
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

/// Reads the registry that a BIOS names; `None` where there is none.
pub async fn read(client: &Client, id: &str) -> Result<Option<Registry>> {
    if id.is_empty() {
        return Ok(None);
    }
    let root = client.root().await?;
    let Some(link) = root.link("Registries") else { return Ok(None) };
    let members = Members::new(client);
    let links = client.get(&link).await?.links("Members");
    // Most name the file after the registry; reading all of a hundred files costs a minute.
    let stem = |text: &str| text.split(".v").next().unwrap_or_default().to_ascii_lowercase();
    let (named, others): (Vec<String>, Vec<String>) = links.into_iter().partition(|l| {
        l.trim_end_matches('/')
            .rsplit('/')
            .next()
            .is_some_and(|last| stem(last) == stem(id))
    });
    for group in [named, others] {
        for file in members.linked(group).await {
            let same = [file.text("Registry"), Some(file.id())]
                .into_iter()
                .flatten()
                .any(|name| same_registry(&name, id));
            if same && let Some(uri) = location(&file) {
                let doc = client.get(&uri).await?;
                return Ok(Some(parse(id, &doc.value)));
            }
        }
    }
    Ok(None)
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
pub fn difference(bios: &Bios, registry: Option<&Registry>, wanted: &BTreeMap<String, String>) -> Result<Map<String, Value>> {
    let mut change = Map::new();
    let mut problems: Vec<(String, String)> = Vec::new();
    for (name, text) in wanted {
        let Some(present) = bios.attributes.get(name) else {
            let near = bios.attributes.keys().find(|k| k.eq_ignore_ascii_case(name));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            problems.push((name.clone(), format!("the BIOS has no attribute {name}{hint}")));
            continue;
        };
        let coming = bios.pending.get(name).unwrap_or(present);
        let known = registry.and_then(|r| r.attributes.get(name));
        match value_for(name, text, present, known) {
            Ok(value) => {
                // Some show the words for people where they want the names.
                let shown = known.and_then(|k| k.values.iter().find(|(n, _)| Some(n.as_str()) == value.as_str()));
                let same = *coming == value
                    || as_text(coming).as_deref() == Some(text.as_str())
                    || shown.is_some_and(|(_, display)| coming.as_str() == Some(display));
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
    if kind == "Password" || is_secret(name) {
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
        let bios = Bios {
            attributes,
            ..Bios::default()
        };
        let registry = registry();
        let one = |name: &str, text: &str| difference(&bios, Some(&registry), &BTreeMap::from([(name.to_owned(), text.to_owned())]));
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
        ] {
            assert_eq!(same_registry(a, b), same, "{a} {b}");
        }
    }
}
