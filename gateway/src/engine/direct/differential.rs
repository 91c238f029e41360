//! Framing against the opinions of others: what this engine takes for a message, hyper and Pingora take for the same
//! one, with the same end. It may refuse more than they do, where the specification allows that.

use http::Method;
use http::header::HOST;
use proptest::prelude::*;
use proptest::sample::select;

use super::body::Body;
use super::opinions::{
    Answered, Asked, hyper_request, hyper_response, pingora_request, pingora_response,
};
use super::properties::{cases, changes, mutate, reference_chunks, reference_content, request};
use super::request::{Found, Head};
use super::response;

/// What this engine makes of a text from one place on.
#[derive(Debug, PartialEq)]
enum Opinion<T> {
    /// A message that ends at this place.
    Whole(T, usize),
    /// More has to come.
    Part,
    /// It goes to Pingora, or no further.
    Foreign,
    /// No message, by its header section.
    BadHead,
    /// No message, by its body, which begins at this place.
    BadBody(usize),
}

/// Content, and where it ends; nothing if that is not in `text`, an error if it is none.
fn content(body: &mut Body, text: &[u8], at: usize) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let (mut content, mut end) = (Vec::new(), at);
    while !body.is_done() && end < text.len() {
        let step = body.step(&text[end..]).map_err(|_| ())?;
        content.extend_from_slice(step.content);
        end += step.taken;
    }
    let until_close = *body == Body::UntilClose;
    Ok((body.is_done() || until_close).then_some((content, end)))
}

fn our_request(text: &[u8]) -> Opinion<Asked> {
    let mut head = Head::default();
    match head.read(text) {
        Found::Partial => Opinion::Part,
        Found::Foreign => Opinion::Foreign,
        Found::Refused => Opinion::BadHead,
        Found::Complete(mut outline) => {
            let section = bytes::Bytes::copy_from_slice(&text[..outline.length]);
            if head.fill(&section, &outline).is_none() {
                return Opinion::Foreign;
            }
            // One of the phases answers that, on each engine.
            if head.original().headers.all(&HOST).len() != 1 {
                return Opinion::Foreign;
            }
            match content(&mut outline.body, text, outline.length) {
                Err(()) => Opinion::BadBody(outline.length),
                Ok(None) => Opinion::Part,
                Ok(Some((content, end))) => {
                    let target = String::from_utf8(head.target().to_vec()).unwrap();
                    let method = head.method.to_string();
                    Opinion::Whole((method, target, content), end)
                }
            }
        }
    }
}

fn our_response(text: &[u8], method: &Method) -> Opinion<Answered> {
    match response::read(text, method, &mut Vec::new()) {
        response::Found::Partial => Opinion::Part,
        response::Found::Invalid => Opinion::BadHead,
        response::Found::Complete(mut outline) => {
            match content(&mut outline.body, text, outline.length) {
                Err(()) => Opinion::BadBody(outline.length),
                Ok(None) => Opinion::Part,
                Ok(Some((content, end))) => Opinion::Whole((outline.status.as_u16(), content), end),
            }
        }
    }
}

/// The lines of a header section, and whether each of them ends with CR LF.
fn section(text: &[u8]) -> (Vec<String>, bool) {
    let mut strict = true;
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\r");
        let line = bare.unwrap_or(line);
        if line.is_empty() && !lines.is_empty() {
            strict &= bare.is_some();
            break;
        }
        strict &= bare.is_some();
        if !line.is_empty() {
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
    }
    (lines, strict)
}

fn values(lines: &[String], name: &str) -> Vec<String> {
    lines
        .iter()
        .filter_map(|line| line.split_once(':'))
        .filter(|(given, _)| given.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_ascii_lowercase())
        .collect()
}

/// Why a header section is refused here that others take. These are all the reasons that there are.
fn why_refused(text: &[u8]) -> Option<&'static str> {
    let (lines, strict) = section(text);
    let (lengths, codings) = (
        values(&lines, "content-length"),
        values(&lines, "transfer-encoding"),
    );
    let digits = |text: &String| {
        (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !strict {
        Some("a line ends with LF alone")
    } else if !lengths.is_empty() && !codings.is_empty() {
        Some("both Content-Length and Transfer-Encoding")
    } else if lengths.len() > 1 {
        Some("more than one Content-Length")
    } else if codings.len() > 1 {
        Some("more than one Transfer-Encoding")
    } else if !lengths.iter().all(digits) {
        Some("a Content-Length that is not a number, or one of more than 18 digits")
    } else if codings.iter().any(|coding| coding != "chunked") {
        Some("a coding that is not exactly `chunked`")
    } else {
        None
    }
}

/// The same for a response, where Pingora forgives more.
fn why_response_refused(text: &[u8]) -> Option<&'static str> {
    let (lines, _) = section(text);
    let continued = |line: &String| line.starts_with([' ', '\t']);
    let spaced = |line: &String| {
        let name = line.split(':').next().unwrap_or_default();
        name.ends_with([' ', '\t'])
    };
    let fields = || lines.iter().skip(1);
    let old = text.starts_with(b"HTTP/1.0") && !values(&lines, "transfer-encoding").is_empty();
    if fields().any(continued) {
        Some("a continued line")
    } else if fields().any(spaced) {
        Some("space before a colon")
    } else if old {
        Some("a coding in HTTP/1.0")
    } else {
        why_refused(text)
    }
}

