//! Fencing tokens on calls: who has lost its lease on a key, and does not know it yet, is refused by whoever heard from its successor.
//!
//! A reconciler's calls carry the scope of its lease and a number that grows with every lease. A service remembers the greatest number of
//! each scope and refuses smaller ones. It remembers in memory: what it heard before it started, it does not know.
//!
//! What a fence cannot stop, since nobody checks it there (a BMC), asks [`permission`] right before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::{Fault, Reason};

const HEADER: &str = "ironyard-fence";
/// Scopes that are remembered; of more, the ones with the smallest numbers, which are the oldest, are forgotten.
const SCOPES: usize = 100_000;

tokio::task_local! {
    static CURRENT: HeaderValue;
    static HOLD: Hold;
    static HEARD: Heard;
}

/// Whether it may still be done.
pub type Permission = Arc<dyn Fn() -> bool + Send + Sync>;

/// Until when a lease surely lasts, by this process's own monotonic clock: counted from before it was asked for, so that whoever grants
/// leases never ends it sooner, whatever was slow. Clones are the same hold.
#[derive(Debug, Clone)]
pub struct Hold(Arc<Mutex<Instant>>);

impl Hold {
    /// A hold until then.
    pub fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(end)))
    }

    /// It was renewed.
    pub fn extend(&self, end: Instant) {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = end.max(*until);
    }

    /// It is given up, whatever was granted.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether somebody else may have the lease by now.
    pub fn is_over(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) <= Instant::now()
    }
}

/// Does some work under a lease: its calls carry this fence.
pub async fn within<F: Future>(scope: String, number: i64, hold: Hold, work: F) -> F::Output {
    let work = HOLD.scope(hold, work);
    match HeaderValue::from_str(&format!("{number} {scope}")) {
        Ok(value) => CURRENT.scope(value, work).await,
        // A key that no header can carry goes without.
        Err(_) => work.await,
    }
}

/// Whether what is done here may still be done, to be asked at any later time: a pass of this process, while its lease lasts; a call of
/// another's, while nothing was heard of who has the lease after it. None: it is done under no lease.
pub fn permission() -> Option<Permission> {
    let hold = HOLD
        .try_with(Clone::clone)
        .map(|hold| Arc::new(move || !hold.is_over()) as Permission);
    let heard = || {
        HEARD
            .try_with(Clone::clone)
            .map(|heard| Arc::new(move || heard.is_newest()) as Permission)
    };
    hold.or_else(|_| heard()).ok()
}

/// The lease under which the call that is served here was made: whose it is, and its number. None: the call was made under no lease.
pub fn of_caller() -> Option<(String, i64)> {
    let heard = HEARD.try_with(Clone::clone).ok()?;
    let (caller, scope) = &heard.key;
    Some((format!("{caller} {scope}"), heard.number))
}

pub(crate) fn inject(headers: &mut HeaderMap) {
    let _ = CURRENT.try_with(|value| headers.insert(HEADER, value.clone()));
}

/// The greatest number that was heard of, for each caller's scopes: nobody can fence off another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fences(Arc<Mutex<HashMap<(String, String), i64>>>);

/// The lease of a call.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    fences: Fences,
    key: (String, String),
    number: i64,
}

impl Heard {
    fn is_newest(&self) -> bool {
        let known = self.fences.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&self.key).is_none_or(|greatest| *greatest <= self.number)
    }

    /// Does the work of the call.
    pub(crate) async fn serving<F: Future>(heard: Option<Self>, work: F) -> F::Output {
        match heard {
            Some(heard) => HEARD.scope(heard, work).await,
            None => work.await,
        }
    }
}

