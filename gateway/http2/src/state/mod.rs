//! What is known of a connection and of its streams.

mod receive;
pub(crate) mod send;
mod slot;
mod spare;
mod windows;

use std::collections::VecDeque;
use std::task::{Context, Waker};

use self::slot::Slot;
use crate::block::Head;
use crate::code::{Code, Ended};
use crate::connection::Settings;
use crate::frame::{
    ENABLE_PUSH, HEAD, INITIAL_WINDOW_SIZE, LAST_STREAM, MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE, PING, PREFACE, RST_STREAM, USUAL_WINDOW, WINDOW_UPDATE, write_goaway,
    write_head, write_number, write_settings,
};
use crate::hpack::{Decoder, Encoder};
use ahash::AHashMap;

/// Octets of output beyond which no content is added.
const MUCH_OUTPUT: usize = 64 * 1024;
/// Less room than this is none: a frame is not worth its head.
const LEAST_ROOM: usize = 1024;
/// Header sections of one response that may lie here.
const MOST_HEADS: usize = 16;
/// The dynamic table that a peer may use: the default, so that nothing need be announced.
const TABLE: usize = 4096;
/// How many streams are remembered that were reset here: the peer may not know yet, and go on.
const MOST_REMEMBERED: usize = 256;
/// What the PINGs of a farewell, and those that ask for a sign of life, carry.
const FAREWELL: [u8; 8] = *b"farewell";
const ALIVE: [u8; 8] = *b"alive?\0\0";

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// How far a farewell has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Farewell {
    /// There is none.
    None,
    /// The client knows that one is coming, and its answer to a PING will show that it does.
    Announced,
    /// It knows which request is the last one.
    Said { last: u32 },
}

/// A connection and its streams. One that waits holds little memory.
#[derive(Debug)]
pub(crate) struct State {
    role: Role,
    settings: Settings,
    // Of what comes.
    /// Octets of the preface that are still to come.
    preface: &'static [u8],
    /// The beginning of a frame.
    held: Vec<u8>,
    /// SETTINGS have come, which is what every peer begins with.
    introduced: bool,
    decoder: Decoder,
    /// A header section whose end has not come.
    partial: Option<Partial>,
    /// The highest number that the peer has used.
    last_peer: u32,
    /// How many streams of the peer are open.
    open: usize,
    accepted: VecDeque<(usize, Head)>,
    // Of what goes.
    pub(crate) out: Vec<u8>,
    /// Octets of it, since some were last taken, that answer what the peer has sent.
    replies: usize,
    encoder: Encoder,
    next: u32,
    // Windows: what the peer may send, what it may send again once it has been told, and what may be sent to it.
    recv_window: i64,
    released: u32,
    send_window: i64,
    initial_send_window: i64,
    /// The peer knows our settings.
    acknowledged: bool,
    /// How many requests the peer takes at once.
    peer_streams: u32,
    // Streams.
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Those that are not closed, by their numbers.
    numbers: AHashMap<u32, usize>,
    reset_here: VecDeque<u32>,
    /// Who waits for the window of the connection, or for output to leave, in the order in which it is their turn.
    starving: VecDeque<usize>,
    // The end.
    farewell: Farewell,
    /// The peer looks at no request beyond this one.
    peer_last: Option<u32>,
    over: Option<Code>,
    /// What the peer did, for the caller to count.
    pub(crate) malformed: u32,
    pub(crate) refused: u32,
    pub(crate) answered_ping: bool,
    /// The task that moves octets, where it is another one than those of the streams.
    driver: Option<Waker>,
}

/// A header section that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Partial {
    stream: u32,
    ends: bool,
    depends: Option<u32>,
    block: Vec<u8>,
}

