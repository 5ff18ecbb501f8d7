use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ironyard_redfish::{
    Client, Doc, Result as RedfishResult,
    ops::registry::{self, Registry},
};

/// Registries that were read, by vendor and id; some are megabytes, and thousands of machines share one.
#[derive(Clone, Default)]
pub struct Registries(Arc<Mutex<Known>>);

type Known = HashMap<(String, String), Arc<Registry>>;

/// Registries that are kept.
const KEPT: usize = 64;

impl Registries {
    /// The registry that a BIOS names; `None` where there is none.
    pub async fn of(&self, client: &Client, system: &Doc) -> RedfishResult<Option<Arc<Registry>>> {
        let Some(link) = system.link("Bios") else { return Ok(None) };
        let id = client.get(&link).await?.text_or_empty("AttributeRegistry");
        let key = (system.text_or_empty("Manufacturer"), id.clone());
        if let Some(known) = self.0.lock().ok().and_then(|known| known.get(&key).cloned()) {
            return Ok(Some(known));
        }
        let Some(read) = registry::read(client, &id).await? else {
            return Ok(None);
        };
        let read = Arc::new(read);
        if let Ok(mut known) = self.0.lock() {
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(key, read.clone());
        }
        Ok(Some(read))
    }
}
