//! Two of our connections that do what comes to mind, and one that hears what comes to mind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::similar_names,
    clippy::struct_excessive_bools,
    reason = "helpers of tests may fail"
)]

mod kit;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http2::{Block, Code, Connection, Ended, Settings, Stream};
use kit::{Counter, counter, frame, output};
use proptest::prelude::*;

/// One side of a stream.
struct End {
    number: usize,
    stream: Option<Stream>,
    counter: Arc<Counter>,
    waker: Waker,
    /// What was pending, and how often this had been woken then.
    pending: [Option<usize>; 3],
    sent: usize,
    got: usize,
    /// This side has sent all; it has heard that the other side has; it was given up here.
    sent_all: bool,
    got_all: bool,
    given_up: bool,
    responded: bool,
    ended: Option<Ended>,
}

const SEND: usize = 0;
const CONTENT: usize = 1;
const HEAD: usize = 2;

/// The octet at this place of the content of a stream.
fn octet(number: usize, at: usize) -> u8 {
    (number * 31 + at * 7 + at / 256).to_le_bytes()[0]
}

impl End {
    fn new(number: usize, stream: Stream) -> Self {
        let (counter, waker) = counter();
        Self {
            number,
            stream: Some(stream),
            counter,
            waker,
            pending: [None; 3],
            sent: 0,
            got: 0,
            sent_all: false,
            got_all: false,
            given_up: false,
            responded: false,
            ended: None,
        }
    }

    fn note(&mut self, what: usize, pending: bool) {
        self.pending[what] = pending.then(|| self.counter.count());
    }

    fn end(&mut self, why: Ended) {
        self.ended = Some(why);
        // What the other side has done wrong: nothing.
        assert_ne!(why, Ended::Invalid);
    }

    fn send(&mut self, length: usize, last: bool) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.sent_all) else {
            return;
        };
        let content: Vec<u8> = (self.sent..self.sent + length)
            .map(|at| octet(self.number, at))
            .collect();
        let polled = stream.poll_send(&mut Context::from_waker(&self.waker), &content, last);
        self.note(SEND, polled.is_pending());
        match polled {
            Poll::Ready(Ok(sent)) => {
                assert!(sent > 0 || length == 0);
                self.sent += sent;
                self.sent_all = last && sent == length;
            }
            Poll::Ready(Err(why)) => self.end(why),
            Poll::Pending => {}
        }
    }

    fn trailers(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.sent_all) else {
            return;
        };
        let mut block = Block::default();
        block.add(b"x-sent", self.sent.to_string().as_bytes(), false);
        match stream.send_trailers(&block) {
            Ok(()) => self.sent_all = true,
            Err(why) => self.end(why),
        }
    }

    fn take(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let polled = stream.poll_content(&mut Context::from_waker(&self.waker));
        self.note(CONTENT, polled.is_pending());
        match polled {
            Poll::Ready(Some(Ok(content))) => {
                assert!(!content.is_empty());
                for octet in &content {
                    assert_eq!(*octet, self::octet(self.number, self.got));
                    self.got += 1;
                }
            }
            Poll::Ready(Some(Err(why))) => self.end(why),
            Poll::Ready(None) => {
                if let Some(trailers) = self.stream.as_mut().and_then(Stream::take_trailers) {
                    let (_, value, _) = trailers.iter().next().unwrap();
                    assert_eq!(value, self.got.to_string().as_bytes());
                }
                self.got_all = true;
            }
            Poll::Pending => {}
        }
    }

    fn head(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let polled = stream.poll_head(&mut Context::from_waker(&self.waker));
        self.note(HEAD, polled.is_pending());
    }

    /// What was pending and has not been woken since is pending still.
    fn check_wakes(&mut self) {
        let count = self.counter.count();
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut cx = Context::from_waker(&self.waker);
        for what in 0..3 {
            if self.pending[what] != Some(count) || what == SEND && self.sent_all {
                continue;
            }
            let pending = match what {
                SEND => stream.poll_send(&mut cx, b"x", false).is_pending(),
                CONTENT => stream.poll_content(&mut cx).is_pending(),
                _ => stream.poll_head(&mut cx).is_pending(),
            };
            assert!(pending, "not woken: {what} of {}", self.number);
        }
    }
}

