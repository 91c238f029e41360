//! A bounded load generator for HTTP/1.1, HTTP/2, gRPC and WebSocket that counts every failure.
//!
//! What is asked for and what counts as right is a [`Traffic`]; how many connections carry it is a [`Shape`]; when it
//! ends is a [`Budget`].

mod arrivals;
mod client;
mod grpc;
mod histogram;
mod summary;
mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use arrivals::Arrivals;
pub use client::{Body, Connection, Connector, Exchange, SendError, Target};
pub use grpc::{grpc_message, judge_grpc, make_grpc};
pub use histogram::Histogram;
pub use summary::{Collector, Failure, FailureKind, Figures, Progress};

/// The version of HTTP that a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One request after the other.
    Http1,
    /// Several at once. Without TLS: with prior knowledge.
    Http2,
    /// An upgraded connection of HTTP/1.1: the body of a request goes as one message, the next message is the answer
    /// and has the status 101.
    WebSocket,
}

/// An answer as far as it is looked at.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Length of its body.
    pub length: u64,
    /// The first bytes of its body, at most [`Answer::KEPT`].
    pub start: Bytes,
    /// The fields that followed its body.
    pub trailers: HeaderMap,
}

impl Answer {
    /// How much of a body is kept.
    pub const KEPT: usize = 512;

    /// The text of a header field; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// What is asked for, and what counts as right.
pub trait Traffic: Send + Sync + 'static {
    /// What has to be remembered from before a request or a connection to judge it afterwards.
    type Mark: Send;

    /// Where the connection of this number goes.
    fn target(&self, connection: u64) -> Target;

    /// Called before a connection is opened.
    fn opening(&self, target: &Target) -> Self::Mark;

    /// Judges a connection; `leaf` is the certificate that the server has shown. rustls has verified what is to be verified:
    /// as a rule nothing is left.
    fn opened(
        &self,
        _target: &Target,
        _mark: Self::Mark,
        _leaf: Option<&CertificateDer<'static>>,
    ) -> Result<(), String> {
        Ok(())
    }

    /// The request of this number on a connection to `target`.
    fn request(&self, target: &Target, number: u64) -> (Request<Body>, Self::Mark);

    /// Judges an answer.
    fn judge(&self, target: &Target, mark: Self::Mark, answer: &Answer) -> Result<(), String>;
}

/// How many connections carry the traffic, and for how long each.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Version of HTTP.
    pub version: Version,
    /// Connections at the same time.
    pub connections: usize,
    /// Requests at the same time on one connection (HTTP/2 only).
    pub streams: usize,
    /// Requests until a connection is replaced by a fresh one; `None` keeps it. With 1, opening the connection is
    /// part of the request and of its latency.
    pub renew_after: Option<u64>,
    /// Requests per second of all connections together; `None`: each as soon as the one before it is answered.
    ///
    /// With a rate, requests fall due whether or not the ones before are answered, and latency counts from that
    /// moment: a server that stalls cannot hide it by keeping the generator waiting.
    pub rate: Option<f64>,
    /// How long a request or the opening of a connection may take.
    pub timeout: Duration,
}

/// When to end: what is left to send. Shared by everything that runs at the same time.
#[derive(Debug)]
pub struct Budget {
    sent: AtomicU64,
    requests: AtomicU64,
    deadline: Option<Instant>,
}

impl Budget {
    /// At most this many requests, for at most this long. Without either it goes on until [`Budget::end`].
    pub fn new(requests: Option<u64>, duration: Option<Duration>) -> Self {
        Self {
            sent: AtomicU64::new(0),
            requests: AtomicU64::new(requests.unwrap_or(u64::MAX)),
            deadline: duration.map(|duration| Instant::now() + duration),
        }
    }

    /// No further requests.
    pub fn end(&self) {
        self.requests.store(0, Ordering::Relaxed);
    }

    /// Requests handed out so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The number of the next request, if there is to be one.
    fn take(&self) -> Option<u64> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return None;
        }
        self.sent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                (sent < self.requests.load(Ordering::Relaxed)).then(|| sent + 1)
            })
            .ok()
    }

    /// The request that was taken has not been sent.
    fn give_back(&self) {
        self.sent.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.sent() >= self.requests.load(Ordering::Relaxed)
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Sends requests until the budget is spent; what happened is in `collector`.
pub async fn run<T: Traffic>(
    traffic: Arc<T>,
    connector: Connector,
    shape: Shape,
    budget: Arc<Budget>,
    collector: Arc<Collector>,
) {
    let arrivals = shape.rate.map(|rate| Arrivals::start(rate, &budget));
    let worker = Worker {
        traffic,
        connector,
        shape,
        budget,
        collector,
        opened: Arc::default(),
        arrivals,
    };
    let mut workers = JoinSet::new();
    for _ in 0..shape.connections {
        let worker = worker.clone();
        workers.spawn(async move { worker.run().await });
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            worker
                .collector
                .failed(Failure::new(FailureKind::Generator, error));
        }
    }
}

/// How long a connection that cannot be opened is not tried again.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

struct Worker<T> {
    traffic: Arc<T>,
    connector: Connector,
    shape: Shape,
    budget: Arc<Budget>,
    collector: Arc<Collector>,
    opened: Arc<AtomicU64>,
    arrivals: Option<Arc<Arrivals>>,
}

impl<T> Clone for Worker<T> {
    fn clone(&self) -> Self {
        Self {
            traffic: Arc::clone(&self.traffic),
            connector: self.connector.clone(),
            shape: self.shape,
            budget: Arc::clone(&self.budget),
            collector: Arc::clone(&self.collector),
            opened: Arc::clone(&self.opened),
            arrivals: self.arrivals.clone(),
        }
    }
}

