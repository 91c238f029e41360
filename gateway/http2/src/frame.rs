//! Frames (RFC 9113, 4 and 6).

use crate::code::Code;

/// What a client sends first (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Octets before the payload.
pub(crate) const HEAD: usize = 9;
/// The longest payload in either direction: the least that everybody takes, and more is not announced.
pub(crate) const MOST_PAYLOAD: usize = 16_384;
/// The largest window (RFC 9113, 6.9.1).
pub(crate) const MOST_WINDOW: i64 = (1 << 31) - 1;
/// The window before anybody says otherwise.
pub(crate) const USUAL_WINDOW: u32 = 65_535;
/// The largest number of a stream.
pub(crate) const LAST_STREAM: u32 = (1 << 31) - 1;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 32;

pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_FRAME_SIZE: u16 = 5;
pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A frame as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

/// Length of the payload, once the head of a frame is there.
pub(crate) fn payload_length(bytes: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = bytes.first_chunk::<HEAD>()?;
    usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()
}

impl<'a> Frame<'a> {
    /// The frame that these octets are: a head and its payload.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<HEAD>()?;
        let [_, _, _, kind, flags, a, b, c, d] = *head;
        Some(Self {
            kind,
            flags,
            stream: u32::from_be_bytes([a, b, c, d]) & LAST_STREAM,
            payload,
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding (RFC 9113, 6.1 and 6.2).
    pub(crate) fn unpadded(&self) -> Result<&'a [u8], Code> {
        if !self.has(PADDED) {
            return Ok(self.payload);
        }
        let (length, rest) = self.payload.split_first().ok_or(Code::FRAME_SIZE_ERROR)?;
        let end = rest.len().checked_sub(usize::from(*length));
        end.and_then(|end| rest.get(..end))
            .ok_or(Code::PROTOCOL_ERROR)
    }
}

/// The 32 bits at the beginning.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

/// Appends the head of a frame.
pub(crate) fn write_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, length @ ..] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends a frame whose payload is one number.
pub(crate) fn write_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    write_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a GOAWAY.
pub(crate) fn write_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    write_head(out, 8, GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends SETTINGS.
pub(crate) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_head(out, 6 * settings.len(), SETTINGS, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}
