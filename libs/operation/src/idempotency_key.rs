use std::time::Duration;

use ironyard_db::{Db, Error, Result, Retention, Tx};
use ironyard_types::{Timestamp, sha256_hex};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, any::AnyRow};

/// A call that may be repeated: a replay gets the first answer, the same id with another body is refused.
#[derive(Debug, Clone, Default)]
pub struct Request {
    id: String,
    method: &'static str,
    body_sha256: String,
}

/// What the idempotency_key knows of a request.
pub enum Known<T> {
    /// Nothing: do the work.
    Fresh,
    /// This was the answer.
    Replay(T),
    /// The id was used for something else.
    Reused,
}

const KNOWN: &str = "select method, body_sha256, answer from request where request_id = $1";

impl Request {
    /// A request with its caller's id (empty: not idempotent) and its encoded body.
    pub fn new(method: &'static str, id: &str, body: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            method,
            body_sha256: sha256_hex(body),
        }
    }

    /// What is known of it, within the transaction that does the work.
    pub async fn known<T: DeserializeOwned>(&self, tx: &mut Tx) -> Result<Known<T>> {
        if self.id.is_empty() {
            return Ok(Known::Fresh);
        }
        // Who comes second finds the first one's answer.
        if let Some(lock) = tx.dialect().lock_request() {
            sqlx::query(lock).bind(self.id.clone()).execute(tx.conn()).await?;
        }
        let query = sqlx::query(KNOWN).bind(self.id.clone());
        self.judge(query.fetch_optional(tx.conn()).await?)
    }

    /// What is known of it without waiting for anybody: where that is nothing, the same request may be in work.
    pub async fn known_already<T: DeserializeOwned>(&self, db: &Db) -> Result<Known<T>> {
        if self.id.is_empty() {
            return Ok(Known::Fresh);
        }
        let query = sqlx::query(KNOWN).bind(self.id.clone());
        self.judge(query.fetch_optional(db.pool()).await?)
    }

    fn judge<T: DeserializeOwned>(&self, row: Option<AnyRow>) -> Result<Known<T>> {
        let Some(row) = row else { return Ok(Known::Fresh) };
        let (method, hash): (String, String) = (row.try_get("method")?, row.try_get("body_sha256")?);
        if method != self.method || hash != self.body_sha256 {
            return Ok(Known::Reused);
        }
        let answer: String = row.try_get("answer")?;
        let corrupt = |source| Error::Corrupt {
            table: "request",
            key: self.id.clone(),
            source,
        };
        Ok(Known::Replay(serde_json::from_str(&answer).map_err(corrupt)?))
    }

    /// Remembers the answer.
    pub async fn answered<T: Serialize>(&self, tx: &mut Tx, answer: &T, now: Timestamp) -> Result<()> {
        if self.id.is_empty() {
            return Ok(());
        }
        let answer = serde_json::to_string(answer).map_err(|source| Error::Encode { table: "request", source })?;
        sqlx::query("insert into request (request_id, method, body_sha256, answer, created_at) values ($1, $2, $3, $4, $5)")
            .bind(self.id.clone())
            .bind(self.method)
            .bind(self.body_sha256.clone())
            .bind(answer)
            .bind(now.0)
            .execute(tx.conn())
            .await?;
        Ok(())
    }
}

/// Answers are remembered for a month: longer than any operation that is polled by its request id.
pub const REQUESTS: Retention = Retention {
    table: "request",
    key: "request_id",
    over: "1 = 1",
    since: "created_at",
    keep: Duration::from_secs(30 * 24 * 3600),
    most: 1_000_000,
};
