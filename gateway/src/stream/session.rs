//! One client of UDP.
//!
//! A client, which is an address and a port, has a socket of its own towards an endpoint, so that answers find their way
//! back, until nobody has said anything for a while. A client that has its answers is not waited for much longer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::counter;
use model::EndpointSet;
use table::CompiledStream;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

use super::StreamWorker;
use super::endpoint::{Chosen, seconds};
use super::record::{Ending, Record};
use super::routes::Entrance;
use crate::drain::{SessionSlot, Stage};
use crate::telemetry;

/// As much as a datagram can hold.
pub(super) const LARGEST: usize = 65_535;

/// Datagrams of one client that may wait for its endpoint to be chosen.
pub(super) const WAITING: usize = 64;

/// How long a client that has its answers may be silent.
const ANSWERED: Duration = Duration::from_secs(10);

/// How long a client may be silent while the process drains.
const LEAVING: Duration = Duration::from_secs(2);

/// What a client's session is told.
pub(super) enum Message {
    Datagram(Vec<u8>),
    End(Ending),
}

/// Counts a datagram that goes nowhere.
pub(super) fn count_dropped(port: u16, reason: &'static str) {
    let entrance = Entrance::Udp(port).to_string();
    counter!(telemetry::DATAGRAMS_DROPPED, "entrance" => entrance, "reason" => reason).increment(1);
}

/// Milliseconds since the process began to look at the clock.
pub(super) fn millis(now: Instant) -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let since = now.saturating_duration_since(*START).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// Tells the receiving side when it is dropped.
pub(super) struct Over(mpsc::UnboundedSender<(SocketAddr, u64)>, SocketAddr, u64);

impl Over {
    pub(super) fn new(
        to: mpsc::UnboundedSender<(SocketAddr, u64)>,
        client: SocketAddr,
        number: u64,
    ) -> Self {
        Self(to, client, number)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        // Nobody hears it once the port is closed.
        let _ = self.0.send((self.1, self.2));
    }
}

/// One client.
pub(super) struct Session {
    pub(super) worker: Arc<StreamWorker>,
    pub(super) port: u16,
    pub(super) stream: Arc<CompiledStream>,
    pub(super) record: Record,
    pub(super) client: SocketAddr,
    /// Where answers go out: from the address that the client knows.
    pub(super) answers: Arc<UdpSocket>,
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) touched: Arc<AtomicU64>,
    pub(super) over: Over,
    pub(super) _slot: SessionSlot,
}

/// What happens next to a client.
enum Turn {
    Forward(Vec<u8>),
    Backward(io::Result<()>),
    Leave,
}

/// The way to the endpoint of a client.
struct Link {
    socket: UdpSocket,
    chosen: Chosen,
    /// The table that it has been compared with.
    generation: u64,
}

