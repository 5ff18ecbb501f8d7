//! Calls that another replica of this service answers: it has what they are about. They are passed on as they are, streams too, so that a caller
//! may call any replica.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture, stream};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Frame;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use crate::{Channel, Fault, Identity, Reason, access, client::caused_by, deadline};

/// Says for whom a replica passes a call on. It counts only from where [`crate::access`] allows it, and such a call goes no further.
pub const ON_BEHALF_OF: &str = "ironyard-on-behalf-of";

/// Longest first message that is looked into; longer ones are refused anyway.
const LONGEST: usize = 4 << 20;
/// A gRPC message is preceded by a flag and its length.
const PREFIX: usize = 5;

/// A call that another replica has passed on.
#[derive(Debug, Clone, Copy)]
pub struct PassedOn;

/// Another replica.
pub struct Peer {
    /// Where it is.
    pub channel: Channel,
    /// Ends when it has lost its share.
    pub gone: BoxFuture<'static, ()>,
}

/// Knows who has what.
pub trait Owners: Clone + Send + Sync + 'static {
    /// Whether there are others.
    fn shared(&self) -> bool;
    /// The replica that has this; none: this one. What lasts gets a connection of its own: one stream that is not read holds up all others.
    fn elsewhere(&self, key: &str, lasts: bool) -> Option<Peer>;
}

/// Where requests say what they are about, by the path of their method.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<HashMap<String, Key>>);

#[derive(Debug, Clone, Copy)]
struct Key {
    /// How many messages the field is inside of. Each of them, and the field, is the first field of what it is in.
    depth: usize,
    streams: bool,
}

impl Keys {
    /// The methods of a package whose requests begin with a text field of this name, at whatever depth.
    pub fn of(package: &str, field: &str) -> Self {
        let files = FileDescriptorSet::decode(ironyard_proto::DESCRIPTORS).map_or_else(|_| vec![], |set| set.file);
        let mut messages: HashMap<String, &DescriptorProto> = HashMap::new();
        for file in &files {
            for message in &file.message_type {
                messages.insert(format!(".{}.{}", file.package(), message.name()), message);
            }
        }
        let mut keys = HashMap::new();
        for file in files.iter().filter(|file| file.package() == package) {
            for service in &file.service {
                for method in &service.method {
                    let Some(depth) = depth(&messages, method.input_type(), field) else {
                        continue;
                    };
                    let path = format!("/{package}.{}/{}", service.name(), method.name());
                    let streams = method.client_streaming() || method.server_streaming();
                    keys.insert(path, Key { depth, streams });
                }
            }
        }
        Self(Arc::new(keys))
    }

    /// The methods, as paths.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn depth(messages: &HashMap<String, &DescriptorProto>, name: &str, field: &str) -> Option<usize> {
    let mut name = name;
    // Deep enough for any request; a message that holds itself has an end too.
    for depth in 0..8 {
        let first = messages.get(name)?.field.iter().find(|f| f.number() == 1)?;
        match first.r#type() {
            Type::String if first.name() == field => return Some(depth),
            Type::Message => name = first.type_name(),
            _ => return None,
        }
    }
    None
}

/// Any message, of which only the first field counts: a text, or another message.
#[derive(Clone, PartialEq, Message)]
struct First {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    first: Vec<Bytes>,
}

/// As the service will read it: a message that comes in parts is put together, of texts the last one counts.
fn key_in(message: &[u8], depth: usize) -> Option<String> {
    let mut inner = Bytes::copy_from_slice(message);
    for _ in 0..depth {
        inner = First::decode(inner).ok()?.first.concat().into();
    }
    let text = First::decode(inner).ok()?.first.pop()?;
    String::from_utf8(text.to_vec()).ok()
}

/// A service whose calls go to who has what they are about.
#[derive(Clone)]
pub struct Forward<S, O> {
    inner: S,
    owners: O,
    keys: Keys,
}

impl<S, O> Forward<S, O> {
    /// In front of `inner`.
    pub fn new(inner: S, owners: O, keys: Keys) -> Self {
        Self { inner, owners, keys }
    }
}

impl<S: NamedService, O> NamedService for Forward<S, O> {
    const NAME: &'static str = S::NAME;
}

impl<S, O> Service<Request<Body>> for Forward<S, O>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    O: Owners,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        std::mem::swap(&mut inner, &mut self.inner);
        let key = self.keys.0.get(request.uri().path()).copied();
        let here = !self.owners.shared() || request.extensions().get::<PassedOn>().is_some();
        match key.filter(|_| !here) {
            Some(key) => Box::pin(route(inner, self.owners.clone(), key, request)),
            None => Box::pin(inner.call(request)),
        }
    }
}

async fn route<S, O>(mut inner: S, owners: O, key: Key, request: Request<Body>) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    O: Owners,
{
    let (head, body) = request.into_parts();
    let (begun, rest) = first_message(body).await;
    let about = message(&begun).and_then(|message| key_in(message, key.depth));
    let Some(peer) = about.and_then(|about| owners.elsewhere(&about, key.streams)) else {
        return inner.call(Request::from_parts(head, joined(begun, rest))).await;
    };
    let row = access::row(head.uri.path());
    let body = if key.streams {
        joined(begun.clone(), rest)
    } else {
        Body::new(Full::new(begun.clone()))
    };
    let mut passed = Request::from_parts(head.clone(), body);
    passed.headers_mut().insert(ON_BEHALF_OF, caller(&head.extensions));
    if !key.streams {
        deadline::shorten(passed.headers_mut());
    }
    let passing_on = async {
        let response = peer.channel.pass_on(passed).await.map_err(|e| Lost {
            unsent: caused_by::<tonic::ConnectError>(&e),
        })?;
        if key.streams {
            return Ok(response);
        }
        // Whole, so that a caller who reads slowly holds up nobody else.
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Lost { unsent: false })?;
        Ok(Response::from_parts(head, Body::new(body)))
    };
    let outcome = tokio::select! {
        outcome = passing_on => outcome,
        () = peer.gone => Err(Lost { unsent: false }),
    };
    match outcome {
        Ok(response) => Ok(response),
        // What did not reach it, or may be repeated, is answered here: its owner was there a moment ago, and will be another one soon.
        Err(Lost { unsent }) => {
            tracing::info!(unsent, "the replica that has this BMC does not answer");
            if !key.streams && (unsent || row.is_some_and(|row| row.idempotent)) {
                return inner.call(Request::from_parts(head, Body::new(Full::new(begun)))).await;
            }
            let why = "the replica that has this BMC went away during the call; repeat it";
            Ok(Status::from(Fault::new(Reason::PeerUnavailable, why)).into_http())
        }
    }
}

