//! One connection, request by request.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::Proxy;
use super::refusals::{Progress, Refusals};
use super::{h2_options, server_options};
use crate::connection::{Connection, Deadline};
use crate::engine::{Worker, refusal};
use crate::phases::log;

tokio::task_local! {
    /// The session of the request whose context is being made: Pingora has no other way to pass it on.
    static SESSION: Session;
}

/// What requests of a connection share.
#[derive(Clone)]
struct Session {
    connection: Arc<Connection>,
    progress: Arc<Progress>,
    /// What the reader of the client looks at; streams that Pingora reads by itself have none.
    leash: Option<Arc<Deadline>>,
}

/// The connection of the request that begins now, and what can end it.
pub(super) fn begin_request() -> Option<(Arc<Connection>, Option<Arc<Deadline>>)> {
    let session = SESSION.try_with(Session::clone).ok()?;
    session.progress.begin();
    session.connection.request_started();
    Some((session.connection, session.leash))
}

/// The backend has agreed to speak another protocol with the client of this request.
pub(super) fn switch_protocols() {
    // Requests of HTTP/2 have no connection that could be switched.
    let _ = SESSION.try_with(|session| session.progress.switch());
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    proxy: &Arc<HttpProxy<Proxy>>,
    worker: &Arc<Worker>,
    stream: Stream,
    connection: Arc<Connection>,
    shutdown: &ShutdownWatch,
) {
    let progress = Arc::new(Progress::default());
    let stream: Stream = if connection.http2 {
        // Should it end before the first request, then with a farewell: Pingora says none.
        connection.linger_always();
        stream
    } else {
        Box::new(Refusals::new(
            stream,
            Arc::clone(&connection),
            Arc::clone(&progress),
        ))
    };
    let leash = (!connection.http2).then(|| Arc::clone(&connection.deadline));
    let app = Arc::new(App {
        proxy: Arc::clone(proxy),
        worker: Arc::clone(worker),
        options: Some(server_options(&connection.limits)),
        session: Session {
            connection,
            progress,
            leash,
        },
    });
    ServerApp::process_new(&app, stream, shutdown).await;
}

/// Serves one request of a connection; `leash` is what its reader looks at.
pub(super) async fn serve_stream(
    proxy: &Arc<HttpProxy<Proxy>>,
    worker: &Arc<Worker>,
    stream: Box<dyn CustomSession>,
    connection: Arc<Connection>,
    leash: Arc<Deadline>,
    shutdown: &ShutdownWatch,
) {
    let app = Arc::new(App {
        proxy: Arc::clone(proxy),
        worker: Arc::clone(worker),
        options: None,
        session: Session {
            connection,
            progress: Arc::new(Progress::default()),
            leash: Some(leash),
        },
    });
    app.process_new_http(ServerSession::new_custom(stream), shutdown)
        .await;
}

/// Serves the requests of one connection. Streams of HTTP/2 run in tasks of their own, hence the scope around each
/// request.
struct App {
    proxy: Arc<HttpProxy<Proxy>>,
    worker: Arc<Worker>,
    /// What a connection is read with; a single stream is somebody else's.
    options: Option<HttpServerOptions>,
    session: Session,
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let Session {
            connection,
            progress,
            leash: _,
        } = &self.session;
        if !connection.http2 {
            progress.wait();
        }
        let served = SESSION.scope(
            self.session.clone(),
            self.proxy.process_new_http(session, shutdown),
        );
        let reused = served.await;
        if progress.is_refused() {
            log::refused(connection, &self.worker, refusal::PAGE_BODY);
        }
        reused
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(h2_options(&self.session.connection.limits))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.options.as_ref()
    }
}
