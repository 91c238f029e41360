//! The parts that lines are written from, without the machinery of `format!`: every request passes here.

use std::fmt::{Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What stands before the value of a field that is not the first one. The name has nothing to escape: it is one of ours.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

pub(super) use name;

/// Appends a number.
pub(super) fn write_number(out: &mut Vec<u8>, number: usize) {
    let mut text = Short::default();
    text.number(number);
    text.write(out);
}

/// A short text, written from its end: a number has its last digit first, and the whole is appended in one go.
struct Short {
    bytes: [u8; 32],
    at: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self {
            bytes: [0; 32],
            at: 32,
        }
    }
}

impl Short {
    fn byte(&mut self, byte: u8) {
        self.at = self.at.wrapping_sub(1);
        if let Some(place) = self.bytes.get_mut(self.at) {
            *place = byte;
        }
    }

    fn number(&mut self, mut number: usize) {
        loop {
            self.byte(digit(number));
            number /= 10;
            if number == 0 {
                break;
            }
        }
    }

    fn ip(&mut self, address: Ipv4Addr) {
        let [a, b, c, d] = address.octets();
        self.number(d.into());
        for octet in [c, b, a] {
            self.byte(b'.');
            self.number(octet.into());
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes.get(self.at..).unwrap_or_default());
    }
}

/// The last digit of a number.
fn digit(number: usize) -> u8 {
    u8::try_from(number % 10).map_or(b'0', |digit| b'0' + digit)
}

/// Appends a number below 1,000 with three digits.
pub(super) fn write_thousandths(out: &mut Vec<u8>, millis: u32) {
    let millis = usize::try_from(millis).unwrap_or(0);
    out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis)]);
}

/// Appends seconds with milliseconds.
pub(super) fn write_seconds(out: &mut Vec<u8>, time: Duration) {
    let millis = usize::try_from(time.subsec_millis()).unwrap_or(0);
    let mut text = Short::default();
    for digits in [millis, millis / 10, millis / 100] {
        text.byte(digit(digits));
    }
    text.byte(b'.');
    text.number(usize::try_from(time.as_secs()).unwrap_or(usize::MAX));
    text.write(out);
}

pub(super) fn write_ip(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        show(out, address);
        return;
    };
    let mut text = Short::default();
    text.ip(address);
    text.write(out);
}

pub(super) fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        show(out, address);
        return;
    };
    let mut text = Short::default();
    text.number(address.port().into());
    text.byte(b':');
    text.ip(*address.ip());
    text.write(out);
}

pub(super) fn show(out: &mut Vec<u8>, value: impl Display) {
    // Writing into memory does not fail.
    let _ = write!(Bytes(out), "{value}");
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Writes a JSON object field by field.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// The first field is `name`.
    pub(super) fn open(
        out: &'a mut Vec<u8>,
        name: &'static str,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        value(out);
        Self { out }
    }

    pub(super) fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn raw(&mut self, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(name.as_bytes());
        value(self.out);
    }

    /// In quotes.
    pub(super) fn quoted(&mut self, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.raw(name, |out| {
            out.push(b'"');
            value(out);
            out.push(b'"');
        });
    }

    /// A text that is one of ours.
    pub(super) fn word(&mut self, name: &'static str, value: &'static str) {
        self.quoted(name, |out| out.extend_from_slice(value.as_bytes()));
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.quoted(name, |out| escape_json(out, value));
    }

    pub(super) fn shown(&mut self, name: &'static str, value: impl Display) {
        self.quoted(name, |out| {
            // Writing into memory does not fail.
            let _ = write!(Escaped(out), "{value}");
        });
    }

    pub(super) fn address(&mut self, name: &'static str, value: IpAddr) {
        self.quoted(name, |out| write_ip(out, value));
    }

    pub(super) fn number(&mut self, name: &'static str, value: usize) {
        self.raw(name, |out| write_number(out, value));
    }

    pub(super) fn seconds(&mut self, name: &'static str, value: Duration) {
        self.raw(name, |out| write_seconds(out, value));
    }
}

struct Escaped<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        escape_json(self.0, text.as_bytes());
        Ok(())
    }
}

/// The inside of a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn escape_json(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut rest = valid;
        while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
            let (clean, tail) = rest.split_at(at);
            out.extend_from_slice(clean);
            let Some((byte, tail)) = tail.split_first() else {
                break;
            };
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                other => show(out, format_args!("\\u{other:04x}")),
            }
            rest = tail;
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Is there nothing to escape, in JSON or in text? Nearly always. Without a way out of the loop, many bytes are looked
/// at with one instruction.
fn is_plain(bytes: &[u8]) -> bool {
    let special = bytes.iter().fold(0, |special, byte| {
        special
            | u8::from(*byte < 0x20)
            | u8::from(*byte >= 0x7f)
            | u8::from(*byte == b'"')
            | u8::from(*byte == b'\\')
    });
    special == 0
}

/// Control characters and what JSON gives a meaning; DEL as well, which some terminals act on.
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)
}

/// As nginx escapes what it logs.
pub(super) fn escape_text(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if !(0x20..0x7f).contains(&byte) || matches!(byte, b'"' | b'\\') {
            show(out, format_args!("\\x{byte:02X}"));
        } else {
            out.push(byte);
        }
    }
}

/// Only control characters but tabs: they would end the line or act on a terminal.
pub(super) fn escape_control(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte < 0x20 && byte != b'\t' || byte == 0x7f {
            show(out, format_args!("\\x{byte:02X}"));
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_stay_inside_their_string() {
        for (given, want) in [
            (&b"plain"[..], "plain"),
            (b"a\"b\\c", "a\"b\\c"),
            (b"a\r\nb\tc", "a\r\nb\tc"),
            (b"\x00\x1f\x7f", "\0\u{1f}\u{7f}"),
            ("b\u{fc}cher \u{2028}".as_bytes(), "b\u{fc}cher \u{2028}"),
            (b"\xff\xfe\"", "\u{fffd}\u{fffd}\""),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            let mut object = Object::open(&mut out, "b", |out| write_number(out, 1));
            object.bytes(name!("a"), given);
            object.close();
            assert_eq!(out.split(|byte| *byte == b'\n').count(), 2);
            let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(parsed["a"], want);
            assert_eq!(parsed["b"], 1);
        }
    }

    #[test]
    fn text_is_escaped_as_nginx_does() {
        let mut out = Vec::new();
        escape_text(&mut out, b"a\"b\\c\n\x7f\xff ");
        assert_eq!(out, br"a\x22b\x5Cc\x0A\x7F\xFF ");
        out.clear();
        escape_control(&mut out, b"a\"b\\c\n\x7f\xff ");
        assert_eq!(out, b"a\"b\\c\\x0A\\x7F\xff ");
    }

    #[test]
    fn numbers_and_addresses_look_as_usual() {
        for number in [0, 7, 10, 99, 100, 65_535, 1 << 40, usize::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        for (millis, want) in [
            (0, "0.000"),
            (7, "0.007"),
            (1234, "1.234"),
            (u64::MAX, "18446744073709551.615"),
            (60_050, "60.050"),
        ] {
            let mut out = Vec::new();
            write_seconds(&mut out, Duration::from_millis(millis));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        for text in [
            "192.0.2.255:1",
            "0.0.0.0:65535",
            "255.255.255.255:65535",
            "[2001:db8::1]:443",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut out = Vec::new();
            write_address(&mut out, address);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            let mut out = Vec::new();
            write_ip(&mut out, address.ip());
            assert_eq!(String::from_utf8(out).unwrap(), address.ip().to_string());
        }
    }
}
