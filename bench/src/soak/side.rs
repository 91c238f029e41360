//! Clients beside those over TLS: plain HTTP in both versions, WebSocket, gRPC, and those of the Service one of whose
//! endpoints is in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use rustls::pki_types::CertificateDer;

use super::gateways::Doors;
use super::world::{CALLS, PLAIN, TROUBLED};
use crate::certs;
use crate::load::{self, Answer, Body, Shape, Target, Traffic, Version};

/// Bytes of a message.
const MESSAGE: usize = 200;
/// The unary method of the backend.
const METHOD: &str = "/lockgate.origin.Origin/Echo";

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A description of the request.
    Plain,
    /// Messages that come back.
    Socket,
    /// Unary calls.
    Call,
    /// A description, from a Service one of whose endpoints is in trouble. A GET may be sent again, so none may fail.
    Troubled,
    /// The same with a method that may not be sent again: one that had reached the endpoint fails with it.
    TroubledPost,
}

impl Kind {
    fn host(self) -> &'static str {
        match self {
            Self::Plain | Self::Socket => PLAIN,
            Self::Call => CALLS,
            Self::Troubled | Self::TroubledPost => TROUBLED,
        }
    }
}

/// One kind of client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) tls: bool,
    pub(super) shape: Shape,
}

const HTTP1: Shape = Shape {
    version: Version::Http1,
    connections: 4,
    streams: 1,
    renew_after: Some(100),
    rate: Some(100.0),
    timeout: Duration::from_secs(20),
};
const HTTP2: Shape = Shape {
    version: Version::Http2,
    connections: 2,
    streams: 4,
    renew_after: Some(400),
    ..HTTP1
};
const SOCKETS: Shape = Shape {
    version: Version::WebSocket,
    renew_after: Some(50),
    rate: Some(50.0),
    ..HTTP1
};

const fn side(name: &'static str, kind: Kind, tls: bool, shape: Shape) -> Side {
    Side {
        name,
        kind,
        tls,
        shape,
    }
}

/// All of them.
pub(super) const SIDES: [Side; 8] = [
    side("plain HTTP/1.1", Kind::Plain, false, HTTP1),
    side("plain HTTP/2", Kind::Plain, false, HTTP2),
    side("WebSocket", Kind::Socket, false, SOCKETS),
    side("WebSocket, TLS", Kind::Socket, true, SOCKETS),
    side("gRPC, TLS", Kind::Call, true, HTTP2),
    side("troubled, HTTP/1.1", Kind::Troubled, false, HTTP1),
    side("troubled, HTTP/2", Kind::Troubled, true, HTTP2),
    side(
        "troubled, POST",
        Kind::TroubledPost,
        false,
        Shape {
            rate: Some(30.0),
            ..HTTP1
        },
    ),
];

/// Sends the requests of one kind and judges the answers.
#[derive(Debug)]
pub(super) struct SideTraffic {
    kind: Kind,
    tls: bool,
    doors: Arc<Doors>,
    message: Bytes,
    call: Bytes,
    /// Requests that may not be sent again and have failed with their endpoint.
    excepted: Arc<AtomicU64>,
}

impl SideTraffic {
    pub(super) fn new(side: &Side, doors: &Arc<Doors>, excepted: &Arc<AtomicU64>) -> Self {
        Self {
            kind: side.kind,
            tls: side.tls,
            doors: Arc::clone(doors),
            message: Bytes::from(vec![b'm'; MESSAGE]),
            call: load::grpc_message(MESSAGE),
            excepted: Arc::clone(excepted),
        }
    }
}

impl Traffic for SideTraffic {
    /// The path that was asked for.
    type Mark = String;

    fn target(&self, _: u64) -> Target {
        let host = self.kind.host();
        Target {
            address: self.doors.address(self.tls),
            server_name: self.tls.then(|| certs::server_name(host).ok()).flatten(),
            authority: host.into(),
        }
    }

    fn opening(&self, _: &Target) -> String {
        String::new()
    }

