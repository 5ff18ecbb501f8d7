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
        let bios = client.get(&link).await?;
        // A BIOS that names none is told apart by its machine and version.
        let own = || format!("{} {}", system.text_or_empty("Model"), system.text_or_empty("BiosVersion"));
        let id = bios.text("AttributeRegistry").unwrap_or_else(own);
        let key = (system.text_or_empty("Manufacturer"), id);
        if let Some(known) = self.0.lock().ok().and_then(|known| known.get(&key).cloned()) {
            return Ok(Some(known));
        }
        let Some(read) = registry::read(client, &bios).await? else {
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
