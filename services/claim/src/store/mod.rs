//! Records and their tables.

use std::collections::HashMap;

use ironyard_db::{Db, Record, Result, Stored};
use ironyard_types::Metadata;
use sqlx::{AssertSqlSafe, Row};

use crate::domain::{
    cleanup::{Certificate, CleanupRun},
    server_claim::{Phase, ServerClaim},
};

/// How often something happened that could serve these claims.
pub async fn woken(db: &Db, claims: &[Stored<ServerClaim>]) -> Result<Vec<i64>> {
    if claims.is_empty() {
        return Ok(vec![]);
    }
    let marks: Vec<String> = (1..=claims.len()).map(|n| format!("${n}")).collect();
    let sql = format!(
        "select server_claim_id, woken from server_claim where server_claim_id in ({})",
        marks.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for claim in claims {
        query = query.bind(claim.value.metadata.name.clone());
    }
    let mut counts = HashMap::new();
    for row in query.fetch_all(db.pool()).await? {
        counts.insert(row.try_get::<String, _>("server_claim_id")?, row.try_get::<i64, _>("woken")?);
    }
    let count = |claim: &Stored<ServerClaim>| counts.get(&claim.value.metadata.name).copied().unwrap_or(-1);
    Ok(claims.iter().map(count).collect())
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
