//! A stream that Pingora serves: its proxy takes sessions of any protocol, and this is one on a stream that the direct
//! engine has accepted. Each stream is decided on by itself, whatever its neighbours on the connection ask for.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::header::{self, DATE};
use http::{HeaderMap, StatusCode};
use http2::Code;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{DirectEngine, date};
use super::fields;
use super::outlet::{Client, End, Gone};
use super::request::Request;
use crate::connection::{Connection, Deadline};
use crate::phases::body;

/// Lets Pingora serve a request, from its first phase on.
pub(super) async fn serve(
    engine: &DirectEngine,
    connection: Arc<Connection>,
    request: Request,
    client: Client,
    shutdown: &watch::Receiver<bool>,
) -> End {
    let end = Arc::new(OnceLock::new());
    let leash = Arc::new(Deadline::at_rest());
    let session = Foreign {
        end: Arc::clone(&end),
        leash: Arc::clone(&leash),
        request: RequestHeader::from(request.into_parts()),
        client,
        response: None,
        replay: Replay::Unwanted,
        read_timeout: None,
        write_timeout: None,
        drain_timeout: None,
    };
    engine
        .pingora
        .serve_stream(Box::new(session), connection, leash, shutdown)
        .await;
    end.get().copied().unwrap_or(End::Done)
}

struct Foreign {
    /// How it ended; set at the end.
    end: Arc<OnceLock<End>>,
    /// When there has to be an answer.
    leash: Arc<Deadline>,
    request: RequestHeader,
    client: Client,
    /// What was sent.
    response: Option<Box<ResponseHeader>>,
    replay: Replay,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Nobody else sets it.
        let _ = self.end.set(self.client.end());
    }
}

/// What is kept of the request's body.
enum Replay {
    /// Nothing, since nobody has asked for it.
    Unwanted,
    /// All of it so far.
    Whole(BytesMut),
    /// Nothing any more: it was too much.
    Truncated,
}

impl Replay {
    fn keep(&mut self, content: &Bytes) {
        if let Self::Whole(kept) = self {
            if kept.len() + content.len() > body::MOST_REPLAYED {
                *self = Self::Truncated;
            } else {
                kept.extend_from_slice(content);
            }
        }
    }
}

#[expect(
    clippy::unnecessary_box_returns,
    reason = "Pingora's results hold boxed errors"
)]
fn gone(_: Gone) -> Box<Error> {
    Error::new_down(ErrorType::ConnectionClosed)
}

/// Waits no longer than that, if there is a limit.
async fn within<T>(
    patience: Option<Duration>,
    late: ErrorType,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match patience {
        None => work.await,
        Some(patience) => match timeout(patience, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::new_down(late)),
        },
    }
}

impl Foreign {
    /// Sends what there is to send.
    async fn send(&mut self) -> Result<()> {
        let client = &mut self.client;
        let sent = poll_fn(|cx| {
            while client.is_sending() {
                ready!(client.poll_send(cx)).map_err(gone)?;
            }
            Poll::Ready(Ok(()))
        });
        within(self.write_timeout, ErrorType::WriteTimedout, sent).await
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let client = &mut self.client;
        let read = async {
            poll_fn(|cx| client.poll_body(cx))
                .await
                .transpose()
                .map_err(gone)
        };
        let content = within(self.read_timeout, ErrorType::ReadTimedout, read).await?;
        if let Some(content) = &content {
            self.replay.keep(content);
        }
        Ok(content)
    }

    /// Sends a header section. What belongs to a connection of HTTP/1.1 has no place in it.
    fn begin(&mut self, mut response: Box<ResponseHeader>, end: bool) -> Result<()> {
        response.remove_header(&header::TRAILER);
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        if response.status.is_informational() {
            self.client
                .inform(response.status, |out| fields::write(out, &response.headers));
            return Ok(());
        }
        if self.response.is_some() {
            return Ok(());
        }
        if !response.headers.contains_key(DATE) {
            response.insert_header(DATE, date::value(std::time::SystemTime::now()))?;
        }
        self.client
            .begin(response.status, end, |out| {
                fields::write(out, &response.headers);
            })
            .map_err(gone)?;
        self.response = Some(response);
        Ok(())
    }

    async fn body(&mut self, content: Bytes, end: bool) -> Result<()> {
        if self.client.is_done() || content.is_empty() && !end {
            return Ok(());
        }
        let room = async {
            poll_fn(|cx| self.client.poll_room(cx)).await;
            Ok(())
        };
        within(self.write_timeout, ErrorType::WriteTimedout, room).await?;
        self.client.push(content, end);
        self.send().await
    }

    /// Waits for the client to give up.
    async fn watch(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.client.poll_gone(cx)).await;
        Err(gone(Gone))
    }
}

#[async_trait]
impl Session for Foreign {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let patience = self.drain_timeout;
        let drain = async {
            while self.read().await?.is_some() {}
            Ok(())
        };
        within(patience, ErrorType::ReadTimedout, drain).await
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.begin(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.begin(Box::new(resp.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.client.is_done() {
            return Ok(());
        }
        self.client.finish(Some(fields::trailers(&trailers)));
        self.send().await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= match task {
                HttpTask::Header(header, end) => {
                    self.begin(header, end)?;
                    end
                }
                HttpTask::Body(content, end) => {
                    self.body(content.unwrap_or_default(), end).await?;
                    end
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::UpgradedBody(..) => {
                    return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
                }
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if ended {
            self.finish().await?;
        }
        Ok(ended)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.client.reset(Code::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.client.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        if self.response.is_none() || self.client.is_done() {
            return Ok(());
        }
        self.client.finish(None);
        self.send().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.client.received == 0 && self.client.is_body_done()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let leash = Arc::clone(&self.leash);
        let next = async {
            if no_body_expected || self.client.is_body_done() {
                return self.watch().await;
            }
            self.read().await
        };
        tokio::select! {
            biased;
            next = next => next,
            () = leash.passed() => Err(Error::new_down(ErrorType::ReadTimedout)),
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.client.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.client.received
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// For requests that Pingora makes of this one, which it is never asked for.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        if matches!(self.replay, Replay::Unwanted) {
            self.replay = Replay::Whole(BytesMut::new());
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.replay, Replay::Truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match &self.replay {
            Replay::Whole(kept) if !kept.is_empty() => Some(Bytes::copy_from_slice(kept)),
            Replay::Whole(_) | Replay::Unwanted | Replay::Truncated => None,
        }
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }
}
