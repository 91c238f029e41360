//! What a server is called and what it says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::{Order, http1};

/// Where a server runs, as the pod's environment tells it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Place {
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// The Service that it belongs to.
    pub service: Option<String>,
    /// The node that it runs on.
    pub node: Option<String>,
}

/// What one server is called, and what it says when nobody orders anything else.
#[derive(Clone, Debug)]
pub struct Site {
    name: Arc<str>,
    place: Arc<Place>,
    /// Header block and body of the standing answer over HTTP/1.1.
    pub(super) standing: Option<Bytes>,
    body: Option<Bytes>,
    ready_at: Option<Instant>,
}

impl Site {
    /// A server of this name. With a `body_size`, every request without a query gets that many bytes; without one,
    /// the answer describes the request.
    pub fn new(name: &str, body_size: Option<usize>) -> Self {
        let body = body_size.map(|size| Bytes::from(vec![b'x'; size]));
        let standing = body.as_ref().map(|body| {
            let framing = http1::Framing::Length(body.len());
            let head = http1::head(200, name, Body::PLAIN, framing, true);
            Bytes::from([head.as_bytes(), body].concat())
        });
        Self {
            name: name.into(),
            place: Arc::default(),
            standing,
            body,
            ready_at: None,
        }
    }

    /// The same server, in this place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Arc::new(place);
        self
    }

    /// The same server, which answers `/readyz` with 503 until this time has passed.
    #[must_use]
    pub fn ready_after(mut self, time: Duration) -> Self {
        self.ready_at = Some(Instant::now() + time);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The status for a probe; `None` when the path is not one of a probe.
    pub(super) fn probe(&self, path: &str) -> Option<u16> {
        let ready = || self.ready_at.is_none_or(|at| at <= Instant::now());
        match path {
            "/healthz" => Some(200),
            "/readyz" => Some(if ready() { 200 } else { 503 }),
            _ => None,
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Session>,
}

/// What was agreed in a TLS handshake.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Session {
    pub(super) version: String,
    pub(super) sni: Option<String>,
}

/// A request as far as the answer depends on it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) protocol: &'static str,
    pub(super) received: u64,
    pub(super) peer: &'a Peer,
    /// In lower case; values in the order in which they came.
    pub(super) headers: BTreeMap<String, Vec<String>>,
}

/// What the answer holds.
pub(super) struct Body {
    pub(super) kind: &'static str,
    pub(super) data: Bytes,
}

impl Body {
    const PLAIN: &str = "text/plain";

    fn plain(data: Bytes) -> Self {
        Self {
            kind: Self::PLAIN,
            data,
        }
    }
}

#[derive(Serialize)]
struct Description<'a> {
    pod: &'a str,
    #[serde(flatten)]
    place: &'a Place,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    host: Option<&'a str>,
    protocol: &'a str,
    received: u64,
    client: SocketAddr,
    tls: Option<&'a Session>,
    headers: &'a BTreeMap<String, Vec<String>>,
}

impl Asked<'_> {
    fn describe(&self, site: &Site) -> Body {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        let description = Description {
            pod: site.name(),
            place: &site.place,
            method: self.method,
            path,
            query,
            host: self.host,
            protocol: self.protocol,
            received: self.received,
            client: self.peer.address,
            tls: self.peer.tls.as_ref(),
            headers: &self.headers,
        };
        let mut text = serde_json::to_string_pretty(&description).unwrap_or_default();
        text.push('\n');
        Body {
            kind: "application/json",
            data: text.into(),
        }
    }

    pub(super) fn body(&self, site: &Site, order: &Order) -> Body {
        match (order.size, &site.body) {
            (Some(length), _) => Body::plain(vec![b'x'; length].into()),
            (None, Some(body)) if !self.target.contains('?') => Body::plain(body.clone()),
            (None, _) => self.describe(site),
        }
    }
}
