use ironyard_db::Stored;
use ironyard_operation::Request;
use ironyard_resource::Context;
use ironyard_rpc::{Fault, Reason};
use ironyard_types::{
    Condition, ConditionStatus, SystemUuid, Waiting,
    hardware::{Hardware, Health, PowerState},
};

use super::change;
use crate::domain::{claimability::DRIVES_KNOWN, server::Server};

/// What was seen; absent parts stay as they are.
#[derive(Debug, Default)]
pub struct Report {
    /// From outside.
    pub out_of_band: Option<Hardware>,
    /// From inside.
    pub in_band: Option<Hardware>,
    /// Power.
    pub power_state: Option<PowerState>,
    /// Health; `Some(None)`: not known any more.
    pub health: Option<Option<Health>>,
    /// System id.
    pub system_id: String,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Why it waits; a reason of `NONE` clears it.
    pub waiting: Option<Waiting>,
}

/// Records what was seen. A report that says nothing new writes nothing.
pub async fn report_server(cx: &Context, name: &str, report: Report) -> Result<Stored<Server>, Fault> {
    let now = cx.now();
    change(cx, &Request::default(), name, "", |server| {
        let Report {
            out_of_band,
            in_band,
            power_state,
            health,
            system_id,
            conditions,
            waiting,
        } = report;
        let known = server.machine();
        let other = out_of_band.as_ref().and_then(|h| known.differs(&h.identity()));
        let other = other.or_else(|| in_band.as_ref().and_then(|h| known.differs_inside(&h.identity())));
        if let Some(why) = other {
            let message = format!("what was seen is another machine than server {name}: {why}");
            return Err(Fault::new(Reason::WrongMachine, message));
        }
        // A read that missed something does not shrink what is known; and while a wipe is owed, no read does.
        let owes = server.facts.debt.is_some();
        let keep = |hardware: &mut Hardware, earlier: &Option<Hardware>| match earlier {
            Some(earlier) if owes || !hardware.unreadable_storage.is_empty() => hardware.keep_drives_of(earlier),
            Some(_) | None => {}
        };
        if let Some(mut hardware) = out_of_band {
            keep(&mut hardware, &server.out_of_band);
            if server.conditions.iter().any(|c| c.kind == DRIVES_KNOWN) {
                let (status, why) = (ConditionStatus::True, "the drives that it has now were read");
                Condition::set(&mut server.conditions, DRIVES_KNOWN, status, "Read", why, now);
            }
            // A drive that the BMC showed before and does not any more is gone, whatever the agent saw once.
            if let (Some(earlier), Some(inside)) = (&server.out_of_band, &mut server.in_band) {
                inside.drives.retain(|drive| {
                    let shows = |view: &Hardware| view.drives.iter().any(|d| d.serial_number == drive.serial_number);
                    !shows(earlier) || shows(&hardware)
                });
            }
            // A server without an identity takes the one that its hardware shows; a known one never changes.
            if server.spec.system_uuid.is_none() {
                server.spec.system_uuid = SystemUuid::from_hardware(&hardware.system_uuid);
            }
            server.out_of_band = Some(hardware);
        }
        if let Some(mut hardware) = in_band {
            keep(&mut hardware, &server.in_band);
            server.in_band = Some(hardware);
            server.in_band_at = Some(now);
        }
        if power_state.is_some() {
            server.power_state = power_state;
        }
        if let Some(health) = health {
            server.health = health;
        }
        if !system_id.is_empty() {
            server.system_id = system_id;
        }
        for Condition {
            kind,
            status,
            reason,
            message,
            changed_at: _,
        } in conditions
        {
            Condition::set(&mut server.conditions, &kind, status, &reason, &message, now);
        }
        if let Some(waiting) = waiting {
            let keep = waiting.reason != "NONE";
            let next = waiting.next_attempt.map(|at| at.since(now));
            let renewed = keep.then(|| Waiting::renew(server.waiting.as_ref(), &waiting.reason, waiting.message, now, next));
            // Only another reason or sentence is news: the next attempt moves with every pass.
            let news = |w: &Option<Waiting>| w.as_ref().map(|w| (w.reason.clone(), w.message.clone()));
            if news(&renewed) != news(&server.waiting) {
                server.waiting = renewed;
            }
        }
        Ok(None)
    })
    .await
}
