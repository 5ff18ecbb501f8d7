use std::sync::Arc;

use ironyard_db::{Db, Record, Stored, record};
use ironyard_operation::{MutateError, Request};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{Clock, Timestamp, labels::Selector};

/// A record that callers know by a noun.
pub trait Kind: Record + PartialEq {
    /// Noun, for sentences.
    const NOUN: &'static str;
    /// None of this name.
    const NOT_FOUND: Reason;
    /// One of this name exists.
    const EXISTS: Reason;
    /// Changed by someone else.
    const CHANGED: Reason;
}

/// What the methods need.
#[derive(Clone)]
pub struct Context {
    /// The service's database.
    pub db: Db,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The idempotency_key entry of a call.
pub fn request<M: prost::Message>(method: &'static str, id: &str, message: &M) -> Request {
    Request::new(method, id, &message.encode_to_vec())
}

/// What a caller sees of a change that was not made.
pub fn fault_of<T: Kind>(name: &str, error: MutateError<Fault>) -> Fault {
    let about = |fault: Fault| fault.about(T::NOUN, name);
    match error {
        MutateError::Exists => about(Fault::new(T::EXISTS, format!("{} {name} exists already", T::NOUN))),
        MutateError::Missing => missing::<T>(name),
        MutateError::Stale => about(Fault::new(
            T::CHANGED,
            format!("{} {name} was changed by someone else; read it again", T::NOUN),
        )),
        MutateError::RequestReused => Fault::new(Reason::RequestIdReused, "this request_id was used for another request"),
        MutateError::Refused(fault) => fault,
        MutateError::Store(ironyard_db::Error::Unique { constraint }) => {
            let what = constraint.trim_end_matches("_key").replace('_', " ");
            about(Fault::new(T::EXISTS, format!("another {} has this {what}", T::NOUN)))
        }
        MutateError::Store(error) => Fault::internal(&error),
    }
}

fn missing<T: Kind>(name: &str) -> Fault {
    Fault::new(T::NOT_FOUND, format!("no {} is called {name:?}", T::NOUN)).about(T::NOUN, name)
}

/// Reads one.
pub async fn get<T: Kind>(cx: &Context, name: &str) -> Result<Stored<T>, Fault> {
    record::get::<T>(&cx.db, name)
        .await
        .map_err(|e| Fault::internal(&e))?
        .ok_or_else(|| missing::<T>(name))
}

/// A page of a list, as asked for.
#[derive(Debug, Default)]
pub struct Page {
    /// Size; 0: 100, at most 1000.
    pub size: i32,
    /// Token that came with the page before; empty: the first page.
    pub token: String,
    /// Labels.
    pub selector: Selector,
}

impl Page {
    /// A page of this size that follows the one that came with this token, whatever the labels.
    pub fn of(size: i32, token: String) -> Self {
        Self {
            size,
            token,
            ..Default::default()
        }
    }

