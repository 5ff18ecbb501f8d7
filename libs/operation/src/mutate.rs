use ironyard_db::{Db, Error, Outcome, Record, Stored, record};
use ironyard_types::Timestamp;

use crate::idempotency_key::{Known, Request};

/// Why a change was not made. `E` is the kind's own reason to refuse.
#[derive(Debug, thiserror::Error)]
pub enum MutateError<E: std::error::Error + 'static> {
    /// One of this name exists.
    #[error("it exists already")]
    Exists,
    /// None of this name exists.
    #[error("it does not exist")]
    Missing,
    /// Somebody else changed it.
    #[error("it was changed by someone else")]
    Stale,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestReused,
    /// The kind's own rules refuse it.
    #[error("{0}")]
    Refused(E),
    /// The database failed.
    #[error("could not reach the records")]
    Store(#[source] Error),
}

impl<E: std::error::Error> From<Error> for MutateError<E> {
    fn from(error: Error) -> Self {
        match error {
            // Two calls at once with the same request id: the loser repeats and gets the winner's answer.
            Error::Unique { constraint } if constraint == "request_pkey" => Self::Stale,
            Error::Unique { constraint } if constraint.ends_with("_pkey") => Self::Exists,
            other => Self::Store(other),
        }
    }
}

/// Inserts a record once per request id.
pub async fn create<T: Record, E: std::error::Error + 'static>(
    db: &Db,
    request: &Request,
    value: T,
    now: Timestamp,
) -> Result<Stored<T>, MutateError<E>> {
    let mut tx = db.begin().await?;
    match request.known(&mut tx).await? {
        Known::Replay(answer) => return Ok(answer),
        Known::Reused => return Err(MutateError::RequestReused),
        Known::Fresh => {}
    }
    let stored = record::insert_new(&mut tx, value, now).await?.ok_or(MutateError::Exists)?;
    request.answered(&mut tx, &stored, now).await?;
    tx.commit().await?;
    Ok(stored)
}

/// Changes a record once per request id. With `etag`, only that version; without, whatever version there is. A change that changes
/// nothing writes nothing.
pub async fn update<T: Record + PartialEq, E: std::error::Error + 'static>(
    db: &Db,
    request: &Request,
    name: &str,
    etag: &str,
    now: Timestamp,
    change: impl FnOnce(&mut T) -> Result<(), E>,
) -> Result<Stored<T>, MutateError<E>> {
    let mut tx = db.begin().await?;
    match request.known(&mut tx).await? {
        Known::Replay(answer) => return Ok(answer),
        Known::Reused => return Err(MutateError::RequestReused),
        Known::Fresh => {}
    }
    let before = record::get_for_update::<T>(&mut tx, name).await?.ok_or(MutateError::Missing)?;
    if !etag.is_empty() && etag != before.etag() {
        return Err(MutateError::Stale);
    }
    let mut after = before.clone();
    change(&mut after.value).map_err(MutateError::Refused)?;
    let stored = if after.value == before.value {
        before
    } else {
        match record::update(&mut tx, &after, now).await? {
            Outcome::Written(stored) => stored,
            Outcome::Stale => return Err(MutateError::Stale),
            Outcome::Missing => return Err(MutateError::Missing),
        }
    };
    request.answered(&mut tx, &stored, now).await?;
    tx.commit().await?;
    Ok(stored)
}

/// Deletes a record if `check` lets it go.
pub async fn delete<T: Record, E: std::error::Error + 'static>(
    db: &Db,
    name: &str,
    etag: &str,
    now: Timestamp,
    check: impl FnOnce(&T) -> Result<(), E>,
) -> Result<(), MutateError<E>> {
    let mut tx = db.begin().await?;
    let stored = record::get_for_update::<T>(&mut tx, name).await?.ok_or(MutateError::Missing)?;
    if !etag.is_empty() && etag != stored.etag() {
        return Err(MutateError::Stale);
    }
    check(&stored.value).map_err(MutateError::Refused)?;
    match record::delete(&mut tx, &stored, now).await? {
        Outcome::Written(()) => {}
        Outcome::Stale => return Err(MutateError::Stale),
        Outcome::Missing => return Err(MutateError::Missing),
    }
    tx.commit().await?;
    Ok(())
}
