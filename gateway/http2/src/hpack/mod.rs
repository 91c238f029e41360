//! Header compression (RFC 7541).
//!
//! [`Decoder`] and [`Encoder`] each hold the state of one direction of a connection. Both lend and
//! take fields as slices of octets: there is no map of fields, and no allocation per field.

mod decode;
mod dynamic;
mod encode;
mod huffman;
mod names;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;
