//! The listener for operators: health, readiness, metrics and what is being served.
//!
//! It has sockets of its own: nothing of it can be reached through the gateway's ports. It never shows a private
//! key: tables do not hand them out, and [`model::Redacted`] does not print them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use table::TableReader;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::expiry::ExpiryBook;
use crate::histograms::Metrics;
use crate::lifecycle::Phase;
use crate::listener::{self, Answer};
use crate::nginx_metrics::{Counted, NginxMetrics};
use crate::overview::{Endpoint, Overview};
use crate::problems::ProblemBook;

/// For the log.
const NAME: &str = "admin listener";

/// Appends metrics that are written when somebody asks for them.
pub(crate) type MoreMetrics = Box<dyn Fn(&mut String) + Send + Sync>;

/// What the pages are made from.
pub(crate) struct Admin {
    pub(crate) phase: watch::Receiver<Phase>,
    /// Does the control plane still follow changes?
    pub(crate) alive: Arc<AtomicBool>,
    pub(crate) tables: TableReader,
    pub(crate) problems: Arc<ProblemBook>,
    pub(crate) expiry: Arc<ExpiryBook>,
    pub(crate) metrics: Metrics,
    pub(crate) max_series: usize,
    /// The state of the process under the names of ingress-nginx, where somebody asks for it.
    pub(crate) nginx: Option<Arc<NginxMetrics>>,
    /// The live state of endpoints.
    pub(crate) endpoints: Box<dyn Fn() -> Vec<Endpoint> + Send + Sync>,
    /// What is known of backends, as metrics.
    pub(crate) backends: MoreMetrics,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let serve = |stream, peer| {
        let admin = Arc::clone(&admin);
        let answer = move |request| answer(request, Arc::clone(&admin));
        listener::connection(stream, peer, NAME, answer)
    };
    listener::accept(listener, NAME, serve).await;
}

async fn answer(request: Request<Incoming>, admin: Arc<Admin>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/healthz" => health(admin.alive.load(Ordering::Relaxed)),
        "/readyz" => readiness(*admin.phase.borrow()),
        "/servingz" => serving(*admin.phase.borrow()),
        "/metrics" => elsewhere(move || metrics(&admin)).await,
        "/debug/routes" => {
            let readable = wants_table(&request);
            elsewhere(move || routes(&admin, readable)).await
        }
        "/" => page(
            StatusCode::OK,
            TEXT,
            "/healthz\n/readyz\n/servingz\n/metrics\n/debug/routes\n",
        ),
        _ => page(StatusCode::NOT_FOUND, TEXT, "no such page; / lists them\n"),
    }
}

/// Large tables take a while to write out: not on a thread on which changes are taken in.
async fn elsewhere(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            page(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                &format!("{error}\n"),
            )
        })
}

fn health(alive: bool) -> Answer {
    if alive {
        page(StatusCode::OK, TEXT, "ok\n")
    } else {
        let text = "the control plane has ended; what was published last is still served\n";
        page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
    }
}

/// For load balancers that ask by themselves: should new connections come here?
fn readiness(phase: Phase) -> Answer {
    told(phase, phase.is_ready(), "ready\n")
}

/// For the kubelet: are connections accepted? Kubernetes takes a pod that is to end out of its Services by itself, but it
/// goes on sending what still reaches the pod's node to the pod only as long as the pod passes its probe.
fn serving(phase: Phase) -> Answer {
    told(phase, phase.is_accepting(), "serving\n")
}

fn told(phase: Phase, yes: bool, text: &'static str) -> Answer {
    let no = StatusCode::SERVICE_UNAVAILABLE;
    match phase {
        _ if yes => page(StatusCode::OK, TEXT, text),
        Phase::Starting => page(no, TEXT, "the first full sync is not there yet\n"),
        Phase::Serving | Phase::Leaving | Phase::Draining | Phase::Stopped => {
            page(no, TEXT, "shutting down\n")
        }
    }
}

fn metrics(admin: &Admin) -> Answer {
    let mut text = admin.metrics.render();
    if let Some(nginx) = &admin.nginx {
        let own = text.clone();
        let counted = Counted {
            own: &own,
            in_flight: (admin.endpoints)().iter().map(|end| end.in_flight).sum(),
        };
        nginx.render(&counted, &admin.tables.pin(), &mut text);
    }
    admin.expiry.render(admin.max_series, &mut text);
    (admin.backends)(&mut text);
    page(StatusCode::OK, PROMETHEUS, &text)
}

fn routes(admin: &Admin, readable: bool) -> Answer {
    let table = admin.tables.pin();
    let overview = Overview::new(&table, (admin.endpoints)(), admin.problems.all());
    if readable {
        return page(StatusCode::OK, TEXT, &overview.to_string());
    }
    match serde_json::to_string_pretty(&overview) {
        Ok(text) => page(StatusCode::OK, JSON, &text),
        Err(error) => page(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            &format!("{error}\n"),
        ),
    }
}

/// `?format=table` or `?format=json`; without it `Accept: text/plain` asks for the table.
fn wants_table<B>(request: &Request<B>) -> bool {
    let format = request.uri().query().and_then(|query| {
        query
            .split('&')
            .find_map(|part| part.strip_prefix("format="))
    });
    match format {
        Some(format) => format == "table",
        None => request
            .headers()
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.trim_start().starts_with("text/plain")),
    }
}

fn page(status: StatusCode, content_type: HeaderValue, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_serving_process_is_ready() {
        for (phase, status) in [
            (Phase::Starting, 503),
            (Phase::Serving, 200),
            (Phase::Leaving, 503),
            (Phase::Draining, 503),
            (Phase::Stopped, 503),
        ] {
            assert_eq!(readiness(phase).status().as_u16(), status, "{phase:?}");
        }
    }

    #[test]
    fn the_readable_form_is_asked_for_by_query_or_header() {
        for (uri, accept, want) in [
            ("/debug/routes", None, false),
            ("/debug/routes", Some("*/*"), false),
            ("/debug/routes", Some("text/plain"), true),
            ("/debug/routes?format=table", None, true),
            ("/debug/routes?a=b&format=table", None, true),
            ("/debug/routes?format=json", Some("text/plain"), false),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            assert_eq!(
                wants_table(&request.body(()).unwrap()),
                want,
                "{uri} {accept:?}"
            );
        }
    }
}
