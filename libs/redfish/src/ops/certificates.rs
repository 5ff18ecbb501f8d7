//! The certificate that the BMC shows.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{tasks, topology};
use crate::{Client, Doc, Error, Members, Reply, Result};

/// Who a certificate is for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Common name.
    pub common_name: String,
    /// Alternative names.
    pub alternative_names: Vec<String>,
    /// Organisation.
    pub organization: String,
    /// Organisational unit.
    pub organizational_unit: String,
    /// Locality.
    pub city: String,
    /// State or province.
    pub state: String,
    /// Country, two letters.
    pub country: String,
}

/// The place of the HTTPS certificate, and the certificates there.
pub async fn present(client: &Client) -> Result<(String, Vec<Doc>)> {
    let root = client.root().await?;
    let unsupported = || Error::Unsupported("certificates".to_owned());
    let manager = topology::manager(client, &root, None).await?;
    let protocol = client.get(&manager.link("NetworkProtocol").ok_or_else(unsupported)?).await?;
    let link = protocol.part("HTTPS").link("Certificates").ok_or_else(unsupported)?;
    let members = Members::new(client);
    Ok((link.clone(), members.of(&link).await))
}

async fn action(client: &Client, name: &str) -> Result<String> {
    let root = client.root().await?;
    let unsupported = || Error::Unsupported(name.to_owned());
    let service = client.get(&root.link("CertificateService").ok_or_else(unsupported)?).await?;
    let action = service.action(&format!("#CertificateService.{name}"));
    action.and_then(|a| a.text("target")).ok_or_else(unsupported)
}

/// A request to sign a certificate: the text of it, or the task that makes it.
pub enum Csr {
    /// PEM.
    Ready(String),
    /// It is being made.
    Task(tasks::Handle),
}

/// Asks for a request to sign a certificate.
pub async fn generate_csr(client: &Client, subject: &Subject) -> Result<Csr> {
    let target = action(client, "GenerateCSR").await?;
    let (collection, _) = present(client).await?;
    let mut body = json!({
        "CommonName": subject.common_name, "AlternativeNames": subject.alternative_names, "Organization": subject.organization,
        "OrganizationalUnit": subject.organizational_unit, "City": subject.city, "State": subject.state, "Country": subject.country,
        "CertificateCollection": {"@odata.id": collection},
    });
    if let Value::Object(map) = &mut body {
        map.retain(|_, v| v.as_str() != Some("") && v.as_array().is_none_or(|a| !a.is_empty()));
    }
    let reply = client.post(&target, &body).await?;
    match (csr_of(&reply), tasks::begun(&reply)) {
        (Some(text), _) => Ok(Csr::Ready(text)),
        (None, Some(task)) => Ok(Csr::Task(task)),
        (None, None) => Err(Error::Protocol {
            at: target,
            problem: "it answered without a request to sign".to_owned(),
        }),
    }
}

/// The text of the request, from an answer.
pub fn csr_of(reply: &Reply) -> Option<String> {
    // Not `text`: line ends are part of it.
    let text = reply.doc.value.get("CSRString")?.as_str()?;
    text.contains("BEGIN CERTIFICATE REQUEST")
        .then(|| text.chars().take(16 << 10).collect())
}

/// Replaces the HTTPS certificate; the task to follow, if the BMC began one.
pub async fn replace(client: &Client, pem: &str) -> Result<Option<tasks::Handle>> {
    let target = action(client, "ReplaceCertificate").await?;
    let (_, present) = present(client).await?;
    let place = present
        .first()
        .map(Doc::id_path)
        .ok_or_else(|| Error::Unsupported("a certificate to replace".to_owned()))?;
    let body = json!({"CertificateString": pem, "CertificateType": "PEM", "CertificateUri": {"@odata.id": place}});
    client.post(&target, &body).await.map(|reply| tasks::begun(&reply))
}
