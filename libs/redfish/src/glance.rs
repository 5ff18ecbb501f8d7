use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object that are wanted; the others are checked and skipped. What is polled for ten thousand systems is two of fifty.
pub(crate) fn parse_only(bytes: &[u8], wanted: &[&str]) -> serde_json::Result<Value> {
    struct Wanted<'a>(&'a [&'a str]);

    impl<'de> Visitor<'de> for Wanted<'_> {
        type Value = Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
            let mut kept = Map::new();
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if self.0.contains(&key.as_ref()) {
                    let value = map.next_value()?;
                    kept.insert(key.into_owned(), value);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Value::Object(kept))
        }
    }

    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = reader.deserialize_map(Wanted(wanted))?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_kept_and_the_rest_is_checked() {
        let text = br#"{"PowerState": "On", "Boot": {"a": [1, {"b": null}]}, "Status": {"Health": "OK"}}"#;
        let only = parse_only(text, &["PowerState", "Status"]).unwrap();
        assert_eq!(only, serde_json::json!({"PowerState": "On", "Status": {"Health": "OK"}}));
        for bad in [&b"[1]"[..], b"", b"{\"a\": }", b"{} x", b"7", br#"{"PowerState": "On", "x": [}"#] {
            assert!(parse_only(bad, &["PowerState"]).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = format!("{{\"a\": {}}}", "[".repeat(100_000));
        assert!(parse_only(deep.as_bytes(), &[]).is_err());
    }
}
