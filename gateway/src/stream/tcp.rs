//! Connections that are passed on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use metrics::{counter, gauge};
use model::HostName;
use socket2::SockRef;
use table::{CompiledStream, Table};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::record::{Ending, Record};
use super::routes::Entrance;
use super::{StreamWorker, both_ways, endpoint};
use crate::drain::{Acceptor, Slot, Stage};
use crate::front::conn::Socket;
use crate::front::{Refusal, canonical, proxy_protocol, timed_out, too_many};
use crate::{listen, telemetry};

/// A client's connection, with what is known of it.
#[derive(Debug)]
pub(crate) struct Downstream {
    pub(crate) socket: TcpStream,
    /// What has been read already.
    pub(crate) first: Bytes,
    pub(crate) peer: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) proxied: bool,
    pub(crate) server_name: Option<HostName>,
    /// Its place in the count of connections.
    pub(crate) slot: Slot,
}

/// A connection and where it goes.
#[derive(Debug)]
pub(crate) struct PassedOn {
    pub(crate) entrance: Entrance,
    pub(crate) stream: Arc<CompiledStream>,
    /// The table in which `stream` was found.
    pub(crate) table: Arc<Table>,
    pub(crate) client: Downstream,
}

impl StreamWorker {
    /// Passes a connection on until it ends.
    pub(crate) async fn serve(self: Arc<Self>, passed: PassedOn) {
        let PassedOn {
            entrance,
            stream,
            table,
            client,
        } = passed;
        let mut record = Record::new(&self, entrance, &stream, client.peer);
        record.facts.client = client.client;
        record.facts.proxied = client.proxied;
        record.facts.server_name.clone_from(&client.server_name);
        self.tidy(&table);
        record.ending = self.pass(&mut record, &stream, table, client).await;
    }

    async fn pass(
        &self,
        record: &mut Record,
        stream: &CompiledStream,
        table: Arc<Table>,
        client: Downstream,
    ) -> Ending {
        let (mut upstream, _in_flight) = match self.connect(&table, stream, record).await {
            Ok(connected) => connected,
            Err(ending) => return ending,
        };
        // A stream may last for days.
        drop(table);
        let Downstream {
            mut socket,
            first,
            client: from,
            local,
            slot: _slot,
            ..
        } = client;
        let first = if stream.proxy_out {
            let mut bytes = BytesMut::from(header(from, local).as_bytes());
            bytes.extend_from_slice(&first);
            bytes.freeze()
        } else {
            first
        };
        record.touch();
        let idle = endpoint::seconds(stream.rules.idle);
        let ending = tokio::select! {
            ending = both_ways::pass(&mut socket, &mut upstream, first, record, idle) => ending,
            () = record.route.over() => Ending::RouteGone,
        };
        // What was cut off must not look complete to the other side.
        if ending == Ending::ClientReset {
            reset(&upstream);
        } else if ending == Ending::UpstreamReset {
            reset(&socket);
        }
        ending
    }
}

/// Lets the other side know that this is no regular end.
fn reset(connection: &TcpStream) {
    // Without it the end looks regular, which is no reason to fail.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// The header of the PROXY protocol, version 1.
fn header(client: SocketAddr, local: SocketAddr) -> String {
    let family = match (client.ip(), local.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return "PROXY UNKNOWN\r\n".to_owned();
        }
    };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        local.ip(),
        client.port(),
        local.port()
    )
}

/// One socket's accept loop.
pub(super) struct Accept {
    pub(super) worker: Arc<StreamWorker>,
    pub(super) port: u16,
    /// Counts this loop.
    pub(super) _acceptor: Acceptor,
}

