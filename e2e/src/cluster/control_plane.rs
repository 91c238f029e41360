//! An etcd and a Kubernetes API server.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::cluster::access::{Access, Programs};
use crate::pki::{self, Authority};
use crate::process::Program;
use crate::wait::eventually;

const START: Duration = Duration::from_mins(2);

/// Only what service accounts ask for is of interest, and of that everything.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: [\"system:serviceaccounts\"]
- level: None
";

/// A cluster that ends when this value is dropped.
pub struct Cluster {
    access: Access,
    address: IpAddr,
    api: Program,
    etcd: Program,
}

impl Cluster {
    /// Starts etcd and the API server at `address`, their files in `folder`, and waits until they serve.
    pub async fn start(programs: Programs, folder: &Path, address: IpAddr) -> Result<Self> {
        fs::create_dir_all(folder)?;
        write_keys(folder, address)?;
        fs::write(folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let access = Access::new(programs, folder.to_owned(), address);
        access.write_kubeconfig("admin", &certificate_user(folder, "admin"))?;
        let etcd = start_etcd(&access, address)?;
        let api = start_api(&access, address)?;
        let mut cluster = Self {
            access,
            address,
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
        self.api = start_api(&self.access, self.address)?;
        self.ready().await
    }
}

fn write_keys(folder: &Path, address: IpAddr) -> Result<()> {
    let authority = Authority::new("e2e-cluster")?;
    fs::write(folder.join("ca.crt"), authority.certificate())?;
    let address = address.to_string();
    let names = [
        address.as_str(),
        "127.0.0.1",
        "kubernetes",
        "kubernetes.default.svc",
    ];
    for (name, organization, user) in [
        ("server", "", "kube-apiserver"),
        ("admin", "system:masters", "admin"),
    ] {
        let identity = authority.issue(organization, user, &names)?;
        fs::write(folder.join(format!("{name}.crt")), identity.certificate)?;
        fs::write(folder.join(format!("{name}.key")), identity.key)?;
    }
    let (private, public) = pki::key_pair()?;
    fs::write(folder.join("service-accounts.key"), private)?;
    fs::write(folder.join("service-accounts.pub"), public)?;
    Ok(())
}

fn certificate_user(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!("{{client-certificate: {folder}/{name}.crt, client-key: {folder}/{name}.key}}")
}

fn start_etcd(access: &Access, address: IpAddr) -> Result<Program> {
    let Access {
        programs, folder, ..
    } = access;
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls=http://{address}:2379"),
        format!("--advertise-client-urls=http://{address}:2379"),
        format!("--listen-peer-urls=http://{address}:2380"),
        format!("--initial-advertise-peer-urls=http://{address}:2380"),
        format!("--initial-cluster=default=http://{address}:2380"),
        // The data need not survive a crash of the machine.
        "--unsafe-no-fsync".to_owned(),
    ];
    let log = folder.join("etcd.log");
    Program::start("etcd", &programs.folder.join("etcd"), arguments, &[], log)
}

fn start_api(access: &Access, address: IpAddr) -> Result<Program> {
    let Access {
        programs, folder, ..
    } = access;
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        format!("--etcd-servers=http://{address}:2379"),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        "--secure-port=6443".to_owned(),
        // No EndpointSlice of its own: nothing in the cluster calls it through a Service.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            file("service-accounts.pub")
        ),
        format!(
            "--service-account-signing-key-file={}",
            file("service-accounts.key")
        ),
        "--authorization-mode=RBAC".to_owned(),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
        "--audit-log-maxsize=0".to_owned(),
    ];
    let log = folder.join("kube-apiserver.log");
    let program = programs.folder.join("kube-apiserver");
    Program::start("kube-apiserver", &program, arguments, &[], log)
}
