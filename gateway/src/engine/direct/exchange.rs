//! One request and its response: bytes in both directions at the same time.
//!
//! Nothing is collected. What one side does not take stops the reading of the other side.

mod download;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::StatusCode;
use tokio::net::TcpStream;

use super::body::Body;
use super::client::{Client, Outgoing, Scratch};
use super::patience::{Awaited, Clock, Failure, Patience, earlier};
use super::pool::Pool;
use super::request::Head;
use crate::context::RequestContext;
use crate::phases::deadline::{self, Until};

/// When the current try began.
pub(super) fn began(context: &RequestContext) -> Instant {
    let attempt = context.tries.last();
    attempt.map_or_else(Instant::now, |attempt| attempt.began)
}

/// A request on its way.
pub(super) struct Exchange<'a> {
    pub(super) context: &'a mut RequestContext,
    head: &'a Head,
    pub(super) client: &'a mut Client,
    pool: &'a Arc<Pool>,
    patience: Patience,
    address: SocketAddr,
    stream: Option<TcpStream>,
    reused: bool,
    pub(super) upload: Upload,
    pub(super) download: Download,
    clock: Clock,
    /// What the route says about the time for an answer.
    until: Option<Until>,
    now: Instant,
    /// Nothing has been sent on this connection.
    begins: bool,
}

/// The request's side.
pub(super) struct Upload {
    pub(super) body: Body,
    chunked: bool,
    out: Outgoing,
    /// The endpoint takes no more. It may still answer.
    refused: bool,
    /// Bytes of content.
    pub(super) received: usize,
}

/// The response's side.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all combinations occur"
)]
pub(super) struct Download {
    /// The beginning of a header section.
    held: Vec<u8>,
    /// There after the header section.
    body: Option<Body>,
    chunked: bool,
    /// May the endpoint's connection be used again?
    keep: bool,
    /// May the client's connection be used again?
    pub(super) keep_client: bool,
    /// Another protocol follows.
    switched: bool,
    begun: bool,
    interim: u8,
    /// What was sent to the client.
    pub(super) status: Option<StatusCode>,
    /// Bytes of content from the endpoint.
    pub(super) received: usize,
    /// Bytes of content for the client.
    pub(super) sent: usize,
}

impl Download {
    fn is_done(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_done)
    }

    /// Is it whole, and the client's connection closed after it?
    fn is_last(&self) -> bool {
        self.is_done() && !self.keep_client && !self.switched
    }
}

impl<'a> Exchange<'a> {
    /// A request whose header section for the endpoint is `block`.
    pub(super) fn new(
        context: &'a mut RequestContext,
        head: &'a Head,
        client: &'a mut Client,
        pool: &'a Arc<Pool>,
        patience: Patience,
        request: Request,
    ) -> Self {
        let now = began(context);
        let until = deadline::of(context);
        let mut out = Outgoing::from(request.block);
        out.keep = true;
        Self {
            context,
            head,
            client,
            pool,
            patience,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            stream: None,
            reused: false,
            upload: Upload {
                chunked: matches!(request.body, Body::Chunked(_)),
                body: request.body,
                out,
                refused: false,
                received: 0,
            },
            download: Download {
                held: Vec::new(),
                body: None,
                chunked: false,
                keep: false,
                keep_client: request.keep,
                switched: false,
                begun: false,
                interim: 0,
                status: None,
                received: 0,
                sent: 0,
            },
            clock: Clock::new(now),
            until,
            now,
            begins: true,
        }
    }

    /// When the current try began.
    pub(super) fn began(&self) -> Instant {
        began(self.context)
    }

    /// Begins, or begins again, on this connection.
    pub(super) fn begin(&mut self, address: SocketAddr, stream: TcpStream, reused: bool) {
        // A connection that was there already has cost no time.
        let now = if reused { self.began() } else { Instant::now() };
        self.now = now;
        self.begins = true;
        self.address = address;
        self.stream = Some(stream);
        self.reused = reused;
        self.upload.refused = false;
        self.upload.out.rewind();
        // Only a connection that may have been closed long ago leads to a second time.
        self.upload.out.keep = reused && self.head.method.is_idempotent();
        self.clock.begin(now);
        self.download.held.clear();
    }

    /// Could the endpoint have closed the connection before it saw the request, and is everything there that is
    /// needed to send it again?
    pub(super) fn is_repeatable(&self) -> bool {
        self.reused && self.upload.out.keep && !self.download.begun
    }

    /// The endpoint's connection, if another protocol goes on with it.
    pub(super) fn take_switched(&mut self) -> Option<TcpStream> {
        self.stream.take_if(|_| self.download.switched)
    }

    /// Moves bytes until the response has been sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut scratch = Scratch::take();
        // The request goes first. Later it is nearly always the response that has come, and with its end nobody needs
        // to look for anything from the client.
        let mut upload_next = true;
        let mut uploaded = false;
        let mut renewed = false;
        if std::mem::take(&mut self.begins) {
            uploaded = self.upload(cx, &mut scratch)?;
            upload_next = false;
        } else {
            self.now = Instant::now();
        }
        loop {
            let downloaded = self.download(cx, &mut scratch)?;
            if self.download.is_done() && !self.client.is_sending() {
                return Poll::Ready(Ok(()));
            }
            if upload_next {
                // A response that never pauses is not to keep the request from being read.
                if !renewed {
                    scratch.renew();
                    renewed = true;
                }
                uploaded = self.upload(cx, &mut scratch)?;
            }
            if !uploaded && !downloaded {
                break;
            }
            upload_next = true;
        }
        drop(scratch);
        let Some((at, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        self.client.timer.poll(cx, at).map(|()| Err(failure))
    }

    /// Until when something has to happen, and what it means if it does not.
    fn deadline(&self) -> Option<(Instant, Failure)> {
        let upload = &self.upload;
        let connected = self.stream.is_some();
        let uploading = connected && !upload.refused;
        let sending = uploading && !upload.out.is_empty();
        let awaited = Awaited {
            sending,
            receiving: uploading && !sending && !upload.body.is_done(),
            received: (!upload.chunked).then_some(upload.received),
            giving: self.client.is_sending().then_some(self.download.sent),
            connected,
        };
        let usual = self.clock.deadline(&awaited, &self.patience);
        let Some(until) = self.until else {
            return usual;
        };
        let silent = connected && upload.body.is_done() && self.download.body.is_none();
        earlier(usual, until.next(silent.then(|| self.sent_at())))
    }

    /// When the last of the request came.
    fn sent_at(&self) -> Instant {
        match self.upload.received {
            0 => self.began(),
            _ => self.clock.received_at,
        }
    }
}

/// What is known about a request before it is sent.
pub(super) struct Request {
    /// Its header section for the endpoint.
    pub(super) block: Vec<u8>,
    /// Its body.
    pub(super) body: Body,
    /// May the client's connection be used again?
    pub(super) keep: bool,
}
