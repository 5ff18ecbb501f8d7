//! Answers on the wire, and the faults that come in their place.

use std::{convert::Infallible, io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
    header,
};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::{Action, Machine};

/// An answer before it is a response.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
    /// Whether a write changed anything.
    pub effect: bool,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self {
            status: 200,
            body,
            headers: vec![],
            effect: false,
        }
    }

    pub(crate) fn done(effect: bool) -> Self {
        Self {
            status: 204,
            body: Value::Null,
            headers: vec![],
            effect,
        }
    }

    pub(crate) fn error(status: u16, id: &str, message: &str) -> Self {
        let info = json!({
            "@odata.type": "#Message.v1_1_2.Message", "MessageId": format!("Base.1.18.{id}"), "Message": message,
            "Severity": "Critical", "MessageSeverity": "Critical", "Resolution": "None.",
        });
        let body = json!({"error": {"code": format!("Base.1.18.{id}"), "message": message, "@Message.ExtendedInfo": [info]}});
        Self {
            status,
            body,
            headers: vec![],
            effect: false,
        }
    }
}

/// What names the container of the service, for clients that ask OData's way.
pub(crate) const METADATA: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/ServiceRoot_v1.xml">
    <edmx:Include Namespace="ServiceRoot"/>
    <edmx:Include Namespace="ServiceRoot.v1_16_0"/>
  </edmx:Reference>
  <edmx:DataServices>
    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">
      <EntityContainer Name="Service" Extends="ServiceRoot.v1_16_0.ServiceContainer"/>
    </Schema>
  </edmx:DataServices>
</edmx:Edmx>
"#;

/// The connection is closed without an answer.
#[derive(Debug)]
pub(crate) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped")
    }
}

impl std::error::Error for Dropped {}

impl From<Infallible> for Dropped {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

pub(crate) type Body = UnsyncBoxBody<Bytes, Dropped>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(Dropped::from).boxed_unsync()
}

/// Chunks, one after the other.
pub(crate) fn streamed<S>(chunks: S) -> Body
where
    S: futures_util::Stream<Item = Result<Bytes, Dropped>> + Send + 'static,
{
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

/// Faults that come instead of an answer, or before it.
pub(crate) async fn before(fault: &Option<Action>) -> Result<Option<Response<Body>>, Dropped> {
    let plain = |bytes: Vec<u8>| {
        let mut response = Response::new(full(bytes));
        json_headers(&mut response, vec![]);
        Some(response)
    };
    Ok(match fault {
        Some(Action::Latency(ms)) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            None
        }
        Some(Action::Hang) => std::future::pending().await,
        Some(Action::Drop) => return Err(Dropped),
        Some(Action::Status(status)) => Some(render(Answer::error(*status, "GeneralError", "a simulated fault"), None)),
        Some(Action::Refuse(status, id)) => Some(render(Answer::error(*status, id, "a simulated refusal"), None)),
        Some(Action::RetryAfter(status, after)) => {
            let mut answer = Answer::error(*status, "ServiceTemporarilyUnavailable", "a simulated fault");
            answer.headers.push(("retry-after", after.clone()));
            Some(render(answer, None))
        }
        Some(Action::Redirect(to)) => {
            let mut answer = Answer::error(302, "Redirect", "elsewhere");
            answer.headers.push(("location", to.clone()));
            Some(render(answer, None))
        }
        Some(Action::Oversize(bytes)) => {
            let block = Bytes::from(vec![b'x'; 64 << 10]);
            let blocks = bytes / block.len();
            let start = stream::once(async { Ok(Bytes::from_static(b"{\"Name\":\"")) });
            let end = stream::once(async { Ok(Bytes::from_static(b"\"}")) });
            let mut response = Response::new(streamed(
                start.chain(stream::repeat_with(move || Ok(block.clone())).take(blocks)).chain(end),
            ));
            json_headers(&mut response, vec![]);
            Some(response)
        }
        Some(Action::GzipBomb(bytes)) => {
            let mut encoder = GzEncoder::new(vec![], Compression::best());
            let block = vec![b' '; 64 << 10];
            for _ in 0..bytes / block.len() {
                let _ = encoder.write_all(&block);
            }
            let mut response = Response::new(full(encoder.finish().unwrap_or_default()));
            json_headers(&mut response, vec![("content-encoding", "gzip".to_owned())]);
            Some(response)
        }
        Some(Action::Deep(depth)) => {
            let (open, close) = ("{\"a\":".repeat(*depth), "}".repeat(*depth));
            plain(format!("{open}1{close}").into_bytes())
        }
        Some(Action::Drip) => {
            let drops = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok(Bytes::from_static(b" ")), ()))
            });
            let mut response = Response::new(streamed(drops));
            json_headers(&mut response, vec![]);
            Some(response)
        }
        Some(Action::Html) => {
            let mut response = Response::new(full("<html><body>Welcome</body></html>"));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
            Some(response)
        }
        Some(Action::Empty) => plain(vec![]),
        Some(Action::DropMiddle) => {
            let start = stream::iter([Ok(Bytes::from_static(b"{\"Name\": ")), Err(Dropped)]);
            let mut response = Response::new(streamed(start));
            json_headers(&mut response, vec![("content-length", "5000".to_owned())]);
            Some(response)
        }
        Some(
            Action::HangAfter
            | Action::LatencyAfter(_)
            | Action::DropAfter
            | Action::Truncate
            | Action::NotAnObject
            | Action::WrongTypes
            | Action::MissingFields
            | Action::Fields(_)
            | Action::DuplicateIds
            | Action::LinkCycle
            | Action::EndlessNext
            | Action::LinksElsewhere
            | Action::ControlCharacters,
        )
        | None => None,
    })
}

/// Server-sent events, as they happen.
pub(crate) fn events(machine: &Machine) -> Response<Body> {
    let receiver = {
        let mut state = machine.lock();
        state.bmc.events.get_or_insert_with(|| broadcast::channel(64).0).subscribe()
    };
    let hello = stream::once(async { Ok(Bytes::from_static(b": connected\n\n")) });
    let events = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await.ok()?;
        Some((Ok(Bytes::from(format!("id: 1\ndata: {event}\n\n"))), receiver))
    });
    let mut response = Response::new(streamed(hello.chain(events)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

pub(crate) fn compressed(body: &Value) -> Response<Body> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    let _ = encoder.write_all(body.to_string().as_bytes());
    let mut response = Response::new(full(encoder.finish().unwrap_or_default()));
    json_headers(&mut response, vec![("content-encoding", "gzip".to_owned())]);
    response
}

pub(crate) fn json_headers(response: &mut Response<Body>, more: Vec<(&'static str, String)>) {
    let fixed = [
        ("content-type", "application/json; charset=utf-8"),
        ("odata-version", "4.0"),
        ("cache-control", "no-cache"),
    ];
    let all = fixed.into_iter().map(|(k, v)| (k, v.to_owned())).chain(more);
    for (name, value) in all {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
}

pub(crate) fn render(answer: Answer, fault: Option<Action>) -> Response<Body> {
    let Answer {
        status,
        body,
        headers,
        effect: _,
    } = answer;
    let mut bytes = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
    if fault == Some(Action::Truncate) {
        bytes.truncate(bytes.len() / 2);
    }
    let mut response = Response::new(full(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_headers(&mut response, headers);
    response
}
