//! `origin`: backends that say who they are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::origin::{self, Closing, Place, Site};
use clap::Parser;
use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves HTTP/1.1, HTTP/2, gRPC and WebSocket (at /ws); every answer names the backend and describes the request.
///
/// The query of a request orders the answer: `size=N` bytes of body, `status=N`, `delay=MS` before it, `parts=N`
/// pieces with `every=MS` between them, `fail=close|reset|half|garbage` for no proper answer; with `only=NAME` the
/// order is for that backend alone.
#[derive(Parser)]
struct Arguments {
    /// A server without TLS, as ADDRESS:PORT or NAME=ADDRESS:PORT; port 0 lets the system choose. May be repeated.
    /// Without any server: 0.0.0.0:8080, and 0.0.0.0:8443 with TLS.
    #[arg(long, value_name = "[NAME=]ADDR")]
    listen: Vec<Listen>,
    /// A server with TLS.
    #[arg(long, value_name = "[NAME=]ADDR")]
    tls_listen: Vec<Listen>,
    /// The certificate chain of the servers with TLS; without one they make one that nobody trusts.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name of servers that were given none.
    #[arg(long, env = "POD_NAME", default_value = "origin")]
    pod: String,
    /// The namespace that answers tell.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// The Service that answers tell.
    #[arg(long, env = "SERVICE_NAME")]
    service: Option<String>,
    /// The node that answers tell.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// Answer requests without a query with a body of this many bytes.
    #[arg(long, value_name = "N")]
    body_size: Option<usize>,
    /// Answer /readyz with 503 until this time has passed.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    ready_after: Duration,
    /// After SIGTERM, go on as before for this time, until nobody sends requests here any more.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    linger: Duration,
    /// After that, wait this long for the answers that are under way.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "20s")]
    drain: Duration,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Clone)]
struct Listen {
    name: Option<String>,
    address: SocketAddr,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (Some(name.to_owned()), address),
            None => (None, text),
        };
        let address = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address with a port"))?;
        Ok(Self { name, address })
    }
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.listen.is_empty() && arguments.tls_listen.is_empty() {
        let any = |port| Listen {
            name: None,
            address: SocketAddr::from(([0, 0, 0, 0], port)),
        };
        arguments.listen = vec![any(8080)];
        arguments.tls_listen = vec![any(8443)];
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.max(1))
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    // Before anything else: process 1 of a container gets no signal that it has no handler for.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (close, closing) = origin::closing();
    let mut servers = start(&arguments, &closing).await?;
    tokio::select! {
        ended = servers.join_next() => {
            return ended.context("at least one server")??.context("a server ended");
        }
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => {}
    }
    let end = async {
        tokio::time::sleep(arguments.linger).await;
        close.begin();
        let wait = async { while servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(arguments.drain, wait).await;
    };
    tokio::select! {
        () = end => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn start(arguments: &Arguments, closing: &Closing) -> Result<JoinSet<std::io::Result<()>>> {
    let tls = tls(arguments)?;
    let mut servers = JoinSet::new();
    let plain = arguments.listen.iter().map(|listen| (listen, None));
    let secure = arguments
        .tls_listen
        .iter()
        .map(|listen| (listen, tls.clone()));
    for (Listen { name, address }, tls) in plain.chain(secure) {
        let name = name.as_deref().unwrap_or(&arguments.pod);
        http::HeaderValue::from_str(name).context("the name has to fit into a header")?;
        let listener = origin::bind(*address).await?;
        // A script reads these lines to learn the ports.
        bench::say(format_args!("{name} {}", listener.local_addr()?))?;
        let site = Site::new(name, arguments.body_size)
            .at(Place {
                namespace: arguments.namespace.clone(),
                service: arguments.service.clone(),
                node: arguments.node.clone(),
            })
            .ready_after(arguments.ready_after);
        servers.spawn(origin::serve(listener, site, tls, closing.clone()));
    }
    Ok(servers)
}

fn tls(arguments: &Arguments) -> Result<Option<Arc<ServerConfig>>> {
    if arguments.tls_listen.is_empty() {
        return Ok(None);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        return origin::from_files(certificate, key).map(Some);
    }
    let mut names = vec!["localhost".to_owned(), arguments.pod.clone()];
    if let (Some(service), Some(namespace)) = (&arguments.service, &arguments.namespace) {
        names.push(format!("{service}.{namespace}.svc"));
    }
    origin::untrusted(&names).map(Some)
}
