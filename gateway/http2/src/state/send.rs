//! What goes to the peer.

use std::task::{Context, Poll};

use super::State;
use crate::code::Ended;
use crate::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, MOST_PAYLOAD, write_head,
};
use crate::hpack::Encoder;

/// Room that is made for a header section.
const USUAL_SECTION: usize = 512;

/// Takes the fields of a header section that is being sent.
#[derive(Debug)]
pub struct Writer<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Adds a field, or a pseudo-header field before all others. Letters of the name may have any case; both are valid. A
    /// `sensitive` field is never kept in a table of header compression.
    pub fn add(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        self.encoder.field(self.out, name, value, sensitive);
    }
}

impl State {
    /// Begins a stream.
    pub(crate) fn open(
        &mut self,
        ends: bool,
        fields: impl FnOnce(&mut Writer<'_>),
    ) -> Result<usize, Ended> {
        if self.is_closing() {
            return Err(Ended::NotSeen);
        }
        let number = self.next;
        self.next += 2;
        let place = self.insert(number, true, !ends);
        self.write_section(number, ends, None, fields);
        Ok(place)
    }

    /// Sends a header section; with a status if it is that of a response.
    pub(crate) fn send_section(
        &mut self,
        place: usize,
        ends: bool,
        status: Option<u16>,
        fields: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Ended> {
        let slot = self.sendable(place)?;
        slot.sending = !ends;
        let number = slot.number;
        self.write_section(number, ends, status, fields);
        if ends {
            self.close_if_done(place);
        }
        Ok(())
    }

    /// The stream, if more may be sent on it.
    fn sendable(&mut self, place: usize) -> Result<&mut super::Slot, Ended> {
        let slot = self.slot(place).ok_or(Ended::Closed)?;
        match slot.ended {
            Some(why) => Err(why),
            None if slot.sending => Ok(slot),
            None => Err(Ended::Closed),
        }
    }

    fn write_section(
        &mut self,
        number: u32,
        ends: bool,
        status: Option<u16>,
        fields: impl FnOnce(&mut Writer<'_>),
    ) {
        self.output().reserve(USUAL_SECTION);
        let out = &mut self.out;
        let start = out.len();
        let end_stream = if ends { END_STREAM } else { 0 };
        write_head(out, 0, HEADERS, END_HEADERS | end_stream, number);
        self.encoder.begin(out);
        if let Some(status) = status {
            self.encoder.status(out, status);
        }
        fields(&mut Writer {
            encoder: &mut self.encoder,
            out,
        });
        let length = out.len() - start - HEAD;
        if length <= MOST_PAYLOAD {
            set_length(out, start, length);
        } else {
            split(out, start, end_stream, number);
        }
        self.produced();
    }

    /// Sends content as far as the windows allow, at least an octet of it if there is any. Says how much that was.
    pub(crate) fn poll_send(
        &mut self,
        place: usize,
        cx: &Context<'_>,
        content: &[u8],
        last: bool,
    ) -> Poll<Result<usize, Ended>> {
        let free = self.room();
        let slot = self.sendable(place)?;
        let window = usize::try_from(slot.send_window).unwrap_or(0);
        let room = free.min(window).min(content.len());
        if !content.is_empty() && room == 0 {
            // The window of the stream is its own matter.
            if window == 0 {
                slot.wait(cx);
                self.fed(place);
            } else {
                self.starve(place, cx);
            }
            return Poll::Pending;
        }
        if content.is_empty() && !last {
            return Poll::Ready(Ok(0));
        }
        let sent = i64::try_from(room).unwrap_or(0);
        let ends = last && room == content.len();
        slot.send_window -= sent;
        slot.sending = !ends;
        let number = slot.number;
        self.send_window -= sent;
        self.fed(place);
        let mut rest = content.get(..room).unwrap_or_default();
        loop {
            let (part, more) = rest.split_at(rest.len().min(MOST_PAYLOAD));
            let flags = if ends && more.is_empty() {
                END_STREAM
            } else {
                0
            };
            self.output().reserve(HEAD + part.len());
            write_head(&mut self.out, part.len(), DATA, flags, number);
            self.out.extend_from_slice(part);
            if more.is_empty() {
                break;
            }
            rest = more;
        }
        if ends {
            self.close_if_done(place);
        }
        self.produced();
        Poll::Ready(Ok(room))
    }
}

/// Writes the length of a frame that begins at `start`.
fn set_length(out: &mut [u8], start: usize, length: usize) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    if let Some(head) = out.get_mut(start..start + 3) {
        head.copy_from_slice(&[a, b, c]);
    }
}

/// Makes CONTINUATION frames of what is more than one frame may carry.
fn split(out: &mut Vec<u8>, start: usize, end_stream: u8, number: u32) {
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let mut parts = block.chunks(MOST_PAYLOAD).peekable();
    let mut kind = (HEADERS, end_stream);
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        write_head(out, part.len(), kind.0, kind.1 | end, number);
        out.extend_from_slice(part);
        kind = (CONTINUATION, 0);
    }
}
