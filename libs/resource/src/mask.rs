use ironyard_rpc::Fault;

/// Which fields an update touches.
#[derive(Debug, Clone)]
pub struct Mask(Vec<String>);

impl Mask {
    /// From the wire; an empty mask covers everything. Paths outside `known` are refused.
    pub fn parse(mask: Option<prost_types::FieldMask>, known: &[&str]) -> Result<Self, Fault> {
        let paths = mask.unwrap_or_default().paths;
        for path in &paths {
            if path != "*" && !known.contains(&path.as_str()) {
                return Err(Fault::field(
                    "update_mask",
                    format!("{path:?} cannot be updated; the fields are {}", known.join(", ")),
                ));
            }
        }
        Ok(Self(paths))
    }

    /// Whether the field, or a field that contains it, is to be updated.
    pub fn covers(&self, field: &str) -> bool {
        let within =
            |path: &String| path == "*" || path == field || field.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'));
        self.0.is_empty() || self.0.iter().any(within)
    }

    /// Replaces `to` if the field is covered.
    pub fn apply<T>(&self, field: &str, to: &mut T, from: T) {
        if self.covers(field) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_covers_its_fields() {
        let parse = |paths: &[&str]| {
            let paths = paths.iter().map(|p| (*p).to_owned()).collect();
            Mask::parse(Some(prost_types::FieldMask { paths }), &["spec", "spec.power", "metadata.labels"])
        };
        let mask = parse(&["spec"]).unwrap();
        assert!(mask.covers("spec.power") && !mask.covers("metadata.labels") && !mask.covers("specific"));
        assert!(parse(&[]).unwrap().covers("spec.power"));
        assert!(parse(&["spec.powr"]).is_err());
    }
}