impl Accept {
    /// Accepts until the port is closed or the process drains.
    pub(super) async fn run(
        self,
        socket: std::net::TcpListener,
        mut closed: watch::Receiver<bool>,
    ) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, port = self.port, "Cannot register a listening socket");
                return;
            }
        };
        let mut stage = self.worker.tracker.stage();
        let mut exhausted = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return,
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => break,
                accepted = self.worker.tracker.accept(&listener) => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    exhausted = false;
                    self.begin(socket, peer);
                }
                Err(error) if listen::is_about_one_connection(&error) => {
                    debug!(%error, "Lost a connection before it was accepted");
                }
                Err(error) => {
                    counter!(telemetry::ACCEPT_ERRORS, "listener" => self.label()).increment(1);
                    if !exhausted {
                        warn!(%error, port = self.port, "Cannot accept connections");
                    }
                    exhausted = true;
                    sleep(listen::EXHAUSTED_PAUSE).await;
                }
            }
        }
        if !self.worker.tracker.is_handed_over() {
            self.accept_rest(listener);
        }
    }

    /// Takes what the kernel has queued already: closing the socket would reset it.
    fn accept_rest(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for (socket, peer) in listen::queued(&listener, listen::QUEUED) {
            let socket = socket
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(socket));
            if let Ok(socket) = socket {
                self.begin(socket, peer);
            }
        }
    }

    fn label(&self) -> String {
        Entrance::Tcp(self.port).to_string()
    }

    fn begin(&self, socket: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.worker.tracker.open() else {
            counter!(telemetry::CONNECTIONS_REFUSED, "listener" => self.label(), "reason" => "limit")
                .increment(1);
            return;
        };
        let (worker, port) = (Arc::clone(&self.worker), self.port);
        tokio::spawn(async move {
            let label = Entrance::Tcp(port).to_string();
            counter!(telemetry::CONNECTIONS, "listener" => label.clone()).increment(1);
            let open = gauge!(telemetry::CONNECTIONS_OPEN, "listener" => label);
            open.increment(1);
            let served = AssertUnwindSafe(connection(worker, port, socket, peer, slot));
            if served.catch_unwind().await.is_err() {
                error!(%peer, "A connection ended in a panic");
            }
            open.decrement(1);
        });
    }
}

/// A connection from its first byte to its last.
async fn connection(
    worker: Arc<StreamWorker>,
    port: u16,
    socket: TcpStream,
    peer: SocketAddr,
    slot: Slot,
) {
    let table = worker.shared.tables.pin();
    let Some(stream) = table.streams().tcp.get(&port).cloned() else {
        return; // the port is about to be closed
    };
    let mut downstream = match addresses(socket, peer, slot) {
        Ok(downstream) => downstream,
        Err(error) => return debug!(%peer, %error, "Lost a connection as it was accepted"),
    };
    if stream.proxy_in {
        let limit = worker.shared.settings.limits.proxy_header_timeout;
        let mut trusted = table.streams().proxy_protocol_from.iter();
        let trusted = trusted.any(|network| network.contains(&downstream.peer.ip()));
        let read = async {
            if !trusted {
                let error = io::Error::other("this peer may not speak for clients");
                return Err(("proxy-protocol-untrusted", error));
            }
            timeout(limit, proxied(downstream))
                .await
                .map_err(|_| ("proxy-protocol-timeout", timed_out()))?
        };
        downstream = match read.await {
            Ok(downstream) => downstream,
            Err((reason, error)) => {
                let listener = Entrance::Tcp(port).to_string();
                counter!(telemetry::CONNECTIONS_REFUSED, "listener" => listener, "reason" => reason)
                    .increment(1);
                return debug!(%peer, port, reason, %error, "Refused a connection");
            }
        };
    }
    if !downstream.slot.claim(downstream.client.ip()) {
        let Refusal { reason, error, .. } = too_many();
        let listener = Entrance::Tcp(port).to_string();
        counter!(telemetry::CONNECTIONS_REFUSED, "listener" => listener, "reason" => reason)
            .increment(1);
        return debug!(%peer, port, reason, %error, "Refused a connection");
    }
    let passed = PassedOn {
        entrance: Entrance::Tcp(port),
        stream,
        table,
        client: downstream,
    };
    worker.serve(passed).await;
}

fn addresses(socket: TcpStream, peer: SocketAddr, slot: Slot) -> io::Result<Downstream> {
    let peer = canonical(peer);
    Ok(Downstream {
        local: canonical(socket.local_addr()?),
        socket,
        first: Bytes::new(),
        peer,
        client: peer,
        proxied: false,
        server_name: None,
        slot,
    })
}

/// Takes the header of the PROXY protocol off.
async fn proxied(mut downstream: Downstream) -> Result<Downstream, (&'static str, io::Error)> {
    let mut socket = Socket::new(downstream.socket);
    let header = proxy_protocol::read(&mut socket)
        .await
        .map_err(|error| (error.reason(), error.into()))?;
    (downstream.socket, downstream.first) = socket.into_parts();
    if let Some(addresses) = header {
        downstream.client = canonical(addresses.client);
        downstream.local = canonical(addresses.local);
        downstream.proxied = true;
    }
    Ok(downstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_both_ends() {
        for (client, local, want) in [
            (
                "192.0.2.7:4242",
                "10.0.0.1:443",
                "PROXY TCP4 192.0.2.7 10.0.0.1 4242 443\r\n",
            ),
            (
                "[2001:db8::7]:4242",
                "[2001:db8::1]:443",
                "PROXY TCP6 2001:db8::7 2001:db8::1 4242 443\r\n",
            ),
            ("192.0.2.7:4242", "[2001:db8::1]:443", "PROXY UNKNOWN\r\n"),
        ] {
            let got = header(client.parse().unwrap(), local.parse().unwrap());
            assert_eq!(got, want);
        }
    }
}
