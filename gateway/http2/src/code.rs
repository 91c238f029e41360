//! Why streams and connections end.

use std::fmt;

/// An error code (RFC 9113, 7).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The peer does not keep to the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something went wrong in here.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More came than a window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// Something came on a stream that had ended.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has a size that it cannot have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The request has not been looked at.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is not wanted any more.
    pub const CANCEL: Self = Self(8);
    /// The tables of header compression are not the same any more.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The peer makes too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self(number) => return write!(f, "Code({number})"),
        };
        f.write_str(name)
    }
}

/// Why a stream came to its end before both sides had finished it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The peer has reset it.
    Reset(Code),
    /// The peer is going away and has not looked at it (RFC 9113, 6.8).
    NotSeen,
    /// What the peer has sent is not valid.
    Invalid,
    /// The connection is gone, or the stream was given up on this side.
    Closed,
}
