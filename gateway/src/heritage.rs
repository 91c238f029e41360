//! Listening sockets that go from one process to the next.
//!
//! Two processes that have the same socket share its queue: a connection that the kernel has accepted is served by one of
//! them, whichever closes the socket. Two sockets on the same port have a queue each, and what waits in that of the one
//! that is closed is lost.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use crate::listen::Transport;

/// A socket that one process has and another one gets.
#[derive(Debug)]
pub struct HandedSocket {
    /// Is it one for datagrams? Otherwise it is for connections.
    pub datagrams: bool,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket itself.
    pub socket: OwnedFd,
}

/// Sockets that came from another process, until somebody asks for their address.
#[derive(Debug, Default)]
pub(crate) struct Heritage(Mutex<BTreeMap<(Transport, SocketAddr), Vec<Socket>>>);

impl Heritage {
    pub(crate) fn new(handed: Vec<HandedSocket>) -> Self {
        let mut sockets: BTreeMap<_, Vec<Socket>> = BTreeMap::new();
        for HandedSocket {
            datagrams,
            address,
            socket,
        } in handed
        {
            let transport = Transport::of(datagrams);
            let of_address = sockets.entry((transport, address)).or_default();
            of_address.push(socket.into());
        }
        Self(Mutex::new(sockets))
    }

    /// All that listen there.
    pub(crate) fn take(&self, transport: Transport, address: SocketAddr) -> Vec<Socket> {
        let mut sockets = lock(&self.0);
        sockets.remove(&(transport, address)).unwrap_or_default()
    }

    /// Closes what nobody has asked for.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// Sockets of this process, for the one that comes after it.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    /// None is kept unless somebody may ask for it.
    kept: Option<Mutex<Vec<HandedSocket>>>,
}

impl Estate {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            kept: keep.then(Mutex::default),
        }
    }

    /// Keeps a second handle of a socket.
    pub(crate) fn keep(&self, transport: Transport, socket: &Socket) -> io::Result<()> {
        if let Some(kept) = &self.kept {
            let address = socket.local_addr()?.as_socket();
            let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
            let socket = socket.try_clone()?.into();
            lock(kept).push(HandedSocket {
                datagrams: transport == Transport::Udp,
                address,
                socket,
            });
        }
        Ok(())
    }

    /// Lets go of the sockets of a port that is closed.
    pub(crate) fn forget(&self, transport: Transport, port: u16) {
        if let Some(kept) = &self.kept {
            lock(kept).retain(|socket| {
                socket.address.port() != port || Transport::of(socket.datagrams) != transport
            });
        }
    }

    /// Lets go of all: from then on the kernel refuses what nobody else accepts.
    pub(crate) fn clear(&self) {
        if let Some(kept) = &self.kept {
            lock(kept).clear();
        }
    }

    /// One more handle of each.
    pub(crate) fn copies(&self) -> io::Result<Vec<HandedSocket>> {
        let Some(kept) = &self.kept else {
            return Ok(Vec::new());
        };
        let copy = |kept: &HandedSocket| {
            Ok(HandedSocket {
                datagrams: kept.datagrams,
                address: kept.address,
                socket: kept.socket.try_clone()?,
            })
        };
        lock(kept).iter().map(copy).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
