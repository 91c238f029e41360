//! Cases as users would write them: manifests, requests, and what has to come back. They are files in `e2e/cases`.
//!
//! All cases of a file are served at once, each on hosts of its own. The Services `web`, `other`, `third`, `errors` and
//! `auth` answer with what they saw; `none` has no endpoints, `broken` answers 503 whatever it is asked, and so does one
//! of the two pods of `half`; the pods of `pods` are those of the first three.
//!
//! Two tests run them: one against a folder (`controller/tests/features/cases.rs`, which includes this file), one
//! against an API server (`e2e/tests/api/cases.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What is shown, as a sentence.
    pub(crate) name: String,
    /// The objects.
    pub(crate) manifest: String,
    /// Texts that have to be in the problems of its objects.
    #[serde(default)]
    pub(crate) reports: Vec<String>,
    /// What is asked, in this order.
    #[serde(default)]
    pub(crate) requests: Vec<Ask>,
}

/// The cases of one file.
#[derive(Debug)]
pub(crate) struct CaseFile {
    /// Which file.
    pub(crate) path: PathBuf,
    /// Its cases.
    pub(crate) cases: Vec<Case>,
}

/// Reads all files of a folder.
pub(crate) fn read(folder: &Path) -> Vec<CaseFile> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "there are no cases in {}",
        folder.display()
    );
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let cases: Vec<Case> = serde_saphyr::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
            let name = path.display();
            assert_eq!(names.len(), cases.len(), "{name}: a name twice");
            CaseFile { path, cases }
        })
        .collect()
}

/// The Services, as the names that cases use and the ports of their pods.
pub(crate) struct Backends {
    /// Name of the Service and ports of its pods.
    pub(crate) services: Vec<(&'static str, Vec<u16>)>,
    _echoes: Vec<Echo>,
}

impl Backends {
    /// Starts the pods on this address.
    pub(crate) async fn start(address: IpAddr) -> Self {
        let mut services = vec![("none", Vec::new())];
        let mut echoes = Vec::new();
        for name in ["web", "other", "third", "errors", "auth"] {
            let echo = Echo::start(address, name, None).await;
            services.push((name, vec![echo.port]));
            echoes.push(echo);
        }
        let unavailable = Some(StatusCode::SERVICE_UNAVAILABLE);
        let broken = Echo::start(address, "broken", unavailable).await;
        services.push(("broken", vec![broken.port]));
        let web = echoes.first().map_or(0, |echo| echo.port);
        services.push(("half", vec![broken.port, web]));
        // Three pods that say who they are.
        let three = echoes.iter().take(3).map(|echo| echo.port).collect();
        services.push(("pods", three));
        echoes.push(broken);
        Self {
            services,
            _echoes: echoes,
        }
    }
}

/// A request, and what has to come back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    host: String,
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Bytes of body.
    #[serde(default)]
    body: usize,
    /// The length of the body is not said beforehand.
    #[serde(default)]
    chunked: bool,
    /// How often it is sent; every answer has to be as expected.
    #[serde(default = "once")]
    times: usize,
    /// Cookies of an answer go with the next request.
    #[serde(default)]
    keeps_cookies: bool,
    expect: Expected,
}

fn get() -> String {
    "GET".to_owned()
}

fn once() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    status: Option<u16>,
    /// The Service that answered.
    #[serde(default)]
    service: Option<String>,
    /// The path and the query that it saw.
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    query: Option<String>,
    /// Headers that it saw.
    #[serde(default)]
    sees: BTreeMap<String, String>,
    /// Headers that it did not see.
    #[serde(default)]
    unseen: Vec<String>,
    /// Headers of the answer, their values joined with ` | `.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Headers that the answer does not have.
    #[serde(default)]
    absent: Vec<String>,
    /// Texts that are in headers of the first answer.
    #[serde(default)]
    contains: BTreeMap<String, Vec<String>>,
    /// All answers are from one Service.
    #[serde(default)]
    one_service: bool,
    /// Of all answers to the request, between so many from this Service.
    #[serde(default)]
    share: BTreeMap<String, (usize, usize)>,
}

/// A backend that answers with what it saw. `?status=` and `?set=Name:Value` change its answer.
struct Echo {
    port: u16,
    _task: JoinSet<()>,
}

impl Echo {
    async fn start(address: IpAddr, name: &'static str, always: Option<StatusCode>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(move |request| async move {
                    Ok::<_, Infallible>(echo(name, always, request).await)
                });
                connections.spawn(async move {
                    // The gateway may close the connection whenever it wants.
                    let _ = server::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { port, _task: task }
    }
}

async fn echo(
    name: &str,
    always: Option<StatusCode>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    // The client may have been told to stop.
    let received = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let query = parts.uri.query().unwrap_or_default();
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let values = headers.entry(name.as_str()).or_default();
        values.push(value.to_str().unwrap_or_default());
    }
    let seen = json!({
        "service": name,
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": query,
        "headers": headers,
        "received": received,
    });
    let mut response = Response::new(Full::new(Bytes::from(seen.to_string())));
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("status", status)) => *response.status_mut() = status.parse().unwrap(),
            Some(("set", header)) => {
                let (name, value) = header.split_once(':').unwrap();
                let value = value.replace("%20", " ").replace("%3D", "=");
                response.headers_mut().append(
                    HeaderName::try_from(name).unwrap(),
                    HeaderValue::try_from(value).unwrap(),
                );
            }
            _ => {}
        }
    }
    if let Some(status) = always {
        *response.status_mut() = status;
    }
    response
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    seen: Value,
}