/// Why a body is refused here that others take.
fn why_body_refused(body: &[u8]) -> Option<&'static str> {
    if reference_chunks(body).is_none() {
        return Some("chunks that are not as in RFC 9112, 7.1");
    }
    // Others do not look at them.
    let trailers = reference_content(body).map_or(&b""[..], |(_, trailers)| trailers);
    let no_field = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => line.split_at(at),
            None => (line, &b""[..]),
        };
        let nameless = name.is_empty() && !value.is_empty();
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        let foreign = |byte: &u8| !byte.is_ascii_graphic() || b"\"(),/;<=>?@[\\]{}".contains(byte);
        nameless || name.iter().any(foreign) || value.iter().any(control)
    };
    let mut lines = trailers
        .split(|byte| *byte == b'\n')
        .take_while(|line| !matches!(*line, b"" | b"\r"));
    if lines.any(no_field) {
        return Some("a trailer that is no field");
    }
    let long = body.split(|byte| *byte == b'\n').any(|line| {
        line.iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count()
            > 13
    });
    long.then_some("a chunk size of more than 13 digits")
}

/// Field lines that change what a message means, or only look like it.
fn lines() -> impl Strategy<Value = String> {
    let line = select(vec![
        "Content-Length: 0",
        "Content-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length:5 ",
        "content-length: 00005",
        "Content-Length : 5",
        "Content_Length: 5",
        "Transfer-Encoding: chunked",
        "transfer-encoding:\tchunked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked;q=1",
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Connection: keep-alive, upgrade",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "TE: trailers",
        "Trailer: x",
        "X: \u{e9}",
        "X:",
        "X: a b\tc",
    ]);
    prop::collection::vec(line, 0..4).prop_map(|lines| {
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\r\n")).collect();
        lines.concat()
    })
}

/// A request with fields of all kinds in front of its own, and bytes behind it that could be its body.
fn odd_request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec![
        "GET", "HEAD", "POST", "DELETE", "OPTIONS", "M-SEARCH", "get",
    ]);
    let target = select(vec![
        "/", "/a?b=c", "/a%20b", "/a//b", "/?", "/a|b", "/a{b}", "/a\"b", "/\u{e9}", "/a#b", "*",
        "//a", "/a\\b",
    ]);
    let body = select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "0005\r\nhello\r\n00\r\n\r\n",
        "5\nhello\n0\n\n",
        "00000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n x\r\n\r\n",
    ]);
    (method, target, lines(), body).prop_map(|(method, target, lines, body)| {
        format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n{body}").into_bytes()
    })
}

fn odd_response() -> impl Strategy<Value = Vec<u8>> {
    let first = select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 404 Not \u{e9}",
        "HTTP/1.1 204 No",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 299 ?",
        "HTTP/1.1 999 X",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/2 200",
    ]);
    let body = select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "5;a\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "5\r\nhello\r\n",
        "5\r\nhel",
    ]);
    (first, lines(), body)
        .prop_map(|(first, lines, body)| format!("{first}\r\n{lines}\r\n{body}").into_bytes())
}

/// Everything about the first request of `text`.
fn check_request(text: &[u8]) -> Result<(), TestCaseError> {
    let others = || {
        [
            ("hyper", hyper_request(text)),
            ("Pingora", pingora_request(text)),
        ]
    };
    let why = match our_request(text) {
        // Without a verdict there is nothing to compare; what goes to Pingora is Pingora's.
        Opinion::Part | Opinion::Foreign => return Ok(()),
        Opinion::BadHead => why_refused(text),
        Opinion::BadBody(at) => why_body_refused(&text[at..]),
        Opinion::Whole(ours, end) => {
            let (whole, cut) = (&text[..end], &text[..end - 1]);
            let ours = Some(ours);
            prop_assert_eq!(&hyper_request(whole), &ours, "hyper");
            prop_assert_eq!(&pingora_request(whole), &ours, "Pingora");
            prop_assert_eq!(our_request(cut), Opinion::Part);
            prop_assert_eq!(hyper_request(cut), None, "hyper, cut");
            prop_assert_eq!(pingora_request(cut), None, "Pingora, cut");
            return Ok(());
        }
    };
    if why.is_none() {
        for (who, opinion) in others() {
            prop_assert_eq!(
                opinion,
                None,
                "{} takes it, and nobody knows why we do not",
                who
            );
        }
    }
    Ok(())
}

/// Everything about a response with which the connection ends.
fn check_response(text: &[u8], method: &Method) -> Result<(), TestCaseError> {
    let name = method.as_str();
    let why = match our_response(text, method) {
        Opinion::Part | Opinion::Foreign => return Ok(()),
        Opinion::BadHead => why_response_refused(text),
        Opinion::BadBody(at) => why_body_refused(&text[at..]),
        Opinion::Whole(ours, end) => {
            // Interim responses are not what these clients return.
            if (100..200).contains(&ours.0) {
                return Ok(());
            }
            let whole = &text[..end];
            let ours = Some(ours);
            prop_assert_eq!(&hyper_response(whole, name), &ours, "hyper");
            prop_assert_eq!(&pingora_response(whole, name), &ours, "Pingora");
            return Ok(());
        }
    };
    if why.is_none() {
        prop_assert_eq!(hyper_response(text, name), None, "hyper takes it");
        prop_assert_eq!(pingora_response(text, name), None, "Pingora takes it");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_changed_request_means_the_same_to_others((text, ..) in request(), changes in changes()) {
        check_request(&mutate(text, changes))?;
    }

    #[test]
    fn an_odd_request_means_the_same_to_others(text in odd_request(), changes in prop::option::weighted(0.3, changes())) {
        check_request(&mutate(text, changes.unwrap_or_default()))?;
    }

    #[test]
    fn a_response_means_the_same_to_others(
        text in odd_response(),
        head in prop::bool::weighted(0.2),
        changes in prop::option::weighted(0.4, changes()),
    ) {
        let method = if head { Method::HEAD } else { Method::GET };
        check_response(&mutate(text, changes.unwrap_or_default()), &method)?;
    }
}
