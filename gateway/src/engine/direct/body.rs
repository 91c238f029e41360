//! Where a message body ends (RFC 9112, section 6 and 7).

/// How much there may be in chunk extensions and trailers of one body: nobody gets to see them.
const MOST_IGNORED: usize = 16 * 1024;
/// Digits of a chunk size, leading zeros included. 2^52 bytes are more than anybody sends.
const MOST_DIGITS: u8 = 13;

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks up to the last one.
    Chunked(Chunks),
    /// Everything up to the end of the connection.
    UntilClose,
}

/// What is not a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Invalid;

/// A step through the bytes of a body.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Step<'a> {
    /// How many bytes it took.
    pub(super) taken: usize,
    /// The content in them.
    pub(super) content: &'a [u8],
}

impl Body {
    /// A chunked body of which nothing has come.
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunks::new())
    }

    /// Has everything come?
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::UntilClose => false,
        }
    }

    /// Takes what begins `input`, at most up to the end of a chunk. Nothing is taken when the body is done.
    pub(super) fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Invalid> {
        match self {
            Self::Length(left) => {
                let content = prefix(input, *left);
                *left -= to_u64(content.len());
                Ok(Step {
                    taken: content.len(),
                    content,
                })
            }
            Self::Chunked(chunks) => chunks.step(input),
            Self::UntilClose => Ok(Step {
                taken: input.len(),
                content: input,
            }),
        }
    }
}

fn prefix(input: &[u8], most: u64) -> &[u8] {
    let length = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    input.get(..length).unwrap_or_default()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A body in chunks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Chunks {
    state: State,
    /// While the size is read: its value. In a chunk: what is left of it.
    left: u64,
    digits: u8,
    ignored: usize,
    colon: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

impl Chunks {
    fn new() -> Self {
        Self {
            state: State::Size,
            left: 0,
            digits: 0,
            ignored: 0,
            colon: false,
        }
    }

    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Invalid> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Done {
                break;
            }
            if self.state == State::Content {
                let content = prefix(rest, self.left);
                self.left -= to_u64(content.len());
                if self.left == 0 {
                    self.state = State::ContentCr;
                }
                return Ok(Step {
                    taken: taken + content.len(),
                    content,
                });
            }
            let Some(byte) = rest.first() else { break };
            self.state = self.advance(*byte)?;
            taken += 1;
        }
        Ok(Step {
            taken,
            content: &[],
        })
    }

    /// The state behind a byte that is not content.
    fn advance(&mut self, byte: u8) -> Result<State, Invalid> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < MOST_DIGITS => {
                self.digits += 1;
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Trailer, b'\r') if self.colon => Ok(State::TrailerLf),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.ignore(State::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                Ok(if self.left == 0 {
                    State::TrailerStart
                } else {
                    State::Content
                })
            }
            (State::ContentCr, b'\r') => Ok(State::ContentLf),
            (State::ContentLf, b'\n') => Ok(State::Size),
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            // A field name begins here, neither a continued line nor an empty name.
            (State::TrailerStart, byte) if is_of_token(byte) => {
                self.colon = false;
                self.ignore(State::Trailer)
            }
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                // Space before the colon is refused here as in a header section.
                if !(self.colon || byte == b':' || is_of_token(byte)) {
                    return Err(Invalid);
                }
                self.colon |= byte == b':';
                self.ignore(State::Trailer)
            }
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => Err(Invalid),
        }
    }

    fn ignore(&mut self, state: State) -> Result<State, Invalid> {
        self.ignored += 1;
        if self.ignored > MOST_IGNORED {
            return Err(Invalid);
        }
        Ok(state)
    }
}

