//! What is counted of the running process: a request with all its phases, metrics on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use http::Request;
use serde_json::json;

use super::{Valgrind, beside};
use crate::certs::{self, Authority};
use crate::load::{Body, Connector, Target, Version};
use crate::origin::{self, Site};
use crate::process::Lockgate;

const HOST: &str = "localhost";

/// The second of two runs has twice as many requests as the first: what comes before and after them cancels out.
const REQUESTS: u64 = 1500;

/// By what a request comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Http1,
    Https1,
    Http2,
}

/// A kind of request, and what serves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    protocol: Protocol,
    /// As `--engine` has it.
    engine: &'static str,
    /// Other hosts have annotations of every group.
    beside: bool,
    pub(super) title: &'static str,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::new(Protocol::Http1, "auto", "request by HTTP/1.1"),
        Self::new(Protocol::Https1, "auto", "request by HTTP/1.1 with TLS"),
        Self::new(Protocol::Http2, "auto", "request by HTTP/2 with TLS"),
        Self::new(
            Protocol::Http1,
            "pingora",
            "request by HTTP/1.1, Pingora's engine",
        ),
        Self::new(
            Protocol::Https1,
            "pingora",
            "request by HTTP/1.1 with TLS, Pingora's engine",
        ),
        Self {
            beside: true,
            ..Self::new(
                Protocol::Http1,
                "auto",
                "request by HTTP/1.1, annotations on other hosts",
            )
        },
        Self {
            beside: true,
            ..Self::new(
                Protocol::Https1,
                "auto",
                "request by HTTP/1.1 with TLS, annotations on other hosts",
            )
        },
        Self {
            beside: true,
            ..Self::new(
                Protocol::Http1,
                "pingora",
                "request by HTTP/1.1, Pingora's engine, annotations on other hosts",
            )
        },
    ];

    /// What others use costs nothing: the first of each pair may not take more than the second, but for where things lie.
    pub(super) const FREE: [(&'static str, &'static str); 3] = [
        (
            "request by HTTP/1.1, annotations on other hosts",
            "request by HTTP/1.1",
        ),
        (
            "request by HTTP/1.1 with TLS, annotations on other hosts",
            "request by HTTP/1.1 with TLS",
        ),
        (
            "request by HTTP/1.1, Pingora's engine, annotations on other hosts",
            "request by HTTP/1.1, Pingora's engine",
        ),
    ];

    const fn new(protocol: Protocol, engine: &'static str, title: &'static str) -> Self {
        Self {
            protocol,
            engine,
            beside: false,
            title,
        }
    }
}

/// Instructions in user space that one request takes of the worker that serves it: requests on a kept connection, one
/// after the other, and twice as many.
pub(super) async fn count(lockgate: &Path, kind: Kind, home: &Path) -> Result<u64> {
    let once = run(lockgate, kind, home, REQUESTS).await?;
    let twice = run(lockgate, kind, home, 2 * REQUESTS).await?;
    let difference = twice.checked_sub(once).filter(|difference| *difference > 0);
    let difference = difference
        .with_context(|| format!("{twice} instructions for twice as much as {once} were for"))?;
    Ok(difference / REQUESTS)
}

