//! Datagrams that arrive at a port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::AHashMap;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::StreamWorker;
use super::record::{Ending, Record};
use super::routes::Entrance;
use super::session::{LARGEST, Message, Over, Session, WAITING, count_dropped, millis};
use crate::drain::Stage;
use crate::front::canonical;
use crate::listen;

/// Datagrams that are taken before anything else is looked at.
const BATCH: usize = 64;

/// How many clients are compared in search of one that has been silent for long.
const COMPARED: usize = 16;

/// One socket and the clients that it hears of.
pub(super) struct Receive {
    worker: Arc<StreamWorker>,
    port: u16,
    socket: Arc<UdpSocket>,
    clients: AHashMap<SocketAddr, Client>,
    /// Whoever has ended says so here.
    over: mpsc::UnboundedSender<(SocketAddr, u64)>,
    next: u64,
    draining: bool,
}

/// What the receiving side knows of a client.
struct Client {
    /// Two clients of the same address, one after the other, differ in it.
    number: u64,
    inbox: mpsc::Sender<Message>,
    touched: Arc<AtomicU64>,
}

/// What the receiving side waits for.
enum News {
    Closed,
    Draining,
    Over(SocketAddr, u64),
    Datagrams(io::Result<()>),
}

impl Receive {
    /// Receives until the port is closed. A drain lets no new client in; the socket stays, because the system spreads
    /// clients over the sockets that there are.
    pub(super) async fn run(
        worker: Arc<StreamWorker>,
        port: u16,
        socket: std::net::UdpSocket,
        mut closed: watch::Receiver<bool>,
    ) {
        let socket = match UdpSocket::from_std(socket) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return warn!(%error, port, "Cannot register a socket for datagrams"),
        };
        let (over, mut ended) = mpsc::unbounded_channel();
        let mut stage = worker.tracker.stage();
        let mut receive = Self {
            worker,
            port,
            socket,
            clients: AHashMap::new(),
            over,
            next: 0,
            draining: false,
        };
        let mut buffer = vec![0; LARGEST];
        loop {
            let news = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => News::Closed,
                _ = stage.wait_for(|stage| *stage >= Stage::Draining), if !receive.draining => {
                    if receive.worker.tracker.is_handed_over() {
                        // From now on somebody else reads from the same socket.
                        News::Closed
                    } else {
                        News::Draining
                    }
                }
                Some((client, number)) = ended.recv() => News::Over(client, number),
                ready = receive.socket.readable() => News::Datagrams(ready),
            };
            match news {
                News::Closed => {
                    // There are no connections that could be told apart from new ones.
                    receive.end_all(Ending::RouteGone);
                    drop(receive);
                    // The socket is theirs, too.
                    while ended.recv().await.is_some() {}
                    return;
                }
                News::Draining => receive.draining = true,
                News::Over(client, number) => {
                    let known = receive.clients.get(&client);
                    if known.is_some_and(|known| known.number == number) {
                        receive.clients.remove(&client);
                    }
                }
                News::Datagrams(ready) => {
                    if let Err(error) = ready.and_then(|()| receive.take(&mut buffer)) {
                        debug!(%error, port, "Cannot receive datagrams");
                        sleep(listen::EXHAUSTED_PAUSE).await;
                    }
                }
            }
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((length, client)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    self.datagram(datagram, client);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn datagram(&mut self, datagram: &[u8], client: SocketAddr) {
        if !self.clients.contains_key(&client) && !self.begin(client) {
            return;
        }
        let Some(known) = self.clients.get(&client) else {
            return;
        };
        match known.inbox.try_send(Message::Datagram(datagram.to_vec())) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.drop_for("busy"),
            // It is ending at this moment.
            Err(mpsc::error::TrySendError::Closed(message)) => {
                self.clients.remove(&client);
                if self.begin(client)
                    && let Some(known) = self.clients.get(&client)
                {
                    // A new inbox has room.
                    let _ = known.inbox.try_send(message);
                }
            }
        }
    }

    /// Makes room for a new client and lets it begin.
    fn begin(&mut self, client: SocketAddr) -> bool {
        if self.draining {
            self.drop_for("draining");
            return false;
        }
        let table = self.worker.shared.tables.pin();
        let Some(stream) = table.streams().udp.get(&self.port) else {
            return false; // the port is about to be closed
        };
        let most = self.worker.shared.settings.limits.max_udp_sessions;
        let slot = self.worker.tracker.open_session(most).or_else(|| {
            // It counts until it has ended, which it will: one more for a moment does no harm.
            self.displace_one();
            self.worker.tracker.open_session(most + COMPARED)
        });
        let Some(slot) = slot else {
            self.drop_for("limit");
            return false;
        };
        self.next += 1;
        let (inbox, messages) = mpsc::channel(WAITING);
        let touched = Arc::new(AtomicU64::new(millis(Instant::now())));
        let entrance = Entrance::Udp(self.port);
        let session = Session {
            record: Record::new(&self.worker, entrance, stream, canonical(client)),
            worker: Arc::clone(&self.worker),
            port: self.port,
            stream: Arc::clone(stream),
            client,
            answers: Arc::clone(&self.socket),
            asked: 0,
            answered: 0,
            touched: Arc::clone(&touched),
            over: Over::new(self.over.clone(), client, self.next),
            _slot: slot,
        };
        tokio::spawn(session.run(messages));
        let known = Client {
            number: self.next,
            inbox,
            touched,
        };
        self.clients.insert(client, known);
        true
    }

    /// Of a few clients the one that has been silent for the longest time has to go.
    fn displace_one(&mut self) {
        let some = self.clients.iter().take(COMPARED);
        let oldest = some.min_by_key(|(_, known)| known.touched.load(Ordering::Relaxed));
        let Some(client) = oldest.map(|(client, _)| *client) else {
            return;
        };
        if let Some(known) = self.clients.remove(&client) {
            // Dropping the inbox ends it as well.
            let _ = known.inbox.try_send(Message::End(Ending::Displaced));
        }
    }

    fn end_all(&mut self, ending: Ending) {
        self.clients.drain().for_each(|(_, known)| {
            let _ = known.inbox.try_send(Message::End(ending));
        });
    }

    fn drop_for(&self, reason: &'static str) {
        count_dropped(self.port, reason);
    }
}
