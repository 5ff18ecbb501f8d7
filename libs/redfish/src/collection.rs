use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::{Client, Doc, Error, Result, uri};

/// Pages of one collection, members of one collection, requests of one reader.
const PAGES: usize = 256;
const MEMBERS: usize = 4096;
const BUDGET: usize = 2000;
/// Documents in a row that may not be answered at all before the BMC is taken for one that hangs.
const SILENT: usize = 3;
/// Bytes of one reader: the most that a hostile BMC can make us hold at a time.
const BYTES: usize = 64 << 20;

/// Reads documents for one purpose: counts requests, and remembers what could not be read.
pub struct Members<'a> {
    client: &'a Client,
    spent: AtomicUsize,
    silent: AtomicUsize,
    bytes: AtomicUsize,
    /// What it holds of the memory that all readers share.
    held: std::sync::Mutex<Vec<OwnedSemaphorePermit>>,
    unreadable: std::sync::Mutex<Vec<String>>,
    /// Whether something may be there that was not read.
    incomplete: AtomicBool,
}

impl<'a> Members<'a> {
    /// A reader with a fresh budget.
    pub fn new(client: &'a Client) -> Self {
        Self {
            client,
            spent: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            held: std::sync::Mutex::default(),
            unreadable: std::sync::Mutex::default(),
            incomplete: AtomicBool::new(false),
        }
    }

    /// What could not be read: `path: reason`.
    pub fn unreadable(&self) -> Vec<String> {
        self.unreadable.lock().map(|list| list.clone()).unwrap_or_default()
    }

    /// Whether something may be there that was not read. What does not exist is not there.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }

    fn missed(&self, path: &str, error: &Error) {
        if !matches!(error, Error::NotFound(_) | Error::Unsupported(_)) {
            self.incomplete.store(true, Ordering::Relaxed);
        }
        if let Ok(mut list) = self.unreadable.lock()
            && list.len() < 100
        {
            list.push(format!("{path}: {error}"));
        }
    }

    /// Reads one document; an error is noted.
    pub async fn get(&self, path: &str) -> Option<Doc> {
        match self.try_get(path).await {
            Ok(doc) => Some(doc),
            Err(error) => {
                self.missed(path, &error);
                None
            }
        }
    }

    /// Reads one document.
    pub async fn try_get(&self, path: &str) -> Result<Doc> {
        if self.spent.fetch_add(1, Ordering::Relaxed) >= BUDGET {
            return Err(Error::Budget(BUDGET));
        }
        if self.bytes.load(Ordering::Relaxed) > BYTES {
            return Err(Error::TooLarge {
                at: path.to_owned(),
                cap: BYTES,
            });
        }
        if self.silent.load(Ordering::Relaxed) >= SILENT {
            return Err(Error::Unreachable("it has stopped answering".to_owned()));
        }
        let answer = self.client.get(path).await;
        match answer {
            Err(ref error) if error.is_transport() => drop(self.silent.fetch_add(1, Ordering::Relaxed)),
            Ok(_) | Err(_) => self.silent.store(0, Ordering::Relaxed),
        }
        let doc = answer?;
        self.bytes.fetch_add(doc.size, Ordering::Relaxed);
        let Some(share) = self.client.limits.shared.hold(doc.size) else {
            return Err(Error::Busy {
                message: "too much is being read from all BMCs together".to_owned(),
                retry_after: None,
            });
        };
        if let Ok(mut held) = self.held.lock() {
            match held.first_mut() {
                Some(all) => all.merge(share),
                None => held.push(share),
            }
        }
        Ok(doc)
    }

    /// Reads all members of a collection, every page of it. What cannot be read is noted and left out.
    pub async fn of(&self, path: &str) -> Vec<Doc> {
        self.of_at_most(path, MEMBERS).await
    }

    /// As `of`, and no more than so many members.
    pub async fn of_at_most(&self, path: &str, most: usize) -> Vec<Doc> {
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut known = HashSet::new();
        let mut pages = HashSet::new();
        let mut next = Some(path.to_owned());
        while let Some(page) = next.take() {
            if !pages.insert(uri::identity(&page)) {
                break;
            }
            if members.len() >= most || pages.len() > PAGES {
                self.incomplete.store(true, Ordering::Relaxed);
                break;
            }
            let Some(doc) = self.get(&page).await else { break };
            next = doc.text("Members@odata.nextLink").or_else(|| doc.text("@odata.nextLink"));
            let Some(Value::Array(list)) = doc.value.get("Members") else {
                continue;
            };
            let before = members.len();
            for member in list {
                let link = Doc {
                    value: member.clone(),
                    ..Doc::default()
                }
                .text("@odata.id");
                if let Some(link) = link
                    && members.len() < most.min(MEMBERS)
                    && known.insert(uri::identity(&link))
                {
                    members.push((link, member.clone()));
                }
            }
            // Some list everything and a next page with it all again; and a page that brings nothing may have no end.
            if members.len() == before {
                break;
            }
        }
        self.all(members).await
    }

    /// Reads linked documents, each once.
    pub async fn linked(&self, links: Vec<String>) -> Vec<Doc> {
        let mut known = HashSet::new();
        let links = links.into_iter().filter(|link| known.insert(uri::identity(link))).take(MEMBERS);
        self.all(links.map(|link| (link, Value::Null)).collect()).await
    }

    async fn all(&self, links: Vec<(String, Value)>) -> Vec<Doc> {
        let reads = links.into_iter().map(|(link, inline)| async move {
            // Some trees show members only inline, and logs show all of them so: a body with more than a link is as good as the document.
            let whole = inline
                .as_object()
                .is_some_and(|map| map.contains_key("Id") && map.contains_key("Name") && map.len() > 4);
            let entry = inline
                .get("@odata.type")
                .and_then(Value::as_str)
                .is_some_and(|t| t.contains("LogEntry."));
            if whole && entry {
                return Some(Doc {
                    uri: link,
                    etag: None,
                    size: 0,
                    value: inline,
                });
            }
            match self.try_get(&link).await {
                Ok(doc) => Some(doc),
                Err(_) if whole => Some(Doc {
                    uri: link,
                    etag: None,
                    size: 0,
                    value: inline,
                }),
                Err(error) => {
                    self.missed(&link, &error);
                    // What is listed is there, though it is not found just now.
                    self.incomplete.store(true, Ordering::Relaxed);
                    None
                }
            }
        });
        stream::iter(reads).buffered(4).filter_map(std::future::ready).collect().await
    }
}
