//! `load`: sends requests, counts every failure, prints one line.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::certs;
use bench::load::{
    self, Answer, Body, Budget, Collector, Connector, Shape, Target, Traffic, Version,
};
use bytes::Bytes;
use clap::Parser;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRESS: Duration = Duration::from_millis(100);

/// Sends requests until their number or the time is reached. Exit code 0 when none has failed, 1 otherwise.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Arguments {
    /// What to ask for. Several: they take turns; each connection goes to the host of the next one.
    #[arg(required = true)]
    urls: Vec<Uri>,
    /// Connect here, whatever the URL's host is.
    #[arg(long, value_name = "ADDR")]
    connect: Option<SocketAddr>,
    /// Trust the certificates in this PEM file (and no others).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak HTTP/2: by ALPN with TLS, with prior knowledge without.
    #[arg(long)]
    http2: bool,
    /// Upgrade the connections and send the body as messages; an answer is the next message.
    #[arg(long, conflicts_with = "http2")]
    websocket: bool,
    /// Call a method of gRPC: the body is the message, and the answer has to end with `grpc-status: 0`.
    #[arg(long, conflicts_with = "websocket")]
    grpc: bool,
    /// Connections at the same time.
    #[arg(long, short, default_value_t = 8)]
    connections: usize,
    /// Requests at the same time on one connection of HTTP/2.
    #[arg(long, short, default_value_t = 8)]
    streams: usize,
    /// End after this many requests.
    #[arg(long, short = 'n', required_unless_present_any = ["duration", "follow"])]
    requests: Option<u64>,
    /// End after this time, such as `10s`.
    #[arg(long, short, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Replace each connection by a fresh one after this many requests; 1 makes one connection per request.
    #[arg(long, value_name = "N")]
    renew_after: Option<u64>,
    /// Requests per second of all connections together, due whether or not those before are answered; latency counts
    /// from when they are due. Without it, each connection sends as soon as it has its answer.
    #[arg(long)]
    rate: Option<f64>,
    /// How long one request may take.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Method of the requests.
    #[arg(long, default_value = "GET")]
    method: Method,
    /// Send a body of this many bytes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    body_size: usize,
    /// A header field as `name: value`. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<Field>,
    /// The status that counts as right [default: 200; 101 with --websocket]. Several, with commas: any of them.
    #[arg(long, value_delimiter = ',')]
    expect_status: Vec<StatusCode>,
    /// A header field that the answer has to have, as `name: value` or `name: value|other value`. May be repeated.
    #[arg(long, value_name = "FIELD")]
    expect_header: Vec<Field>,
    /// Resume TLS sessions, as browsers do.
    #[arg(long)]
    resume: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// End when standard input ends. Meanwhile, print a line of JSON ten times a second: what has been answered and what
    /// has failed so far.
    #[arg(long)]
    follow: bool,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Clone)]
