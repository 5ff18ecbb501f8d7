//! Hardware as the BMC shows it, read at discovery and now and then while nobody uses a server.

use ironyard_peers::name;
use ironyard_proto::{
    bmc,
    inventory::{self, Server, ServerState},
};
use ironyard_rpc::convert::timestamp_from;
use ironyard_types::Timestamp;

use super::{Error, servers::Servers};

impl Servers {
    /// Reads the hardware from outside and reports it. What of the storage could not be read, if anything.
    pub(super) async fn read_outside(&self, server: &Server, system: &bmc::SystemName) -> Result<Option<String>, Error> {
        let app = &self.0;
        let hardware = app.gateway.hardware(system).await?;
        let unread = (!hardware.unreadable_storage.is_empty()).then(|| hardware.unreadable_storage.join("; "));
        // After a waiver nothing is known that a part of the drives could be added to: the server waits for all of them.
        let known = server
            .observed
            .as_ref()
            .and_then(|o| o.hardware.as_ref())
            .is_some_and(|h| !h.drives.is_empty());
        if unread.is_none() || known || server.state() != ServerState::Available || app.settings.offer_unread_storage {
            let report = inventory::ReportServerRequest {
                name: name(server),
                out_of_band: Some(hardware),
                ..Default::default()
            };
            app.inventory.report(report).await?;
        }
        let (reason, message) = match &unread {
            Some(why) => ("StorageUnreadable", why.as_str()),
            None => ("Read", "all drives that the BMC has were read"),
        };
        app.inventory
            .condition(server, "HardwareComplete", unread.is_none(), reason, message)
            .await?;
        Ok(unread)
    }

    /// Whether the hardware was read so long ago that it may be another by now.
    pub(super) fn is_stale(&self, server: &Server) -> bool {
        let hardware = server.observed.as_ref().and_then(|o| o.hardware.as_ref());
        let read = hardware.and_then(|h| h.read_time).map_or(Timestamp(0), timestamp_from);
        self.0.cx.now().since(read) >= self.0.settings.hardware_refresh
    }

    /// Parts are replaced while nobody uses a server: its hardware is read again now and then. Afterwards it would be too late, because a
    /// drive that was known at the reservation is owed.
    pub(super) async fn refresh(&self, server: &Server, system: &bmc::SystemName) -> Result<(), Error> {
        let free = server.state() == ServerState::Available && server.claim_ref.is_none() && server.sanitization_debt.is_none();
        if free && self.is_stale(server) {
            self.read_outside(server, system).await?;
        }
        Ok(())
    }
}
