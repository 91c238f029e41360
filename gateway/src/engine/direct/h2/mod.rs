//! HTTP/2 from the client, by ALPN or by prior knowledge.
//!
//! A connection is one task, and so are all its streams: what endpoints have sent since the last turn leaves in one
//! write. Each stream decides by itself where it is served: in here, or by Pingora ([`foreign`]).

mod backlog;
mod fields;
mod foreign;
mod io;
mod outlet;
mod stream;
mod to_http1;
mod to_http2;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::Reason as Code;
use h2::server::{Builder, Connection as H2};
use tokio::sync::watch;

use self::backlog::Backlog;
use self::io::Io;
use self::outlet::{Client, End};
use super::DirectEngine;
use crate::connection::{Awaited, Connection, FAREWELL};
use crate::front::conn::Transport;
use crate::front::frames::Flood;
use crate::front::guard::{SHUTDOWN_TIMEOUT, count_cut, count_end};
use crate::settings::Limits;
use crate::timer::Timer;

/// How many requests that cannot be understood one connection may send: they cost us more than the client.
const MOST_MALFORMED: u32 = 32;
/// The time for which the limit on requests that are taken back is meant.
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// How much of a response `h2` holds of one stream, apart from what its window allows.
const SEND_BUFFER: usize = 64 * 1024;

/// Timers that are used again: one that exists is cheaper to move than a new one is to make.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Vec<Timer>>);

impl Timers {
    /// More are not kept.
    const MOST: usize = 1024;

    fn take(&self) -> Timer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn put(&self, timer: Timer) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::MOST {
            kept.push(timer);
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    engine: &DirectEngine,
    transport: Transport,
    connection: Arc<Connection>,
    shutdown: &watch::Receiver<bool>,
) {
    let limits = Arc::clone(&connection.limits);
    let limits = &*limits;
    let io = Io::new(transport, Arc::clone(&connection));
    let mut handshake = pin!(builder(limits).handshake::<_, Bytes>(io.clone()));
    let mut closing = pin!(Arc::clone(&connection).unwanted());
    let stands = poll_fn(|cx| {
        let stands = handshake.as_mut().poll(cx);
        match io.poll_out(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending if stands.is_ready() => stands.map(Result::ok),
            // It never said anything that could be answered.
            Poll::Ready(Ok(())) | Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
        }
    });
    let Some(h2) = stands.await else {
        // Over TLS the client is told that this is the end, and not that somebody has cut the connection.
        connection.linger_always();
        return;
    };
    let mut ending = pin!(told(shutdown));
    let mut unwanted = pin!(Arc::clone(&connection).unwanted());
    let mut streams = FuturesUnordered::new();
    // The client does not see those of them that it has given up and that have not ended yet.
    let most = usize::try_from(limits.h2_max_streams).map_or(usize::MAX, |most| 2 * most);
    let mut driver = Driver::new(h2, io, limits, Arc::clone(&connection));
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx) {
                driver.ended(end);
            }
            if driver.asked.is_none()
                && (ending.as_mut().poll(cx).is_ready() || unwanted.as_mut().poll(cx).is_ready())
            {
                driver.ask_to_go();
            }
            if connection.flood.get().is_some() && driver.farewell.is_none() {
                driver.turn_out(Code::ENHANCE_YOUR_CALM);
            }
            let Some(h2) = &mut driver.h2 else {
                break;
            };
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((_, mut respond)))) if streams.len() >= most => {
                    respond.send_reset(Code::REFUSED_STREAM);
                    driver.ended(End::TakenBack);
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    driver.accepted();
                    let connection = Arc::clone(&connection);
                    let (parts, body) = request.into_parts();
                    let client = Client::new(body, respond, Arc::clone(&driver.backlog));
                    let stream = stream::serve(engine, connection, parts, client, shutdown);
                    // In a box, because its waker may outlive it by far, and what is behind that has to be small.
                    streams.push(Box::pin(stream));
                }
                Poll::Ready(end @ (Some(Err(_)) | None)) => {
                    if let Some(Err(error)) = end
                        && error.is_library()
                        && error.reason() == Some(Code::ENHANCE_YOUR_CALM)
                    {
                        // What `h2` sees to by itself, such as header sections without end.
                        count_end(&connection, "h2-calm");
                    }
                    // The farewell, as far as the socket takes it.
                    if let Poll::Ready(Ok(())) = driver.io.poll_out(cx) {
                        // Bytes that the client still sends would reset the connection, and the farewell with it.
                        connection.linger_always();
                    }
                    driver.close();
                }
                Poll::Pending => {
                    if !driver.is_late(cx, !streams.is_empty()) {
                        return Poll::Pending;
                    }
                }
            }
        }
        // Streams learn from their handles that the connection is gone.
        if streams.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Ready when this has become true.
