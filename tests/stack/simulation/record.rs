//! The history of a schedule, as the databases and the machines tell it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::hardware::Deed;
use crate::checkers::history::{AtRest, EffectKind, Fact, Reclaim};

/// What was last seen of a server.
#[derive(Default, Clone, PartialEq, Eq)]
struct Seen {
    state: String,
    claim: String,
    debt: String,
    waits: bool,
}

/// Reads rows and deeds as they change, and keeps what follows from them.
#[derive(Default)]
pub struct Recorder {
    facts: Vec<Fact>,
    servers: BTreeMap<String, Seen>,
    steps: BTreeMap<String, String>,
    certificates: BTreeSet<String>,
    /// Tokens of the agent, and the runs that they are for.
    tokens: BTreeMap<String, String>,
    /// Runs of the agent, and the cleanup runs that began them.
    agents: BTreeMap<String, String>,
    /// Cleanup runs.
    runs: BTreeSet<String>,
    /// What is wrong in itself.
    pub found: Vec<String>,
    /// Waivers that administrators made, by server.
    pub waivers: BTreeMap<String, String>,
    /// Servers that went to Error, and why.
    pub errors: Vec<String>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Recorder {
    fn at(&self) -> i64 {
        i64::try_from(self.facts.len()).unwrap_or(i64::MAX)
    }

    fn push(&mut self, fact: impl FnOnce(i64) -> Fact) {
        let at = self.at();
        self.facts.push(fact(at));
    }

    /// Inventory has written.
    pub fn servers(&mut self, rows: &[Value]) {
        for row in rows {
            let server = text(row, "/metadata/name").to_owned();
            let now = Seen {
                state: text(row, "/state").to_owned(),
                claim: text(row, "/facts/claim/uid").to_owned(),
                debt: text(row, "/facts/debt/claim/uid").to_owned(),
                waits: row.pointer("/waiting").is_some_and(Value::is_object) || row.pointer("/facts/failure").is_some_and(Value::is_object),
            };
            let before = self.servers.insert(server.clone(), now.clone()).unwrap_or_default();
            if before.claim != now.claim && !before.claim.is_empty() {
                let (server, claim) = (server.clone(), before.claim.clone());
                self.push(|at| Fact::Released { at, server, claim });
            }
            if before.claim != now.claim && !now.claim.is_empty() {
                let retain = row.pointer("/facts/debt/retain").and_then(Value::as_bool).unwrap_or_default();
                let minimum = match text(row, "/facts/debt/minimum") {
                    "" => None,
                    "Purge" => Some(2),
                    "Destroy" => Some(3),
                    _ => Some(1),
                };
                let (server, claim) = (server.clone(), now.claim.clone());
                self.push(|at| Fact::Reserved {
                    at,
                    server,
                    claim,
                    policy: if retain { Reclaim::Retain } else { Reclaim::Recycle },
                    minimum,
                });
            }
            // A machine that owes since it was found: as if somebody had held it before, and let go.
            if before.debt != now.debt && !now.debt.is_empty() && before.claim.is_empty() && now.claim.is_empty() {
                let minimum = (text(row, "/facts/debt/minimum") == "Purge").then_some(2).or(Some(1));
                let (server, claim) = (server.clone(), now.debt.clone());
                self.push(|at| Fact::Reserved {
                    at,
                    server: server.clone(),
                    claim: claim.clone(),
                    policy: Reclaim::Recycle,
                    minimum,
                });
                self.push(|at| Fact::Released { at, server, claim });
            }
            if before.debt != now.debt
                && now.debt.is_empty()
                // A wipe that is proven leaves Cleanup; one that is waived stays where it failed.
                && now.state == "Error"
                && let Some(by) = self.waivers.remove(&server)
            {
                let server = server.clone();
                self.push(|at| Fact::Waived { at, server, by });
            }
            if before.state != now.state && now.state == "Error" {
                self.errors.push(format!("{server}: {}", text(row, "/facts/failure/reason")));
            }
            if before.state != now.state && now.state == "Available" {
                self.push(|at| Fact::Available { at, server });
            }
        }
    }

    /// Claims have written: runs and certificates.
    pub fn claims(&mut self, runs: &[Value], certificates: &[Value]) {
        for row in runs {
            let (run, step) = (text(row, "/metadata/name").to_owned(), text(row, "/step").to_owned());
            self.runs.insert(run.clone());
            let agent = text(row, "/agent_run");
            if !agent.is_empty() {
                self.agents.insert(agent.to_owned(), run.clone());
            }
            let failed = row.pointer("/failure").is_some_and(Value::is_object);
            let before = self
                .steps
                .insert(run.clone(), step.clone())
                .unwrap_or_else(|| "PowerOff".to_owned());
            // A run that failed goes straight to its end.
            if before != step && !failed {
                let server = text(row, "/server/name").to_owned();
                self.push(|at| Fact::StepTaken {
                    at,
                    server,
                    run,
                    from: before,
                    to: step,
                });
            }
        }
        for row in certificates {
            let run = text(row, "/metadata/name").to_owned();
            if self.certificates.insert(run.clone()) {
                let drives = row.pointer("/drives").and_then(Value::as_array).cloned().unwrap_or_default();
                self.push(|at| Fact::Certificate {
                    at,
                    server: text(row, "/server/name").to_owned(),
                    run,
                    claim: text(row, "/claim/uid").to_owned(),
                    passed: row.pointer("/passed").and_then(Value::as_bool).unwrap_or_default(),
                    drives: drives.iter().map(|drive| text(drive, "/serial").to_owned()).collect(),
                });
            }
        }
    }

    /// Discovery has written: runs of the agent.
    pub fn agents(&mut self, rows: &[Value]) {
        for row in rows {
            let (name, token) = (text(row, "/metadata/name"), text(row, "/image_id"));
            if !token.is_empty() {
                self.tokens.insert(token.to_owned(), name.to_owned());
            }
        }
    }

    /// Something happened to a machine.
    pub fn deed(&mut self, deed: Deed) {
        let (server, kind, run, key) = match deed {
            Deed::Wrote { server, drive } => return self.push(|at| Fact::Wrote { at, server, drive }),
            Deed::Erased { server, drive } => return self.push(|at| Fact::Erased { at, server, drive }),
            Deed::SwitchedOff { server, key } => {
                let held = self.tenant(&server);
                if !held.is_empty() && !key.starts_with(&held) {
                    self.found
                        .push(format!("{server}: switched off by {key} while claim {held} holds it"));
                }
                // The agent's run switches off before and after it; only the cleanup's own are its steps.
                let own = |end: &str| key.strip_suffix(end).filter(|run| self.runs.contains(*run)).map(str::to_owned);
                match (own("-off"), own("-end")) {
                    (Some(run), _) => (server, EffectKind::PowerOff, run, key),
                    (None, Some(run)) => (server, EffectKind::EndAgent, run, key),
                    (None, None) => return,
                }
            }
            Deed::Booted { server, token, key } => {
                let held = self.tenant(&server);
                if !held.is_empty() && (token.is_some() || !key.starts_with(&held)) {
                    self.found.push(format!("{server}: booted by {key} while claim {held} holds it"));
                }
                match token {
                    Some(token) => (server, EffectKind::BootAgent, format!("token:{token}"), key),
                    None => return,
                }
            }
            Deed::EraseBegun { server, drive, key } => {
                let end = format!("-erase-{drive}");
                let run = key.strip_suffix(&end).unwrap_or(&key).to_owned();
                (server, EffectKind::Erase { drive }, run, key)
            }
            Deed::AgentWiped { server, drive, token, id } => (server, EffectKind::Erase { drive }, format!("token:{token}"), id),
            Deed::AgentVerified {
                server, drive, token, id, ..
            } => (server, EffectKind::Verify { drive }, format!("token:{token}"), id),
        };
        self.push(|at| Fact::Effect {
            at,
            server,
            run,
            kind,
            key,
            lost: false,
        });
    }

    /// The claim that has the use of a server: one that is in maintenance is in the hands of whoever maintains it.
    fn tenant(&self, server: &str) -> String {
        let seen = self.servers.get(server).filter(|seen| seen.state == "Reserved");
        seen.map(|seen| seen.claim.clone()).unwrap_or_default()
    }

    /// A user keeps a server in maintenance: that is a place to stay.
    pub fn held(&mut self, server: &str) {
        if let Some(seen) = self.servers.get_mut(server).filter(|seen| seen.state == "Maintenance") {
            seen.waits = true;
        }
    }

    /// The end: the whole history, and how the servers are.
    pub fn finish(mut self) -> (Vec<Fact>, Vec<AtRest>) {
        self.push(|at| Fact::Ended { at });
        let mut facts = self.facts;
        let run_of = |token: &str| self.tokens.get(token).and_then(|agent| self.agents.get(agent));
        facts.retain_mut(|fact| match fact {
            Fact::Effect { run, .. } => match run.strip_prefix("token:").map(run_of) {
                // The agent of a discovery does nothing that a cleanup answers for.
                Some(None) => false,
                Some(Some(cleanup)) => {
                    run.clone_from(cleanup);
                    true
                }
                None => true,
            },
            _ => true,
        });
        let at_rest = self.servers.into_iter().map(|(name, seen)| (name, seen.state, seen.waits));
        (facts, at_rest.collect())
    }
}