impl State {
    pub(crate) fn new(role: Role, settings: &Settings) -> Self {
        let mut out = Vec::new();
        let window = (INITIAL_WINDOW_SIZE, settings.stream_window);
        let headers = (MAX_HEADER_LIST_SIZE, settings.max_header_list);
        let preface = match role {
            Role::Client => {
                out.extend_from_slice(PREFACE);
                write_settings(&mut out, &[(ENABLE_PUSH, 0), window, headers]);
                &[]
            }
            Role::Server => {
                let streams = (MAX_CONCURRENT_STREAMS, settings.max_streams);
                write_settings(&mut out, &[streams, window, headers]);
                PREFACE
            }
        };
        if settings.connection_window > USUAL_WINDOW {
            let more = settings.connection_window - USUAL_WINDOW;
            write_number(&mut out, WINDOW_UPDATE, 0, more);
        }
        Self {
            role,
            settings: settings.clone(),
            preface,
            held: Vec::new(),
            introduced: false,
            decoder: Decoder::new(TABLE),
            partial: None,
            last_peer: 0,
            open: 0,
            accepted: VecDeque::new(),
            out,
            replies: 0,
            encoder: Encoder::new(),
            next: 1,
            recv_window: i64::from(settings.connection_window.max(USUAL_WINDOW)),
            released: 0,
            send_window: i64::from(USUAL_WINDOW),
            initial_send_window: i64::from(USUAL_WINDOW),
            acknowledged: false,
            peer_streams: settings.max_streams,
            slots: Vec::new(),
            free: Vec::new(),
            numbers: AHashMap::new(),
            reset_here: VecDeque::new(),
            starving: VecDeque::new(),
            farewell: Farewell::None,
            peer_last: None,
            over: None,
            malformed: 0,
            refused: 0,
            answered_ping: false,
            driver: None,
        }
    }

