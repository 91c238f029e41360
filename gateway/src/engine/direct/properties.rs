//! Framing against a second opinion: a parser that takes whole texts apart by splitting them, and shares nothing with
//! the one that is tested.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::sample::select;

use super::body::{Body, LAST_CHUNK, write_chunk};
use super::request::{Found, Head};

/// Target and content of the requests up to the first that is not served, and whether that was the end of the text.
pub(super) type Requests = (Vec<(String, Vec<u8>)>, bool);

/// What this engine makes of bytes that come in pieces.
fn tested(pieces: &[&[u8]]) -> Requests {
    let mut unread = BytesMut::new();
    let mut head = Head::default();
    let mut current: Option<(String, Body, Vec<u8>)> = None;
    let mut requests = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            if let Some((target, mut body, mut content)) = current.take() {
                let mut taken = 0;
                while !body.is_done() && taken < unread.len() {
                    let Ok(step) = body.step(&unread[taken..]) else {
                        return (requests, false);
                    };
                    content.extend_from_slice(step.content);
                    taken += step.taken;
                }
                let _ = unread.split_to(taken);
                if !body.is_done() {
                    current = Some((target, body, content));
                    break;
                }
                requests.push((target, content));
            }
            if unread.is_empty() {
                break;
            }
            match head.read(&unread) {
                Found::Partial => break,
                Found::Foreign | Found::Refused => return (requests, false),
                Found::Complete(outline) => {
                    let section: Bytes = unread.split_to(outline.length).freeze();
                    if head.fill(&section, &outline).is_none() {
                        return (requests, false);
                    }
                    let target = String::from_utf8(head.target().to_vec()).unwrap();
                    current = Some((target, outline.body, Vec::new()));
                }
            }
        }
    }
    let complete = current.is_none() && unread.is_empty();
    (requests, complete)
}

/// What the reference makes of all of them: as many requests as are beyond doubt.
pub(super) fn reference(mut text: &[u8]) -> Requests {
    let mut requests = Vec::new();
    while !text.is_empty() {
        match reference_request(text) {
            Some((target, content, rest)) => {
                requests.push((target, content));
                text = rest;
            }
            None => return (requests, false),
        }
    }
    (requests, true)
}

fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = (&text[..at], &text[at + 2..]);
    (!line.iter().any(|byte| matches!(byte, b'\r' | b'\n'))).then_some((line, rest))
}

fn field(line: &[u8]) -> Option<(String, String)> {
    let at = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..at], &line[at + 1..]);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return None;
    }
    if value
        .iter()
        .any(|byte| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f)
    {
        return None;
    }
    let value = String::from_utf8_lossy(value);
    let value = value.trim_matches([' ', '\t']);
    Some((
        String::from_utf8_lossy(name).to_ascii_lowercase(),
        value.to_owned(),
    ))
}

fn reference_request(mut text: &[u8]) -> Option<(String, Vec<u8>, &[u8])> {
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let (first, mut rest) = line(text)?;
    let first = std::str::from_utf8(first).ok()?;
    let [_, target, "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let mut fields = Vec::new();
    loop {
        let (next, after) = line(rest)?;
        rest = after;
        if next.is_empty() {
            break;
        }
        fields.push(field(next)?);
    }
    let all = |wanted: &str| -> Vec<&str> {
        fields
            .iter()
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
            .collect()
    };
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Some((target.to_owned(), Vec::new(), rest)),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().ok()?;
            let content = rest.get(..length)?;
            Some((target.to_owned(), content.to_vec(), &rest[length..]))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => {
            let (content, rest) = reference_chunks(rest)?;
            Some((target.to_owned(), content, rest))
        }
        _ => None,
    }
}

pub(super) fn reference_chunks(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (content, mut rest) = reference_content(text)?;
    loop {
        let (trailer, after) = line(rest)?;
        rest = after;
        if trailer.is_empty() {
            return Some((content, rest));
        }
        trailer.contains(&b':').then_some(())?;
    }
}

/// The content, and what follows the last chunk.
pub(super) fn reference_content(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut content = Vec::new();
    loop {
        let (size, rest) = line(text)?;
        let mut parts = size.splitn(2, |byte| *byte == b';');
        let size = parts.next()?;
        let extension = parts.next().unwrap_or_default();
        // Neither a token nor a quoted string has any (RFC 9110, 5.6.4).
        if extension
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return None;
        }
        if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some((content, rest));
        }
        content.extend_from_slice(rest.get(..size)?);
        text = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// A request that everybody has to understand, with what it means.
