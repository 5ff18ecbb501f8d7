use ironyard_proto::{bmc, claim, common, inventory};
use ironyard_rpc::convert::selector_to;
use ironyard_types::labels::Selector;
use serde_json::Value;
use tokio_stream::StreamExt;

use super::{
    Failure, apply,
    args::{Because, Command, DebtPart, PowerAction},
    kinds::{self, Kind},
    output::{self, name_of, print},
    wait,
};
use crate::{client::Clients, json::text_at};

fn selector(text: Option<&String>) -> Result<Option<common::LabelSelector>, Failure> {
    let parsed = text
        .map(|t| Selector::parse(t))
        .transpose()
        .map_err(|e| Failure::usage(format!("--selector: {e}")))?;
    Ok(parsed.map(selector_to))
}

/// Runs a verb that needs the services.
pub(crate) async fn run(clients: &Clients, command: Command) -> Result<(), Failure> {
    match command {
        Command::Apply { files } => apply::files(clients, &files, apply::Manner::Merge).await,
        Command::Replace { files } => apply::files(clients, &files, apply::Manner::Replace).await,
        Command::Adopt {
            servers,
            selector: text,
            dry_run,
        } => super::adopt::run(clients, &servers, selector(text.as_ref())?, dry_run).await,
        Command::FirstWipe {
            policy,
            servers,
            selector: text,
            dry_run,
        } => super::first_wipe::run(clients, policy, &servers, selector(text.as_ref())?, dry_run).await,
        Command::Get {
            kind,
            name,
            output,
            selector: text,
        } => {
            let kind = Kind::parse(&kind)?;
            let items = match &name {
                Some(name) => vec![kinds::get(clients, kind, name).await?],
                None => kinds::list(clients, kind, selector(text.as_ref())?).await?,
            };
            if items.is_empty() && output.format.is_none() {
                eprintln!("no {} found", kind.name());
                return Ok(());
            }
            print(kind.name(), kind.columns(), &items, name.is_some(), &output)
        }
        Command::Describe { kind, name } => describe(clients, Kind::parse(&kind)?, &name).await,
        Command::Delete { kind, name, force, reason } => {
            let kind = Kind::parse(&kind)?;
            if force && !matches!(kind, Kind::Bmc | Kind::Secret) {
                return Err(Failure::usage(
                    "--force is for BMCs and secrets: what a server owes is waived by name",
                ));
            }
            kinds::delete(clients, kind, &name, reason).await?;
            println!("{}/{name} deleted", kind.name().to_ascii_lowercase());
            Ok(())
        }
        Command::Wait {
            kind,
            name,
            condition,
            timeout,
        } => wait::run(clients, Kind::parse(&kind)?, &name, &condition, timeout).await,
        Command::Watch => watch(clients).await,
        Command::Power { server, action, yes } => power(clients, &server, action, yes).await,
        Command::Claim {
            name,
            server_name,
            selector: text,
            on,
            image,
        } => {
            let power = if on { common::PowerState::On } else { common::PowerState::Off };
            let spec = claim::ServerClaimSpec {
                server_ref: server_name.map(|name| common::Reference { name, uid: String::new() }),
                server_selector: selector(text.as_ref())?,
                power: power.into(),
                image,
                ..Default::default()
            };
            let claim = claim::ServerClaim {
                metadata: Some(common::Metadata {
                    name: name.clone(),
                    ..Default::default()
                }),
                spec: Some(spec),
                ..Default::default()
            };
            let request = claim::CreateServerClaimRequest {
                server_claim: Some(claim),
                request_id: String::new(),
            };
            clients.claims.clone().create_server_claim(request).await?;
            println!("serverclaim/{name} created");
            Ok(())
        }
        Command::Console { server, read_only, log } => super::console::run(clients, &server, read_only, log).await,
        Command::Release { name } => {
            kinds::delete(clients, Kind::Claim, &name, None).await?;
            println!("serverclaim/{name} is being released");
            Ok(())
        }
        Command::Explain { kind, name } => {
            if Kind::parse(&kind)? != Kind::Claim {
                return Err(Failure::usage("only claims can be explained"));
            }
            explain(clients, &name).await
        }
        Command::History { server, output } => {
            let reply = clients
                .servers
                .clone()
                .list_server_history(inventory::ListServerHistoryRequest { name: server })
                .await?;
            let items: Vec<Value> = reply
                .into_inner()
                .entries
                .iter()
                .map(|e| crate::json::to_json("ironyard.inventory.v1.ServerHistoryEntry", e))
                .collect();
            let columns = [
                ("TIME", "/time", false),
                ("EVENT", "/event", false),
                ("FROM", "/from", false),
                ("TO", "/to", false),
                ("ACTOR", "/actor", false),
                ("REASON", "/reason", false),
            ];
            print("ServerHistoryEntry", &columns, &items, false, &output)
        }
        Command::Resolve(Because {
            server: name,
            reason,
            actor,
        }) => {
            clients
                .servers
                .clone()
                .resolve_server(inventory::ResolveServerRequest {
                    name: name.clone(),
                    reason,
                    actor,
                })
                .await?;
            println!("server/{name} resolved");
            Ok(())
        }
        Command::Retry(Because {
            server: name,
            reason,
            actor,
        }) => {
            clients
                .servers
                .clone()
                .retry_server(inventory::RetryServerRequest {
                    name: name.clone(),
                    reason,
                    actor,
                })
                .await?;
            println!("server/{name} is tried again");
            Ok(())
        }
        Command::WaiveSanitization { because, only } => {
            let Because {
                server: name,
                reason,
                actor,
            } = because;
            let part = match only {
                None => inventory::SanitizationPart::Unspecified,
                Some(DebtPart::Minimum) => inventory::SanitizationPart::Minimum,
                Some(DebtPart::Retention) => inventory::SanitizationPart::Retention,
            };
            let request = inventory::WaiveSanitizationRequest {
                name: name.clone(),
                reason,
                actor,
                part: part.into(),
            };
            clients.servers.clone().waive_sanitization(request).await?;
            match only {
                None => println!("server/{name} owes no wipe any more; this is on record"),
                Some(_) => println!("server/{name} still owes its wipe, without that part; this is on record"),
            }
            Ok(())
        }
        Command::ReleaseServer(Because {
            server: name,
            reason,
            actor,
        }) => {
            let request = inventory::ReleaseServerRequest {
                name: name.clone(),
                reason,
                actor,
            };
            clients.servers.clone().release_server(request).await?;
            println!("server/{name} is let go of, and wiped");
            Ok(())
        }
        Command::CancelCleanup(Because { server, reason, actor }) => {
            let name = server.clone();
            let request = claim::CancelCleanupRequest { server, reason, actor };
            clients.sanitization.clone().cancel_cleanup(request).await?;
            println!("the wipe of server/{name} is being stopped; it still owes it");
            Ok(())
        }
        Command::CancelOperation { name, reason } => {
            let request = bmc::CancelOperationRequest {
                name: name.clone(),
                reason,
            };
            let operation = clients.operations.clone().cancel_operation(request).await?.into_inner();
            let done = if operation.done {
                "had ended already"
            } else {
                "is being cancelled"
            };
            println!("operation/{name} {done}");
            Ok(())
        }
        Command::RewrapCredentials => {
            let answer = clients
                .credentials
                .clone()
                .rewrap_credentials(bmc::RewrapCredentialsRequest {})
                .await?;
            let bmc::RewrapCredentialsResponse {
                sealing_key_id,
                rewrapped,
                already,
            } = answer.into_inner();
            println!("{rewrapped} sealed anew under key {sealing_key_id}, {already} were");
            Ok(())
        }
        Command::Demo(_)
        | Command::Up(_)
        | Command::Simulate(_)
        | Command::Certs { .. }
        | Command::Completion { .. }
        | Command::Conformance(_) => Ok(()),
    }
}

