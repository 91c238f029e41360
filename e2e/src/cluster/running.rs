//! The cluster that the tests of the cluster tier find when they are started.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::audit::Audit;
use crate::cluster::Control;
use crate::cluster::access::STATE;
use crate::kubectl::Kubectl;

const KUBECONFIG: &str = "KUBECONFIG";
const MISSING: &str = "these tests need a cluster: run `make e2e`";

/// A Kubernetes with nodes, in which Lockgate is installed as shipped. The test program is a client outside of it.
#[derive(Clone, Debug)]
pub struct Running {
    /// `kubectl` as the administrator.
    pub kubectl: Kubectl,
    /// Logs, the audit log and the notes of the run.
    pub state: PathBuf,
}

impl Running {
    /// The cluster that the environment names: `KUBECONFIG`, `E2E_STATE`, `kubectl` in the `PATH`.
    pub fn from_environment() -> Result<Self> {
        let kubeconfig: PathBuf = env::var_os(KUBECONFIG).context(MISSING)?.into();
        let state: PathBuf = env::var_os(STATE).context(MISSING)?.into();
        let path = env::var_os("PATH").context("PATH is not set")?;
        let program = env::split_paths(&path)
            .map(|folder| folder.join("kubectl"))
            .find(|program| program.is_file())
            .context("no kubectl in the PATH")?;
        Ok(Self {
            kubectl: Kubectl::new(&program, &kubeconfig, &state),
            state,
        })
    }

    /// Power over the cluster's own programs, where the cluster is one of the harness. Who gets none skips the test and
    /// says so.
    pub fn control(&self) -> Option<Control> {
        let socket = self.state.join("control.sock");
        socket.exists().then(|| Control::new(socket))
    }

    /// What service accounts have asked the API server for, where the cluster is one of the harness.
    pub fn audit(&self) -> Result<Option<Audit>> {
        let log = self.state.join("audit.log");
        log.exists().then(|| Audit::read(&log)).transpose()
    }
}
