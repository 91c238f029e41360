//! An origin server: a backend that says who it is and what it was asked.
//!
//! On one port it speaks HTTP/1.1, HTTP/2 with prior knowledge, gRPC (`origin.proto`) and, at `/ws`, WebSocket; on a port
//! with TLS the same, with HTTP/2 by ALPN. Every answer carries `x-backend` with the server's name. The query of a
//! request orders the answer: see [`Order`]. `/healthz` and `/readyz` are for probes.

mod grpc;
mod http1;
mod http2;
mod order;
mod site;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

pub use order::{Fault, MAX_BODY, Order};
pub use site::{Place, Site};
pub use tls::{from_files, untrusted};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use site::{Peer, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Tells servers to end.
#[derive(Debug)]
pub struct Close(watch::Sender<bool>);

impl Close {
    /// From now on no connection is accepted, idle ones are closed, and the others are after the answer that is under way.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// What a server hears from its [`Close`].
#[derive(Clone, Debug)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    async fn begun(&mut self) {
        if self.0.wait_for(|closing| *closing).await.is_err() {
            // There is nobody left who could tell it.
            std::future::pending::<()>().await;
        }
    }

    fn has_begun(&self) -> bool {
        *self.0.borrow()
    }
}

/// How servers are told to end.
pub fn closing() -> (Close, Closing) {
    let (sender, receiver) = watch::channel(false);
    (Close(sender), Closing(receiver))
}

/// Binds an address for a site. Port 0 lets the system choose.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Answers on this listener, with TLS if there is a configuration for it, until it fails or is told to end and the last
/// answer has been given.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    tls: Option<Arc<ServerConfig>>,
    mut closing: Closing,
) -> io::Result<()> {
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = closing.begun() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let (site, closing) = (site.clone(), closing.clone());
                match tls.clone() {
                    None => connections.spawn(plain(stream, address, site, closing)),
                    Some(tls) => connections.spawn(secure(stream, address, tls, site, closing)),
                };
            }
            // One connection failed before it was accepted, or descriptors ran out: neither ends the server.
            Err(error) if error.raw_os_error().is_some() => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Starts a site on a loopback port that the system chooses.
pub async fn start(site: Site) -> io::Result<SocketAddr> {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, site, None, closing().1));
    Ok(address)
}

// A client that goes away or breaks the protocol ends its own connection and concerns nobody else.

async fn plain(mut stream: TcpStream, address: SocketAddr, site: Site, closing: Closing) {
    let _ = stream.set_nodelay(true);
    let peer = Peer { address, tls: None };
    match http1::serve(&mut stream, &site, &peer, closing.clone()).await {
        Ok(http1::End::Http2(read)) => {
            let (reader, writer) = stream.into_split();
            let io = tokio::io::join(io::Cursor::new(read).chain(reader), writer);
            let _ = http2::serve(io, site, peer, closing).await;
        }
        Ok(http1::End::Reset) => drop(stream.set_zero_linger()),
        Ok(http1::End::Closed) | Err(_) => {}
    }
}

async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    site: Site,
    closing: Closing,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let session = stream.get_ref().1;
    let version = session.protocol_version();
    let peer = Peer {
        address,
        tls: Some(Session {
            version: version
                .and_then(|version| version.as_str())
                .unwrap_or("?")
                .replace("v1_", "v1."),
            sni: session.server_name().map(str::to_owned),
        }),
    };
    if session.alpn_protocol() == Some(b"h2") {
        let _ = http2::serve(stream, site, peer, closing).await;
        return;
    }
    match http1::serve(&mut stream, &site, &peer, closing).await {
        Ok(http1::End::Closed) => drop(stream.shutdown().await),
        Ok(http1::End::Reset) => drop(stream.get_ref().0.set_zero_linger()),
        // Over TLS, ALPN decides.
        Ok(http1::End::Http2(_)) | Err(_) => {}
    }
}
