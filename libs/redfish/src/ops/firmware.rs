//! Firmware: what is installed, and how it is replaced.

use serde_json::{Map, json};

use super::{power::allowable, tasks};
use crate::{Client, Doc, Error, Members, Result};

/// One thing that runs firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Component {
    /// Id within the BMC.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Whether the BMC can replace it; absent when it does not say.
    pub updateable: Option<bool>,
    /// What it belongs to.
    pub related: Vec<String>,
    /// Path.
    pub uri: String,
}

/// What is installed, as far as it can be read, and what cannot be read.
pub async fn inventory(client: &Client) -> Result<(Vec<Component>, Vec<String>)> {
    let service = service(client).await?;
    let link = service
        .link("FirmwareInventory")
        .ok_or_else(|| Error::Unsupported("a firmware inventory".to_owned()))?;
    client.get(&link).await?;
    let members = Members::new(client);
    let docs = members.of(&link).await;
    Ok((docs.iter().map(component).collect(), members.unreadable()))
}

/// Drivers, agents and operating systems that the BMC knows of, as `inventory`; none where it keeps no such list. They come and go with the
/// host, and say nothing of an update.
pub async fn software(client: &Client) -> Result<(Vec<Component>, Vec<String>)> {
    let Some(link) = service(client).await?.link("SoftwareInventory") else {
        return Ok((vec![], vec![]));
    };
    let members = Members::new(client);
    let docs = members.of(&link).await;
    Ok((docs.iter().map(component).collect(), members.unreadable()))
}

fn component(doc: &Doc) -> Component {
    Component {
        id: doc.id(),
        name: doc.text("Name").unwrap_or_else(|| doc.id()),
        version: doc.text_or_empty("Version"),
        updateable: doc.boolean("Updateable"),
        related: doc.links("RelatedItem"),
        uri: doc.id_path(),
    }
}

async fn service(client: &Client) -> Result<Doc> {
    let root = client.root().await?;
    let link = root
        .link("UpdateService")
        .ok_or_else(|| Error::Unsupported("firmware updates".to_owned()))?;
    client.get(&link).await
}

/// How a BMC takes firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    /// Where SimpleUpdate is asked for, and the protocols that it fetches with (empty: it does not say).
    pub simple: Option<(String, Vec<String>)>,
    /// Where a form is pushed.
    pub multipart: Option<String>,
    /// Where a bare file is pushed.
    pub raw: Option<String>,
    /// Most bytes that are taken.
    pub max_bytes: Option<u64>,
    /// Path of the service.
    pub service: String,
    /// Whether a push has to be announced.
    pub announce: bool,
    /// The action that starts what was pushed, where it does not start by itself.
    pub start: Option<String>,
}

/// Reads how the BMC takes firmware.
pub async fn ways(client: &Client) -> Result<Ways> {
    let doc = service(client).await?;
    if doc.boolean("ServiceEnabled") == Some(false) {
        return Err(Error::Unsupported("firmware updates: its update service is disabled".to_owned()));
    }
    let simple = match doc.action("#UpdateService.SimpleUpdate") {
        Some(action) => {
            let protocols = allowable(client, &action, "TransferProtocol").await;
            action.text("target").map(|target| (target, protocols))
        }
        None => None,
    };
    Ok(Ways {
        simple,
        multipart: doc.text("MultipartHttpPushUri"),
        // HPE's form endpoint outside of the tree wants a cookie and other fields; it is no raw push.
        raw: doc.text("HttpPushUri").filter(|uri| !uri.contains("cgi-bin")),
        max_bytes: doc
            .integer::<i64>("MaxImageSizeBytes")
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0),
        announce: doc.boolean("HttpPushUriTargetsBusy").is_some(),
        start: doc.action("#UpdateService.StartUpdate").and_then(|a| a.text("target")),
        service: doc.uri,
    })
}

/// When the firmware is to be applied: `Immediate`, `OnReset` or empty for the BMC's default.
pub type ApplyTime<'a> = &'a str;