struct Field {
    name: HeaderName,
    value: HeaderValue,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("it has to be `name: value`")?;
        Ok(Self {
            name: name.trim().parse().map_err(|_| "not a field name")?,
            value: value.trim().parse().map_err(|_| "not a field value")?,
        })
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.max(1))
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let roots = match &arguments.ca {
        Some(file) => certs::roots(
            &std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?,
        )?,
        None => Arc::new(RootCertStore::empty()),
    };
    let connector = Connector::new(&roots, arguments.resume)?;
    let shape = Shape {
        version: if arguments.http2 || arguments.grpc {
            Version::Http2
        } else if arguments.websocket {
            Version::WebSocket
        } else {
            Version::Http1
        },
        connections: arguments.connections.max(1),
        streams: arguments.streams,
        renew_after: arguments.renew_after,
        rate: arguments.rate.filter(|rate| *rate > 0.0),
        timeout: arguments.timeout,
    };
    let budget = Arc::new(Budget::new(arguments.requests, arguments.duration));
    let collector = Arc::new(Collector::default());
    let json = arguments.json;
    let follow = arguments.follow.then(|| Arc::clone(&budget));
    let traffic = Arc::new(Fixed::new(arguments)?);
    let work = load::run(traffic, connector, shape, budget, Arc::clone(&collector));
    match follow {
        None => work.await,
        Some(budget) => {
            // A thread of its own: nothing can interrupt a read of standard input.
            std::thread::spawn(move || {
                std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
                    .unwrap_or_default();
                budget.end();
            });
            tokio::select! {
                () = work => {}
                told = tell_progress(&collector) => told?,
            }
        }
    }
    let figures = collector.figures();
    if json {
        bench::say(serde_json::to_string(&figures)?)?;
    } else {
        bench::say(&figures)?;
    }
    Ok(if figures.failed == 0 && figures.answers > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints how far it is, over and over.
async fn tell_progress(collector: &Collector) -> Result<()> {
    let mut tick = tokio::time::interval(PROGRESS);
    loop {
        tick.tick().await;
        bench::say(serde_json::to_string(&collector.progress())?)?;
    }
}

/// The same requests over and over.
struct Fixed {
    targets: Vec<(Target, Uri)>,
    arguments: Arguments,
    body: Bytes,
    statuses: Vec<StatusCode>,
}

impl Fixed {
    fn new(arguments: Arguments) -> Result<Self> {
        let targets = arguments
            .urls
            .iter()
            .map(|url| Ok((target(url, arguments.connect)?, url.clone())))
            .collect::<Result<_>>()?;
        let secure = |url: &Uri| url.scheme() == Some(&Scheme::HTTPS);
        if arguments.ca.is_none() && arguments.urls.iter().any(secure) {
            bail!("https needs --ca FILE with the certificates to trust");
        }
        let mut statuses = arguments.expect_status.clone();
        if statuses.is_empty() {
            statuses.push(if arguments.websocket {
                StatusCode::SWITCHING_PROTOCOLS
            } else {
                StatusCode::OK
            });
        }
        Ok(Self {
            targets,
            body: if arguments.grpc {
                load::grpc_message(arguments.body_size)
            } else {
                Bytes::from(vec![b'x'; arguments.body_size])
            },
            statuses,
            arguments,
        })
    }
}

fn target(url: &Uri, connect: Option<SocketAddr>) -> Result<Target> {
    let host = url.host().with_context(|| format!("{url} has no host"))?;
    let (default_port, secure) = match url.scheme_str() {
        Some("http") => (80, false),
        Some("https") => (443, true),
        _ => bail!("{url} is not an http or https URL"),
    };
    let port = url.port_u16().unwrap_or(default_port);
    let address = match connect {
        Some(address) => address,
        None => (host, port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .with_context(|| format!("{host} does not resolve"))?,
    };
    Ok(Target {
        address,
        server_name: secure.then(|| certs::server_name(host)).transpose()?,
        authority: url
            .authority()
            .map_or(host, http::uri::Authority::as_str)
            .into(),
    })
}

impl Traffic for Fixed {
    type Mark = ();

    fn target(&self, connection: u64) -> Target {
        let index = usize::try_from(connection).unwrap_or_default() % self.targets.len();
        #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
        self.targets[index].0.clone()
    }

    fn opening(&self, _: &Target) {}

    fn opened(
        &self,
        _: &Target,
        (): (),
        _: Option<&CertificateDer<'static>>,
    ) -> Result<(), String> {
        Ok(()) // rustls has verified the certificate
    }

    fn request(&self, target: &Target, number: u64) -> (Request<Body>, ()) {
        // Several URLs of one host share connections and take turns.
        let urls = || self.targets.iter().filter(|(known, _)| known == target);
        let turn = usize::try_from(number).unwrap_or_default() % urls().count().max(1);
        let url = urls().nth(turn).map(|(_, url)| url.clone());
        let url = url.unwrap_or_default();
        let mut request = Request::new(Body::new(self.body.clone()));
        *request.method_mut() = self.arguments.method.clone();
        *request.uri_mut() = url;
        if self.arguments.grpc {
            load::make_grpc(&mut request);
        }
        for field in &self.arguments.headers {
            request
                .headers_mut()
                .append(field.name.clone(), field.value.clone());
        }
        (request, ())
    }

    fn judge(&self, _: &Target, (): (), answer: &Answer) -> Result<(), String> {
        if !self.statuses.contains(&answer.status) {
            let wanted: Vec<&str> = self.statuses.iter().map(StatusCode::as_str).collect();
            return Err(format!(
                "status {} instead of {}",
                answer.status,
                wanted.join(" or ")
            ));
        }
        if self.arguments.grpc {
            load::judge_grpc(answer)?;
        }
        for Field { name, value } in &self.arguments.expect_header {
            let wanted = value.to_str().unwrap_or_default();
            let found = answer.header(name.as_str());
            if !wanted.split('|').any(|one| one == found) {
                return Err(format!("{name} is `{found}` instead of `{wanted}`"));
            }
        }
        Ok(())
    }
}
