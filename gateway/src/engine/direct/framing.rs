//! Where the requests of an HTTP/1 connection begin and end, for an engine that reads them itself.
//!
//! Pingora corrects what two servers could read differently, or takes it for what it is not. What goes to it passes
//! through here first, so that both engines refuse the same, and Pingora never sees more than one request at a time.

use super::body::{Body, Invalid};
use super::section::length_of;

/// A header section that is larger is not one. Those that are smaller and still too large are answered with 431.
const MOST_BYTES: usize = 1024 * 1024;

/// How far a connection is.
#[derive(Debug)]
pub(crate) struct Framing(Part);

#[derive(Debug)]
enum Part {
    Section(Lines),
    Content(Body),
    Whole,
    Broken,
    Tunnel,
}

/// How far a header section has been looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// Where the line begins that is not complete.
    line: usize,
    /// What has been looked at.
    seen: usize,
    /// Has there been a line that is not empty?
    begun: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// The header section of a request.
    Section,
    /// Its content.
    Content,
    /// Nothing: the request has come, and another one is not looked at yet.
    Nothing,
    /// Anything: this is no HTTP any more.
    Anything,
    /// Nothing ever: what came was not valid.
    End,
}

impl Framing {
    /// A connection on which nothing has come.
    pub(crate) fn new() -> Self {
        Self(Part::Section(Lines::default()))
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Next {
        match &self.0 {
            Part::Section(_) => Next::Section,
            Part::Content(_) => Next::Content,
            Part::Whole => Next::Nothing,
            Part::Broken => Next::End,
            Part::Tunnel => Next::Anything,
        }
    }

    /// From now on another request may come. One that has not come to its end has none behind it.
    pub(crate) fn again(&mut self) {
        match &self.0 {
            Part::Whole => *self = Self::new(),
            Part::Content(_) => self.0 = Part::Broken,
            Part::Section(_) | Part::Broken | Part::Tunnel => {}
        }
    }

    /// Another protocol takes over behind the request.
    pub(crate) fn give_up(&mut self) {
        if matches!(self.0, Part::Whole) {
            self.0 = Part::Tunnel;
        }
    }

    /// Looks at more of a header section. Says how long it is, once it is complete.
    pub(crate) fn section(&mut self, held: &[u8]) -> Result<Option<usize>, Invalid> {
        let Part::Section(lines) = &mut self.0 else {
            return Err(Invalid);
        };
        let found = lines.end(held).and_then(|end| {
            let Some(end) = end else {
                return Ok(None);
            };
            let body = meaning(held.get(..end).unwrap_or_default())?;
            Ok(Some((end, body)))
        });
        match found {
            Ok(None) => Ok(None),
            Ok(Some((end, body))) => {
                self.0 = if body.is_done() {
                    Part::Whole
                } else {
                    Part::Content(body)
                };
                Ok(Some(end))
            }
            Err(invalid) => {
                self.0 = Part::Broken;
                Err(invalid)
            }
        }
    }

    /// How many of these bytes belong to the request. Where there are more than that, the rest is another request, or
    /// not valid: [`Self::next`] tells.
    pub(crate) fn content(&mut self, bytes: &[u8]) -> usize {
        let Part::Content(body) = &mut self.0 else {
            return 0;
        };
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match body.step(rest) {
                Ok(step) if step.taken > 0 => taken += step.taken,
                Ok(_) => break,
                Err(Invalid) => {
                    self.0 = Part::Broken;
                    return taken;
                }
            }
        }
        if body.is_done() {
            self.0 = Part::Whole;
        }
        taken
    }
}

impl Lines {
    /// Where the section ends. Every line has to end with CR LF, and neither stands anywhere else.
    fn end(&mut self, held: &[u8]) -> Result<Option<usize>, Invalid> {
        loop {
            let rest = held.get(self.seen..).unwrap_or_default();
            let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.seen = held.len();
                return within(held);
            };
            let at = self.seen + at;
            match (held.get(at), held.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => {
                    self.seen = at;
                    return within(held);
                }
                _ => return Err(Invalid),
            }
            let empty = at == self.line;
            self.line = at + 2;
            self.seen = self.line;
            if empty && self.begun {
                return Ok(Some(self.line));
            }
            self.begun |= !empty;
        }
    }
}

fn within(held: &[u8]) -> Result<Option<usize>, Invalid> {
    if held.len() > MOST_BYTES {
        return Err(Invalid);
    }
    Ok(None)
}

/// The content that a request announces.
fn meaning(section: &[u8]) -> Result<Body, Invalid> {
    let mut lines = section
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .skip_while(|line| line.is_empty());
    let version = version(lines.next().unwrap_or_default())?;
    let mut length = None;
    let mut chunked = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Invalid);
            }
            length = Some(length_of(value).ok_or(Invalid)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // RFC 9112, 6.1: not in HTTP/1.0, and chunked is applied once.
            if chunked || version == 0 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Invalid);
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        (true, Some(_)) => Err(Invalid),
        (true, None) => Ok(Body::chunked()),
        (false, length) => Ok(Body::Length(length.unwrap_or(0))),
    }
}

/// The minor version in a request line (RFC 9112, 3).
fn version(line: &[u8]) -> Result<u8, Invalid> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Invalid);
    };
    if !is_token(method) || !is_target(target, method) {
        return Err(Invalid);
    }
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        _ => Err(Invalid),
    }
}

