//! A gateway, backends and clients for the tests of this folder.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use gateway::{Gateway, Limits, LogFormat, LogOutput, Running, Settings};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::{
    Action, Backend, BackendId, BackendProtocol, Changes, Endpoint, EndpointSet, Filter,
    HostPattern, Listener, ListenerName, ListenerProtocol, ListenerSelector, NormalPath, ObjectRef,
    Origin, PathMatch, Route, RouteMatch, RoutingModel, Timeouts, VirtualHost, WeightedBackend,
};
use serde_json::{Value, json};
use table::TableWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::log::Log;
pub(crate) use crate::nobody::nobody;
use crate::shared::METRICS;
pub(crate) use crate::shared::{counted, eventually, soon};

// ---- the gateway ----

/// A running gateway.
pub(crate) struct Site {
    pub(crate) running: Running,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) model: RoutingModel,
    pub(crate) log: Log,
    writer: TableWriter,
}

impl Site {
    pub(crate) fn start(model: RoutingModel) -> Self {
        Self::with(model, |_| {})
    }

    pub(crate) fn with(model: RoutingModel, change: impl FnOnce(&mut Settings)) -> Self {
        LazyLock::force(&METRICS);
        let compiled = table::compile(&model);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        let (writer, reader) = table::channel(compiled.table);
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let log = Log::default();
        let mut settings = Settings {
            http: vec![local],
            https: vec![local],
            workers: 1,
            engine: crate::ENGINE,
            limits: Limits::default(),
            access_log: Some(LogFormat::Json),
            access_log_output: LogOutput::new(log.clone()),
            ..Settings::default()
        };
        change(&mut settings);
        let gateway = Gateway::bind(settings, reader).unwrap();
        let (http, https) = (gateway.http_addresses()[0], gateway.https_addresses()[0]);
        Self {
            running: gateway.start().unwrap(),
            http,
            https,
            model,
            log,
            writer,
        }
    }

    /// Publishes what `change` makes of the model.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut RoutingModel)) {
        let before = self.model.clone();
        change(&mut self.model);
        let changes = Changes::between(&before, &self.model);
        let compiled = table::recompile(&self.writer.current(), &self.model, &changes);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        self.writer.publish(compiled.table);
        self.running.update_checks();
    }

    /// Sends `GET` on a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        self.get_with(host, path, &[]).await
    }

    /// The same with more header fields.
    pub(crate) async fn get_with(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).header("host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(Bytes::new()).unwrap()).await
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        let stream = TcpStream::connect(self.http).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = request.map(Full::new);
        Answer::read(soon(sender.send_request(request)).await.unwrap()).await
    }

    /// Sends bytes and returns all that comes until the connection is closed.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        let mut all = Vec::new();
        // A reset is an end as well.
        let _ = soon(stream.read_to_end(&mut all)).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Opens a connection that speaks HTTP/2 from the start.
    pub(crate) async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.http).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = soon(body.collect()).await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Which backend answered ([`echo`]).
    pub(crate) fn origin(&self) -> &str {
        self.header("x-origin").unwrap_or("none")
    }

    /// What the backend saw ([`echo`]).
    pub(crate) fn seen(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The values of a field that the backend saw.
    pub(crate) fn seen_header(&self, name: &str) -> Vec<String> {
        self.seen()["headers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Log {
    /// Waits for the line of the request for this path.
    pub(crate) async fn of(&self, path: &str) -> Value {
        self.line(|line| line["path"] == path).await
    }
}

// ---- the model ----

/// A model with both listeners and nothing else.
pub(crate) fn model() -> RoutingModel {
    let mut model = RoutingModel::default();
    for (name, protocol) in [
        (ListenerName::http(), ListenerProtocol::Http),
        (ListenerName::https(), ListenerProtocol::Https),
    ] {
        model.listeners.insert(name, Listener { protocol });
    }
    model
}

pub(crate) fn origin(name: &str) -> Origin {
    Origin::new(ObjectRef::new("Ingress", "shop", name), "")
}

pub(crate) fn backend_id(name: &str) -> BackendId {
    BackendId::new("shop", name, "80")
}

/// A model that sends everything to one backend at `address`.
pub(crate) fn to(address: SocketAddr) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", &[address]);
    add_route(&mut model, "*", "/", forward("web"));
    model
}

pub(crate) fn add_backend(model: &mut RoutingModel, name: &str, addresses: &[SocketAddr]) {
    add_backend_of(
        model,
        name,
        BackendProtocol::Http1,
        EndpointSet::Addresses(addresses.iter().copied().map(Endpoint::new).collect()),
    );
}

pub(crate) fn add_backend_of(
    model: &mut RoutingModel,
    name: &str,
    protocol: BackendProtocol,
    endpoints: EndpointSet,
) {
    model.backends.insert(
        backend_id(name),
        Arc::new(Backend {
            protocol,
            seed: None,
            health: None,
            origin: origin(name),
        }),
    );
    model
        .endpoints
        .insert(backend_id(name), Arc::new(endpoints));
}

pub(crate) fn forward(backend: &str) -> Action {
    Action::Forward(vec![WeightedBackend {
        backend: backend_id(backend),
        weight: 1,
    }])
}

/// Adds a route with this path prefix and lets `change` complete it.
pub(crate) fn add_route_with(
    model: &mut RoutingModel,
    host: &str,
    path: &str,
    action: Action,
    change: impl FnOnce(&mut Route),
) {
    let mut route = Route {
        matches: RouteMatch::path(PathMatch::Prefix(NormalPath::parse(path).unwrap())),
        listeners: ListenerSelector::All,
        filters: model::Filters::default(),
        action,
        timeouts: Timeouts::default(),
        body_limit: None,
        options: model::RareOptions::default(),
        origin: origin("web"),
    };
    change(&mut route);
    let host = HostPattern::parse(host).unwrap();
    let mut routes = model
        .hosts
        .get(&host)
        .map(|host| host.routes.clone())
        .unwrap_or_default();
    routes.push(route);
    model.hosts.insert(host, Arc::new(VirtualHost { routes }));
}

pub(crate) fn add_route(model: &mut RoutingModel, host: &str, path: &str, action: Action) {
    add_route_with(model, host, path, action, |_| {});
}

/// A route for everything with one filter.
pub(crate) fn filtered(address: SocketAddr, filter: Filter) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", &[address]);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.filters.push(filter);
    });
    model
}

// ---- backends ----

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// A backend that hands its requests to `handler`, over HTTP/1.1 or HTTP/2.
pub(crate) async fn backend<F, R>(handler: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A client that goes away is none of this test's business.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A backend that answers with what it saw, as JSON.
pub(crate) async fn echo(name: &'static str) -> SocketAddr {
    backend(move |request| async move { seen(name, request).await }).await
}

/// What [`echo`] answers.
pub(crate) async fn seen(name: &'static str, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Vec<Value> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let seen = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "length": body.len(),
    });
    Response::builder()
        .status(StatusCode::OK)
        .header("x-origin", name)
        .body(full(seen.to_string()))
        .unwrap()
}

/// A backend that does what it likes with each connection.
pub(crate) async fn raw_backend<F, R>(handler: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    address
}

/// Reads the header section of a request; `None` at the end of the connection.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}
