use ironyard_db::{Db, Result, Tx};
use ironyard_types::Timestamp;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};

use crate::domain::lifecycle::State;

/// One thing that happened to a server.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What.
    pub event: String,
    /// State before.
    pub from: Option<State>,
    /// State after.
    pub to: Option<State>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Adds an entry, in the transaction that made it true.
pub async fn append(tx: &mut Tx, server: &str, uid: &str, entry: &Entry) -> Result<()> {
    append_all(tx, &[(server, uid, entry)]).await
}

/// The same for many servers: name, uid and entry.
pub async fn append_all(tx: &mut Tx, entries: &[(&str, &str, &Entry)]) -> Result<()> {
    let text = |state: Option<State>| state.map(|s| s.to_string()).unwrap_or_default();
    if entries.is_empty() {
        return Ok(());
    }
    let columns = ["server_id", "server_uid", "event", "state_from", "state_to", "actor", "reason"];
    let list = columns.join(", ");
    let mut typed = columns.map(|column| (column, "text")).to_vec();
    typed.push(("created_at", "bigint"));
    let sql = format!(
        "insert into server_history ({list}, created_at) select {list}, created_at from ({}) n",
        tx.dialect().rows(1, &typed)
    );
    let rows = entries.iter().map(|(server, uid, entry)| {
        json!({
            "server_id": server, "server_uid": uid, "event": entry.event, "state_from": text(entry.from), "state_to": text(entry.to),
            "actor": entry.actor, "reason": entry.reason, "created_at": entry.at.0,
        })
    });
    let rows = Value::Array(rows.collect()).to_string();
    sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(tx.conn()).await?;
    Ok(())
}

/// What happened to a server, oldest first; the last thousand.
pub async fn list(db: &Db, server: &str) -> Result<Vec<Entry>> {
    let rows = sqlx::query(
        "select event, state_from, state_to, actor, reason, created_at from server_history
        where server_id = $1 order by server_history_id desc limit 1000",
    )
    .bind(server.to_owned())
    .fetch_all(db.pool())
    .await?;
    let state = |text: String| State::ALL.into_iter().find(|s| s.to_string() == text);
    let mut entries: Vec<Entry> = rows
        .iter()
        .map(|row| {
            Ok(Entry {
                event: row.try_get("event")?,
                from: state(row.try_get("state_from")?),
                to: state(row.try_get("state_to")?),
                actor: row.try_get("actor")?,
                reason: row.try_get("reason")?,
                at: Timestamp(row.try_get("created_at")?),
            })
        })
        .collect::<Result<_>>()?;
    entries.reverse();
    Ok(entries)
}
