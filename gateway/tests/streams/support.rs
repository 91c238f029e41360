//! A gateway with ports, and backends for them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use gateway::{Gateway, HandedSocket, LogFormat, LogOutput, Running, Settings};
use model::{
    BackendId, Balance, Changes, Endpoint, EndpointSet, ObjectRef, Origin, RoutingModel,
    StreamRoute, StreamRules,
};
use serde_json::Value;
use table::{Reject, TableWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) use crate::free_port::free_port;
use crate::log::Log;
pub(crate) use crate::nobody::nobody;
use crate::shared::{METRICS, soon};

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
    /// Serves a model; its ports are open.
    pub(crate) async fn start(model: RoutingModel) -> Self {
        Self::with(model, |_| {}).await
    }

    pub(crate) async fn with(model: RoutingModel, change: impl FnOnce(&mut Settings)) -> Self {
        Self::after(Vec::new(), model, change).await
    }

    /// With sockets of another gateway.
    pub(crate) async fn after(
        handed: Vec<HandedSocket>,
        model: RoutingModel,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        LazyLock::force(&METRICS);
        let compiled = table::compile(&model);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        let (writer, reader) = table::channel(compiled.table);
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let log = Log::default();
        let mut settings = Settings {
            http: vec![local],
            https: vec![local],
            port_addresses: vec![local.ip()],
            workers: 2,
            engine: crate::ENGINE,
            access_log: Some(LogFormat::Json),
            access_log_output: LogOutput::new(log.clone()),
            ..Settings::default()
        };
        change(&mut settings);
        let gateway = Gateway::succeed(settings, reader, handed).unwrap();
        let (http, https) = (gateway.http_addresses()[0], gateway.https_addresses()[0]);
        let site = Self {
            running: gateway.start().unwrap(),
            http,
            https,
            model,
            log,
            writer,
        };
        assert_eq!(site.running.update_ports().await, []);
        site
    }

    /// Publishes what `change` makes of the model, and returns what could not be opened.
    pub(crate) async fn change(&mut self, change: impl FnOnce(&mut RoutingModel)) -> Vec<Reject> {
        let before = self.model.clone();
        change(&mut self.model);
        let changes = Changes::between(&before, &self.model);
        let compiled = table::recompile(&self.writer.current(), &self.model, &changes);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        self.writer.publish(compiled.table);
        self.running.update_ports().await
    }
}

impl Log {
    /// Waits for the first line with this reason.
    pub(crate) async fn ended(&self, reason: &str) -> Value {
        self.line(|line| line["reason"] == reason).await
    }
}

// ---- the model ----

pub(crate) fn backend_id(name: &str) -> BackendId {
    BackendId::new("db", name, "5432")
}

/// Puts the endpoints of a backend into the model.
pub(crate) fn endpoints(model: &mut RoutingModel, name: &str, addresses: &[SocketAddr]) {
    let endpoints = addresses.iter().copied().map(Endpoint::new).collect();
    let set = EndpointSet::Addresses(endpoints);
    model.endpoints.insert(backend_id(name), Arc::new(set));
}

/// A way to a backend, with fewer retries than time.
pub(crate) fn route_with(name: &str, change: impl FnOnce(&mut StreamRoute)) -> Arc<StreamRoute> {
    let mut route = StreamRoute {
        backend: backend_id(name),
        balance: Balance::default(),
        proxy_in: false,
        proxy_out: false,
        rules: StreamRules::default(),
        origin: Origin::new(ObjectRef::new("ConfigMap", "lockgate", "tcp"), "data[9000]"),
    };
    change(&mut route);
    Arc::new(route)
}

pub(crate) fn route(name: &str) -> Arc<StreamRoute> {
    route_with(name, |_| {})
}

/// A model whose TCP port leads to a backend at `addresses`.
pub(crate) fn with_port(addresses: &[SocketAddr]) -> (RoutingModel, u16) {
    let mut model = crate::front::empty();
    endpoints(&mut model, "pg", addresses);
    let port = free_port();
    model.streams.tcp.insert(port, route("pg"));
    (model, port)
}

// ---- both sides ----

pub(crate) async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Says something and reads as much as is expected.
pub(crate) async fn exchange(stream: &mut TcpStream, said: &str, expected: &str) {
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut got = vec![0; expected.len()];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

/// A server that says its name to whoever connects, and then everything that it hears.
pub(crate) async fn parrot(name: &'static str) -> SocketAddr {
    server(move |mut stream| async move {
        stream.write_all(name.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        // The other side may go away whenever it wants.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    })
    .await
}

/// A server that does what it likes with each connection.
pub(crate) async fn server<F, R>(handler: F) -> SocketAddr
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

/// Reads everything up to the end; a reset is none.
pub(crate) async fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await?;
    Ok(rest)
}
