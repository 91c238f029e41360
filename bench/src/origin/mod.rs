//! An origin server: a backend that says who it is and what it was asked.
//!
//! It speaks HTTP/1.1 and HTTP/2 with prior knowledge on the same port. Every answer carries `x-backend` with the
//! server's name. The query of a request orders the answer: see [`Order`].

mod http1;
mod http2;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

/// The largest body that an order may ask for.
pub const MAX_BODY: usize = 256 << 20;

/// What one server is called, and what it says when nobody orders anything else.
#[derive(Clone, Debug)]
pub struct Site {
    name: Arc<str>,
    /// Header block and body of the standing answer over HTTP/1.1.
    standing: Option<Bytes>,
    body: Option<Bytes>,
}

impl Site {
    /// A server of this name. With a `body_size`, every request without a query gets that many bytes; without one,
    /// the answer describes the request.
    pub fn new(name: &str, body_size: Option<usize>) -> Self {
        let body = body_size.map(|size| Bytes::from(vec![b'x'; size]));
        let standing = body.as_ref().map(|body| {
            let head = http1::head(200, name, http1::Framing::Length(body.len()), true);
            Bytes::from([head.as_bytes(), body].concat())
        });
        Self {
            name: name.into(),
            standing,
            body,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What the query of a request asks for, as in `/any/path?size=1000&delay=20`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Order {
    /// `status=N`: the status of the answer.
    pub status: u16,
    /// `size=N`: a body of that many bytes instead of the description.
    pub size: Option<usize>,
    /// `delay=MS`: wait before the answer begins.
    pub delay: Duration,
    /// `parts=N`: send the body in that many parts, without telling its length.
    pub parts: Option<usize>,
    /// `every=MS`: wait between the parts.
    pub every: Duration,
    /// `headers`: add the request's header fields to the description.
    pub headers: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            status: 200,
            size: None,
            delay: Duration::ZERO,
            parts: None,
            every: Duration::ZERO,
            headers: false,
        }
    }
}

impl Order {
    /// Reads the query of a request target; words it does not know mean nothing.
    pub fn parse(target: &str) -> Self {
        let mut order = Self::default();
        let Some((_, query)) = target.split_once('?') else {
            return order;
        };
        for word in query.split('&') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match (key, value.parse::<usize>()) {
                ("status", Ok(n @ 200..=599)) => order.status = u16::try_from(n).unwrap_or(200),
                ("size", Ok(n)) => order.size = Some(n.min(MAX_BODY)),
                ("delay", Ok(n)) => order.delay = Duration::from_millis(n as u64),
                ("parts", Ok(n)) => order.parts = Some(n.clamp(1, 10_000)),
                ("every", Ok(n)) => order.every = Duration::from_millis(n as u64),
                ("headers", _) => order.headers = true,
                _ => {}
            }
        }
        order
    }

    /// The sizes of the parts of a body of this length.
    fn parts_of(&self, length: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.parts.unwrap_or(1);
        (0..count).map(move |index| length * (index + 1) / count - length * index / count)
    }
}

/// A request as far as the answer depends on it.
struct Asked<'a> {
    method: &'a str,
    target: &'a str,
    version: &'static str,
    received: u64,
    headers: Vec<(String, String)>,
}

impl Asked<'_> {
    fn describe(&self, name: &str, order: &Order) -> String {
        let Self {
            method,
            target,
            version,
            received,
            headers,
        } = self;
        let mut text = format!(
            "backend: {name}\nmethod: {method}\ntarget: {target}\nversion: {version}\nreceived: {received} bytes\n"
        );
        if order.headers {
            for (key, value) in headers {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "> {key}: {value}");
            }
        }
        text
    }

    fn body(&self, site: &Site, order: &Order) -> Bytes {
        match (order.size, &site.body) {
            (Some(length), _) => Bytes::from(vec![b'x'; length]),
            (None, Some(body)) if !self.target.contains('?') => body.clone(),
            (None, _) => Bytes::from(self.describe(&site.name, order)),
        }
    }
}

/// Binds an address for a site. Port 0 lets the system choose.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Answers on this listener until it fails or the task is dropped.
pub async fn serve(listener: TcpListener, site: Site) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, site.clone()));
            }
            // One connection failed before it was accepted, or descriptors ran out: neither ends the server.
            Err(error) if error.raw_os_error().is_some() => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}

/// Starts a site on a loopback port that the system chooses.
pub async fn start(site: Site) -> io::Result<SocketAddr> {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, site));
    Ok(address)
}

async fn connection(mut stream: TcpStream, site: Site) {
    let _ = stream.set_nodelay(true);
    // A client that goes away or breaks the protocol ends its own connection and concerns nobody else.
    if let Ok(http1::End::Http2(read)) = http1::serve(&mut stream, &site).await {
        let (reader, writer) = stream.into_split();
        let io = tokio::io::join(io::Cursor::new(read).chain(reader), writer);
        let _ = http2::serve(io, site).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_orders_the_answer() {
        assert_eq!(Order::parse("/a"), Order::default());
        assert_eq!(
            Order::parse("/a?size=10&delay=5&parts=3&every=2&status=503&headers"),
            Order {
                status: 503,
                size: Some(10),
                delay: Duration::from_millis(5),
                parts: Some(3),
                every: Duration::from_millis(2),
                headers: true,
            }
        );
        assert_eq!(
            Order::parse("/?size=x&status=99&other"),
            Order::default(),
            "what makes no sense means nothing"
        );
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        for (length, count) in [(10, 3), (2, 5), (0, 1), (1000, 1000)] {
            let order = Order {
                parts: Some(count),
                ..Order::default()
            };
            let parts: Vec<usize> = order.parts_of(length).collect();
            assert_eq!((parts.len(), parts.iter().sum()), (count, length));
        }
    }
}
