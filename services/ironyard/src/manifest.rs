//! YAML documents in metal-operator's form.

use std::collections::BTreeMap;

use base64::Engine;
use ironyard_proto::{bmc, claim, common, discovery, inventory, maintenance};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// A document, ready to be applied.
#[derive(Debug, Clone)]
pub enum Document {
    /// BMCSecret.
    Secret(bmc::SetCredentialRequest),
    /// Endpoint.
    Endpoint(discovery::Endpoint),
    /// Server.
    Server(Box<inventory::Server>),
    /// BMC.
    Bmc(bmc::Bmc),
    /// ServerClaim.
    Claim(claim::ServerClaim),
    /// ServerMaintenance.
    Maintenance(maintenance::ServerMaintenance),
}

impl Document {
    /// Order in which documents of one call are applied: what others refer to first, and servers before the BMC whose systems they
    /// name, so that discovery finds them named.
    pub fn order(&self) -> u8 {
        match self {
            Self::Secret(_) => 0,
            Self::Endpoint(_) => 1,
            Self::Server(_) => 2,
            Self::Bmc(_) => 3,
            Self::Claim(_) | Self::Maintenance(_) => 4,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default, rename = "namespace")]
    _namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NameRef {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSpec {
    mac_address: String,
    ip: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Protocol {
    #[serde(default)]
    name: String,
    #[serde(default)]
    port: i32,
    #[serde(default)]
    scheme: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    trust: String,
    #[serde(default)]
    sha256: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConsoleProtocol {
    name: String,
    port: i32,
    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    host_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BmcSpec {
    endpoint_ref: Option<NameRef>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    mac_address: String,
    bmc_secret_ref: Option<NameRef>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    console_protocol: ConsoleProtocol,
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InlineBmc {
    #[serde(default)]
    protocol: Protocol,
    address: String,
    bmc_secret_ref: Option<NameRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BootOrder {
    name: String,
    priority: i32,
    device: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BiosEntry {
    #[serde(default)]
    version: String,
    #[serde(default)]
    settings: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Taint {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    effect: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sanitization {
    minimum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServerSpec {
    #[serde(default, alias = "systemUUID")]
    uuid: String,
    #[serde(default)]
    power: String,
    bmc_ref: Option<NameRef>,
    bmc: Option<InlineBmc>,
    #[serde(default)]
    system_id: String,
    #[serde(default)]
    boot_order: Vec<BootOrder>,
    #[serde(default, rename = "BIOS", alias = "bios")]
    bios: Vec<BiosEntry>,
    #[serde(default)]
    taints: Vec<Taint>,
    #[serde(default)]
    unclaimable: bool,
    #[serde(default)]
    reclaim_policy: String,
    #[serde(default, rename = "locatorLED")]
    locator_led: bool,
    sanitization: Option<Sanitization>,
    #[serde(default)]
    in_band: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Toleration {
    #[serde(default)]
    key: String,
    #[serde(default)]
    operator: String,
    #[serde(default)]
    value: String,
    #[serde(default, rename = "effect")]
    _effect: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimSpec {
    server_ref: Option<NameRef>,
    server_selector: Option<Selector>,
    #[serde(default)]
    power: String,
    #[serde(default)]
    image: String,
    ignition_secret_ref: Option<NameRef>,
    #[serde(default)]
    tolerations: Vec<Toleration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaintenanceSpec {
    server_ref: NameRef,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    power: String,
    #[serde(default, rename = "locatorLED")]
    locator_led: bool,
}

/// Reads all documents of a YAML text; an error names the document and the field.
pub fn parse(text: &str) -> Result<Vec<Document>, String> {
    let values: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| format!("not YAML: {e}"))?;
    let mut documents = Vec::new();
    for (i, value) in values.into_iter().filter(|v| !v.is_null()).enumerate() {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or("?").to_owned();
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?").to_owned();
        documents.push(document(value).map_err(|e| format!("document {} ({kind} {name}): {e}", i + 1))?);
    }
    Ok(documents)
}

fn part<T: DeserializeOwned>(map: &mut serde_json::Map<String, Value>, key: &str) -> Result<T, String> {
    let value = map.remove(key).ok_or_else(|| format!("{key} is missing"))?;
    serde_json::from_value(value).map_err(|e| format!("{key}: {e}"))
}

fn document(value: Value) -> Result<Document, String> {
    let Value::Object(mut map) = value else {
        return Err("is not a mapping".to_owned());
    };
    let version: String = part(&mut map, "apiVersion")?;
    if !["metal.ironcore.dev/v1alpha1", "ironyard.dev/v1alpha1", "v1alpha1"].contains(&version.as_str()) {
        return Err(format!("apiVersion {version:?} is unknown: use metal.ironcore.dev/v1alpha1"));
    }
    let kind: String = part(&mut map, "kind")?;
    let head: Head = part(&mut map, "metadata")?;
    map.remove("status");
    let metadata = || common::Metadata {
        name: head.name.clone(),
        labels: head.labels.clone(),
        annotations: head.annotations.clone(),
        ..Default::default()
    };
    let document = match kind.as_str() {
        "BMCSecret" => Document::Secret(secret(&head.name, &mut map)?),
        "Endpoint" => {
            let EndpointSpec { mac_address, ip } = part(&mut map, "spec")?;
            Document::Endpoint(discovery::Endpoint {
                metadata: Some(metadata()),
                spec: Some(discovery::EndpointSpec { mac_address, ip }),
                ..Default::default()
            })
        }
        "BMC" => Document::Bmc(bmc::Bmc {
            metadata: Some(metadata()),
            spec: Some(bmc_spec(part(&mut map, "spec")?)?),
            ..Default::default()
        }),
        "Server" => Document::Server(Box::new(inventory::Server {
            metadata: Some(metadata()),
            spec: Some(server_spec(part(&mut map, "spec")?)?),
            ..Default::default()
        })),
        "ServerClaim" => Document::Claim(claim::ServerClaim {
            metadata: Some(metadata()),
            spec: Some(claim_spec(part(&mut map, "spec")?)?),
            ..Default::default()
        }),
        "ServerMaintenance" => {
            let MaintenanceSpec {
                server_ref,
                reason,
                power,
                locator_led,
            } = part(&mut map, "spec")?;
            let spec = maintenance::ServerMaintenanceSpec {
                server_ref: Some(reference(server_ref)),
                reason,
                power: power_of(&power)?.into(),
                locator_led,
            };
            Document::Maintenance(maintenance::ServerMaintenance {
                metadata: Some(metadata()),
                spec: Some(spec),
                ..Default::default()
            })
        }
        other => {
            return Err(format!(
                "kind {other:?} is unknown: use Endpoint, BMC, BMCSecret, Server, ServerClaim or ServerMaintenance"
            ));
        }
    };
    match map.keys().next() {
        Some(key) => Err(format!("unknown field {key:?}")),
        None => Ok(document),
    }
}

fn reference(name: NameRef) -> common::Reference {
    common::Reference {
        name: name.name,
        uid: String::new(),
    }
}

/// `On`, `Off` or nothing. YAML 1.1 writers may have turned the words into booleans before us; we ask for quotes then.
pub fn power_of(text: &str) -> Result<common::PowerState, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(common::PowerState::Unspecified),
        "on" => Ok(common::PowerState::On),
        "off" => Ok(common::PowerState::Off),
        _ => Err(format!("spec.power: {text:?} is not a power state: use \"On\" or \"Off\"")),
    }
}

fn secret(name: &str, map: &mut serde_json::Map<String, Value>) -> Result<bmc::SetCredentialRequest, String> {
    let data: BTreeMap<String, String> = if map.contains_key("data") {
        part(map, "data")?
    } else {
        BTreeMap::new()
    };
    let plain: BTreeMap<String, String> = if map.contains_key("stringData") {
        part(map, "stringData")?
    } else {
        BTreeMap::new()
    };
    for key in ["type", "immutable"] {
        map.remove(key);
    }
    if let Some(key) = data
        .keys()
        .chain(plain.keys())
        .find(|k| !["username", "password"].contains(&k.as_str()))
    {
        return Err(format!("data.{key}: unknown field; use username and password"));
    }
    let get = |key: &str| -> Result<String, String> {
        if let Some(text) = plain.get(key) {
            return Ok(text.clone());
        }
        let text = data.get(key).ok_or_else(|| format!("data.{key} is missing"))?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .map_err(|_| format!("data.{key} is not base64"))?;
        String::from_utf8(bytes).map_err(|_| format!("data.{key} is not text"))
    };
    Ok(bmc::SetCredentialRequest {
        name: name.to_owned(),
        username: get("username")?,
        password: get("password")?,
        replace: false,
    })
}

fn bmc_spec(spec: BmcSpec) -> Result<bmc::BmcSpec, String> {
    let BmcSpec {
        endpoint_ref,
        address,
        mac_address,
        bmc_secret_ref,
        protocol,
        console_protocol,
        tls,
    } = spec;
    let (trust, sha256) = match tls {
        None => (bmc::TlsTrust::Unspecified, String::new()),
        Some(Tls { trust, sha256 }) => match trust.as_str() {
            "ca" => (bmc::TlsTrust::Ca, sha256),
            "pin" => (bmc::TlsTrust::Pin, sha256),
            "first-use" => (bmc::TlsTrust::FirstUse, sha256),
            "insecure" => (bmc::TlsTrust::Insecure, sha256),
            other => return Err(format!("spec.tls.trust: {other:?} is unknown: use ca, pin, first-use or insecure")),
        },
    };
    Ok(bmc::BmcSpec {
        address,
        endpoint_ref: endpoint_ref.map(reference),
        credential: bmc_secret_ref.map(|r| r.name).unwrap_or_default(),
        protocol: protocol.name,
        scheme: protocol.scheme,
        port: protocol.port,
        tls_trust: trust.into(),
        certificate_sha256: sha256,
        console_protocol: console_protocol.name,
        console_port: console_protocol.port,
        console_host_key: console_protocol.host_key,
        mac_address,
    })
}

fn server_spec(spec: ServerSpec) -> Result<inventory::ServerSpec, String> {
    let reclaim = match spec.reclaim_policy.as_str() {
        "" => inventory::ReclaimPolicy::Unspecified,
        "Recycle" => inventory::ReclaimPolicy::Recycle,
        "Retain" => inventory::ReclaimPolicy::Retain,
        other => return Err(format!("spec.reclaimPolicy: {other:?} is unknown: use Recycle or Retain")),
    };
    let in_band = match spec.in_band.as_str() {
        "" => inventory::InBandPolicy::Unspecified,
        "required" => inventory::InBandPolicy::Required,
        "optional" => inventory::InBandPolicy::Optional,
        "off" => inventory::InBandPolicy::Off,
        other => return Err(format!("spec.inBand: {other:?} is unknown: use required, optional or off")),
    };
    let mut bios = Vec::new();
    for (i, BiosEntry { version, settings }) in spec.bios.into_iter().enumerate() {
        let mut texts = BTreeMap::new();
        for (name, value) in settings {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("spec.BIOS[{i}].settings.{name}: must be a text, a number or a boolean"));
                }
            };
            texts.insert(name, text);
        }
        bios.push(inventory::BiosSettings { version, settings: texts });
    }
    Ok(inventory::ServerSpec {
        system_uuid: spec.uuid,
        bmc_ref: spec.bmc_ref.map(reference),
        bmc: spec.bmc.map(
            |InlineBmc {
                 protocol,
                 address,
                 bmc_secret_ref,
             }| inventory::InlineBmc {
                protocol: protocol.name,
                scheme: protocol.scheme,
                address,
                port: protocol.port,
                credential: bmc_secret_ref.map(|r| r.name).unwrap_or_default(),
            },
        ),
        system_id: spec.system_id,
        power: power_of(&spec.power)?.into(),
        boot_order: spec
            .boot_order
            .into_iter()
            .map(|BootOrder { name, priority, device }| inventory::BootOrderEntry { name, priority, device })
            .collect(),
        bios,
        taints: spec
            .taints
            .into_iter()
            .map(|Taint { key, value, effect }| inventory::Taint { key, value, effect })
            .collect(),
        unclaimable: spec.unclaimable,
        reclaim_policy: reclaim.into(),
        locator_led: spec.locator_led,
        sanitization: spec
            .sanitization
            .map(|Sanitization { minimum }| inventory::SanitizationPolicy { minimum }),
        in_band: in_band.into(),
    })
}

fn claim_spec(spec: ClaimSpec) -> Result<claim::ServerClaimSpec, String> {
    let selector = spec.server_selector.map(
        |Selector {
             match_labels,
             match_expressions,
         }| common::LabelSelector {
            match_labels,
            match_expressions: match_expressions
                .into_iter()
                .map(|Expression { key, operator, values }| common::LabelRequirement { key, operator, values })
                .collect(),
        },
    );
    let toleration = |Toleration {
                          key,
                          operator,
                          value,
                          _effect: _,
                      }| claim::ClaimToleration { key, operator, value };
    Ok(claim::ServerClaimSpec {
        server_ref: spec.server_ref.map(reference),
        server_selector: selector,
        power: power_of(&spec.power)?.into(),
        image: spec.image,
        ignition: spec.ignition_secret_ref.map(|r| r.name).unwrap_or_default(),
        tolerations: spec.tolerations.into_iter().map(toleration).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let head = "apiVersion: v1alpha1\nkind: Server\nmetadata:\n  name: a\n";
        for (text, part) in [
            (format!("{head}spec:\n  colour: red\n"), "colour"),
            (format!("{head}spec:\n  power: Maybe\n"), "spec.power"),
            (format!("{head}spec: {{}}\nextra: 1\n"), "extra"),
            ("apiVersion: v2\nkind: Server\nmetadata:\n  name: a\n".to_owned(), "apiVersion"),
            ("apiVersion: v1alpha1\nkind: Toaster\nmetadata:\n  name: a\n".to_owned(), "Toaster"),
            (
                "apiVersion: v1alpha1\nkind: BMCSecret\nmetadata:\n  name: a\ndata:\n  username: '!'\n  password: eA==\n".to_owned(),
                "base64",
            ),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(part) && error.starts_with("document 1"), "{error}");
        }
    }
}
