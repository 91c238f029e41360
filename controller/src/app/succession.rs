//! What comes from the process before this one, and goes to the one after it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, Weak};

use gateway::{HandedSocket, Running};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::live;
use crate::lifecycle::Phase;
use crate::takeover::{self, Handed, Offer, Predecessor, Purpose};

/// Sockets of the process before this one.
#[derive(Default)]
pub(super) struct Heritage {
    pub(super) gateway: Vec<HandedSocket>,
    pub(super) admin: Option<(SocketAddr, std::net::TcpListener)>,
}

impl Heritage {
    /// Asks for them, where there is such a process.
    pub(super) async fn of(path: Option<&Path>) -> anyhow::Result<(Self, Option<Predecessor>)> {
        let mut heritage = Self::default();
        let Some(path) = path else {
            return Ok((heritage, None));
        };
        let Some((sockets, predecessor)) = takeover::ask(path).await? else {
            return Ok((heritage, None));
        };
        for Handed {
            purpose,
            address,
            socket,
        } in sockets
        {
            let datagrams = match purpose {
                Purpose::Tcp => false,
                Purpose::Udp => true,
                Purpose::Admin => {
                    heritage.admin = Some((address, socket.into()));
                    continue;
                }
            };
            heritage.gateway.push(HandedSocket {
                datagrams,
                address,
                socket,
            });
        }
        Ok((heritage, Some(predecessor)))
    }
}

/// Takes the place of one process and gives it to another one.
pub(super) struct Succession {
    /// Where they meet.
    pub(super) path: PathBuf,
    pub(super) predecessor: Option<Predecessor>,
    /// The socket for operators.
    pub(super) admin: (SocketAddr, OwnedFd),
    pub(super) running: Weak<OnceLock<Running>>,
    /// Told as soon as another process serves.
    pub(super) relieved: watch::Sender<bool>,
}

impl Succession {
    /// Tells the process before this one as soon as this one serves, then waits for the next one.
    pub(super) async fn run(
        self,
        mut phase: watch::Receiver<Phase>,
        fail: mpsc::Sender<anyhow::Error>,
    ) {
        let Self {
            path,
            predecessor,
            admin,
            running,
            relieved,
        } = self;
        let serving = phase.wait_for(|phase| *phase >= Phase::Serving);
        if serving.await.is_err() {
            return; // the process ends
        }
        let offer = match Offer::new(&path) {
            Ok(offer) => offer,
            Err(error) => {
                // The process before this one has not been told, and goes on. An error here means that the process is ending already.
                let _ = fail.send(error).await;
                return;
            }
        };
        if let Some(predecessor) = predecessor {
            predecessor.relieve().await;
        }
        let sockets = || {
            let (address, socket) = &admin;
            let mut all = vec![Handed {
                purpose: Purpose::Admin,
                address: *address,
                socket: socket.try_clone()?,
            }];
            let sockets = live::ask(&running, Running::sockets)
                .unwrap_or_else(|| Err(std::io::Error::other("nothing is served")))?;
            all.extend(sockets.into_iter().map(|socket| Handed {
                purpose: if socket.datagrams {
                    Purpose::Udp
                } else {
                    Purpose::Tcp
                },
                address: socket.address,
                socket: socket.socket,
            }));
            Ok(all)
        };
        offer.handed_over(sockets).await;
        if relieved.send(true).is_err() {
            warn!("Another process serves, and this one ends already");
        }
        // Its copies of sockets go here: what is left belongs to the other process.
    }
}
