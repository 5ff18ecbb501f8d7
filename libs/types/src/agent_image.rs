//! What the agent's image and whoever serves it agree on: a window in the image that holds the configuration of one run.
//!
//! In the image as it is built, the window holds [`MARKER`] and line feeds. It is overwritten while the image is served, so a BMC, which
//! shows the address of its medium to everyone who may read it, does not show what is inside.

use serde::{Deserialize, Serialize};

use crate::{Invalid, Secret, Timestamp};

/// How the window begins, in the image and as it is served.
pub const MARKER: &[u8; 32] = b"IRONYARD-AGENT-CONFIGURATION-V1\n";
/// Bytes in the window, with the marker.
pub const WINDOW: usize = 8192;

/// What an agent needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfiguration {
    /// Address of the discovery service.
    pub discovery: String,
    /// The run's one-time token.
    pub token: Secret<String>,
    /// Authorities that sign discovery's certificate, PEM; empty where it has none.
    pub authority: String,
    /// When the run began: a machine whose clock is behind that was never told the time.
    pub begun: Timestamp,
}

/// The same, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    discovery: String,
    token: String,
    authority: String,
    #[serde(default)]
    begun: Timestamp,
}

impl AgentConfiguration {
    /// The window that holds it.
    pub fn window(&self) -> Result<Vec<u8>, Invalid> {
        let written = Written {
            discovery: self.discovery.clone(),
            token: self.token.expose().clone(),
            authority: self.authority.clone(),
            begun: self.begun,
        };
        let body = serde_json::to_vec(&written).map_err(|e| Invalid(format!("the agent's configuration cannot be written: {e}")))?;
        let mut window = MARKER.to_vec();
        window.extend_from_slice(&body);
        if window.len() > WINDOW {
            return Err(Invalid(format!(
                "the agent's configuration has {} bytes, and its image has room for {WINDOW}: give fewer authorities",
                window.len()
            )));
        }
        window.resize(WINDOW, b'\n');
        Ok(window)
    }

    /// Reads a window, as an agent finds it.
    pub fn from_window(window: &[u8]) -> Result<Self, Invalid> {
        let body = window
            .strip_prefix(MARKER)
            .ok_or_else(|| Invalid::new("the agent's configuration does not begin with its marker"))?;
        if body.trim_ascii().is_empty() {
            return Err(Invalid::new(
                "the agent's configuration is empty: the image was not served for a run that waits for its agent",
            ));
        }
        let written: Written =
            serde_json::from_slice(body.trim_ascii()).map_err(|e| Invalid(format!("the agent's configuration cannot be read: {e}")))?;
        Ok(Self {
            discovery: written.discovery,
            token: Secret::new(written.token),
            authority: written.authority,
            begun: written.begun,
        })
    }

    /// A window without configuration, as an image is built.
    pub fn empty_window() -> Vec<u8> {
        let mut window = MARKER.to_vec();
        window.resize(WINDOW, b'\n');
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_written_and_read() {
        let configuration = AgentConfiguration {
            discovery: "https://d:7700".into(),
            token: Secret::new("t0k3n".to_owned()),
            authority: "-----BEGIN CERTIFICATE-----\nx\n".into(),
            begun: Timestamp(1_764_374_400_000_000),
        };
        let window = configuration.window().unwrap();
        assert_eq!(
            (window.len(), AgentConfiguration::from_window(&window)),
            (WINDOW, Ok(configuration.clone()))
        );
        let large = AgentConfiguration {
            authority: "x".repeat(WINDOW),
            ..configuration
        };
        assert!(large.window().is_err());
        for unusable in [&b""[..], b"{}", MARKER, &AgentConfiguration::empty_window(), &[0; WINDOW]] {
            assert!(AgentConfiguration::from_window(unusable).is_err());
        }
    }
}
