//! The webhook's listener: HTTPS, one page, and limits to what anybody can make it do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use metrics::counter;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::judge::judge;
use super::review::{self, Asked, Failure};
use super::{Certificates, Known, Question};
use crate::listener::{self, Answer};
use crate::telemetry;

/// The only page.
const PATH: &str = "/validate";

/// For the log.
const NAME: &str = "admission webhook";

/// Bodies that are held at once.
const MAX_BODIES: usize = 16;

/// Reviews that are worked on at once.
const MAX_REVIEWS: usize = 2;

/// An object and what it was before, each as large as an API server stores one by default.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// From the header of a request to its answer. Whoever asks has given up before.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// What connections are served with.
pub(crate) struct Webhook {
    tls: TlsAcceptor,
    questions: mpsc::Sender<Question>,
    bodies: Semaphore,
    reviews: Arc<Semaphore>,
}

impl Webhook {
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        provider: Arc<CryptoProvider>,
        questions: mpsc::Sender<Question>,
    ) -> Result<Self, rustls::Error> {
        // TLS 1.2 and 1.3.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            questions,
            bodies: Semaphore::new(MAX_BODIES),
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
        })
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, webhook: Arc<Webhook>) {
    let serve = |stream, peer| connection(stream, peer, Arc::clone(&webhook));
    listener::accept(listener, NAME, serve).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, webhook: Arc<Webhook>) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, webhook.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%peer, %error, "A TLS handshake with the {NAME} failed");
            return;
        }
        Err(_elapsed) => {
            debug!(%peer, "A TLS handshake with the {NAME} took too long");
            return;
        }
    };
    let answer = |request| respond(request, &webhook);
    listener::connection(stream, peer, NAME, answer).await;
}

async fn respond(request: Request<Incoming>, webhook: &Webhook) -> Answer {
    if request.uri().path() != PATH {
        let text = format!("reviews are answered at {PATH}\n");
        return page(StatusCode::NOT_FOUND, text);
    }
    if request.method() != Method::POST {
        let mut answer = page(StatusCode::METHOD_NOT_ALLOWED, "only POST\n".to_owned());
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    if !is_json(&request) {
        let text = "an AdmissionReview is sent as application/json\n".to_owned();
        return page(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let reviewed = timeout(REVIEW_TIMEOUT, reviewed(request, webhook)).await;
    match reviewed.unwrap_or(Err(Refused::Failure(Failure::TooLate))) {
        Ok(response) => {
            let outcome = if response.allowed {
                "allowed"
            } else {
                "refused"
            };
            counter!(telemetry::ADMISSION_REVIEWS, "outcome" => outcome).increment(1);
            json(&response.into_review())
        }
        Err(refused) => {
            counter!(telemetry::ADMISSION_REVIEWS, "outcome" => "failed").increment(1);
            let (status, text) = match refused {
                Refused::Body(status, text) => (status, text.to_owned()),
                Refused::Failure(failure) => (failure.status(), failure.to_string()),
            };
            debug!(%status, text, "A review failed");
            page(status, format!("{text}\n"))
        }
    }
}

/// Why a request gets no review.
enum Refused {
    Body(StatusCode, &'static str),
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

async fn reviewed(
    request: Request<Incoming>,
    webhook: &Webhook,
) -> Result<AdmissionResponse, Refused> {
    // Nobody closes the semaphores.
    let _body = webhook.bodies.acquire().await.map_err(|_| Failure::Ended)?;
    let body = Limited::new(request.into_body(), MAX_BODY);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refused::Body(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large")
        } else {
            Refused::Body(StatusCode::BAD_REQUEST, "the review did not arrive")
        }
    })?;
    let body = body.to_bytes();
    let place = Arc::clone(&webhook.reviews).acquire_owned().await;
    // Work that has begun goes on after a timeout, and keeps its place until its end.
    let place = Arc::new(place.map_err(|_| Failure::Ended)?);
    let held = Arc::clone(&place);
    let asked = spawn_blocking(move || {
        let _held = held;
        review::read(&body)
    });
    let Asked { allowed, object } = asked.await.map_err(Failure::Broken)??;
    let Some(object) = object else {
        return Ok(allowed);
    };
    let (reply, known) = oneshot::channel();
    let question = Question { object, reply };
    let sent = webhook.questions.send(question).await;
    sent.map_err(|_| Failure::Ended)?;
    match known.await.map_err(|_| Failure::Ended)? {
        Known::TooEarly => Err(Failure::TooEarly.into()),
        Known::Foreign => Ok(allowed),
        Known::Ours { preview, rejected } => {
            let judged = spawn_blocking(move || {
                let _place = place;
                let judgement = judge(preview.translate(), &rejected);
                review::answer(allowed, &judgement)
            });
            Ok(judged.await.map_err(Failure::Broken)?)
        }
    }
}

fn is_json<B>(request: &Request<B>) -> bool {
    let given = request.headers().get(CONTENT_TYPE);
    let given = given.and_then(|given| given.to_str().ok());
    given.is_some_and(|given| {
        let kind = given.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    })
}

fn json(review: &AdmissionReview<DynamicObject>) -> Answer {
    match serde_json::to_vec(review) {
        Ok(body) => {
            let mut answer = Response::new(Full::new(body.into()));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(CONTENT_TYPE, json);
            answer
        }
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn page(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}