/// Both sides, and the octets between them.
struct Pair {
    sides: [Connection; 2],
    way: [Vec<u8>; 2],
    ends: [Vec<End>; 2],
}

impl Pair {
    fn new(client: &Settings, server: &Settings) -> Self {
        let sides = [Connection::client(client), Connection::server(server)];
        let mut pair = Self {
            sides,
            way: [Vec::new(), Vec::new()],
            ends: [Vec::new(), Vec::new()],
        };
        pair.exchange();
        pair
    }

    /// Moves so many octets from this side to the other.
    fn carry(&mut self, from: usize, most: usize) -> bool {
        let out = output(&self.sides[from]);
        self.way[from].extend(out);
        let length = most.min(self.way[from].len());
        let rest = self.way[from].split_off(length);
        let part = std::mem::replace(&mut self.way[from], rest);
        self.sides[1 - from].receive(&part);
        while let Some((head, stream)) = self.sides[1].accept() {
            let number = std::str::from_utf8(&head.path()[1..])
                .unwrap()
                .parse()
                .unwrap();
            self.ends[1].push(End::new(number, stream));
        }
        for side in &self.sides {
            assert_eq!(side.over(), None);
        }
        !part.is_empty()
    }

    fn exchange(&mut self) {
        while self.carry(0, usize::MAX) | self.carry(1, usize::MAX) {}
    }

    fn open(&mut self, ends: bool) {
        let number = self.ends[0].len();
        let opened = self.sides[0].open(ends, |writer| {
            let path = format!("/{number}");
            for (name, value) in [(":method", "POST"), (":scheme", "https"), (":path", &path)] {
                writer.add(name.as_bytes(), value.as_bytes(), false);
            }
        });
        match opened {
            Ok(stream) => {
                let mut end = End::new(number, stream);
                end.sent_all = ends;
                self.ends[0].push(end);
            }
            Err(why) => assert_eq!(why, Ended::NotSeen),
        }
    }

    fn act(&mut self, (kind, which, size): (u8, u8, u16)) {
        let side = usize::from(kind % 2);
        let size = usize::from(size);
        match kind / 2 {
            0 | 1 => return self.open(size % 4 == 0),
            2..=4 => {
                self.carry(side, size);
                return;
            }
            5 => return self.sides[side].ping(),
            6 if which == 0 && size % 8 == 0 => return self.sides[1].say_farewell(),
            _ => {}
        }
        let count = self.ends[side].len();
        let Some(end) = self.ends[side].get_mut(usize::from(which) % count.max(1)) else {
            return;
        };
        match kind / 2 {
            7 | 8 if side == 1 && !end.responded => {
                end.responded = true;
                let stream = end.stream.as_mut();
                if let Some(Err(why)) = stream.map(|stream| stream.respond(200, false, |_| {})) {
                    end.end(why);
                }
            }
            7 | 8 => end.head(),
            9..=12 if side == 0 || end.responded => end.send(size, size % 5 == 0),
            13 if side == 0 || end.responded => end.trailers(),
            14..=16 => end.take(),
            17 if size % 4 == 0 => {
                end.given_up = true;
                if let Some(stream) = &mut end.stream {
                    stream.reset(Code::CANCEL);
                }
            }
            18 if size % 4 == 0 => {
                end.given_up = true;
                end.stream = None;
            }
            _ => {}
        }
    }

