//! Two connections that have gone on to another protocol: bytes in both directions until both sides have said all.
//!
//! Nobody looks at what is said. What one side does not take stops the reading of the other side, and only that is kept:
//! a tunnel on which nothing happens holds no buffers.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::client::{Client, Outgoing, Scratch};
use super::patience::{Failure, Patience, earlier};
use crate::error::{Fault, Source};

/// How long the side that is left may be silent once the other one has said all.
const LAST_WORDS: Duration = Duration::from_secs(5);

const CLIENT_GONE: Failure = (Source::Client, Fault::Closed);

/// What became of a tunnel.
#[derive(Debug)]
pub(super) struct Passed {
    /// Bytes from the client.
    pub(super) received: usize,
    /// Bytes for the client.
    pub(super) sent: usize,
    /// Why it did not come to a regular end.
    pub(super) failure: Option<Failure>,
    /// The client may still be sending.
    pub(super) unread: bool,
}

/// Passes bytes on between a client and an endpoint, those first that have been read from the client already.
pub(super) async fn pass(client: &mut Client, endpoint: TcpStream, patience: &Patience) -> Passed {
    let held = std::mem::take(&mut client.held);
    // Everything has been sent; from here on there is a buffer only while there is something in it.
    client.out = Outgoing::default();
    let now = Instant::now();
    let mut tunnel = Tunnel {
        client,
        endpoint,
        rest: Outgoing::from(held.to_vec()),
        up: Way::new(now, held.len()),
        down: Way::new(now, 0),
        now,
        silenced: false,
        failure: None,
        patience,
    };
    drop(held);
    let ended = poll_fn(|cx| tunnel.poll(cx)).await;
    let client_is_gone = ended.is_err_and(|(source, _)| source == Source::Client);
    Passed {
        received: tunnel.up.bytes,
        sent: tunnel.down.bytes,
        // What came first is the reason for what followed.
        failure: tunnel.failure.or_else(|| ended.err()),
        unread: matches!(tunnel.up.stage, Stage::Open | Stage::Refused)
            && !tunnel.silenced
            && !client_is_gone,
    }
}

struct Tunnel<'a> {
    /// What the client has not taken yet is among what it is sent.
    client: &'a mut Client,
    endpoint: TcpStream,
    /// What the endpoint has not taken yet.
    rest: Outgoing,
    /// From the client to the endpoint.
    up: Way,
    /// From the endpoint to the client.
    down: Way,
    now: Instant,
    /// Nobody has said anything for long enough after one side had said all.
    silenced: bool,
    /// What has happened to the endpoint. The client gets what came before that.
    failure: Option<Failure>,
    patience: &'a Patience,
}

/// One direction.
#[derive(Debug)]
struct Way {
    stage: Stage,
    /// How many have come.
    bytes: usize,
    /// When something has come or gone.
    at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// More may come.
    Open,
    /// That was all. Whoever listens is to know, after all that was said.
    Said,
    /// Whoever listens knows.
    Over,
    /// Nobody listens any more.
    Refused,
}

impl Way {
    fn new(at: Instant, bytes: usize) -> Self {
        Self {
            stage: Stage::Open,
            bytes,
            at,
        }
    }

    fn came(&mut self, now: Instant, bytes: usize) {
        self.at = now;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Over | Stage::Refused)
    }
}

