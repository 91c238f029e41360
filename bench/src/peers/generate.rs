//! Load for one proxy and one case.
//!
//! At saturation wrk and h2load, where they can speak what the case needs: they take the least of the core that they
//! share with the backend. For handshakes, WebSocket, and at a fixed rate: [`crate::load`].

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::process::Command;

use super::case::{Case, ECDSA, MESSAGE, What};
use super::config::{HOSTS, PATHS, host, path};
use super::trust::TrustAnything;
use crate::certs;
use crate::load::{
    self, Answer, Body, Budget, Collector, Connector, Shape, Target, Traffic, Version,
};

/// What a client saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    /// Answers.
    pub requests: u64,
    /// How long it took.
    pub seconds: f64,
    /// Latencies in milliseconds: half, 99 of 100, 999 of 1000 were faster.
    pub latency: [f64; 3],
    /// At a rate: what 99 of 100 answers did not exceed in half of the quarter seconds, in milliseconds.
    pub typical_p99: Option<f64>,
}

/// How long a stretch is of which the slowest hundredth is looked at: a quarter of a second, or as long as there are a few
/// hundred answers.
fn stretch(rate: f64) -> Duration {
    const ANSWERS: f64 = 300.0;
    Duration::from_secs_f64((ANSWERS / rate.max(1.0)).max(0.25))
}

/// How the requests of [`What::Mixed`] jump over the table: coprime to its size, so that all come.
const STRIDE: usize = 61_803;

const TIMEOUT: Duration = Duration::from_secs(30);

/// As much as the proxy answers.
pub(super) async fn saturate(
    case: &Case,
    proxy: &super::Proxy,
    seconds: u64,
    home: &Path,
) -> Result<Slice> {
    match case.what {
        What::Http1 { .. } | What::Mixed => wrk(case, proxy, seconds, home).await,
        What::Fresh { .. } if case.tls.is_none() => wrk(case, proxy, seconds, home).await,
        What::Http2 | What::Grpc => h2load(case, proxy, seconds, home).await,
        What::Fresh { .. } | What::WebSocket => own(case, proxy, seconds, None).await,
        What::Idle => bail!("idle connections have no rate"),
    }
}

fn port(case: &Case, proxy: &super::Proxy) -> u16 {
    let address = if case.tls.is_some() {
        proxy.https
    } else {
        proxy.http
    };
    address.port()
}

async fn wrk(case: &Case, proxy: &super::Proxy, seconds: u64, home: &Path) -> Result<Slice> {
    let script = home.join("case.lua");
    std::fs::write(&script, wrk_script(case))?;
    // The same key exchange and cipher for all.
    let openssl = home.join("openssl.cnf");
    std::fs::write(
        &openssl,
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\nGroups = X25519\n\
         Ciphersuites = TLS_AES_128_GCM_SHA256\n",
    )?;
    let scheme = if case.tls.is_some() { "https" } else { "http" };
    let output = Command::new("wrk")
        .args(["--threads=1", "--timeout=30s"])
        .arg(format!("--connections={}", case.connections))
        .arg(format!("--duration={seconds}s"))
        .arg(format!("--header=Host: {ECDSA}"))
        .arg("--script")
        .arg(&script)
        .arg(format!(
            "{scheme}://{ECDSA}:{}{}",
            port(case, proxy),
            case.path()
        ))
        .env("OPENSSL_CONF", &openssl)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().find_map(|line| line.strip_prefix("result "));
    let result = result.with_context(|| format!("wrk says: {text}"))?;
    let figures: Vec<f64> = result
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [requests, micros, errors, p50, p99, p999] = figures[..] else {
        bail!("wrk says: {result}");
    };
    ensure!(
        errors == 0.0 && requests > 0.0,
        "{errors} of {requests} requests failed"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let requests = requests as u64;
    Ok(Slice {
        requests,
        seconds: micros / 1e6,
        latency: [p50, p99, p999].map(|micros| micros / 1000.0),
        typical_p99: None,
    })
}

fn wrk_script(case: &Case) -> String {
    let mut script = String::new();
    match case.what {
        What::Http1 { upload, fields, .. } => {
            if upload > 0 {
                script = format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {upload})\n");
            }
            for number in 0..fields {
                let (name, value) = field(number);
                let _ = writeln!(script, "wrk.headers['{name}'] = '{value}'");
            }
        }
        What::Fresh { .. } => script.push_str("wrk.headers['Connection'] = 'close'\n"),
        What::Mixed | What::Http2 | What::Grpc | What::WebSocket | What::Idle => {}
    }
    if case.what == What::Mixed {
        let total = HOSTS * PATHS;
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "local requests, at = {{}}, 0\n\
             function init(args)\n  for i = 0, {total} - 1 do\n    local path = i % {PATHS}\n    \
             requests[i] = wrk.format('GET', '/team-' .. path % 10 .. '/service-' .. path, \
             {{Host = 'host-' .. math.floor(i / {PATHS}) .. '.bench.test'}})\n  end\nend\n\
             function request()\n  at = (at + {STRIDE}) % {total}\n  return requests[at]\nend\n"
        );
    }
    script.push_str(
        "function done(summary, latency, requests)\n  local e = summary.errors\n  \
         io.write(string.format('result %d %d %d %f %f %f\\n', summary.requests, summary.duration, \
         e.connect + e.read + e.write + e.status + e.timeout, \
         latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))\nend\n",
    );
    script
}