async fn describe(clients: &Clients, kind: Kind, name: &str) -> Result<(), Failure> {
    let item = kinds::get(clients, kind, name).await?;
    print!("{}", output::yaml(std::slice::from_ref(&item))?);
    if kind == Kind::Server {
        let request = inventory::ListServerHistoryRequest { name: name.to_owned() };
        let entries = clients.servers.clone().list_server_history(request).await?.into_inner().entries;
        println!("history:");
        for entry in entries.iter().rev().take(10) {
            let json = crate::json::to_json("ironyard.inventory.v1.ServerHistoryEntry", entry);
            let text = |pointer| text_at(&json, pointer);
            println!(
                "  - {} {}: {} → {} by {} {}",
                text("/time"),
                text("/event"),
                text("/from"),
                text("/to"),
                text("/actor"),
                text("/reason")
            );
        }
        let request = claim::ListCertificatesRequest {
            server: name.to_owned(),
            ..Default::default()
        };
        let certificates = clients
            .sanitization
            .clone()
            .list_certificates(request)
            .await?
            .into_inner()
            .certificates;
        if let Some(last) = certificates.first() {
            println!(
                "lastCertificate: {} ({})",
                last.name,
                if last.passed { "passed" } else { "did not pass" }
            );
        }
    }
    Ok(())
}

