use ironyard_db::record;
use ironyard_peers::{name, sweep_servers};
use ironyard_proto::inventory::Server;

use super::adoption::is_wanted;
use crate::{
    app::{App, Error, store_fault},
    domain::server_claim::ServerClaim,
};

/// Says of every server that a claim holds whether that claim is known here. A server whose claim is lost is shown, never let go of by itself:
/// the loss may be ours, and a tenant's image may run there. What is to be adopted, and of which an event may have failed to tell, is told here.
pub async fn sweep(app: App) {
    let (inventory, every) = (app.inventory.clone(), app.settings.sweep);
    let page = move |servers: Vec<Server>| {
        let app = app.clone();
        async move {
            for server in servers.iter().filter(|server| is_wanted(server)) {
                app.adoptions.enqueue(&name(server)).await.map_err(|error| error.to_string())?;
            }
            for server in servers.iter().filter(|server| server.claim_ref.is_some()) {
                look(&app, server).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        }
    };
    sweep_servers(inventory, "orphans", every, page).await;
}

/// The condition that inventory asks for before a server is let go of without its claim.
const KIND: &str = "ClaimExists";

pub(crate) async fn look(app: &App, server: &Server) -> Result<(), Error> {
    let Some(holder) = &server.claim_ref else { return Ok(()) };
    let claim = record::get::<ServerClaim>(&app.cx.db, &holder.name).await.map_err(store_fault)?;
    let known = claim.is_some_and(|claim| claim.value.metadata.uid == holder.uid);
    let told = server.conditions.iter().any(|c| c.r#type == KIND);
    if known && !told {
        return Ok(());
    }
    if known {
        app.inventory.condition(server, KIND, true, "Known", "its claim exists").await?;
        return Ok(());
    }
    // It may have been given back since the page was read.
    let held = app
        .inventory
        .get(&name(server))
        .await?
        .is_some_and(|s| s.claim_ref.as_ref() == Some(holder));
    if held {
        let message = format!(
            "claim {} ({}) is not known to the claim service; restore it, or release the server by name",
            holder.name, holder.uid
        );
        app.inventory.condition(server, KIND, false, "Lost", &message).await?;
    }
    Ok(())
}
