//! An etcd and a Kubernetes API server. Nothing else of Kubernetes runs: no controller fills in anything, no pod starts.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::access::{Access, Programs};
use super::component::Spec;
use super::control_plane::ControlPlane;
use crate::process::Program;
use crate::wait::eventually;

const START: Duration = Duration::from_mins(2);

/// A cluster that ends when this value is dropped.
pub struct Cluster {
    access: Access,
    plane: ControlPlane,
    api: Program,
    etcd: Program,
}

impl Cluster {
    /// Starts etcd and the API server at `address`, their files in `folder`, and waits until they serve.
    pub async fn start(programs: Programs, folder: &Path, address: IpAddr) -> Result<Self> {
        let plane = ControlPlane {
            programs: programs.folder.clone(),
            folder: folder.to_owned(),
            logs: folder.to_owned(),
            address,
        };
        plane.prepare()?;
        let access = Access::new(programs, folder.to_owned(), address);
        let etcd = plane.etcd().start()?;
        let api = api_server(&plane).start()?;
        let mut cluster = Self {
            access,
            plane,
            api,
            etcd,
        };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// The administrator's access.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Waits until the API server says that it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let Self {
            access, api, etcd, ..
        } = self;
        let mut ended = None;
        let waited = eventually("the API server is ready", START, async || {
            if let Err(error) = etcd.check_running().and_then(|()| api.check_running()) {
                ended = Some(error);
                return Ok(());
            }
            access
                .kubectl
                .run(&["get", "--raw", "/readyz", "--request-timeout=2s"])
                .await
                .map(drop)
        })
        .await;
        match ended {
            Some(error) => Err(error),
            None => waited.with_context(|| api.tail(20)),
        }
    }

    /// Stops the API server in the middle of what it does: connections stay open, nothing answers.
    pub fn freeze_api(&self) -> Result<()> {
        self.api.signal(Signal::STOP)
    }

    /// Lets a frozen API server go on.
    pub fn thaw_api(&self) -> Result<()> {
        self.api.signal(Signal::CONT)
    }

    /// Ends the API server: connections are refused.
    pub fn kill_api(&mut self) -> Result<()> {
        self.api.kill()
    }

    /// Starts the API server anew, with what etcd holds, and waits until it serves.
    pub async fn restart_api(&mut self) -> Result<()> {
        self.api = api_server(&self.plane).start()?;
        self.ready().await
    }
}

fn api_server(plane: &ControlPlane) -> Spec {
    // No EndpointSlice of its own: nothing in the cluster calls it through a Service.
    plane.api_server(&["--endpoint-reconciler-type=none".to_owned()])
}
