//! Ports that come and go with the table.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::Origin;
use socket2::Socket;
use table::{CompiledStream, CompiledStreams, Reject};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use super::StreamWorker;
use super::tcp::Accept;
use super::udp::Receive;
use crate::Shared;
use crate::drain::{Stage, Tracker};
use crate::heritage::Heritage;
use crate::listen::{self, Transport, bind_each};

/// How long a port may take to be closed. Its tasks have nothing else to do, so this is never waited for in peace.
const CLOSING: Duration = Duration::from_secs(1);

/// A worker thread, as seen from outside.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) runtime: Handle,
    pub(crate) worker: Arc<StreamWorker>,
}

/// The ports that tables ask for.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    hosts: Vec<Host>,
    state: Mutex<State>,
    /// Sockets of another process, until the first table has said which of them are wanted.
    heritage: Heritage,
}

/// What has been done so far.
#[derive(Default)]
struct State {
    open: BTreeMap<(Transport, u16), Open>,
    /// What the last table asked for.
    seen: Option<Arc<CompiledStreams>>,
    /// All of it could be done.
    complete: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// A port that is open.
#[derive(Debug)]
struct Open {
    close: watch::Sender<bool>,
    /// One for each worker and address.
    tasks: Vec<JoinHandle<()>>,
}

impl Ports {
    /// With these sockets of another process.
    pub(crate) fn new(heritage: Heritage) -> Self {
        Self {
            heritage,
            ..Self::default()
        }
    }

    /// One more worker.
    pub(crate) fn add(&mut self, host: Host) {
        self.hosts.push(host);
    }

    /// Opens and closes what the table in force asks for. Returns what could not be opened.
    pub(crate) async fn update(&self, shared: &Shared, tracker: &Arc<Tracker>) -> Vec<Reject> {
        let mut state = self.state.lock().await;
        if *tracker.stage().borrow() >= Stage::Draining {
            return Vec::new();
        }
        let streams = Arc::clone(shared.tables.pin().streams());
        let same = state
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &streams));
        if same && state.complete {
            return Vec::new();
        }
        let farewell = shared.settings.stream_farewell;
        shared.streams.settle(&streams, farewell);
        let wanted = wanted(&streams);
        let open = &mut state.open;
        let gone: Vec<_> = open
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .copied()
            .collect();
        for key in gone {
            if let Some(port) = open.remove(&key) {
                tracker.estate.forget(key.0, key.1);
                port.close().await;
                info!(port = key.1, transport = ?key.0, "Closed a port");
            }
        }
        let mut rejects = Vec::new();
        for ((transport, port), stream) in wanted {
            if open.contains_key(&(transport, port)) {
                continue;
            }
            match self.open(shared, tracker, transport, port) {
                Ok(opened) => {
                    open.insert((transport, port), opened);
                    info!(port, ?transport, backend = %stream.backend, "Opened a port");
                }
                Err((address, error)) => rejects.push(Reject {
                    origin: Origin::clone(&stream.origin),
                    reason: format!(
                        "cannot listen on {address}: {}; nothing is passed on from there, and it is tried again",
                        listen::reason(&error)
                    ),
                }),
            }
        }
        self.heritage.clear();
        state.complete = rejects.is_empty();
        state.seen = Some(streams);
        rejects
    }

    fn open(
        &self,
        shared: &Shared,
        tracker: &Arc<Tracker>,
        transport: Transport,
        port: u16,
    ) -> Result<Open, (SocketAddr, io::Error)> {
        let addresses: Vec<SocketAddr> = shared
            .settings
            .port_addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        let mut sockets: Vec<Vec<Socket>> = Vec::new();
        for address in &addresses {
            let inherited = self.heritage.take(transport, *address);
            let workers = self.hosts.len();
            let bound = bind_each(*address, &addresses, workers, inherited, transport)
                .and_then(|bound| listening(bound.each, transport))
                .map_err(|error| (*address, error))?;
            for socket in &bound {
                let kept = tracker.estate.keep(transport, socket);
                kept.map_err(|error| (*address, error))?;
            }
            sockets.push(bound);
        }
        let close = watch::Sender::new(false);
        let mut tasks = Vec::new();
        for of_address in sockets {
            // There may be more sockets than workers, and each of them has its own queue.
            for (host, socket) in self.hosts.iter().cycle().zip(of_address) {
                let (worker, closed) = (Arc::clone(&host.worker), close.subscribe());
                tasks.push(match transport {
                    Transport::Tcp => {
                        let accept = Accept {
                            worker,
                            port,
                            _acceptor: tracker.acceptor(),
                        };
                        host.runtime.spawn(accept.run(socket.into(), closed))
                    }
                    Transport::Udp => {
                        let receive = Receive::run(worker, port, socket.into(), closed);
                        host.runtime.spawn(receive)
                    }
                });
            }
        }
        Ok(Open { close, tasks })
    }
}

impl Open {
    /// Lets go of the sockets. Afterwards they are closed.
    async fn close(self) {
        self.close.send_replace(true);
        for task in self.tasks {
            // A task that panicked has closed its socket too.
            let _ = timeout(CLOSING, task).await;
        }
    }
}

/// For every port of a table where it leads.
fn wanted(streams: &CompiledStreams) -> BTreeMap<(Transport, u16), &Arc<CompiledStream>> {
    let of = |transport| move |(port, stream): (&u16, _)| ((transport, *port), stream);
    let tcp = streams.tcp.iter().map(of(Transport::Tcp));
    let udp = streams.udp.iter().map(of(Transport::Udp));
    tcp.chain(udp).collect()
}

fn listening(sockets: Vec<Socket>, transport: Transport) -> io::Result<Vec<Socket>> {
    if transport == Transport::Tcp {
        for socket in &sockets {
            listen::listen(socket)?;
        }
    }
    Ok(sockets)
}
