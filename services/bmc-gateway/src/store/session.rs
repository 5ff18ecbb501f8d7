//! Sessions with BMCs, sealed: a gateway that is started again goes on with the one it had.

use ironyard_db::{Db, Result};
use ironyard_types::Timestamp;
use sqlx::Row;

use crate::vault::Sealed;

/// Saves the session of a BMC; `device` says with which address, credential and trust it was opened.
pub async fn put(db: &Db, bmc_uid: &str, device: &str, sealed: &Sealed, now: Timestamp) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query(
        "insert into session (session_id, device, sealed_key, sealed_secret, updated_at) values ($1, $2, $3, $4, $5)
        on conflict (session_id) do update
        set device = excluded.device, sealed_key = excluded.sealed_key, sealed_secret = excluded.sealed_secret,
        updated_at = excluded.updated_at",
    )
    .bind(bmc_uid.to_owned())
    .bind(device.to_owned())
    .bind(sealed.key.clone())
    .bind(sealed.secret.clone())
    .bind(now.0)
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// The saved session, if it was opened for the same device.
pub async fn get(db: &Db, bmc_uid: &str, device: &str) -> Result<Option<Sealed>> {
    let row = sqlx::query("select sealed_key, sealed_secret from session where session_id = $1 and device = $2")
        .bind(bmc_uid.to_owned())
        .bind(device.to_owned())
        .fetch_optional(db.pool())
        .await?;
    row.map(|row| {
        Ok(Sealed {
            key: row.try_get("sealed_key")?,
            secret: row.try_get("sealed_secret")?,
        })
    })
    .transpose()
}

/// All saved sessions, by the uid of their BMC.
pub async fn list(db: &Db) -> Result<Vec<(String, Sealed)>> {
    let rows = sqlx::query("select session_id, sealed_key, sealed_secret from session")
        .fetch_all(db.pool())
        .await?;
    rows.iter()
        .map(|row| {
            let sealed = Sealed {
                key: row.try_get("sealed_key")?,
                secret: row.try_get("sealed_secret")?,
            };
            Ok((row.try_get("session_id")?, sealed))
        })
        .collect()
}

/// Saves a session anew, unless another one was saved since; whether it was.
pub async fn replace(db: &Db, bmc_uid: &str, before: &str, sealed: &Sealed, now: Timestamp) -> Result<bool> {
    let mut tx = db.begin().await?;
    let replaced =
        sqlx::query("update session set sealed_key = $3, sealed_secret = $4, updated_at = $5 where session_id = $1 and sealed_secret = $2")
            .bind(bmc_uid.to_owned())
            .bind(before.to_owned())
            .bind(sealed.key.clone())
            .bind(sealed.secret.clone())
            .bind(now.0)
            .execute(tx.conn())
            .await?;
    tx.commit().await?;
    Ok(replaced.rows_affected() == 1)
}

/// Forgets a session, unless another one was saved since.
pub async fn delete(db: &Db, bmc_uid: &str, sealed_secret: &str) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query("delete from session where session_id = $1 and sealed_secret = $2")
        .bind(bmc_uid.to_owned())
        .bind(sealed_secret.to_owned())
        .execute(tx.conn())
        .await?;
    tx.commit().await
}
