//! YAML documents in metal-operator's form.

mod yaml;

use std::collections::BTreeMap;

use base64::Engine;
use ironyard_proto::{bmc, claim, common, discovery, inventory, maintenance};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny},
};
use serde_json::Value;
use yaml::{Yaml, split};

/// A document, ready to be applied.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it describes.
    pub resource: Resource,
    /// Fields of the spec that its text names, as update masks call them: what it does not name, it leaves alone.
    pub names: Vec<String>,
}

/// What a document describes.
#[derive(Debug, Clone)]
pub enum Resource {
    /// BMCSecret.
    Secret(bmc::SetCredentialRequest),
    /// Endpoint.
    Endpoint(discovery::Endpoint),
    /// Server.
    Server(Box<inventory::Server>),
    /// BMC.
    Bmc(Box<bmc::Bmc>),
    /// ServerClaim.
    Claim(claim::ServerClaim),
    /// ServerMaintenance.
    Maintenance(maintenance::ServerMaintenance),
}

impl Document {
    /// Order in which documents of one call are applied: what others refer to first, and servers before the BMC whose systems they
    /// name, so that discovery finds them named.
    pub fn order(&self) -> u8 {
        match self.resource {
            Resource::Secret(_) => 0,
            Resource::Endpoint(_) => 1,
            Resource::Server(_) => 2,
            Resource::Bmc(_) => 3,
            Resource::Claim(_) | Resource::Maintenance(_) => 4,
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
    #[serde(default)]
    allow: Vec<String>,
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
    #[serde(default)]
    running_machines: String,
    #[serde(default)]
    first_wipe: String,
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
    #[serde(default, deserialize_with = "word")]
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
    #[serde(default)]
    running_machines: String,
    #[serde(default)]
    first_wipe: String,
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
    #[serde(default, deserialize_with = "word")]
    power: String,
    #[serde(default)]
    image: String,
    ignition_secret_ref: Option<NameRef>,
    #[serde(default)]
    tolerations: Vec<Toleration>,
    #[serde(default)]
    adopt: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaintenanceSpec {
    server_ref: NameRef,
    #[serde(default)]
    reason: String,
    #[serde(default, deserialize_with = "word")]
    power: String,
    #[serde(default, rename = "locatorLED")]
    locator_led: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest<S> {
    #[serde(rename = "apiVersion")]
    _version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Head,
    spec: S,
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Secret {
    #[serde(rename = "apiVersion")]
    _version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Head,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    /// Ours: networks whose BMCs it is for.
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default, rename = "type")]
    _type: Option<IgnoredAny>,
    #[serde(default, rename = "immutable")]
    _immutable: Option<IgnoredAny>,
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// A word that YAML may take for a boolean: `On` is true to YAML 1.1, and `On` to people.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Flag(bool),
        Text(String),
    }
    Ok(match Word::deserialize(from).map_err(|_| D::Error::custom("use On or Off"))? {
        Word::Flag(true) => "On".to_owned(),
        Word::Flag(false) => "Off".to_owned(),
        Word::Text(text) => text,
    })
}

/// Reads all documents of a YAML text; an error names the document, the line and the field.
pub fn parse(text: &str) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    for yaml in split(text) {
        let value: Value = serde_saphyr::from_str(&yaml.text).map_err(|e| format!("not YAML: {}", yaml.told("", &e)))?;
        if value.is_null() {
            continue;
        }
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or("?").to_owned();
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?").to_owned();
        let number = documents.len() + 1;
        documents.push(document(&value, &yaml).map_err(|e| format!("document {number} ({kind} {name}): {e}"))?);
    }
    Ok(documents)
}

fn document(value: &Value, yaml: &Yaml) -> Result<Document, String> {
    let Value::Object(map) = value else {
        return Err("is not a mapping".to_owned());
    };
    let text = |key: &str| match map.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(format!("{key}: is not a text")),
        None => Err(format!("{key} is missing")),
    };
    let version = text("apiVersion")?;
    if !["metal.ironcore.dev/v1alpha1", "ironyard.dev/v1alpha1", "v1alpha1"].contains(&version) {
        return Err(format!("apiVersion {version:?} is unknown: use metal.ironcore.dev/v1alpha1"));
    }
    let kind = text("kind")?;
    let resource = match kind {
        "BMCSecret" => Resource::Secret(secret(yaml.read()?)?),
        "Endpoint" => {
            let Manifest { metadata, spec, .. } = yaml.read::<Manifest<EndpointSpec>>()?;
            let EndpointSpec { mac_address, ip } = spec;
            Resource::Endpoint(discovery::Endpoint {
                metadata: Some(metadata_of(metadata)),
                spec: Some(discovery::EndpointSpec { mac_address, ip }),
                ..Default::default()
            })
        }
        "BMC" => {
            let Manifest { metadata, spec, .. } = yaml.read()?;
            Resource::Bmc(Box::new(bmc::Bmc {
                metadata: Some(metadata_of(metadata)),
                spec: Some(bmc_spec(spec)?),
                ..Default::default()
            }))
        }
        "Server" => {
            let Manifest { metadata, spec, .. } = yaml.read()?;
            Resource::Server(Box::new(inventory::Server {
                metadata: Some(metadata_of(metadata)),
                spec: Some(server_spec(spec)?),
                ..Default::default()
            }))
        }
        "ServerClaim" => {
            let Manifest { metadata, spec, .. } = yaml.read()?;
            Resource::Claim(claim::ServerClaim {
                metadata: Some(metadata_of(metadata)),
                spec: Some(claim_spec(spec)?),
                ..Default::default()
            })
        }
        "ServerMaintenance" => {
            let Manifest { metadata, spec, .. } = yaml.read::<Manifest<MaintenanceSpec>>()?;
            let MaintenanceSpec {
                server_ref,
                reason,
                power,
                locator_led,
            } = spec;
            let spec = maintenance::ServerMaintenanceSpec {
                server_ref: Some(reference(server_ref)),
                reason,
                power: power_of(&power)?.into(),
                locator_led,
            };
            Resource::Maintenance(maintenance::ServerMaintenance {
                metadata: Some(metadata_of(metadata)),
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
    let names = map.get("spec").map(|spec| named(kind, spec)).unwrap_or_default();
    Ok(Document { resource, names })
}

fn metadata_of(head: Head) -> common::Metadata {
    common::Metadata {
        name: head.name,
        labels: head.labels,
        annotations: head.annotations,
        ..Default::default()
    }
}

/// What update masks call the fields that a spec names.
fn named(kind: &str, spec: &Value) -> Vec<String> {
    let Value::Object(spec) = spec else { return vec![] };
    let mut names = Vec::new();
    for (key, value) in spec {
        let within = |keys: &[(&'static str, &'static str)]| -> Vec<&'static str> {
            let there = keys.iter().filter(|(key, _)| value.get(key).is_some());
            there.map(|(_, name)| *name).collect()
        };
        let fields: Vec<&str> = match (kind, key.as_str()) {
            ("BMC", "protocol") => within(&[("scheme", "scheme"), ("port", "port")]),
            ("BMC", "consoleProtocol") => within(&[
                ("name", "console_protocol"),
                ("port", "console_port"),
                ("hostKey", "console_host_key"),
            ]),
            ("BMC", "tls") => vec!["tls_trust", "certificate_sha256", "tls_weaknesses"],
            ("BMC", "bmcSecretRef") => vec!["credential"],
            ("ServerClaim", "ignitionSecretRef") => vec!["ignition"],
            ("Server", "uuid" | "systemUUID") => vec!["system_uuid"],
            ("Server", "BIOS") => vec!["bios"],
            (_, "locatorLED") => vec!["locator_led"],
            (_, key) => {
                names.push(format!("spec.{}", snake(key)));
                continue;
            }
        };
        names.extend(fields.iter().map(|field| format!("spec.{field}")));
    }
    names.sort();
    names
}

fn snake(key: &str) -> String {
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn reference(name: NameRef) -> common::Reference {
    common::Reference {
        name: name.name,
        uid: String::new(),
    }
}

/// `On`, `Off` or nothing.
pub fn power_of(text: &str) -> Result<common::PowerState, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(common::PowerState::Unspecified),
        "on" => Ok(common::PowerState::On),
        "off" => Ok(common::PowerState::Off),
        _ => Err(format!("spec.power: {text:?} is not a power state: use \"On\" or \"Off\"")),
    }
}

/// `wait`, `wipe`, `waive` or nothing.
fn first_wipe_of(text: &str) -> Result<common::FirstWipe, String> {
    match text {
        "" => Ok(common::FirstWipe::Unspecified),
        "wait" => Ok(common::FirstWipe::Wait),
        "wipe" => Ok(common::FirstWipe::Wipe),
        "waive" => Ok(common::FirstWipe::Waive),
        other => Err(format!("spec.firstWipe: {other:?} is unknown: use wait, wipe or waive")),
    }
}

/// `wait`, `adopt`, `powerOff` or nothing.
fn running_machines_of(text: &str) -> Result<common::RunningMachines, String> {
    match text {
        "" => Ok(common::RunningMachines::Unspecified),
        "wait" => Ok(common::RunningMachines::Wait),
        "adopt" => Ok(common::RunningMachines::Adopt),
        "powerOff" => Ok(common::RunningMachines::PowerOff),
        other => Err(format!("spec.runningMachines: {other:?} is unknown: use wait, adopt or powerOff")),
    }
}

fn secret(secret: Secret) -> Result<bmc::SetCredentialRequest, String> {
    let Secret {
        metadata: Head { name, .. },
        data,
        string_data: plain,
        networks,
        ..
    } = secret;
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
        username: get("username")?,
        password: get("password")?,
        name,
        networks,
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
        running_machines,
        first_wipe,
    } = spec;
    let (mut trust, mut sha256, mut tls_weaknesses) = (bmc::TlsTrust::Unspecified, String::new(), vec![]);
    if let Some(tls) = tls {
        trust = match tls.trust.as_str() {
            "ca" => bmc::TlsTrust::Ca,
            "pin" => bmc::TlsTrust::Pin,
            "first-use" => bmc::TlsTrust::FirstUse,
            "insecure" => bmc::TlsTrust::Insecure,
            other => return Err(format!("spec.tls.trust: {other:?} is unknown: use ca, pin, first-use or insecure")),
        };
        sha256 = tls.sha256;
        for weakness in &tls.allow {
            let weakness = match weakness.as_str() {
                "rsa1024" => bmc::TlsWeakness::Rsa1024,
                "x509v1" => bmc::TlsWeakness::X509V1,
                other => return Err(format!("spec.tls.allow: {other:?} is unknown: use rsa1024 or x509v1")),
            };
            tls_weaknesses.push(weakness.into());
        }
    }
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
        running_machines: running_machines_of(&running_machines)?.into(),
        first_wipe: first_wipe_of(&first_wipe)?.into(),
        tls_weaknesses,
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
        running_machines: running_machines_of(&spec.running_machines)?.into(),
        first_wipe: first_wipe_of(&spec.first_wipe)?.into(),
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
        adopt: spec.adopt,
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

    #[test]
    fn a_mistake_is_named_with_its_line_and_field() {
        let text = "# two of them\n---\napiVersion: v1alpha1\nkind: Endpoint\nmetadata:\n  name: a\nspec:\n  macAddress: a\n  ip: b\n---\n\
            apiVersion: v1alpha1\nkind: Server\nmetadata:\n  name: b\nspec:\n  bootOrder:\n    - name: disk\n      priority: first\n";
        let error = parse(text).unwrap_err();
        assert!(
            error.contains("document 2 (Server b): line 18: spec.bootOrder[0].priority: "),
            "{error}"
        );
    }

    #[test]
    fn documents_are_told_apart() {
        let one = "{apiVersion: v1alpha1, kind: Server, metadata: {name: a}, spec: {}}";
        for (text, count) in [
            (format!("--- {one}\n"), 1),
            (format!("%YAML 1.2\n---\n{one}\n"), 1),
            (format!("---\n---\n{one}\n---\n# nothing\n"), 1),
            (format!("{one}\n---\t# another\n{one}\n"), 2),
            (format!("{one}\n...\n{one}\n...\n"), 2),
            (format!("{one}\r\n---\r\n{one}\r\n"), 2),
            (String::new(), 0),
        ] {
            assert_eq!(parse(&text).map(|d| d.len()), Ok(count), "{text:?}");
        }
    }

    #[test]
    fn a_word_is_taken_as_people_mean_it() {
        let head = "apiVersion: v1alpha1\nkind: Server\nmetadata:\n  name: a\nspec:\n";
        for (power, state) in [
            ("On", common::PowerState::On),
            ("off", common::PowerState::Off),
            ("true", common::PowerState::On),
            ("\"Off\"", common::PowerState::Off),
        ] {
            let documents = parse(&format!("{head}  power: {power}\n")).unwrap();
            let Resource::Server(server) = &documents[0].resource else {
                panic!()
            };
            assert_eq!(server.spec.as_ref().unwrap().power(), state, "{power}");
            assert_eq!(documents[0].names, ["spec.power"]);
        }
        let error = parse(&format!("{head}  power: [1]\n")).unwrap_err();
        assert!(error.contains("line 6: spec.power: use On or Off"), "{error}");
    }

    #[test]
    fn a_document_names_what_its_text_names() {
        let names = |kind: &str, spec: &str| {
            let text = format!("apiVersion: v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
            parse(&text).unwrap().remove(0).names
        };
        assert!(names("Server", "{}").is_empty());
        assert_eq!(
            names(
                "Server",
                "{unclaimable: false, systemUUID: x, BIOS: [], locatorLED: true, bootOrder: []}"
            ),
            [
                "spec.bios",
                "spec.boot_order",
                "spec.locator_led",
                "spec.system_uuid",
                "spec.unclaimable"
            ]
        );
        assert_eq!(
            names(
                "BMC",
                "{address: a, protocol: {name: Redfish, port: 1}, tls: {trust: ca}, bmcSecretRef: {name: s}, consoleProtocol: {name: SSH}}"
            ),
            [
                "spec.address",
                "spec.certificate_sha256",
                "spec.console_protocol",
                "spec.credential",
                "spec.port",
                "spec.tls_trust",
                "spec.tls_weaknesses"
            ]
        );
        assert_eq!(
            names("ServerClaim", "{ignitionSecretRef: {name: i}, serverRef: {name: a}}"),
            ["spec.ignition", "spec.server_ref"]
        );
    }
}