/// Appends `content` as one chunk.
pub(super) fn write_chunk(out: &mut Vec<u8>, content: &[u8]) {
    if content.is_empty() {
        // It would be the last chunk.
        return;
    }
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = content.len();
    while rest > 0 {
        at -= 1;
        let digit = char::from_digit(u32::try_from(rest & 15).unwrap_or(0), 16).unwrap_or('0');
        if let Some(place) = digits.get_mut(at) {
            *place = u8::try_from(digit).unwrap_or(b'0');
        }
        rest >>= 4;
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// What ends a body in chunks.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// May a name have it (RFC 9110, 5.6.2)?
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of what was given in pieces of `size`, and what was left over.
    fn decode(text: &[u8], size: usize) -> Result<(Vec<u8>, bool, usize), Invalid> {
        let mut body = Body::chunked();
        let mut content = Vec::new();
        let mut taken = 0;
        for piece in text.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() && !body.is_done() {
                let step = body.step(rest)?;
                content.extend_from_slice(step.content);
                taken += step.taken;
                rest = &rest[step.taken..];
            }
        }
        Ok((content, body.is_done(), taken))
    }

    #[test]
    fn chunks_are_read_however_they_are_split() {
        for (text, want, why) in [
            ("0\r\n\r\n", Some(""), "nothing"),
            ("3\r\nabc\r\n0\r\n\r\n", Some("abc"), "one"),
            (
                "3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n",
                Some("abc0123456789"),
                "two",
            ),
            (
                "3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n",
                Some("abc"),
                "extensions",
            ),
            ("0\r\nA: b\r\nc:\r\n\r\n", Some(""), "trailers"),
            (
                "0000000000003\r\nabc\r\n0\r\n\r\n",
                Some("abc"),
                "leading zeros",
            ),
            (
                "00000000000003\r\nabc\r\n0\r\n\r\n",
                None,
                "too many of them",
            ),
            ("\r\n\r\n", None, "no size"),
            (";a\r\n\r\n", None, "only an extension"),
            ("+3\r\nabc\r\n0\r\n\r\n", None, "a sign"),
            ("0x3\r\nabc\r\n0\r\n\r\n", None, "a prefix"),
            ("3 \r\nabc\r\n0\r\n\r\n", None, "a space"),
            (" 3\r\nabc\r\n0\r\n\r\n", None, "a space before"),
            ("3\nabc\r\n0\r\n\r\n", None, "a bare line feed"),
            ("3\r\nabc\n0\r\n\r\n", None, "after the content"),
            ("3;a\nb\r\nabc\r\n0\r\n\r\n", None, "in an extension"),
            ("3;a\rb\r\nabc\r\n0\r\n\r\n", None, "a bare carriage return"),
            ("3;\0\r\nabc\r\n0\r\n\r\n", None, "a control character"),
            ("3\r\nabcd\r\n0\r\n\r\n", None, "longer than it says"),
            ("ffffffffffffffff1\r\n", None, "beyond 64 bits"),
            ("0\r\nA: b\n\r\n", None, "a bare line feed in a trailer"),
            ("0\r\n;A: b\r\n\r\n", None, "no name of a trailer"),
            ("0\r\nA\": b\r\n\r\n", None, "no name either"),
            ("0\r\n: b\r\n\r\n", None, "a trailer without a name"),
            ("0\r\nno colon\r\n\r\n", None, "not a field"),
            ("0\r\nnocolon\r\n\r\n", None, "not a field either"),
            ("0\r\nA : b\r\n\r\n", None, "space before the colon"),
            ("0\r\n A: b\r\n\r\n", None, "a continued line"),
            ("0\r\n: b\r\n\r\n", None, "no name"),
            ("0\r\n\n", None, "half an end"),
        ] {
            for size in [1, 2, 3, 5, 1000] {
                let found = decode(text.as_bytes(), size);
                let want = want.map(|want| (want.as_bytes().to_vec(), true, text.len()));
                assert_eq!(found.ok(), want, "{why}, in pieces of {size}: {text:?}");
            }
        }
    }

    #[test]
    fn what_follows_a_body_is_left() {
        let (content, done, taken) = decode(b"1\r\na\r\n0\r\n\r\nGET /", 100).unwrap();
        assert_eq!((content.as_slice(), done, taken), (&b"a"[..], true, 11));
        let mut body = Body::Length(3);
        let step = body.step(b"abcdef").unwrap();
        assert_eq!((step.taken, step.content), (3, &b"abc"[..]));
        assert!(body.is_done());
        assert_eq!(body.step(b"def").unwrap().taken, 0);
    }

    #[test]
    fn extensions_and_trailers_have_a_limit() {
        let long = "a".repeat(MOST_IGNORED + 1);
        for text in [
            format!("1;{long}\r\na\r\n0\r\n\r\n"),
            format!("0\r\na: {long}\r\n\r\n"),
            "1;aaaaaaaaaaaaaaa\r\na\r\n".repeat(2000) + "0\r\n\r\n",
        ] {
            assert_eq!(decode(text.as_bytes(), 1000), Err(Invalid));
        }
    }

    #[test]
    fn chunks_are_written_as_they_are_read() {
        for length in [0, 1, 9, 15, 16, 255, 256, 65_535, 65_536, 1_000_000] {
            let content = vec![b'x'; length];
            let mut text = Vec::new();
            write_chunk(&mut text, &content);
            text.extend_from_slice(LAST_CHUNK);
            assert_eq!(decode(&text, 4096).unwrap(), (content, true, text.len()));
        }
    }
}
