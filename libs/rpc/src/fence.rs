//! Fencing tokens on calls: who has lost its lease on a key, and does not know it yet, is refused by whoever heard from its successor.
//!
//! A reconciler's calls carry the scope of its lease and a number that grows with every lease. A service remembers the greatest number of
//! each scope and refuses smaller ones. It remembers in memory: what it heard before it started, it does not know.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue};

use crate::{Fault, Reason};

const HEADER: &str = "ironyard-fence";
/// Scopes that are remembered; of more, the ones with the smallest numbers, which are the oldest, are forgotten.
const SCOPES: usize = 100_000;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// Does some work whose calls carry this fence.
pub async fn within<F: Future>(scope: String, number: i64, work: F) -> F::Output {
    match HeaderValue::from_str(&format!("{number} {scope}")) {
        Ok(value) => CURRENT.scope(value, work).await,
        // A key that no header can carry goes without.
        Err(_) => work.await,
    }
}

pub(crate) fn inject(headers: &mut HeaderMap) {
    let _ = CURRENT.try_with(|value| headers.insert(HEADER, value.clone()));
}

/// The greatest number that was heard of, for each caller's scopes: nobody can fence off another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fences(Arc<Mutex<HashMap<(String, String), i64>>>);

impl Fences {
    /// Refuses a call of a lease that has been followed by another.
    pub(crate) fn check(&self, caller: &str, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(value) = headers.get(HEADER) else { return Ok(()) };
        let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((number, scope)) = parts.and_then(|(number, scope)| Some((number.parse::<i64>().ok()?, scope))) else {
            return Err(Fault::field(HEADER, "write a number, a space and a scope"));
        };
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (caller.to_owned(), scope.to_owned());
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
        Ok(())
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
        within("cleanup/a".to_owned(), 5, async { inject(&mut headers) }).await;
        assert_eq!(headers.get(HEADER).unwrap(), "5 cleanup/a");
    }
}
