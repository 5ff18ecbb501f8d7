use std::net::IpAddr;

use ipnet::IpNet;

/// Whether the gateway may open a connection to an address. Link-local and metadata addresses never; loopback only where listed.
pub fn check(address: IpAddr, allowed: &[IpNet]) -> Result<(), String> {
    let forbidden = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some(),
    };
    if forbidden {
        return Err(format!(
            "{address} is a link-local, multicast or unspecified address; no BMC is reached there"
        ));
    }
    let listed = allowed.iter().any(|net| net.contains(&address));
    match (listed, allowed.is_empty(), address.is_loopback()) {
        (true, _, _) | (false, true, false) => Ok(()),
        (false, true, true) => Err(format!("{address} is loopback; list it in gateway.allowed_ranges to reach it")),
        (false, false, _) => Err(format!("{address} lies outside gateway.allowed_ranges")),
    }
}

/// Whether a BMC may be spoken to without encryption: everybody on the way reads its password. On loopback nobody is.
pub fn check_plaintext(address: IpAddr, allowed: &[IpNet]) -> Result<(), String> {
    if address.is_loopback() || allowed.iter().any(|net| net.contains(&address)) {
        return Ok(());
    }
    Err(format!(
        "plain http to {address} would show its password to everybody on the way: use https, or list its network in gateway.plaintext_ranges"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_addresses_are_reached() {
        let at = |text: &str| text.parse().unwrap();
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(check(at("10.1.2.3"), &nets).is_ok() && check(at("192.0.2.1"), &[]).is_ok());
        for bad in ["169.254.169.254", "0.0.0.0", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1"] {
            assert!(check(at(bad), &[]).is_err(), "{bad}");
        }
        assert!(check_plaintext(at("127.0.0.1"), &[]).is_ok() && check_plaintext(at("10.1.1.1"), &nets).is_ok());
        assert!(check_plaintext(at("10.1.1.1"), &[]).is_err() && check_plaintext(at("192.0.2.1"), &nets).is_err());
        assert!(check(at("11.0.0.1"), &nets).is_err() && check(at("127.0.0.1"), &[]).is_err() && check(at("127.0.0.1"), &nets).is_err());
    }
}
