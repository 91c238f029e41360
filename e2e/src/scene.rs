//! What one test works with: a namespace of its own in an installed cluster, and the few things that every test does.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::client::Client;
use crate::cluster::Access;
use crate::lockgate::{Installation, Lockgate};
use crate::observe::{self, Event};
use crate::origin::{self, Origin};
use crate::pki::{Authority, Identity};

/// A namespace, an installation, an authority for the sites' certificates.
pub struct Scene {
    /// The administrator's access.
    pub access: Access,
    /// What is installed.
    pub installation: Installation,
    /// The test's own namespace.
    pub namespace: String,
    /// Signs the sites' certificates.
    pub authority: Authority,
}

impl Scene {
    /// A scene in the cluster that all tests share. No Ingress and no Lease of an earlier test is left in it.
    pub async fn new(namespace: &str) -> Result<Self> {
        let access = Access::shared()?;
        let kubectl = &access.kubectl;
        kubectl
            .run(&["delete", "ingresses", "--all", "--all-namespaces"])
            .await?;
        kubectl
            .run(&["delete", "leases", "--all", "--all-namespaces"])
            .await?;
        let installation = Installation::read(&access).await?;
        Self::within(access, installation, namespace).await
    }

    /// A scene in a cluster of the test's own.
    pub async fn within(
        access: Access,
        installation: Installation,
        namespace: &str,
    ) -> Result<Self> {
        access
            .kubectl
            .run(&["create", "namespace", namespace])
            .await?;
        let authority = Authority::new("e2e-sites")?;
        Ok(Self {
            access,
            installation,
            namespace: namespace.to_owned(),
            authority,
        })
    }

    /// Starts Lockgate and waits until it is ready.
    pub async fn lockgate(&self, pod: &str, flags: &[(&str, &str)]) -> Result<Lockgate> {
        self.installation.launch(pod, flags).await?.ready().await
    }

    /// A client of that gateway, trusting the authority of the sites.
    pub fn client(&self, gateway: &Lockgate) -> Result<Client> {
        Client::new(gateway.address)?.trusting(self.authority.roots()?)
    }

    /// `kubectl` in the test's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.access
            .kubectl
            .run(&[&["--namespace", &self.namespace], arguments].concat())
            .await
    }

    /// `kubectl get … -o json` in the test's namespace.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.access
            .kubectl
            .json(&[&["--namespace", &self.namespace], arguments].concat())
            .await
    }

    /// `kubectl apply` in the test's namespace.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.access.kubectl.apply(&self.namespace, manifests).await
    }

    /// Applies a Service with port 80, named `http`, and the `EndpointSlice` that leads to `origins`.
    pub async fn service(&self, name: &str, origins: &[&Origin]) -> Result<()> {
        let mut endpoints = String::new();
        for origin in origins {
            write!(endpoints, "{{addresses: [\"{}\"]}}, ", origin.address())?;
        }
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{ports: [{{name: http, port: 80}}]}}\n\
             ---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\n\
             ports: [{{name: http, port: {port}}}]\n\
             endpoints: [{endpoints}]\n",
            port = origin::PORT,
        ))
        .await
    }

    /// Applies an Ingress of class `lockgate` that sends every path of `host` to the port `http` of `service`; with TLS
    /// where `secret` is not empty.
    pub async fn ingress(&self, name: &str, host: &str, service: &str, secret: &str) -> Result<()> {
        let tls = if secret.is_empty() {
            String::new()
        } else {
            format!("  tls: [{{hosts: [{host}], secretName: {secret}}}]\n")
        };
        self.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\n\
             spec:\n  ingressClassName: lockgate\n{tls}  rules:\n\
             \x20 - host: {host}\n    http: {{paths: [{{path: /, pathType: Prefix, backend: \
             {{service: {{name: {service}, port: {{name: http}}}}}}}}]}}\n"
        ))
        .await
    }

    /// Creates or replaces a TLS Secret, as a user does.
    pub async fn certificate(&self, secret: &str, identity: &Identity) -> Result<()> {
        let folder = tempfile::tempdir_in(&self.access.folder)?;
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&certificate, &identity.certificate)?;
        std::fs::write(&key, &identity.key)?;
        let certificate = format!("--cert={}", certificate.display());
        let key = format!("--key={}", key.display());
        let create = ["create", "secret", "tls", secret, &certificate, &key];
        let manifest = self
            .kubectl(&[&create[..], &["--dry-run=client", "--output=yaml"]].concat())
            .await?;
        self.apply(&manifest).await
    }

    /// The addresses in the status of an Ingress.
    pub async fn addresses(&self, ingress: &str) -> Result<Vec<String>> {
        let object = format!("ingress/{ingress}");
        observe::addresses(&self.access.kubectl, &self.namespace, &object).await
    }

    /// The Events about an object of the test's namespace.
    pub async fn events(&self, kind: &str, name: &str) -> Result<Vec<Event>> {
        observe::events(&self.access.kubectl, &self.namespace, kind, name).await
    }

    /// Fails when the API server has refused anything to Lockgate.
    pub fn check_permissions(&self) -> Result<()> {
        let forbidden = self.access.audit()?.forbidden(&self.installation.user());
        ensure!(
            forbidden.is_empty(),
            "the shipped RBAC does not allow: {}",
            forbidden.join("; ")
        );
        Ok(())
    }

    /// Ends the gateways, which has to be with exit code 0, and checks that the shipped RBAC was enough.
    pub async fn finish(self, gateways: impl IntoIterator<Item = Lockgate>) -> Result<()> {
        for gateway in gateways {
            gateway.stop().await?;
        }
        self.check_permissions()
    }
}
