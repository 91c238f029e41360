//! Where a run's programs and files are, and the administrator's access to its API server.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::audit::Audit;
use crate::kubectl::Kubectl;

/// The address of the API server that all tests share.
pub const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 240));
/// The address of the one that a test may take down.
pub const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 241));

/// Where the programs are: etcd, kube-apiserver, kubectl and lockgate. Set by `e2e/cluster/run.sh`.
const PROGRAMS: &str = "E2E_PROGRAMS";
const LOCKGATE: &str = "E2E_LOCKGATE";
/// The folder of the shared cluster. Set by the `e2e-cluster` program.
pub(super) const STATE: &str = "E2E_STATE";

const ALONE: &str = "these tests need the cluster that e2e/cluster/run.sh starts: run `make e2e`";

/// Where notes are kept, in the folder of the shared cluster.
const NOTES: &str = "notes";

/// The variable that names the page where they are kept for good, if any.
const PAGE: &str = "E2E_PAGE";

/// Keeps a line for the summary at the end of the run, and for the page of the run.
pub fn note(line: &str) -> Result<()> {
    let folder: PathBuf = std::env::var_os(STATE).context(ALONE)?.into();
    append(&folder.join(NOTES), &format!("{line}\n"))?;
    match std::env::var_os(PAGE) {
        Some(page) if !page.is_empty() => append(page.as_ref(), &format!("- {line}\n")),
        Some(_) | None => Ok(()),
    }
}

/// In one piece: tests run side by side.
fn append(file: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options().create(true).append(true).open(file)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// The programs that a run uses.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) folder: PathBuf,
    /// The binary under test.
    pub lockgate: PathBuf,
}

impl Programs {
    /// Checks that everything is there.
    pub fn new(folder: PathBuf, lockgate: PathBuf) -> Result<Self> {
        for name in ["etcd", "kube-apiserver", "kubectl"] {
            let program = folder.join(name);
            fs::metadata(&program).with_context(|| {
                format!(
                    "{}: build it with `make cluster-programs`",
                    program.display()
                )
            })?;
        }
        fs::metadata(&lockgate).with_context(|| {
            format!(
                "{}: build it with `cargo build -p controller`",
                lockgate.display()
            )
        })?;
        Ok(Self { folder, lockgate })
    }

    /// Those that `e2e/cluster/run.sh` has named.
    pub fn from_environment() -> Result<Self> {
        Self::new(
            std::env::var_os(PROGRAMS).context(ALONE)?.into(),
            std::env::var_os(LOCKGATE).context(ALONE)?.into(),
        )
    }

    /// Tells a child where they are, and where the shared cluster is.
    pub fn environment(&self, cluster: &Access) -> [(&'static str, PathBuf); 3] {
        [
            (PROGRAMS, self.folder.clone()),
            (LOCKGATE, self.lockgate.clone()),
            (STATE, cluster.folder.clone()),
        ]
    }
}

/// The administrator's access to a running cluster, and the folder where it keeps its files.
#[derive(Clone, Debug)]
pub struct Access {
    /// `kubectl` as the administrator.
    pub kubectl: Kubectl,
    /// The programs that are in use.
    pub programs: Programs,
    /// Keys, logs and kubeconfigs.
    pub folder: PathBuf,
    address: IpAddr,
}

impl Access {
    /// The cluster that all tests share.
    pub fn shared() -> Result<Self> {
        let folder: PathBuf = std::env::var_os(STATE).context(ALONE)?.into();
        Ok(Self::new(Programs::from_environment()?, folder, SHARED))
    }

    pub(super) fn new(programs: Programs, folder: PathBuf, address: IpAddr) -> Self {
        let kubectl = Kubectl::new(
            &programs.folder.join("kubectl"),
            &folder.join("admin.kubeconfig"),
            &folder,
        );
        Self {
            kubectl,
            programs,
            folder,
            address,
        }
    }

    /// The lines that tests have noted for the summary.
    pub fn notes(&self) -> String {
        fs::read_to_string(self.folder.join(NOTES)).unwrap_or_default()
    }

    /// What service accounts have asked the API server for.
    pub fn audit(&self) -> Result<Audit> {
        Audit::read(&self.folder.join("audit.log"))
    }

    /// Writes a kubeconfig for `user`, a YAML flow mapping, and returns its path.
    pub fn write_kubeconfig(&self, name: &str, user: &str) -> Result<PathBuf> {
        write_kubeconfig(&self.folder, self.address, name, user)
    }
}

/// Writes a kubeconfig for the API server at `address` into a folder that has the authority's certificate.
pub(super) fn write_kubeconfig(
    folder: &Path,
    address: IpAddr,
    name: &str,
    user: &str,
) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.kubeconfig"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: e2e\n\
         clusters: [{{name: e2e, cluster: {{server: \"https://{address}:6443\", certificate-authority: {ca}}}}}]\n\
         users: [{{name: user, user: {user}}}]\n\
         contexts: [{{name: e2e, context: {{cluster: e2e, user: user}}}}]\n",
        ca = folder.join("ca.crt").display(),
    );
    fs::write(&path, text)?;
    Ok(path)
}