async fn send(gateway: SocketAddr, ask: &Ask, cookies: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(gateway).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::from_bytes(ask.method.as_bytes())?)
        .uri(&ask.path)
        .header("host", &ask.host);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    if !cookies.is_empty() {
        request = request.header("cookie", cookies);
    }
    let body: BoxBody<Bytes, Infallible> = if ask.chunked {
        let half = Bytes::from(vec![b'x'; ask.body / 2]);
        let parts = [half.clone(), half].map(|part| Ok(Frame::data(part)));
        BodyExt::boxed(StreamBody::new(futures::stream::iter(parts)))
    } else if ask.body > 0 {
        Full::new(Bytes::from(vec![b'x'; ask.body])).boxed()
    } else {
        Empty::new().boxed()
    };
    let response = sender.send_request(request.body(body)?).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        seen: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// What of an answer is not as expected.
fn differences(expect: &Expected, answer: &Answer) -> String {
    let mut found = String::new();
    let mut differs = |what: &str, got: &str, want: &str| {
        if got != want {
            writeln!(found, "    {what}: got `{got}`, want `{want}`").unwrap();
        }
    };
    let seen = |name: &str| answer.seen[name].as_str().unwrap_or_default();
    let seen_header = |name: &str| {
        let values = answer.seen["headers"][name].as_array();
        let values = values.into_iter().flatten().filter_map(Value::as_str);
        values.collect::<Vec<_>>().join(" | ")
    };
    let header = |name: &str| {
        let values = answer.headers.get_all(name).iter();
        let values = values.map(|value| value.to_str().unwrap_or_default());
        values.collect::<Vec<_>>().join(" | ")
    };
    if let Some(status) = expect.status {
        differs("status", &answer.status.to_string(), &status.to_string());
    }
    for (what, want) in [
        ("service", &expect.service),
        ("path", &expect.path),
        ("query", &expect.query),
    ] {
        if let Some(want) = want {
            differs(what, seen(what), want);
        }
    }
    for (name, want) in &expect.sees {
        differs(&format!("seen header {name}"), &seen_header(name), want);
    }
    for name in &expect.unseen {
        differs(&format!("seen header {name}"), &seen_header(name), "");
    }
    for (name, want) in &expect.headers {
        differs(&format!("header {name}"), &header(name), want);
    }
    for name in &expect.absent {
        differs(&format!("header {name}"), &header(name), "");
    }
    found
}

async fn check(gateway: SocketAddr, ask: &Ask) -> String {
    let mut found = String::new();
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    let mut cookies: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..ask.times {
        let known: Vec<_> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        match timeout(PATIENCE, send(gateway, ask, &known.join("; "))).await {
            Ok(Ok(answer)) => {
                for value in answer.headers.get_all("set-cookie") {
                    let value = value.to_str().unwrap_or_default();
                    let pair = value
                        .split(';')
                        .next()
                        .and_then(|pair| pair.split_once('='));
                    if let Some((name, value)) = pair.filter(|_| ask.keeps_cookies) {
                        cookies.insert(name.to_owned(), value.to_owned());
                    }
                }
                for (name, texts) in ask.expect.contains.iter().filter(|_| number == 0) {
                    let values = answer.headers.get_all(name).iter();
                    let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
                    for text in texts
                        .iter()
                        .filter(|text| !values.join(" | ").contains(*text))
                    {
                        writeln!(found, "    header {name}: `{text}` is not in {values:?}")
                            .unwrap();
                    }
                }
                let service = answer.seen["service"].as_str().unwrap_or_default();
                *services.entry(service.to_owned()).or_default() += 1;
                found.push_str(&differences(&ask.expect, &answer));
            }
            Ok(Err(error)) => writeln!(found, "    no answer: {error:#}").unwrap(),
            Err(_) => found.push_str("    no answer in time\n"),
        }
    }
    if ask.expect.one_service && services.len() != 1 {
        writeln!(found, "    answers are from {services:?}").unwrap();
    }
    for (service, (least, most)) in &ask.expect.share {
        let count = services.get(service).copied().unwrap_or_default();
        if !(*least..=*most).contains(&count) {
            writeln!(
                found,
                "    {count} answers from {service}, want {least} to {most}"
            )
            .unwrap();
        }
    }
    found
}

/// What of a case is not as it says, given the problems that are reported.
pub(crate) async fn failures(case: &Case, gateway: SocketAddr, problems: &[String]) -> String {
    let mut found = String::new();
    for text in &case.reports {
        if !problems
            .iter()
            .any(|problem| problem.contains(text.as_str()))
        {
            writeln!(found, "    `{text}` is not reported in {problems:#?}").unwrap();
        }
    }
    for ask in &case.requests {
        let differences = check(gateway, ask).await;
        if !differences.is_empty() {
            let Ask {
                method, host, path, ..
            } = ask;
            write!(found, "  {method} {host}{path}\n{differences}").unwrap();
        }
    }
    found
}
