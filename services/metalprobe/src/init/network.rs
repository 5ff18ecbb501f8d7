//! Every interface is brought up; each that has a link asks for an address. IPv6 addresses come from the router, by the kernel.

use std::{collections::HashSet, net::Ipv4Addr, path::Path, time::Duration};

use futures_util::TryStreamExt;
use ironyard_types::MacAddress;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::dhcp::{self, Lease};

/// How often it looks for interfaces, and for a link.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

fn text(interface: &str, file: &str) -> String {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/{file}"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Takes care of all interfaces, for ever.
pub(super) async fn run() {
    let handle = match rtnetlink::new_connection() {
        Ok((connection, handle, _)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => {
            say!("metalprobe: the network cannot be set up: {error}");
            return;
        }
    };
    let mut known = HashSet::new();
    loop {
        for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let loopback = name == "lo";
            if (loopback || Path::new(&format!("/sys/class/net/{name}/device")).exists()) && known.insert(name.clone()) {
                tokio::spawn(one(handle.clone(), name));
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Takes care of one interface, for ever.
async fn one(handle: Handle, name: String) {
    let Ok(index) = text(&name, "ifindex").parse::<u32>() else { return };
    let up = || handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute();
    while let Err(error) = up().await {
        say!("metalprobe: {name} cannot be brought up: {error}");
        tokio::time::sleep(LOOK_AGAIN * 20).await;
    }
    let Ok(mac) = MacAddress::parse(&text(&name, "address")) else {
        return;
    };
    if name == "lo" {
        return;
    }
    loop {
        // A link takes seconds to come, and some never do.
        if text(&name, "carrier") == "1" {
            match dhcp::lease(&name, mac).await {
                Ok(lease) => keep(&handle, index, &name, mac, lease).await,
                Err(error) => say!("metalprobe: {name}: no address by DHCP: {error}"),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Uses an address for as long as it is renewed.
async fn keep(handle: &Handle, index: u32, name: &str, mac: MacAddress, mut lease: Lease) {
    say!(
        "metalprobe: {name} ({mac}) has address {}/{}{}",
        lease.address,
        lease.prefix,
        lease.router.map(|router| format!(", router {router}")).unwrap_or_default()
    );
    if let Err(error) = set(handle, index, &lease).await {
        say!("metalprobe: {name}: {error}");
    }
    let servers: String = lease.name_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !servers.is_empty() {
        let _ = std::fs::write("/etc/resolv.conf", servers);
    }
    let mut until = tokio::time::Instant::now() + lease.holds;
    let mut wait = lease.holds / 2;
    while tokio::time::Instant::now() + Duration::from_secs(1) < until {
        tokio::time::sleep(wait.min(until.saturating_duration_since(tokio::time::Instant::now()))).await;
        match dhcp::renew(name, mac, &lease).await {
            Ok(Some(renewed)) => {
                (until, wait) = (tokio::time::Instant::now() + renewed.holds, renewed.holds / 2);
                lease = renewed;
            }
            Ok(None) | Err(_) => wait = (until.saturating_duration_since(tokio::time::Instant::now()) / 2).max(Duration::from_secs(1)),
        }
    }
    say!("metalprobe: {name}: address {} is not renewed", lease.address);
    if let Err(error) = unset(handle, index, lease.address).await {
        say!("metalprobe: {name}: {error}");
    }
}

async fn set(handle: &Handle, index: u32, lease: &Lease) -> Result<(), rtnetlink::Error> {
    handle.address().add(index, lease.address.into(), lease.prefix).execute().await?;
    let Some(router) = lease.router else { return Ok(()) };
    // Of several interfaces the first one leads to the rest of the world.
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(router)
        .output_interface(index)
        .priority(100 + index);
    handle.route().add(route.build()).replace().execute().await
}

async fn unset(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<(), rtnetlink::Error> {
    let mut all = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .set_address_filter(address.into())
        .execute();
    while let Some(address) = all.try_next().await? {
        handle.address().del(address).execute().await?;
    }
    Ok(())
}
