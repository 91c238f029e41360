//! Bytes on connections to a whole gateway, on loopback, with a backend that believes nothing.
//!
//! Whatever a client sends: the backend reads requests that are beyond doubt, each of which the gateway has written
//! itself, the client gets an answer of HTTP or none, its connection comes to an end, and nothing panics.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use gateway::{Engine, Gateway, Running};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use translate::{Change, Settings, Translator};

/// Longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// Is this a thread that sends, and says itself what is wrong?
    static SENDS: Cell<bool> = const { Cell::new(false) };
}

static PANICKED: AtomicBool = AtomicBool::new(false);
/// What a backend has seen that it must not see.
static SEEN: Mutex<Option<String>> = Mutex::new(None);

static WORLD: LazyLock<World> = LazyLock::new(World::new);

struct World {
    /// With the direct engine, and without.
    gateways: [SocketAddr; 2],
    _running: Vec<Running>,
    _runtime: Runtime,
}

/// Routes for each of the ways through the gateway.
const MANIFESTS: &str = r#"
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: plain, namespace: shop}, spec: {ingressClassName: lockgate, rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: sticky, namespace: shop, annotations: {nginx.ingress.kubernetes.io/affinity: cookie, nginx.ingress.kubernetes.io/rewrite-target: /r/$1}}, spec: {ingressClassName: lockgate, rules: [{host: sticky.test, http: {paths: [{path: /(.*), pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: guarded, namespace: shop, annotations: {nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users, nginx.ingress.kubernetes.io/satisfy: any, nginx.ingress.kubernetes.io/whitelist-source-range: 10.0.0.0/8}}, spec: {ingressClassName: lockgate, rules: [{host: guarded.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: users, namespace: shop}, stringData: {auth: "a:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: PORT}], endpoints: [{addresses: [127.0.0.1]}]}
"#;

impl World {
    fn new() -> Self {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !SENDS.get() {
                PANICKED.store(true, Ordering::SeqCst);
            }
            usual(panic);
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let backend = runtime.block_on(backend());
        let mut running = Vec::new();
        let gateways = [Engine::Auto, Engine::Pingora].map(|engine| {
            let settings = Settings {
                allow_loopback_endpoints: true,
                ..Settings::default()
            };
            let mut translator = Translator::new(settings);
            let manifests = MANIFESTS.replace("PORT", &backend.port().to_string());
            let parsed = translate::manifests::parse(&manifests);
            assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
            translator.apply(parsed.objects.into_iter().map(Change::Apply));
            let problems: Vec<_> = translator.report().problems().collect();
            assert!(problems.is_empty(), "{problems:?}");
            let (writer, reader) = table::channel(table::compile(translator.model()).table);
            // The table stays what it is.
            std::mem::forget(writer);
            let settings = gateway::Settings {
                http: vec!["127.0.0.1:0".parse().expect("an address")],
                workers: 1,
                engine,
                access_log: None,
                ..gateway::Settings::default()
            };
            let gateway = Gateway::bind(settings, reader).expect("a free port");
            let address = gateway.http_addresses()[0];
            running.push(gateway.start().expect("a gateway"));
            address
        });
        Self {
            gateways,
            _running: running,
            _runtime: runtime,
        }
    }
}

/// Reads requests without forgiving anything.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                if let Err(what) = requests(&mut stream).await {
                    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.get_or_insert(what);
                }
            });
        }
    });
    address
}

/// Reads one request after the other, up to the end of the connection. What has not come as a whole is none.
async fn requests(stream: &mut BufReader<tokio::net::TcpStream>) -> Result<(), String> {
    loop {
        let Some(first) = line(stream).await? else {
            return Ok(());
        };
        let mut fields = Vec::new();
        loop {
            let Some(line) = line(stream).await? else {
                return Ok(());
            };
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(format!("no colon: {line:?}"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let all = |wanted: &str| -> Vec<&str> {
            let found = fields.iter().filter(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str()).collect()
        };
        let words: Vec<&str> = first.split(' ').collect();
        if words.len() != 3 || words[2] != "HTTP/1.1" || !words[1].starts_with('/') {
            return Err(format!("not a request line: {first:?}"));
        }
        // Written by the gateway, and by nobody else: a request that was smuggled has not got them.
        for (name, want) in [("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")] {
            if all(name) != [want] {
                return Err(format!("{name} of {first:?}: {fields:?}"));
            }
        }
        if all("x-request-id").len() != 1 || all("host").len() != 1 {
            return Err(format!("{first:?}: {fields:?}"));
        }
        let complete = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => true,
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length: u64 = length.parse().map_err(|_| format!("length {length:?}"))?;
                exactly(stream, length).await
            }
            ([], ["chunked"]) => chunks(stream).await?,
            other => return Err(format!("where does {first:?} end? {other:?}")),
        };
        if !complete {
            return Ok(());
        }
        let head = words[0] == "HEAD";
        let answer: &[u8] = if head {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        };
        if stream.get_mut().write_all(answer).await.is_err() {
            return Ok(());
        }
    }
}

/// A line; nothing at the end of the connection.
async fn line(stream: &mut BufReader<tokio::net::TcpStream>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let read = stream.read_until(b'\n', &mut line).await;
    if read.is_err() || !line.ends_with(b"\n") {
        return Ok(None);
    }
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err(format!("a line that ends with LF: {}", line.escape_ascii()));
    };
    if text
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(format!("a control character: {}", text.escape_ascii()));
    }
    Ok(Some(text.iter().map(|byte| char::from(*byte)).collect()))
}

