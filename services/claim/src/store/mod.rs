//! Records and their tables.

use ironyard_db::Record;
use ironyard_types::Metadata;

use crate::domain::{
    cleanup::{Certificate, CleanupRun},
    server_claim::ServerClaim,
};

impl Record for ServerClaim {
    const TABLE: &'static str = "server_claim";
    const INDEX: &'static [&'static str] = &["phase"];
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(format!("{:?}", self.phase))]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Record for CleanupRun {
    const TABLE: &'static str = "cleanup_run";
    const INDEX: &'static [&'static str] = &["server", "done", "claim_uid"];
    fn index(&self) -> Vec<Option<String>> {
        vec![
            Some(self.server.name.clone()),
            Some(self.done.to_string()),
            Some(self.claim.uid.clone()),
        ]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Record for Certificate {
    const TABLE: &'static str = "certificate";
    const INDEX: &'static [&'static str] = &["server"];
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.server.name.clone())]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
