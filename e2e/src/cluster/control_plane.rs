//! The programs that every Kubernetes has once.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;

use super::access::write_kubeconfig;
use super::component::Spec;
use crate::pki::{self, Authority};

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

/// Where they are, and where their files are.
#[derive(Clone, Debug)]
pub(super) struct ControlPlane {
    /// The folder of the programs.
    pub(super) programs: PathBuf,
    /// For keys, kubeconfigs and data.
    pub(super) folder: PathBuf,
    /// For logs.
    pub(super) logs: PathBuf,
    /// Where etcd and the API server listen.
    pub(super) address: IpAddr,
}

impl ControlPlane {
    /// Writes keys, kubeconfigs and the audit policy. The authority signs what nodes need.
    pub(super) fn prepare(&self) -> Result<Authority> {
        fs::create_dir_all(&self.folder)?;
        fs::create_dir_all(&self.logs)?;
        fs::write(self.folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let authority = Authority::new("e2e-cluster")?;
        fs::write(self.folder.join("ca.crt"), authority.certificate())?;
        let address = self.address.to_string();
        let names = [
            address.as_str(),
            "127.0.0.1",
            // The first address of the Services' network: the Service of the API server itself.
            "10.96.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        self.issue(&authority, "server", "", "kube-apiserver", &names)?;
        for (name, organization, user) in [
            ("admin", "system:masters", "admin"),
            ("kubelet-client", "system:masters", "kube-apiserver"),
            ("controller-manager", "", "system:kube-controller-manager"),
            ("scheduler", "", "system:kube-scheduler"),
            ("proxy", "", "system:kube-proxy"),
        ] {
            self.user(&authority, name, organization, user, &[name])?;
        }
        let (private, public) = pki::key_pair()?;
        fs::write(self.folder.join("service-accounts.key"), private)?;
        fs::write(self.folder.join("service-accounts.pub"), public)?;
        Ok(authority)
    }

    /// Writes a certificate and a kubeconfig with it.
    pub(super) fn user(
        &self,
        authority: &Authority,
        name: &str,
        organization: &str,
        user: &str,
        hosts: &[&str],
    ) -> Result<()> {
        self.issue(authority, name, organization, user, hosts)?;
        let user = format!(
            "{{client-certificate: {}, client-key: {}}}",
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
        );
        write_kubeconfig(&self.folder, self.address, name, &user).map(drop)
    }

    fn issue(
        &self,
        authority: &Authority,
        name: &str,
        organization: &str,
        user: &str,
        hosts: &[&str],
    ) -> Result<()> {
        let identity = authority.issue(organization, user, hosts)?;
        fs::write(self.file(&format!("{name}.crt")), identity.certificate)?;
        Ok(fs::write(self.file(&format!("{name}.key")), identity.key)?)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(super) fn etcd(&self) -> Spec {
        let address = self.address;
        self.spec(
            "etcd",
            vec![
                format!("--data-dir={}", self.file("etcd")),
                format!("--listen-client-urls=http://{address}:2379"),
                format!("--advertise-client-urls=http://{address}:2379"),
                format!("--listen-peer-urls=http://{address}:2380"),
                format!("--initial-advertise-peer-urls=http://{address}:2380"),
                format!("--initial-cluster=default=http://{address}:2380"),
                // The data need not survive a crash of the machine.
                "--unsafe-no-fsync".to_owned(),
            ],
        )
    }

    /// The API server, with some arguments more.
    pub(super) fn api_server(&self, more: &[String]) -> Spec {
        let address = self.address;
        let mut arguments = vec![
            format!("--etcd-servers=http://{address}:2379"),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            "--secure-port=6443".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--tls-cert-file={}", self.file("server.crt")),
            format!("--tls-private-key-file={}", self.file("server.key")),
            format!("--client-ca-file={}", self.file("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!(
                "--service-account-key-file={}",
                self.file("service-accounts.pub")
            ),
            format!(
                "--service-account-signing-key-file={}",
                self.file("service-accounts.key")
            ),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--audit-policy-file={}", self.file("audit-policy.yaml")),
            format!("--audit-log-path={}", self.file("audit.log")),
            "--audit-log-maxsize=0".to_owned(),
        ];
        arguments.extend_from_slice(more);
        self.spec("kube-apiserver", arguments)
    }

    /// What the API server needs beyond that when there are nodes.
    pub(super) fn node_arguments(&self) -> [String; 5] {
        [
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!(
                "--kubelet-client-certificate={}",
                self.file("kubelet-client.crt")
            ),
            format!("--kubelet-client-key={}", self.file("kubelet-client.key")),
        ]
    }

    pub(super) fn controller_manager(&self) -> Spec {
        self.spec(
            "kube-controller-manager",
            vec![
                format!(
                    "--kubeconfig={}",
                    self.file("controller-manager.kubeconfig")
                ),
                format!(
                    "--service-account-private-key-file={}",
                    self.file("service-accounts.key")
                ),
                format!("--root-ca-file={}", self.file("ca.crt")),
                "--use-service-account-credentials=true".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                "--leader-elect=false".to_owned(),
                // Tests make thousands of objects at a time.
                "--kube-api-qps=200".to_owned(),
                "--kube-api-burst=400".to_owned(),
            ],
        )
    }

    pub(super) fn scheduler(&self) -> Spec {
        self.spec(
            "kube-scheduler",
            vec![
                format!("--kubeconfig={}", self.file("scheduler.kubeconfig")),
                "--bind-address=127.0.0.1".to_owned(),
                "--leader-elect=false".to_owned(),
            ],
        )
    }

    fn spec(&self, name: &str, arguments: Vec<String>) -> Spec {
        Spec {
            name: name.to_owned(),
            program: self.programs.join(name),
            arguments,
            environment: Vec::new(),
            log: self.logs.join(format!("{name}.log")),
        }
    }
}