async fn exactly(stream: &mut BufReader<tokio::net::TcpStream>, length: u64) -> bool {
    let mut part = stream.take(length);
    let copied = tokio::io::copy(&mut part, &mut tokio::io::sink()).await;
    copied.is_ok_and(|copied| copied == length)
}

async fn chunks(stream: &mut BufReader<tokio::net::TcpStream>) -> Result<bool, String> {
    loop {
        let Some(size) = line(stream).await? else {
            return Ok(false);
        };
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = u64::from_str_radix(&size, 16);
        let (true, Ok(length)) = (digits, length) else {
            return Err(format!("the size of a chunk: {size:?}"));
        };
        if !exactly(stream, length).await {
            return Ok(false);
        }
        match line(stream).await? {
            None => return Ok(false),
            Some(end) if !end.is_empty() => return Err(format!("behind a chunk: {end:?}")),
            Some(_) if length == 0 => return Ok(true),
            Some(_) => {}
        }
    }
}

/// Sends bytes and nothing more, and returns all that comes back.
fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    SENDS.set(true);
    let mut stream = TcpStream::connect(to).expect("a gateway that listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // Who is refused need not take all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        let late = matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        );
        assert!(!late, "the connection does not come to an end");
    }
    all
}

fn check() {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert_eq!(seen, None, "what the backend saw");
    assert!(!PANICKED.load(Ordering::SeqCst), "something panicked");
}

/// HTTP/1, through both engines.
pub(crate) fn http1(bytes: &[u8]) {
    for gateway in WORLD.gateways {
        let answer = exchange(gateway, bytes);
        let http1 = answer.is_empty() || answer.starts_with(b"HTTP/1.1 ");
        assert!(
            http1 || bytes.starts_with(b"PRI * HTTP/2.0\r\n"),
            "{}",
            answer.escape_ascii()
        );
        check();
    }
}

/// Frames of HTTP/2 behind the preface, through both engines.
pub(crate) fn http2(bytes: &[u8]) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let bytes = [&preface[..], bytes].concat();
    for gateway in WORLD.gateways {
        let answer = exchange(gateway, &bytes);
        // Settings come first.
        assert!(
            answer.is_empty() || answer.get(3) == Some(&4),
            "{}",
            answer.escape_ascii()
        );
        check();
    }
}
