//! HTTP/2 (RFC 9113) for a proxy: frames, header compression, flow control and the states of streams. No sockets, no
//! runtime, no clock: octets go in, octets come out, and whoever waits for a stream is woken.
//!
//! A header section is never put into a map. It becomes text, as it would stand in HTTP/1.1, and the places of the fields
//! in it ([`Block`]); what is sent is written field by field ([`Writer`]). So a proxy passes most fields on without
//! looking at them.
//!
//! [`Connection`] belongs to whoever moves the octets: it takes them with [`Connection::receive`] and gives them with
//! [`Connection::take_output`]. [`Stream`] belongs to whoever serves a request or waits for a response.
//!
//! What a peer can make us hold is bounded: unread content by the windows, header sections by
//! [`Settings::max_header_list`], output by not being asked for more while too much of it lies here
//! ([`Connection::wants_input`], [`Stream::poll_send`]). How many frames a peer may send that carry nothing is for the
//! caller to count.
//!
//! ```
//! use http2::{Connection, Settings};
//!
//! let client = Connection::client(&Settings::default());
//! let server = Connection::server(&Settings::default());
//! let mut asked = client
//!     .open(true, |fields| {
//!         fields.add(b":method", b"GET", false);
//!         fields.add(b":scheme", b"https", false);
//!         fields.add(b":authority", b"example.com", false);
//!         fields.add(b":path", b"/", false);
//!     })
//!     .unwrap();
//! let mut octets = Vec::new();
//! client.take_output(&mut octets);
//! server.receive(&octets);
//! let (request, mut stream) = server.accept().unwrap();
//! assert_eq!(request.path(), b"/");
//! stream.respond(204, true, |_| {}).unwrap();
//! octets.clear();
//! server.take_output(&mut octets);
//! client.receive(&octets);
//! let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
//! let std::task::Poll::Ready(Ok(answer)) = asked.poll_head(&mut cx) else { panic!() };
//! assert_eq!(answer.status(), 204);
//! ```

#![forbid(unsafe_code)]

mod block;
mod code;
mod connection;
mod frame;
mod hpack;
mod state;
mod stream;

pub use block::{Block, Head, Line, Span};
pub use code::{Code, Ended};
pub use connection::{Connection, Settings};
pub use state::send::Writer;
pub use stream::Stream;
