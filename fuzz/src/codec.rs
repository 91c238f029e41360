//! The codec of HTTP/2 by itself, as a server and as a client, without sockets.

use std::task::{Context, Poll, Waker};

use http2::{Block, Code, Connection, Head, Settings, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS with nothing in them.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// Requests that a client has begun before anything comes.
const REQUESTS: usize = 3;

/// What the first octet says: the role, whether the beginning is given, and the size of pieces.
struct Plan {
    is_server: bool,
    begun: bool,
    piece: usize,
}

/// A connection, and the streams of a client.
fn begin(plan: &Plan) -> (Connection, Vec<Stream>) {
    let settings = Settings {
        max_streams: 5,
        max_header_list: 8 * 1024,
        ..Settings::default()
    };
    if plan.is_server {
        let server = Connection::server(&settings);
        if plan.begun {
            server.receive(PREFACE);
            server.receive(SETTINGS);
        }
        return (server, Vec::new());
    }
    let client = Connection::client(&settings);
    let asked = (0..REQUESTS).map(|number| {
        let opened = client.open(number == 0, |fields| {
            fields.add(b":method", b"POST", false);
            fields.add(b":scheme", b"https", false);
            fields.add(b":path", b"/", false);
        });
        opened.expect("a connection that has begun")
    });
    let streams: Vec<Stream> = asked.collect();
    streams[1].expect_no_content();
    if plan.begun {
        client.receive(SETTINGS);
    }
    (client, streams)
}

fn output(connection: &Connection) -> Vec<u8> {
    let mut octets = Vec::new();
    connection.take_output(&mut octets);
    octets
}

/// Would this end a line of HTTP/1.1?
fn breaks(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n' | 0)
}

/// Would this end a word in the first line of a request?
fn parts(octet: u8) -> bool {
    octet <= b' ' || octet == 0x7f
}

/// A field may stand in HTTP/1.1 as it is.
fn check_fields(block: &Block) {
    for (name, value, _) in block.iter() {
        let is_name = |octet: &u8| octet.is_ascii_graphic() && *octet != b':';
        assert!(!name.is_empty() && name.iter().all(is_name), "{name:?}");
        assert!(!name.iter().any(u8::is_ascii_uppercase), "{name:?}");
        assert!(!value.iter().copied().any(breaks), "{value:?}");
    }
}

fn check_head(head: &Head) {
    check_fields(head.fields());
    for value in [
        head.method(),
        head.path(),
        head.authority().unwrap_or_default(),
    ] {
        assert!(!value.iter().copied().any(parts), "{value:?}");
    }
}

/// Only listens. What comes out and how many requests were accepted.
fn listen(plan: &Plan, octets: &[u8], piece: usize) -> (Vec<u8>, usize) {
    let (connection, streams) = begin(plan);
    let mut accepted = Vec::new();
    for piece in octets.chunks(piece) {
        connection.receive(piece);
        accepted.extend(std::iter::from_fn(|| connection.accept()));
    }
    let out = output(&connection);
    let count = accepted.len();
    drop((streams, accepted));
    assert!(!connection.has_streams(), "a stream that nobody holds");
    (out, count)
}

/// Takes what comes, and sends it back.
fn answer(plan: &Plan, octets: &[u8]) {
    let (connection, mut streams) = begin(plan);
    let mut out = output(&connection).len();
    let mut content = 0;
    let mut cx = Context::from_waker(Waker::noop());
    for (number, piece) in octets.chunks(plan.piece).enumerate() {
        connection.receive(piece);
        while let Some((head, mut stream)) = connection.accept() {
            check_head(&head);
            let _ = stream.respond(103, false, |_| {});
            let _ = stream.respond(200, false, |fields| {
                for (name, value, sensitive) in head.fields().iter() {
                    fields.add(name, value, sensitive);
                }
            });
            streams.push(stream);
        }
        for stream in &mut streams {
            while let Poll::Ready(Ok(head)) = stream.poll_head(&mut cx) {
                check_head(&head);
            }
            while let Poll::Ready(Some(Ok(part))) = stream.poll_content(&mut cx) {
                content += part.len();
                let _ = stream.poll_send(&mut cx, &part, false);
            }
            if let Some(trailers) = stream.take_trailers() {
                check_fields(&trailers);
                let _ = stream.send_trailers(&trailers);
            }
        }
        match number % 16 {
            3 => drop(streams.pop()),
            7 => {
                if let Some(stream) = streams.last_mut() {
                    stream.reset(Code::CANCEL);
                }
            }
            15 => connection.say_farewell(),
            _ => {}
        }
        out += output(&connection).len();
    }
    // Fields out of the table are longer than what stands for them.
    assert!(content <= octets.len());
    assert!(out <= 1000 + 8 * 1024 * octets.len(), "{out} octets");
    streams.clear();
    assert!(!connection.has_streams(), "a stream that nobody holds");
}

/// Frames, behind an octet that says for whom they are.
pub(crate) fn http2(bytes: &[u8]) {
    let Some((first, octets)) = bytes.split_first() else {
        return;
    };
    let plan = Plan {
        is_server: first & 1 == 0,
        begun: first & 2 == 0,
        piece: 1 + usize::from(first >> 2) * usize::from(first >> 2),
    };
    let whole = listen(&plan, octets, octets.len().max(1));
    assert!(
        whole.0.len() <= 200 + 3 * octets.len(),
        "{} octets",
        whole.0.len()
    );
    assert_eq!(
        listen(&plan, octets, plan.piece),
        whole,
        "in pieces of {}",
        plan.piece
    );
    answer(&plan, octets);
}
