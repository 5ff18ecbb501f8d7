use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{
    Error, Result, Url,
    connection::{Body, Client, Login, Reply, SavedSession, Session},
    permission, uri,
};

/// How long the password is shown with each request before a session is asked for again, where the BMC had none left.
const WITHOUT_SESSION: Duration = Duration::from_secs(60);

/// How long after a refused login another one is not tried.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

impl Session {
    /// Whether it may be used now.
    fn is_open(&self) -> bool {
        match self {
            Self::None => false,
            Self::Token { .. } | Self::Basic(_, _, None) => true,
            Self::Basic(_, _, Some(until)) => Instant::now() < *until,
        }
    }

    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Token { token, .. } => request.header("X-Auth-Token", token.expose()),
            Self::Basic(user, password, _) => request.basic_auth(user, Some(password.expose())),
        }
    }
}

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

    /// Whether the BMC has taken the login.
    pub fn is_logged_in(&self) -> bool {
        self.login.is_none() || self.open_session().is_some()
    }

    /// The session that is open, unless a login is going on.
    pub(crate) fn open_session(&self) -> Option<Session> {
        let session = self.session.try_lock().ok()?;
        session.is_open().then(|| session.clone())
    }

    /// The session, opened when there is none, or when `stale` is still the present one. One at a time: no BMC sees two logins.
    pub(crate) async fn login(&self, stale: Option<&Session>) -> Result<Session> {
        let Some(login) = &self.login else { return Ok(Session::None) };
        let mut session = self.session.lock().await;
        if session.is_open() && stale.is_none_or(|stale| *session != *stale) {
            return Ok(session.clone());
        }
        // It may be there still, where the BMC refused something else: each that is left behind is one less for all.
        self.end(&session).await;
        *session = Session::None;
        // Those who waited for this login do not try it again one after the other: accounts lock.
        let mut refused_at = self.refused_at.lock().map_or(None, |at| *at);
        if refused_at.is_some_and(|at| at.elapsed() < AFTER_REFUSAL) {
            return Err(Error::AuthenticationFailed);
        }
        let opened = self.open(login).await;
        refused_at = matches!(opened, Err(Error::AuthenticationFailed)).then(Instant::now);
        if let Ok(mut at) = self.refused_at.lock() {
            *at = refused_at;
        }
        *session = opened?;
        tracing::debug!(server.address = self.base.host_str(), "opened a session");
        self.keep(&session);
        Ok(session.clone())
    }

    /// Logs in with the password, then once with the one that a change in progress may have set.
    async fn open(&self, login: &Login) -> Result<Session> {
        let first = self.open_with(&login.username, &login.password).await;
        match (&first, &login.pending) {
            (Err(Error::AuthenticationFailed), Some(pending)) => self.open_with(&login.username, pending).await,
            _ => first,
        }
    }

    pub(crate) async fn prove(&self, login: &Login) -> Result<()> {
        let session = self.open_with(&login.username, &login.password).await?;
        match &session {
            Session::Token { .. } => {
                *self.session.lock().await = session;
                self.logout().await;
                Ok(())
            }
            Session::Basic(..) | Session::None => {
                let root = self
                    .step(&Method::GET, uri::resolve(&self.base, "/redfish/v1/")?, Body::None, &Session::None)
                    .await?
                    .doc;
                let closed = root.link("Systems").or_else(|| root.link("Managers"));
                let closed = closed.ok_or_else(|| Error::Unsupported("anything that shows whether a login is good".to_owned()))?;
                let url = uri::resolve(&self.base, &closed)?;
                self.step(&Method::GET, url, Body::None, &session).await.map(|_| ())
            }
        }
    }

    /// A request on the way to a session. Each has its own time: a login that is cut short, because what came before it was slow, leaves a
    /// session that nobody knows.
    async fn step(&self, method: &Method, url: Url, body: Body<'_>, auth: &Session) -> Result<Reply> {
        let sent = self.send(method, url, body, None, auth);
        let sent = permission::changing_nothing(sent);
        let outcome = self.limits.shared.through(&self.slow, self.limits.read, sent).await;
        outcome.unwrap_or(Err(Error::Timeout { write: false }))
    }

    async fn open_with(&self, username: &str, password: &ironyard_types::Secret<String>) -> Result<Session> {
        let root_url = uri::resolve(&self.base, "/redfish/v1/")?;
        let root = self.step(&Method::GET, root_url, Body::None, &Session::None).await?.doc;
        let linked = root.part("Links").link("Sessions");
        let Some(sessions) = linked.or_else(|| root.link("SessionService").map(|s| format!("{}/Sessions", s.trim_end_matches('/')))) else {
            return self.basic(&root, username, password).await;
        };
        let body = json!({"UserName": username, "Password": password.expose()});
        let sessions = uri::resolve(&self.base, &sessions)?;
        match self.step(&Method::POST, sessions, Body::Json(&body), &Session::None).await {
            Ok(reply) => {
                self.note_own_account(&reply.doc);
                match reply.token {
                    Some(token) => Ok(Session::Token {
                        token,
                        location: reply.location.or_else(|| reply.doc.text("@odata.id")),
                    }),
                    None => self.basic(&root, username, password).await,
                }
            }
            Err(Error::NotFound(_) | Error::Unsupported(_)) => self.basic(&root, username, password).await,
            // Others hold every session: show the password with each request rather than not serve at all.
            Err(Error::SessionLimit) => {
                let until = Some(Instant::now() + WITHOUT_SESSION);
                Ok(Session::Basic(username.to_owned(), password.clone(), until))
            }
            // A login that is refused in other words is still a login that is refused.
            Err(Error::Refused { status: 400, .. } | Error::Forbidden(_) | Error::InvalidValue { .. }) => Err(Error::AuthenticationFailed),
            Err(error) => Err(error),
        }
    }

    /// A login that is told to change its password first is told which account that is.
    fn note_own_account(&self, session: &crate::Doc) {
        let infos = session.parts("@Message.ExtendedInfo");
        let named = infos
            .iter()
            .filter(|i| i.text_or_empty("MessageId").ends_with("PasswordChangeRequired"))
            .find_map(|i| i.texts("MessageArgs").into_iter().find(|arg| arg.starts_with('/')));
        if let Ok(mut own) = self.own_account.lock() {
            *own = named;
        }
    }

    /// The password with each request, once the BMC has shown that it takes it.
    async fn basic(&self, root: &crate::Doc, username: &str, password: &ironyard_types::Secret<String>) -> Result<Session> {
        let basic = Session::Basic(username.to_owned(), password.clone(), None);
        if let Some(closed) = root.link("Systems").or_else(|| root.link("Managers")) {
            let url = uri::resolve(&self.base, &closed)?;
            if let Err(Error::AuthenticationFailed) = self.step(&Method::GET, url, Body::None, &basic).await {
                return Err(Error::AuthenticationFailed);
            }
        }
        Ok(basic)
    }

    /// Ends the session, so that the BMC can give it to somebody else.
    pub async fn logout(&self) {
        let mut session = self.session.lock().await;
        let old = std::mem::replace(&mut *session, Session::None);
        // One that may still be there is kept: the next process goes on with it.
        if self.end(&old).await {
            self.keep(&Session::None);
        }
    }

    /// Ends a session at the BMC; whether it is known to be gone.
    async fn end(&self, session: &Session) -> bool {
        let Session::Token {
            location: Some(location), ..
        } = session
        else {
            return false;
        };
        let Ok(url) = uri::resolve(&self.base, location) else {
            return false;
        };
        let end = permission::changing_nothing(self.send(&Method::DELETE, url, Body::None, None, session));
        let ended = tokio::time::timeout(Duration::from_secs(5), end).await;
        tracing::debug!(
            server.address = self.base.host_str(),
            ended = matches!(ended, Ok(Ok(_))),
            "ended a session"
        );
        matches!(ended, Ok(Ok(_) | Err(Error::AuthenticationFailed | Error::NotFound(_))))
    }
}
