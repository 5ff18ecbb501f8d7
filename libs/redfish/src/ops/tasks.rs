//! Tasks: work that the BMC goes on with after it answered.

use serde::{Deserialize, Serialize};

use crate::{Client, Doc, Error, Members, Reply, Result};

/// What is needed to find a task again, also after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Path of the task (preferred) or of its monitor.
    pub uri: String,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs; percent, where the BMC says so.
    Running(i32),
    /// It succeeded.
    Completed,
    /// It failed, in its own words.
    Failed(String),
    /// It is gone: verify by effect.
    Vanished,
}

/// The task that a reply began; `None` when the work is already done (or when nothing can be followed).
pub fn begun(reply: &Reply) -> Option<Handle> {
    let body = &reply.doc;
    let is_task = body.text("@odata.type").is_some_and(|t| t.contains("Task.") || t.contains("Job."));
    // A read of a finished monitor may delete it: the task itself is preferred.
    let task = is_task.then(|| body.text("@odata.id")).flatten();
    let follows = |location: &String| {
        reply.status == 202 || location.contains("/Tasks/") || location.contains("/Jobs/") || location.contains("/TaskMonitors/")
    };
    let uri = task.or_else(|| reply.location.clone().filter(follows));
    uri.map(|uri| Handle { uri })
}

/// Looks at a task once.
pub async fn poll(client: &Client, handle: &Handle) -> Result<State> {
    match client.get(&handle.uri).await {
        Ok(doc) => Ok(state_of(&doc)),
        Err(Error::NotFound(_)) => Ok(State::Vanished),
        Err(Error::Refused { message, .. }) => Ok(State::Failed(message)),
        Err(error) => Err(error),
    }
}

fn state_of(task: &Doc) -> State {
    let state = task.text("TaskState").or_else(|| task.text("JobState")).unwrap_or_default();
    let status = task.text("TaskStatus").unwrap_or_default();
    let words = || {
        let messages = task
            .value
            .get("Messages")
            .and_then(serde_json::Value::as_array)
            .cloned()
            .unwrap_or_default();
        let texts: Vec<String> = messages
            .into_iter()
            .filter_map(|value| Doc { value, ..Doc::default() }.text("Message"))
            .collect();
        if texts.is_empty() {
            format!("it ended as {state} ({status})")
        } else {
            texts.join(" ")
        }
    };
    match state.as_str() {
        "Completed" if status == "Critical" => State::Failed(words()),
        "Completed" => State::Completed,
        "Killed" | "Exception" | "Cancelled" | "Failed" | "CompletedWithErrors" => State::Failed(words()),
        _ => State::Running(task.integer("PercentComplete").unwrap_or(0)),
    }
}

/// A task whose payload went to this target: how a gateway that stopped between asking and remembering finds what it began.
pub async fn find(client: &Client, target: &str) -> Result<Option<Handle>> {
    let root = client.root().await?;
    let Some(service) = root.link("Tasks") else { return Ok(None) };
    let Some(tasks) = client.get(&service).await?.link("Tasks") else {
        return Ok(None);
    };
    let members = Members::new(client);
    let tasks = members.of(&tasks).await;
    if let Some(unreadable) = members.unreadable().first() {
        // The one that cannot be read may be the one.
        return Err(Error::Protocol {
            at: "the tasks".to_owned(),
            problem: unreadable.clone(),
        });
    }
    let ours = |t: &&Doc| {
        t.part("Payload")
            .text("TargetUri")
            .is_some_and(|u| crate::uri::identity(&u) == crate::uri::identity(target))
    };
    Ok(tasks.iter().rfind(|t| ours(t)).map(|t| Handle { uri: t.id_path() }))
}