/// No answer came.
struct Lost {
    /// Nor did the call get there.
    unsent: bool,
}

fn caller(extensions: &http::Extensions) -> HeaderValue {
    let name = extensions.get::<Identity>().map_or("", |caller| caller.name.as_str());
    HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
}

/// Where the first message ends.
fn end(begun: &[u8]) -> Option<usize> {
    let length = begun.get(1..PREFIX).and_then(|l| <[u8; 4]>::try_from(l).ok())?;
    Some(PREFIX.saturating_add(u32::from_be_bytes(length) as usize))
}

/// The first message; others may have come with it.
fn message(begun: &[u8]) -> Option<&[u8]> {
    begun.get(PREFIX..end(begun)?)
}

/// What came first, up to the end of the first message, and what is left.
async fn first_message(mut body: Body) -> (Bytes, Rest) {
    let mut begun = BytesMut::new();
    loop {
        if end(&begun).is_some_and(|end| begun.len() >= end || end > LONGEST) {
            return (begun.freeze(), Rest { next: None, body });
        }
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => begun.extend_from_slice(&data),
                Err(frame) => {
                    return (
                        begun.freeze(),
                        Rest {
                            next: Some(Ok(frame)),
                            body,
                        },
                    );
                }
            },
            Some(Err(error)) => {
                return (
                    begun.freeze(),
                    Rest {
                        next: Some(Err(error)),
                        body,
                    },
                );
            }
            None => return (begun.freeze(), Rest { next: None, body }),
        }
    }
}

/// What comes after the first message.
struct Rest {
    next: Option<Result<Frame<Bytes>, Status>>,
    body: Body,
}

fn joined(begun: Bytes, rest: Rest) -> Body {
    let first = stream::iter([Ok(Frame::data(begun))].into_iter().chain(rest.next));
    Body::new(StreamBody::new(first.chain(BodyStream::new(rest.body))))
}

#[cfg(test)]
mod tests {
    use ironyard_proto::bmc as pb;

    use super::*;

    #[test]
    fn a_key_is_found_at_any_depth() {
        let system = || {
            Some(pb::SystemName {
                bmc: "bmc-1".to_owned(),
                system_id: "1".to_owned(),
                ..Default::default()
            })
        };
        let flat = pb::GetManagerRequest {
            bmc: "bmc-1".to_owned(),
            ..Default::default()
        }
        .encode_to_vec();
        let nested = pb::GetSystemRequest { system: system() }.encode_to_vec();
        let head = pb::AttachHead {
            system: system(),
            read_only: true,
        };
        let part = pb::AttachRequest {
            part: Some(pb::attach_request::Part::Head(head)),
        };
        let part = part.encode_to_vec();
        let keys = Keys::of("ironyard.bmc.v1", "bmc");
        for (method, message, streams) in [
            ("ManagerService/GetManager", &flat, false),
            ("SystemService/GetSystem", &nested, false),
            ("ConsoleService/Attach", &part, true),
        ] {
            let key = keys.0.get(&format!("/ironyard.bmc.v1.{method}")).unwrap();
            assert_eq!(key_in(message, key.depth).as_deref(), Some("bmc-1"), "{method}");
            assert_eq!(key.streams, streams, "{method}");
            // What is cut short says nothing, or an empty name, and never panics.
            for end in 0..message.len() {
                let _ = key_in(&message[..end], key.depth);
            }
        }
        // In two parts, and one of them twice.
        let more = pb::GetSystemRequest {
            system: Some(pb::SystemName {
                bmc: String::new(),
                system_id: "2".to_owned(),
                ..Default::default()
            }),
        };
        let parts = [nested.clone(), more.encode_to_vec()].concat();
        assert_eq!(pb::GetSystemRequest::decode(&*parts).unwrap().system.unwrap().bmc, "bmc-1");
        assert_eq!(key_in(&parts, 1).as_deref(), Some("bmc-1"));
        assert!(!keys.0.contains_key("/ironyard.bmc.v1.BmcService/CreateBmc"));
        assert!(!keys.0.contains_key("/ironyard.bmc.v1.TelemetryService/SweepPower"));
    }

    #[tokio::test]
    async fn a_body_is_the_same_after_it_was_looked_into() {
        for cut in 0..12 {
            let whole: Vec<u8> = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 1], b"d"].concat();
            let (a, b) = whole.split_at(cut);
            let frames = [a, b].map(|part| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(part))));
            let (begun, rest) = first_message(Body::new(StreamBody::new(stream::iter(frames)))).await;
            assert!(begun.starts_with(&whole[..8]));
            assert_eq!(message(&begun), Some(&b"abc"[..]), "cut at {cut}");
            let after = joined(begun, rest).collect().await.unwrap().to_bytes();
            assert_eq!(after, whole, "cut at {cut}");
        }
    }
}
