use std::io::Write;

use serde_json::Value;

use super::{
    Failure,
    args::{Format, Output},
};
use crate::json::text_at;

/// A column: heading, JSON pointer, and whether only wide tables show it.
pub(crate) type Column = (&'static str, &'static str, bool);

/// Prints resources. Data goes to standard output; colours only on a terminal.
pub(crate) fn print(kind: &str, columns: &[Column], items: &[Value], single: bool, output: &Output) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let text = match output.format {
        Some(Format::Json) if single => items.first().map(pretty).unwrap_or_default(),
        Some(Format::Json) => pretty(&serde_json::json!({"kind": format!("{kind}List"), "items": items})),
        Some(Format::Yaml) => yaml(items)?,
        Some(Format::Name) => items.iter().map(|item| format!("{kind}/{}\n", name_of(item))).collect(),
        Some(Format::Wide) => table(columns, items, true, output.no_headers),
        None => table(columns, items, false, output.no_headers),
    };
    // A reader that has seen enough closes the pipe; that is no error.
    let _ = out.write_all(text.as_bytes());
    Ok(())
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

pub(crate) fn yaml(items: &[Value]) -> Result<String, Failure> {
    let documents: Result<Vec<String>, _> = items.iter().map(serde_saphyr::to_string).collect();
    Ok(documents.map_err(Failure::other)?.join("---\n"))
}

/// Name of a resource, wherever it keeps it.
pub(crate) fn name_of(item: &Value) -> String {
    let name = text_at(item, "/metadata/name");
    if name.is_empty() { text_at(item, "/name") } else { name }
}

fn colour(heading: &str, text: &str) -> (&'static str, &'static str) {
    match (heading, text) {
        ("STATE" | "PHASE" | "READY" | "PASSED", "Available" | "Bound" | "true" | "True") | ("OUTCOME", "Passed") => {
            ("\x1b[32m", "\x1b[0m")
        }
        ("STATE", "Error") | ("READY" | "PASSED", "false" | "False") | ("OUTCOME", "Failed") => ("\x1b[31m", "\x1b[0m"),
        ("STATE" | "PHASE", "Cleanup" | "Discovery" | "Maintenance" | "Pending" | "Releasing") => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    }
}

fn table(columns: &[Column], items: &[Value], wide: bool, no_headers: bool) -> String {
    let shown: Vec<&Column> = columns.iter().filter(|(_, _, only_wide)| wide || !only_wide).collect();
    let cell = |item: &Value, pointer: &str| {
        let text = match pointer {
            "name" => name_of(item),
            "ready" => condition(item, "Ready"),
            _ => text_at(item, pointer),
        };
        match (pointer, text.is_empty()) {
            // Protocol buffers leave out what is false.
            ("/passed" | "/done", true) => "false".to_owned(),
            (_, true) => "-".to_owned(),
            (_, false) => text,
        }
    };
    let mut rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| shown.iter().map(|(_, pointer, _)| cell(item, pointer)).collect())
        .collect();
    if !no_headers {
        rows.insert(0, shown.iter().map(|(heading, _, _)| (*heading).to_owned()).collect());
    }
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..shown.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let (on, off) = colour(shown.get(i).map_or("", |c| c.0), cell);
            let pad = widths.get(i).copied().unwrap_or(0).saturating_sub(cell.chars().count());
            line.push_str(&format!("{on}{cell}{off}{}", " ".repeat(pad + 3)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Status of a condition, as True, False or Unknown.
pub(crate) fn condition(item: &Value, kind: &str) -> String {
    let conditions = item.pointer("/conditions").and_then(Value::as_array);
    let found = conditions
        .into_iter()
        .flatten()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(kind));
    found.map(|c| text_at(c, "/status")).unwrap_or_default()
}
