//! The end of a gateway, and the count of connections that it waits for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use table::Reject;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::Shared;
use crate::front::crowd::{Crowd, Place};
use crate::heritage::{Estate, HandedSocket};
use crate::relief::{self, Pressure};
use crate::settings::Limits;
use crate::stream::Ports;
use crate::upstream::{BackendState, Checks, EndpointState};

/// How far a gateway is on its way out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    /// Connections are accepted.
    Serving,
    /// No connection is accepted, those that are open are asked to end.
    Draining,
    /// Whatever is left is dropped.
    Aborted,
}

/// The time between two connections that are accepted while memory is short.
const BREATH: Duration = Duration::from_millis(100);

/// Counts connections and tells everybody about the end.
#[derive(Debug)]
pub(crate) struct Tracker {
    stage: watch::Sender<Stage>,
    connections: AtomicUsize,
    limit: usize,
    /// From how many on they are short.
    many: usize,
    crowded: AtomicBool,
    /// How short memory is, and whether it is at all.
    pressure: watch::Sender<Pressure>,
    pressed: AtomicBool,
    /// Who has how many of them.
    crowd: Arc<Crowd>,
    /// Sockets for the process that comes after this one.
    pub(crate) estate: Estate,
    handed_over: AtomicBool,
    most_per_client: u32,
    /// Clients of UDP: they must not take the places of connections.
    sessions: AtomicUsize,
    acceptors: AtomicUsize,
    gone: Notify,
}

impl Tracker {
    /// For as many connections as the limits allow.
    pub(crate) fn new(limits: &Limits, keep_sockets: bool) -> Arc<Self> {
        Arc::new(Self {
            stage: watch::Sender::new(Stage::Serving),
            connections: AtomicUsize::new(0),
            limit: limits.max_connections,
            many: limits.max_connections - limits.max_connections / 16,
            crowded: AtomicBool::new(false),
            pressure: watch::Sender::new(Pressure::None),
            pressed: AtomicBool::new(false),
            crowd: Crowd::new(),
            estate: Estate::new(keep_sockets),
            handed_over: AtomicBool::new(false),
            most_per_client: limits.max_connections_per_client,
            sessions: AtomicUsize::new(0),
            acceptors: AtomicUsize::new(0),
            gone: Notify::new(),
        })
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Slot> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let slot = Slot {
            tracker: Arc::clone(self),
            place: None,
        };
        // Otherwise the slot is dropped here and takes itself out of the count.
        (before < self.limit).then_some(slot)
    }

    /// A place for one more client of UDP among `most`, if there is one.
    pub(crate) fn open_session(self: &Arc<Self>, most: usize) -> Option<SessionSlot> {
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let slot = SessionSlot(Arc::clone(self));
        // Otherwise the slot is dropped here and takes itself out of the count.
        (before < most).then_some(slot)
    }

    /// Counts one accept loop: until it has ended, connections may still appear.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Acceptor {
        self.acceptors.fetch_add(1, Ordering::Relaxed);
        Acceptor(Arc::clone(self))
    }

    /// Are places or memory short?
    pub(crate) fn is_short(&self) -> bool {
        let crowded = self.connections.load(Ordering::Relaxed) >= self.many;
        if self.crowded.swap(crowded, Ordering::Relaxed) != crowded {
            let level = |crowded| {
                if crowded {
                    Pressure::Shed
                } else {
                    Pressure::None
                }
            };
            relief::report("connections", level(!crowded), level(crowded));
        }
        crowded || self.pressed.load(Ordering::Relaxed)
    }

    fn press(&self, pressure: Pressure) {
        let before = self.pressure.send_replace(pressure);
        self.pressed
            .store(pressure != Pressure::None, Ordering::Relaxed);
        relief::report("memory", before, pressure);
    }

    /// Accepts a connection, later while memory is short.
    pub(crate) async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        self.breathe().await;
        listener.accept().await
    }

    /// Waits before a connection is accepted, as long as memory is short. It is never waited for long: a process whose
    /// tables alone are that large serves nevertheless.
    async fn breathe(&self) {
        if *self.pressure.borrow() < Pressure::Hold {
            return;
        }
        let mut pressure = self.pressure.subscribe();
        let relieved = pressure.wait_for(|pressure| *pressure < Pressure::Hold);
        // Fails when the sender is gone, and this holds it.
        let _ = timeout(BREATH, relieved).await;
    }

    /// Follows the stage.
    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Does another process accept from the same sockets?
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }

    fn advance(&self, to: Stage) {
        self.estate.clear();
        self.stage.send_if_modified(|stage| {
            let later = *stage < to;
            if later {
                *stage = to;
            }
            later
        });
    }

    fn idle(&self) -> bool {
        [&self.acceptors, &self.connections, &self.sessions]
            .iter()
            .all(|count| count.load(Ordering::Acquire) == 0)
    }
}

