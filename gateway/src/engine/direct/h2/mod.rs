//! HTTP/2 from the client, by ALPN or by prior knowledge.
//!
//! A connection is one task, and so are all its streams: what endpoints have sent since the last turn leaves in one
//! write. Each stream decides by itself where it is served: in here, or by Pingora ([`foreign`]).

mod fields;
mod foreign;
mod io;
mod outlet;
mod request;
mod stream;
mod to_http1;
mod to_http2;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http2::{Code, Connection as Http2, Settings};
use tokio::sync::watch;

pub(super) use self::io::Io;
use self::outlet::{Client, End};
use self::request::Request;
use super::DirectEngine;
use super::client::READS;
use crate::connection::{Awaited, Connection, FAREWELL};
use crate::front::conn::Transport;
use crate::front::frames::Flood;
use crate::front::guard::{Guarded, SHUTDOWN_TIMEOUT, count_cut, count_end};
use crate::settings::Limits;
use crate::timer::Timer;

/// How many requests that cannot be understood one connection may send: they cost us more than the client.
const MOST_MALFORMED: u32 = 32;
/// The time for which the limit on requests that are taken back is meant.
const RESET_WINDOW: Duration = Duration::from_secs(10);

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
    let mut ending = pin!(told(shutdown));
    let mut unwanted = pin!(Arc::clone(&connection).unwanted());
    let mut streams = FuturesUnordered::new();
    let mut driver = Driver::new(transport, &limits, Arc::clone(&connection));
    poll_fn(|cx| {
        let mut reads = READS;
        loop {
            while let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx) {
                driver.ended(end);
            }
            if driver.io.is_closed() {
                break;
            }
            if driver.asked.is_none()
                && (ending.as_mut().poll(cx).is_ready() || unwanted.as_mut().poll(cx).is_ready())
            {
                driver.ask_to_go();
            }
            let blocked = !driver.http2.wants_input();
            let came = reads > 0 && driver.take_in(cx);
            if came {
                reads -= 1;
                if reads == 0 {
                    // It is the turn of others.
                    cx.waker().wake_by_ref();
                }
            }
            while let Some((head, stream)) = driver.http2.accept() {
                if stream.ended().is_some() {
                    driver.ended(End::TakenBack);
                } else {
                    driver.accepted();
                    let mut client = Client::new(stream, Arc::clone(&connection.given));
                    let Some(request) = Request::of(head) else {
                        client.reset(Code::PROTOCOL_ERROR);
                        driver.ended(End::Malformed);
                        continue;
                    };
                    let connection = Arc::clone(&connection);
                    let stream = stream::serve(engine, connection, request, client, shutdown);
                    // In a box, because its waker may outlive it by far, and what is behind that has to be small.
                    streams.push(Box::pin(stream));
                }
            }
            let goes_on = came || driver.is_late(cx, !streams.is_empty());
            if !goes_on && (!blocked || !driver.http2.wants_input()) {
                return Poll::Pending;
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

/// What a client is told at the beginning.
fn settings(limits: &Limits) -> Settings {
    Settings {
        max_streams: limits.h2_max_streams,
        stream_window: limits.h2_stream_window,
        connection_window: limits.h2_connection_window,
        max_header_list: u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX),
    }
}

/// What a connection's task knows about it apart from its streams.
struct Driver<'a> {
    http2: Http2,
    io: Io<Guarded<Transport>>,
    connection: Arc<Connection>,
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
    /// Until when the client may take the last that there is to say.
    farewell: Option<Instant>,
    /// When bytes last left, and how many there were, while some cannot.
    stalled: Option<(Instant, u64)>,
}

impl<'a> Driver<'a> {
    fn new(transport: Transport, limits: &'a Limits, connection: Arc<Connection>) -> Self {
        let now = Instant::now();
        // Reads fail when the deadline of the connection is over.
        let socket = Guarded::for_reader(transport, Arc::clone(&connection));
        Self {
            http2: Http2::server(&settings(limits)),
            io: Io::new(socket),
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

    /// Takes what the client has sent. Says whether anything came.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        match self.io.poll_in(cx, &self.http2) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false) | Err(_)) => {
                // The farewell, as far as the socket takes it.
                if self.io.poll_out(cx, &self.http2).is_ready() {
                    self.connection.linger_always();
                }
                self.close();
                return true;
            }
            Poll::Pending => return false,
        }
        if self.asked.is_some() {
            self.heard_at = Instant::now();
        }
        if self.connection.flooded.load(Ordering::Relaxed) {
            self.turn_out(Code::ENHANCE_YOUR_CALM);
        } else if self.farewell.is_none() && self.http2.over() == Some(Code::ENHANCE_YOUR_CALM) {
            // Header sections without end.
            count_end(&self.connection, "h2-calm");
        }
        let (malformed, refused) = self.http2.take_counts();
        for _ in 0..malformed {
            self.ended(End::Malformed);
        }
        for _ in 0..refused {
            self.ended(End::TakenBack);
        }
        true
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
        if self.http2.is_introduced() {
            self.http2.say_farewell();
        } else {
            // It never said anything that could be answered. Over TLS it is told that this is the end, and not that
            // somebody has cut the connection.
            self.connection.linger_always();
            self.close();
        }
    }

    /// Ends the connection as soon as the client has been told.
    fn turn_out(&mut self, code: Code) {
        self.asked.get_or_insert_with(Instant::now);
        self.http2.end(code);
    }

    fn close(&mut self) {
        self.io.close();
        self.http2.lost();
    }

    /// Lets bytes leave, at the end of a turn. Says whether it is time for the connection to do something.
    fn is_late(&mut self, cx: &mut Context<'_>, serving: bool) -> bool {
        let now = Instant::now();
        let over = self.http2.over().is_some();
        match self.io.poll_out(cx, &self.http2) {
            Poll::Ready(Ok(())) if over || self.http2.is_served() => {
                // Bytes that the client still sends would reset the connection, and the farewell with it.
                self.connection.linger_always();
                self.close();
                return true;
            }
            Poll::Ready(Ok(())) => self.stalled = None,
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
        if over && self.farewell.is_none() {
            self.farewell = now.checked_add(SHUTDOWN_TIMEOUT);
        }
        if serving || self.http2.has_streams() {
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
