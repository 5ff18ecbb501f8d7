use std::sync::Arc;

use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The inventory service.
    Inventory,
    /// The gateway.
    BmcGateway,
    /// The discovery service.
    Discovery,
    /// The claim service.
    Claim,
    /// The maintenance service.
    Maintenance,
    /// A person, or a tool in a person's name: daily work.
    Operator,
    /// The same, with what may not be taken back: waivers, deletions, credentials.
    Administrator,
    /// Nobody we know.
    Anonymous,
}

impl Role {
    fn parse(text: &str) -> Self {
        match text {
            "inventory" => Self::Inventory,
            "bmc-gateway" => Self::BmcGateway,
            "discovery" => Self::Discovery,
            "claim" => Self::Claim,
            "maintenance" => Self::Maintenance,
            _ => match text.split_once('/').map_or(text, |(role, _)| role) {
                "operator" => Self::Operator,
                "administrator" => Self::Administrator,
                _ => Self::Anonymous,
            },
        }
    }
}

/// Who calls: what a verified client certificate says, or a process on this machine where plaintext loopback is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What.
    pub role: Role,
    /// Who, for histories.
    pub name: String,
    /// Plaintext loopback (`demo` and `up`): may call everything.
    pub local: bool,
}

tokio::task_local! {
    static CALLER: Arc<str>;
}

/// Who is being served: the name of the caller whose call this task answers; empty in work that nobody waits for.
pub fn caller() -> Arc<str> {
    CALLER.try_with(Arc::clone).unwrap_or_else(|_| "".into())
}

/// Does some work for a caller.
pub fn serving<F: Future>(name: &str, work: F) -> impl Future<Output = F::Output> + use<F> {
    CALLER.scope(name.into(), work)
}

impl Identity {
    /// A process on this machine.
    pub fn local() -> Self {
        Self {
            role: Role::Operator,
            name: "local".to_owned(),
            local: true,
        }
    }

    fn anonymous() -> Self {
        Self {
            role: Role::Anonymous,
            name: "anonymous".to_owned(),
            local: false,
        }
    }

    /// From the connection. The certificate's URI name is `spiffe://ironyard/<role>[/<name>]`.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        let certificates = extensions
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs);
        let Some(leaf) = certificates.as_ref().and_then(|c| c.first()) else {
            return Self::anonymous();
        };
        let Ok((_, certificate)) = X509Certificate::from_der(leaf.as_ref()) else {
            return Self::anonymous();
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let uri = names.and_then(|n| {
            n.value.general_names.iter().find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("spiffe://ironyard/").map(str::to_owned),
                _ => None,
            })
        });
        match uri {
            Some(path) => Self {
                role: Role::parse(&path),
                name: path,
                local: false,
            },
            None => Self::anonymous(),
        }
    }
}
