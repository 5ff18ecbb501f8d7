//! One request on the wire: headers, redirects, caps, and what an answer means.

use std::{error::Error as _, time::Duration};

use ironyard_types::Secret;
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderName, HeaderValue},
};
use rustls::PeerIncompatible;
use serde_json::Value;

use crate::{
    Doc, Error, Result,
    connection::{Body, Client, Reply, Session},
    error,
    partial_read::parse_only,
    permission, uri,
};

const ODATA_VERSION: HeaderName = HeaderName::from_static("odata-version");
/// Redirects that are followed, all within the BMC.
const REDIRECTS: usize = 3;
/// A body beyond this waits for its share of the memory.
const LARGE: usize = 256 << 10;
/// Bytes of an error that are read.
const ERROR_BODY: usize = 256 << 10;

impl Client {
    pub(crate) async fn send(&self, method: &Method, url: Url, body: Body<'_>, if_match: Option<&str>, auth: &Session) -> Result<Reply> {
        self.send_for(method, url, body, if_match, auth, None).await
    }

    /// As `send`; of what is read, only these members are kept.
    pub(crate) async fn send_for(
        &self,
        method: &Method,
        mut url: Url,
        mut body: Body<'_>,
        if_match: Option<&str>,
        auth: &Session,
        only: Option<&[&str]>,
    ) -> Result<Reply> {
        let read = *method == Method::GET;
        let (mut redirects, mut encoding) = (0, "identity");
        loop {
            let mut request = self.http.request(method.clone(), url.clone());
            request = request
                .header(header::ACCEPT, HeaderValue::from_static("application/json"))
                .header(ODATA_VERSION, HeaderValue::from_static("4.0"))
                // Compression weakens the ETags of some BMCs; those that insist on it are asked again.
                .header(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
            request = auth.apply(request);
            if let Some(etag) = if_match {
                request = request.header(header::IF_MATCH, etag);
            }
            request = match std::mem::replace(&mut body, Body::None) {
                Body::None => request,
                Body::Json(json) => request.json(json),
                Body::Form(form) => request.multipart(form),
                Body::Raw(file, length) => request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, length)
                    .body(file),
            };
            let mut request = request.build().map_err(|e| transport(e, method))?;
            if !read {
                permission::guard(&mut request)?;
            }
            let response = self.http.execute(request).await.map_err(|e| transport(e, method))?;
            let status = response.status();
            if read && status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                let Some(to) = to.filter(|_| redirects < REDIRECTS) else {
                    return Err(nonsense(url.path(), "it redirects nowhere or in a circle"));
                };
                url = uri::resolve(&self.base, to)?;
                redirects += 1;
                continue;
            }
            if read && status == StatusCode::NOT_ACCEPTABLE && encoding == "identity" {
                encoding = "gzip";
                continue;
            }
            return self.read(response, method, url.path(), only).await;
        }
    }

    async fn read(&self, mut response: reqwest::Response, method: &Method, at: &str, only: Option<&[&str]>) -> Result<Reply> {
        let status = response.status();
        let head = |name: header::HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (etag, location) = (head(header::ETAG).filter(|etag| !etag.is_empty()), head(header::LOCATION));
        let retry_after = head(header::RETRY_AFTER).map(|text| retry_after_of(&text, head(header::DATE).as_deref()));
        // A BMC that names itself otherwise than we do has done its work all the same; its link is just not followed.
        let location = location
            .and_then(|to| uri::resolve(&self.base, &to).ok())
            .map(|url| url.path().to_owned());
        let token = response
            .headers()
            .get("x-auth-token")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let cap = if status.is_success() { self.limits.body } else { ERROR_BODY };
        let expected = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(expected.min(LARGE));
        let mut share = None;
        while let Some(chunk) = response.chunk().await.map_err(|e| transport(e, method))? {
            if bytes.len() + chunk.len() > cap {
                return Err(Error::TooLarge { at: at.to_owned(), cap });
            }
            if share.is_none() && bytes.len() + chunk.len() > LARGE {
                share = self.limits.shared.large(cap).await;
            }
            bytes.extend_from_slice(&chunk);
        }
        let parsed = match only.filter(|_| status.is_success()) {
            Some(wanted) => parse_only(&bytes, wanted),
            None => parse(&bytes),
        };
        if !status.is_success() {
            return Err(Error::from_status(status.as_u16(), at, &parsed.unwrap_or(Value::Null), retry_after));
        }
        let value = match parsed {
            // A monitor of a task may answer without a body.
            Ok(value)
                if *method != Method::GET || value.is_object() || status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT =>
            {
                value
            }
            Ok(_) => return Err(nonsense(at, "it is not a JSON object")),
            Err(problem) if *method == Method::GET => return Err(nonsense(at, &problem.to_string())),
            // Some BMCs answer actions with HTML or plain text; the status is what counts.
            Err(_) => Value::Null,
        };
        if *method != Method::GET
            && let Some(refusal) = Error::in_success(status.as_u16(), &value)
        {
            return Err(refusal);
        }
        let etag = etag.or_else(|| value.get("@odata.etag").and_then(Value::as_str).map(str::to_owned));
        let doc = Doc {
            uri: at.to_owned(),
            etag,
            value,
            size: bytes.len(),
        };
        let location = location.or_else(|| (status == StatusCode::CREATED).then(|| doc.text("@odata.id")).flatten());
        Ok(Reply {
            status: status.as_u16(),
            location,
            retry_after,
            doc,
            token: token.map(Secret::new),
        })
    }
}

