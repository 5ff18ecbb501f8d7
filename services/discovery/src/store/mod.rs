//! SQL, and nothing but.

use std::time::Duration;

use ironyard_db::{Db, Record, Result, Retention, Stored, record};
use ironyard_types::{Metadata, sha256_hex};
use sqlx::Row;

use crate::domain::{agent_run::AgentRun, discovery_run::DiscoveryRun, endpoint::Endpoint};

/// Runs of the agent that have ended are kept for a month, the last two thousand of them.
pub const ENDED: Retention = Retention {
    table: "agent_run",
    key: "agent_run_id",
    over: "ended = 'true'",
    since: "updated_at",
    keep: Duration::from_secs(30 * 24 * 3600),
    most: 2_000,
};

impl Record for Endpoint {
    const TABLE: &'static str = "endpoint";
    const INDEX: &'static [&'static str] = &[];
    fn index(&self) -> Vec<Option<String>> {
        vec![]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Record for DiscoveryRun {
    const TABLE: &'static str = "discovery_run";
    const INDEX: &'static [&'static str] = &[];
    fn index(&self) -> Vec<Option<String>> {
        vec![]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Record for AgentRun {
    const TABLE: &'static str = "agent_run";
    const INDEX: &'static [&'static str] = &["server", "ended", "token_sha256", "image_id"];
    fn index(&self) -> Vec<Option<String>> {
        vec![
            Some(self.server.clone()),
            Some(self.is_over().to_string()),
            Some(sha256_hex(self.token.as_bytes())),
            (!self.is_over()).then(|| self.image_id.clone()),
        ]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// The run whose image has this id.
pub async fn run_of_image(db: &Db, id: &str) -> Result<Option<Stored<AgentRun>>> {
    if id.is_empty() {
        return Ok(None);
    }
    Ok(record::list_oldest(db, 1, &[("image_id", id)]).await?.pop())
}

/// The run that this token belongs to.
pub async fn run_of_token(db: &Db, token: &str) -> Result<Option<Stored<AgentRun>>> {
    let row = sqlx::query("select agent_run_id from agent_run where token_sha256 = $1 and ended = 'false'")
        .bind(sha256_hex(token.as_bytes()))
        .fetch_optional(db.pool())
        .await?;
    match row {
        Some(row) => record::get(db, &row.try_get::<String, _>("agent_run_id")?).await,
        None => Ok(None),
    }
}

/// The runs of a server that are not over.
pub async fn running_on(db: &Db, server: &str) -> Result<Vec<Stored<AgentRun>>> {
    record::list_oldest(db, 10, &[("server", server), ("ended", "false")]).await
}
