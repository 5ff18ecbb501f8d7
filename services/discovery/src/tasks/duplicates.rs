//! Machines that show an identity which another server has: one machine known twice, or two that a maker or a repair gave one UUID. Each is
//! shown, and none of them becomes a second server of one machine.

use ironyard_peers::{Gateway, name};
use ironyard_proto::{
    bmc,
    common::ConditionStatus,
    inventory::{Server, ServerState},
};
use ironyard_reconcile::Next;

use super::{
    Error,
    servers::{PATIENT, Servers},
};

/// Why such a server waits.
pub(super) const DUPLICATE: &str = "DUPLICATE_IDENTITY";
/// Condition of the server that has the identity.
const UNIQUE: &str = "IdentityUnique";

impl Servers {
    /// Whether another server has the identity that this one's machine shows: then both say so, and this one goes no further.
    pub(super) async fn is_duplicate(&self, server: &Server, system: &bmc::System) -> Result<Option<Next>, Error> {
        let app = &self.0;
        let shown = Gateway::identity(system);
        let Some(uuid) = shown.uuid() else { return Ok(None) };
        let Some(holder) = app.inventory.of_uuid(&uuid.to_string()).await? else {
            return Ok(None);
        };
        if name(&holder) == name(server) {
            return Ok(None);
        }
        if Gateway::system_of(&holder)
            .is_some_and(|at| Gateway::system_of(server).is_some_and(|own| own.bmc == at.bmc) && at.system_id == system.system_id)
        {
            let message = format!("server {} is this system of this BMC; one machine is one server", name(&holder));
            app.inventory.wait(server, DUPLICATE, &message).await?;
            return Ok(Some(PATIENT));
        }
        let place = |server: &Server| {
            Gateway::system_of(server).map_or_else(String::new, |at| format!(" (BMC {}, system {})", at.bmc, at.system_id))
        };
        let what = "one machine that is known twice, or two with one system UUID";
        let message = format!("server {}{} has system UUID {uuid} too: {what}", name(&holder), place(&holder));
        app.inventory.wait(server, DUPLICATE, &message).await?;
        let message = format!("server {}{} shows system UUID {uuid} too: {what}", name(server), place(server));
        app.inventory
            .condition(&holder, UNIQUE, false, "DuplicateIdentity", &message)
            .await?;
        Ok(Some(PATIENT))
    }

    /// Says of a server whose identity was not its own alone that it is again, once nobody else shows it.
    pub(super) async fn unique_again(&self, server: &Server) -> Result<(), Error> {
        let app = &self.0;
        let shared = |c: &ironyard_proto::common::Condition| c.r#type == UNIQUE && c.status() == ConditionStatus::False;
        if !server.conditions.iter().any(shared) {
            return Ok(());
        }
        let ours = format!("server {} ", name(server));
        let others = app.inventory.in_state(ServerState::Initial).await?;
        let same = |other: &Server| {
            let waiting = other.waiting_because.as_ref();
            waiting.is_some_and(|w| w.reason == DUPLICATE && w.message.starts_with(&ours))
        };
        if !others.iter().any(same) {
            let message = "no other server shows its system UUID";
            app.inventory.condition(server, UNIQUE, true, "Unique", message).await?;
        }
        Ok(())
    }
}
