//! Header sections as they came.

/// From where to where something stands in the text of a [`Block`].
pub type Span = (usize, usize);

/// Header fields as text: `name: value` with CR LF after each, names in lower case, in the order in which they came. What
/// stands in it is checked: names are tokens, and values have no control characters but HTAB (RFC 9113, 8.2.1).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Block {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// A field by its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line {
    /// The name.
    pub name: Span,
    /// The value.
    pub value: Span,
    /// It must never be kept in a table of header compression (RFC 7541, 6.2.3).
    pub sensitive: bool,
}

/// What stands there.
fn get(text: &[u8], span: Span) -> &[u8] {
    text.get(span.0..span.1).unwrap_or_default()
}

impl Block {
    /// Appends a field. The name is in lower case; both are valid.
    pub fn add(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        if self.text.capacity() == 0 {
            self.text.reserve(ROOM);
            self.lines.reserve(LINES);
        }
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        let value_start = self.text.len();
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.text.extend_from_slice(b"\r\n");
        self.lines.push(Line {
            name: (start, start + name.len()),
            value: (value_start, end),
            sensitive,
        });
    }

    /// Names and values, and whether a field is sensitive.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        self.lines.iter().map(|line| {
            let name = get(&self.text, line.name);
            (name, get(&self.text, line.value), line.sensitive)
        })
    }

    /// The text, and where the fields stand in it.
    pub fn into_parts(self) -> (Vec<u8>, Vec<Line>) {
        (self.text, self.lines)
    }
}

/// Room that is made for the text of a section, and for its fields.
const ROOM: usize = 512;
const LINES: usize = 16;

/// The header section of a request or a response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    method: Span,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    status: u16,
    too_large: bool,
    /// What stands before the lines are the values of pseudo-header fields.
    block: Block,
}

impl Head {
    /// `:method`; empty in a response.
    pub fn method(&self) -> &[u8] {
        get(&self.block.text, self.method)
    }

    /// `:authority`.
    pub fn authority(&self) -> Option<&[u8]> {
        Some(get(&self.block.text, self.authority?))
    }

    /// Where `:authority` stands in the text.
    pub fn authority_span(&self) -> Option<Span> {
        self.authority
    }

    /// `:path`; empty for `CONNECT`.
    pub fn path(&self) -> &[u8] {
        get(&self.block.text, self.path_span())
    }

    /// Where `:path` stands in the text.
    pub fn path_span(&self) -> Span {
        self.path.unwrap_or_default()
    }

    /// `:status`; 0 in a request.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Is it larger than what was announced? Not all fields are here then.
    pub fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// The fields.
    pub fn fields(&self) -> &Block {
        &self.block
    }

    /// The fields. The values of pseudo-header fields stand before them in the text.
    pub fn into_fields(self) -> Block {
        self.block
    }
}

/// What a header section is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Request,
    Response,
    Trailers,
}

/// Takes the fields of a section one by one (RFC 9113, 8.2 and 8.3).
pub(crate) struct Builder {
    kind: Kind,
    head: Head,
    /// What a section may measure (RFC 9113, 6.5.2), and what this one does so far.
    most: usize,
    size: usize,
    malformed: bool,
    length: Option<u64>,
}

/// What a section is that has been taken as a whole.
pub(crate) struct Built {
    pub(crate) head: Head,
    /// It is no request, no response or no trailers.
    pub(crate) malformed: bool,
    /// The value of `content-length`.
    pub(crate) length: Option<u64>,
}

impl Builder {
    pub(crate) fn new(kind: Kind, most: usize) -> Self {
        Self {
            kind,
            head: Head::default(),
            most,
            size: 0,
            malformed: false,
            length: None,
        }
    }

