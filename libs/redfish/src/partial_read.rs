use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object that are wanted; the others are checked and skipped. What is polled for ten thousand systems is two of fifty.
pub(crate) fn parse_only(bytes: &[u8], wanted: &[&str]) -> serde_json::Result<Value> {
    struct Wanted<'a>(&'a [&'a str]);
    /// The key, if it is one of these: compared where it stands, without a copy of each.
    struct Which<'a>(&'a [&'a str]);

    impl<'de, 'a> DeserializeSeed<'de> for Which<'a> {
        type Value = Option<&'a str>;

        fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
            reader.deserialize_str(self)
        }
    }

    impl<'a> Visitor<'_> for Which<'a> {
        type Value = Option<&'a str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a member's name")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
            Ok(self.0.iter().copied().find(|wanted| *wanted == name))
        }
    }

    impl<'de> Visitor<'de> for Wanted<'_> {
        type Value = Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
            let mut kept = Map::new();
            while let Some(key) = map.next_key_seed(Which(self.0))? {
                match key {
                    Some(key) => drop(kept.insert(key.to_owned(), map.next_value()?)),
                    None => drop(map.next_value::<IgnoredAny>()?),
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
