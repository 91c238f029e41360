//! Engines move the bytes of a session; what happens to a request is decided by the phases.

mod pingora;

pub(crate) use self::pingora::PingoraEngine;
