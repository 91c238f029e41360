//! Many requests to the API server in a short time: `kubectl` takes a tenth of a second for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::kubectl::Kubectl;
use crate::wait::{SOON, eventually};

/// Requests at the same time.
const PARALLEL: usize = 16;
const DEADLINE: Duration = Duration::from_mins(1);

/// The API server as the administrator, through a `kubectl proxy` of its own.
pub struct Api {
    folder: TempDir,
    _proxy: Child,
}

impl Api {
    /// Starts the proxy.
    pub async fn start(kubectl: &Kubectl) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let proxy = kubectl.proxy(&folder.path().join("api.sock"))?;
        let api = Self {
            folder,
            _proxy: proxy,
        };
        eventually("kubectl proxy answers", SOON, async || {
            api.connect()
                .await?
                .send(Method::GET, "/readyz", None)
                .await
        })
        .await?;
        Ok(api)
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = UnixStream::connect(self.folder.path().join("api.sock")).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends a connection is seen by the request that needs it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender })
    }

    /// Creates objects of a namespace, in no order: each is the plural of its kind with its group and version, such as
    /// `apis/networking.k8s.io/v1` and `ingresses`, and the manifest.
    pub async fn create(&self, namespace: &str, objects: Vec<(Kind, Value)>) -> Result<()> {
        let placed = |(kind, object): (Kind, Value)| (kind.path(namespace, ""), object);
        self.create_at(objects.into_iter().map(placed).collect())
            .await
    }

    /// Creates objects, in no order, each in the collection that has this path.
    pub async fn create_at(&self, objects: Vec<(String, Value)>) -> Result<()> {
        let objects = Arc::new(objects);
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..PARALLEL {
            let (objects, next) = (Arc::clone(&objects), Arc::clone(&next));
            let mut connection = self.connect().await?;
            workers.spawn(async move {
                while let Some((path, object)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    connection.send(Method::POST, path, Some(object)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(())
    }
}

/// Where objects of a kind are.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// For example `apis/networking.k8s.io/v1`.
    pub group: &'static str,
    /// For example `ingresses`.
    pub plural: &'static str,
}

impl Kind {
    /// The path of an object, of the whole collection without a name.
    pub fn path(self, namespace: &str, name: &str) -> String {
        let Self { group, plural } = self;
        let slash = if name.is_empty() { "" } else { "/" };
        format!("/{group}/namespaces/{namespace}/{plural}{slash}{name}")
    }
}

/// Sends one request after another.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Applies a merge patch to an object.
    pub async fn patch(&mut self, object: &str, patch: &Value) -> Result<()> {
        self.send(Method::PATCH, object, Some(patch)).await
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<()> {
        let what = format!("{method} {path}");
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(DEADLINE, exchange)
            .await
            .with_context(|| format!("{what}: no answer within {DEADLINE:?}"))?
            .with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what}: {status}: {}", String::from_utf8_lossy(&body));
        }
        ensure!(!body.is_empty(), "{what}: an empty answer");
        Ok(())
    }
}
