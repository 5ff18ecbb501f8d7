use ironyard_db::{Db, Result, Tx};
use ironyard_types::Timestamp;
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
    for some in entries.chunks(100) {
        let rows: Vec<String> = (0..some.len())
            .map(|row| {
                let marks: Vec<String> = (1..=8).map(|column| format!("${}", row * 8 + column)).collect();
                format!("({})", marks.join(", "))
            })
            .collect();
        let sql = format!(
            "insert into server_history (server_id, server_uid, event, state_from, state_to, actor, reason, created_at) values {}",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (server, uid, entry) in some {
            query = query.bind((*server).to_owned()).bind((*uid).to_owned()).bind(entry.event.clone());
            query = query.bind(text(entry.from)).bind(text(entry.to)).bind(entry.actor.clone());
            query = query.bind(entry.reason.clone()).bind(entry.at.0);
        }
        query.execute(tx.conn()).await?;
    }
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
