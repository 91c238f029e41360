//! A connection, for whoever moves its octets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use crate::block::Head;
use crate::code::{Code, Ended};
use crate::state::send::Writer;
use crate::state::{Role, State};
use crate::stream::Stream;

/// What a connection is told at its beginning (RFC 9113, 6.5.2).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams of a client that may be open at once; twice as many may be held, with those that have ended. For a client, how many requests it begins before the server has said
    /// how many it takes.
    pub max_streams: u32,
    /// Octets of content that may come on one stream before somebody takes them. At most 2^31 - 1.
    pub stream_window: u32,
    /// The same for all streams together. At least 65,535, at most 2^31 - 1.
    pub connection_window: u32,
    /// Octets of a header section, with 32 more for each field. What is larger is not kept: a request is marked as
    /// [`Head::is_too_large`], a response is not valid.
    pub max_header_list: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 100,
            stream_window: 65_535,
            connection_window: 65_535,
            max_header_list: 64 * 1024,
        }
    }
}

/// What all parts of a connection share. The lock is never waited for where the connection and its streams live on one
/// thread.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side of a connection.
///
/// Dropping the last of its clones leaves the streams behind, which wait for nothing then: [`Connection::lost`] tells them.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Shared,
}

impl Connection {
    fn new(role: Role, settings: &Settings) -> Self {
        Self {
            shared: Shared(Arc::new(Mutex::new(State::new(role, settings)))),
        }
    }

    /// The side that begins, with its preface as first output.
    pub fn client(settings: &Settings) -> Self {
        Self::new(Role::Client, settings)
    }

    /// The side that is asked. The preface of the client is the first that it takes.
    pub fn server(settings: &Settings) -> Self {
        Self::new(Role::Server, settings)
    }

    /// Takes what has come. What is not valid ends the connection ([`Connection::over`]).
    pub fn receive(&self, octets: &[u8]) {
        self.shared.lock().receive(octets);
    }

    /// Has the peer said anything that could be answered?
    pub fn is_introduced(&self) -> bool {
        self.shared.lock().is_introduced()
    }

    /// Should more be taken from the peer? Not as long as it leaves too much lying.
    pub fn wants_input(&self) -> bool {
        self.shared.lock().wants_input()
    }

    /// Exchanges `into`, which is empty, for all output that there is. Says whether there was any.
    pub fn take_output(&self, into: &mut Vec<u8>) -> bool {
        self.shared.lock().take_output(into)
    }

    /// Wakes this task when there is output, once; at once if there is some already. Needed where streams are polled by other tasks.
    pub fn wake_for_output(&self, cx: &Context<'_>) {
        self.shared.lock().drive(cx);
    }

    /// The next request of the client.
    pub fn accept(&self) -> Option<(Head, Stream)> {
        let (place, head) = self.shared.lock().next_accepted()?;
        Some((head, Stream::new(self.shared.clone(), place)))
    }

    /// How many requests since this was last asked were malformed, and how many were refused because there were too many
    /// at once.
    pub fn take_counts(&self) -> (u32, u32) {
        let mut state = self.shared.lock();
        let malformed = std::mem::take(&mut state.malformed);
        (malformed, std::mem::take(&mut state.refused))
    }

    /// Begins a request, which `fields` writes; `ends` if it has no content. An error means that the server has not seen
    /// anything of it. `fields` must not use the connection.
    pub fn open(&self, ends: bool, fields: impl FnOnce(&mut Writer<'_>)) -> Result<Stream, Ended> {
        let place = self.shared.lock().open(ends, fields)?;
        Ok(Stream::new(self.shared.clone(), place))
    }

    /// How many requests the server takes at once.
    pub fn peer_streams(&self) -> usize {
        self.shared.lock().peer_streams()
    }

    /// Does the server take no more requests on this connection?
    pub fn is_closing(&self) -> bool {
        self.shared.lock().is_closing()
    }

    /// Is any stream open?
    pub fn has_streams(&self) -> bool {
        self.shared.lock().has_streams()
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&self) {
        self.shared.lock().ping();
    }

    /// Has the last [`Connection::ping`] been answered?
    pub fn is_answered(&self) -> bool {
        self.shared.lock().answered_ping
    }

    /// Takes no new requests; those that have begun, and those that are on their way, are served (RFC 9113, 6.8).
    pub fn say_farewell(&self) {
        self.shared.lock().say_farewell();
    }

    /// Has everything been served that was to be served after a farewell?
    pub fn is_served(&self) -> bool {
        self.shared.lock().is_served()
    }

    /// Ends the connection and all its streams, and tells the peer why.
    pub fn end(&self, code: Code) {
        self.shared.lock().end(code, Ended::Closed);
    }

    /// The transport is gone, and so is every stream.
    pub fn lost(&self) {
        self.shared.lock().cut(Code::NO_ERROR, Ended::Closed);
    }

    /// Why the connection is over, if it is. There may be output left, which tells the peer.
    pub fn over(&self) -> Option<Code> {
        self.shared.lock().over()
    }
}
