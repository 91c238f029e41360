//! Backends that say what they saw, byte by byte, and some that fail.

use std::fmt::Write as _;
use std::future::Future;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::head;

/// All of them. They end when this is dropped.
pub(super) struct Backends {
    /// Names and ports.
    ports: Vec<(&'static str, u16)>,
    _tasks: JoinSet<()>,
}

impl Backends {
    pub(super) async fn start() -> Self {
        let mut tasks = JoinSet::new();
        let mut ports = Vec::new();
        // Nobody listens there any more.
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(("dead", dead.local_addr().unwrap().port()));
        drop(dead);
        ports.push(("web", serve(&mut tasks, echo).await));
        ports.push(("closing", serve(&mut tasks, closing).await));
        ports.push(("garbage", serve(&mut tasks, garbage).await));
        ports.push(("silent", serve(&mut tasks, silent).await));
        ports.push(("huge", serve(&mut tasks, huge).await));
        ports.push(("short", serve(&mut tasks, short).await));
        Self {
            ports,
            _tasks: tasks,
        }
    }

    /// Names and ports.
    pub(super) fn ports(&self) -> &[(&'static str, u16)] {
        &self.ports
    }

    /// Services with the ports of their endpoints.
    pub(super) fn services(&self) -> Vec<(&'static str, Vec<u16>)> {
        let each = self.ports.iter().map(|(name, port)| (*name, vec![*port]));
        each.chain([("none", Vec::new())]).collect()
    }

    /// The same text with the names of backends for their addresses.
    pub(super) fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, port) in &self.ports {
            text = text.replace(&format!("127.0.0.1:{port}"), name);
        }
        text
    }
}

async fn serve<F, R>(tasks: &mut JoinSet<()>, handler: F) -> u16
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(handler(stream));
        }
    });
    port
}

/// Answers one request after the other with what it was, and with the fields that the query asks for.
async fn echo(mut stream: TcpStream) {
    while let Some(head) = head(&mut stream).await {
        let mut lines = head.lines();
        let request = lines.next().unwrap_or_default().to_owned();
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let field = |name: &str| {
            let found = fields.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.clone())
        };
        let mut received = 0;
        if field("transfer-encoding").is_some() {
            // Chunks, of which the last is empty.
            loop {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    line.push(byte);
                }
                let text = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(text.trim(), 16).unwrap_or_default();
                let mut chunk = vec![0; size + 2];
                if stream.read_exact(&mut chunk).await.is_err() {
                    return;
                }
                received += size;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = field("content-length") {
            let mut body = vec![0; length.parse().unwrap_or_default()];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            received = body.len();
        }
        let query = request.split(' ').nth(1).and_then(|target| {
            let (_, query) = target.split_once('?')?;
            Some(query.to_owned())
        });
        let mut more = String::new();
        let mut status = "200 OK".to_owned();
        for pair in query.iter().flat_map(|query| query.split('&')) {
            match pair.split_once('=') {
                Some(("status", code)) => status = format!("{code} Status"),
                Some(("set", text)) => {
                    let text = text.replace("%20", " ").replace("%3D", "=");
                    write!(more, "{}\r\n", text.replacen(':', ": ", 1)).unwrap();
                }
                _ => {}
            }
        }
        let seen = json!({"request": request, "fields": fields, "received": received}).to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nServer: origin\r\nContent-Length: {}\r\n{more}\r\n{seen}",
            seen.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What [`echo`] saw, line by line; nothing if it is another answer.
pub(super) fn seen(body: &str) -> Vec<String> {
    let Ok(seen) = serde_json::from_str::<Value>(body) else {
        return Vec::new();
    };
    let mut lines = vec![
        format!("backend {}", seen["request"].as_str().unwrap_or_default()),
        format!("body {}", seen["received"]),
    ];
    let fields = seen["fields"].as_array().into_iter().flatten();
    let mut fields: Vec<String> = fields
        .map(|pair| {
            let text = |at: usize| pair[at].as_str().unwrap_or_default().to_owned();
            format!("field {}: {}", text(0), text(1))
        })
        .collect();
    fields.sort();
    lines.extend(fields);
    lines
}

/// Closes the connection without an answer.
async fn closing(mut stream: TcpStream) {
    head(&mut stream).await;
}

/// Answers with what is not HTTP.
async fn garbage(mut stream: TcpStream) {
    head(&mut stream).await;
    let _ = stream.write_all(b"this is not HTTP at all\r\n\r\n").await;
}

/// Answers nothing for as long as somebody waits.
async fn silent(mut stream: TcpStream) {
    head(&mut stream).await;
    let _ = stream.read_u8().await;
}

/// A header section of 6 KiB.
async fn huge(mut stream: TcpStream) {
    head(&mut stream).await;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nX-Large: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "x".repeat(6 * 1024)
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// Ends in the middle of a body.
async fn short(mut stream: TcpStream) {
    head(&mut stream).await;
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")
        .await;
}
