//! Windows, and who waits for them (RFC 9113, 5.2 and 6.9).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    clippy::similar_names,
    reason = "helpers of tests may fail"
)]

mod kit;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use http2::{Code, Connection, Ended, Settings, Stream};
use kit::{
    DATA, EH, ES, PADDED, RST_STREAM, WINDOW_UPDATE, asks, counter, data, fields, frame, get,
    headers, hello, output, parse, posts, rst, settings, window, words,
};

/// A server that has heard the preface and these frames, and whose output has been taken.
fn server(settings: &Settings, frames: &[Vec<u8>]) -> Connection {
    let server = Connection::server(settings);
    server.receive(&hello());
    let _ = output(&server);
    server.receive(&frames.concat());
    server
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn send(stream: &mut Stream, length: usize) -> Option<usize> {
    match stream.poll_send(&mut noop(), &vec![7; length], false) {
        Poll::Ready(sent) => Some(sent.unwrap()),
        Poll::Pending => None,
    }
}

/// Octets of content in output, and what windows are given, by streams.
fn sums(octets: &[u8]) -> (usize, HashMap<u32, usize>) {
    let mut sent = 0;
    let mut given = HashMap::new();
    for frame in parse(octets) {
        if frame.kind == DATA {
            sent += frame.payload.len();
        } else if frame.kind == WINDOW_UPDATE {
            let more = usize::try_from(kit::number(&frame.payload)).unwrap();
            assert!(more > 0, "a window that does not grow");
            *given.entry(frame.stream).or_default() += more;
        }
    }
    (sent, given)
}

/// Two streams that have begun to answer.
fn two() -> (Connection, Stream, Stream) {
    let server = server(&Settings::default(), &[asks(1), asks(3)]);
    let (_, mut first) = server.accept().unwrap();
    let (_, mut second) = server.accept().unwrap();
    first.respond(200, false, |_| {}).unwrap();
    second.respond(200, false, |_| {}).unwrap();
    let _ = output(&server);
    (server, first, second)
}

#[test]
fn no_more_is_sent_than_the_windows_allow() {
    let (server, mut first, mut second) = two();
    assert_eq!(send(&mut first, 60_000), Some(60_000));
    assert_eq!(sums(&output(&server)).0, 60_000);
    assert_eq!(
        send(&mut second, 60_000),
        Some(5535),
        "the window of the connection"
    );
    assert_eq!(send(&mut second, 1), None);
    server.receive(&window(0, 100_000));
    let _ = output(&server);
    assert_eq!(
        send(&mut first, 60_000),
        Some(5535),
        "the window of the stream"
    );
    assert_eq!(send(&mut first, 1), None);
    server.receive(&window(1, 7));
    assert_eq!(send(&mut first, 60_000), Some(7));
    assert_eq!(sums(&output(&server)).0, 5542);
    assert_eq!(send(&mut first, 0), Some(0), "nothing needs no window");
    let end = first.poll_send(&mut noop(), b"", true);
    assert!(matches!(end, Poll::Ready(Ok(0))), "nor does the end");
    assert_eq!(words(&output(&server)), "DATA 1 0 ends");
}

#[test]
fn content_that_does_not_fit_does_not_end_the_stream() {
    let (server, mut first, _second) = two();
    let sent = first.poll_send(&mut noop(), &[0; 70_000], true);
    assert!(matches!(sent, Poll::Ready(Ok(65_535))), "{sent:?}");
    let frames = parse(&output(&server));
    assert!(frames.iter().all(|frame| frame.flags & ES == 0));
    server.receive(&[window(0, 9999), window(1, 9999)].concat());
    let sent = first.poll_send(&mut noop(), &[0; 4465], true);
    assert!(matches!(sent, Poll::Ready(Ok(4465))), "{sent:?}");
    assert_eq!(words(&output(&server)), "DATA 1 4465 ends");
}

#[test]
fn a_window_may_become_negative() {
    let (server, mut first, mut second) = two();
    server.receive(&window(0, 1 << 20));
    assert_eq!(send(&mut first, 60_000), Some(60_000));
    // 6.9.2: 5,535 less 55,535 are -50,000.
    server.receive(&settings(&[(4, 10_000)]));
    let _ = output(&server);
    assert_eq!(send(&mut first, 1), None);
    assert_eq!(send(&mut second, 60_000), Some(10_000));
    server.receive(&window(1, 50_000));
    assert_eq!(send(&mut first, 1), None);
    server.receive(&window(1, 1));
    assert_eq!(send(&mut first, 10), Some(1));
    server.receive(&settings(&[(4, 10_005)]));
    assert_eq!(send(&mut first, 10), Some(5));
    server.receive(&[settings(&[(4, 0)]), asks(5)].concat());
    let (_, mut third) = server.accept().unwrap();
    third.respond(200, false, |_| {}).unwrap();
    assert_eq!(
        send(&mut third, 10),
        None,
        "a new stream begins with what was set last"
    );
}

#[test]
fn who_waits_for_a_window_is_woken_by_it() {
    for (why, frames) in [
        ("the window of the stream", vec![window(1, 1)]),
        ("a setting", vec![settings(&[(4, 65_536)])]),
        ("a reset", vec![rst(1, Code::CANCEL)]),
        ("the end of the connection", vec![window(0, 0)]),
    ] {
        let (server, mut first, _second) = two();
        server.receive(&window(0, 1 << 20));
        assert_eq!(send(&mut first, 65_535), Some(65_535));
        let _ = output(&server);
        let (counter, waker) = counter();
        let pending = first.poll_send(&mut Context::from_waker(&waker), b"x", false);
        assert!(pending.is_pending());
        server.receive(&window(0, 9));
        let _ = output(&server);
        server.receive(&frames.concat());
        assert_eq!(counter.count(), 1, "{why}");
    }
    let (server, mut first, mut second) = two();
    assert_eq!(send(&mut first, 65_535), Some(65_535));
    let _ = output(&server);
    let (counter, waker) = counter();
    assert!(
        second
            .poll_send(&mut Context::from_waker(&waker), b"x", false)
            .is_pending()
    );
    server.receive(&window(0, 1));
    assert_eq!(counter.count(), 1, "the window of the connection");
}

#[test]
fn a_stream_that_has_ended_has_no_window_to_overflow() {
    // 6.9.2 is about streams that there are; the peer cannot know that somebody still holds this one.
    let server = server(
        &Settings::default(),
        &[asks(1), window(1, (1 << 31) - 65_536)],
    );
    let (_, mut held) = server.accept().unwrap();
    held.respond(200, true, |_| {}).unwrap();
    server.receive(&settings(&[(4, 100_000)]));
    assert_eq!(server.over(), None);
}

#[test]
fn a_peer_whose_content_is_taken_never_stalls() {
    for (stream_window, connection_window, piece, padding) in [
        (65_535, 65_535, 1000, 0),
        (65_535, 65_535, 16_384, 0),
        (65_535, 65_535, 1, 255),
        (200_000, 70_000, 16_384, 0),
        (70_000, 1_000_000, 5000, 100),
        (1, 65_535, 1, 0),
        (3, 65_535, 3, 0),
    ] {
        let set = Settings {
            stream_window,
            connection_window,
            ..Settings::default()
        };
        let server = Connection::server(&set);
        server.receive(&[hello(), frame(kit::SETTINGS, ES, 0, b""), posts(1)].concat());
        let (_, mut stream) = server.accept().unwrap();
        let given = sums(&output(&server)).1;
        let mut open = [
            usize::try_from(stream_window).unwrap(),
            65_535 + given.get(&0).copied().unwrap_or(0),
        ];
        assert_eq!(open[1], usize::try_from(connection_window).unwrap());
        let mut taken = 0;
        let mut sent = 0;
        for round in 0..3000 {
            let whole = piece + if padding > 0 { padding + 1 } else { 0 };
            assert!(whole <= open[0].min(open[1]), "round {round} with {open:?}");
            let pad = u8::try_from(padding).unwrap();
            let payload = match pad {
                0 => vec![1; piece],
                _ => [&[pad][..], &vec![1; piece], &vec![0; padding]].concat(),
            };
            server.receive(&data(1, if pad > 0 { PADDED } else { 0 }, &payload));
            sent += piece;
            open = [open[0] - whole, open[1] - whole];
            while let Poll::Ready(Some(content)) = stream.poll_content(&mut noop()) {
                taken += content.unwrap().len();
            }
            let given = sums(&output(&server)).1;
            open[0] += given.get(&1).copied().unwrap_or(0);
            open[1] += given.get(&0).copied().unwrap_or(0);
            assert!(open[1] <= usize::try_from(connection_window).unwrap());
            assert!(open[0] <= usize::try_from(stream_window).unwrap());
        }
        assert_eq!(taken, sent);
        assert_eq!(server.over(), None);
    }
}

#[test]
fn what_exceeds_a_window_is_an_error() {
    let set = Settings {
        connection_window: 100_000,
        ..Settings::default()
    };
    let full: Vec<Vec<u8>> = [16_384, 16_384, 16_384, 16_383]
        .map(|length| data(1, 0, &vec![0; length]))
        .to_vec();
    let more = server(&set, &[&[posts(1)][..], &full].concat());
    more.receive(&data(1, 0, b"x"));
    assert_eq!(
        words(&output(&more)),
        "RST 1 FLOW_CONTROL_ERROR",
        "of a stream"
    );
    let more = server(
        &Settings::default(),
        &[&[posts(1), posts(3)][..], &full].concat(),
    );
    more.receive(&data(3, 0, b""));
    assert_eq!(words(&output(&more)), "", "nothing needs no window");
    more.receive(&data(3, PADDED, &[0]));
    assert_eq!(
        words(&output(&more)),
        "GOAWAY 3 FLOW_CONTROL_ERROR",
        "of the connection, by padding"
    );
}

#[test]
fn a_smaller_window_holds_when_the_client_knows_of_it() {
    // 6.9.3: what is sent before the client has acknowledged SETTINGS is within the window that was there before.
    let set = Settings {
        stream_window: 1000,
        ..Settings::default()
    };
    let server = Connection::server(&set);
    server.receive(&[hello(), posts(1), data(1, ES, &[0; 10_000])].concat());
    let (_, mut stream) = server.accept().unwrap();
    assert!(
        !words(&output(&server)).contains("RST"),
        "{:?}",
        stream.ended()
    );
    let content = stream.poll_content(&mut noop());
    assert!(matches!(content, Poll::Ready(Some(Ok(content))) if content.len() == 10_000));
}

#[test]
fn what_nobody_reads_gives_the_connection_its_window_back() {
    type Act = fn(&Connection, Stream);
    let whole = 4 * 16_000;
    for (why, before, act) in [
        (
            "dropped with content",
            vec![],
            (|_, stream| drop(stream)) as Act,
        ),
        (
            "reset by the client, then dropped",
            vec![rst(1, Code::CANCEL)],
            |_, stream| drop(stream),
        ),
        (
            "ended, then dropped",
            vec![data(1, ES, b"")],
            |_, stream| drop(stream),
        ),
        ("content that is wrong", vec![], |server, stream| {
            server.receive(&headers(1, EH, b""));
            drop(stream);
        }),
    ] {
        let frames: Vec<Vec<u8>> = (0..4).map(|_| data(1, 0, &[0; 16_000])).collect();
        let server = server(
            &Settings::default(),
            &[&[posts(1)][..], &frames, &before].concat(),
        );
        let (_, stream) = server.accept().unwrap();
        act(&server, stream);
        let given = sums(&output(&server)).1;
        assert_eq!(given.get(&0), Some(&whole), "{why}");
    }
    // What comes on streams that are gone.
    let server = server(&Settings::default(), &[posts(1)]);
    drop(server.accept());
    for _ in 0..1000 {
        server.receive(&data(1, 0, &[0; 16_000]));
        assert_eq!(server.over(), None);
    }
    let given = sums(&output(&server)).1;
    assert!(given[&0] > 1000 * 16_000 - 65_535);
}

#[test]
fn output_is_bounded_and_who_waits_for_room_is_woken() {
    let (server, mut first, mut second) = two();
    server.receive(&[window(0, 1 << 30), window(1, 1 << 30), window(3, 1 << 30)].concat());
    let mut sent = 0;
    while let Some(more) = send(&mut first, 10_000) {
        sent += more;
        assert!(sent <= 80_000, "output without end");
    }
    let (counters, wakers): (Vec<_>, Vec<_>) = (0..2).map(|_| counter()).unzip();
    assert!(
        second
            .poll_room(&mut Context::from_waker(&wakers[0]))
            .is_pending()
    );
    assert!(
        first
            .poll_send(&mut Context::from_waker(&wakers[1]), b"x", false)
            .is_pending()
    );
    assert_eq!([counters[0].count(), counters[1].count()], [0, 0]);
    assert_eq!(sums(&output(&server)).0, sent);
    assert_eq!([counters[0].count(), counters[1].count()], [1, 1]);
    assert!(second.poll_room(&mut noop()).is_ready());
}

#[test]
fn who_waits_for_room_hears_that_the_stream_has_ended() {
    let (server, mut first, mut second) = two();
    server.receive(&[window(0, 1 << 30), window(1, 1 << 30)].concat());
    while send(&mut first, 10_000).is_some() {}
    let (counter, waker) = counter();
    let cx = &mut Context::from_waker(&waker);
    assert!(second.poll_room(cx).is_pending());
    server.receive(&rst(3, Code::CANCEL));
    assert_eq!(counter.count(), 1);
    assert!(second.poll_room(cx).is_ready());
}

#[test]
fn content_alone_never_keeps_a_side_from_reading() {
    // 5.2.2: frames have to be read promptly. Two sides that both stop because of the content they send to each other
    // never go on.
    let (server, mut first, _second) = two();
    server.receive(&[window(0, 1 << 30), window(1, 1 << 30)].concat());
    while send(&mut first, 256 * 1024).is_some() {}
    assert!(server.wants_input());
}

#[test]
fn a_client_that_takes_nothing_is_not_listened_to() {
    let server = server(&Settings::default(), &[]);
    let mut rounds = 0;
    while server.wants_input() {
        server.receive(&frame(kit::PING, 0, 0, &[0; 8]).repeat(100));
        rounds += 1;
        assert!(rounds < 1000, "answers without end");
    }
    assert!(output(&server).len() < 300_000);
    assert!(server.wants_input());
}

#[test]
fn streams_that_are_reset_still_count_while_somebody_works_on_them() {
    // A client that resets what it has just asked for must not make more work than was announced.
    let set = Settings {
        max_streams: 10,
        ..Settings::default()
    };
    let server = server(&set, &[]);
    let mut held = Vec::new();
    for number in 0..1000 {
        let stream = 2 * number + 1;
        server.receive(&[asks(stream), rst(stream, Code::CANCEL)].concat());
        if number % 2 == 0 {
            held.extend(server.accept());
        }
        if server.over().is_some() || !server.wants_input() {
            break;
        }
    }
    held.extend(std::iter::from_fn(|| server.accept()));
    assert!(held.len() <= 100, "{} at once", held.len());
}

#[test]
fn informational_responses_are_bounded() {
    // Header sections are not subject to flow control: a backend must not fill the memory with them.
    let client = Connection::client(&Settings::default());
    let mut stream = client.open(true, |_| {}).unwrap();
    client.receive(&settings(&[]));
    let interim = headers(
        1,
        EH,
        &fields(&[(":status", "103"), ("link", &"x".repeat(1000))]),
    );
    for _ in 0..10_000 {
        client.receive(&interim);
        if client.over().is_some() || stream.ended().is_some() {
            break;
        }
    }
    let mut held = 0;
    while let Poll::Ready(Ok(_)) = stream.poll_head(&mut noop()) {
        held += 1;
    }
    assert!(held <= 100, "{held} header sections of one response");
}

/// A task of a runtime that polls in the order in which tasks were woken.
struct Task {
    number: usize,
    queue: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut queue = self.queue.lock().unwrap();
        if !queue.contains(&self.number) {
            queue.push_back(self.number);
        }
    }
}

