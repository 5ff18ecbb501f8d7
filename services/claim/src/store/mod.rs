//! Records and their tables.

use std::collections::{BTreeSet, HashMap};

use ironyard_db::{Db, Record, Result, Stored};
use ironyard_types::Metadata;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use crate::domain::{
    cleanup::{Certificate, CleanupRun},
    evidence::Evidence,
    server_claim::{Phase, ServerClaim},
};

/// How often something happened that could serve these claims.
pub async fn woken(db: &Db, claims: &[Stored<ServerClaim>]) -> Result<HashMap<String, i64>> {
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "select server_claim_id, woken from server_claim where server_claim_id {}",
        db.dialect().any_of(1)
    );
    let names: Vec<&str> = claims.iter().map(|claim| claim.value.metadata.name.as_str()).collect();
    let query = sqlx::query(AssertSqlSafe(sql)).bind(json!(names).to_string());
    let rows = query.fetch_all(db.pool()).await?;
    let count = |row: &AnyRow| Ok((row.try_get("server_claim_id")?, row.try_get("woken")?));
    rows.iter().map(count).collect()
}

/// Of the requests of these claims, those that claims have which are not due. Seldom any: who asks for what there is has a server.
pub async fn not_due_of(db: &Db, claims: &[Stored<ServerClaim>]) -> Result<BTreeSet<String>> {
    let sql = format!(
        "select n.request from ({}) n
        where (select c.request from server_claim c where c.request = n.request and c.due is null limit 1) is not null",
        db.dialect().rows(1, &[("request", "text")])
    );
    let requests: BTreeSet<String> = claims.iter().map(|claim| claim.value.request_key()).collect();
    let requests = requests.iter().map(|request| json!({"request": request}));
    let query = sqlx::query(AssertSqlSafe(sql)).bind(Value::Array(requests.collect()).to_string());
    let rows = query.fetch_all(db.pool()).await?;
    rows.iter().map(|row| Ok(row.try_get("request")?)).collect()
}

/// A server was looked for on behalf of these claims, and there is none: they are not due, unless something happened since they had been
/// woken this often.
pub async fn not_due(db: &Db, claims: &[(Stored<ServerClaim>, i64)]) -> Result<()> {
    let mut tx = db.begin().await?;
    for (claim, woken) in claims {
        sqlx::query("update server_claim set due = null where server_claim_id = $1 and version = $2 and woken = $3")
            .bind(claim.value.metadata.name.clone())
            .bind(claim.version)
            .bind(*woken)
            .execute(tx.conn())
            .await?;
    }
    tx.commit().await
}

/// Something could serve these requests: of each, the oldest claim that is not due is due, and the oldest that is stays due.
pub async fn make_due(db: &Db, requests: &[String]) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    for request in requests {
        for which in ["due is null", "due = 'yes'"] {
            let sql = format!(
                "update server_claim set due = 'yes', woken = woken + 1 where server_claim_id = (
                    select server_claim_id from server_claim where request = $1 and {which} order by created_at, server_claim_id limit 1)"
            );
            sqlx::query(AssertSqlSafe(sql)).bind(request.clone()).execute(tx.conn()).await?;
        }
    }
    tx.commit().await
}

/// Keys of all requests that pending claims have.
pub async fn requests(db: &Db) -> Result<Vec<String>> {
    // From one to the next by the index: the cost does not grow with the claims, only with what they ask for.
    let rows = sqlx::query(
        "with recursive next(request) as (
            select min(request) from server_claim
            union all
            select (select min(c.request) from server_claim c where c.request > next.request) from next where next.request is not null)
        select request from next where request is not null",
    )
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(|row| Ok(row.try_get("request")?)).collect()
}

impl Record for ServerClaim {
    const TABLE: &'static str = "server_claim";
    const INDEX: &'static [&'static str] = &["phase", "due", "request"];
    fn index(&self) -> Vec<Option<String>> {
        let pending = self.phase == Phase::Pending;
        let leaving = self.metadata.deleted_at.is_some();
        // Whoever changes it makes it due; [`not_due`] ends that.
        let due = match (pending, leaving) {
            (true, true) => Some("leaving"),
            (true, false) => Some("yes"),
            (false, _) => None,
        };
        vec![
            Some(format!("{:?}", self.phase)),
            due.map(str::to_owned),
            (pending && !leaving).then(|| self.request_key()),
        ]
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

impl Record for Evidence {
    const TABLE: &'static str = "evidence";
    const INDEX: &'static [&'static str] = &["server"];
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.server.clone())]
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
