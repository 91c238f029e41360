//! What header sections of requests and responses have in common.

use std::cell::Cell;
use std::mem::MaybeUninit;

/// From where to where something stands.
pub(super) type Span = (usize, usize);

/// A field by its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// The name.
    pub(super) name: Span,
    /// The value.
    pub(super) value: Span,
    /// Is it for more than this connection?
    pub(super) end_to_end: bool,
}

thread_local! {
    static FIELDS: Cell<Vec<Field>> = const { Cell::new(Vec::new()) };
}

/// Lends memory for the fields of a section, to be used for as long as a section is looked at.
pub(super) fn with_fields<T>(work: impl FnOnce(&mut Vec<Field>) -> T) -> T {
    let mut fields = FIELDS.take();
    let done = work(&mut fields);
    FIELDS.set(fields);
    done
}

/// Room for the fields of a section.
pub(super) fn uninit<const N: usize>() -> [MaybeUninit<httparse::Header<'static>>; N] {
    [const { MaybeUninit::uninit() }; N]
}

/// Where `part`, which is a part of `whole`, stands.
pub(super) fn span(whole: &[u8], part: &[u8]) -> Span {
    // An empty value may stand anywhere.
    let start = part
        .as_ptr()
        .addr()
        .checked_sub(whole.as_ptr().addr())
        .filter(|start| start + part.len() <= whole.len())
        .unwrap_or(0);
    (start, start + part.len())
}

/// What stands there.
pub(super) fn get(whole: &[u8], span: Span) -> &[u8] {
    whole.get(span.0..span.1).unwrap_or_default()
}

/// Does every line end with CR LF? Some take a LF alone for an end, others for a part of the line.
pub(super) fn has_strict_lines(section: &[u8]) -> bool {
    let after = section.get(1..).unwrap_or_default();
    // Without a way out of the loop, many bytes are looked at with one instruction.
    let bare = section.iter().zip(after).fold(0, |bare, (before, byte)| {
        bare | (u8::from(*byte == b'\n') & u8::from(*before != b'\r'))
    });
    bare == 0 && section.first() != Some(&b'\n')
}

/// The value of a `Content-Length`: digits and nothing else.
pub(super) fn length_of(value: &[u8]) -> Option<u64> {
    // 18 digits are always less than 2^64.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |length, digit| length * 10 + u64::from(digit - b'0')),
    )
}

/// How many elements of a list have to be of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Most {
    /// One.
    Any,
    /// All.
    All,
}

/// Does `wanted` hold for the elements of a list, separated by commas?
pub(super) fn list_has(value: &[u8], most: Most, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    match most {
        Most::Any => words.any(wanted),
        Most::All => words.all(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_both() {
        for (text, want) in [
            ("", true),
            ("a", true),
            ("\r\n", true),
            ("\n", false),
            ("\nGET / HTTP/1.1\r\n\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\n", false),
            ("GET / HTTP/1.1\n\r\n", false),
            (
                "GET / HTTP/1.1\r\nHost: a.test\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a.test\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy\n\r\n",
                false,
            ),
        ] {
            assert_eq!(has_strict_lines(text.as_bytes()), want, "{text:?}");
        }
    }
}