#[test]
fn streams_share_a_small_window() {
    let all: Vec<Vec<u8>> = (0..50).map(|number| asks(2 * number + 1)).collect();
    let server = server(&Settings::default(), &all);
    let queue = Arc::new(Mutex::new((0..50).collect::<VecDeque<usize>>()));
    let mut tasks: Vec<(Stream, Waker, usize)> = std::iter::from_fn(|| server.accept())
        .enumerate()
        .map(|(number, (_, mut stream))| {
            stream.respond(200, false, |_| {}).unwrap();
            let queue = queue.clone();
            (stream, Waker::from(Arc::new(Task { number, queue })), 0)
        })
        .collect();
    for _ in 0..1000 {
        let next = || queue.lock().unwrap().pop_front();
        while let Some(number) = next() {
            let (stream, waker, all) = &mut tasks[number];
            let mut cx = Context::from_waker(waker);
            while let Poll::Ready(sent) = stream.poll_send(&mut cx, &[1; 8192], false) {
                *all += sent.unwrap();
            }
        }
        // A client that takes what comes gives both windows back.
        for frame in parse(&output(&server))
            .iter()
            .filter(|frame| frame.kind == DATA)
        {
            let length = u32::try_from(frame.payload.len()).unwrap();
            server.receive(&[window(frame.stream, length), window(0, length)].concat());
        }
        assert_eq!(server.over(), None);
    }
    let least = tasks.iter().map(|(_, _, sent)| *sent).min().unwrap();
    let most = tasks.iter().map(|(_, _, sent)| *sent).max().unwrap();
    assert!(least * 10 > most, "between {least} and {most} octets each");
}

