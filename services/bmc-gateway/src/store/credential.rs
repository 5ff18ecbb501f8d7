use ironyard_db::{Db, Result};
use ironyard_types::Timestamp;
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use crate::vault::Sealed;

/// A credential as it is stored.
pub struct StoredCredential {
    /// Name.
    pub name: String,
    /// Grows with every write.
    pub version: i64,
    /// Sealed user name and password.
    pub sealed: Sealed,
    /// What a rotation may have set on the BMC already.
    pub pending: Option<Sealed>,
    /// What was set by a caller, where a rotation has taken its place since: the BMC has `sealed`, which nobody else knows.
    pub set: Option<Sealed>,
    /// Networks whose BMCs it is for, with commas; empty: whichever BMC names it.
    pub networks: String,
    /// Last write.
    pub updated_at: Timestamp,
}

const COLUMNS: &str =
    "credential_id, version, sealed_key, sealed_secret, pending_key, pending_secret, set_key, set_secret, networks, updated_at";

fn decode(row: &AnyRow) -> Result<StoredCredential> {
    let optional = |key: &str, secret: &str| -> Result<Option<Sealed>> {
        Ok(match (row.try_get(key)?, row.try_get(secret)?) {
            (Some(key), Some(secret)) => Some(Sealed { key, secret }),
            _ => None,
        })
    };
    Ok(StoredCredential {
        name: row.try_get("credential_id")?,
        version: row.try_get("version")?,
        sealed: Sealed {
            key: row.try_get("sealed_key")?,
            secret: row.try_get("sealed_secret")?,
        },
        pending: optional("pending_key", "pending_secret")?,
        set: optional("set_key", "set_secret")?,
        networks: row.try_get("networks")?,
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

/// Writes a credential; its new version. `None` where a rotation has stored a password that the BMC has or may have, unless that is to be forgotten.
pub async fn put(db: &Db, name: &str, sealed: &Sealed, networks: &str, replace: bool, now: Timestamp) -> Result<Option<i64>> {
    let mut tx = db.begin().await?;
    let row = sqlx::query(
        "insert into credential (credential_id, version, sealed_key, sealed_secret, updated_at, networks) values ($1, 1, $2, $3, $4, $6)
        on conflict (credential_id) do update
        set version = credential.version + 1, sealed_key = excluded.sealed_key, sealed_secret = excluded.sealed_secret, networks = excluded.networks,
        updated_at = excluded.updated_at, pending_key = null, pending_secret = null, set_key = null, set_secret = null
        where (credential.pending_key is null and credential.set_key is null) or $5 > 0
        returning version",
    )
    .bind(name.to_owned())
    .bind(sealed.key.clone())
    .bind(sealed.secret.clone())
    .bind(now.0)
    .bind(i64::from(replace))
    .bind(networks.to_owned())
    .fetch_optional(tx.conn())
    .await?;
    let version = row.map(|row| row.try_get("version")).transpose()?;
    tx.commit().await?;
    Ok(version)
}

/// Stores what a rotation is about to set, unless somebody wrote the credential since that version, or something is pending.
pub async fn put_pending(db: &Db, name: &str, version: i64, pending: &Sealed) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "update credential set pending_key = $3, pending_secret = $4
        where credential_id = $1 and version = $2 and pending_key is null",
    )
    .bind(name.to_owned())
    .bind(version)
    .bind(pending.key.clone())
    .bind(pending.secret.clone())
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Makes what is pending at that version the credential; whether there was anything.
pub async fn promote(db: &Db, name: &str, version: i64, now: Timestamp) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "update credential set set_key = coalesce(set_key, sealed_key), set_secret = coalesce(set_secret, sealed_secret),
        sealed_key = pending_key, sealed_secret = pending_secret, pending_key = null, pending_secret = null, version = credential.version + 1, updated_at = $3
        where credential_id = $1 and version = $2 and pending_key is not null",
    )
    .bind(name.to_owned())
    .bind(version)
    .bind(now.0)
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets what is pending at that version: the BMC has not taken it.
pub async fn drop_pending(db: &Db, name: &str, version: i64) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query("update credential set pending_key = null, pending_secret = null where credential_id = $1 and version = $2")
        .bind(name.to_owned())
        .bind(version)
        .execute(tx.conn())
        .await?;
    tx.commit().await
}

/// Says which networks a credential is for, and leaves its secrets as they are; whether it was still at that version.
pub async fn set_networks(db: &Db, name: &str, version: i64, networks: &str, now: Timestamp) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query("update credential set networks = $3, updated_at = $4 where credential_id = $1 and version = $2")
        .bind(name.to_owned())
        .bind(version)
        .bind(networks.to_owned())
        .bind(now.0)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Puts another sealed data key in the place of this one, wherever it stands in the credential; whether it stood there. At once: a rotation that ends
/// meanwhile moves it from one place to the other.
pub async fn rewrap(db: &Db, name: &str, before: &str, new: &Sealed) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query(
        "update credential set
        sealed_key = case when sealed_key = $2 then $3 else sealed_key end,
        pending_key = case when pending_key = $2 then $3 else pending_key end,
        set_key = case when set_key = $2 then $3 else set_key end
        where credential_id = $1 and (sealed_key = $2 or pending_key = $2 or set_key = $2)",
    )
    .bind(name.to_owned())
    .bind(before.to_owned())
    .bind(new.key.clone())
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Reads a credential.
pub async fn get(db: &Db, name: &str) -> Result<Option<StoredCredential>> {
    let sql = format!("select {COLUMNS} from credential where credential_id = $1");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(name.to_owned())
        .fetch_optional(db.pool())
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Reads all credentials.
pub async fn list(db: &Db) -> Result<Vec<StoredCredential>> {
    let sql = format!("select {COLUMNS} from credential order by credential_id");
    sqlx::query(AssertSqlSafe(sql))
        .fetch_all(db.pool())
        .await?
        .iter()
        .map(decode)
        .collect()
}

/// Deletes a credential as it was read; whether it was still that one.
pub async fn delete(db: &Db, name: &str, version: i64) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query("delete from credential where credential_id = $1 and version = $2")
        .bind(name.to_owned())
        .bind(version)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}
