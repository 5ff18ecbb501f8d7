//! Logs of systems, managers and chassis.

use ironyard_types::Timestamp;
use serde_json::json;

use super::topology;
use crate::{Client, Doc, Error, Members, Result, uri};

/// A log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Id, such as `SEL`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it can be cleared.
    pub clearable: bool,
    /// Path.
    pub uri: String,
}

/// An entry of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Id; may be used again after the log was cleared.
    pub id: String,
    /// When it was written, where the BMC knows.
    pub created: Option<Timestamp>,
    /// `OK`, `Warning`, `Critical`, or the BMC's own word.
    pub severity: String,
    /// Words.
    pub message: String,
    /// Message id.
    pub message_id: String,
}

/// Most entries in one answer.
pub const MOST: usize = 1000;

/// The logs of a system and of its manager; with those of everything else that belongs to it, where that is asked for.
async fn documents(client: &Client, system: &Doc, all: bool) -> Result<Vec<Doc>> {
    let root = client.root().await?;
    let members = Members::new(client);
    let mut owners = vec![system.clone()];
    owners.extend(topology::manager(client, &root, Some(system)).await.ok());
    if all {
        let around = topology::surroundings(client, &members, system).await;
        let systems = std::iter::once(system).chain(&around.parts);
        let managers = systems.flat_map(|system| system.part("Links").links("ManagedBy")).collect();
        owners.extend(members.linked(managers).await);
        owners.extend(around.chassis().cloned());
        owners.extend(around.parts);
    }
    let mut logs: Vec<Doc> = Vec::new();
    for link in owners.iter().filter_map(|owner| owner.link("LogServices")) {
        for log in members.of(&link).await {
            if !logs.iter().any(|known| uri::identity(&known.uri) == uri::identity(&log.uri)) {
                logs.push(log);
            }
        }
    }
    match members.unreadable().first() {
        Some(why) if logs.is_empty() => Err(Error::Protocol {
            at: "the logs".to_owned(),
            problem: why.clone(),
        }),
        _ => Ok(logs),
    }
}

/// All logs of a system and of its manager.
pub async fn list(client: &Client, system: &Doc) -> Result<Vec<Log>> {
    let docs = documents(client, system, true).await?;
    Ok(docs
        .iter()
        .map(|d| Log {
            id: d.id(),
            name: d.text_or_empty("Name"),
            clearable: d.action("#LogService.ClearLog").is_some(),
            uri: d.id_path(),
        })
        .collect())
}

/// One log, by its path or its id. Few are asked for what is near. A log that is to be changed must be one of the system's, or of what belongs to it.
async fn one(client: &Client, system: &Doc, id: &str, own: bool) -> Result<Doc> {
    if id.starts_with('/') && !own {
        let log = client.get(id).await?;
        return match log.text_or_empty("@odata.type").contains("LogService") {
            true => Ok(log),
            false => Err(Error::NotFound(format!("a log {id}"))),
        };
    }
    let mut docs = vec![];
    for all in [false, true] {
        docs = documents(client, system, all).await?;
        docs.retain(|d| d.id().eq_ignore_ascii_case(id) || d.id_path() == id);
        if !docs.is_empty() {
            break;
        }
    }
    let paths: Vec<String> = docs.iter().map(Doc::id_path).collect();
    match (docs.pop(), docs.is_empty()) {
        (Some(log), true) => Ok(log),
        (Some(_), false) => Err(Error::Unsupported(format!(
            "one log {id} only; name its path: {}",
            paths.join(", ")
        ))),
        (None, _) => Err(Error::NotFound(format!("a log {id}"))),
    }
}

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only entries of this severity or worse: `OK`, `Warning`, `Critical`; empty: all.
    pub severity: String,
    /// Only entries since then.
    pub since: Option<Timestamp>,
    /// Entries to leave out, from the newest.
    pub skip: usize,
    /// Entries to return.
    pub top: usize,
}

fn rank(severity: &str) -> u8 {
    match severity {
        "Critical" | "Fatal" => 2,
        "Warning" | "Caution" => 1,
        _ => 0,
    }
}

