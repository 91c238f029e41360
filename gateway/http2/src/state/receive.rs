//! What comes from the peer.

use super::{Farewell, MOST_HEADS, Partial, Role, State};
use crate::block::{Builder, Built, Head, Kind};
use crate::code::{Code, Ended};
use crate::frame::{
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, Frame, GOAWAY, HEAD,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, LAST_STREAM, MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE, MOST_PAYLOAD, MOST_WINDOW, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, WITH_PRIORITY, number, payload_length, write_head,
};

/// CONTINUATION frames carry no more than this beyond what a header section may measure when it is text.
const MARGIN: usize = 16 * 1024;

impl State {
    /// Takes what has come. What is wrong with it ends the connection, and [`State::over`] says so.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) {
        if self.over.is_some() {
            return;
        }
        if !self.preface.is_empty() {
            let length = self.preface.len().min(bytes.len());
            let (wanted, rest) = self.preface.split_at(length);
            let (begun, more) = bytes.split_at(length);
            if begun != wanted {
                self.end(Code::PROTOCOL_ERROR, Ended::Invalid);
                return;
            }
            (self.preface, bytes) = (rest, more);
        }
        if let Err(code) = self.frames(bytes) {
            self.end(code, Ended::Invalid);
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while !self.held.is_empty() && !bytes.is_empty() {
            let length = payload_length(&self.held);
            let whole = HEAD + length.unwrap_or(0);
            let (part, rest) = bytes.split_at(bytes.len().min(whole - self.held.len()));
            self.held.extend_from_slice(part);
            bytes = rest;
            let Some(length) = payload_length(&self.held) else {
                return Ok(());
            };
            if length > MOST_PAYLOAD {
                return Err(Code::FRAME_SIZE_ERROR);
            }
            if self.held.len() == HEAD + length {
                let mut held = std::mem::take(&mut self.held);
                if let Some(frame) = Frame::of(&held) {
                    self.frame(frame)?;
                }
                held.clear();
                // A connection that waits holds no memory for frames.
                if !bytes.is_empty() {
                    self.held = held;
                }
            }
        }
        while let Some(length) = payload_length(bytes) {
            if length > MOST_PAYLOAD {
                return Err(Code::FRAME_SIZE_ERROR);
            }
            let Some((frame, rest)) = bytes.split_at_checked(HEAD + length) else {
                break;
            };
            bytes = rest;
            if let Some(frame) = Frame::of(frame) {
                self.frame(frame)?;
            }
        }
        if bytes.is_empty() {
            if self.held.is_empty() {
                self.held = Vec::new();
            }
        } else {
            self.held.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if !self.introduced {
            if frame.kind != SETTINGS || frame.has(ACK) {
                return Err(Code::PROTOCOL_ERROR);
            }
            self.introduced = true;
        }
        if self.partial.is_some() {
            return self.continuation(frame);
        }
        match frame.kind {
            DATA => self.data(frame),
            HEADERS => self.headers(frame),
            PRIORITY => self.priority(frame),
            RST_STREAM => self.was_reset(frame),
            SETTINGS => self.settings(frame),
            PING => self.pinged(frame),
            GOAWAY => self.goaway(frame),
            WINDOW_UPDATE => self.window_update(frame),
            // Pushes are switched off, and clients must not send them.
            PUSH_PROMISE | CONTINUATION => Err(Code::PROTOCOL_ERROR),
            // What is not known is not looked at (RFC 9113, 4.1).
            _ => Ok(()),
        }
    }

    /// Nothing may come on a stream that nobody has begun.
    fn not_idle(&self, number: u32) -> Result<(), Code> {
        let begun = if number == 0 {
            false
        } else if self.is_peers(number) {
            number <= self.last_peer
        } else {
            number < self.next && self.role == Role::Client
        };
        if begun {
            Ok(())
        } else {
            Err(Code::PROTOCOL_ERROR)
        }
    }

    /// Does the peer not know yet that nothing is wanted of this stream?
    fn is_ignored(&self, number: u32) -> bool {
        let late = matches!(self.farewell, Farewell::Said { last } if number > last);
        late || self.reset_here.contains(&number)
    }

    fn data(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        self.not_idle(frame.stream)?;
        let content = frame.unpadded()?;
        // Padding counts, too (RFC 9113, 6.9.1).
        let length = frame.payload.len();
        let counted = i64::try_from(length).unwrap_or(i64::MAX);
        if counted > self.recv_window {
            return Err(Code::FLOW_CONTROL_ERROR);
        }
        self.recv_window -= counted;
        let Some(place) = self.numbers.get(&frame.stream).copied() else {
            self.give_back(length);
            if !self.is_ignored(frame.stream) {
                self.write_reset(frame.stream, Code::STREAM_CLOSED);
            }
            return Ok(());
        };
        let Some(slot) = self.slot(place) else {
            return Ok(());
        };
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let ends = frame.has(END_STREAM);
        let left = slot.left.map(|left| left.checked_sub(size));
        let wrong = if !slot.receiving {
            Some(Code::STREAM_CLOSED)
        } else if counted > slot.recv_window {
            Some(Code::FLOW_CONTROL_ERROR)
        } else if !slot.has_head || left == Some(None) || ends && left.flatten() > Some(0) {
            // More or less than was said.
            Some(Code::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(code) = wrong {
            self.give_back(length);
            self.reset(place, code, Ended::Invalid);
            return Ok(());
        }
        slot.left = left.flatten();
        slot.recv_window -= counted;
        slot.content.extend_from_slice(content);
        slot.receiving = !ends;
        if ends || !content.is_empty() {
            slot.wake();
        }
        let padding = length - content.len();
        if padding > 0 {
            self.taken(place, padding);
        }
        if ends {
            self.close_if_done(place);
        }
        Ok(())
    }

    fn headers(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if frame.stream == 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        let mut block = frame.unpadded()?;
        let mut depends = None;
        if frame.has(WITH_PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(Code::FRAME_SIZE_ERROR)?;
            depends = number(priority).map(|stream| stream & LAST_STREAM);
            block = rest;
        }
        let ends = frame.has(END_STREAM);
        if frame.has(END_HEADERS) {
            return self.section(frame.stream, ends, depends, block);
        }
        self.partial = Some(Partial {
            stream: frame.stream,
            ends,
            depends,
            block: block.to_vec(),
        });
        Ok(())
    }

    fn continuation(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        let most = self.most_header_list() + MARGIN;
        let Some(partial) = &mut self.partial else {
            return Err(Code::PROTOCOL_ERROR);
        };
        if frame.kind != CONTINUATION || frame.stream != partial.stream {
            return Err(Code::PROTOCOL_ERROR);
        }
        if partial.block.len() + frame.payload.len() > most {
            return Err(Code::ENHANCE_YOUR_CALM);
        }
        partial.block.extend_from_slice(frame.payload);
        if !frame.has(END_HEADERS) {
            return Ok(());
        }
        match self.partial.take() {
            Some(whole) => self.section(whole.stream, whole.ends, whole.depends, &whole.block),
            None => Ok(()),
        }
    }

    fn most_header_list(&self) -> usize {
        usize::try_from(self.settings.max_header_list).unwrap_or(usize::MAX)
    }

    /// A header section has come.
    fn section(
        &mut self,
        stream: u32,
        ends: bool,
        depends: Option<u32>,
        block: &[u8],
    ) -> Result<(), Code> {
        let known = self.numbers.get(&stream).copied();
        let kind = match (self.role, known.and_then(|place| self.slot(place))) {
            (_, Some(slot)) if slot.has_head => Kind::Trailers,
            (Role::Server, _) => Kind::Request,
            (Role::Client, _) => Kind::Response,
        };
        // Whatever becomes of it, both tables have to stay the same.
        let mut builder = Builder::new(kind, self.most_header_list());
        self.decoder
            .decode(block, &mut |name: &[u8], value: &[u8], sensitive| {
                builder.add(name, value, sensitive);
            })
            .map_err(|_| Code::COMPRESSION_ERROR)?;
        let built = builder.build();
        let itself = depends == Some(stream);
        match known {
            Some(place) if itself => self.reset(place, Code::PROTOCOL_ERROR, Ended::Invalid),
            Some(place) => self.more(place, kind, ends, built),
            None => return self.request(stream, ends, itself, built),
        }
        Ok(())
    }

    /// A header section on a stream that is there.
    fn more(&mut self, place: usize, kind: Kind, ends: bool, built: Built) {
        let Some(slot) = self.slot(place) else {
            return;
        };
        let wrong = if !slot.receiving {
            Some(Code::STREAM_CLOSED)
        } else if built.malformed || built.head.is_too_large() {
            Some(Code::PROTOCOL_ERROR)
        } else if kind == Kind::Trailers {
            // They are the end, and nothing is missing.
            (!ends || slot.left > Some(0)).then_some(Code::PROTOCOL_ERROR)
        } else {
            let interim = (100..200).contains(&built.head.status());
            slot.has_head = !interim;
            // Some responses have no content, whatever they say about its length (RFC 9110, 6.4.1).
            let bodyless = slot.bodyless || matches!(built.head.status(), 204 | 304);
            slot.left = if bodyless { Some(0) } else { built.length };
            if slot.heads.len() >= MOST_HEADS {
                Some(Code::ENHANCE_YOUR_CALM)
            } else {
                (ends && (interim || slot.left > Some(0))).then_some(Code::PROTOCOL_ERROR)
            }
        };
        if let Some(code) = wrong {
            self.reset(place, code, Ended::Invalid);
            return;
        }
        if kind == Kind::Trailers {
            slot.trailers = Some(built.head.into_fields());
        } else {
            slot.heads.push_back(built.head);
        }
        slot.receiving = !ends;
        slot.wake();
        if ends {
            self.close_if_done(place);
        }
    }

    /// A header section on a stream that is not there.
    fn request(&mut self, stream: u32, ends: bool, itself: bool, built: Built) -> Result<(), Code> {
        if self.role == Role::Client {
            // Of a response that nobody waits for any more.
            return self.not_idle(stream);
        }
        if !self.is_peers(stream) {
            return Err(Code::PROTOCOL_ERROR);
        }
        if stream <= self.last_peer {
            let known = self.is_ignored(stream);
            return if known {
                Ok(())
            } else {
                Err(Code::STREAM_CLOSED)
            };
        }
        self.last_peer = stream;
        if matches!(self.farewell, Farewell::Said { last } if stream > last) {
            return Ok(());
        }
        // Those that have ended and are still worked on count as well, as long as they are too many.
        let most = self.most_streams();
        let too_many = self.open >= most || self.held() >= most.saturating_mul(2);
        let malformed = built.malformed || itself || ends && built.length > Some(0);
        if malformed && !built.head.is_too_large() {
            self.malformed += 1;
            self.write_reset(stream, Code::PROTOCOL_ERROR);
        } else if too_many {
            self.refused += 1;
            self.write_reset(stream, Code::REFUSED_STREAM);
        } else {
            self.open += 1;
            let place = self.insert(stream, !ends, true);
            if let Some(slot) = self.slot(place) {
                slot.has_head = true;
                slot.left = built.length;
            }
            let head: Head = built.head;
            self.accepted.push_back((place, head));
        }
        Ok(())
    }

    fn priority(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if frame.stream == 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        let known = self.numbers.get(&frame.stream).copied();
        let wrong = if frame.payload.len() != 5 {
            Code::FRAME_SIZE_ERROR
        } else if number(frame.payload).map(|on| on & LAST_STREAM) == Some(frame.stream) {
            Code::PROTOCOL_ERROR
        } else {
            return Ok(());
        };
        match known {
            Some(place) => self.reset(place, wrong, Ended::Invalid),
            // One that nobody has begun cannot be reset (RFC 9113, 6.4).
            None if self.not_idle(frame.stream).is_err() => return Err(wrong),
            None => self.write_reset(frame.stream, wrong),
        }
        Ok(())
    }

    fn was_reset(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        let code = number(frame.payload).filter(|_| frame.payload.len() == 4);
        let code = Code(code.ok_or(Code::FRAME_SIZE_ERROR)?);
        self.not_idle(frame.stream)?;
        if let Some(place) = self.numbers.get(&frame.stream).copied()
            && let Some(slot) = self.slot(place)
        {
            slot.ended.get_or_insert(Ended::Reset(code));
            slot.sending = false;
            slot.wake();
            self.close(frame.stream);
        }
        Ok(())
    }

    fn settings(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if frame.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        let (settings, rest) = frame.payload.as_chunks::<6>();
        if !rest.is_empty() || frame.has(ACK) && !settings.is_empty() {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        if frame.has(ACK) {
            self.acknowledge();
            return Ok(());
        }
        for [a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([*c, *d, *e, *f]);
            match u16::from_be_bytes([*a, *b]) {
                HEADER_TABLE_SIZE => self.encoder.resize(value),
                // Nobody pushes to a server, and nobody is asked to push.
                ENABLE_PUSH if value > 1 || value == 1 && self.role == Role::Client => {
                    return Err(Code::PROTOCOL_ERROR);
                }
                MAX_CONCURRENT_STREAMS if self.role == Role::Client => self.peer_streams = value,
                INITIAL_WINDOW_SIZE => self.resize_windows(i64::from(value))?,
                // Frames are sent as small as anybody takes them.
                MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                    return Err(Code::PROTOCOL_ERROR);
                }
                _ => {}
            }
        }
        write_head(&mut self.out, 0, SETTINGS, ACK, 0);
        self.replies += HEAD;
        Ok(())
    }

    fn pinged(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if frame.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        if frame.payload.len() != 8 {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        if frame.has(ACK) {
            self.ponged(frame.payload);
        } else {
            write_head(&mut self.out, frame.payload.len(), PING, ACK, 0);
            self.out.extend_from_slice(frame.payload);
            self.replies += HEAD + frame.payload.len();
        }
        Ok(())
    }

    fn goaway(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        if frame.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        let last = number(frame.payload).filter(|_| frame.payload.len() >= 8);
        let last = last.ok_or(Code::FRAME_SIZE_ERROR)? & LAST_STREAM;
        self.peer_last = Some(self.peer_last.map_or(last, |before| before.min(last)));
        if self.role == Role::Server {
            return Ok(());
        }
        for place in 0..self.slots.len() {
            if let Some(slot) = self.slot(place)
                && slot.number > last
                && slot.ended.is_none()
                && (slot.receiving || slot.sending)
            {
                slot.ended = Some(Ended::NotSeen);
                slot.sending = false;
                slot.wake();
                let stream = slot.number;
                self.close(stream);
            }
        }
        Ok(())
    }

    fn window_update(&mut self, frame: Frame<'_>) -> Result<(), Code> {
        let more = number(frame.payload).filter(|_| frame.payload.len() == 4);
        let more = i64::from(more.ok_or(Code::FRAME_SIZE_ERROR)? & LAST_STREAM);
        if frame.stream == 0 {
            if more == 0 {
                return Err(Code::PROTOCOL_ERROR);
            }
            self.send_window += more;
            if self.send_window > MOST_WINDOW {
                return Err(Code::FLOW_CONTROL_ERROR);
            }
            self.feed();
            return Ok(());
        }
        self.not_idle(frame.stream)?;
        let Some(place) = self.numbers.get(&frame.stream).copied() else {
            return Ok(());
        };
        let Some(slot) = self.slot(place) else {
            return Ok(());
        };
        slot.send_window += more;
        if more == 0 {
            self.reset(place, Code::PROTOCOL_ERROR, Ended::Invalid);
        } else if slot.send_window > MOST_WINDOW {
            self.reset(place, Code::FLOW_CONTROL_ERROR, Ended::Invalid);
        } else {
            slot.wake();
        }
        Ok(())
    }
}