/// A document as BMCs send it: perhaps with a byte order mark, perhaps empty. Depth is bounded by the parser.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.iter().all(u8::is_ascii_whitespace) {
        Ok(Value::Null)
    } else {
        serde_json::from_slice(text)
    }
}

fn nonsense(at: &str, problem: &str) -> Error {
    Error::Protocol {
        at: at.to_owned(),
        problem: error::clean(problem),
    }
}

/// A transport error without its URL and without anything the BMC said.
fn transport(error: reqwest::Error, method: &Method) -> Error {
    if error.is_timeout() && !error.is_connect() {
        return Error::Timeout {
            write: *method != Method::GET,
        };
    }
    let (broken, decoding) = (error.is_connect(), error.is_decode());
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        if let Some(Error::NotPermitted) = inner.downcast_ref::<Error>() {
            return Error::NotPermitted;
        }
        if let Some(rustls) = inner.downcast_ref::<rustls::Error>()
            && let Some((why, passes)) = refuses(rustls)
        {
            let why = error::clean(&why);
            return if passes { Error::Unreachable(why) } else { Error::Tls(why) };
        }
        // What an I/O error wraps is not among its sources.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = wrapped.map(|e| e as &dyn std::error::Error).or_else(|| inner.source());
    }
    let text = error::clean(if text.is_empty() { "the connection failed" } else { &text });
    match method {
        _ if broken => Error::Unreachable(text),
        _ if decoding => nonsense("an answer", &text),
        &Method::GET => Error::Unreachable(text),
        // The request may have arrived before the connection broke.
        _ => Error::Lost(text),
    }
}

/// What is for somebody to decide, in words: the certificate, or what both sides can speak; and whether it may pass all the same, as an alert of a BMC
/// does that is starting and has no certificate yet.
fn refuses(error: &rustls::Error) -> Option<(String, bool)> {
    use rustls::{AlertDescription as Alert, Error as E};
    const OLD: &str = "see docs/bmcs.md#old-bmcs";
    const VERSION: &str = "the BMC speaks TLS 1.1 or older, or not TLS 1.2 where its key allows nothing else; TLS 1.2 is the least here";
    match error {
        // `General` is what our own verifier says of a certificate.
        E::General(why) => Some((why.clone(), false)),
        E::InvalidCertificate(_) => Some((error.to_string(), false)),
        E::AlertReceived(Alert::ProtocolVersion) => Some((format!("{VERSION}; {OLD}"), true)),
        E::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            Some((format!("{VERSION}; {OLD}"), false))
        }
        E::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity) => Some((
            format!("no cipher suite or signature is common to both: here they are ECDHE with AES-GCM or ChaCha20-Poly1305; {OLD}"),
            true,
        )),
        E::PeerIncompatible(_) => Some((format!("{error}; {OLD}"), false)),
        _ => None,
    }
}

/// Longest wait that a BMC may ask for, and what a date means when it does not say what time it thinks it is.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const SOME_TIME: Duration = Duration::from_secs(30);

/// `Retry-After`: seconds, or a date, which is read against the BMC's own clock.
fn retry_after_of(text: &str, date: Option<&str>) -> Duration {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Duration::from_secs(seconds).min(LONGEST_WAIT);
    }
    let (then, now) = (httpdate::parse_http_date(text), date.map(httpdate::parse_http_date));
    match (then, now) {
        (Ok(then), Some(Ok(now))) => then.duration_since(now).unwrap_or(Duration::ZERO).min(LONGEST_WAIT),
        (Ok(_) | Err(_), _) => SOME_TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let date = Some("Thu, 01 Jan 1970 00:10:00 GMT");
        for (text, seconds) in [
            ("7", 7),
            (" 3600 ", 60),
            ("Thu, 01 Jan 1970 00:10:09 GMT", 9),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("soon", 30),
        ] {
            assert_eq!(retry_after_of(text, date), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(retry_after_of("Thu, 01 Jan 1970 00:10:09 GMT", None), SOME_TIME);
    }

    #[test]
    fn documents_are_parsed_as_bmcs_send_them() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\":1}").unwrap()["a"], 1);
        assert_eq!(parse(b" \r\n").unwrap(), Value::Null);
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
