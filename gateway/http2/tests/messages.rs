//! Requests and responses as RFC 9113, 8 has them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail"
)]

mod kit;

use std::task::{Context, Poll, Waker};

use http2::{Code, Connection, Ended, Settings, Stream};
use kit::{
    CONTINUATION, Do, EH, ES, GOAWAY, PADDED, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, asks,
    block_words, data, fields, frame, get, goaway, head_words, headers, hello, input, output,
    posts, request, rst, serve, settings, window, words,
};

fn server() -> Connection {
    Connection::server(&Settings {
        max_header_list: 4096,
        ..Settings::default()
    })
}

/// What a server says to these frames, after the preface and SETTINGS.
fn asked(frames: &[Vec<u8>]) -> (String, String) {
    let all = [hello(), frames.concat()].concat();
    let whole = serve(&server(), &[Do::In(all.clone())], all.len());
    for size in [1, 2, 3, 7, 50] {
        assert_eq!(
            serve(&server(), &[Do::In(all.clone())], size),
            whole,
            "{size}"
        );
    }
    let out = words(&whole.0);
    let out = out.strip_prefix("SETTINGS-ACK").unwrap();
    (out.strip_prefix(", ").unwrap_or(out).to_owned(), whole.1)
}

#[test]
fn a_malformed_request_is_reset_and_not_accepted() {
    let with = |name, value| get(&[(name, value)]);
    let only = |all: &[(&str, &str)]| fields(all);
    let rows = include!("rows/malformed.in");
    for (why, block) in rows {
        let got = asked(&[headers(1, EH | ES, &block), asks(3)]);
        assert_eq!(
            got,
            ("RST 1 PROTOCOL_ERROR".to_owned(), "GET /".to_owned()),
            "{why}"
        );
    }
}

#[test]
fn white_space_around_a_value_is_no_part_of_it() {
    // 8.2.1 wants it refused. Many take it, clients send it, and without it nobody can read it in two ways.
    for value in [" a", "a ", "\ta", "a\t", " \ta \t"] {
        let got = asked(&[headers(1, EH | ES, &get(&[("a", value)]))]);
        assert_eq!(got, (String::new(), "GET / a=a".to_owned()), "{value:?}");
    }
    let got = asked(&[headers(1, EH | ES, &get(&[("a", " ")]))]);
    assert_eq!(got, (String::new(), "GET / a=".to_owned()));
}

#[test]
fn a_method_is_a_token_and_a_target_has_no_spaces() {
    // 8.3.1 with RFC 9110, 9.1 and RFC 9112, 3.2: in a request line they would be something else.
    let usual =
        |method, path| fields(&[(":method", method), (":scheme", "https"), (":path", path)]);
    for (method, path) in [
        ("GET /", "/"),
        ("G\tT", "/"),
        ("GET", "/ HTTP/1.1"),
        ("GET", "/\t"),
        ("G:T", "/"),
    ] {
        let got = asked(&[headers(1, EH | ES, &usual(method, path))]);
        assert_eq!(
            got,
            ("RST 1 PROTOCOL_ERROR".to_owned(), String::new()),
            "{method:?} {path:?}"
        );
    }
}

#[test]
fn a_request_that_is_as_it_has_to_be_is_accepted() {
    let rows = include!("rows/accepted.in");
    for (why, block, want) in rows {
        assert_eq!(
            asked(&[headers(1, EH | ES, &block)]),
            (String::new(), want.to_owned()),
            "{why}"
        );
    }
}

#[test]
fn content_is_as_long_as_was_said() {
    let length = |length| headers(1, EH, &request("POST", &[("content-length", length)]));
    let wrong = "RST 1 PROTOCOL_ERROR";
    for (why, frames, want) in include!("rows/content.in") {
        assert_eq!(asked(&frames).0, want, "{why}");
    }
}

#[test]
fn trailers_end_a_request() {
    let wrong = "RST 1 PROTOCOL_ERROR";
    let trailers = |flags, all: &[(&str, &str)]| vec![posts(1), headers(1, flags, &fields(all))];
    for (why, frames, want) in include!("rows/trailers.in") {
        assert_eq!(asked(&frames).0, want, "{why}");
    }
}

#[test]
fn a_request_that_is_too_large_is_marked() {
    let large = get(&[("a", "1"), ("large", &"x".repeat(5000)), ("b", "1")]);
    assert_eq!(
        asked(&[headers(1, EH | ES, &large)]),
        (String::new(), "GET / too large a=1".to_owned())
    );
    // 6.5.2: names and values, and 32 for each field.
    for (length, want) in [
        (4096 - 49 - 3 * 32 - 33, false),
        (4096 - 49 - 3 * 32 - 32, true),
    ] {
        let usual = ":method".len() + 3 + ":scheme".len() + 5 + ":path".len() + 1;
        let value = "x".repeat(length + 49 - usual);
        let (_, requests) = asked(&[headers(1, EH | ES, &get(&[("a", &value)]))]);
        assert_eq!(requests.contains("too large"), want, "{length}");
    }
}

/// A client that has asked this often, its streams, and their output taken.
fn client(requests: usize, ends: bool) -> (Connection, Vec<Stream>) {
    let client = Connection::client(&Settings {
        max_header_list: 4096,
        ..Settings::default()
    });
    let open = || {
        client.open(ends, |writer| {
            for (name, value) in [(":method", "GET"), (":scheme", "https"), (":path", "/")] {
                writer.add(name.as_bytes(), value.as_bytes(), false);
            }
        })
    };
    let streams = (0..requests).map(|_| open().unwrap()).collect();
    let _ = output(&client);
    client.receive(&settings(&[]));
    assert_eq!(words(&output(&client)), "SETTINGS-ACK");
    (client, streams)
}