impl Tunnel<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.now = Instant::now();
        let mut scratch = Scratch::take();
        // By turns: a side that never stops is not to keep the other one from being heard.
        let (mut up, mut down) = (true, true);
        while up || down {
            up = up && self.upload(cx, &mut scratch)?;
            down = down && self.download(cx, &mut scratch)?;
        }
        drop(scratch);
        if self.up.is_done() && self.down.is_done() {
            return Poll::Ready(Ok(()));
        }
        let Some((at, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        ready!(self.client.timer.poll(cx, at));
        self.silenced = failure.is_none();
        Poll::Ready(failure.map_or(Ok(()), Err))
    }

    /// Passes on what the client says, as much as comes at once. Says whether there may be more.
    fn upload(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Failure> {
        if !self.rest.is_empty() {
            match self.rest.poll_write(&mut self.endpoint, cx) {
                Poll::Ready(Ok(_)) => self.up.at = self.now,
                Poll::Ready(Err(_)) => self.refused(),
                Poll::Pending => return Ok(false),
            }
            if self.rest.is_empty() {
                self.rest = Outgoing::default();
            }
            return Ok(true);
        }
        match self.up.stage {
            Stage::Open => {}
            Stage::Said => {
                // It may be closed already.
                if Pin::new(&mut self.endpoint).poll_shutdown(cx).is_ready() {
                    self.up.stage = Stage::Over;
                }
                return Ok(false);
            }
            Stage::Over | Stage::Refused => return Ok(false),
        }
        match scratch.poll_read(&mut self.client.io, cx) {
            Poll::Ready(Ok([])) => self.up.stage = Stage::Said,
            Poll::Ready(Ok(bytes)) => {
                self.up.came(self.now, bytes.len());
                let written = self.rest.write(&mut self.endpoint, cx, bytes);
                if written.is_err() {
                    self.refused();
                }
            }
            Poll::Ready(Err(_)) => return Err(CLIENT_GONE),
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// The endpoint takes no more. What it has said before that is still the client's.
    fn refused(&mut self) {
        self.up.stage = Stage::Refused;
        self.rest = Outgoing::default();
    }

    /// Passes on what the endpoint says, as much as comes at once. Says whether there may be more.
    fn download(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Failure> {
        if self.client.is_sending() {
            match self.client.poll_send(cx) {
                Poll::Ready(Ok(_)) => self.down.at = self.now,
                Poll::Ready(Err(_)) => return Err(CLIENT_GONE),
                Poll::Pending => return Ok(false),
            }
            if !self.client.is_sending() {
                self.client.out = Outgoing::default();
            }
            return Ok(true);
        }
        match self.down.stage {
            Stage::Open => {}
            Stage::Said => {
                if Pin::new(&mut self.client.io).poll_shutdown(cx).is_ready() {
                    self.down.stage = Stage::Over;
                }
                return Ok(false);
            }
            Stage::Over | Stage::Refused => return Ok(false),
        }
        match scratch.poll_read(&mut self.endpoint, cx) {
            Poll::Ready(Ok([])) => self.down.stage = Stage::Said,
            Poll::Ready(Ok(bytes)) => {
                self.down.came(self.now, bytes.len());
                self.client.unflushed = true;
                let written = self.client.out.write(&mut self.client.io, cx, bytes);
                written.map_err(|_| CLIENT_GONE)?;
            }
            Poll::Ready(Err(_)) => {
                self.failure = Some((Source::Upstream, Fault::Closed));
                self.down.stage = Stage::Said;
                self.refused();
            }
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// Until when something has to happen, and what it means if it does not.
    fn deadline(&self) -> Option<(Instant, Option<Failure>)> {
        let Patience {
            read, send, client, ..
        } = *self.patience;
        let after = |at: Instant, time, failure| Some((at.checked_add(time)?, failure));
        let mut stuck = None;
        if self.client.is_sending() {
            stuck = after(self.down.at, client, (Source::Client, Fault::WriteTimeout));
        }
        if !self.rest.is_empty() {
            let late = after(self.up.at, send, (Source::Upstream, Fault::WriteTimeout));
            stuck = earlier(stuck, late);
        }
        if let Some((at, failure)) = stuck {
            return Some((at, Some(failure)));
        }
        let last = self.up.at.max(self.down.at);
        if self.up.stage == Stage::Open && self.down.stage == Stage::Open {
            // A client may listen for hours: it is the endpoint that is to say something, if only now and then.
            let silent = (Source::Upstream, Fault::ReadTimeout);
            return after(last, read, silent).map(|(at, failure)| (at, Some(failure)));
        }
        Some((last.checked_add(read.min(LAST_WORDS))?, None))
    }
}