    pub(crate) fn slot(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn is_introduced(&self) -> bool {
        self.introduced
    }

    /// Why the connection is over, if it is.
    pub(crate) fn over(&self) -> Option<Code> {
        self.over
    }

    /// Has everything been served that was to be served after a farewell?
    pub(crate) fn is_served(&self) -> bool {
        let served = self.numbers.is_empty() && self.accepted.is_empty();
        served && matches!(self.farewell, Farewell::Said { .. })
    }

    pub(crate) fn has_streams(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// How many streams the peer may open.
    fn most_streams(&self) -> usize {
        usize::try_from(self.settings.max_streams).unwrap_or(usize::MAX)
    }

    /// How many requests the peer takes at once.
    pub(crate) fn peer_streams(&self) -> usize {
        usize::try_from(self.peer_streams).unwrap_or(usize::MAX)
    }

    /// Does the peer take no more requests on this connection?
    pub(crate) fn is_closing(&self) -> bool {
        self.over.is_some() || self.peer_last.is_some() || self.next > LAST_STREAM
    }

    /// Lets the task know of output that somebody else has made.
    pub(crate) fn drive(&mut self, cx: &Context<'_>) {
        if !self.out.is_empty() {
            cx.waker().wake_by_ref();
            return;
        }
        match &mut self.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// There is output.
    pub(crate) fn produced(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    pub(crate) fn next_accepted(&mut self) -> Option<(usize, Head)> {
        self.accepted.pop_front()
    }

    /// Should more be taken from the peer? A client that does not read what it asks for is not to ask for more. A server has
    /// to be read in any case, or both wait for each other; only what answers it is bounded.
    pub(crate) fn wants_input(&self) -> bool {
        match self.role {
            Role::Server => self.out.len() < 2 * MUCH_OUTPUT,
            Role::Client => self.replies < MUCH_OUTPUT,
        }
    }

    /// Exchanges `into` for all output that there is. Says whether there was any.
    pub(crate) fn take_output(&mut self, into: &mut Vec<u8>) -> bool {
        // A connection that waits holds no memory for output.
        spare::put(std::mem::replace(into, std::mem::take(&mut self.out)));
        if into.is_empty() {
            return false;
        }
        self.replies = 0;
        self.feed();
        true
    }

    /// Where to write what is likely to be more than a frame of a few octets.
    fn output(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = spare::take();
        }
        &mut self.out
    }

    /// How many streams somebody holds, or will.
    fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A new stream.
    fn insert(&mut self, number: u32, receiving: bool, sending: bool) -> usize {
        let slot = Slot {
            number,
            receiving,
            sending,
            ended: None,
            heads: VecDeque::new(),
            has_head: false,
            bodyless: false,
            content: Vec::new(),
            trailers: None,
            left: None,
            recv_window: self.first_recv_window(),
            released: 0,
            send_window: self.initial_send_window,
            waker: None,
            starving: false,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(free) = self.slots.get_mut(place) {
            *free = Some(slot);
        }
        self.numbers.insert(number, place);
        place
    }

    /// Is this stream's number one that the peer gives?
    fn is_peers(&self, number: u32) -> bool {
        (number % 2 == 1) == (self.role == Role::Server)
    }

    /// The stream has ended on both sides.
    fn close(&mut self, number: u32) {
        if self.numbers.remove(&number).is_some() && self.is_peers(number) {
            self.open -= 1;
        }
    }

    fn close_if_done(&mut self, place: usize) {
        if let Some(slot) = self.slot(place)
            && !slot.receiving
            && !slot.sending
        {
            let number = slot.number;
            self.close(number);
        }
    }

    /// Resets a stream; whoever has it finds out.
    pub(crate) fn reset(&mut self, place: usize, code: Code, why: Ended) {
        if let Some(slot) = self.slot(place).filter(|slot| slot.is_open()) {
            slot.ended = Some(why);
            slot.sending = false;
            slot.wake();
            let number = slot.number;
            self.write_reset(number, code);
            self.close(number);
        }
    }

    fn write_reset(&mut self, number: u32, code: Code) {
        write_number(&mut self.out, RST_STREAM, number, code.0);
        self.replies += HEAD + 4;
        if self.reset_here.len() == MOST_REMEMBERED {
            self.reset_here.pop_front();
        }
        self.reset_here.push_back(number);
        self.produced();
    }

    /// Nobody holds the stream any more.
    pub(crate) fn release(&mut self, place: usize) {
        let code = match (self.role, self.slot(place)) {
            // The response is complete: the rest of the request is not wanted, which is no failure (RFC 9113, 8.1).
            (Role::Server, Some(slot)) if !slot.sending => Code::NO_ERROR,
            _ => Code::CANCEL,
        };
        self.reset(place, code, Ended::Closed);
        self.fed(place);
        let Some(slot) = self.slots.get_mut(place).and_then(Option::take) else {
            return;
        };
        self.free.push(place);
        self.give_back(slot.content.len());
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&mut self) {
        if self.over.is_some() {
            return;
        }
        self.answered_ping = false;
        write_head(&mut self.out, ALIVE.len(), PING, 0, 0);
        self.out.extend_from_slice(&ALIVE);
        self.produced();
    }

    /// Takes no new requests, once the client knows (RFC 9113, 6.8).
    pub(crate) fn say_farewell(&mut self) {
        if self.farewell != Farewell::None || self.over.is_some() {
            return;
        }
        self.farewell = Farewell::Announced;
        write_goaway(&mut self.out, LAST_STREAM, Code::NO_ERROR);
        write_head(&mut self.out, FAREWELL.len(), PING, 0, 0);
        self.out.extend_from_slice(&FAREWELL);
        self.produced();
    }

    /// A PING has been answered.
    fn ponged(&mut self, payload: &[u8]) {
        if payload == ALIVE {
            self.answered_ping = true;
        } else if payload == FAREWELL && self.farewell == Farewell::Announced {
            let last = self.last_peer;
            self.farewell = Farewell::Said { last };
            write_goaway(&mut self.out, last, Code::NO_ERROR);
        }
    }

    /// Ends the connection, with a word to the peer about it.
    pub(crate) fn end(&mut self, code: Code, why: Ended) {
        if self.over.is_none() {
            let last = match (self.role, self.farewell) {
                // Never a later one than was said before (RFC 9113, 6.8).
                (_, Farewell::Said { last }) => last,
                (Role::Server, _) => self.last_peer,
                (Role::Client, _) => 0,
            };
            write_goaway(&mut self.out, last, code);
            self.cut(code, why);
        }
    }

    /// The connection is over; all streams end with it.
    pub(crate) fn cut(&mut self, code: Code, why: Ended) {
        self.over.get_or_insert(code);
        self.held = Vec::new();
        self.partial = None;
        for slot in self.slots.iter_mut().flatten() {
            if slot.receiving || slot.sending {
                slot.ended.get_or_insert(why);
            }
            slot.wake();
        }
        self.numbers.clear();
        self.open = 0;
        self.produced();
    }
}
