//! gRPC: the service of `origin.proto`, and the health check that kubelets know.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;

use super::{Site, http2};

const MAX_MESSAGE: usize = 4 << 20;
const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ask {
    #[prost(string, tag = "1")]
    pub(super) text: String,
    #[prost(uint32, tag = "2")]
    pub(super) count: u32,
    #[prost(uint32, tag = "3")]
    pub(super) every_ms: u32,
    #[prost(uint32, tag = "4")]
    pub(super) status: u32,
    #[prost(string, tag = "5")]
    pub(super) status_message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    #[prost(string, tag = "1")]
    pub(super) text: String,
    #[prost(string, tag = "2")]
    pub(super) pod: String,
    #[prost(uint32, tag = "3")]
    pub(super) index: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) metadata: BTreeMap<String, String>,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Health {
    #[prost(uint32, tag = "1")]
    status: u32,
}

const SERVING: u32 = 1;
const NOT_SERVING: u32 = 2;

/// How a call ends.
struct Status {
    code: u32,
    message: String,
}

impl Status {
    const OK: Self = Self {
        code: 0,
        message: String::new(),
    };

    fn new(code: u32, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
        }
    }

    fn of(ask: Ask) -> Self {
        Self {
            code: ask.status,
            message: ask.status_message,
        }
    }

    fn fields(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", self.code.into());
        // Everything that is not printable ASCII is percent-encoded, and so is the percent sign.
        let mut text = String::new();
        for byte in self.message.bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
                // Writing to a string cannot fail.
                _ => drop(write!(text, "%{byte:02X}")),
            }
        }
        if !text.is_empty()
            && let Ok(text) = HeaderValue::from_str(&text)
        {
            headers.insert("grpc-message", text);
        }
    }
}

/// Why a call ends early.
enum Early {
    /// With a status.
    Status(Status),
    /// The stream is gone.
    Gone(h2::Error),
}

impl From<h2::Error> for Early {
    fn from(error: h2::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<Status> for Early {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Whether a request is a call.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

pub(super) async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    site: &Site,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    http2::name(headers, site);
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let (parts, incoming) = request.into_parts();
    let Some(method) = Method::find(parts.uri.path()) else {
        // Without messages, the end of the call is in the header.
        Status::new(UNIMPLEMENTED, "there is no such method").fields(headers);
        respond.send_response(response, true)?;
        return Ok(());
    };
    let mut call = Call {
        asks: Messages {
            incoming,
            buffer: BytesMut::new(),
        },
        replies: respond.send_response(response, false)?,
        index: 0,
        site,
        metadata: http2::fields(&parts.headers)
            .into_iter()
            .map(|(name, values)| (name, values.join(", ")))
            .collect(),
    };
    let status = match call.run(method).await {
        Ok(status) | Err(Early::Status(status)) => status,
        Err(Early::Gone(error)) => return Err(error),
    };
    let mut trailers = HeaderMap::new();
    status.fields(&mut trailers);
    call.replies.send_trailers(trailers)
}

#[derive(Clone, Copy)]
enum Method {
    Echo,
    Repeat,
    Chat,
    Health,
}

impl Method {
    fn find(path: &str) -> Option<Self> {
        match path {
            "/lockgate.origin.Origin/Echo" => Some(Self::Echo),
            "/lockgate.origin.Origin/Repeat" => Some(Self::Repeat),
            "/lockgate.origin.Origin/Chat" => Some(Self::Chat),
            "/grpc.health.v1.Health/Check" => Some(Self::Health),
            _ => None,
        }
    }
}

struct Call<'a> {
    asks: Messages,
    replies: SendStream<Bytes>,
    index: u32,
    site: &'a Site,
    metadata: BTreeMap<String, String>,
}

impl Call<'_> {
    async fn run(&mut self, method: Method) -> Result<Status, Early> {
        match method {
            Method::Echo => {
                let ask = self.ask().await?;
                self.reply(&ask.text).await?;
                Ok(Status::of(ask))
            }
            Method::Repeat => {
                let ask = self.ask().await?;
                for index in 0..ask.count {
                    if index > 0 && ask.every_ms > 0 {
                        tokio::time::sleep(Duration::from_millis(ask.every_ms.into())).await;
                    }
                    self.reply(&ask.text).await?;
                }
                Ok(Status::of(ask))
            }
            Method::Chat => {
                let mut last = Ask::default();
                while let Some(ask) = self.asks.next().await? {
                    last = ask;
                    self.reply(&last.text).await?;
                }
                Ok(Status::of(last))
            }
            Method::Health => {
                let ready = self.site.probe("/readyz") == Some(200);
                let status = if ready { SERVING } else { NOT_SERVING };
                self.send(&Health { status }).await?;
                Ok(Status::OK)
            }
        }
    }

    /// The one message of a call that has one.
    async fn ask(&mut self) -> Result<Ask, Early> {
        let ask = self.asks.next().await?;
        Ok(ask.ok_or_else(|| Status::new(INVALID_ARGUMENT, "the message is missing"))?)
    }

    async fn reply(&mut self, text: &str) -> Result<(), Early> {
        let reply = Reply {
            text: text.to_owned(),
            pod: self.site.name().to_owned(),
            index: self.index,
            metadata: self.metadata.clone(),
        };
        self.index += 1;
        self.send(&reply).await
    }

    async fn send(&mut self, message: &impl Message) -> Result<(), Early> {
        Ok(http2::send(&mut self.replies, frame(message), false).await?)
    }
}

/// A message with the five bytes that come before it: it is not compressed, and this long.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(body.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(&body);
    frame.freeze()
}

/// The messages of one side of a call.
pub(super) struct Messages {
    pub(super) incoming: RecvStream,
    pub(super) buffer: BytesMut,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<Ask>, Early> {
        let body = self.body().await?;
        let decoded = body.map(Ask::decode).transpose();
        Ok(decoded.map_err(|error| Status::new(INVALID_ARGUMENT, &error.to_string()))?)
    }

    async fn body(&mut self) -> Result<Option<Bytes>, Early> {
        loop {
            if let Some(body) = self.split()? {
                return Ok(Some(body));
            }
            let Some(data) = self.incoming.data().await else {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(Status::new(INVALID_ARGUMENT, "the message is incomplete").into())
                };
            };
            let data = data?;
            self.incoming.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }

    fn split(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((&[compressed, a, b, c, d], rest)) = self.buffer.split_first_chunk() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::new(UNIMPLEMENTED, "no compression is supported"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(Status::new(RESOURCE_EXHAUSTED, "the message is too large"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}
