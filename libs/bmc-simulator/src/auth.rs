use base64::Engine;
use http_body_util::Full;
use hyper::{Request, body::Bytes, header};

use crate::Machine;

/// Whether a request shows who it is: a token of a session, or user name and password.
pub(crate) fn allowed(machine: &Machine, request: &Request<Full<Bytes>>) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    if let Some(token) = header("x-auth-token") {
        return machine.lock().sessions.contains_key(token);
    }
    let Some(basic) = header(header::AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Basic ")) else {
        return false;
    };
    let given = base64::engine::general_purpose::STANDARD.decode(basic).unwrap_or_default();
    let given = String::from_utf8_lossy(&given);
    given
        .split_once(':')
        .is_some_and(|(user, password)| machine.lock().bmc.knows(user, password))
}
