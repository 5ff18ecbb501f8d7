use ironyard_db::{Db, Result};
use ironyard_types::Timestamp;
use sqlx::{Row, any::AnyRow};

use crate::vault::Sealed;

/// A credential as it is stored.
pub struct StoredCredential {
    /// Name.
    pub name: String,
    /// Grows with every write.
    pub version: i64,
    /// Sealed user name and password.
    pub sealed: Sealed,
    /// Last write.
    pub updated_at: Timestamp,
}

fn decode(row: &AnyRow) -> Result<StoredCredential> {
    Ok(StoredCredential {
        name: row.try_get("credential_id")?,
        version: row.try_get("version")?,
        sealed: Sealed {
            key: row.try_get("sealed_key")?,
            secret: row.try_get("sealed_secret")?,
        },
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

/// Writes a credential; its new version.
pub async fn put(db: &Db, name: &str, sealed: &Sealed, now: Timestamp) -> Result<i64> {
    let mut tx = db.begin().await?;
    let row = sqlx::query(
        "insert into credential (credential_id, version, sealed_key, sealed_secret, updated_at) values ($1, 1, $2, $3, $4)
        on conflict (credential_id) do update
        set version = credential.version + 1, sealed_key = excluded.sealed_key, sealed_secret = excluded.sealed_secret,
        updated_at = excluded.updated_at
        returning version",
    )
    .bind(name.to_owned())
    .bind(sealed.key.clone())
    .bind(sealed.secret.clone())
    .bind(now.0)
    .fetch_one(tx.conn())
    .await?;
    let version = row.try_get("version")?;
    tx.commit().await?;
    Ok(version)
}

/// Reads a credential.
pub async fn get(db: &Db, name: &str) -> Result<Option<StoredCredential>> {
    let row = sqlx::query("select credential_id, version, sealed_key, sealed_secret, updated_at from credential where credential_id = $1")
        .bind(name.to_owned())
        .fetch_optional(db.pool())
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Reads all credentials.
pub async fn list(db: &Db) -> Result<Vec<StoredCredential>> {
    let sql = "select credential_id, version, sealed_key, sealed_secret, updated_at from credential order by credential_id";
    sqlx::query(sql).fetch_all(db.pool()).await?.iter().map(decode).collect()
}

/// Deletes a credential; whether there was one.
pub async fn delete(db: &Db, name: &str) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = sqlx::query("delete from credential where credential_id = $1")
        .bind(name.to_owned())
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}
