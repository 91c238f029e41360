//! Bytes as they may come, from clients and from backends, and what may become of them.
//!
//! Every row runs on every engine. Where they differ, the row says how and why.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Site, raw_backend, soon, to};

/// Longer than an answer takes; there are rows that get none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client sees: a status, 0 for a connection that is closed without a word.
pub(crate) type Status = u16;

pub(crate) enum Want {
    /// Status for the client, and what the backend sees: `METHOD target body`, nothing if it sees nothing.
    Both(Status, &'static str),
    /// Pingora, the direct engine, and the reason.
    Each((Status, &'static str), (Status, &'static str), &'static str),
}

use Want::{Both, Each};

pub(crate) const REQUESTS: &[(&str, &str, Want)] = &include!("raw_requests.in");
const RESPONSES: &[(&str, &str, Want)] = &include!("raw_responses.in");

impl Want {
    pub(crate) fn of_this_engine(&self) -> (Status, &'static str) {
        match self {
            Both(status, text) => (*status, text),
            Each(pingora, direct, why) => {
                assert!(!why.is_empty());
                match crate::ENGINE {
                    gateway::Engine::Auto => *direct,
                    gateway::Engine::Pingora => *pingora,
                }
            }
        }
    }
}

/// A reader of messages that shares nothing with what is tested: it takes one byte after the other.
struct Reader<'a>(&'a mut TcpStream);

impl Reader<'_> {
    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.0.read_u8().await.ok()?);
        }
        line.truncate(line.len() - 2);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    async fn head(&mut self) -> Option<Vec<String>> {
        let mut lines = vec![self.line().await?];
        while !lines.last()?.is_empty() {
            lines.push(self.line().await?);
        }
        Some(lines)
    }

    async fn exactly(&mut self, length: usize) -> Option<String> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some(String::from_utf8_lossy(&body).into_owned())
    }

    async fn chunks(&mut self) -> Option<String> {
        let mut body = String::new();
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(&size, 16).expect("only the size");
            if size == 0 {
                break;
            }
            body += &self.exactly(size).await?;
            assert_eq!(self.line().await?, "", "the end of a chunk");
        }
        loop {
            let trailer = self.line().await?;
            if trailer.is_empty() {
                return Some(body);
            }
            write!(body, " (trailer {trailer})").unwrap();
        }
    }

    /// The body that the fields announce.
    async fn body(&mut self, lines: &[String], until_close: bool) -> Option<String> {
        let values = |name: &str| -> Vec<String> {
            lines
                .iter()
                .filter_map(|line| line.split_once(':'))
                .filter(|(given, _)| given.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
                .collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        if let (Some(coding), true) = (codings.first(), lengths.is_empty()) {
            return match coding.to_ascii_lowercase().as_str() {
                "chunked" => self.chunks().await,
                _ => Some(format!("({coding})")),
            };
        }
        if let Some(length) = lengths.first() {
            let first = length.split(',').next().unwrap_or_default();
            let body = self.exactly(first.parse().ok()?).await?;
            let clear = lengths.len() == 1 && codings.is_empty() && first == length;
            return Some(if clear {
                body
            } else {
                body + " (length unclear)"
            });
        }
        let mut rest = String::new();
        if until_close {
            self.0.read_to_string(&mut rest).await.ok()?;
        }
        Some(rest)
    }

    /// The next final response: status and body, if it comes whole.
    async fn response(&mut self, method: &str) -> (Status, Option<String>) {
        loop {
            let Some(lines) = self.head().await else {
                return (0, None);
            };
            assert!(lines[0].starts_with("HTTP/1."), "{lines:?}");
            let status: Status = lines[0][9..12].parse().unwrap();
            if status < 200 {
                continue;
            }
            let bodyless = method == "HEAD" || matches!(status, 204 | 304);
            let body = if bodyless {
                Some(String::new())
            } else {
                self.body(&lines, true).await
            };
            return (status, body);
        }
    }
}

/// Bytes for escapes that a string has not got.
fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("{64k}", &"a".repeat(65_536));
    let text = text.replace("{15k}", &"a".repeat(15_000));
    let text = text.replace("{20k}", &"a".repeat(20_000));
    let many: Vec<String> = (0..120).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let many = many.concat();
    let text = text.replace("{120 fields}", &many);
    let many: Vec<String> = (0..300).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let text = text.replace("{300 fields}", &many.concat());
    let mut bytes = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{ff}") {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(0xff);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// What a backend has seen, a line for each request.
pub(crate) type Notes = Arc<Mutex<Vec<String>>>;

/// A backend that notes what it sees.
pub(crate) async fn notary() -> (SocketAddr, Notes) {
    let seen = Notes::default();
    let notes = Arc::clone(&seen);
    let address = raw_backend(move |mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            let mut reader = Reader(&mut stream);
            while let Some(lines) = reader.head().await {
                let first = lines[0].strip_suffix(" HTTP/1.1");
                let mut note = first
                    .unwrap_or(&lines[0])
                    .replace(&"a".repeat(15_000), "{15k}");
                for line in &lines {
                    if let Some(protocol) = line.to_ascii_lowercase().strip_prefix("upgrade:") {
                        write!(note, " (upgrade: {})", protocol.trim()).unwrap();
                    }
                }
                let is_host = |line: &&String| line.to_ascii_lowercase().starts_with("host:");
                match lines.iter().filter(is_host).count() {
                    1 => {}
                    hosts => write!(note, " ({hosts} hosts)").unwrap(),
                }
                let Some(body) = reader.body(&lines, false).await else {
                    // What does not come to its end is not acted on.
                    return;
                };
                notes.lock().unwrap().push(format!("{note} {body}"));
                let mut answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_owned();
                if !note.starts_with("HEAD ") {
                    answer += "ok";
                }
                if reader.0.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (address, seen)
}

/// Sends the bytes of a row. Returns what the client got, and what the backend saw of it; fails when something else
/// than that is made of a request which follows.
pub(crate) async fn ask(
    to: SocketAddr,
    seen: &Notes,
    text: &str,
) -> Result<(Status, String), String> {
    seen.lock().unwrap().clear();
    let text = bytes(text);
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(&text).await;
    let method = if text.starts_with(b"HEAD") {
        "HEAD"
    } else {
        "GET"
    };
    let mut reader = Reader(&mut stream);
    let answer = timeout(PATIENCE, reader.response(method)).await;
    let (status, _) = answer.unwrap_or((1, None));
    // Whatever came, a request that follows on the connection is that request or is not answered.
    let _ = stream
        .write_all(b"GET /after HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .await;
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    let notes: Vec<String> = seen.lock().unwrap().clone();
    let (followed, first): (Vec<_>, Vec<_>) =
        notes.iter().partition(|note| note.contains("GET /after"));
    let first: Vec<&str> = first.iter().map(|note| note.trim_end()).collect();
    let first = first.join(" | ");
    if followed.len() > 1 || followed.iter().any(|note| *note != "GET /after ") {
        return Err(format!(
            "{status} {first:?}, and what follows is {followed:?}"
        ));
    }
    Ok((status, first))
}

#[tokio::test]
async fn requests_mean_the_same_to_everybody() {
    let (address, seen) = notary().await;
    let site = Site::start(to(address));
    let mut failures = Vec::new();
    for (name, text, want) in REQUESTS {
        let want = want.of_this_engine();
        match ask(site.http, &seen, text).await {
            Ok((status, notes)) if (status, notes.as_str()) == want => {}
            found => failures.push(format!("{name}: {found:?}, wanted {want:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A backend that switches to whatever is asked for, and notes what comes then.
#[tokio::test]
async fn nobody_gets_past_the_gateway_with_an_upgrade_to_http2() {
    let seen = Notes::default();
    let notes = Arc::clone(&seen);
    let address = raw_backend(move |mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            let mut reader = Reader(&mut stream);
            while let Some(lines) = reader.head().await {
                notes.lock().unwrap().extend(lines);
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
                let _ = reader.0.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let site = Site::start(to(address));
    for protocol in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0"] {
        let all = site
            .raw(format!(
                "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n\
                 PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            ))
            .await;
        assert!(all.starts_with("HTTP/1.1 502 "), "{protocol}: {all}");
    }
    let seen = seen.lock().unwrap().join("\n").to_ascii_lowercase();
    for word in ["upgrade", "http2-settings", "pri *"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }
}

#[tokio::test]
async fn responses_mean_the_same_to_everybody() {
    let address = raw_backend(|mut stream| async move {
        let mut reader = Reader(&mut stream);
        while let Some(lines) = reader.head().await {
            let row = lines[0].split(['/', ' ']).nth(2).unwrap().parse::<usize>();
            let Ok(row) = row else {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean";
                let _ = reader.0.write_all(answer).await;
                continue;
            };
            let (_, text, _) = RESPONSES[row];
            let (text, close) = match text.strip_suffix("{close}") {
                Some(text) => (text, true),
                None => (text, false),
            };
            if reader.0.write_all(&bytes(text)).await.is_err() || close {
                return;
            }
        }
    })
    .await;
    let site = Site::start(to(address));
    let mut failures = Vec::new();
    for (number, (name, _, want)) in RESPONSES.iter().enumerate() {
        let method = if name.contains("HEAD") { "HEAD" } else { "GET" };
        let mut stream = TcpStream::connect(site.http).await.unwrap();
        let request =
            format!("{method} /{number} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Reader(&mut stream);
        let answer = timeout(PATIENCE, reader.response(method)).await;
        let (status, body) = answer.unwrap_or((1, None));
        let body = match body {
            Some(_) if status == 502 => String::new(),
            Some(body) => body,
            None => "broken".to_owned(),
        };
        let want = want.of_this_engine();
        if (status, body.as_str()) != (want.0, want.1) {
            failures.push(format!("{name}: {status} {body:?}, wanted {want:?}"));
        }
        // Whatever that was, nobody else gets to see what is left of it.
        let next = site.get("a.test", "/next").await;
        if (next.status, next.body.as_str()) != (200, "clean") {
            failures.push(format!("{name}: then {} {:?}", next.status, next.body));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn there_are_enough_rows() {
    assert!(REQUESTS.len() >= 250 && RESPONSES.len() >= 60);
    let mut names: Vec<&str> = REQUESTS.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), REQUESTS.len(), "a name stands for one row");
}
