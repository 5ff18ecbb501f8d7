use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{Client, Error, Result, client::Login, uri};

/// How requests show who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Session {
    /// Not at all.
    None,
    /// With the token of a session.
    Token {
        token: ironyard_types::Secret<String>,
        location: Option<String>,
    },
    /// With user name and password on every request: where the BMC has no sessions.
    Basic(String, ironyard_types::Secret<String>),
}

impl Session {
    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Token { token, .. } => request.header("X-Auth-Token", token.expose()),
            Self::Basic(user, password) => request.basic_auth(user, Some(password.expose())),
        }
    }
}

/// A session that outlives the process, so that a restart takes no other one from the BMC.
#[derive(Debug, Clone)]
pub struct SavedSession {
    /// Token.
    pub token: ironyard_types::Secret<String>,
    /// Where it is ended.
    pub location: Option<String>,
}

/// Called when a session was opened (to save it) and when it was ended (to forget it).
pub type SessionKeeper = Box<dyn Fn(Option<SavedSession>) + Send + Sync>;

impl Client {
    /// Goes on with a session of an earlier process. One that the BMC has forgotten costs one more login.
    pub async fn resume(&self, saved: SavedSession) {
        *self.session.lock().await = Session::Token {
            token: saved.token,
            location: saved.location,
        };
    }

    fn keep(&self, session: &Session) {
        if let Some(keeper) = &self.keeper {
            match session {
                Session::Token { token, location } => keeper(Some(SavedSession {
                    token: token.clone(),
                    location: location.clone(),
                })),
                Session::None | Session::Basic(..) => keeper(None),
            }
        }
    }

    /// The session, opened when there is none, or when `stale` is still the present one. One at a time: no BMC sees two logins.
    pub(crate) async fn login(&self, stale: Option<&Session>) -> Result<Session> {
        let Some(login) = &self.login else { return Ok(Session::None) };
        let mut session = self.session.lock().await;
        if *session != Session::None && stale.is_none_or(|stale| *session != *stale) {
            return Ok(session.clone());
        }
        *session = self.open(login).await?;
        self.keep(&session);
        Ok(session.clone())
    }

    async fn open(&self, login: &Login) -> Result<Session> {
        let basic = || Session::Basic(login.username.clone(), login.password.clone());
        let root_url = uri::resolve(&self.base, "/redfish/v1/")?;
        let root = self.send(&Method::GET, root_url, None, None, &Session::None).await?.doc;
        let linked = root.part("Links").link("Sessions");
        let Some(sessions) = linked.or_else(|| root.link("SessionService").map(|s| format!("{}/Sessions", s.trim_end_matches('/')))) else {
            return Ok(basic());
        };
        let body = json!({"UserName": login.username, "Password": login.password.expose()});
        match self
            .send(
                &Method::POST,
                uri::resolve(&self.base, &sessions)?,
                Some(&body),
                None,
                &Session::None,
            )
            .await
        {
            Ok(reply) => match reply.token {
                Some(token) => Ok(Session::Token {
                    token,
                    location: reply.location,
                }),
                None => Ok(basic()),
            },
            Err(Error::NotFound(_) | Error::Unsupported(_)) => Ok(basic()),
            // Others hold every session: show the password with each request rather than not serve at all.
            Err(Error::SessionLimit) => Ok(basic()),
            // A login that is refused in other words is still a login that is refused.
            Err(Error::Refused { status: 400, .. }) => Err(Error::AuthenticationFailed),
            Err(error) => Err(error),
        }
    }

    /// Ends the session, so that the BMC can give it to somebody else.
    pub async fn logout(&self) {
        let mut session = self.session.lock().await;
        let old = std::mem::replace(&mut *session, Session::None);
        if let Session::Token {
            location: Some(location), ..
        } = &old
            && let Ok(url) = uri::resolve(&self.base, location)
        {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(5), self.send(&Method::DELETE, url, None, None, &old)).await;
            // One that may still be there is kept: the next process goes on with it.
            if matches!(ended, Ok(Ok(_) | Err(Error::AuthenticationFailed | Error::NotFound(_)))) {
                self.keep(&Session::None);
            }
        }
    }
}
