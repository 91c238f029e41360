//! The processes of Lockgate: one that stays, and one that is replaced again and again, as in a rolling update.
//!
//! Clients choose among those that are there when they connect, as a Service makes them do.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context as _, Result, ensure};

use crate::process::Lockgate;

/// Where one of the processes is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Door {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
}

impl From<&Lockgate> for Door {
    fn from(lockgate: &Lockgate) -> Self {
        Self {
            http: lockgate.http,
            https: lockgate.https,
        }
    }
}

/// The doors that new connections may go to.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: RwLock<Vec<Door>>,
    next: AtomicU64,
}

impl Doors {
    /// All of them.
    pub(super) fn all(&self) -> Vec<Door> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone()
    }

    /// The door for the next connection: each in turn.
    fn choose(&self) -> Option<Door> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(number).unwrap_or_default() % open.len().max(1);
        open.get(index).copied()
    }

    /// Where the next connection goes; nobody listens there while no door is open.
    pub(super) fn address(&self, tls: bool) -> SocketAddr {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        self.choose()
            .map_or(nobody, |door| if tls { door.https } else { door.http })
    }

    pub(super) fn set(&self, doors: Vec<Door>) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = doors;
    }
}

/// How the processes are started.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) binary: PathBuf,
    pub(super) manifests: PathBuf,
    /// Where logs go.
    pub(super) home: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl Recipe {
    async fn start(&self, number: u64) -> Result<Lockgate> {
        let log = self.home.join(format!("lockgate-{number}.log"));
        Lockgate::start(&self.binary, &self.manifests, &log, &self.arguments).await
    }
}

/// Two processes.
#[derive(Debug)]
pub(super) struct Gateways {
    recipe: Recipe,
    pub(super) stays: Lockgate,
    rolls: Lockgate,
    started: u64,
}

impl Gateways {
    pub(super) async fn start(recipe: Recipe, doors: &Doors) -> Result<Self> {
        let (stays, rolls) = (recipe.start(0).await?, recipe.start(1).await?);
        doors.set(vec![Door::from(&stays), Door::from(&rolls)]);
        Ok(Self {
            recipe,
            stays,
            rolls,
            started: 2,
        })
    }

    /// Starts a successor, leads new connections to it, tells the predecessor to end and waits until it has. Nothing may
    /// be written meanwhile: who ends is not looked at any more.
    pub(super) async fn roll(&mut self, doors: &Doors) -> Result<()> {
        let successor = self.recipe.start(self.started).await?;
        self.started += 1;
        let mut predecessor = std::mem::replace(&mut self.rolls, successor);
        doors.set(vec![Door::from(&self.stays), Door::from(&self.rolls)]);
        end(&mut predecessor).await
    }

    /// Ends the one that rolls; clients are led to the other one.
    pub(super) async fn leave_one(&mut self, doors: &Doors) -> Result<()> {
        doors.set(vec![Door::from(&self.stays)]);
        end(&mut self.rolls).await
    }

    /// How often one has followed another one.
    pub(super) fn rolled(&self) -> u64 {
        self.started.saturating_sub(2)
    }

    /// The ends of their logs.
    pub(super) fn last_words(&self) -> String {
        format!(
            "{}\nand that of the other one:\n{}",
            self.stays.log_tail(),
            self.rolls.log_tail()
        )
    }
}

async fn end(lockgate: &mut Lockgate) -> Result<()> {
    lockgate.terminate().await?;
    let status = lockgate.wait().await?;
    ensure!(
        status.success(),
        "lockgate ended with {status} after SIGTERM:\n{}",
        lockgate.log_tail()
    );
    Ok(())
}

/// Threads that the runtime may keep for work that blocks, beyond those that it had at first.
const POOL: u64 = 2;

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Held {
    /// File descriptors: sockets, files, and what else the kernel keeps for it.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Tasks of its workers, by its own count.
    pub tasks: u64,
    /// Connections of clients, by its own count.
    pub connections: u64,
}

impl Held {
    /// What the process holds now.
    pub(super) async fn by(lockgate: &Lockgate) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{}", lockgate.id()?));
        let count = |name: &str| -> Result<u64> {
            let path: &Path = &folder.join(name);
            let list = std::fs::read_dir(path);
            let list = list.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(list.count() as u64)
        };
        Ok(Self {
            tasks: whole(lockgate.sum_of("lockgate_worker_tasks").await?),
            connections: whole(lockgate.sum_of("lockgate_connections_open").await?),
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    /// Whether nothing is held that was not held before. One descriptor is the connection that asks. Whoever asks is
    /// answered by a thread of a pool, which may have grown by as many as were asking at once.
    pub(super) fn is_back_to(self, before: Self) -> bool {
        self.descriptors <= before.descriptors + 1
            && self.threads <= before.threads + POOL
            && self.tasks <= before.tasks
            && self.connections <= before.connections
    }
}

/// A gauge that counts.
fn whole(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = value.max(0.0) as u64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_each_open_door_in_turn() {
        let door = |port| Door {
            http: SocketAddr::from(([127, 0, 0, 1], port)),
            https: SocketAddr::from(([127, 0, 0, 1], port + 1)),
        };
        let doors = Doors::default();
        assert_eq!(doors.choose(), None);
        assert_eq!(doors.address(true).port(), 0, "nobody");
        doors.set(vec![door(10), door(20)]);
        let first: Vec<_> = (0..4).filter_map(|_| doors.choose()).collect();
        assert_eq!(first.len(), 4);
        assert_ne!(first[0], first[1]);
        assert_eq!(first[..2], first[2..]);
        doors.set(vec![door(30)]);
        assert_eq!(doors.choose(), Some(door(30)));
        assert_eq!([false, true].map(|tls| doors.address(tls).port()), [30, 31]);
    }

    #[test]
    fn what_is_held_more_is_a_leak() {
        let before = Held {
            descriptors: 20,
            threads: 6,
            tasks: 9,
            connections: 0,
        };
        assert!(before.is_back_to(before));
        for more in [
            Held {
                descriptors: 22,
                ..before
            },
            Held {
                threads: 9,
                ..before
            },
            Held {
                tasks: 10,
                ..before
            },
            Held {
                connections: 1,
                ..before
            },
        ] {
            assert!(!more.is_back_to(before), "{more:?}");
        }
    }
}