/// Why a connection was given up.
enum Leave {
    /// The server closed it between two requests, or it has done its share.
    Renew,
    /// Nothing is left to send.
    Spent,
}

impl<T: Traffic> Worker<T> {
    async fn run(&self) {
        if self.shape.renew_after == Some(1) {
            return self.run_fresh().await;
        }
        while !self.budget.is_spent() {
            let number = self.opened.fetch_add(1, Ordering::Relaxed);
            let target = self.traffic.target(number);
            match self.open(&target).await {
                Ok(connection) => {
                    if matches!(self.drive(&target, connection).await, Leave::Spent) {
                        return;
                    }
                }
                Err(failure) => {
                    // A connection that cannot be opened costs one request of the budget, so that this ends.
                    if self.budget.take().is_none() {
                        return;
                    }
                    self.collector.failed(failure);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn open(&self, target: &Target) -> Result<Connection, Failure> {
        let mark = self.traffic.opening(target);
        let opening = self.connector.open(target, self.shape.version);
        let connection = tokio::time::timeout(self.shape.timeout, opening)
            .await
            .map_err(|_| Failure::new(FailureKind::Timeout, "opening a connection"))??;
        self.collector.connected(connection.resumed());
        self.traffic
            .opened(target, mark, connection.leaf())
            .map_err(|text| Failure::new(FailureKind::Certificate, text))?;
        Ok(connection)
    }

    async fn drive(&self, target: &Target, connection: Connection) -> Leave {
        let lanes = match self.shape.version {
            Version::Http1 | Version::WebSocket => 1,
            Version::Http2 => self.shape.streams.max(1),
        };
        let share = Semaphore::new(
            self.shape
                .renew_after
                .and_then(|share| usize::try_from(share).ok())
                .unwrap_or(Semaphore::MAX_PERMITS)
                .min(Semaphore::MAX_PERMITS),
        );
        if lanes == 1 {
            return self.lane(target, connection.exchange(), &share).await;
        }
        // Lanes are futures of this task: what they share is borrowed.
        let mut running: Vec<_> = (0..lanes)
            .map(|_| Box::pin(self.lane(target, connection.exchange(), &share)))
            .collect();
        let mut leave = Leave::Renew;
        while !running.is_empty() {
            let ended = select_all(&mut running).await;
            if matches!(ended, Leave::Spent) {
                leave = Leave::Spent;
            }
        }
        leave
    }

    async fn lane(&self, target: &Target, mut exchange: Exchange, share: &Semaphore) -> Leave {
        loop {
            if !exchange.ready().await {
                self.collector.closed_by_server();
                return Leave::Renew;
            }
            let Ok(permit) = share.try_acquire() else {
                return Leave::Renew;
            };
            permit.forget();
            let Some((number, begun)) = self.next().await else {
                return Leave::Spent;
            };
            match self.exchange(target, &mut exchange, number).await {
                Ok((answer, mark)) => self.answered(target, begun, mark, &answer),
                Err(SendError::Unsent) => {
                    self.budget.give_back();
                    if let Some(arrivals) = &self.arrivals {
                        arrivals.give_back(begun);
                    }
                    self.collector.closed_by_server();
                    return Leave::Renew;
                }
                Err(SendError::Failed(failure)) => {
                    self.collector.failed(failure);
                    return Leave::Renew;
                }
            }
        }
    }

    /// A connection for each request.
    async fn run_fresh(&self) {
        while let Some((number, begun)) = self.next().await {
            let target = self
                .traffic
                .target(self.opened.fetch_add(1, Ordering::Relaxed));
            let answer = async {
                let connection = self.open(&target).await?;
                let mut exchange = connection.exchange();
                if !exchange.ready().await {
                    return Err(SendError::Unsent);
                }
                self.exchange(&target, &mut exchange, number).await
            };
            match answer.await {
                Ok((answer, mark)) => self.answered(&target, begun, mark, &answer),
                Err(error) => {
                    self.collector.failed(match error {
                        SendError::Failed(failure) => failure,
                        SendError::Unsent => Failure::new(FailureKind::Connect, error),
                    });
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// The number of the next request and the moment from which its latency counts; `None` when there is none.
    async fn next(&self) -> Option<(u64, Instant)> {
        let due = match &self.arrivals {
            Some(arrivals) => Some(arrivals.next().await?),
            None => None,
        };
        let number = self.budget.take()?;
        Some((number, due.unwrap_or_else(Instant::now)))
    }

    async fn exchange(
        &self,
        target: &Target,
        exchange: &mut Exchange,
        number: u64,
    ) -> Result<(Answer, T::Mark), SendError> {
        let (request, mark) = self.traffic.request(target, number);
        let answer = tokio::time::timeout(self.shape.timeout, exchange.send(request))
            .await
            .map_err(|_| Failure::new(FailureKind::Timeout, "waiting for an answer"))??;
        Ok((answer, mark))
    }

    fn answered(&self, target: &Target, begun: Instant, mark: T::Mark, answer: &Answer) {
        self.collector.answered(begun.elapsed(), answer.length);
        if let Err(text) = self.traffic.judge(target, mark, answer) {
            self.collector
                .failed(Failure::new(FailureKind::Answer, text));
        }
    }
}

/// Waits for one of the futures, takes it out and gives its result.
async fn select_all<F: Future + Unpin>(running: &mut Vec<F>) -> F::Output {
    std::future::poll_fn(|context| {
        for index in 0..running.len() {
            let Some(future) = running.get_mut(index) else {
                break;
            };
            if let std::task::Poll::Ready(result) = std::pin::Pin::new(future).poll(context) {
                drop(running.swap_remove(index));
                return std::task::Poll::Ready(result);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
