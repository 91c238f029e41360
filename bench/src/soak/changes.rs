//! Rewrites manifests one at a time and waits until each change is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Request;
use rustls::RootCertStore;

use super::gateways::{Door, Doors};
use super::world::{Host, World};
use crate::certs;
use crate::load::{Body, Connector, Histogram, Target, Version};

/// A change has to be visible within this time.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Changer {
    world: Arc<World>,
    connector: Connector,
    doors: Arc<Doors>,
    visible: Histogram,
    changes: AtomicU64,
    rotations: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Routes,
    Endpoints,
    Certificate,
}

impl Changer {
    pub(super) fn new(
        world: Arc<World>,
        doors: &Arc<Doors>,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self> {
        Ok(Self {
            world,
            connector: Connector::new(roots, false)?,
            doors: Arc::clone(doors),
            visible: Histogram::default(),
            changes: AtomicU64::new(0),
            rotations: AtomicU64::new(0),
        })
    }

    /// From the written file to the first answer by it.
    pub(super) fn visible(&self) -> &Histogram {
        &self.visible
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(super) fn rotations(&self) -> u64 {
        self.rotations.load(Ordering::Relaxed)
    }

    /// Makes the next change: one kind after the other, then the next host.
    pub(super) async fn change(&self) -> Result<()> {
        let number = self.changes.load(Ordering::Relaxed);
        let kind = match number % 3 {
            0 => Kind::Routes,
            1 => Kind::Endpoints,
            _ => Kind::Certificate,
        };
        let host = self.world.host(number / 3 % self.world.len());
        let timeline = match kind {
            Kind::Routes => &host.routes,
            Kind::Endpoints => &host.endpoints,
            Kind::Certificate => &host.certificate,
        };
        let state = timeline.write();
        match kind {
            Kind::Routes => self.world.write_routes(host, state)?,
            Kind::Endpoints => self.world.write_endpoints(host, state)?,
            Kind::Certificate => self.world.write_certificate(host, state)?,
        }
        let written = Instant::now();
        let mut last = String::new();
        while !self.is_served(host, kind, state, &mut last).await {
            if written.elapsed() > PATIENCE {
                bail!(
                    "{kind:?} of {} is not served in state {state}: {last}",
                    host.name
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.visible.record(written.elapsed());
        timeline.confirm();
        self.changes.fetch_add(1, Ordering::Relaxed);
        if matches!(kind, Kind::Certificate) {
            self.rotations.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Looks at every process as a client does. What goes wrong here goes wrong for the load as well and is counted there.
    async fn is_served(&self, host: &Host, kind: Kind, state: u64, last: &mut String) -> bool {
        for door in self.doors.all() {
            match tokio::time::timeout(PATIENCE, self.look(door, host, kind, state)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return false,
                Ok(Err(error)) => {
                    *last = error.to_string();
                    return false;
                }
                Err(_) => {
                    "no answer".clone_into(last);
                    return false;
                }
            }
        }
        true
    }

    async fn look(&self, door: Door, host: &Host, kind: Kind, state: u64) -> Result<bool> {
        let target = Target {
            address: door.https,
            server_name: Some(certs::server_name(&host.name)?),
            authority: host.name.as_str().into(),
        };
        let connection = match self.connector.open(&target, Version::Http1).await {
            Ok(connection) => connection,
            Err(failure) => bail!("{failure}"),
        };
        let path = match kind {
            Kind::Certificate => {
                return Ok(connection
                    .leaf()
                    .is_some_and(|leaf| host.had_certificate(leaf, state, state)));
            }
            Kind::Routes => "/probe",
            Kind::Endpoints => "/probe-pods",
        };
        let uri = format!("https://{}{path}", host.name);
        let request = Request::get(uri).body(Body::default())?;
        match connection.exchange().send(request).await {
            Ok(answer) => Ok(answer.header("x-backend") == Host::probe_backend(state)),
            Err(error) => bail!("{error}"),
        }
    }
}