#[test]
fn whoever_moves_the_octets_is_woken_for_each_kind_of_output() {
    type Act = fn(&Connection, &mut Stream);
    for (why, act) in [
        (
            "a response",
            (|_, stream| stream.respond(200, false, |_| {}).unwrap()) as Act,
        ),
        ("a reset", |_, stream| stream.reset(Code::CANCEL)),
        ("a PING", |server, _| server.ping()),
        ("a farewell", |server, _| server.say_farewell()),
        ("the end", |server, _| server.end(Code::NO_ERROR)),
        ("a window", |_, stream| {
            drop(stream.poll_content(&mut noop()));
        }),
    ] {
        let server = server(
            &Settings::default(),
            &[posts(1), data(1, 0, &[0; 16_384]).repeat(3)],
        );
        let (_, mut stream) = server.accept().unwrap();
        assert_eq!(words(&output(&server)), "");
        let (counter, waker) = counter();
        server.wake_for_output(&Context::from_waker(&waker));
        act(&server, &mut stream);
        assert_ne!(words(&output(&server)), "", "{why}");
        assert_eq!(counter.count(), 1, "{why}");
    }
}

#[test]
fn whoever_waits_for_a_stream_is_woken_when_it_ends() {
    for (why, frames, want) in [
        (
            "reset",
            vec![rst(1, Code::CANCEL)],
            Ended::Reset(Code::CANCEL),
        ),
        ("malformed", vec![headers(1, EH, b"")], Ended::Invalid),
        (
            "the connection",
            vec![frame(RST_STREAM, 0, 1, b"")],
            Ended::Invalid,
        ),
    ] {
        let server = server(&Settings::default(), &[headers(1, EH, &get(&[]))]);
        let (_, mut stream) = server.accept().unwrap();
        let (counter, waker) = counter();
        assert!(
            stream
                .poll_ended(&mut Context::from_waker(&waker))
                .is_pending()
        );
        server.receive(&frames.concat());
        assert_eq!(counter.count(), 1, "{why}");
        assert_eq!(stream.poll_ended(&mut noop()), Poll::Ready(want), "{why}");
    }
}
