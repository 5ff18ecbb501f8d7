use ironyard_db::Record;
use ironyard_types::Metadata;

use crate::domain::bmc::Bmc;

impl Record for Bmc {
    const TABLE: &'static str = "bmc";
    const INDEX: &'static [&'static str] = &["credential", "target"];
    fn index(&self) -> Vec<Option<String>> {
        let spec = &self.spec;
        // Two BMCs at one address would be two owners of one machine.
        let target = (!spec.address.is_empty()).then(|| format!("{}:{}", spec.address.to_ascii_lowercase(), spec.port_or_default()));
        vec![Some(spec.credential.clone()), target]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
