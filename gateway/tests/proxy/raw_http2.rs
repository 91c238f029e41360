//! Header sections of HTTP/2 as they may come, and what may become of them (RFC 9113, 8).
//!
//! The fields are written to the connection as they stand: no library would send most of them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, begin, frame, read,
};
use crate::raw::Want::{Both, Each};
use crate::raw::{Notes, Status, Want, notary};
use crate::support::{Site, to};

const PATIENCE: Duration = Duration::from_secs(5);

/// A request: fields, content, trailers. Name and value stand around the first `: ` behind the first byte; nothing else
/// is taken off.
pub(crate) struct Request {
    pub(crate) fields: &'static [&'static str],
    pub(crate) body: Option<&'static str>,
    pub(crate) trailers: Option<&'static [&'static str]>,
}

const fn bare(fields: &'static [&'static str]) -> Request {
    Request {
        fields,
        body: None,
        trailers: None,
    }
}

const fn with(fields: &'static [&'static str], body: &'static str) -> Request {
    Request {
        fields,
        body: Some(body),
        trailers: None,
    }
}

const fn behind(
    fields: &'static [&'static str],
    body: &'static str,
    trailers: &'static [&'static str],
) -> Request {
    Request {
        fields,
        body: Some(body),
        trailers: Some(trailers),
    }
}

pub(crate) const REQUESTS: &[(&str, Request, Want)] = &include!("raw_http2.in");

/// A header section without compression (RFC 7541, 6.2.2).
fn section(fields: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        let colon = field.get(1..).and_then(|rest| rest.find(": "));
        let (name, value) = match colon {
            Some(at) => (&field[..=at], &field[at + 3..]),
            None => (*field, ""),
        };
        out.push(0);
        for text in [name, value] {
            let text = text.replace("{ff}", "\u{ff}");
            // A Latin-1 byte for each character: that is how a byte beyond ASCII gets in.
            let text: Vec<u8> = text
                .chars()
                .map(|letter| u8::try_from(u32::from(letter)).unwrap())
                .collect();
            assert!(text.len() < 127, "one byte has room for the length");
            out.push(u8::try_from(text.len()).unwrap());
            out.extend(text);
        }
    }
    out
}

impl Request {
    fn frames(&self) -> Vec<u8> {
        let end = |more: bool| if more { 0 } else { END_STREAM };
        let flags = END_HEADERS | end(self.body.is_some() || self.trailers.is_some());
        let mut out = frame(HEADERS, flags, 1, &section(self.fields));
        if let Some(body) = self.body {
            out.extend(frame(
                DATA,
                end(self.trailers.is_some()),
                1,
                body.as_bytes(),
            ));
        }
        if let Some(trailers) = self.trailers {
            let flags = END_HEADERS | END_STREAM;
            out.extend(frame(HEADERS, flags, 1, &section(trailers)));
        }
        out
    }
}

/// The status that begins a header section, as servers write it (RFC 7541, 6 and appendix B).
fn status(section: &[u8]) -> Status {
    let update = |byte: &&u8| **byte & 0xe0 == 0x20;
    let section = &section[section.iter().take_while(update).count()..];
    match section {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A name of the table, and a value as text or in the code of Huffman.
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => {
            String::from_utf8_lossy(&digits[..3]).parse().unwrap()
        }
        [0x08 | 0x18 | 0x48, length, code @ ..] if length & 0x80 != 0 => huffman(code),
        _ => panic!("a header section begins with its status: {section:x?}"),
    }
}

/// Three digits.
fn huffman(code: &[u8]) -> Status {
    let bits: Vec<u8> = code
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let number = |from: usize, length: usize| {
        bits[from..from + length]
            .iter()
            .fold(0, |number, bit| number << 1 | u16::from(*bit))
    };
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let short = number(at, 5);
        let digit = if short < 3 {
            at += 5;
            short
        } else {
            at += 6;
            number(at - 6, 6) - 0b01_1001 + 3
        };
        status = status * 10 + digit;
    }
    status
}

/// Sends a request on a connection of its own. Returns the status, 0 where the stream or the connection was ended
/// instead, and what the backend saw.
pub(crate) async fn ask(to: SocketAddr, seen: &Notes, request: &Request) -> (Status, String) {
    seen.lock().unwrap().clear();
    let mut stream = TcpStream::connect(to).await.unwrap();
    begin(&mut stream, &[]).await;
    let _ = stream.write_all(&request.frames()).await;
    let answer = async {
        while let Some(frame) = read(&mut stream).await {
            match frame.kind {
                HEADERS if frame.stream == 1 => {
                    let status = status(&frame.payload);
                    if status >= 200 {
                        return status;
                    }
                }
                RST_STREAM if frame.stream == 1 => return 0,
                GOAWAY if frame.farewell().is_some_and(|(_, code)| code != 0) => return 0,
                _ => {}
            }
        }
        0
    };
    let status = timeout(PATIENCE, answer).await.unwrap_or(1);
    let notes = seen.lock().unwrap();
    let notes: Vec<&str> = notes.iter().map(|note| note.trim_end()).collect();
    (status, notes.join(" | "))
}

#[tokio::test]
async fn requests_of_http2_mean_the_same_to_everybody() {
    let (address, seen) = notary().await;
    let site = Site::start(to(address));
    let mut failures = Vec::new();
    for (name, request, want) in REQUESTS {
        let found = ask(site.http, &seen, request).await;
        let want = want.of_this_engine();
        if (found.0, found.1.as_str()) != want {
            failures.push(format!("{name}: {found:?}, wanted {want:?}"));
        }
        // The connections of others are none of its business.
        let next = site.get("a.test", "/next").await;
        if next.status != 200 {
            failures.push(format!("{name}: then {}", next.status));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
