//! Events: hints that something changed. What they say is never taken as the truth; it is read again.

use serde_json::{Value, json};

use crate::{Client, Doc, Error, Members, Result};

/// What a BMC offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Where events can be streamed from.
    pub sse: Option<String>,
    /// Where subscriptions are made.
    pub subscriptions: Option<String>,
    /// Whether it is an old one that wants to be told types.
    pub event_types: Vec<String>,
    /// Whether the service runs.
    pub enabled: bool,
}

/// Reads what is offered.
pub async fn offer(client: &Client) -> Result<Offer> {
    let root = client.root().await?;
    let link = root.link("EventService").ok_or_else(|| Error::Unsupported("events".to_owned()))?;
    let service = client.get(&link).await?;
    // New services have formats; only those without know nothing but types.
    let modern = !service.texts("EventFormatTypes").is_empty() || !service.texts("RegistryPrefixes").is_empty();
    Ok(Offer {
        sse: service.text("ServerSentEventUri"),
        subscriptions: service.link("Subscriptions"),
        event_types: if modern {
            vec![]
        } else {
            service.texts("EventTypesForSubscription")
        },
        enabled: service.boolean("ServiceEnabled").unwrap_or(true),
    })
}

/// The subscription to a destination, if there is one.
pub async fn find(client: &Client, subscriptions: &str, destination: &str) -> Result<Option<Doc>> {
    client.get(subscriptions).await?;
    let members = Members::new(client);
    let all = members.of(subscriptions).await;
    Ok(all.into_iter().find(|s| s.text("Destination").as_deref() == Some(destination)))
}

/// Subscribes a destination unless it is; true when something was written. Others of ours (same context, other destination) are ended.
pub async fn subscribe(client: &Client, destination: &str, context: &str) -> Result<bool> {
    let offer = offer(client).await?;
    let collection = offer
        .subscriptions
        .filter(|_| offer.enabled)
        .ok_or_else(|| Error::Unsupported("event subscriptions".to_owned()))?;
    client.get(&collection).await?;
    let all = Members::new(client).of(&collection).await;
    let mut present = false;
    for subscription in &all {
        let ours = subscription.text("Context").as_deref() == Some(context);
        let same = subscription.text("Destination").as_deref() == Some(destination);
        if same && !present {
            present = true;
        } else if ours {
            client.delete(&subscription.uri).await?;
        }
    }
    if present {
        return Ok(false);
    }
    let mut body = json!({"Destination": destination, "Protocol": "Redfish", "Context": context});
    if offer.event_types.is_empty() {
        body["EventFormatType"] = json!("Event");
    } else {
        body["EventTypes"] = json!(offer.event_types);
    }
    let outcome = match client.post(&collection, &body).await {
        Err(Error::Refused { .. } | Error::InvalidValue { .. }) => {
            let body = json!({"Destination": destination, "Protocol": "Redfish", "Context": context, "EventTypes": ["Alert"]});
            client.post(&collection, &body).await
        }
        outcome => outcome,
    };
    match outcome {
        Ok(_) => Ok(true),
        // Somebody was faster, perhaps we before a crash.
        Err(error) => match find(client, &collection, destination).await {
            Ok(Some(_)) => Ok(false),
            Ok(None) | Err(_) => Err(error),
        },
    }
}

/// Ends a subscription; true when there was one.
pub async fn unsubscribe(client: &Client, destination: &str) -> Result<bool> {
    let Some(collection) = offer(client).await?.subscriptions else {
        return Ok(false);
    };
    match find(client, &collection, destination).await? {
        Some(subscription) => client.delete(&subscription.uri).await.map(|_| true),
        None => Ok(false),
    }
}

/// What an event is about, as far as it matters here: which resources are worth another look.
pub fn origins(event: &Value) -> Vec<String> {
    let events = event.get("Events").and_then(Value::as_array).into_iter().flatten().take(100);
    events
        .filter_map(|e| {
            let origin = e.get("OriginOfCondition")?;
            let text = origin.get("@odata.id").unwrap_or(origin).as_str()?;
            Some(crate::error::clean(text))
        })
        .collect()
}

/// Reads server-sent events, with one that says nothing first, when the stream is open, until the stream ends, the BMC is silent for `idle`, or `each` answers false.
pub async fn stream(client: &Client, uri: &str, idle: std::time::Duration, mut each: impl FnMut(Value) -> bool + Send) -> Result<()> {
    let mut stream = client.open_stream(uri).await?;
    // What happened before it was open, nobody will tell.
    if !each(Value::Null) {
        return Ok(());
    }
    // One event at most, a megabyte at most.
    const EVENT: usize = 1 << 20;
    let mut line = Vec::new();
    let mut data = Vec::new();
    loop {
        let chunk = tokio::time::timeout(idle, stream.chunk())
            .await
            .map_err(|_| Error::Timeout { write: false })?;
        let Some(chunk) = chunk.map_err(|e| Error::Unreachable(crate::error::clean(&e.without_url().to_string())))? else {
            return Ok(());
        };
        for byte in chunk {
            if line.len() + data.len() > EVENT {
                return Err(Error::TooLarge {
                    at: uri.to_owned(),
                    cap: EVENT,
                });
            }
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let text = std::mem::take(&mut line);
            let text = text.strip_suffix(b"\r").unwrap_or(&text);
            if let Some(rest) = text.strip_prefix(b"data:") {
                data.extend_from_slice(rest);
            } else if text.is_empty() && !data.is_empty() {
                // An event that is no JSON is still a hint.
                let event = serde_json::from_slice(&std::mem::take(&mut data)).unwrap_or(Value::Null);
                if !each(event) {
                    return Ok(());
                }
            }
        }
    }
}
