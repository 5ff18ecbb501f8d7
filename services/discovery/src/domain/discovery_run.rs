use ironyard_types::{Metadata, Timestamp};
use serde::{Deserialize, Serialize};

/// How far the discovery of one server is; named like the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryRun {
    /// Head; the name is the server's.
    pub metadata: Metadata,
    /// Since when.
    pub started_at: Timestamp,
    /// Whether the hardware was read from outside.
    pub outside_done: bool,
    /// Since when it can be read in part only.
    #[serde(default)]
    pub incomplete_since: Option<Timestamp>,
    /// What of the storage could not be read from outside in the end.
    #[serde(default)]
    pub storage_unread: Option<String>,
    /// Whether the hardware was read a second time, as the first was long ago.
    #[serde(default)]
    pub read_again: bool,
    /// The run of the agent, once begun.
    pub agent_run: String,
    /// Runs of the agent that ended before they touched the machine.
    #[serde(default)]
    pub runs_untouched: u32,
    /// Passes that failed in a row.
    pub failures: i32,
    /// When the first of them failed.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
}

/// Whether the agent is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InBand {
    /// Needed.
    Required,
    /// Tried.
    Optional,
    /// Not tried.
    Off,
}

/// How the agent stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// No run was begun.
    NotBegun,
    /// It has not reported yet.
    Booting,
    /// It has reported and was not told to stop.
    Reported,
    /// It is being stopped.
    Ending,
    /// Over: well, or with a failure.
    Ended(Option<String>),
    /// Over, and what it said does not count.
    Distrusted(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Read the hardware from outside.
    ReadOutside,
    /// Boot the agent.
    BeginAgent,
    /// Wait for the agent.
    WaitForAgent,
    /// Take over its report and stop it.
    TakeReport,
    /// Stop it.
    StopAgent,
    /// Wait until the machine is off again.
    WaitForEnd,
    /// Complete; with the reason why the inside was not seen, if it was not.
    Done(Option<String>),
    /// It cannot be completed.
    Fail(String),
}

/// Decides the next step of a discovery.
pub fn plan(run: &DiscoveryRun, policy: InBand, agent: &Agent) -> Next {
    if !run.outside_done {
        return Next::ReadOutside;
    }
    // Drives that nobody has seen would be owed by nobody: the agent must see them where the BMC does not show all.
    let unseen = |why_not: Option<&str>| {
        let unread = run.storage_unread.as_ref()?;
        let agent = why_not.unwrap_or("it is not asked for");
        Some(Next::Fail(format!(
            "it may have drives that nobody has seen: the BMC could not show all ({unread}), nor could the agent ({agent})"
        )))
    };
    match (policy, agent) {
        // Somebody spoke for the machine who is not on it: that is not for a policy to overlook.
        (InBand::Required | InBand::Optional | InBand::Off, Agent::Distrusted(why)) => Next::Fail(why.clone()),
        (InBand::Off, Agent::NotBegun | Agent::Ended(_)) => unseen(None).unwrap_or(Next::Done(None)),
        // The policy changed while the agent was on its way: it is not left behind.
        (InBand::Off, Agent::Booting | Agent::Reported) => Next::StopAgent,
        (InBand::Required | InBand::Optional, Agent::NotBegun) => Next::BeginAgent,
        (InBand::Required | InBand::Optional, Agent::Booting) => Next::WaitForAgent,
        (InBand::Required | InBand::Optional, Agent::Reported) => Next::TakeReport,
        (InBand::Required | InBand::Optional | InBand::Off, Agent::Ending) => Next::WaitForEnd,
        (InBand::Required | InBand::Optional, Agent::Ended(None)) => unseen(Some("it did not see all either")).unwrap_or(Next::Done(None)),
        (InBand::Required, Agent::Ended(Some(why))) => Next::Fail(why.clone()),
        (InBand::Optional, Agent::Ended(Some(why))) => unseen(Some(why)).unwrap_or_else(|| Next::Done(Some(why.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_agent_that_fails_fails_the_discovery() {
        let run = DiscoveryRun {
            metadata: Metadata::default(),
            started_at: Timestamp(0),
            outside_done: true,
            incomplete_since: None,
            storage_unread: None,
            read_again: false,
            agent_run: String::new(),
            runs_untouched: 0,
            failures: 0,
            failing_since: None,
        };
        let ended = Agent::Ended(Some("no report".into()));
        assert_eq!(plan(&run, InBand::Required, &ended), Next::Fail("no report".into()));
        assert_eq!(plan(&run, InBand::Optional, &ended), Next::Done(Some("no report".into())));
        assert_eq!(plan(&run, InBand::Off, &Agent::NotBegun), Next::Done(None));
        let distrusted = Agent::Distrusted("two agents".into());
        assert_eq!(plan(&run, InBand::Optional, &distrusted), Next::Fail("two agents".into()));
        // What nobody has seen is not offered; what the agent has seen, is.
        let unread = DiscoveryRun {
            storage_unread: Some("/Storage/1: 503".into()),
            ..run.clone()
        };
        for (policy, agent, offered) in [
            (InBand::Off, Agent::NotBegun, false),
            (InBand::Optional, ended, false),
            // What the agent's report shows takes the mark away; that it has ended does not.
            (InBand::Optional, Agent::Ended(None), false),
            (InBand::Required, Agent::Ended(None), false),
        ] {
            assert_eq!(
                matches!(plan(&unread, policy, &agent), Next::Done(_)),
                offered,
                "{policy:?} {agent:?}"
            );
        }
        assert_eq!(
            plan(
                &DiscoveryRun {
                    outside_done: false,
                    ..run
                },
                InBand::Off,
                &Agent::NotBegun
            ),
            Next::ReadOutside
        );
    }
}
