//! YAML text: its documents, and where in it something is wrong.

use serde::de::DeserializeOwned;

/// The text of one document, and how many lines precede it.
#[derive(Default)]
pub(super) struct Yaml {
    pub(super) text: String,
    above: usize,
}

/// The documents of a stream: each begins with its marker, where it has one.
pub(super) fn split(text: &str) -> Vec<Yaml> {
    let is = |line: &str, marker: &str| {
        line.strip_prefix(marker)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    };
    let mut documents = vec![Yaml::default()];
    // Whether the document has its marker or its first content, and whether it has ended.
    let (mut begun, mut ended) = (false, false);
    for (n, line) in text.lines().enumerate() {
        let marker = is(line, "---");
        if ended || (marker && begun) {
            documents.push(Yaml {
                text: String::new(),
                above: n,
            });
            begun = false;
        }
        ended = is(line, "...");
        begun |= marker || !(line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'));
        if let Some(last) = documents.last_mut() {
            last.text.push_str(line);
            last.text.push('\n');
        }
    }
    documents
}

impl Yaml {
    /// An error of the YAML reader, in one line: where, and what.
    pub(super) fn told(&self, path: &str, error: &serde_saphyr::Error) -> String {
        let plain = error.without_snippet().to_string();
        let what = plain.split(" at line ").next().unwrap_or(&plain).trim();
        let what = what.replace("invalid i32", "is not a whole number");
        let line = error.location().map_or(String::new(), |at| {
            format!("line {}: ", usize::try_from(at.line()).unwrap_or(0) + self.above)
        });
        let path = if path.is_empty() || path == "." {
            String::new()
        } else {
            format!("{path}: ")
        };
        format!("{line}{path}{what}")
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let mut path = String::new();
        serde_saphyr::with_deserializer_from_str(&self.text, |from| {
            serde_path_to_error::deserialize(from).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| self.told(&path, &error))
    }
}
