use std::collections::{BTreeSet, HashMap};

use ironyard_db::{Db, Result, record};
use ironyard_types::labels::Labels;
use tokio::sync::Mutex;

use crate::{
    domain::server_claim::{Request, ServerClaim},
    store,
};

/// What pending claims ask for, each request once, so that a server that becomes free wakes only those that it could serve.
#[derive(Default)]
pub struct Pending(Mutex<HashMap<String, Request>>);

impl Pending {
    /// Keys of the requests that a server of this name and with these labels could serve.
    pub async fn served_by(&self, db: &Db, server: &str, labels: &Labels) -> Result<Vec<String>> {
        let requests = &mut *self.0.lock().await;
        let keys: BTreeSet<String> = store::requests(db).await?.into_iter().collect();
        requests.retain(|key, _| keys.contains(key));
        for key in keys {
            if !requests.contains_key(&key)
                && let Some(claim) = record::list_oldest::<ServerClaim>(db, 1, &[("request", &key)]).await?.pop()
            {
                requests.insert(key, claim.value.request());
            }
        }
        let could = requests.iter().filter(|(_, request)| request.fits(server, labels));
        Ok(could.map(|(key, _)| key.clone()).collect())
    }
}
