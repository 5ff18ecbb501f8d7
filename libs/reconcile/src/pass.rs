use std::time::Duration;

use ironyard_db::{Error, Outcome, Record, Stored, record};
use ironyard_types::Timestamp;

use crate::{Lease, Queue};

/// One look at one key, and the right to write what it decides: every write is made over the version that was read, while the key is held.
pub struct Pass {
    queue: Queue,
    pub(crate) lease: Lease,
}

/// Why a pass could not write.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Somebody else wrote what this pass was about, or has its key by now: what it decided does not count.
    #[error("somebody else was faster")]
    Lost,
    /// The database failed.
    #[error("could not reach the records")]
    Store(#[from] Error),
}

impl Pass {
    /// A pass over a key that was taken.
    pub fn new(queue: Queue, lease: Lease) -> Self {
        Self { queue, lease }
    }

    /// What it looks at.
    pub fn key(&self) -> &str {
        &self.lease.key
    }

    /// For how long it has failed in a row.
    pub fn failing_for(&self) -> Duration {
        self.lease.failing_for
    }

    /// Its fence, for those that it writes to: of two passes over one key, the later has the greater number.
    pub fn fence(&self) -> (String, i64) {
        (format!("{}/{}", self.queue.name(), self.lease.key), self.lease.fence)
    }

    /// Changes a record over the version that was read, and remembers the new one in its place. A change that changes nothing writes
    /// nothing.
    pub async fn save<T: Record + PartialEq>(
        &self,
        stored: &mut Stored<T>,
        now: Timestamp,
        change: impl FnOnce(&mut T),
    ) -> Result<(), SaveError> {
        let mut next = stored.clone();
        change(&mut next.value);
        if next.value == stored.value {
            return Ok(());
        }
        let mut tx = self.queue.db.begin().await?;
        if !self.queue.holds(&mut tx, &self.lease).await? {
            return Err(SaveError::Lost);
        }
        match record::update(&mut tx, &next, now).await? {
            Outcome::Written(written) => {
                tx.commit().await?;
                *stored = written;
                Ok(())
            }
            Outcome::Stale | Outcome::Missing => Err(SaveError::Lost),
        }
    }

    /// Changes many records at once, each over the version that was read, in one transaction; each as it is then, `None` where somebody else was
    /// faster. Those that were written are made due in another queue, where one is given.
    pub async fn save_all<T: Record + PartialEq>(
        &self,
        stored: &[Stored<T>],
        now: Timestamp,
        change: impl Fn(usize, &mut T),
        then: Option<(&Queue, &(dyn Fn(usize) -> bool + Sync))>,
    ) -> Result<Vec<Option<Stored<T>>>, SaveError> {
        let mut tx = self.queue.db.begin().await?;
        if !self.queue.holds(&mut tx, &self.lease).await? {
            return Err(SaveError::Lost);
        }
        let next: Vec<Stored<T>> = stored
            .iter()
            .enumerate()
            .map(|(i, stored)| {
                let mut next = stored.clone();
                change(i, &mut next.value);
                next
            })
            .collect();
        let changed = |i: &usize| {
            stored
                .get(*i)
                .is_some_and(|stored| next.get(*i).is_some_and(|next| next.value != stored.value))
        };
        let indices: Vec<usize> = (0..stored.len()).filter(changed).collect();
        let rows: Vec<&Stored<T>> = indices.iter().filter_map(|i| next.get(*i)).collect();
        let outcomes = record::update_all(&mut tx, &rows, now).await?;
        let mut written: Vec<Option<Stored<T>>> = next.iter().cloned().map(Some).collect();
        for (i, outcome) in indices.into_iter().zip(outcomes) {
            if let Some(place) = written.get_mut(i) {
                *place = outcome;
            }
        }
        let mut due = Vec::new();
        if let Some((queue, which)) = then {
            let those = written.iter().enumerate().filter(|(i, _)| which(*i));
            due.extend(those.filter_map(|(_, done)| Some(done.as_ref()?.value.metadata().name.clone())));
            queue.enqueue_all_in(&mut tx, &due).await?;
        }
        tx.commit().await?;
        if let Some((queue, _)) = then.filter(|_| !due.is_empty()) {
            queue.wake();
        }
        Ok(written)
    }

    /// Deletes the version that was read.
    pub async fn delete<T: Record>(&self, stored: &Stored<T>, now: Timestamp) -> Result<(), SaveError> {
        let mut tx = self.queue.db.begin().await?;
        if !self.queue.holds(&mut tx, &self.lease).await? {
            return Err(SaveError::Lost);
        }
        match record::delete(&mut tx, stored, now).await? {
            Outcome::Written(()) => Ok(tx.commit().await?),
            Outcome::Missing => Ok(()),
            Outcome::Stale => Err(SaveError::Lost),
        }
    }
}