/// One of the forms that a target has (RFC 9112, 3.2).
fn is_target(target: &[u8], method: &[u8]) -> bool {
    // A fragment is never sent, and some take it for a part of the path.
    let is_text = |byte: &u8| *byte > b' ' && !matches!(*byte, b'#' | 0x7f);
    let absolute = || target.windows(3).any(|three| three == b"://");
    let form = target.starts_with(b"/") || target == b"*" || method == b"CONNECT" || absolute();
    form && target.iter().all(is_text) && std::str::from_utf8(target).is_ok()
}

/// Name and value of a line (RFC 9112, 5).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Invalid> {
    let at = line.iter().position(|byte| *byte == b':').ok_or(Invalid)?;
    let (name, value) = line.split_at(at);
    let value = value.get(1..).unwrap_or_default();
    let is_text = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    if !is_token(name) || !value.iter().all(is_text) {
        return Err(Invalid);
    }
    Ok((name, trimmed(value)))
}

/// Without spaces and tabs at both ends, and nothing else: others call more than that a space.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}

fn is_token(word: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_of_token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::properties::{cases, changes, mutate, reference, request};
    use super::*;

    /// How many requests there are, where each of them ends, and whether the rest was refused.
    fn requests(text: &[u8], size: usize) -> (Vec<usize>, bool) {
        let mut framing = Framing::new();
        let (mut ends, mut at, mut come) = (Vec::new(), 0, 0);
        loop {
            match framing.next() {
                Next::Section => match framing.section(&text[at..come]) {
                    Ok(Some(length)) => at += length,
                    Ok(None) if come == text.len() => return (ends, false),
                    Ok(None) => come = text.len().min(come + size),
                    Err(Invalid) => return (ends, true),
                },
                Next::Content => {
                    at += framing.content(&text[at..come]);
                    if framing.next() == Next::Content {
                        if come == text.len() {
                            return (ends, false);
                        }
                        come = text.len().min(come + size);
                    }
                }
                Next::Nothing => {
                    ends.push(at);
                    framing.again();
                }
                Next::End => return (ends, true),
                Next::Anything => unreachable!("nobody asked for it"),
            }
        }
    }

    #[test]
    fn one_request_at_a_time() {
        let text =
            b"\r\nPOST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            PUT /b HTTP/1.0\r\nContent-Length: 2\r\n\r\nabGET /c HTTP/1.1\r\n\r\n";
        for size in [1, 2, 7, 1000] {
            let (ends, refused) = requests(text, size);
            assert_eq!((ends.len(), refused), (3, false), "{size}");
            assert_eq!(ends.last(), Some(&text.len()));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, why) in [
            ("GET /a HTTP/1.1\nX: y\r\n\r\n", "a line feed alone"),
            (
                "GET /a HTTP/1.1\r\nX: a\rb\r\n\r\n",
                "a carriage return alone",
            ),
            ("GET /a HTTP/1.1\r\nX: y\r\n z\r\n\r\n", "a continued line"),
            ("GET /a HTTP/1.1\r\nX : y\r\n\r\n", "space before the colon"),
            ("GET /a HTTP/1.1\r\nX: a\0b\r\n\r\n", "a null byte"),
            ("GET /a b HTTP/1.1\r\n\r\n", "a space in the target"),
            ("GET /a\tb HTTP/1.1\r\n\r\n", "a tab in the target"),
            ("GET /a#b HTTP/1.1\r\n\r\n", "a fragment"),
            ("GET a HTTP/1.1\r\n\r\n", "no form of a target"),
            ("GET a.test:80 HTTP/1.1\r\n\r\n", "that of CONNECT"),
            ("GET /a\r\n\r\n", "no version"),
            ("GET /a HTTP/2.0\r\n\r\n", "another version"),
            ("GET /a http/1.1\r\n\r\n", "a version in small letters"),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
                "a length twice",
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na",
                "a list",
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "both",
            ),
            (
                "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "chunks in HTTP/1.0",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
                "chunks in chunks",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
                "a sign",
            ),
        ] {
            for size in [1, 1000] {
                assert_eq!(requests(text.as_bytes(), size), (Vec::new(), true), "{why}");
            }
        }
    }

    #[test]
    fn a_section_without_an_end_is_refused_at_some_time() {
        let mut framing = Framing::new();
        let text = vec![b'a'; MOST_BYTES + 1];
        assert!(framing.section(&text).is_err());
        assert_eq!(framing.next(), Next::End);
    }

    #[test]
    fn nothing_follows_a_request_that_has_not_come_to_its_end() {
        let mut framing = Framing::new();
        framing
            .section(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
            .unwrap();
        framing.give_up();
        assert_eq!(framing.next(), Next::Content, "first comes the content");
        framing.again();
        assert_eq!(framing.next(), Next::End);
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn the_second_opinion_finds_the_same_requests(
            requests_of_it in prop::collection::vec(request(), 1..4),
            changes in changes(),
            size in 1_usize..60,
        ) {
            let text: Vec<u8> = requests_of_it.iter().flat_map(|(text, ..)| text.clone()).collect();
            let text = mutate(text, changes);
            let (found, refused) = requests(&text, size);
            prop_assert_eq!((&found, refused), (&requests(&text, text.len().max(1)).0, refused));
            // The second opinion knows HTTP/1.1 alone.
            prop_assume!(!text.windows(8).any(|word| word == b"HTTP/1.0"));
            let (certain, _) = reference(&text);
            prop_assert!(found.len() <= certain.len(), "{} of {}", found.len(), certain.len());
        }
    }
}
