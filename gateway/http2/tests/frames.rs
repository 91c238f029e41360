//! What has to come out for the frames that come in, by the sections of RFC 9113: towards a client.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests may fail"
)]

mod kit;

use http2::{Code, Connection, Settings};
use kit::{
    CONTINUATION, DATA, Do, EH, ES, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, asks, data, fields, frame, get, goaway,
    headers, hello, input, posts, rst, serve, settings, window, words,
};

/// Why, what happens after the preface and SETTINGS, what comes out after SETTINGS and their acknowledgement, and which
/// requests are accepted.
type Row = (&'static str, Vec<Do>, &'static str, &'static str);

fn server() -> Connection {
    Connection::server(&Settings {
        max_streams: 3,
        max_header_list: 4096,
        ..Settings::default()
    })
}

/// Runs the rows, with what comes cut into pieces of several sizes.
fn check(rows: &[Row]) {
    let mut wrong = Vec::new();
    for (why, steps, want, requests) in rows {
        let mut all = vec![Do::In(hello())];
        all.extend_from_slice(steps);
        let longest = all.iter().map(|step| match step {
            Do::In(octets) => octets.len(),
            _ => 0,
        });
        let longest = longest.max().unwrap_or(0).max(1);
        let whole = serve(&server(), &all, longest);
        let got = words(&whole.0);
        let got = got.strip_prefix("SETTINGS-ACK").unwrap_or(&got);
        let got = got.strip_prefix(", ").unwrap_or(got);
        if got != *want || whole.1 != *requests {
            wrong.push(format!(
                "{why}:\n   want {want} | {requests}\n   got  {got} | {}",
                whole.1
            ));
        }
        // Every size, or those that cut everything for what is long.
        let sizes = (1..longest).filter(|size| longest < 600 || *size < 12 || size % 997 == 0);
        for size in sizes {
            let cut = serve(&server(), &all, size);
            if cut != whole {
                let cut = words(&cut.0);
                wrong.push(format!("{why}: in pieces of {size} octets: {cut}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn one(why: &'static str, frames: &[Vec<u8>], want: &'static str, requests: &'static str) -> Row {
    (why, vec![input(frames)], want, requests)
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("3.4: as it has to be", hello(), "SETTINGS-ACK"),
        (
            "3.4: HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
        (
            "3.4: one octet is another",
            [&PREFACE[..23], b"x"].concat(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
        ("3.4: a part of it", PREFACE[..23].to_vec(), ""),
        (
            "3.4: PING before SETTINGS",
            [PREFACE, &frame(PING, 0, 0, b"12345678")].concat(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
        (
            "3.4: a request before SETTINGS",
            [PREFACE, &asks(1)].concat(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
        (
            "3.4: an unknown frame before SETTINGS",
            [PREFACE, &frame(77, 0, 0, b"")].concat(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
        (
            "3.4: an acknowledgement is no beginning",
            [PREFACE, &frame(SETTINGS, ES, 0, b"")].concat(),
            "GOAWAY 0 PROTOCOL_ERROR",
        ),
    ];
    for (why, octets, want) in rows {
        for size in 1..=octets.len() {
            let (out, requests) = serve(&server(), &[Do::In(octets.clone())], size);
            assert_eq!(
                (words(&out).as_str(), requests.as_str()),
                (*want, ""),
                "{why}, {size}"
            );
        }
    }
}

#[test]
fn settings_of_the_server_come_first_and_say_what_was_set() {
    let server = Connection::server(&Settings {
        max_streams: 7,
        stream_window: 70_000,
        connection_window: 100_000,
        max_header_list: 5000,
    });
    let frames = kit::parse(&kit::output(&server));
    assert_eq!(
        (frames[0].kind, frames[0].flags, frames[0].stream),
        (SETTINGS, 0, 0)
    );
    let mut values: Vec<_> = frames[0]
        .payload
        .chunks(6)
        .map(|setting| {
            (
                u16::from_be_bytes([setting[0], setting[1]]),
                kit::number(&setting[2..]),
            )
        })
        .collect();
    values.sort_unstable();
    assert_eq!(values, [(3, 7), (4, 70_000), (6, 5000)]);
    assert_eq!(frames[1].kind, WINDOW_UPDATE);
    assert_eq!(kit::number(&frames[1].payload), 100_000 - 65_535);
    assert_eq!(frames.len(), 2);
}

#[test]
fn frames_have_a_form() {
    check(&include!("rows/form.in"));
}

/// A request whose `x: <text>` stays in the table.
fn keeps(stream: u32, text: &str) -> Vec<u8> {
    let mut block = get(&[]);
    block.extend([0x40, 1, b'x', u8::try_from(text.len()).unwrap()]);
    block.extend(text.bytes());
    headers(stream, EH | ES, &block)
}

#[test]
fn the_table_stays_the_same_whatever_becomes_of_a_section() {
    let again = headers(9, EH | ES, &[&get(&[])[..], &[0xbe]].concat());
    check(&include!("rows/tables.in"));
}

#[test]
fn what_may_come_depends_on_the_state_of_a_stream() {
    let protocol = "GOAWAY 0 PROTOCOL_ERROR";
    let ended = || input(&[asks(1)]);
    check(&include!("rows/states.in"));
}

#[test]
fn streams_have_numbers_and_a_limit() {
    check(&include!("rows/numbers.in"));
}

#[test]
fn a_smaller_number_than_before_ends_the_connection() {
    let (out, _) = serve(&server(), &[input(&[hello(), asks(5), asks(3)])], 9999);
    // 5.1.1 asks for PROTOCOL_ERROR, 5.1 for STREAM_CLOSED: the stream was closed by the one after it.
    let out = words(&out);
    assert!(
        out == "SETTINGS-ACK, GOAWAY 5 STREAM_CLOSED"
            || out == "SETTINGS-ACK, GOAWAY 5 PROTOCOL_ERROR",
        "{out}"
    );
}

#[test]
fn priorities_are_read_and_forgotten() {
    let own = |stream: u8| vec![0, 0, 0, stream, 1];
    check(&include!("rows/priorities.in"));
}

#[test]
fn an_idle_stream_is_never_reset() {
    // 6.4: RST_STREAM must not be sent for an idle stream; a client ends the connection if it is.
    for (stream, payload) in [(1, &[0, 0, 0, 1, 1][..]), (1, &[0; 4]), (2, &[0; 4])] {
        let (out, _) = serve(
            &server(),
            &[input(&[hello(), frame(PRIORITY, 0, stream, payload)])],
            9999,
        );
        assert!(!words(&out).contains("RST"), "{}", words(&out));
    }
}

#[test]
fn each_type_of_frame_has_its_rules() {
    let size = "GOAWAY 0 FRAME_SIZE_ERROR";
    let protocol = "GOAWAY 0 PROTOCOL_ERROR";
    check(&include!("rows/types.in"));
}

#[test]
fn a_header_section_goes_on_in_continuation_frames() {
    let block = get(&[("a", "b")]);
    let begin = |flags| headers(1, flags, &block[..5]);
    let more = |flags, range: std::ops::Range<usize>| frame(CONTINUATION, flags, 1, &block[range]);
    let end = block.len();
    check(&include!("rows/continuation.in"));
    let without_end: Vec<Vec<u8>> = (0..10)
        .map(|_| frame(CONTINUATION, 0, 1, &[0; 4096]))
        .collect();
    let (out, requests) = serve(
        &server(),
        &[input(&[hello(), begin(ES), without_end.concat()])],
        5000,
    );
    assert_eq!(
        words(&out),
        "SETTINGS-ACK, GOAWAY 0 ENHANCE_YOUR_CALM",
        "a section without end"
    );
    assert_eq!(requests, "");
}

#[test]
fn nothing_comes_out_after_the_connection_is_over() {
    let server = server();
    let (out, _) = serve(
        &server,
        &[input(&[
            hello(),
            posts(1),
            frame(PING, 0, 0, b"1"),
            asks(3),
            settings(&[]),
        ])],
        9999,
    );
    assert_eq!(words(&out), "SETTINGS-ACK, GOAWAY 1 FRAME_SIZE_ERROR");
    assert_eq!(server.over(), Some(Code::FRAME_SIZE_ERROR));
    server.receive(&frame(PING, 0, 0, &[0; 8]));
    server.say_farewell();
    server.end(Code::NO_ERROR);
    assert_eq!(words(&kit::output(&server)), "");
    assert!(!server.has_streams());
}

#[test]
fn no_sign_of_life_is_asked_for_when_the_connection_is_over() {
    // 5.4.1: GOAWAY is the last that is sent.
    let server = server();
    server.end(Code::NO_ERROR);
    server.ping();
    assert!(words(&kit::output(&server)).ends_with("GOAWAY 0 NO_ERROR"));
}

#[test]
fn a_second_goaway_never_names_a_later_stream() {
    // 6.8: the last stream must not grow, or what was not served is not tried again elsewhere.
    let server = server();
    let farewell = [
        Do::Farewell,
        input(&[hello(), frame(PING, ES, 0, b"farewell"), asks(1)]),
    ];
    let (out, requests) = serve(&server, &farewell, 9999);
    assert_eq!(
        (words(&out).split(", ").last(), requests.as_str()),
        (Some("GOAWAY 0 NO_ERROR"), "")
    );
    server.end(Code::INTERNAL_ERROR);
    assert_eq!(words(&kit::output(&server)), "GOAWAY 0 INTERNAL_ERROR");
}

#[test]
fn the_form_of_frames_is_checked_in_every_piece() {
    // Several frames, of which the last one has to be held at every place.
    let octets = [
        hello(),
        posts(1),
        data(1, 0, b"abc"),
        frame(HEADERS, EH | ES, 1, b""),
        asks(3),
    ]
    .concat();
    let whole = serve(&server(), &[Do::In(octets.clone())], octets.len());
    assert_eq!(whole.1, "POST /; GET /");
    for at in 0..octets.len() {
        let (first, second) = octets.split_at(at);
        let steps = [Do::In(first.to_vec()), Do::In(second.to_vec())];
        assert_eq!(serve(&server(), &steps, octets.len()), whole, "cut at {at}");
    }
}