impl Fences {
    /// Refuses a call of a lease that has been followed by another.
    pub(crate) fn check(&self, caller: &str, headers: &HeaderMap) -> Result<Option<Heard>, Fault> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((number, scope)) = parts.and_then(|(number, scope)| Some((number.parse::<i64>().ok()?, scope))) else {
            return Err(Fault::field(HEADER, "write a number, a space and a scope"));
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.to_owned(), scope.to_owned());
        let heard = Heard {
            fences: self.clone(),
            key: key.clone(),
            number,
        };
        match known.get_mut(&key) {
            Some(greatest) if *greatest > number => {
                let message = format!("the lease on {scope} has passed on: {greatest} follows {number}");
                return Err(Fault::new(Reason::StaleFence, message));
            }
            Some(greatest) => *greatest = number,
            None => {
                if known.len() >= SCOPES {
                    let mut numbers: Vec<i64> = known.values().copied().collect();
                    let middle = numbers.len() / 2;
                    let (_, median, _) = numbers.select_nth_unstable(middle);
                    let median = *median;
                    known.retain(|_, number| *number > median);
                }
                known.insert(key, number);
            }
        }
        Ok(Some(heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(text).unwrap());
        headers
    }

    #[test]
    fn an_older_lease_is_refused_once_a_newer_was_heard() {
        let fences = Fences::default();
        assert!(fences.check("claim", &HeaderMap::new()).is_ok());
        assert!(fences.check("claim", &headers("7 cleanup/a")).is_ok());
        assert!(fences.check("claim", &headers("7 cleanup/a")).is_ok(), "a pass makes several calls");
        assert!(fences.check("claim", &headers("3 cleanup/b")).is_ok(), "each scope by itself");
        assert!(fences.check("claim", &headers("9 cleanup/a")).is_ok());
        assert_eq!(
            fences.check("claim", &headers("7 cleanup/a")).unwrap_err().reason,
            Reason::StaleFence
        );
        assert!(fences.check("claim", &headers("nonsense")).is_err());
        assert!(fences.check("somebody", &headers("99 cleanup/a")).is_ok());
        assert!(fences.check("claim", &headers("9 cleanup/a")).is_ok(), "each caller by itself");
    }

    #[test]
    fn memory_is_bounded() {
        let fences = Fences::default();
        for n in 0..250_000 {
            fences.check("claim", &headers(&format!("{n} s/{n}"))).unwrap();
        }
        assert!(fences.0.lock().unwrap().len() <= SCOPES);
        assert!(fences.check("claim", &headers("1 s/249999")).is_err(), "the newest are kept");
    }

    #[tokio::test]
    async fn calls_of_a_pass_carry_its_fence() {
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        assert!(headers.is_empty());
        let hold = Hold::until(Instant::now());
        within("cleanup/a".to_owned(), 5, hold, async { inject(&mut headers) }).await;
        assert_eq!(headers.get(HEADER).unwrap(), "5 cleanup/a");
    }

    #[tokio::test]
    async fn a_hold_is_over_unless_it_is_renewed() {
        assert!(permission().is_none());
        let minute = std::time::Duration::from_secs(60);
        let held = Hold::until(Instant::now());
        within("cleanup/a".to_owned(), 5, held.clone(), async {
            let permitted = permission().unwrap();
            assert!(!permitted());
            held.extend(Instant::now() + minute);
            assert!(permitted());
            held.extend(Instant::now());
            assert!(permitted(), "a renewal that is told late takes nothing away");
            held.end();
            assert!(!permitted());
        })
        .await;
    }

    #[tokio::test]
    async fn a_call_is_permitted_until_its_lease_is_followed() {
        let fences = Fences::default();
        let heard = fences.check("claim", &headers("7 cleanup/a")).unwrap();
        let (permitted, lease) = Heard::serving(heard, async { (permission().unwrap(), of_caller()) }).await;
        assert_eq!((lease, of_caller()), (Some(("claim cleanup/a".to_owned(), 7)), None));
        fences.check("claim", &headers("9 cleanup/b")).unwrap();
        fences.check("discovery", &headers("9 cleanup/a")).unwrap();
        assert!(permitted(), "others' leases are others'");
        fences.check("claim", &headers("8 cleanup/a")).unwrap();
        assert!(!permitted());
        let none = fences.check("claim", &HeaderMap::new()).unwrap();
        assert!(Heard::serving(none, async { permission().is_none() }).await);
    }
}
