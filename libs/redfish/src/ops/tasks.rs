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
    /// It is over for now, and takes effect when the host is restarted.
    Staged,
    /// It is gone: verify by effect.
    Vanished,
}

/// The task that a reply began; `None` when the work is already done (or when nothing can be followed).
pub fn begun(reply: &Reply) -> Option<Handle> {
    let body = &reply.doc;
    let kind = body.text_or_empty("@odata.type");
    let is_task = kind.contains("Task.") || kind.contains("Job.");
    // A read of a finished monitor may delete it: the task itself is preferred.
    let task = is_task.then(|| body.text("@odata.id")).flatten();
    // Supermicro hides the path among the arguments of a message.
    let hidden = || {
        let infos = [body.part("Accepted"), body.part("Success"), body.clone()].map(|d| d.parts("@Message.ExtendedInfo"));
        let args = infos.into_iter().flatten().flat_map(|info| info.texts("MessageArgs"));
        args.into_iter().find(|arg| follows(arg))
    };
    let location = reply.location.clone().filter(|location| reply.status == 202 || follows(location));
    task.or(location).or_else(hidden).map(|uri| Handle { uri })
}

/// Whether a path is one of a task, a job or a monitor.
fn follows(path: &str) -> bool {
    path.starts_with('/')
        && ["/Tasks/", "/Jobs/", "/TaskMonitors/", "/taskmon/"]
            .iter()
            .any(|part| path.contains(part))
}

/// Looks at a task once.
pub async fn poll(client: &Client, handle: &Handle) -> Result<State> {
    match client.get_reply(&handle.uri).await {
        Ok(Reply { status, doc, .. }) => {
            let named = doc.text("TaskState").or_else(|| doc.text("JobState")).is_some();
            if status == 202 && !named {
                return Ok(State::Running(0));
            }
            // Lenovo's task is over when its job begins.
            let jobs = doc.parts("Messages");
            let moved = jobs
                .iter()
                .filter(|m| m.text_or_empty("MessageId").ends_with("OperationTransitionedToJob"))
                .find_map(|m| m.texts("MessageArgs").into_iter().find(|arg| follows(arg) && *arg != handle.uri));
            match moved {
                Some(job) => match client.get(&job).await {
                    Ok(job) => Ok(state_of(&job)),
                    Err(Error::NotFound(_)) => Ok(State::Vanished),
                    Err(error) => Err(error),
                },
                None => Ok(state_of(&doc)),
            }
        }
        Err(Error::NotFound(_)) => Ok(State::Vanished),
        Err(Error::Refused { message, .. }) => Ok(State::Failed(message)),
        Err(error) => Err(error),
    }
}

pub(crate) fn state_of(task: &Doc) -> State {
    let state = task.text("TaskState").or_else(|| task.text("JobState")).unwrap_or_default();
    let status = task.text("TaskStatus").unwrap_or_default();
    let words = || {
        let texts: Vec<String> = task.parts("Messages").iter().filter_map(|m| m.text("Message")).collect();
        if texts.is_empty() {
            format!("it ended as {state} ({status})")
        } else {
            texts.join(" ")
        }
    };
    let percent = task
        .integer("PercentComplete")
        .or_else(|| task.part("Oem").part("Dell").integer("PercentComplete"))
        .unwrap_or(0);
    match state.as_str() {
        "Completed" if status == "Critical" => State::Failed(words()),
        "Completed" => State::Completed,
        "Killed" | "Exception" | "Cancelled" | "Failed" | "CompletedWithErrors" => State::Failed(words()),
        // It waits for a restart of the host: nothing more happens by itself.
        "Scheduled" | "RebootPending" | "Pending" if percent >= 100 || state == "Scheduled" => State::Staged,
        // What a finished monitor answers is the answer of the operation itself.
        "" if task.value.get("error").is_none() => State::Completed,
        "" => match task.part("error").text_or_empty("code").rsplit('.').next() {
            Some("Success" | "ExtendedInfo" | "NoOperation") => State::Completed,
            _ => State::Failed(task.part("error").text("message").unwrap_or_else(words)),
        },
        _ => State::Running(percent),
    }
}

/// A task, as the BMC lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path.
    pub uri: String,
    /// What was asked for, where the task tells: many do not.
    pub target: Option<String>,
}

/// All tasks; none where the BMC lists none.
pub async fn list(client: &Client) -> Result<Vec<Listed>> {
    let root = client.root().await?;
    let Some(service) = root.link("Tasks") else { return Ok(vec![]) };
    let Some(tasks) = client.get(&service).await?.link("Tasks") else {
        return Ok(vec![]);
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
    let listed = |t: &Doc| Listed {
        uri: t.id_path(),
        target: t.part("Payload").text("TargetUri"),
    };
    Ok(tasks.iter().map(listed).collect())
}

/// Of the tasks that were not there before this was asked for, the one that it began: one that says so; or, where nothing else goes on beside it,
/// the only one that says nothing.
pub fn began(listed: &[Listed], before: &[String], target: &str, alone: bool) -> Option<Handle> {
    let new = || listed.iter().filter(|task| !before.contains(&task.uri));
    let says = |task: &&Listed| {
        let asked = task.target.as_deref();
        asked.is_some_and(|asked| crate::uri::identity(asked) == crate::uri::identity(target))
    };
    let mut silent = new().filter(|task| task.target.is_none());
    let only = match (silent.next(), silent.next()) {
        (Some(only), None) if alone => Some(only),
        (_, _) => None,
    };
    let task = new().rfind(says).or(only)?;
    Some(Handle { uri: task.uri.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_told_from_what_was_there() {
        let task = |uri: &str, target: Option<&str>| Listed {
            uri: uri.to_owned(),
            target: target.map(str::to_owned),
        };
        let before = ["/t/1".to_owned(), "/t/2".to_owned()];
        let old = [task("/t/1", Some("/update")), task("/t/2", None)];
        let with = |new: &[Listed]| began(&[&old[..], new].concat(), &before, "/update", true).map(|task| task.uri);
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[task("/t/3", None)]), Some("/t/3".to_owned()), "most tasks say nothing");
        assert_eq!(
            with(&[task("/t/3", None), task("/t/4", None)]),
            None,
            "one of them, and nobody knows which"
        );
        assert_eq!(with(&[task("/t/3", None), task("/t/4", Some("/update/"))]), Some("/t/4".to_owned()));
        assert_eq!(with(&[task("/t/3", Some("/erase"))]), None, "that is another's");
        assert_eq!(began(&[task("/t/3", None)], &before, "/update", false), None, "it may be another's");
    }
}