    /// Takes one more field.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        self.size += name.len() + value.len() + 32;
        if self.size > self.most {
            self.head.too_large = true;
            return;
        }
        if self.malformed {
            return;
        }
        let value = match name.first() {
            Some(b':') => value,
            // Most servers take it, and let it go.
            _ => trimmed(value),
        };
        let valid = match name.split_first() {
            Some((b':', name)) => is_visible(value) && self.pseudo(name, value),
            _ => is_name(name) && is_value(value) && self.field(name, value),
        };
        if !valid {
            self.malformed = true;
        } else if name.first() != Some(&b':') {
            self.head.block.add(name, value, sensitive);
        }
    }

    /// A pseudo-header field: before all others, once, and only those that there are.
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        let head = &mut self.head;
        if !head.block.lines.is_empty() {
            return false;
        }
        if head.block.text.capacity() == 0 {
            head.block.text.reserve(ROOM);
        }
        let start = head.block.text.len();
        let span = (start, start + value.len());
        let place = match (self.kind, name) {
            (Kind::Request, b"method") => {
                let is_token = value
                    .iter()
                    .all(|octet| is_name(&[octet.to_ascii_lowercase()]));
                if head.method != (0, 0) || value.is_empty() || !is_token {
                    return false;
                }
                head.method = span;
                head.block.text.extend_from_slice(value);
                return true;
            }
            (Kind::Request, b"scheme") if !is_scheme(value) => return false,
            (Kind::Request, b"scheme") => &mut head.scheme,
            (Kind::Request, b"authority") => &mut head.authority,
            (Kind::Request, b"path") => &mut head.path,
            (Kind::Response, b"status") => {
                let status = status(value).filter(|_| head.status == 0);
                head.status = status.unwrap_or(0);
                return status.is_some();
            }
            _ => return false,
        };
        if place.is_some() {
            return false;
        }
        *place = Some(span);
        head.block.text.extend_from_slice(value);
        true
    }

    /// A field that may not stand in every section.
    fn field(&mut self, name: &[u8], value: &[u8]) -> bool {
        match name {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => false,
            b"te" => value.eq_ignore_ascii_case(b"trailers"),
            b"content-length" if self.kind != Kind::Trailers => {
                let length = length(value).filter(|_| self.length.is_none());
                self.length = length;
                length.is_some()
            }
            _ => true,
        }
    }

    /// All fields have been taken.
    pub(crate) fn build(self) -> Built {
        let head = &self.head;
        let complete = match self.kind {
            Kind::Request if head.method() == b"CONNECT" => {
                head.scheme.is_none() && head.path.is_none() && head.authority.is_some()
            }
            Kind::Request => {
                let has_path = head.path.is_some_and(|(start, end)| end > start);
                head.method != (0, 0) && head.scheme.is_some() && has_path
            }
            Kind::Response => head.status != 0,
            Kind::Trailers => true,
        };
        Built {
            malformed: self.malformed || !complete && !head.too_large,
            length: self.length,
            head: self.head,
        }
    }
}

/// Three digits; the first says which class, of which there are five. There is no switching of protocols (RFC 9113, 8.6).
fn status(value: &[u8]) -> Option<u16> {
    let digits = value.first_chunk::<3>().filter(|_| value.len() == 3)?;
    let valid = digits.iter().all(u8::is_ascii_digit) && digits.first() >= Some(&b'1');
    let valid = valid && digits != b"101";
    valid.then(|| {
        digits
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
    })
}

/// Digits and nothing else; 18 of them are always less than 2^64.
fn length(value: &[u8]) -> Option<u64> {
    let valid = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    valid.then(|| {
        value
            .iter()
            .fold(0, |length, digit| length * 10 + u64::from(digit - b'0'))
    })
}

/// Which octets a name may have: those of a token without upper-case letters (RFC 9110, 5.6.2; RFC 9113, 8.2.1).
#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const NAME: [bool; 256] = {
    let mut valid = [false; 256];
    let known = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest: &[u8] = known;
    while let [octet, more @ ..] = rest {
        valid[*octet as usize] = true;
        rest = more;
    }
    valid
};

fn is_name(name: &[u8]) -> bool {
    let valid = |octet: &u8| NAME.get(usize::from(*octet)).is_some_and(|valid| *valid);
    !name.is_empty() && name.iter().all(valid)
}

/// A letter, then letters, digits and three more (RFC 3986, 3.1).
fn is_scheme(scheme: &[u8]) -> bool {
    let part = |octet: &u8| octet.is_ascii_alphanumeric() || b"+-.".contains(octet);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(part)
}

/// Neither white space nor control characters: it would be more than one word where it stands in HTTP/1.1.
fn is_visible(value: &[u8]) -> bool {
    let visible = |octet: &u8| *octet > b' ' && *octet != 0x7f;
    value.iter().all(visible)
}

