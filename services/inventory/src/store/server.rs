use std::collections::BTreeMap;

use ironyard_db::{Outcome, Record, Result, Stored, Tx, record};
use ironyard_types::{
    Metadata, Timestamp,
    labels::{Requirement, Selector},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};

use crate::domain::{claimability, server::Server};

impl Record for Server {
    const TABLE: &'static str = "server";
    const INDEX: &'static [&'static str] = &["state", "identity", "claimable", "bmc", "claim_uid", "place"];
    fn index(&self) -> Vec<Option<String>> {
        vec![
            Some(self.state.to_string()),
            self.identity(),
            Some(claimability::column(self).to_owned()),
            self.spec.bmc.as_ref().map(|b| b.name.clone()),
            self.facts.claim.as_ref().map(|c| c.uid.clone()),
            self.place(),
        ]
    }
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// Inserts a server and its labels.
pub async fn insert(tx: &mut Tx, server: Server, now: Timestamp) -> Result<Stored<Server>> {
    let stored = record::insert(tx, server, now).await?;
    write_labels(tx, &stored.value).await?;
    Ok(stored)
}

/// Writes a server over the version that was read, and its labels where they changed.
pub async fn update(tx: &mut Tx, before: &Server, after: &Stored<Server>, now: Timestamp) -> Result<Outcome<Stored<Server>>> {
    let outcome = record::update(tx, after, now).await?;
    if !matches!(outcome, Outcome::Written(_)) {
        return Ok(outcome);
    }
    let labels = &after.value.metadata.labels;
    if before.metadata.labels != *labels {
        delete_labels(tx, &after.value.metadata.name).await?;
        write_labels(tx, &after.value).await?;
    } else if !labels.is_empty() && claimability::column(before) != claimability::column(&after.value) {
        sqlx::query("update server_label set claimable = $2 where server_id = $1 and claimable <> $2")
            .bind(after.value.metadata.name.clone())
            .bind(claimability::column(&after.value))
            .execute(tx.conn())
            .await?;
    }
    Ok(outcome)
}

/// Writes many servers over the versions that were read, whose labels are as they were and none of which can be claimed any more; each as it
/// is then, `None` where somebody else was faster.
pub async fn take_all(tx: &mut Tx, servers: &[&Stored<Server>], now: Timestamp) -> Result<Vec<Option<Stored<Server>>>> {
    let written = record::update_all(tx, servers, now).await?;
    let labelled: Vec<&Server> = written
        .iter()
        .flatten()
        .map(|s| &s.value)
        .filter(|s| !s.metadata.labels.is_empty())
        .collect();
    if let Some(column) = labelled.first().map(|server| claimability::column(server)) {
        let sql = format!("update server_label set claimable = $1 where server_id {}", tx.dialect().any_of(2));
        let names: Vec<&str> = labelled.iter().map(|server| server.metadata.name.as_str()).collect();
        let query = sqlx::query(AssertSqlSafe(sql)).bind(column).bind(json!(names).to_string());
        query.execute(tx.conn()).await?;
    }
    Ok(written)
}

/// Deletes a server and its labels.
pub async fn delete(tx: &mut Tx, server: &Stored<Server>, now: Timestamp) -> Result<Outcome<()>> {
    delete_labels(tx, &server.value.metadata.name).await?;
    record::delete(tx, server, now).await
}

