use reqwest::Url;

use crate::{Error, Result};

/// Resolves what a BMC calls a link against its own origin; every other origin is refused.
pub(crate) fn resolve(base: &Url, link: &str) -> Result<Url> {
    if link.len() > 4096 || link.contains(|c: char| c.is_control()) {
        return Err(Error::Protocol {
            at: "a link".to_owned(),
            problem: "it is too long or has control characters".to_owned(),
        });
    }
    // `//host/path` is another host to a URL parser, and an empty id to a sloppy BMC: read it as a path.
    let link = if link.starts_with("//") {
        link.trim_start_matches('/')
            .split_once('/')
            .map_or("/", |(_, _)| link.trim_start_matches('/'))
    } else {
        link
    };
    let joined = if link.starts_with('/') || link.contains("://") {
        base.join(link)
    } else {
        base.join(&format!("/{link}"))
    };
    let url = joined.map_err(|e| Error::Protocol {
        at: "a link".to_owned(),
        problem: e.to_string(),
    })?;
    let same = url.scheme() == base.scheme()
        && url.host_str() == base.host_str()
        && url.port_or_known_default() == base.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none();
    if same {
        Ok(url)
    } else {
        Err(Error::CrossOrigin(url.host_str().unwrap_or("?").chars().take(100).collect()))
    }
}

/// What makes two links the same resource: no trailing slash, no case, no fragment.
pub(crate) fn identity(link: &str) -> String {
    link.split('#').next().unwrap_or(link).trim_end_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_origin_is_followed() {
        let base = Url::parse("https://10.0.0.1/redfish/v1/").unwrap();
        for (link, path) in [
            ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
            ("redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
            ("https://10.0.0.1/redfish/v1/x", "/redfish/v1/x"),
            ("https://10.0.0.1:443/y", "/y"),
            (
                "/redfish/v1/Chassis/1/NetworkAdapters//Ports/0",
                "/redfish/v1/Chassis/1/NetworkAdapters//Ports/0",
            ),
        ] {
            assert_eq!(resolve(&base, link).unwrap().path(), path, "{link}");
        }
        for bad in [
            "https://evil/x",
            "http://10.0.0.1/x",
            "https://10.0.0.1:444/x",
            "https://u:p@10.0.0.1/x",
            "ftp://10.0.0.1/",
            "x\n",
        ] {
            assert!(resolve(&base, bad).is_err(), "{bad}");
        }
        assert_eq!(resolve(&base, "//evil/x").unwrap().host_str(), Some("10.0.0.1"));
    }
}