async fn watch(clients: &Clients) -> Result<(), Failure> {
    let mut stream = clients
        .servers
        .clone()
        .watch_servers(inventory::WatchServersRequest::default())
        .await?
        .into_inner();
    while let Some(event) = stream.next().await {
        let event = event?;
        if let Some(server) = &event.server {
            let json = crate::json::to_json("ironyard.inventory.v1.Server", server);
            let text = |pointer| text_at(&json, pointer);
            let kind = event.r#type().as_str_name().trim_start_matches("CHANGE_TYPE_").to_owned();
            let wait = text("/waitingBecause/message");
            println!(
                "{kind}\t{}\t{}\t{}\t{}\t{wait}",
                name_of(&json),
                text("/state"),
                text("/observed/powerState"),
                text("/claimRef/name")
            );
        }
    }
    Ok(())
}

async fn power(clients: &Clients, server: &str, action: Option<PowerAction>, yes: bool) -> Result<(), Failure> {
    let found = clients
        .servers
        .clone()
        .get_server(inventory::GetServerRequest { name: server.to_owned() })
        .await?
        .into_inner();
    let claim = found.claim_ref.as_ref().map(|c| c.name.clone());
    let system = ironyard_peers::Gateway::system_of(&found).ok_or_else(|| Failure::other(format!("server {server} has no BMC yet")))?;
    let Some(action) = action else {
        let seen = clients
            .systems
            .clone()
            .get_system(bmc::GetSystemRequest { system: Some(system) })
            .await?
            .into_inner();
        println!("{}", text_at(&crate::json::to_json("ironyard.bmc.v1.System", &seen), "/powerState"));
        return Ok(());
    };
    if let Some(claim) = claim.filter(|_| !yes) {
        return Err(Failure::usage(format!(
            "server {server} is held by claim {claim}: say --yes to change its power all the same"
        )));
    }
    let action = match action {
        PowerAction::On => bmc::PowerAction::On,
        PowerAction::Off => bmc::PowerAction::GracefulOff,
        PowerAction::ForceOff => bmc::PowerAction::ForceOff,
        PowerAction::Cycle => bmc::PowerAction::Cycle,
        PowerAction::Reset => bmc::PowerAction::Reset,
    };
    let request = bmc::SetPowerRequest {
        system: Some(system),
        action: action.into(),
        ..Default::default()
    };
    let mut operation = clients.systems.clone().set_power(request).await?.into_inner();
    let mut phase = String::new();
    while !operation.done {
        if operation.phase != phase {
            phase.clone_from(&operation.phase);
            eprintln!("{phase} (operation {})", operation.name);
        }
        operation = clients
            .operations
            .clone()
            .wait_operation(bmc::WaitOperationRequest { name: operation.name })
            .await?
            .into_inner();
    }
    match operation.error {
        Some(error) => Err(Failure {
            code: 64_u8.saturating_add(u8::try_from(error.code).unwrap_or(2)),
            message: error.message,
        }),
        None => {
            println!(
                "server/{server} {}",
                operation.metadata.get("power_state").map_or("done", String::as_str)
            );
            Ok(())
        }
    }
}

async fn explain(clients: &Clients, name: &str) -> Result<(), Failure> {
    let claim = clients
        .claims
        .clone()
        .get_server_claim(claim::GetServerClaimRequest { name: name.to_owned() })
        .await?
        .into_inner();
    if let Some(server) = &claim.bound_server {
        println!("claim {name} has server {}", server.name);
        return Ok(());
    }
    if let Some(waiting) = &claim.waiting_because {
        println!("claim {name} waits: {}", waiting.message);
    }
    let spec = claim.spec.unwrap_or_default();
    let request = inventory::ExplainReservationRequest {
        server: spec.server_ref.map(|r| r.name).unwrap_or_default(),
        selector: spec.server_selector,
        tolerations: spec
            .tolerations
            .into_iter()
            .map(|claim::ClaimToleration { key, operator, value }| inventory::Toleration { key, operator, value })
            .collect(),
        adopt: spec.adopt,
    };
    let candidates = clients.servers.clone().explain_reservation(request).await?.into_inner().candidates;
    for candidate in candidates {
        println!(
            "  {} {}: {}",
            if candidate.fits { "✓" } else { "✗" },
            candidate.server,
            candidate.message
        );
    }
    Ok(())
}
