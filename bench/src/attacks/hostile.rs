//! The hostile clients: what one connection does until the proxy ends it or the time is over.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::frames;
use super::list::What;

/// Between two drops of what comes slowly.
const DROP: Duration = Duration::from_secs(1);
/// Connections that are opened at the same time.
const OPENING: usize = 64;
/// Frames of a flood that are written at once.
const BATCH: usize = 100;
/// How long a proxy may take to answer or to close where it has to do either at once.
const VERDICT: Duration = Duration::from_secs(10);
/// After a connection was refused.
const AGAIN: Duration = Duration::from_millis(20);
/// Whom a spoofed PROXY header names (RFC 5737).
pub(super) const SPOOFED: &str = "203.0.113.9";

/// Where the proxy is and how it is reached.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) host: &'static str,
    /// Offers HTTP/1.1.
    pub(super) tls: TlsConnector,
    /// Offers HTTP/2.
    pub(super) tls_http2: TlsConnector,
}

/// What all of them did and what became of it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections opened.
    pub(super) opened: AtomicU64,
    /// Connections that the proxy has ended.
    pub(super) closed: AtomicU64,
    /// Connections that could not be opened.
    pub(super) refused: AtomicU64,
    /// Requests or frames sent.
    pub(super) sent: AtomicU64,
    /// Answers of a backend that took somebody for whom a client named.
    pub(super) believed: AtomicU64,
    statuses: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts an answer.
    pub(super) fn status(&self, text: &str) {
        let mut statuses = self.lock();
        // Whatever a proxy says, the table stays short.
        if statuses.len() < 8 || statuses.contains_key(text) {
            *statuses.entry(text.to_owned()).or_default() += 1;
        }
    }

    /// Answers by status.
    pub(super) fn statuses(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a connection came to its end.
enum End {
    /// Nobody answered the door.
    Refused,
    /// The proxy has ended it.
    Closed,
    /// It has done what it came for.
    Done,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Wire for Io {}

/// Attacks with so many connections at the same time until the time is over; all of them are closed then.
pub(super) async fn attack(
    site: Site,
    what: What,
    connections: usize,
    until: Instant,
    counts: Arc<Counts>,
) {
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut running = JoinSet::new();
    for _ in 0..connections {
        let one = One {
            site: site.clone(),
            what,
            opening: Arc::clone(&opening),
            counts: Arc::clone(&counts),
        };
        running.spawn(async move { one.repeat(until).await });
    }
    while running.join_next().await.is_some() {}
}

struct One {
    site: Site,
    what: What,
    opening: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl One {
    async fn repeat(&self, until: Instant) {
        // The time is over when this is an error.
        while let Ok(end) = tokio::time::timeout_at(until, self.live()).await {
            match end {
                End::Done => {}
                End::Closed => Counts::add(&self.counts.closed, 1),
                End::Refused => {
                    Counts::add(&self.counts.refused, 1);
                    let _ = tokio::time::timeout_at(until, tokio::time::sleep(AGAIN)).await;
                }
            }
        }
    }

    /// One connection.
    async fn live(&self) -> End {
        let host = self.site.host;
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
        let opened = match self.what {
            What::Idle => self.secure(&self.site.tls).await,
            What::RapidReset | What::Continuation | What::Settings | What::Pings => {
                self.secure(&self.site.tls_http2).await
            }
            What::Silence | What::Garbage => self.plain(self.site.https).await,
            What::Nothing
            | What::SlowHeader
            | What::SlowBody
            | What::SlowRead
            | What::LargeHeader
            | What::ManyHeaders
            | What::Spoof
            | What::Expressions
            | What::Hosts => self.plain(self.site.http).await,
        };
        let Ok(wire) = opened else {
            return End::Refused;
        };
        Counts::add(&self.counts.opened, 1);
        let ended = match self.what {
            What::SlowHeader => self.drip(wire, head.as_bytes(), b"x-more: 1\r\n").await,
            What::SlowBody => {
                let head =
                    format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1048576\r\n\r\n");
                self.drip(wire, head.as_bytes(), b"x").await
            }
            What::SlowRead => self.sip(wire, host).await,
            // A record of the handshake with a ClientHello of 512 bytes, of which nothing more comes.
            What::Silence => self.drip(wire, &[22, 3, 1, 2, 0, 1, 0, 1, 252], b"").await,
            What::Idle => self.drip(wire, b"", b"").await,
            What::Garbage => self.garbage(wire).await,
            What::RapidReset => self.reset_streams(wire).await,
            What::Continuation => {
                let begin = [frames::opening(), frames::endless_header(host)].concat();
                self.flood(wire, &begin, &frames::more_of_it(BATCH / 2), true)
                    .await
            }
            What::Settings => {
                self.flood(wire, &frames::opening(), &frames::settings(BATCH), false)
                    .await
            }
            What::Pings => {
                self.flood(wire, &frames::opening(), &frames::pings(BATCH), false)
                    .await
            }
            What::LargeHeader => {
                let value = "x".repeat(1 << 20);
                self.ask(wire, &format!("{head}x-large: {value}\r\n\r\n"))
                    .await
            }
            What::ManyHeaders => {
                let fields = "a: b\r\n".repeat(10_000);
                self.ask(wire, &format!("{head}{fields}\r\n")).await
            }
            What::Spoof => {
                let proxied = format!("PROXY TCP4 {SPOOFED} 127.0.0.1 4711 80\r\n");
                let request = format!(
                    "{proxied}GET /?describe HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                );
                self.ask(wire, &request).await
            }
            What::Nothing | What::Expressions | What::Hosts => Ok(End::Done),
        };
        ended.unwrap_or(End::Closed)
    }

    async fn plain(&self, address: SocketAddr) -> io::Result<Box<dyn Wire>> {
        let _permit = self.opening.acquire().await;
        let socket = TcpSocket::new_v4()?;
        if self.what == What::SlowRead {
            socket.set_recv_buffer_size(4 << 10)?;
        }
        let stream = connect(socket, address).await?;
        Ok(Box::new(stream))
    }

    async fn secure(&self, tls: &TlsConnector) -> io::Result<Box<dyn Wire>> {
        let _permit = self.opening.acquire().await;
        let stream = connect(TcpSocket::new_v4()?, self.site.https).await?;
        let name = ServerName::try_from(self.site.host).map_err(io::Error::other)?;
        let stream = tokio::time::timeout(VERDICT, tls.connect(name, stream)).await??;
        Ok(Box::new(stream))
    }

    /// Sends the beginning, then a little now and then, and never the end.
    async fn drip(&self, mut wire: Box<dyn Wire>, begin: &[u8], more: &[u8]) -> io::Result<End> {
        wire.write_all(begin).await?;
        wire.flush().await?;
        let mut answer = [0; 512];
        loop {
            tokio::select! {
                read = wire.read(&mut answer) => {
                    let length = read?;
                    if length == 0 {
                        return Ok(End::Closed);
                    }
                    self.note(answer.get(..length).unwrap_or_default());
                }
                () = tokio::time::sleep(DROP), if !more.is_empty() => {
                    wire.write_all(more).await?;
                    Counts::add(&self.counts.sent, 1);
                }
            }
        }
    }

    /// Asks for much and takes one byte at a time.
    async fn sip(&self, mut wire: Box<dyn Wire>, host: &str) -> io::Result<End> {
        let request = format!("GET /10m HTTP/1.1\r\nHost: {host}\r\n\r\n");
        wire.write_all(request.as_bytes()).await?;
        Counts::add(&self.counts.sent, 1);
        let mut byte = [0; 1];
        loop {
            if wire.read(&mut byte).await? == 0 {
                return Ok(End::Closed);
            }
            tokio::time::sleep(DROP).await;
        }
    }

    /// Something that looks like a `ClientHello` from outside.
    async fn garbage(&self, mut wire: Box<dyn Wire>) -> io::Result<End> {
        let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        let mut seed = self.counts.sent.fetch_add(1, Ordering::Relaxed) | 1;
        while hello.len() < 5 + 512 {
            // A generator of Marsaglia's: nobody has to be unable to guess it.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            hello.push(seed.to_be_bytes().first().copied().unwrap_or_default());
        }
        wire.write_all(&hello).await?;
        self.until_closed(wire).await
    }

    async fn reset_streams(&self, mut wire: Box<dyn Wire>) -> io::Result<End> {
        wire.write_all(&frames::opening()).await?;
        let (mut reader, mut writer) = tokio::io::split(wire);
        let sending = async {
            let batch = u32::try_from(BATCH).unwrap_or(u32::MAX);
            let mut stream = 1;
            // Numbers of streams run out; long before that somebody has had enough.
            while stream < 1 << 30 {
                let frames = frames::taken_back(self.site.host, stream, batch);
                writer.write_all(&frames).await?;
                writer.flush().await?;
                Counts::add(&self.counts.sent, u64::from(batch));
                stream += 2 * batch;
                // A flood from one thread leaves the others a turn.
                tokio::task::yield_now().await;
            }
            Ok(End::Done)
        };
        tokio::select! {
            ended = sending => ended,
            ended = drain(&mut reader) => ended,
        }
    }

    /// Sends the same frames again and again.
    async fn flood(
        &self,
        wire: Box<dyn Wire>,
        begin: &[u8],
        batch: &[u8],
        read: bool,
    ) -> io::Result<End> {
        let (mut reader, mut writer) = tokio::io::split(wire);
        let sending = self.again_and_again(&mut writer, begin, batch);
        if !read {
            // Answers pile up on the other side until the proxy stops reading or ends it.
            return sending.await;
        }
        tokio::select! {
            ended = sending => ended,
            ended = drain(&mut reader) => ended,
        }
    }

    async fn again_and_again(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        begin: &[u8],
        batch: &[u8],
    ) -> io::Result<End> {
        writer.write_all(begin).await?;
        loop {
            writer.write_all(batch).await?;
            writer.flush().await?;
            Counts::add(&self.counts.sent, BATCH as u64);
            tokio::task::yield_now().await;
        }
    }

    /// One request, and what is said to it.
    async fn ask(&self, mut wire: Box<dyn Wire>, request: &str) -> io::Result<End> {
        Counts::add(&self.counts.sent, 1);
        // A proxy may have had enough before everything is written, and may have said so.
        let written = wire.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let mut part = vec![0; 4096];
        let read = async {
            while answer.len() < 16 << 10 {
                let length = wire.read(&mut part).await?;
                if length == 0 {
                    break;
                }
                answer.extend_from_slice(part.get(..length).unwrap_or_default());
                // Only what a backend has said is looked at as a whole; that comes with the end of the connection.
                let complete = answer.windows(4).any(|part| part == b"\r\n\r\n");
                if complete && !answer.starts_with(b"HTTP/1.1 200") {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(VERDICT, read).await;
        self.note(&answer);
        let text = String::from_utf8_lossy(&answer);
        if text.starts_with("HTTP/1.1 200") && text.contains(SPOOFED) {
            Counts::add(&self.counts.believed, 1);
        }
        written?;
        Ok(End::Done)
    }

    async fn until_closed(&self, mut wire: Box<dyn Wire>) -> io::Result<End> {
        let ended = tokio::time::timeout(VERDICT, drain(&mut wire)).await;
        ended.unwrap_or(Ok(End::Done))
    }

    /// Counts the status line that an answer begins with.
    fn note(&self, answer: &[u8]) {
        let status = match answer.get(..12) {
            Some(line) if line.starts_with(b"HTTP/1.") => line.get(9..12).unwrap_or_default(),
            _ if answer.is_empty() => b"closed",
            _ => b"other",
        };
        self.counts.status(&String::from_utf8_lossy(status));
    }
}

async fn connect(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(VERDICT, socket.connect(address)).await??;
    stream.set_nodelay(true)?;
    // Ports of connections that are gone have to be free for the next ones.
    stream.set_zero_linger()?;
    Ok(stream)
}

async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<End> {
    let mut bytes = vec![0; 16 << 10];
    while reader.read(&mut bytes).await? > 0 {}
    Ok(End::Closed)
}