async fn delete_labels(tx: &mut Tx, name: &str) -> Result<()> {
    sqlx::query("delete from server_label where server_id = $1")
        .bind(name.to_owned())
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn write_labels(tx: &mut Tx, server: &Server) -> Result<()> {
    for (key, value) in &server.metadata.labels {
        sqlx::query("insert into server_label (label_key, label_value, claimable, server_id) values ($1, $2, $3, $4)")
            .bind(key.clone())
            .bind(value.clone())
            .bind(claimability::column(server))
            .bind(server.metadata.name.clone())
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// The servers that these claims hold.
pub async fn held_by(tx: &mut Tx, claim_uids: Vec<String>) -> Result<Vec<Stored<Server>>> {
    let marks: Vec<String> = (1..=claim_uids.len()).map(|n| format!("${n}")).collect();
    let sql = format!("select {COLUMNS} from server s where s.claim_uid in ({})", marks.join(", "));
    record::select_in(tx, sql, claim_uids).await
}

/// The server of this identity.
pub async fn by_identity(tx: &mut Tx, identity: &str) -> Result<Option<Stored<Server>>> {
    let row = sqlx::query("select server_id from server where identity = $1")
        .bind(identity.to_owned())
        .fetch_optional(tx.conn())
        .await?;
    match row {
        Some(row) => record::get_for_update(tx, &row.try_get::<String, _>("server_id")?).await,
        None => Ok(None),
    }
}

/// Notes that reservations are made under this lease; false where they were made under a later one. Whoever asks under an earlier one from now
/// on, by whichever replica and however late, is refused: the row is written, so the two take turns.
pub async fn advance_fence(tx: &mut Tx, scope: &str, number: i64) -> Result<bool> {
    let sql = "insert into reservation_fence (scope, number) values ($1, $2)
        on conflict (scope) do update set number = excluded.number where reservation_fence.number <= excluded.number";
    let advanced = sqlx::query(sql).bind(scope).bind(number).execute(tx.conn()).await?;
    Ok(advanced.rows_affected() > 0)
}

/// Claimable servers whose labels match, by name, a few at a time; rows that another transaction holds are passed over, or waited for.
///
/// The first exact label drives: its index lists the claimable servers that carry it, so the cost does not grow with the fleet.
pub async fn candidates(
    tx: &mut Tx,
    column: &'static str,
    selector: &Selector,
    after: &str,
    wait: bool,
    most: usize,
) -> Result<Vec<Stored<Server>>> {
    let mut exact: BTreeMap<_, _> = selector.match_labels.iter().collect();
    let mut binds: Vec<String> = vec![column.to_owned(), after.to_owned()];
    let mut bind = |value: &str| {
        binds.push(value.to_owned());
        format!("${}", binds.len())
    };
    let mut sql = match exact.pop_first() {
        Some((key, value)) => format!(
            "select {COLUMNS} from server_label l join server s on s.server_id = l.server_id
            where l.claimable = $1 and s.claimable = $1 and l.server_id > $2 and l.label_key = {} and l.label_value = {}",
            bind(key),
            bind(value)
        ),
        None => format!("select {COLUMNS} from server s where s.claimable = $1 and s.server_id > $2"),
    };
    for (key, value) in exact {
        let (key, value) = (bind(key), bind(value));
        sql.push_str(&format!(
            " and exists ({LABEL} and m.label_key = {key} and m.label_value = {value})"
        ));
    }
    for requirement in &selector.requirements {
        let (not, key, values) = match requirement {
            Requirement::In(key, values) => ("", key, values.as_slice()),
            Requirement::NotIn(key, values) => ("not ", key, values.as_slice()),
            Requirement::Exists(key) => ("", key, [].as_slice()),
            Requirement::DoesNotExist(key) => ("not ", key, [].as_slice()),
        };
        let key = bind(key);
        let within: Vec<String> = values.iter().map(|v| bind(v)).collect();
        let within = if within.is_empty() {
            String::new()
        } else {
            format!(" and m.label_value in ({})", within.join(", "))
        };
        sql.push_str(&format!(" and {not}exists ({LABEL} and m.label_key = {key}{within})"));
    }
    let locked = if wait {
        tx.dialect().for_update()
    } else {
        tx.dialect().skip_locked()
    };
    sql.push_str(&format!(" order by s.server_id limit {most} {locked}"));
    record::select_in(tx, sql, binds).await
}

const COLUMNS: &str = "s.server_id as id, s.version, s.body, s.created_at, s.updated_at";

const LABEL: &str = "select 1 from server_label m where m.server_id = s.server_id";
