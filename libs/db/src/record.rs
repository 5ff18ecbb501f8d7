//! Resources as rows: a name, a uid, a version, a JSON body, and the columns that are searched.
//!
//! Table `<table>` has columns `<table>_id` (name, primary key), `uid`, `version`, `body`, `created_at`, `updated_at` and one text
//! column for each entry of [`Record::index`]. Every write goes into the change feed.

use std::collections::HashSet;

use ironyard_types::{Metadata, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use crate::{
    Db, Error, Result, Tx,
    dialect::Dialect,
    feed::{self, Subject},
};

/// A resource that can be stored.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + Unpin + 'static {
    /// Table.
    const TABLE: &'static str;
    /// Columns beside the body.
    const INDEX: &'static [&'static str];
    /// Values of these columns, in the same order.
    fn index(&self) -> Vec<Option<String>>;
    /// Its head.
    fn metadata(&self) -> &Metadata;
    /// Its head, to change.
    fn metadata_mut(&mut self) -> &mut Metadata;
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// Version that was read.
    pub version: i64,
    /// Creation.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl<T: Record> Stored<T> {
    /// Version for callers: differs between two resources that had the same name.
    pub fn etag(&self) -> String {
        let uid = &self.value.metadata().uid;
        format!("{}-{}", self.version, uid.get(..8).unwrap_or(uid))
    }
}

/// What a write met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was written; this is it now.
    Written(T),
    /// Somebody else wrote first.
    Stale,
    /// It is gone.
    Missing,
}