/// A header field as browsers and applications send them.
fn field(number: usize) -> (String, String) {
    (
        format!("x-application-field-{number}"),
        format!("value-{number}-of-some-length"),
    )
}

async fn h2load(case: &Case, proxy: &super::Proxy, seconds: u64, home: &Path) -> Result<Slice> {
    let log = home.join("h2load.log");
    let message = home.join("message");
    std::fs::write(&message, load::grpc_message(MESSAGE))?;
    // It adds to a log that is there.
    let _ = std::fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .args([
            "--threads=1",
            "--groups=X25519",
            "--tls13-ciphers=TLS_AES_128_GCM_SHA256",
        ])
        .arg(format!("--clients={}", case.connections))
        .arg(format!("--max-concurrent-streams={}", case.streams))
        .arg(format!("--duration={seconds}"))
        .arg(format!("--connect-to=127.0.0.1:{}", port(case, proxy)))
        .arg("--log-file")
        .arg(&log);
    if case.what == What::Grpc {
        command
            .args([
                "--header=content-type: application/grpc",
                "--header=te: trailers",
                "--data",
            ])
            .arg(&message);
    }
    let output = command
        .arg(format!("https://{ECDSA}{}", case.path()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("requests: "));
    let line = line.with_context(|| format!("h2load says: {text}"))?;
    let count = |what: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(what));
        part.and_then(|part| part.trim().parse::<u64>().ok())
            .unwrap_or_default()
    };
    let requests = count("succeeded");
    let wrong = count("failed") + count("errored") + count("timeout");
    ensure!(requests > 0 && wrong == 0, "h2load says: {line}");
    let log = std::fs::read_to_string(&log).context("h2load has written no log")?;
    let mut micros: Vec<u32> = log
        .lines()
        .filter_map(|line| line.rsplit('\t').next()?.parse().ok())
        .collect();
    micros.sort_unstable();
    let quantile = |per_mille: usize| {
        let index = (micros.len() * per_mille / 1000).min(micros.len().saturating_sub(1));
        micros
            .get(index)
            .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let seconds = seconds as f64;
    Ok(Slice {
        requests,
        seconds,
        latency: [quantile(500), quantile(990), quantile(999)],
        typical_p99: None,
    })
}

/// With our own generator, at a rate or as much as goes.
pub(super) async fn own(
    case: &Case,
    proxy: &super::Proxy,
    seconds: u64,
    rate: Option<f64>,
) -> Result<Slice> {
    let duration = Duration::from_secs(seconds);
    let resumed = matches!(case.what, What::Fresh { resumed: true });
    let connector = Connector::with(&quick_client()?, resumed);
    let budget = Budget::new(None, Some(duration));
    let collector = rate.map_or_else(Collector::default, |rate| {
        Collector::in_stretches(stretch(rate))
    });
    let collector = Arc::new(collector);
    let figures = run(case, proxy, connector, budget, rate, &collector).await?;
    if resumed {
        let full = figures.connections - figures.resumed;
        // The first ones have nothing to resume.
        let first = case.connections as u64;
        ensure!(
            full <= first + figures.connections / 20,
            "{full} of {} handshakes were full",
            figures.connections
        );
    }
    Ok(Slice {
        requests: figures.answers,
        seconds: figures.seconds,
        latency: [figures.p50_ms, figures.p99_ms, figures.p999_ms],
        typical_p99: collector
            .p99_of_a_stretch()
            .map(|typical| typical.as_secs_f64() * 1000.0),
    })
}

/// A few requests whose answers and certificates are checked.
pub(super) async fn check(case: &Case, proxy: &super::Proxy, authority: &str) -> Result<()> {
    let connector = Connector::new(&certs::roots(authority)?, false)?;
    let budget = Budget::new(Some(8), Some(TIMEOUT));
    let case = Case {
        connections: 2,
        streams: 2,
        ..*case
    };
    let collector = Arc::default();
    run(&case, proxy, connector, budget, None, &collector)
        .await
        .map(drop)
}

