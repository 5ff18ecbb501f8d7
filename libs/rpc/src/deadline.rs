//! Deadlines of calls: whoever set one is answered before it passes, and told what the call waited for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};

use crate::{Fault, Reason};

/// Of calls that set none.
const DEFAULT: Duration = Duration::from_secs(300);
/// Most that a caller may ask for: a BMC that takes half a minute for each document is read within it.
pub(crate) const LONGEST: Duration = Duration::from_secs(1800);
/// An answer needs time to get to the caller: this much, or a tenth of the deadline.
const MARGIN: Duration = Duration::from_millis(500);

type Cell = Arc<Mutex<Option<String>>>;

tokio::task_local! {
    static WAITS: Cell;
}

/// Does some work that may take long; a caller whose deadline passes meanwhile is told that it waited for this.
pub async fn waits_for<F: Future>(what: impl Into<String>, work: F) -> F::Output {
    let Ok(cell) = WAITS.try_with(Arc::clone) else {
        return work.await;
    };
    *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    let outcome = work.await;
    *cell.lock().unwrap_or_else(PoisonError::into_inner) = None;
    outcome
}

/// Does the work of a call within its deadline.
pub(crate) async fn keep<F: Future>(deadline: Duration, work: F) -> Result<F::Output, Fault> {
    let cell = Cell::default();
    let work = WAITS.scope(cell.clone(), work);
    let late = |_| {
        let what = cell.lock().unwrap_or_else(PoisonError::into_inner).take();
        let why = what.map_or(String::new(), |what| format!(": it waits for {what}"));
        let message = format!("not done within the deadline of {}{why}", humantime::format_duration(deadline));
        Fault::new(Reason::DeadlineExceeded, message)
    };
    tokio::time::timeout(sooner(deadline), work).await.map_err(late)
}

/// When a call must be answered, so that the answer is there within its deadline.
fn sooner(deadline: Duration) -> Duration {
    deadline - MARGIN.min(deadline / 10)
}

/// Shortens the deadline of a call that is passed on, so that its answer, which says what was waited for, comes in time to be passed back.
pub(crate) fn shorten(headers: &mut HeaderMap) {
    let text = format!("{}m", sooner(of(headers)).as_millis());
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert("grpc-timeout", value);
    }
}

/// The deadline that a caller set.
pub(crate) fn of(headers: &HeaderMap) -> Duration {
    let given = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    given.and_then(parse).map_or(DEFAULT, |given| given.min(LONGEST))
}

/// At most eight digits and a unit, as gRPC has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(deadline: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), deadline.parse().unwrap())])
    }

    #[test]
    fn deadlines_are_read() {
        for (text, expected) in [
            ("30000m", 30_000),
            ("5S", 5_000),
            ("2M", 120_000),
            ("1000u", 1),
            ("99999999H", 1_800_000),
        ] {
            assert_eq!(of(&within(text)), Duration::from_millis(expected), "{text}");
        }
        for garbage in ["", "S", "5", "-1S", "5x", "123456789S", "ä"] {
            assert_eq!(parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn who_passes_a_call_on_hears_before_its_own_deadline() {
        for (given, expected) in [("30000m", "29500m"), ("20m", "18m"), ("1H", "1799500m")] {
            let mut headers = within(given);
            shorten(&mut headers);
            assert_eq!(headers["grpc-timeout"], expected);
        }
    }

    #[tokio::test]
    async fn who_waited_is_told_for_what() {
        let work = async {
            waits_for("something else", std::future::ready(())).await;
            waits_for("the BMC", std::future::pending::<()>()).await;
        };
        let fault = keep(of(&within("20m")), work).await.unwrap_err();
        assert_eq!(fault.reason, Reason::DeadlineExceeded);
        assert_eq!(fault.message, "not done within the deadline of 20ms: it waits for the BMC");
        let work = async {
            waits_for("something else", std::future::ready(())).await;
            std::future::pending::<()>().await;
        };
        let fault = keep(of(&within("20m")), work).await.unwrap_err();
        assert_eq!(fault.message, "not done within the deadline of 20ms");
        assert_eq!(keep(of(&HeaderMap::new()), std::future::ready(7)).await.unwrap(), 7);
    }
}
