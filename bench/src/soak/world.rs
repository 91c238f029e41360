//! Hosts, what they should answer, and their manifests.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rustls::pki_types::CertificateDer;

use super::trouble::Trouble;
use crate::certs::{self, Authority};
use crate::origin;

/// A host that is served with and without TLS.
pub(super) const PLAIN: &str = "plain.soak.test";
/// A host whose backends speak gRPC.
pub(super) const CALLS: &str = "calls.soak.test";
/// A host one of whose endpoints is in trouble.
pub(super) const TROUBLED: &str = "troubled.soak.test";

/// A number that changes one step at a time: first it is written, and some time later it is served.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    written: AtomicU64,
    served: AtomicU64,
}

impl Timeline {
    /// Nothing older than this is served any more.
    pub(super) fn oldest(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// Nothing newer than this is served yet.
    pub(super) fn newest(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Announces the next state; its number.
    pub(super) fn write(&self) -> u64 {
        self.written.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The newest state has been seen.
    pub(super) fn confirm(&self) {
        self.served.store(self.newest(), Ordering::SeqCst);
    }
}

/// One host with everything about it that changes.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    short: String,
    pub(super) routes: Timeline,
    pub(super) endpoints: Timeline,
    pub(super) certificate: Timeline,
    /// Every certificate so far, by the number of its state.
    issued: Mutex<Vec<CertificateDer<'static>>>,
}

/// Where a path leads in the state of this number.
impl Host {
    /// `/` goes to one service, then to the other.
    pub(super) fn root_backends(state: u64) -> &'static [&'static str] {
        if state.is_multiple_of(2) {
            &["a1", "a2"]
        } else {
            &["b1", "b2"]
        }
    }

    /// `/pods` goes to a service whose endpoints come and go.
    pub(super) fn pod_backends(state: u64) -> &'static [&'static str] {
        match state % 3 {
            0 => &["a1"],
            1 => &["b1", "b2", "a2"],
            _ => &["a1", "b1"],
        }
    }

    /// Two probes tell one state from the next.
    pub(super) fn probe_backend(state: u64) -> &'static str {
        if state.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        }
    }

    /// Was this the certificate at some time between two states?
    pub(super) fn had_certificate(
        &self,
        leaf: &CertificateDer<'_>,
        oldest: u64,
        newest: u64,
    ) -> bool {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        (oldest..=newest)
            .filter_map(|state| issued.get(usize::try_from(state).ok()?))
            .any(|certificate| certificate == leaf)
    }
}

#[cfg(test)]
impl Host {
    pub(super) fn certificate_of(&self, state: u64) -> Option<CertificateDer<'static>> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.get(usize::try_from(state).ok()?).cloned()
    }
}

/// All hosts, their backends and the directory with their manifests.
#[derive(Debug)]
pub(super) struct World {
    hosts: Vec<Host>,
    authority: Authority,
    directory: PathBuf,
    origins: Vec<(&'static str, SocketAddr)>,
    pub(super) trouble: Trouble,
}

impl World {
    /// Starts the backends and writes the first manifests.
    pub(super) async fn create(directory: &Path, hosts: usize) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut origins = Vec::new();
        for name in ["a1", "a2", "b1", "b2", "even", "odd"] {
            let address = origin::start(origin::Site::new(name, None)).await?;
            origins.push((name, address));
        }
        let behind = origin::start(origin::Site::new("x1", None)).await?;
        let trouble = Trouble::start(behind).await?;
        origins.push(("x1", trouble.address));
        let world = Self {
            hosts: (0..hosts.max(1))
                .map(|index| Host {
                    name: format!("app{index}.soak.test"),
                    short: format!("app{index}"),
                    routes: Timeline::default(),
                    endpoints: Timeline::default(),
                    certificate: Timeline::default(),
                    issued: Mutex::default(),
                })
                .collect(),
            authority: Authority::new("Soak authority")?,
            directory: directory.to_owned(),
            origins,
            trouble,
        };
        certs::write(&world.directory.join("common.yaml"), &world.common())?;
        let names = [PLAIN, CALLS, TROUBLED].map(str::to_owned);
        let secret = world
            .authority
            .issue(&names, None)?
            .secret("soak", "side-tls");
        certs::write(&world.directory.join("side-tls.yaml"), &secret)?;
        for host in &world.hosts {
            world.write_certificate(host, 0)?;
            world.write_endpoints(host, 0)?;
            world.write_routes(host, 0)?;
        }
        Ok(world)
    }

    /// The host of this number; numbers go round.
    pub(super) fn host(&self, number: u64) -> &Host {
        let index = usize::try_from(number % self.hosts.len() as u64).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
        &self.hosts[index]
    }

