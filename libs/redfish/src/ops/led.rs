//! The locator LED.

use serde_json::json;

use crate::{Client, Doc, Error, Result};

/// Whether it is on; absent when there is none.
pub fn state(system: &Doc) -> Option<bool> {
    system
        .boolean("LocationIndicatorActive")
        .or_else(|| match system.text("IndicatorLED").as_deref() {
            Some("Lit" | "Blinking") => Some(true),
            Some("Off") => Some(false),
            Some(_) | None => None,
        })
}

/// Switches it unless it is so; true when something was written.
pub async fn set(client: &Client, system: &Doc, on: bool) -> Result<bool> {
    match state(system) {
        Some(now) if now == on => Ok(false),
        Some(_) => {
            let body = if system.boolean("LocationIndicatorActive").is_some() {
                json!({"LocationIndicatorActive": on})
            } else {
                json!({"IndicatorLED": if on { "Blinking" } else { "Off" }})
            };
            match super::change(client, &system.uri, &body).await {
                Err(Error::Refused { .. } | Error::InvalidValue { .. }) if on && body.get("IndicatorLED").is_some() => {
                    super::change(client, &system.uri, &json!({"IndicatorLED": "Lit"})).await?;
                }
                outcome => {
                    outcome?;
                }
            }
            let differs = || async {
                let shown = state(&client.get(&system.uri).await?);
                Ok((shown == Some(!on)).then(|| format!("a locator LED that is {}", if on { "off" } else { "on" })))
            };
            super::shows(super::SHOWS, differs).await.map(|()| true)
        }
        // Off is what a machine without a LED always shows.
        None if !on => Ok(false),
        None => Err(Error::Unsupported("a locator LED".to_owned())),
    }
}
