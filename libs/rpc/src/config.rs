//! Configuration: one TOML file plus environment, all problems reported at once.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Reads `file` (absent: only the environment) and lays `<PREFIX>_SECTION__KEY` variables over it.
///
/// Values of variables are read as TOML where that works (`8`, `true`, `["a"]`), as text otherwise.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, prefix: &str) -> Result<T, String> {
    let mut problems = Vec::new();
    let mut root = toml::Table::new();
    if let Some(file) = file {
        match std::fs::read_to_string(file) {
            Ok(text) => match text.parse::<toml::Table>() {
                Ok(table) => root = table,
                Err(error) => problems.push(format!("{}: {error}", file.display())),
            },
            Err(error) => problems.push(format!("{}: {error}", file.display())),
        }
    }
    let mut variables: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with(prefix)).collect();
    variables.sort();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(prefix).and_then(|n| n.strip_prefix('_')) else {
            continue;
        };
        // Kubernetes sets `<SERVICE>_PORT` and the like for every service of a namespace; ours have a section.
        if !path.contains("__") {
            continue;
        }
        let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if let Err(problem) = put(&mut root, &path, value(&text)) {
            problems.push(format!("{name}: {problem}"));
        }
    }
    match T::deserialize(toml::Value::Table(root)) {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) => Err(problems.join("\n")),
        Err(error) => {
            problems.push(error.to_string().trim().to_owned());
            Err(problems.join("\n"))
        }
    }
}

fn value(text: &str) -> toml::Value {
    format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn put(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [] => Err("names nothing".to_owned()),
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [section, rest @ ..] => match table.entry(section.clone()).or_insert_with(|| toml::Table::new().into()) {
            toml::Value::Table(inner) => put(inner, rest, value),
            _ => Err(format!("{section} is not a section")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_lies_over_the_file() {
        let mut table = toml::Table::new();
        put(&mut table, &["a".into(), "b".into()], value("8")).unwrap();
        put(&mut table, &["a".into(), "url".into()], value("http://x:1")).unwrap();
        assert_eq!(table["a"]["b"].as_integer(), Some(8));
        assert_eq!(table["a"]["url"].as_str(), Some("http://x:1"));
        assert!(put(&mut table, &["a".into(), "b".into(), "c".into()], value("1")).is_err());
    }
}