/// Tells the BMC to fetch an image; the task to follow, if it began one.
pub async fn simple_update(client: &Client, image: &str, targets: &[String], apply: ApplyTime<'_>) -> Result<Option<tasks::Handle>> {
    let ways = ways(client).await?;
    let (target, protocols) = ways
        .simple
        .ok_or_else(|| Error::Unsupported("UpdateService.SimpleUpdate; push the image instead".to_owned()))?;
    let protocol = image.split(':').next().unwrap_or_default().to_ascii_uppercase();
    if !protocols.is_empty() && !protocols.contains(&protocol) {
        return Err(Error::Unsupported(format!(
            "{protocol} transfers; it fetches with {}",
            protocols.join(", ")
        )));
    }
    let mut short = json!({"ImageURI": image});
    if !targets.is_empty() {
        short["Targets"] = json!(targets);
    }
    let mut full = short.clone();
    full["TransferProtocol"] = json!(protocol);
    if !apply.is_empty() {
        short["@Redfish.OperationApplyTime"] = json!(apply);
        full["@Redfish.OperationApplyTime"] = json!(apply);
    }
    let mut last = Error::Unsupported("UpdateService.SimpleUpdate".to_owned());
    for body in [full, short] {
        match client.post(&target, &body).await {
            Ok(reply) => return Ok(tasks::begun(&reply)),
            Err(error) if error.is_refusal() => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// An image on this side.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where the file is.
    pub path: std::path::PathBuf,
    /// Its name, as some BMCs want to see it.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

impl Image {
    async fn open(&self) -> Result<reqwest::Body> {
        let file = tokio::fs::File::open(&self.path).await.map_err(|e| Error::Image(e.to_string()))?;
        Ok(reqwest::Body::from(file))
    }
}

/// Sends the BMC an image; the task to follow, if it began one.
pub async fn push(client: &Client, image: &Image, targets: &[String], apply: ApplyTime<'_>) -> Result<Option<tasks::Handle>> {
    let ways = ways(client).await?;
    if let Some(most) = ways.max_bytes
        && image.bytes > most
    {
        return Err(Error::Unsupported(format!("images of {} bytes; it takes {most}", image.bytes)));
    }
    if ways.announce {
        super::change(client, &ways.service, &json!({"HttpPushUriTargetsBusy": true})).await?;
    }
    let outcome = push_by(client, &ways, image, targets, apply).await;
    if ways.announce
        && let Err(error) = super::change(client, &ways.service, &json!({"HttpPushUriTargetsBusy": false})).await
    {
        tracing::debug!(%error, "could not end the announcement of a push");
    }
    outcome
}

async fn push_by(client: &Client, ways: &Ways, image: &Image, targets: &[String], apply: ApplyTime<'_>) -> Result<Option<tasks::Handle>> {
    let reply = match (&ways.multipart, &ways.raw) {
        (Some(uri), _) => {
            let mut parameters = Map::new();
            parameters.insert("Targets".to_owned(), json!(targets));
            if !apply.is_empty() {
                parameters.insert("@Redfish.OperationApplyTime".to_owned(), json!(apply));
            }
            let wrong = |e: reqwest::Error| Error::Image(e.without_url().to_string());
            let parameters = reqwest::multipart::Part::text(serde_json::Value::Object(parameters).to_string())
                .mime_str("application/json")
                .map_err(wrong)?;
            // With its length: some BMCs fail on chunks.
            let file = reqwest::multipart::Part::stream_with_length(image.open().await?, image.bytes)
                .file_name(image.name.clone())
                .mime_str("application/octet-stream")
                .map_err(wrong)?;
            let form = reqwest::multipart::Form::new()
                .part("UpdateParameters", parameters)
                .part("UpdateFile", file);
            client.post_form(uri, form, image.bytes).await?
        }
        (None, Some(uri)) => client.post_file(uri, image.open().await?, image.bytes).await?,
        (None, None) => return Err(Error::Unsupported("pushed images; give an image URI instead".to_owned())),
    };
    let begun = tasks::begun(&reply);
    match (&begun, &ways.start) {
        // The image is there, and may be used: that is no request that never arrived.
        (None, Some(start)) => match client.post(start, &json!({})).await {
            Ok(reply) => Ok(tasks::begun(&reply)),
            Err(error) => Err(Error::Lost(format!("the image was sent, and starting the update failed: {error}"))),
        },
        _ => Ok(begun),
    }
}