pub(super) fn request() -> impl Strategy<Value = (Vec<u8>, String, Vec<u8>)> {
    let content = prop::collection::vec(any::<u8>(), 0..300);
    let pieces = prop::collection::vec(1_usize..80, 1..8);
    let extension = select(vec!["", ";a", ";a=b;c=\"d e\""]);
    let trailer = select(vec!["", "x: y\r\n", "x:\r\nz: 1\r\n"]);
    let target = "/[a-z0-9/]{0,12}";
    (target, content, any::<bool>(), pieces, extension, trailer).prop_map(
        |(target, content, chunked, pieces, extension, trailer)| {
            let mut text = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\n").into_bytes();
            if !chunked {
                text.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
                text.extend_from_slice(&content);
                return (text, target, content);
            }
            text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let (mut rest, mut sizes) = (&content[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let size = rest.len().min(*sizes.next().unwrap());
                if extension.is_empty() {
                    write_chunk(&mut text, &rest[..size]);
                } else {
                    text.extend(format!("{size:X}{extension}\r\n").bytes());
                    text.extend_from_slice(&rest[..size]);
                    text.extend_from_slice(b"\r\n");
                }
                rest = &rest[size..];
            }
            if trailer.is_empty() {
                text.extend_from_slice(LAST_CHUNK);
            } else {
                text.extend(format!("0\r\n{trailer}\r\n").bytes());
            }
            (text, target, content)
        },
    )
}

fn split<'t>(text: &'t [u8], sizes: &[usize]) -> Vec<&'t [u8]> {
    let mut pieces = Vec::new();
    let (mut rest, mut sizes) = (text, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..60, 1..10)
}

/// Where something is changed, how much goes, and what comes instead.
pub(super) type Change = (prop::sample::Index, usize, &'static [u8]);

/// Makes the changes, one after the other.
pub(super) fn mutate(mut text: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for (at, gone, new) in changes {
        let at = at.index(text.len() + 1);
        let end = text.len().min(at + gone);
        text.splice(at..end, new.iter().copied());
    }
    text
}

/// How many cases a test takes: `usual`, unless `LOCKGATE_PROPTEST_CASES` asks for another number.
pub(super) fn cases(usual: u32) -> ProptestConfig {
    let given = std::env::var("LOCKGATE_PROPTEST_CASES").ok();
    let cases = given.and_then(|text| text.parse().ok()).unwrap_or(usual);
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

/// What smugglers change: where, how much goes, what comes instead.
pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let what: Vec<&'static [u8]> = vec![
        b"",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b"0",
        b"3",
        b"f",
        b"-",
        b"+",
        b"\0",
        b"\xff",
        b"x",
        b",",
        b"0\r\n\r\n",
        b"\r\n ",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ];
    prop::collection::vec(
        (any::<prop::sample::Index>(), 0_usize..3, select(what)),
        1..4,
    )
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn requests_are_found_however_they_are_split(
        requests in prop::collection::vec(request(), 1..4),
        sizes in sizes(),
    ) {
        let text: Vec<u8> = requests.iter().flat_map(|(text, ..)| text.clone()).collect();
        let want: Vec<_> = requests.into_iter().map(|(_, target, content)| (target, content)).collect();
        prop_assert_eq!(tested(&split(&text, &sizes)), (want.clone(), true));
        prop_assert_eq!(reference(&text), (want, true), "the second opinion agrees");
    }

    #[test]
    fn nothing_is_served_that_can_be_read_in_another_way(
        requests in prop::collection::vec(request(), 1..3),
        changes in changes(),
        (one, other) in (sizes(), sizes()),
    ) {
        let text: Vec<u8> = requests.iter().flat_map(|(text, ..)| text.clone()).collect();
        let text = mutate(text, changes);
        let found = tested(&split(&text, &one));
        prop_assert_eq!(&found, &tested(&split(&text, &other)), "the pieces make no difference");
        let (served, _) = found;
        let (certain, _) = reference(&text);
        prop_assert!(served.len() <= certain.len(), "{:?} of {:?}", served, certain);
        prop_assert_eq!(&served[..], &certain[..served.len()]);
    }
}