async fn run(
    case: &Case,
    proxy: &super::Proxy,
    connector: Connector,
    budget: Budget,
    rate: Option<f64>,
    collector: &Arc<Collector>,
) -> Result<load::Figures> {
    let traffic = Arc::new(CaseTraffic::new(case, proxy)?);
    let shape = Shape {
        version: match case.what {
            What::Http2 | What::Grpc => Version::Http2,
            What::WebSocket => Version::WebSocket,
            What::Http1 { .. } | What::Fresh { .. } | What::Mixed | What::Idle => Version::Http1,
        },
        connections: case.connections,
        streams: case.streams,
        renew_after: matches!(case.what, What::Fresh { .. }).then_some(1),
        rate,
        timeout: TIMEOUT,
    };
    load::run(
        traffic,
        connector,
        shape,
        Arc::new(budget),
        Arc::clone(collector),
    )
    .await;
    let figures = collector.figures();
    ensure!(figures.failed == 0 && figures.answers > 0, "{figures}");
    Ok(figures)
}

/// A client that offers one key exchange and one cipher, so that all proxies do the same, and does not spend the core of
/// the backend on verifying certificates.
pub(crate) fn quick_client() -> Result<ClientConfig> {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    Ok(ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnything))
        .with_no_client_auth())
}

struct CaseTraffic {
    what: What,
    target: Target,
    method: Method,
    url: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    status: StatusCode,
    length: Option<u64>,
}

impl CaseTraffic {
    fn new(case: &Case, proxy: &super::Proxy) -> Result<Self> {
        let host = case.tls.unwrap_or(ECDSA);
        let mut this = Self {
            what: case.what,
            target: target(case, proxy)?,
            method: Method::GET,
            url: format!("http://{host}{}", case.path()).parse()?,
            fields: Vec::new(),
            body: Bytes::new(),
            status: StatusCode::OK,
            length: Some(1 << 10),
        };
        if case.tls.is_some() {
            this.url = format!("https://{host}{}", case.path()).parse()?;
        }
        match case.what {
            What::Http1 {
                path,
                upload,
                fields,
            } => {
                if upload > 0 {
                    this.method = Method::POST;
                    this.body = Bytes::from(vec![b'x'; upload]);
                }
                for number in 0..fields {
                    let (name, value) = field(number);
                    this.fields.push((name.parse()?, value.parse()?));
                }
                this.length = match path {
                    "/100k" => Some(100 << 10),
                    "/10m" => Some(10 << 20),
                    _ => Some(1 << 10),
                };
            }
            What::Grpc => {
                this.body = load::grpc_message(MESSAGE);
                this.length = None;
            }
            What::WebSocket => {
                this.body = Bytes::from(vec![b'x'; MESSAGE]);
                this.status = StatusCode::SWITCHING_PROTOCOLS;
                this.length = Some(MESSAGE as u64);
            }
            What::Fresh { .. } | What::Mixed | What::Http2 | What::Idle => {}
        }
        Ok(this)
    }
}

/// Where connections of a case go.
pub(super) fn target(case: &Case, proxy: &super::Proxy) -> Result<Target> {
    Ok(Target {
        address: SocketAddr::from(([127, 0, 0, 1], port(case, proxy))),
        server_name: case.tls.map(certs::server_name).transpose()?,
        authority: case.tls.unwrap_or(ECDSA).into(),
    })
}

impl Traffic for CaseTraffic {
    type Mark = ();

    fn target(&self, _: u64) -> Target {
        self.target.clone()
    }

    fn opening(&self, _: &Target) {}

    fn request(&self, _: &Target, number: u64) -> (Request<Body>, ()) {
        let mut request = Request::new(Body::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        if self.what == What::Mixed {
            let number = usize::try_from(number).unwrap_or_default();
            let at = number.wrapping_mul(STRIDE) % (HOSTS * PATHS);
            let url = format!("http://{}{}", host(at / PATHS), path(at % PATHS));
            *request.uri_mut() = url.parse().unwrap_or_default();
        }
        if self.what == What::Grpc {
            load::make_grpc(&mut request);
        }
        for (name, value) in &self.fields {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        (request, ())
    }

    fn judge(&self, _: &Target, (): (), answer: &Answer) -> Result<(), String> {
        let Answer { status, length, .. } = answer;
        if *status != self.status {
            return Err(format!("status {status}"));
        }
        if self.length.is_some_and(|wanted| wanted != *length) {
            return Err(format!("{length} bytes"));
        }
        if self.what == What::Grpc {
            load::judge_grpc(answer)?;
        }
        Ok(())
    }
}