    fn opened(
        &self,
        _: &Target,
        _: String,
        _: Option<&CertificateDer<'static>>,
    ) -> Result<(), String> {
        Ok(()) // rustls has verified the name
    }

    fn request(&self, target: &Target, number: u64) -> (Request<Body>, String) {
        let (path, body) = match self.kind {
            Kind::Plain | Kind::Troubled => (format!("/side/{number}"), Bytes::new()),
            Kind::TroubledPost => (format!("/side/{number}"), self.message.clone()),
            Kind::Socket => ("/ws".to_owned(), self.message.clone()),
            Kind::Call => (METHOD.to_owned(), self.call.clone()),
        };
        let mut request = Request::new(Body::new(body));
        if self.kind == Kind::TroubledPost {
            *request.method_mut() = Method::POST;
        }
        let scheme = if self.tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}{path}", target.authority);
        *request.uri_mut() = uri.parse().unwrap_or_default();
        if self.kind == Kind::Call {
            load::make_grpc(&mut request);
        }
        (request, path)
    }

    fn judge(&self, _: &Target, path: String, answer: &Answer) -> Result<(), String> {
        let Answer { status, length, .. } = answer;
        let wanted = match self.kind {
            Kind::Socket => {
                let same = answer.start.iter().all(|byte| *byte == b'm');
                return (*length == MESSAGE as u64 && same)
                    .then_some(())
                    .ok_or_else(|| format!("another message of {length} bytes"));
            }
            Kind::Call => return load::judge_grpc(answer),
            Kind::TroubledPost if matches!(status.as_u16(), 502 | 504) => {
                self.excepted.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Kind::Plain | Kind::Troubled | Kind::TroubledPost => format!("\"path\": \"{path}\""),
        };
        let text = String::from_utf8_lossy(&answer.start);
        (*status == 200 && text.contains(&wanted))
            .then_some(())
            .ok_or_else(|| format!("status {status} for {path}: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn traffic(kind: Kind) -> SideTraffic {
        let side = SIDES.iter().find(|side| side.kind == kind).unwrap();
        SideTraffic::new(side, &Arc::default(), &Arc::default())
    }

    fn answer(status: u16, text: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            length: text.len() as u64,
            start: Bytes::copy_from_slice(text.as_bytes()),
            trailers: HeaderMap::new(),
        }
    }

    #[test]
    fn only_what_may_not_be_sent_again_may_fail_with_its_endpoint() {
        for (kind, excepted) in [(Kind::Troubled, 0), (Kind::TroubledPost, 2)] {
            let traffic = traffic(kind);
            let judge = |status, text: &str| {
                traffic
                    .judge(
                        &traffic.target(0),
                        "/side/4".to_owned(),
                        &answer(status, text),
                    )
                    .is_ok()
            };
            assert!(judge(200, "{\"path\": \"/side/4\"}"));
            assert!(!judge(200, "{\"path\": \"/side/5\"}"), "another's answer");
            assert!(!judge(503, ""), "there are endpoints");
            for status in [502, 504] {
                assert_eq!(judge(status, ""), excepted > 0, "{kind:?}: {status}");
            }
            assert_eq!(traffic.excepted.load(Ordering::Relaxed), excepted);
        }
    }

    #[test]
    fn messages_and_calls_are_looked_at() {
        let socket = traffic(Kind::Socket);
        let judge = |text: &str| {
            let target = socket.target(0);
            socket
                .judge(&target, String::new(), &answer(101, text))
                .is_ok()
        };
        assert!(judge(&"m".repeat(MESSAGE)));
        assert!(!judge(&"m".repeat(MESSAGE - 1)), "cut");
        assert!(!judge(&"n".repeat(MESSAGE)), "another one");
        let call = traffic(Kind::Call);
        let mut answered = answer(200, "");
        let target = call.target(0);
        assert!(
            call.judge(&target, String::new(), &answered).is_err(),
            "no status"
        );
        let status = HeaderValue::from_static("0");
        answered.trailers.insert("grpc-status", status);
        assert!(call.judge(&target, String::new(), &answered).is_ok());
    }
}
