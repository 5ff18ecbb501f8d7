use std::{net::SocketAddr, path::Path};

use ironyard_bmc_simulator::{Fleet, FleetConfig, PROFILES, Profile, Timing, serve};
use ironyard_discovery::{
    ImageConfig,
    domain::{discovery_run::InBand, endpoint::MacPrefix},
};
use ironyard_rpc::telemetry;
use ironyard_types::hardware::{self, RunningMachines};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde::Deserialize;

use super::{
    Failure,
    args::{Simulate, Up},
};
use crate::{
    client::Clients,
    demo,
    simulate::boot_agent,
    stack::{Config, Stack},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Prefixes {
    mac_prefixes: Vec<MacPrefix>,
}

/// All services on one port, until a signal.
pub(crate) async fn up(mut up: Up) -> Result<(), Failure> {
    let format = if up.json_logs {
        telemetry::Format::Json
    } else {
        telemetry::Format::Text
    };
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,ironyard=info".to_owned());
    let config = telemetry::Config {
        filter: Some(filter),
        format,
        otlp_endpoint: up.otlp_endpoint.clone(),
    };
    let guard = telemetry::init("ironyard", &config).map_err(Failure::usage)?;
    let mut config = Config::new(&up.data, SocketAddr::from(([127, 0, 0, 1], up.port)));
    config.database_url = up.database_url;
    config.boot_timeout = up.boot_timeout;
    config.offer_unread_storage = up.offer_unread_storage;
    for range in &up.plaintext_ranges {
        let network = range
            .parse()
            .map_err(|_| Failure::usage(format!("--plaintext-range {range:?}: use a network, as in 10.1.0.0/16")))?;
        config.gateway.plaintext_ranges.push(network);
    }
    // Simulated BMCs need no care.
    config.gateway.requests_per_second = up.requests_per_second.unwrap_or(if up.simulate > 0 { 0 } else { 5 });
    config.ops_listen = (up.ops_port != 0).then(|| SocketAddr::from(([127, 0, 0, 1], up.ops_port)));
    let listen = up.agent_image_listen;
    config.image = match up.agent_image.take() {
        None if up.simulate == 0 => None,
        None => Some(ImageConfig::simulated(listen.unwrap_or(([127, 0, 0, 1], 0).into()))),
        Some(file) => {
            let config = ImageConfig::simulated(listen.unwrap_or(([127, 0, 0, 1], 7720).into()));
            let simulated = file.as_os_str() == "simulated";
            Some(ImageConfig {
                simulated,
                file: (!simulated).then_some(file),
                url: up.agent_image_url,
                ..config
            })
        }
    };
    config.agent_url = up.agent_url;
    config.in_band = match up.in_band.as_str() {
        "required" => InBand::Required,
        "optional" => InBand::Optional,
        "off" => InBand::Off,
        other => return Err(Failure::usage(format!("--in-band {other:?}: use required, optional or off"))),
    };
    config.running_machines = match up.running_machines.as_str() {
        "wait" => RunningMachines::Wait,
        "adopt" => RunningMachines::Adopt,
        "powerOff" => RunningMachines::PowerOff,
        other => return Err(Failure::usage(format!("--running-machines {other:?}: use wait, adopt or powerOff"))),
    };
    config.first_wipe = match (up.first_wipe, up.simulate) {
        (Some(policy), _) => policy.into(),
        (None, 0) => hardware::FirstWipe::Wait,
        // What is on simulated drives is nobody's.
        (None, _) => hardware::FirstWipe::Waive,
    };
    if let Some(file) = &up.mac_prefixes {
        let prefixes: Prefixes = ironyard_rpc::config::load(Some(file), "IRONYARD_MAC_PREFIX_FILE").map_err(Failure::usage)?;
        config.mac_prefixes = prefixes.mac_prefixes;
    }
    let stack = Stack::start(config).await.map_err(|e| Failure::other(chain(&*e)))?;
    println!("ready: {}", stack.address);
    let fleet = if up.simulate > 0 {
        let config = FleetConfig {
            count: up.simulate,
            ..FleetConfig::default()
        };
        let serving = serve(Fleet::new(&config, Some(boot_agent())), 0, false).map_err(Failure::other)?;
        let clients = Clients::at(&stack.address).map_err(Failure::other)?;
        demo::register(&clients, &config, serving.port).await.map_err(Failure::other)?;
        println!(
            "simulating {} BMCs from {} on port {}; admin API: http://127.0.0.1:{}/admin/bmcs",
            config.count, config.first, serving.port, serving.port
        );
        Some(serving)
    } else {
        None
    };
    ironyard_rpc::ops::signalled().await;
    eprintln!("stopping");
    stack.stop().await;
    drop(fleet);
    guard.flush();
    Ok(())
}

fn profiles(names: &[String]) -> Result<Vec<&'static Profile>, Failure> {
    if names.iter().any(|name| name == "all") {
        return Ok(PROFILES.to_vec());
    }
    let known = || PROFILES.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    let one = |name: &String| Profile::named(name).ok_or_else(|| Failure::usage(format!("--profile {name:?}: use {} or all", known())));
    names.iter().map(one).collect()
}

/// A simulated fleet, until a signal.
pub(crate) async fn simulate(args: Simulate) -> Result<(), Failure> {
    let timing = Timing {
        power: args.power_time,
        ..Timing::default()
    };
    let config = FleetConfig {
        count: args.bmcs,
        first: args.first,
        timing,
        session_limit: args.session_limit,
        profiles: profiles(&args.profile)?,
        ..FleetConfig::default()
    };
    let serving = serve(Fleet::new(&config, Some(boot_agent())), args.port, args.tls).map_err(Failure::other)?;
    println!(
        "ready: {} BMCs from {} on port {}; user {} password {}",
        config.count, config.first, serving.port, config.username, config.password
    );
    ironyard_rpc::ops::signalled().await;
    Ok(())
}

/// Certificates for development: `ca.pem`, and `NAME.pem` with `NAME.key` for each service, `operator` and `administrator`.
pub(crate) fn certificates(out: &Path, hosts: &[String]) -> Result<(), Failure> {
    std::fs::create_dir_all(out).map_err(Failure::other)?;
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::OpenOptionsExt;
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(out.join(name));
        file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(Failure::other)
    };
    let mut authority = CertificateParams::new(vec![]).map_err(Failure::other)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority
        .distinguished_name
        .push(DnType::CommonName, "Ironyard development authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(Failure::other)?).map_err(Failure::other)?;
    write("ca.pem", &authority.pem())?;
    for name in [
        "inventory",
        "bmc-gateway",
        "discovery",
        "claim",
        "maintenance",
        "operator",
        "administrator",
    ] {
        let mut hosts: Vec<String> = hosts.to_vec();
        hosts.push(name.to_owned());
        let mut params = CertificateParams::new(hosts).map_err(Failure::other)?;
        let uri = format!("spiffe://ironyard/{name}").as_str().try_into().map_err(Failure::other)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(Failure::other)?;
        let certificate = params.signed_by(&key, &authority).map_err(Failure::other)?;
        write(&format!("{name}.pem"), &certificate.pem())?;
        write(&format!("{name}.key"), &key.serialize_pem())?;
    }
    println!("wrote certificates to {}", out.display());
    Ok(())
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