fn decode<T: Record>(row: &AnyRow) -> Result<Stored<T>> {
    let body: String = row.try_get("body")?;
    let value = serde_json::from_str(&body).map_err(|source| Error::Corrupt {
        table: T::TABLE,
        key: row.try_get("id").unwrap_or_default(),
        source,
    })?;
    Ok(Stored {
        value,
        version: row.try_get("version")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

fn encode<T: Record>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::Encode { table: T::TABLE, source })
}

fn select<T: Record>(rest: &str) -> AssertSqlSafe<String> {
    let table = T::TABLE;
    AssertSqlSafe(format!(
        "select {table}_id as id, version, body, created_at, updated_at from {table} {rest}"
    ))
}

/// Reads one by name.
pub async fn get<T: Record>(db: &Db, name: &str) -> Result<Option<Stored<T>>> {
    let sql = select::<T>(&format!("where {}_id = $1", T::TABLE));
    sqlx::query(sql)
        .bind(name)
        .fetch_optional(db.pool())
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

/// Reads those of these names that exist.
pub async fn get_all<T: Record>(db: &Db, names: &[&str]) -> Result<Vec<Stored<T>>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let sql = select::<T>(&format!("where {}_id {}", T::TABLE, db.dialect().any_of(1)));
    sqlx::query(sql)
        .bind(json!(names).to_string())
        .fetch_all(db.pool())
        .await?
        .iter()
        .map(decode)
        .collect()
}

/// Reads one by name, for a change in the same transaction.
pub async fn get_for_update<T: Record>(tx: &mut Tx, name: &str) -> Result<Option<Stored<T>>> {
    let sql = select::<T>(&format!("where {}_id = $1 {}", T::TABLE, tx.dialect().for_update()));
    sqlx::query(sql)
        .bind(name)
        .fetch_optional(tx.conn())
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

/// Reads what a statement of the caller's selects (`id`, `version`, `body`, `created_at`, `updated_at`), for changes in the same transaction.
pub async fn select_in<T: Record>(tx: &mut Tx, sql: String, binds: Vec<String>) -> Result<Vec<Stored<T>>> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for bind in binds {
        query = query.bind(bind);
    }
    query.fetch_all(tx.conn()).await?.iter().map(decode).collect()
}

/// Reads a page by name, after `after`, with these values in these index columns.
pub async fn list<T: Record>(db: &Db, after: &str, limit: i64, filters: &[(&'static str, &str)]) -> Result<Vec<Stored<T>>> {
    let mut rest = format!("where {}_id > $1", T::TABLE);
    for (i, (column, _)) in filters.iter().enumerate() {
        rest.push_str(&format!(" and {column} = ${}", i + 3));
    }
    rest.push_str(&format!(" order by {}_id limit $2", T::TABLE));
    let mut query = sqlx::query(select::<T>(&rest)).bind(after).bind(limit);
    for (_, value) in filters {
        query = query.bind(*value);
    }
    query.fetch_all(db.pool()).await?.iter().map(decode).collect()
}

/// Reads all with these values in these index columns, in order of creation.
pub async fn list_oldest<T: Record>(db: &Db, limit: i64, filters: &[(&'static str, &str)]) -> Result<Vec<Stored<T>>> {
    list_by_age(db, "asc", "", vec![], limit, filters).await
}

/// The same, the newest first.
pub async fn list_newest<T: Record>(db: &Db, limit: i64, filters: &[(&'static str, &str)]) -> Result<Vec<Stored<T>>> {
    list_by_age(db, "desc", "", vec![], limit, filters).await
}

/// The same, those after the one that was created then and has this name.
pub async fn list_newest_after<T: Record>(
    db: &Db,
    (created, name): (Timestamp, &str),
    limit: i64,
    filters: &[(&'static str, &str)],
) -> Result<Vec<Stored<T>>> {
    let after = format!("(created_at, {}_id) < ({created}, $2)", T::TABLE, created = created.0);
    list_by_age(db, "desc", &after, vec![name], limit, filters).await
}

async fn list_by_age<T: Record>(
    db: &Db,
    order: &str,
    condition: &str,
    mut binds: Vec<&str>,
    limit: i64,
    filters: &[(&'static str, &str)],
) -> Result<Vec<Stored<T>>> {
    let mut rest = format!("where {}", if condition.is_empty() { "1 = 1" } else { condition });
    for (column, value) in filters {
        binds.push(*value);
        rest.push_str(&format!(" and {column} = ${}", binds.len() + 1));
    }
    rest.push_str(&format!(" order by created_at {order}, {}_id {order} limit $1", T::TABLE));
    let mut query = sqlx::query(select::<T>(&rest)).bind(limit);
    for value in binds {
        query = query.bind(value);
    }
    query.fetch_all(db.pool()).await?.iter().map(decode).collect()
}

/// Inserts a new one.
pub async fn insert<T: Record>(tx: &mut Tx, value: T, now: Timestamp) -> Result<Stored<T>> {
    let taken = || Error::Unique {
        constraint: format!("{}_pkey", T::TABLE),
    };
    insert_new(tx, value, now).await?.ok_or_else(taken)
}

/// Inserts a new one; `None` when there is one of its name.
pub async fn insert_new<T: Record>(tx: &mut Tx, value: T, now: Timestamp) -> Result<Option<Stored<T>>> {
    let table = T::TABLE;
    let mut columns = format!("{table}_id, uid, version, body, created_at, updated_at");
    let mut values = "$1, $2, 1, $3, $4, $4".to_owned();
    for (i, column) in T::INDEX.iter().enumerate() {
        columns.push_str(&format!(", {column}"));
        values.push_str(&format!(", ${}", i + 5));
    }
    let body = encode(&value)?;
    let (name, uid) = (value.metadata().name.clone(), value.metadata().uid.clone());
    let sql = format!("insert into {table} ({columns}) values ({values}) on conflict ({table}_id) do nothing");
    let sql = Subject::with_write(tx.dialect(), table, &sql, ["$1", "$2", "1", "$4"], false);
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(name.clone())
        .bind(uid.clone())
        .bind(body)
        .bind(now.0);
    for value in value.index() {
        query = query.bind(value);
    }
    if query.execute(tx.conn()).await?.rows_affected() == 0 {
        return Ok(None);
    }
    feed::written(tx, &[subject::<T>(&name, &uid, 1, false)], now).await?;
    Ok(Some(Stored {
        value,
        version: 1,
        created_at: now,
        updated_at: now,
    }))
}

/// Writes a changed one over the version that was read.
pub async fn update<T: Record>(tx: &mut Tx, stored: &Stored<T>, now: Timestamp) -> Result<Outcome<Stored<T>>> {
    let table = T::TABLE;
    let mut set = "version = version + 1, body = $4, updated_at = $5".to_owned();
    for (i, column) in T::INDEX.iter().enumerate() {
        set.push_str(&format!(", {column} = ${}", i + 6));
    }
    let (name, uid) = (stored.value.metadata().name.clone(), stored.value.metadata().uid.clone());
    let sql = format!("update {table} set {set} where {table}_id = $1 and version = $2 and uid = $3");
    let sql = Subject::with_write(tx.dialect(), table, &sql, ["$1", "$3", "$2 + 1", "$5"], false);
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(name.clone())
        .bind(stored.version)
        .bind(uid.clone())
        .bind(encode(&stored.value)?)
        .bind(now.0);
    for value in stored.value.index() {
        query = query.bind(value);
    }
    if query.execute(tx.conn()).await?.rows_affected() == 0 {
        return missing_or_stale::<T, _>(tx, &name).await;
    }
    feed::written(tx, &[subject::<T>(&name, &uid, stored.version + 1, false)], now).await?;
    Ok(Outcome::Written(Stored {
        version: stored.version + 1,
        updated_at: now,
        ..stored.clone()
    }))
}

/// Writes many changed ones over the versions that were read, with as many statements as for one; each as it is then, `None` where somebody
/// else was faster.
pub async fn update_all<T: Record>(tx: &mut Tx, stored: &[&Stored<T>], now: Timestamp) -> Result<Vec<Option<Stored<T>>>> {
    if stored.is_empty() {
        return Ok(vec![]);
    }
    let table = T::TABLE;
    let mut columns = vec![("c0", "text"), ("c1", "bigint"), ("c2", "text"), ("c3", "text")];
    columns.extend(T::INDEX.iter().map(|column| (*column, "text")));
    let index: String = T::INDEX.iter().map(|column| format!(", {column} = n.{column}")).collect();
    let looked_up = match tx.dialect() {
        Dialect::Sqlite => String::new(),
        Dialect::Postgres => format!(" and {table}_id = any (array (select c0 from n))"),
    };
    let write = format!(
        "update {table} set version = version + 1, updated_at = $2, body = n.c3{index} from n
        where {table}_id = n.c0 and version = n.c1 and uid = n.c2{looked_up} returning {table}_id as id"
    );
    let rows = tx.dialect().rows(1, &columns);
    let sql = match tx.dialect() {
        Dialect::Sqlite => format!("with n as ({rows}) {write}"),
        // Looked up in the index, however many the planner takes the rows to be.
        Dialect::Postgres => format!(
            "with n as materialized ({rows}), written as ({write}), told as (
                insert into change (kind, name, uid, version, deleted, created_at)
                select distinct '{table}', n.c0, n.c2, n.c1 + 1, 0, $2 from n join written on written.id = n.c0)
            select id from written"
        ),
    };
    let rows = stored.iter().map(|one| {
        let metadata = one.value.metadata();
        let mut row = json!({"c0": metadata.name, "c1": one.version, "c2": metadata.uid, "c3": encode(&one.value)?});
        for (column, value) in T::INDEX.iter().zip(one.value.index()) {
            row[*column] = json!(value);
        }
        Ok(row)
    });
    let rows = Value::Array(rows.collect::<Result<_>>()?).to_string();
    let query = sqlx::query(AssertSqlSafe(sql)).bind(rows).bind(now.0);
    let mut written = HashSet::new();
    for row in query.fetch_all(tx.conn()).await? {
        written.insert(row.try_get::<String, _>("id")?);
    }
    // A name that is there twice was written once.
    let outcome = stored.iter().map(|one| {
        written.remove(&one.value.metadata().name).then(|| Stored {
            version: one.version + 1,
            updated_at: now,
            ..(*one).clone()
        })
    });
    let outcome: Vec<Option<Stored<T>>> = outcome.collect();
    let subjects = outcome.iter().flatten().map(|one| {
        let metadata = one.value.metadata();
        subject::<T>(&metadata.name, &metadata.uid, one.version, false)
    });
    feed::written(tx, &subjects.collect::<Vec<_>>(), now).await?;
    Ok(outcome)
}

/// Deletes the version that was read.
pub async fn delete<T: Record>(tx: &mut Tx, stored: &Stored<T>, now: Timestamp) -> Result<Outcome<()>> {
    let table = T::TABLE;
    let (name, uid) = (&stored.value.metadata().name, &stored.value.metadata().uid);
    let sql = format!("delete from {table} where {table}_id = $1 and version = $2 and uid = $3");
    let sql = Subject::with_write(tx.dialect(), table, &sql, ["$1", "$3", "$2", "$4"], true);
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(name.clone())
        .bind(stored.version)
        .bind(uid.clone());
    // Only where the feed is told at once.
    let query = match tx.dialect() {
        Dialect::Sqlite => query,
        Dialect::Postgres => query.bind(now.0),
    };
    if query.execute(tx.conn()).await?.rows_affected() == 0 {
        return missing_or_stale::<T, _>(tx, name).await;
    }
    feed::written(tx, &[subject::<T>(name, uid, stored.version, true)], now).await?;
    Ok(Outcome::Written(()))
}

fn subject<'a, T: Record>(name: &'a str, uid: &'a str, version: i64, deleted: bool) -> Subject<'a> {
    Subject {
        kind: T::TABLE,
        name,
        uid,
        version,
        deleted,
    }
}

async fn missing_or_stale<T: Record, R>(tx: &mut Tx, name: &str) -> Result<Outcome<R>> {
    let sql = select::<T>(&format!("where {}_id = $1", T::TABLE));
    let row = sqlx::query(sql).bind(name).fetch_optional(tx.conn()).await?;
    Ok(if row.is_some() { Outcome::Stale } else { Outcome::Missing })
}
