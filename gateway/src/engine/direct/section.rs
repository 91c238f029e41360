//! What header sections of requests and responses have in common.

use std::cell::Cell;
use std::mem::MaybeUninit;

use http::HeaderMap;

use super::edits::{Edits, write_field};
pub(super) use crate::section::{Field, Section, Span, get};

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

/// Appends the lines of the fields that go on and stay as they are: neighbours in one go.
pub(super) fn copy<F: Fn() -> HeaderMap>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    fields: &[Field],
    edits: &Edits<'_, F>,
) {
    let mut run = (0, 0);
    for field in fields {
        let name = get(bytes, field.name);
        if !field.end_to_end || edits.leaves_out_marked(field.mark, name) {
            continue;
        }
        let end = field.value.1 + LINE_END.len();
        if field.usual && field.name.0 == run.1 {
            run.1 = end;
            continue;
        }
        out.extend_from_slice(get(bytes, run));
        if field.usual {
            run = (field.name.0, end);
        } else {
            run = (0, 0);
            write_field(out, name, get(bytes, field.value));
        }
    }
    out.extend_from_slice(get(bytes, run));
}

const LINE_END: &[u8] = b"\r\n";

/// What a section has in it with which a connection goes on to the WebSocket protocol.
pub(super) const TO_WEBSOCKET: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\n";

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

/// Does `wanted` hold for any element of a list, separated by commas?
pub(super) fn list_has(value: &[u8], wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words.any(wanted)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::phases::fields::Fields as _;
    use crate::phases::headers::drop_untrusted;
    use crate::phases::original::Headers;

    #[test]
    fn what_stays_is_copied_and_nothing_else() {
        let text = b"GET / HTTP/1.1\r\nHost: a.test\r\nX-FORWARDED-For: 1.1.1.1\r\nA:1\r\nB:  2 \r\nC: 3\r\n\
            TE: trailers\r\nD: 4\r\nE: \r\nF:\r\nX_Real_Ip: 1.1.1.1\r\nPROXY: a\r\nX-Request: 5\r\n\
            Ssl-Client-Verify: yes\r\nforwarded: for=a\r\nX-Scheme: https\r\nG: 6\r\nReplaced: 7\r\n\r\n";
        let mut parsed = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut parsed);
        let _ = request.parse(text).unwrap();
        let fields: Vec<Field> = request
            .headers
            .iter()
            .map(|field| {
                let name = span(text, field.name.as_bytes());
                Field::new(text, name, span(text, field.value), field.name != "TE")
            })
            .collect();
        let section = Section::new(Bytes::from_static(text), fields);
        let headers = Headers::Section(&section);
        let written = |edits: &Edits<'_, fn() -> HeaderMap>| {
            let mut out = Vec::new();
            copy(&mut out, section.bytes(), section.fields(), edits);
            String::from_utf8(out).unwrap()
        };
        let lines = |lines: &[&str]| lines.join("\r\n") + "\r\n";
        let all = lines(&[
            "Host: a.test",
            "X-FORWARDED-For: 1.1.1.1",
            "A: 1",
            "B: 2",
            "C: 3",
            "D: 4",
            "E: ",
            "F: ",
            "X_Real_Ip: 1.1.1.1",
            "PROXY: a",
            "X-Request: 5",
            "Ssl-Client-Verify: yes",
            "forwarded: for=a",
            "X-Scheme: https",
            "G: 6",
            "Replaced: 7",
        ]);
        assert_eq!(written(&Edits::of(headers)), all);

        let mut edits = Edits::of(headers);
        drop_untrusted(&mut edits, false);
        edits.set("replaced", HeaderValue::from_static("8"));
        let rest = lines(&[
            "Host: a.test",
            "A: 1",
            "B: 2",
            "C: 3",
            "D: 4",
            "E: ",
            "F: ",
            "X-Request: 5",
            "G: 6",
        ]);
        assert_eq!(written(&edits), rest);
        // The same as with a map.
        let mut map = headers.map().clone();
        drop_untrusted(&mut map, false);
        map.insert("replaced", HeaderValue::from_static("8"));
        assert_eq!(edits.map(), &map);
    }

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
