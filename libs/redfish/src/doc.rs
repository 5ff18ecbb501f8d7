use serde_json::Value;

use crate::error::clean;

/// A document from a BMC, read field by field: what is missing or of the wrong type is absent, never an error.
#[derive(Debug, Clone, Default)]
pub struct Doc {
    /// Where it was read.
    pub uri: String,
    /// Version, from the header or the body.
    pub etag: Option<String>,
    /// The document.
    pub value: Value,
    /// Bytes that it took; 0 for a part of another one.
    pub size: usize,
}

impl Doc {
    /// A part of a document as a document of its own.
    pub fn part(&self, key: &str) -> Doc {
        Doc {
            uri: self.uri.clone(),
            etag: None,
            size: 0,
            value: self.value.get(key).cloned().unwrap_or(Value::Null),
        }
    }

    /// The objects of an array as documents of their own.
    pub fn parts(&self, key: &str) -> Vec<Doc> {
        let list = self.value.get(key).and_then(Value::as_array);
        let objects = list.into_iter().flatten().filter(|v| v.is_object());
        // More of them in one document is no machine.
        let objects = objects.take(4096);
        objects
            .map(|value| Doc {
                uri: self.uri.clone(),
                etag: None,
                size: 0,
                value: value.clone(),
            })
            .collect()
    }

    /// Text, trimmed and cleaned; absent when empty. Numbers are text too.
    pub fn text(&self, key: &str) -> Option<String> {
        let text = match self.value.get(key)? {
            Value::String(s) => clean(s),
            Value::Number(n) => n.to_string(),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// Text or empty.
    pub fn text_or_empty(&self, key: &str) -> String {
        self.text(key).unwrap_or_default()
    }

    /// A number; from a string or a float too.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.value.get(key)? {
            Value::Number(n) => n.as_f64(),
            Value::String(s) => s.trim().parse().ok(),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
        .filter(|n| n.is_finite())
    }

    /// A whole number that fits.
    pub fn integer<N: TryFrom<i64>>(&self, key: &str) -> Option<N> {
        let number = self.number(key)?;
        // Nothing that a BMC counts comes near 2^53; beyond it a float is not a count.
        if number.abs() > 9_007_199_254_740_992.0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
        N::try_from(number as i64).ok()
    }

    /// A boolean.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.value.get(key)?.as_bool()
    }

    /// The target of a link: `{"@odata.id": "…"}`, or the text itself.
    pub fn link(&self, key: &str) -> Option<String> {
        link_of(self.value.get(key)?)
    }

    /// The targets of an array of links.
    pub fn links(&self, key: &str) -> Vec<String> {
        match self.value.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(link_of).collect(),
            Some(_) | None => vec![],
        }
    }

    /// Texts of an array.
    pub fn texts(&self, key: &str) -> Vec<String> {
        match self.value.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(clean).filter(|t| !t.is_empty()).collect(),
            Some(_) | None => vec![],
        }
    }

    /// Its own path, as it names itself, or where it was read.
    pub fn id_path(&self) -> String {
        self.text("@odata.id").unwrap_or_else(|| self.uri.clone())
    }

    /// `Id`, or the last segment of its path.
    pub fn id(&self) -> String {
        self.text("Id").unwrap_or_else(|| {
            self.id_path()
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
    }

    /// Whether a part is present: `Status.State` is not `Absent`.
    pub fn is_present(&self) -> bool {
        self.part("Status").text("State").as_deref() != Some("Absent")
    }

    /// An action: its target, and the values that one parameter may take where the document says so itself.
    pub fn action(&self, name: &str) -> Option<Doc> {
        let action = self.part("Actions").part(name);
        action.value.is_object().then_some(action)
    }
}

fn link_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::Object(map) => map.get("@odata.id")?.as_str()?,
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn odd_values_are_read_or_absent() {
        let doc = Doc {
            value: json!({"a": " x\u{7} ", "b": "55.5", "c": 3.0, "d": "", "e": [1], "f": {"@odata.id": ""}, "g": 1e300}),
            ..Doc::default()
        };
        assert_eq!(doc.text("a").as_deref(), Some("x"));
        assert_eq!(doc.number("b"), Some(55.5));
        assert_eq!(doc.integer::<i32>("c"), Some(3));
        assert_eq!(
            (doc.text("d"), doc.text("e"), doc.link("f"), doc.integer::<i64>("g")),
            (None, None, None, None)
        );
    }
}