impl Session {
    /// Serves the client until it has nothing more to say.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        self.record.ending = self.exchange(&mut inbox).await;
        // Its line is written before another session of the same client can begin.
        let Self {
            record,
            answers,
            over,
            ..
        } = self;
        drop(record);
        drop(answers);
        drop(over);
    }

    async fn exchange(&mut self, inbox: &mut mpsc::Receiver<Message>) -> Ending {
        let mut stage = self.worker.tracker.stage();
        let mut leaving = false;
        let mut link: Option<Link> = None;
        let route = Arc::clone(&self.record.route);
        let gone = route.over();
        tokio::pin!(gone);
        self.touch();
        loop {
            let silent_at = self.record.touched() + self.patience(leaving);
            let turn = tokio::select! {
                message = inbox.recv() => match message {
                    Some(Message::Datagram(datagram)) => Turn::Forward(datagram),
                    Some(Message::End(ending)) => return ending,
                    None => return Ending::Displaced,
                },
                ready = readable(link.as_ref()) => Turn::Backward(ready),
                _ = stage.wait_for(|stage| *stage >= Stage::Draining), if !leaving => Turn::Leave,
                () = &mut gone => return Ending::RouteGone,
                () = sleep_until(silent_at.into()) => {
                    return if self.is_answered() { Ending::Done } else { Ending::Idle };
                }
            };
            match turn {
                Turn::Forward(datagram) => {
                    if let Err(ending) = self.forward(&mut link, &datagram).await {
                        return ending;
                    }
                }
                Turn::Backward(ready) => {
                    let passed = match ready {
                        Ok(()) => self.backward(link.as_ref()).await,
                        Err(error) => Err(error),
                    };
                    if passed.is_err() {
                        give_up(&mut link);
                    }
                }
                Turn::Leave => leaving = true,
            }
        }
    }

    /// Sends a datagram to the endpoint, to another one if that one has been refused before.
    async fn forward(&mut self, link: &mut Option<Link>, datagram: &[u8]) -> Result<(), Ending> {
        self.touch();
        self.asked += 1;
        // What a datagram finds out about its endpoint may be about the one before it.
        for _ in 0..2 {
            if !self.is_current(link.as_mut()) {
                *link = None;
            }
            if link.is_none() {
                *link = Some(self.connect().await?);
            }
            let Some(way) = link.as_ref() else {
                return Ok(());
            };
            match way.socket.send(datagram).await {
                Ok(_) => {
                    self.record.received(datagram.len());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => give_up(link),
                Err(error) => {
                    debug!(%error, port = self.port, "Cannot send a datagram");
                    break;
                }
            }
        }
        count_dropped(self.port, "unreachable");
        Ok(())
    }

    /// Passes on what the endpoint says.
    async fn backward(&mut self, link: Option<&Link>) -> io::Result<()> {
        let Some(link) = link else {
            return Ok(());
        };
        let mut datagram = Vec::with_capacity(LARGEST);
        loop {
            datagram.clear();
            match link.socket.try_recv_buf(&mut datagram) {
                Ok(length) => {
                    self.touch();
                    self.answered += 1;
                    // It listens.
                    link.chosen.in_flight.endpoint().connected();
                    if self.answers.send_to(&datagram, self.client).await.is_ok() {
                        self.record.sent(length);
                    } else {
                        count_dropped(self.port, "client-unreachable");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Is the endpoint still one of those that a table has for this port?
    fn is_current(&self, link: Option<&mut Link>) -> bool {
        let Some(link) = link else {
            return true;
        };
        let table = self.worker.shared.tables.pin();
        if table.generation() == link.generation {
            return true;
        }
        link.generation = table.generation();
        let Some(stream) = table.streams().udp.get(&self.port) else {
            return true; // it ends with the port
        };
        let backend = table.backend(stream.slot);
        stream.backend == self.stream.backend
            && backend.is_some_and(|backend| {
                Arc::ptr_eq(&backend.endpoints, &link.chosen.of)
                    || match &*backend.endpoints {
                        EndpointSet::Addresses(all) => {
                            let address = link.chosen.address();
                            all.iter().any(|endpoint| endpoint.address == address)
                        }
                        EndpointSet::Dns { .. } => backend.endpoints == link.chosen.of,
                        EndpointSet::Invalid(_) => false,
                    }
            })
    }

    async fn connect(&mut self) -> Result<Link, Ending> {
        let table = self.worker.shared.tables.pin();
        if let Some(stream) = table.streams().udp.get(&self.port) {
            if stream.backend != self.stream.backend {
                return Err(Ending::RouteGone);
            }
            self.stream = Arc::clone(stream);
        } else {
            return Err(Ending::RouteGone);
        }
        self.worker.tidy(&table);
        let chosen = self.worker.choose(&table, &self.stream, &[]).await?;
        let address = chosen.address();
        self.record.facts.tries.push(address);
        let any: SocketAddr = if address.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let begun = Instant::now();
        let connect = async {
            let socket = UdpSocket::bind(any).await?;
            // Only this endpoint can answer, and the system tells when nobody is there.
            socket.connect(address).await?;
            Ok::<_, io::Error>(socket)
        };
        match connect.await {
            Ok(socket) => {
                chosen.series.connects.increment(1);
                self.record.facts.connected = Some(begun.elapsed());
                Ok(Link {
                    socket,
                    chosen,
                    generation: table.generation(),
                })
            }
            Err(error) => {
                debug!(%error, %address, "Cannot open a socket for datagrams");
                chosen.in_flight.endpoint().refused();
                chosen
                    .series
                    .connect_failed(&Ending::ConnectFailed.reason());
                Err(Ending::ConnectFailed)
            }
        }
    }

    fn patience(&self, leaving: bool) -> Duration {
        let idle = seconds(self.stream.rules.idle);
        let answered = self.is_answered().then_some(ANSWERED);
        let leaving = leaving.then_some(LEAVING);
        [answered, leaving]
            .into_iter()
            .flatten()
            .fold(idle, Duration::min)
    }

    /// As many answers have come as were asked for.
    fn is_answered(&self) -> bool {
        let expected = u64::from(self.stream.rules.responses);
        self.asked > 0 && self.answered >= self.asked.saturating_mul(expected)
    }

    fn touch(&self) {
        self.record.touch();
        self.touched
            .store(millis(Instant::now()), Ordering::Relaxed);
    }
}

/// Waits for something to read; without an endpoint for ever.
async fn readable(link: Option<&Link>) -> io::Result<()> {
    match link {
        Some(link) => link.socket.readable().await,
        None => std::future::pending().await,
    }
}

/// The endpoint does not listen on its port: another one is better for a while.
fn give_up(link: &mut Option<Link>) {
    if let Some(link) = link.take() {
        link.chosen.in_flight.endpoint().refused();
        link.chosen
            .series
            .connect_failed(&Ending::ConnectFailed.reason());
    }
}
