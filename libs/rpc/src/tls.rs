use std::path::PathBuf;

use serde::Deserialize;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// Certificates of a server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// File with the authorities that sign callers, PEM.
    pub client_ca: PathBuf,
    /// File with our own certificate, PEM.
    pub certificate: PathBuf,
    /// File with its key, PEM.
    pub key: PathBuf,
}

impl TlsConfig {
    /// Callers may come without a certificate (the agent does); the authorisation table decides what they may do then.
    pub(crate) fn load(&self) -> Result<ServerTlsConfig, (PathBuf, std::io::Error)> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| (path.clone(), e));
        Ok(ServerTlsConfig::new()
            .identity(Identity::from_pem(read(&self.certificate)?, read(&self.key)?))
            .client_ca_root(Certificate::from_pem(read(&self.client_ca)?))
            .client_auth_optional(true))
    }
}