async fn told(what: &watch::Receiver<bool>) {
    let mut what = what.clone();
    // Fails when the front is gone, which is an end as well.
    let _ = what.wait_for(|true_now| *true_now).await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2_max_streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// What a connection's task knows about it apart from its streams.
struct Driver<'a> {
    /// Gone when the connection is.
    h2: Option<H2<Io, Bytes>>,
    io: Io,
    connection: Arc<Connection>,
    backlog: Arc<Backlog>,
    limits: &'a Limits,
    timer: Timer,
    /// When the client was asked to go.
    asked: Option<Instant>,
    /// When it last sent anything after that.
    heard_at: Instant,
    /// How many more requests there may be.
    left: u32,
    malformed: u32,
    resets: u32,
    resets_since: Instant,
    /// When there was last a stream.
    busy_at: Instant,
    /// The client has been told that this is the end.
    farewell: Option<Instant>,
    /// When bytes last left, and how many there were, while some cannot.
    stalled: Option<(Instant, u64)>,
}

impl<'a> Driver<'a> {
    fn new(h2: H2<Io, Bytes>, io: Io, limits: &'a Limits, connection: Arc<Connection>) -> Self {
        let now = Instant::now();
        Self {
            h2: Some(h2),
            io,
            backlog: Arc::new(Backlog::new(Arc::clone(&connection.given))),
            connection,
            limits,
            timer: Timer::default(),
            asked: None,
            heard_at: now,
            // It stands for as many connections as it may have streams.
            left: limits
                .max_requests_per_connection
                .saturating_mul(limits.h2_max_streams),
            malformed: 0,
            resets: 0,
            resets_since: now,
            busy_at: now,
            farewell: None,
            stalled: None,
        }
    }

    /// A request has come.
    fn accepted(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.asked.is_none() {
            count_end(&self.connection, "requests");
            self.ask_to_go();
        }
    }

    /// A stream has ended.
    fn ended(&mut self, end: End) {
        match end {
            End::Done => {}
            End::Malformed => {
                self.malformed += 1;
                if self.malformed == MOST_MALFORMED {
                    count_end(&self.connection, "h2-malformed");
                }
                if self.malformed >= MOST_MALFORMED {
                    self.turn_out(Code::ENHANCE_YOUR_CALM);
                }
            }
            End::TakenBack => {
                let now = Instant::now();
                if now.saturating_duration_since(self.resets_since) >= RESET_WINDOW {
                    (self.resets, self.resets_since) = (0, now);
                }
                self.resets += 1;
                if self.resets == self.limits.h2_max_resets.saturating_add(1) {
                    count_end(&self.connection, Flood::Resets.reason());
                }
                if self.resets > self.limits.h2_max_resets {
                    self.turn_out(Code::ENHANCE_YOUR_CALM);
                }
            }
        }
    }

    /// Takes no new streams; those that have begun are finished.
    fn ask_to_go(&mut self) {
        self.asked = Some(Instant::now());
        if let Some(h2) = &mut self.h2 {
            h2.graceful_shutdown();
        }
    }

    /// Ends the connection as soon as the client has been told.
    fn turn_out(&mut self, code: Code) {
        self.asked.get_or_insert_with(Instant::now);
        if let Some(h2) = self.h2.as_mut().filter(|_| self.farewell.is_none()) {
            h2.abrupt_shutdown(code);
            self.farewell = Instant::now().checked_add(SHUTDOWN_TIMEOUT);
        }
    }

    fn close(&mut self) {
        self.h2 = None;
        self.io.close();
    }

    /// Lets bytes leave, at the end of a turn. Says whether it is time for the connection to do something.
    fn is_late(&mut self, cx: &mut Context<'_>, serving: bool) -> bool {
        let now = Instant::now();
        match self.io.poll_out(cx) {
            Poll::Ready(Ok(())) => {
                self.stalled = None;
                self.backlog.clear();
            }
            Poll::Ready(Err(_)) => {
                self.close();
                return true;
            }
            Poll::Pending => {
                let passed = self.io.passed();
                if self.stalled.is_none_or(|(_, before)| before != passed) {
                    self.stalled = Some((now, passed));
                }
            }
        }
        if self.asked.is_some() && self.io.has_heard() {
            self.heard_at = now;
        }
        if serving || self.h2.as_ref().is_some_and(H2::has_streams) {
            self.busy_at = now;
        }
        let stall = self
            .stalled
            .and_then(|(since, _)| since.checked_add(self.limits.write_timeout));
        let idle = self.busy_at.checked_add(self.limits.idle_timeout);
        // Whoever has been asked to go and says nothing has not heard of it, and may still be sending.
        let gone = self.asked.and_then(|asked| {
            let last = asked.max(self.busy_at).max(self.heard_at);
            last.checked_add(FAREWELL.min(self.limits.header_timeout))
        });
        let end = self
            .farewell
            .or_else(|| [idle, gone].into_iter().flatten().min());
        let at = [stall, end].into_iter().flatten().min();
        let Some(at) = at else {
            return false;
        };
        if self.timer.poll(cx, at).is_pending() {
            return false;
        }
        if self.farewell.is_some() || stall.is_some_and(|stall| stall <= at) {
            if self.farewell.is_none() {
                count_end(&self.connection, "write-timeout");
            }
            self.close();
            return true;
        }
        if serving {
            return false;
        }
        if self.connection.draining() {
            count_cut(&self.connection, Awaited::Farewell);
        }
        // This time the GOAWAY says which requests have been looked at, so that others can be sent elsewhere.
        self.turn_out(Code::NO_ERROR);
        true
    }
}
