//! Cases as users would write them: manifests, requests, and what has to come back. They are files in `e2e/cases`.
//!
//! All cases of a file are served at once, each on hosts of its own. The Services `web`, `other`, `third`, `errors` and
//! `auth` answer with what they saw; `none` has no endpoints, `broken` answers 503 whatever it is asked, and the pods of
//! `pods` are those of the first three.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;

use controller::app::Engine;
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

use crate::client::PATIENCE;
use crate::manifest::{Authority, service};
use crate::world::World;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is shown, as a sentence.
    name: String,
    manifest: String,
    /// Texts that have to be in the problems of its objects.
    #[serde(default)]
    reports: Vec<String>,
    #[serde(default)]
    requests: Vec<Ask>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
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
    async fn start(name: &'static str, always: Option<StatusCode>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
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

async fn send(world: &World, ask: &Ask, cookies: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(world.app.http_addresses()[0]).await?;
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

async fn check(world: &World, ask: &Ask) -> String {
    let mut found = String::new();
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    let mut cookies: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..ask.times {
        let known: Vec<_> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        match timeout(PATIENCE, send(world, ask, &known.join("; "))).await {
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

#[tokio::test]
async fn every_case_is_answered_as_it_says() {
    answer_all(Engine::Auto).await;
}

#[tokio::test]
async fn every_case_is_answered_as_it_says_by_pingora_alone() {
    answer_all(Engine::Pingora).await;
}

async fn answer_all(engine: Engine) {
    let mut backends = Vec::new();
    let mut services = vec![("none.yaml".to_owned(), service("none", &[]))];
    for name in ["web", "other", "third", "errors", "auth"] {
        let echo = Echo::start(name, None).await;
        services.push((format!("{name}.yaml"), service(name, &[echo.port])));
        backends.push(echo);
    }
    let broken = Echo::start("broken", Some(StatusCode::SERVICE_UNAVAILABLE)).await;
    services.push(("broken.yaml".to_owned(), service("broken", &[broken.port])));
    // One of its two pods fails.
    let half = service("half", &[broken.port, backends[0].port]);
    services.push(("half.yaml".to_owned(), half));

    // Three pods that say who they are.
    let ports: Vec<_> = backends.iter().take(3).map(|echo| echo.port).collect();
    services.push(("pods.yaml".to_owned(), service("pods", &ports)));

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    let (mut cases, mut requests, mut failures) = (0, 0, String::new());
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let of_file: Vec<Case> = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let names: BTreeSet<_> = of_file.iter().map(|case| &case.name).collect();
        assert_eq!(
            names.len(),
            of_file.len(),
            "{}: a name twice",
            file.display()
        );
        let mut manifests = services.clone();
        for (number, case) in of_file.iter().enumerate() {
            manifests.push((format!("case-{number}.yaml"), case.manifest.clone()));
        }
        let manifests: Vec<_> = manifests
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let world = World::start_with(Authority::new(), &manifests, |settings| {
            settings.serve.engine = engine;
        })
        .await;
        let problems = world.problems().await;
        for case in &of_file {
            cases += 1;
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
                requests += 1;
                let differences = check(&world, ask).await;
                if !differences.is_empty() {
                    let Ask {
                        method, host, path, ..
                    } = ask;
                    write!(found, "  {method} {host}{path}\n{differences}").unwrap();
                }
            }
            if !found.is_empty() {
                writeln!(failures, "{}: {}\n{found}", file.display(), case.name).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(cases > 0, "there are no cases in {}", folder.display());
    eprintln!("{cases} cases with {requests} requests");
}