    /// The host of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    pub(super) fn len(&self) -> u64 {
        self.hosts.len() as u64
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    fn common(&self) -> String {
        let mut text = String::from(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: lockgate\nspec:\n  \
             controller: lockgate.dev/ingress-controller\n",
        );
        for (service, origins) in [
            ("a", &["a1", "a2"][..]),
            ("b", &["b1", "b2"]),
            ("even", &["even"]),
            ("odd", &["odd"]),
            // One of three is in trouble now and then.
            ("troubled", &["a1", "b1", "x1"]),
        ] {
            self.service(&mut text, service, origins);
        }
        let patient = "    nginx.ingress.kubernetes.io/proxy-next-upstream: error timeout\n    \
                       nginx.ingress.kubernetes.io/proxy-read-timeout: \"1\"\n";
        let grpc = "    nginx.ingress.kubernetes.io/backend-protocol: GRPC\n";
        for (host, service, annotations) in [
            (PLAIN, "moving", ""),
            (CALLS, "moving", grpc),
            (TROUBLED, "troubled", patient),
        ] {
            let name = host.split('.').next().unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: soak\n  \
                 name: {name}\n  annotations:\n    nginx.ingress.kubernetes.io/ssl-redirect: \"false\"\n{annotations}\
                 spec:\n  ingressClassName: lockgate\n  tls:\n  - hosts: [{host}]\n    secretName: side-tls\n  \
                 rules:\n  - host: {host}\n    http:\n      paths:\n      - path: /\n        pathType: Prefix\n        \
                 backend:\n          service:\n            name: {service}\n            port:\n              number: 80\n"
            );
        }
        text
    }

    /// A Service with one `EndpointSlice` per endpoint: each has a port of its own.
    fn service(&self, text: &mut String, name: &str, endpoints: &[&str]) {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: soak\n  name: {name}\nspec:\n  \
             clusterIP: 10.0.0.1\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n"
        );
        for (origin, address) in &self.origins {
            if endpoints.contains(origin) {
                let (ip, port) = (address.ip(), address.port());
                let _ = write!(
                    text,
                    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: soak\n  \
                     name: {name}-{origin}\n  labels:\n    kubernetes.io/service-name: {name}\n\
                     addressType: IPv4\nports:\n- name: http\n  port: {port}\nendpoints:\n- addresses: [{ip}]\n  \
                     conditions:\n    ready: true\n"
                );
            }
        }
    }

    pub(super) fn write_routes(&self, host: &Host, state: u64) -> Result<()> {
        let Host { name, short, .. } = host;
        let root = if state.is_multiple_of(2) { "a" } else { "b" };
        let probe = Host::probe_backend(state);
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: soak\n  name: {short}\n\
             spec:\n  ingressClassName: lockgate\n  tls:\n  - hosts: [{name}]\n    secretName: {short}-tls\n  \
             rules:\n  - host: {name}\n    http:\n      paths:\n"
        );
        let pods = format!("{short}-pods");
        let pods_probe = format!("{short}-probe");
        let step = format!("/step/{state}");
        for (path, kind, service) in [
            ("/", "Prefix", root),
            ("/pods", "Prefix", &*pods),
            ("/probe", "Exact", probe),
            ("/probe-pods", "Exact", &*pods_probe),
            // So that paths come and go as well.
            (&*step, "Prefix", root),
        ] {
            let _ = write!(
                text,
                "      - path: {path}\n        pathType: {kind}\n        backend:\n          service:\n            \
                 name: {service}\n            port:\n              number: 80\n"
            );
        }
        certs::write(&self.directory.join(format!("{short}-routes.yaml")), &text)
    }

    pub(super) fn write_endpoints(&self, host: &Host, state: u64) -> Result<()> {
        let short = &host.short;
        let mut text = String::new();
        self.service(
            &mut text,
            &format!("{short}-pods"),
            Host::pod_backends(state),
        );
        let probe = [Host::probe_backend(state)];
        self.service(&mut text, &format!("{short}-probe"), &probe);
        if self
            .hosts
            .first()
            .is_some_and(|first| first.name == host.name)
        {
            self.service(&mut text, "moving", Host::pod_backends(state));
        }
        certs::write(&self.directory.join(format!("{short}-pods.yaml")), &text)
    }

    /// Issues the certificate of a state and writes it. The state must have been announced already: from here on a
    /// client may see it.
    pub(super) fn write_certificate(&self, host: &Host, state: u64) -> Result<()> {
        let organization = format!("state {state}");
        let names = [host.name.clone()];
        let leaf = self.authority.issue(&names, Some(&organization))?;
        host.issued
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(leaf.der.clone());
        let short = &host.short;
        certs::write(
            &self.directory.join(format!("{short}-tls.yaml")),
            &leaf.secret("soak", &format!("{short}-tls")),
        )
    }
}