    fn size(&self) -> Result<usize, Fault> {
        match self.size {
            0 => Ok(100),
            1.. => Ok(usize::try_from(self.size).unwrap_or(1000).min(1000)),
            _ => Err(Fault::field("page_size", "must not be negative")),
        }
    }
}

fn wrong_token() -> Fault {
    Fault::field("page_token", "is not one that this method returned")
}

/// The token of the page that follows a name.
fn token_of(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("after-{digits}")
}

/// The name that a page follows; none: this is no token.
fn name_in(token: &str) -> Option<String> {
    if token.is_empty() {
        return Some(String::new());
    }
    let digits = token
        .strip_prefix("after-")
        .filter(|digits| digits.is_ascii() && !digits.is_empty() && digits.len() % 2 == 0)?;
    let bytes = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

/// Reads a page of a history, the newest first; with it comes the token for the next one, empty at the end. Labels are not looked at.
pub async fn list_newest<T: Record>(
    cx: &Context,
    page: &Page,
    filters: &[(&'static str, &str)],
) -> Result<(Vec<Stored<T>>, String), Fault> {
    let size = page.size()?;
    // One more than fits, to know whether another page follows.
    let limit = i64::try_from(size + 1).unwrap_or(1001);
    let rows = if page.token.is_empty() {
        record::list_newest::<T>(&cx.db, limit, filters).await
    } else {
        let token = page.token.strip_prefix("before-").and_then(|token| token.split_once('-'));
        let after = token.and_then(|(created, name)| Some((created.parse().ok()?, name_in(&format!("after-{name}"))?)));
        let (created, name) = after.ok_or_else(wrong_token)?;
        record::list_newest_after::<T>(&cx.db, (Timestamp(created), &name), limit, filters).await
    };
    let mut rows = rows.map_err(|e| Fault::internal(&e))?;
    let next = match rows.get(size.saturating_sub(1)) {
        Some(last) if rows.len() > size => {
            let name = token_of(&last.value.metadata().name).replacen("after-", "", 1);
            format!("before-{}-{name}", last.created_at.0)
        }
        _ => String::new(),
    };
    rows.truncate(size);
    Ok((rows, next))
}

/// Reads a page; with it comes the token for the next one, empty at the end.
pub async fn list<T: Kind>(cx: &Context, page: &Page, filters: &[(&'static str, &str)]) -> Result<(Vec<Stored<T>>, String), Fault> {
    let size = page.size()?;
    let (mut found, mut after) = (Vec::new(), name_in(&page.token).ok_or_else(wrong_token)?);
    loop {
        // One more than fits, to know whether another page follows.
        let limit = i64::try_from(size + 1 - found.len()).unwrap_or(1001).max(64);
        let rows = record::list::<T>(&cx.db, &after, limit, filters)
            .await
            .map_err(|e| Fault::internal(&e))?;
        let last = rows.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        if let Some(row) = rows.last() {
            after.clone_from(&row.value.metadata().name);
        }
        found.extend(rows.into_iter().filter(|row| page.selector.matches(&row.value.metadata().labels)));
        if found.len() > size {
            found.truncate(size);
            let last = found.last().map(|row| row.value.metadata().name.as_str()).unwrap_or_default();
            let token = token_of(last);
            return Ok((found, token));
        }
        if last {
            return Ok((found, String::new()));
        }
    }
}

/// Creates one.
pub async fn create<T: Kind>(cx: &Context, request: &Request, value: T) -> Result<Stored<T>, Fault> {
    let name = value.metadata().name.clone();
    ironyard_operation::create(&cx.db, request, value, cx.now())
        .await
        .map_err(|e| fault_of::<T>(&name, e))
}

/// Changes one.
pub async fn update<T: Kind>(
    cx: &Context,
    request: &Request,
    name: &str,
    etag: &str,
    change: impl FnOnce(&mut T) -> Result<(), Fault>,
) -> Result<Stored<T>, Fault> {
    ironyard_operation::update(&cx.db, request, name, etag, cx.now(), change)
        .await
        .map_err(|e| fault_of::<T>(name, e))
}

/// Deletes one.
pub async fn delete<T: Kind>(cx: &Context, name: &str, etag: &str, check: impl FnOnce(&T) -> Result<(), Fault>) -> Result<(), Fault> {
    ironyard_operation::delete(&cx.db, name, etag, cx.now(), check)
        .await
        .map_err(|e| fault_of::<T>(name, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_that_was_given() {
        for name in ["", "a", "rack-7.node-12", "ä"] {
            let token = if name.is_empty() { String::new() } else { token_of(name) };
            assert_eq!(name_in(&token).as_deref(), Some(name));
        }
        for garbage in ["a", "after-", "after-6", "after-zz", "after-ff", "after-ä1", "zzzz"] {
            assert_eq!(name_in(garbage), None, "{garbage}");
        }
    }
}