/// All that a stream says, in words.
fn said(stream: &mut Stream) -> String {
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    let mut last = 100;
    while (100..200).contains(&last) {
        match stream.poll_head(&mut cx) {
            Poll::Ready(Ok(head)) => {
                last = head.status();
                all.push(head_words(&head));
            }
            Poll::Ready(Err(why)) => {
                all.push(format!("{why:?}"));
                return all.join(", ");
            }
            Poll::Pending => {
                all.push("pending".to_owned());
                return all.join(", ");
            }
        }
    }
    loop {
        match stream.poll_content(&mut cx) {
            Poll::Ready(Some(Ok(content))) => all.push(content.escape_ascii().to_string()),
            Poll::Ready(Some(Err(why))) => {
                all.push(format!("{why:?}"));
                break;
            }
            Poll::Ready(None) => {
                all.extend(
                    stream
                        .take_trailers()
                        .map(|trailers| block_words(&trailers)),
                );
                all.push("end".to_owned());
                break;
            }
            Poll::Pending => {
                all.push("pending".to_owned());
                break;
            }
        }
    }
    all.join(", ")
}

#[test]
fn a_response_is_what_was_sent() {
    let status = |status, flags, more: &[(&str, &str)]| {
        headers(
            1,
            EH | flags,
            &fields(&[&[(":status", status)], more].concat()),
        )
    };
    let length = |value| [("content-length", value)];
    let invalid = "RST 1 PROTOCOL_ERROR";
    let rows = include!("rows/responses.in");
    let mut wrong = Vec::new();
    for (why, is_head, frames, want, out) in rows {
        let all = frames.concat();
        for size in 1..=all.len() {
            // The request goes on, so that resets are of interest.
            let (client, mut streams) = client(1, false);
            if is_head {
                streams[0].expect_no_content();
            }
            for piece in all.chunks(size) {
                client.receive(piece);
            }
            let got = (said(&mut streams[0]), words(&output(&client)));
            if (got.0.as_str(), got.1.as_str()) != (want, out) {
                wrong.push(format!("{why}, in pieces of {size}: {got:?}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_response_without_content_has_none() {
    // RFC 9110, 6.4.1: towards a client of HTTP/1.1 it would be the beginning of the next response.
    let status = |status| headers(1, EH, &fields(&[(":status", status)]));
    for (why, is_head, frames) in [
        ("HEAD", true, [status("200"), data(1, ES, b"x")]),
        ("204", false, [status("204"), data(1, ES, b"x")]),
        ("304", false, [status("304"), data(1, ES, b"x")]),
    ] {
        let (client, mut streams) = client(1, true);
        if is_head {
            streams[0].expect_no_content();
        }
        client.receive(&frames.concat());
        assert!(said(&mut streams[0]).ends_with("Invalid"), "{why}");
        assert_eq!(words(&output(&client)), "RST 1 PROTOCOL_ERROR", "{why}");
    }
}

#[test]
fn there_is_no_switching_of_protocols() {
    // 8.6: 101 is not used; passed on to a client of HTTP/1.1, it would be believed.
    let (client, mut streams) = client(1, true);
    client.receive(&headers(1, EH, &fields(&[(":status", "101")])));
    assert_eq!(said(&mut streams[0]), "Invalid");
    assert_eq!(words(&output(&client)), "RST 1 PROTOCOL_ERROR");
}

#[test]
fn what_a_server_must_not_send_ends_the_connection() {
    let protocol = Code::PROTOCOL_ERROR;
    for (why, octets, code) in include!("rows/server_errors.in") {
        let (client, mut streams) = client(1, true);
        client.receive(&octets);
        assert_eq!(client.over(), Some(code), "{why}");
        assert_eq!(
            words(&output(&client)),
            format!("GOAWAY 0 {code:?}"),
            "{why}"
        );
        assert_eq!(said(&mut streams[0]), "Invalid", "{why}");
        assert_eq!(
            client.open(true, |_| {}).unwrap_err(),
            Ended::NotSeen,
            "{why}"
        );
    }
}

#[test]
fn a_farewell_of_the_server_says_what_it_has_not_seen() {
    let (client, mut streams) = client(3, true);
    assert!(!client.is_closing());
    client.receive(&goaway(5, Code::NO_ERROR));
    assert!(client.is_closing() && client.over().is_none());
    assert_eq!(client.open(true, |_| {}).unwrap_err(), Ended::NotSeen);
    assert!(streams.iter().all(|stream| stream.ended().is_none()));
    client.receive(&goaway(3, Code::NO_ERROR));
    client.receive(&goaway(5, Code::NO_ERROR));
    let status = fields(&[(":status", "200")]);
    client.receive(
        &[
            headers(1, EH | ES, &status),
            headers(3, EH | ES, &status),
            headers(5, EH | ES, &status),
        ]
        .concat(),
    );
    let all: Vec<String> = streams.iter_mut().map(said).collect();
    assert_eq!(all, ["200, end", "200, end", "NotSeen"]);
    assert!(!client.has_streams());
}

#[test]
fn settings_of_the_server_limit_streams() {
    let (client, _streams) = client(0, true);
    assert_eq!(client.peer_streams(), 100);
    client.receive(&settings(&[(3, 7)]));
    assert_eq!(client.peer_streams(), 7);
}

#[test]
fn a_request_is_counted_that_is_malformed_or_refused() {
    let server = Connection::server(&Settings {
        max_streams: 1,
        ..Settings::default()
    });
    let steps = [input(&[
        hello(),
        headers(1, EH | ES, b""),
        asks(3),
        asks(5),
        asks(7),
    ])];
    let _ = serve(&server, &steps, 100);
    assert_eq!(server.take_counts(), (1, 2));
    assert_eq!(server.take_counts(), (0, 0));
}
