//! Accounts of the BMC itself.

use ironyard_types::Secret;
use serde_json::json;

use crate::{Client, Doc, Error, Members, Result};

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Id within the BMC.
    pub id: String,
    /// User name.
    pub username: String,
    /// Role.
    pub role: String,
    /// Whether it may log in.
    pub enabled: bool,
    /// Whether it is locked out.
    pub locked: bool,
    /// Path.
    pub uri: String,
}

/// What the BMC asks of passwords; absent where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PasswordRules {
    /// Shortest.
    pub min: Option<u32>,
    /// Longest.
    pub max: Option<u32>,
}

async fn service(client: &Client) -> Result<Doc> {
    let root = client.root().await?;
    let link = root
        .link("AccountService")
        .ok_or_else(|| Error::Unsupported("accounts".to_owned()))?;
    client.get(&link).await
}

fn collection(service: &Doc) -> Result<String> {
    service.link("Accounts").ok_or_else(|| Error::Unsupported("accounts".to_owned()))
}

/// What passwords must be like.
pub async fn password_rules(client: &Client) -> Result<PasswordRules> {
    let service = service(client).await?;
    let length = |key: &str| service.integer::<u32>(key).filter(|n| *n > 0);
    Ok(PasswordRules {
        min: length("MinPasswordLength"),
        max: length("MaxPasswordLength"),
    })
}

/// Documents of all accounts: also those of empty slots.
async fn documents(client: &Client) -> Result<(String, Vec<Doc>)> {
    let link = collection(&service(client).await?)?;
    client.get(&link).await?;
    let members = Members::new(client);
    let docs = members.of(&link).await;
    Ok((link, docs))
}

fn account_of(doc: &Doc) -> Account {
    Account {
        id: doc.id(),
        username: doc.text_or_empty("UserName"),
        role: doc.text_or_empty("RoleId"),
        // What does not say is enabled: HPE has no such property.
        enabled: doc.boolean("Enabled").unwrap_or(true),
        locked: doc.boolean("Locked").unwrap_or(false),
        uri: doc.id_path(),
    }
}

/// All accounts; empty slots are none.
pub async fn list(client: &Client) -> Result<Vec<Account>> {
    let (_, docs) = documents(client).await?;
    Ok(docs.iter().map(account_of).filter(|a| !a.username.is_empty()).collect())
}

/// The account of a user.
pub async fn find(client: &Client, username: &str) -> Result<Option<Account>> {
    Ok(list(client).await?.into_iter().find(|a| a.username == username))
}

/// Creates an account: as a new resource, or in an empty slot where the BMC has slots.
pub async fn create(client: &Client, username: &str, password: &Secret<String>, role: &str) -> Result<()> {
    let (link, docs) = documents(client).await?;
    if docs.iter().any(|d| d.text("UserName").as_deref() == Some(username)) {
        return Err(Error::Refused {
            status: 409,
            message: format!("the BMC has an account {username}"),
        });
    }
    let body = json!({"UserName": username, "Password": password.expose(), "RoleId": role, "Enabled": true});
    // The first slots are the BMC's own.
    let slot = docs
        .iter()
        .find(|d| d.text("UserName").is_none() && d.id().parse::<u32>().is_ok_and(|n| n > 2));
    match slot {
        Some(slot) => super::change(client, &slot.uri, &body).await.map(drop)?,
        None => match client.post(&link, &body).await {
            Ok(_) => {}
            // Without what older services do not know.
            Err(Error::Refused { .. } | Error::InvalidValue { .. }) => {
                let body = json!({"UserName": username, "Password": password.expose(), "RoleId": role});
                client.post(&link, &body).await.map(drop)?;
            }
            Err(error) => return Err(error),
        },
    }
    let differs = || async {
        let there = find(client, username).await?.is_some();
        Ok((!there).then(|| format!("no account {username}")))
    };
    super::shows(super::SHOWS, differs).await
}

/// Deletes the account of a user, or empties its slot; false when there is none.
pub async fn delete(client: &Client, username: &str) -> Result<bool> {
    let Some(account) = find(client, username).await? else {
        return Ok(false);
    };
    match client.delete(&account.uri).await {
        Ok(_) => {}
        Err(Error::Refused { .. } | Error::Unsupported(_)) => {
            super::change(client, &account.uri, &json!({"Enabled": false, "UserName": ""})).await?;
        }
        Err(error) => return Err(error),
    }
    let differs = || async {
        let there = find(client, username).await?.is_some();
        Ok(there.then(|| format!("the account {username}")))
    };
    super::shows(super::SHOWS, differs).await.map(|()| true)
}

/// Changes the password of a user. While a BMC asks for that before anything else, only this is allowed, and the account must be found
/// without listing the others.
pub async fn set_password(client: &Client, username: &str, password: &Secret<String>) -> Result<()> {
    let uri = match find(client, username).await {
        Ok(Some(account)) => account.uri,
        Ok(None) => return Err(Error::NotFound(format!("the account {username}"))),
        Err(Error::PasswordChangeRequired | Error::Forbidden(_)) => own_account(client, username).await?,
        Err(error) => return Err(error),
    };
    super::change(client, &uri, &json!({"Password": password.expose()}))
        .await
        .map(|_| ())
}

/// The account's own path, as the session or the answer to a login names it; else where most services have it.
async fn own_account(client: &Client, username: &str) -> Result<String> {
    let named = client.password_change_uri().await;
    let root = client.root().await?;
    let service = root
        .link("AccountService")
        .ok_or_else(|| Error::Unsupported("accounts".to_owned()))?;
    Ok(named.unwrap_or_else(|| format!("{}/Accounts/{username}", service.trim_end_matches('/'))))
}