/// The worker's instructions for so many requests, from its start to its end.
async fn run(lockgate: &Path, kind: Kind, home: &Path, requests: u64) -> Result<u64> {
    let Kind {
        protocol,
        engine,
        beside,
        title: _,
    } = kind;
    let home = tempfile::tempdir_in(home)?;
    let backend = origin::start(Site::new("bench", Some(1024))).await?;
    let authority = Authority::new("bench-check authority")?;
    let manifests = home.path().join("manifests");
    std::fs::create_dir(&manifests)?;
    let leaf = authority.issue(&[HOST.to_owned()], None)?;
    certs::write(&manifests.join("tls.yaml"), &leaf.secret("bench", "tls"))?;
    certs::write(&manifests.join("bench.yaml"), &objects(backend))?;
    if beside {
        let others = beside::manifests(authority.pem());
        certs::write(&manifests.join("beside.yaml"), &others)?;
    }

    let valgrind = Valgrind::new(home.path(), "lockgate");
    let program = home.path().join("lockgate");
    let script = format!(
        "#!/bin/sh\nexec valgrind '{}' '{}' \"$@\"\n",
        valgrind.arguments().join("' '"),
        lockgate.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let log = home.path().join("log");
    let further = ["--workers=1", "--access-log=off", "--engine", engine].map(Into::into);
    let mut process = Lockgate::start(&program, &manifests, &log, &further).await?;

    let connector = Connector::new(&certs::roots(authority.pem())?, false)?;
    let tls = protocol != Protocol::Http1;
    let target = Target {
        address: if tls { process.https } else { process.http },
        server_name: tls.then(|| certs::server_name(HOST)).transpose()?,
        authority: HOST.into(),
    };
    let version = match protocol {
        Protocol::Http1 | Protocol::Https1 => Version::Http1,
        Protocol::Http2 => Version::Http2,
    };
    let connection = connector.open(&target, version).await;
    let connection = connection.map_err(|failure| anyhow!("{failure}"))?;
    let mut exchange = connection.exchange();
    let scheme = if tls { "https" } else { "http" };
    for _ in 0..requests {
        ensure!(exchange.ready().await, "the connection was closed");
        let request = Request::get(format!("{scheme}://{HOST}/api/v1/users?page=2"))
            .header("user-agent", "bench-check")
            .header("accept", "*/*")
            .body(Body::default())?;
        let answer = exchange.send(request).await;
        let answer = answer.map_err(|error| anyhow!("{error}"))?;
        ensure!(answer.status == 200, "status {}", answer.status);
    }
    drop((exchange, connection));
    process.terminate().await?;
    let status = process.wait().await?;
    ensure!(
        status.success(),
        "lockgate ended with {status}: {}",
        process.log_tail()
    );
    // The first thread starts the others, which takes now more and now less. Of the rest, the only worker has most to do.
    let threads = valgrind.collected()?;
    let worker = threads.into_iter().skip(1).max();
    worker.with_context(|| format!("no thread but the first: {}", valgrind.words()))
}

fn objects(backend: std::net::SocketAddr) -> String {
    let service = json!({"service": {"name": "bench", "port": {"number": 80}}});
    let objects = [
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "namespace": "bench",
                "name": "bench",
                "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
            },
            "spec": {
                "ingressClassName": "lockgate",
                "tls": [{"hosts": [HOST], "secretName": "tls"}],
                "rules": [{"host": HOST, "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": service},
                    {"path": "/api", "pathType": "Prefix", "backend": service},
                ]}}],
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "bench", "name": "bench"},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "bench",
                "name": "bench-1",
                "labels": {"kubernetes.io/service-name": "bench"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend.port()}],
            "endpoints": [{"addresses": [backend.ip()]}],
        }),
    ];
    let texts = objects.map(|object| object.to_string());
    texts.join("\n---\n")
}

#[cfg(test)]
mod tests {
    use translate::{Change, Settings, Severity, Translator, manifests};

    use super::*;

    #[test]
    fn what_others_use_is_served() {
        let authority = Authority::new("test").unwrap();
        let leaf = authority.issue(&[HOST.to_owned()], None).unwrap();
        let class = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}";
        let texts = [
            class.to_owned(),
            leaf.secret("bench", "tls"),
            objects("127.0.0.1:80".parse().unwrap()),
            beside::manifests(authority.pem()),
        ];
        let read = manifests::parse(&texts.join("\n---\n"));
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        let mut translator = Translator::new(Settings {
            allow_loopback_endpoints: true,
            ..Settings::default()
        });
        translator.apply(read.objects.into_iter().map(Change::Apply));
        let problems = translator.report().problems();
        let errors = problems.filter(|(_, problem)| problem.severity == Severity::Error);
        let errors: Vec<String> = errors
            .map(|(object, problem)| format!("{object}: {}", problem.message))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert!(translator.report().claimed().count() > 20);
        let rejects = table::compile(translator.model()).rejects;
        assert!(rejects.is_empty(), "{rejects:?}");
    }
}