/// Without white space around it (RFC 9110, 5.5).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Without a way out of the loop, many octets are looked at with one instruction.
fn is_value(value: &[u8]) -> bool {
    let wrong = value.iter().fold(0, |wrong, octet| {
        let control = u8::from(*octet < b' ') & u8::from(*octet != b'\t');
        wrong | control | u8::from(*octet == 0x7f)
    });
    wrong == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "https"), (":path", "/")];

    fn build(kind: Kind, fields: &[(&str, &str)]) -> Built {
        let mut builder = Builder::new(kind, 1000);
        for (name, value) in fields {
            builder.add(name.as_bytes(), value.as_bytes(), false);
        }
        builder.build()
    }

    fn request(more: &[(&str, &str)]) -> Built {
        build(Kind::Request, &[&GET, more].concat())
    }

    #[test]
    fn a_request_becomes_text() {
        let built = request(&[(":authority", "a.test"), ("accept", "*/*"), ("x", "")]);
        assert!(!built.malformed);
        let head = built.head;
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.authority(), Some(&b"a.test"[..]));
        assert_eq!(head.path(), b"/");
        let fields: Vec<_> = head.fields().iter().collect();
        assert_eq!(
            fields,
            [(&b"accept"[..], &b"*/*"[..], false), (b"x", b"", false)]
        );
        let (text, _) = head.into_fields().into_parts();
        assert_eq!(text, b"GEThttps/a.testaccept: */*\r\nx: \r\n");
    }

    #[test]
    fn what_is_no_request_is_seen() {
        for (fields, why) in [
            (&[("X", "1")][..], "upper case"),
            (&[("x y", "1")], "a space in a name"),
            (&[("", "1")], "no name"),
            (&[("x:", "1")], "a colon in a name"),
            (&[("x", "a\rb")], "CR"),
            (&[("x", "a\nb")], "LF"),
            (&[("x", "a\0b")], "NUL"),
            (&[("x", "a\u{7f}b")], "DEL"),
            (&[("connection", "close")], "of the connection"),
            (&[("keep-alive", "1")], "of the connection"),
            (&[("proxy-connection", "close")], "of the connection"),
            (&[("transfer-encoding", "chunked")], "of the connection"),
            (&[("upgrade", "h2c")], "of the connection"),
            (&[("te", "gzip")], "other than trailers"),
            (&[("content-length", "")], "no number"),
            (&[("content-length", "+1")], "no number"),
            (&[("content-length", "1, 1")], "no number"),
            (&[("content-length", "1"), ("content-length", "1")], "twice"),
            (&[("x", "1"), (":authority", "a")], "too late"),
            (&[(":path", "/")], "twice"),
            (&[(":method", "GET")], "twice"),
            (&[(":status", "200")], "of a response"),
            (&[(":protocol", "websocket")], "not announced"),
            (&[(":", "a")], "unknown"),
        ] {
            assert!(request(fields).malformed, "{why}: {fields:?}");
        }
        for left_out in 0..GET.len() {
            let mut fields = GET.to_vec();
            fields.remove(left_out);
            assert!(build(Kind::Request, &fields).malformed, "{left_out}");
        }
        for (method, fields, want) in [
            ("CONNECT", &[(":authority", "a:1")][..], false),
            ("CONNECT", &[(":authority", "a:1"), (":path", "/")], true),
            (
                "CONNECT",
                &[(":authority", "a:1"), (":scheme", "http")],
                true,
            ),
            ("CONNECT", &[], true),
            ("GET", &[(":scheme", "http"), (":path", "")], true),
            ("GET", &[(":scheme", "http"), (":path", "*")], false),
            ("GET", &[(":scheme", ""), (":path", "/")], true),
            ("GET", &[(":scheme", "http://a"), (":path", "/")], true),
            ("GET", &[(":scheme", "coap+tcp"), (":path", "/")], false),
        ] {
            let fields = [&[(":method", method)], fields].concat();
            assert_eq!(build(Kind::Request, &fields).malformed, want, "{fields:?}");
        }
        for (fields, why) in [
            (&[("te", "trailers")][..], "the one that may be"),
            (&[("x", "a\tb \u{e9}")], "a tab and an octet above 127"),
            (&[("content-length", "12")], "a number"),
        ] {
            assert!(!request(fields).malformed, "{why}");
        }
    }

    #[test]
    fn a_response_has_a_status() {
        for (status, want) in [
            ("200", 200),
            ("100", 100),
            ("101", 0),
            ("999", 999),
            ("099", 0),
            ("20", 0),
            ("2000", 0),
            ("2x0", 0),
            ("", 0),
        ] {
            let built = build(Kind::Response, &[(":status", status)]);
            assert_eq!(built.head.status(), want, "{status}");
            assert_eq!(built.malformed, want == 0, "{status}");
        }
        assert!(build(Kind::Response, &[]).malformed);
        assert!(build(Kind::Response, &[(":status", "200"), (":status", "200")]).malformed);
        assert!(build(Kind::Response, &[(":path", "/"), (":status", "200")]).malformed);
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        assert!(!build(Kind::Trailers, &[("grpc-status", "0")]).malformed);
        assert!(build(Kind::Trailers, &[(":status", "200")]).malformed);
        assert!(build(Kind::Trailers, &[("connection", "close")]).malformed);
    }

    #[test]
    fn of_a_section_that_is_too_large_no_more_is_kept() {
        let large = "x".repeat(1000);
        let built = request(&[("a", "1"), ("large", &large), ("b", "1")]);
        assert!(built.head.is_too_large() && !built.malformed);
        assert_eq!(built.head.fields().iter().count(), 1);
        assert_eq!(built.head.path(), b"/");
    }
}