/// Reads entries, the newest first, and whether there are more. What cannot be dated is taken to be new.
pub async fn read(client: &Client, system: &Doc, id: &str, query: &Query) -> Result<(Vec<Entry>, bool)> {
    let log = one(client, system, id, false).await?;
    // Some services show the link only when there is something behind it.
    let Some(link) = log.link("Entries") else {
        return Ok((vec![], false));
    };
    let members = Members::new(client);
    let docs = members.of_at_most(&link, 4 * MOST).await;
    if docs.is_empty()
        && let Some(why) = members.unreadable().first()
    {
        return Err(Error::Protocol {
            at: link,
            problem: why.clone(),
        });
    }
    let mut entries: Vec<Entry> = docs
        .iter()
        .map(|d| Entry {
            id: d.id(),
            created: d.text("Created").and_then(|t| time_of(&t)),
            severity: d.text_or_empty("Severity"),
            message: message(d),
            message_id: d.text_or_empty("MessageId"),
        })
        .filter(|e| rank(&e.severity) >= rank(&query.severity))
        .filter(|e| query.since.is_none_or(|since| e.created.is_none_or(|at| at >= since)))
        .collect();
    // Stable: entries without a time keep the BMC's order among themselves.
    entries.sort_by_key(|e| std::cmp::Reverse(e.created));
    let top = if query.top == 0 { 100 } else { query.top.min(MOST) };
    let more = entries.len() > query.skip.saturating_add(top);
    Ok((entries.into_iter().skip(query.skip).take(top).collect(), more))
}

/// The words of an entry. HPE's newer ones give an id and its arguments only.
fn message(entry: &Doc) -> String {
    let spoken = || {
        let id = entry.text("MessageId")?;
        let name = id.rsplit('.').next().unwrap_or_default().to_owned();
        let arguments = entry.texts("MessageArgs");
        Some(if arguments.is_empty() {
            name
        } else {
            format!("{name}: {}", arguments.join(", "))
        })
    };
    entry.text("Message").or_else(spoken).unwrap_or_default()
}

/// Clears a log.
pub async fn clear(client: &Client, system: &Doc, id: &str) -> Result<()> {
    let log = one(client, system, id, true).await?;
    let target = log.action("#LogService.ClearLog").and_then(|a| a.text("target"));
    let target = target.ok_or_else(|| Error::Unsupported(format!("to clear the log {id}")))?;
    match client.post(&target, &json!({})).await {
        Ok(_) => Ok(()),
        // Some want to be told which entries they are to forget.
        Err(Error::PreconditionFailed) => {
            let etag = match log.link("Entries") {
                Some(link) => client.get(&link).await?.etag,
                None => None,
            };
            let etag = etag.ok_or(Error::PreconditionFailed)?;
            client.post(&target, &json!({"LogEntriesETag": etag})).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// A time as BMCs write it: RFC 3339, with or without an offset; anything else, and times before anybody built a BMC, is none.
pub fn time_of(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (head, offset) = match text.get(19..) {
        None => return None,
        Some(rest) => {
            let rest = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            (text.get(..19)?, rest)
        }
    };
    let number = |range: std::ops::Range<usize>| head.get(range).and_then(|t| t.parse::<i64>().ok());
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let sane = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !sane || year < 1990 || !matches!(head.as_bytes().get(10), Some(b'T' | b' ' | b't')) {
        return None;
    }
    let shift = match offset.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let digits: Vec<i64> = rest.iter().filter(|c| c.is_ascii_digit()).map(|c| i64::from(c - b'0')).collect();
            let [a, b, c, d] = digits[..] else { return None };
            let minutes = (a * 10 + b) * 60 + c * 10 + d;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days since 1970 in the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - shift) * 60 + second;
    Some(Timestamp(seconds * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_absent() {
        let at = |s: i64| Some(Timestamp(s * 1_000_000));
        for (text, time) in [
            ("2024-08-15T21:43:28Z", at(1_723_758_208)),
            ("2024-08-15T21:43:28+00:00", at(1_723_758_208)),
            ("2024-08-15T15:43:28-0600", at(1_723_758_208)),
            ("2024-08-15T21:43:28.123456Z", at(1_723_758_208)),
            ("2024-08-15T21:43:28", at(1_723_758_208)),
            ("2000-02-29T00:00:00Z", at(951_782_400)),
            ("0000-00-00T00:00:00Z", None),
            ("1970-01-01T00:00:00Z", None),
            ("00:00:00Z", None),
            ("T00:00:00Z", None),
            ("TIME_NA", None),
            ("Tue Feb 22 13:03:50 2022", None),
            ("2024-08-15T21:43Z", None),
            ("ääääääääääääääääääää", None),
        ] {
            assert_eq!(time_of(text), time, "{text}");
        }
    }
}
