use ironyard_db::Record;
use ironyard_types::Metadata;

use crate::domain::bmc::Bmc;

impl Record for Bmc {
    const TABLE: &'static str = "bmc";
    const INDEX: &'static [&'static str] = &["credential"];
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.spec.credential.clone())]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