/// A place in the count of connections; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Slot {
    tracker: Arc<Tracker>,
    /// The same in the count of its client.
    place: Option<Place>,
}

impl Slot {
    /// Counts the connection as this client's as well. False if it has as many as it may have.
    #[must_use]
    pub(crate) fn claim(&mut self, client: IpAddr) -> bool {
        let tracker = &self.tracker;
        if tracker.most_per_client > 0 {
            self.place = tracker.crowd.enter(client, tracker.most_per_client);
            return self.place.is_some();
        }
        true
    }

    /// Is a connection to end with its response? At the end of a gateway, and while memory is short.
    pub(crate) fn ending(&self) -> bool {
        self.tracker.pressed.load(Ordering::Relaxed) || self.draining()
    }

    /// Has the end begun?
    pub(crate) fn draining(&self) -> bool {
        *self.tracker.stage.borrow() >= Stage::Draining
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.tracker.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tracker.gone.notify_waiters();
        }
    }
}

/// A place in the count of clients of UDP; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct SessionSlot(Arc<Tracker>);

impl Drop for SessionSlot {
    fn drop(&mut self) {
        if self.0.sessions.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.gone.notify_waiters();
        }
    }
}

/// One accept loop in the count.
#[derive(Debug)]
pub(crate) struct Acceptor(Arc<Tracker>);

impl Drop for Acceptor {
    fn drop(&mut self) {
        if self.0.acceptors.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.gone.notify_waiters();
        }
    }
}

/// A gateway that serves. Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ports: Ports,
    pub(crate) checks: Checks,
    pub(crate) workers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Stops accepting and asks clients to go: HTTP/1 responses say `Connection: close`, HTTP/2 connections get a
    /// GOAWAY, idle connections are closed. Requests that have begun are finished.
    pub fn drain(&self) {
        self.tracker.advance(Stage::Draining);
    }

    /// The same when another process has the same sockets and accepts from them: what waits in their queues is its.
    pub fn hand_over(&self) {
        self.tracker.handed_over.store(true, Ordering::Release);
        self.drain();
    }

    /// All sockets, for another process. There are none unless they are kept ([`crate::Settings::keep_sockets`]), and none
    /// once a drain has begun.
    pub fn sockets(&self) -> io::Result<Vec<HandedSocket>> {
        self.tracker.estate.copies()
    }

    /// Waits until a drain is complete: no socket listens, no connection is open and no request is running.
    pub async fn drained(&self) {
        let mut stage = self.tracker.stage();
        // Fails only when the sender is gone, and this holds it.
        let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
        loop {
            let gone = self.tracker.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.tracker.idle() {
                return;
            }
            gone.await;
        }
    }

    /// Ends everything now: connections are dropped in the middle of what they do.
    pub fn abort(&self) {
        self.tracker.advance(Stage::Aborted);
    }

    /// Ends everything now and waits for the worker threads. Blocks.
    pub fn join(mut self) -> io::Result<()> {
        self.abort();
        for worker in self.workers.drain(..) {
            worker
                .join()
                .map_err(|_| io::Error::other("a worker thread panicked"))?;
        }
        Ok(())
    }

    /// Opens and closes the ports that the table in force asks for, and looks which streams have lost their route.
    /// To be called after each table, and again while the result is not empty: it names the ports that could not be
    /// opened. Those of HTTP and HTTPS have no part in it. Includes [`Running::update_checks`].
    pub async fn update_ports(&self) -> Vec<Reject> {
        self.update_checks();
        self.ports.update(&self.shared, &self.tracker).await
    }

    /// Begins and ends the checks of endpoints that the table in force asks for. To be called after each table.
    pub fn update_checks(&self) {
        self.checks.update(&self.shared);
    }

    /// Says how short memory is. Idle connections are closed, or few accepted, until something else is said.
    pub fn press(&self, pressure: Pressure) {
        self.tracker.press(pressure);
    }

    /// How many client connections are open.
    pub fn connections(&self) -> usize {
        self.tracker.connections.load(Ordering::Relaxed)
    }

    /// What is known about each endpoint that requests were sent to.
    pub fn endpoint_state(&self) -> Vec<EndpointState> {
        self.shared.registry.states()
    }

    /// What is known about each backend that requests were sent to.
    pub fn backend_state(&self) -> Vec<BackendState> {
        self.shared.registry.groups()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort();
    }
}