    /// Brings everything to its end.
    fn finish(&mut self) {
        self.exchange();
        for end in self.ends.iter_mut().flatten() {
            end.check_wakes();
        }
        for end in &mut self.ends[1] {
            if let Some(stream) = end.stream.as_mut().filter(|_| !end.responded) {
                let _ = stream.respond(200, false, |_| {});
            }
        }
        let mut rounds = 0;
        loop {
            for end in self.ends.iter_mut().flatten() {
                end.take();
                if end.ended.is_none() {
                    end.send(0, true);
                }
            }
            if !self.carry(0, usize::MAX) & !self.carry(1, usize::MAX) {
                rounds += 1;
                if rounds == 3 {
                    break;
                }
            }
        }
        let [clients, servers] = &self.ends;
        for server in servers {
            let client = &clients[server.number];
            let gone = [client, server]
                .iter()
                .any(|end| end.given_up || end.ended.is_some());
            if !gone {
                assert_eq!(
                    (client.sent, server.sent),
                    (server.got, client.got),
                    "{}",
                    server.number
                );
                assert!(client.got_all && server.got_all);
            }
        }
        for (client, number) in clients.iter().zip(0..) {
            let seen = servers.iter().any(|server| server.number == number);
            assert!(
                seen || client.ended.is_some() || client.given_up,
                "{number} is nowhere"
            );
        }
        assert!(!self.sides[0].has_streams() && !self.sides[1].has_streams());
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let windows = prop_oneof![1_u32..100, 1000_u32..100_000, Just(1 << 20)];
    (1_u32..20, windows, 65_535_u32..200_000).prop_map(
        |(max_streams, stream_window, connection_window)| Settings {
            max_streams,
            stream_window,
            connection_window,
            ..Settings::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn two_correct_sides_understand_each_other(
        client in settings(),
        server in settings(),
        acts in prop::collection::vec((0_u8..38, 0_u8..8, prop_oneof![0_u16..40, 0_u16..40_000]), 1..250),
    ) {
        let mut pair = Pair::new(&client, &server);
        for act in acts {
            pair.act(act);
        }
        pair.finish();
    }

    #[test]
    fn nothing_that_is_heard_does_harm(
        is_server: bool,
        frames in prop::collection::vec(
            (0_u8..12, any::<u8>(), prop_oneof![0_u32..8, any::<u32>()], prop::collection::vec(any::<u8>(), 0..60), 0_u8..6),
            0..60,
        ),
        piece in 1_usize..200,
    ) {
        let mut octets = Vec::new();
        for (kind, flags, stream, payload, form) in frames {
            // Some are as they have to be, or nearly so.
            octets.extend(match form {
                0 => kit::asks(stream),
                1 => kit::posts(stream),
                2 => kit::headers(stream, 5, &kit::fields(&[(":status", "200")])),
                3 => kit::window(stream, u32::from(flags)),
                4 => payload,
                _ => frame(kind, flags, stream, &payload),
            });
        }
        let (connection, mut streams) = if is_server {
            (Connection::server(&Settings::default()), Vec::new())
        } else {
            let client = Connection::client(&Settings::default());
            let streams = (0..3).map(|_| client.open(false, |_| {}).unwrap()).collect();
            (client, streams)
        };
        let _ = output(&connection);
        connection.receive(if is_server { kit::PREFACE } else { b"" });
        connection.receive(&kit::settings(&[]));
        let mut cx = Context::from_waker(Waker::noop());
        for piece in octets.chunks(piece) {
            connection.receive(piece);
            streams.extend(std::iter::from_fn(|| connection.accept()).map(|(_, stream)| stream));
            for stream in &mut streams {
                let _ = stream.poll_head(&mut cx);
                let _ = stream.poll_content(&mut cx);
                let _ = stream.take_trailers();
            }
        }
        streams.clear();
        let out = output(&connection);
        // At most a reset of 13 octets for a frame of 9, and one more for each stream that is dropped.
        prop_assert!(out.len() <= 100 + 3 * octets.len(), "{} octets for {}", out.len(), octets.len());
        kit::parse(&out);
        prop_assert!(!connection.has_streams());
    }

    #[test]
    fn octets_without_sense_do_no_harm(octets in prop::collection::vec(any::<u8>(), 0..2000)) {
        let server = Connection::server(&Settings::default());
        server.receive(&[kit::PREFACE, &kit::settings(&[]), &octets].concat());
        let client = Connection::client(&Settings::default());
        client.receive(&[&kit::settings(&[])[..], &octets].concat());
        let other = Connection::server(&Settings::default());
        other.receive(&octets);
        for connection in [server, client, other] {
            prop_assert!(output(&connection).len() <= 200 + 3 * octets.len());
        }
    }
}
