//! Frames as octets and octets as frames, written from RFC 9113 and not with the code that is tested.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    reason = "helpers of tests may fail"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use http2::{Block, Code, Connection, Head, Stream};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// `END_STREAM`, and `ACK`.
pub const ES: u8 = 1;
/// `END_HEADERS`.
pub const EH: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut all = length[1..].to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

pub fn data(stream: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, content)
}

pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub fn rst(stream: u32, code: Code) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub fn goaway(last: u32, code: Code) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.0.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &payload)
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(name, value)| {
            let mut all = name.to_be_bytes().to_vec();
            all.extend(value.to_be_bytes());
            all
        })
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// A string of header compression, as it is (RFC 7541, 5.2).
fn string(all: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        all.push(u8::try_from(text.len()).unwrap());
    } else {
        all.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            all.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        all.push(u8::try_from(rest).unwrap());
    }
    all.extend(text);
}

/// Fields as literals that are not kept (RFC 7541, 6.2.2).
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, value) in fields {
        all.push(0);
        string(&mut all, name.as_bytes());
        string(&mut all, value.as_bytes());
    }
    all
}

/// The fields of `GET https:/`, and these.
pub fn get(more: &[(&str, &str)]) -> Vec<u8> {
    request("GET", more)
}

pub fn request(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "https"), (":path", "/")];
    fields(&[&usual[..], more].concat())
}

pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

/// A request without content.
pub fn asks(stream: u32) -> Vec<u8> {
    headers(stream, EH | ES, &get(&[]))
}

/// A request whose content is still to come.
pub fn posts(stream: u32) -> Vec<u8> {
    headers(stream, EH, &request("POST", &[]))
}

/// What a client begins with.
pub fn hello() -> Vec<u8> {
    [PREFACE, &settings(&[])[..]].concat()
}

/// One frame of output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn number(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().unwrap())
}

/// Output as frames. It is made of whole ones, none of which is larger than everybody takes.
pub fn parse(mut octets: &[u8]) -> Vec<Frame> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let length = usize::try_from(u32::from_be_bytes([0, octets[0], octets[1], octets[2]]));
        let length = length.unwrap();
        assert!(length <= 16_384, "a frame of {length} octets");
        all.push(Frame {
            kind: octets[3],
            flags: octets[4],
            stream: number(&octets[5..]),
            payload: octets[9..9 + length].to_vec(),
        });
        octets = &octets[9 + length..];
    }
    all
}

impl Frame {
    fn text(&self) -> String {
        let (stream, payload) = (self.stream, &self.payload);
        let ends = if self.flags & ES == 0 { "" } else { " ends" };
        match self.kind {
            DATA => format!("DATA {stream} {}{ends}", payload.len()),
            HEADERS => format!("HEADERS {stream}{ends}"),
            CONTINUATION => format!("CONTINUATION {stream}"),
            RST_STREAM => format!("RST {stream} {:?}", Code(number(payload))),
            SETTINGS if self.flags & ES != 0 => "SETTINGS-ACK".to_owned(),
            PING if self.flags & ES != 0 => format!("PONG {}", payload.escape_ascii()),
            PING => format!("PING {}", payload.escape_ascii()),
            GOAWAY => {
                let code = Code(number(&payload[4..]));
                format!("GOAWAY {} {code:?}", number(payload))
            }
            WINDOW_UPDATE => format!("WINDOW {stream} {}", number(payload)),
            kind => format!("frame of type {kind}"),
        }
    }
}

/// Output in words.
pub fn words(octets: &[u8]) -> String {
    let all: Vec<String> = parse(octets).iter().map(Frame::text).collect();
    all.join(", ")
}

pub fn output(connection: &Connection) -> Vec<u8> {
    let mut octets = Vec::new();
    connection.take_output(&mut octets);
    octets
}

/// A head in words.
pub fn head_words(head: &Head) -> String {
    let mut all = if head.status() == 0 {
        let path = head.path().escape_ascii();
        format!("{} {path}", head.method().escape_ascii())
    } else {
        head.status().to_string()
    };
    if head.is_too_large() {
        all.push_str(" too large");
    }
    for (name, value, _) in head.fields().iter() {
        all.push_str(&format!(
            " {}={}",
            name.escape_ascii(),
            value.escape_ascii()
        ));
    }
    all
}

pub fn block_words(block: &Block) -> String {
    let field = |(name, value, _): (&[u8], &[u8], bool)| {
        format!("{}={}", name.escape_ascii(), value.escape_ascii())
    };
    let all: Vec<String> = block.iter().map(field).collect();
    all.join(" ")
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Do {
    /// This comes.
    In(Vec<u8>),
    /// The stream that was accepted as this one is answered without content.
    Answer(usize),
    /// It is answered with content that is still to come.
    Begin(usize),
    /// It is dropped.
    Drop(usize),
    /// It is reset.
    Reset(usize),
    /// All content that has come is taken.
    Take(usize),
    /// A farewell is said.
    Farewell,
}

pub fn input(frames: &[Vec<u8>]) -> Do {
    Do::In(frames.concat())
}

/// Does these to a server, with what comes cut into pieces of this size; output and requests in words.
pub fn serve(connection: &Connection, all: &[Do], piece: usize) -> (Vec<u8>, String) {
    let _ = output(connection);
    let mut cx = Context::from_waker(Waker::noop());
    let mut streams: Vec<Option<Stream>> = Vec::new();
    let mut requests = Vec::new();
    for step in all {
        match step {
            Do::In(octets) => {
                for piece in octets.chunks(piece) {
                    connection.receive(piece);
                }
                while let Some((head, stream)) = connection.accept() {
                    requests.push(head_words(&head));
                    streams.push(Some(stream));
                }
            }
            Do::Answer(at) => {
                let stream = streams[*at].as_mut().unwrap();
                stream.respond(200, true, |_| {}).unwrap();
            }
            Do::Begin(at) => {
                let stream = streams[*at].as_mut().unwrap();
                stream.respond(200, false, |_| {}).unwrap();
            }
            Do::Drop(at) => streams[*at] = None,
            Do::Reset(at) => streams[*at].as_mut().unwrap().reset(Code::CANCEL),
            Do::Take(at) => {
                let stream = streams[*at].as_mut().unwrap();
                while let Poll::Ready(Some(Ok(_))) = stream.poll_content(&mut cx) {}
            }
            Do::Farewell => connection.say_farewell(),
        }
    }
    (output(connection), requests.join("; "))
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
pub struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counter {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn counter() -> (Arc<Counter>, Waker) {
    let counter = Arc::new(Counter::default());
    (counter.clone(), Waker::from(counter))
}
