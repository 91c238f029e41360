//! What is asked, and the two configurations that are to answer alike.

use std::fmt::{self, Display, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use super::backends::Backends;

/// One request, sent to both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) group: &'static str,
    host: &'static str,
    method: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: Body,
    /// Only the statuses are compared where there are several.
    pub(super) times: usize,
    /// Its line in the access log is compared, too.
    pub(super) logged: bool,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    None,
    Length(usize),
    Chunked(usize),
}

impl Check {
    const fn get(group: &'static str, host: &'static str, target: &'static str) -> Self {
        Self {
            group,
            host,
            method: "GET",
            target,
            fields: &[],
            body: Body::None,
            times: 1,
            logged: true,
        }
    }

    const fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    const fn with(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.fields = fields;
        self
    }

    const fn body(mut self, bytes: usize) -> Self {
        self.method = "POST";
        self.body = Body::Length(bytes);
        self
    }

    const fn chunked(mut self, bytes: usize) -> Self {
        self.method = "POST";
        self.body = Body::Chunked(bytes);
        // The size of a request is counted with chunk sizes there, and without them here.
        self.logged = false;
        self
    }

    /// nginx refuses it before it knows its name, and logs it under another one.
    const fn nameless(mut self) -> Self {
        self.logged = false;
        self
    }

    const fn times(mut self, times: usize) -> Self {
        self.times = times;
        self.logged = false;
        self
    }

    pub(super) fn bytes(&self, id: &str) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nX-Request-ID: {id}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in self.fields {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        match self.body {
            Body::None => text.push_str("\r\n"),
            Body::Length(length) => {
                write!(
                    text,
                    "Content-Length: {length}\r\n\r\n{}",
                    "x".repeat(length)
                )
                .unwrap();
            }
            Body::Chunked(length) => {
                let half = length / 2;
                let chunk = format!("{half:x}\r\n{}\r\n", "x".repeat(half));
                write!(
                    text,
                    "Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
                )
                .unwrap();
            }
        }
        text.into_bytes()
    }

    /// For people.
    pub(super) fn request(&self) -> String {
        let mut text = format!("{} {}{}", self.method, self.host, self.target);
        for (name, value) in self.fields {
            write!(text, ", {name}: {value}").unwrap();
        }
        match self.body {
            Body::None => {}
            Body::Length(length) => write!(text, ", {length} bytes").unwrap(),
            Body::Chunked(length) => write!(text, ", {length} bytes in chunks").unwrap(),
        }
        if self.times > 1 {
            write!(text, ", {} times", self.times).unwrap();
        }
        text
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.request())
    }
}

/// Where the two do not answer alike, and why that stays.
#[derive(Debug)]
pub(super) struct Difference {
    /// As [`Check::request`] shows it.
    request: &'static str,
    pub(super) nginx: &'static str,
    pub(super) lockgate: &'static str,
    pub(super) why: &'static str,
}

impl Difference {
    pub(super) fn is(&self, nginx: &str, lockgate: &str) -> bool {
        self.nginx == nginx && self.lockgate == lockgate
    }
}

/// The difference that is known for a request.
pub(super) fn difference(check: &Check) -> Option<&'static Difference> {
    let request = check.request();
    DIFFERENCES.iter().find(|known| known.request == request)
}

pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter()
}

const MATCH: &str = "matching";
const REWRITE: &str = "rewrite";
const REDIRECT: &str = "redirects";
const HEADERS: &str = "header fields";
const ACCESS: &str = "limits and access";
const BODIES: &str = "bodies";
const FAILURES: &str = "backends that fail";

static CHECKS: &[Check] = &[
    // Which path takes a request.
    Check::get(MATCH, "match.test", "/exact"),
    Check::get(MATCH, "match.test", "/exact/"),
    Check::get(MATCH, "match.test", "/EXACT"),
    Check::get(MATCH, "match.test", "/exact?a=b&c"),
    Check::get(MATCH, "match.test", "/prefix"),
    Check::get(MATCH, "match.test", "/prefix/"),
    Check::get(MATCH, "match.test", "/prefix/x/y"),
    Check::get(MATCH, "match.test", "/prefixed"),
    Check::get(MATCH, "match.test", "/Prefix/x"),
    Check::get(MATCH, "match.test", "/slash"),
    Check::get(MATCH, "match.test", "/slash?a=b"),
    Check::get(MATCH, "match.test", "/slash/"),
    Check::get(MATCH, "match.test", "/slash/x"),
    Check::get(MATCH, "match.test", "/only/"),
    Check::get(MATCH, "match.test", "/only"),
    Check::get(MATCH, "match.test", "/only/x"),
    Check::get(MATCH, "match.test", "/"),
    Check::get(MATCH, "match.test", "/nowhere"),
    Check::get(MATCH, "MATCH.test:8080", "/exact"),
    Check::get(MATCH, "match.test.", "/exact"),
    Check::get(MATCH, "a.wild.test", "/x"),
    Check::get(MATCH, "b.a.wild.test", "/x"),
    Check::get(MATCH, "wild.test", "/x"),
    Check::get(MATCH, "named.wild.test", "/x"),
    Check::get(MATCH, "nobody.test", "/"),
    Check::get(MATCH, "match.test", "/prefix/%41%2d"),
    Check::get(MATCH, "match.test", "/pr%65fix/x"),
    Check::get(MATCH, "match.test", "/prefix/a%2Fb"),
    Check::get(MATCH, "match.test", "/prefix/a%20b%3f"),
    Check::get(MATCH, "match.test", "/prefix//x"),
    Check::get(MATCH, "match.test", "/prefix/./x"),
    Check::get(MATCH, "match.test", "/prefix/../exact"),
    Check::get(MATCH, "match.test", "/prefix/%2e%2e/exact"),
    Check::get(MATCH, "match.test", "/../exact").nameless(),
    Check::get(MATCH, "match.test", "/prefix/a%00b").nameless(),
    Check::get(MATCH, "match.test", "/prefix/%zz").nameless(),
    Check::get(MATCH, "match.test", "/prefix/caf%C3%A9"),
    Check::get(MATCH, "match.test", "/prefix/a;b=c"),
    Check::get(MATCH, "match.test", "http://match.test/exact?q"),
    Check::get(MATCH, "match.test", "/exact").method("DELETE"),
    Check::get(MATCH, "match.test", "/exact").method("OPTIONS"),
    Check::get(MATCH, "match.test", "/exact").method("PURGE"),
    Check::get(MATCH, "regex.test", "/API/v12"),
    Check::get(MATCH, "regex.test", "/api/v12/more"),
    Check::get(MATCH, "regex.test", "/api/vx"),
    Check::get(MATCH, "regex.test", "/exact/more"),
    Check::get(MATCH, "regex.test", "/prefixed"),
    // What becomes of the path.
    Check::get(REWRITE, "rewrite.test", "/something"),
    Check::get(REWRITE, "rewrite.test", "/something/"),
    Check::get(REWRITE, "rewrite.test", "/something/new?x=1&y"),
    Check::get(REWRITE, "rewrite.test", "/SOMETHING/New"),
    Check::get(REWRITE, "rewrite.test", "/something/a/b/c/"),
    Check::get(REWRITE, "rewrite.test", "/somethingelse"),
    Check::get(REWRITE, "rewrite.test", "/something/a%20b"),
    Check::get(REWRITE, "rewrite.test", "/something/a%2Fb"),
    Check::get(REWRITE, "rewrite.test", "/something/caf%C3%A9"),
    Check::get(REWRITE, "rewrite.test", "/something/a+b"),
    Check::get(REWRITE, "rewrite.test", "/something//x"),
    Check::get(REWRITE, "rewrite.test", "/x/something/y"),
    Check::get(REWRITE, "rewrite.test", "/users/7/posts"),
    Check::get(REWRITE, "rewrite.test", "/users/7/posts?page=2"),
    Check::get(REWRITE, "rewrite.test", "/users/x/posts"),
    Check::get(REWRITE, "fixed.test", "/anything/at/all?q=1"),
    Check::get(REWRITE, "fixed.test", "/"),
    // Answers that lead elsewhere.
    Check::get(REDIRECT, "permanent.test", "/a?b"),
    Check::get(REDIRECT, "temporal.test", "/a?b"),
    Check::get(REDIRECT, "temporal.test", "/a").method("POST"),
    Check::get(REDIRECT, "root.test", "/"),
    Check::get(REDIRECT, "root.test", "/?a=b"),
    Check::get(REDIRECT, "root.test", "/other"),
    Check::get(REDIRECT, "secure.test", "/a/b?c=d"),
    Check::get(REDIRECT, "secure.test", "/"),
    Check::get(REDIRECT, "secure.test:8080", "/a"),
    Check::get(REDIRECT, "SECURE.test", "/a%20b"),
    Check::get(REDIRECT, "secure.test", "/.well-known/acme-challenge/x"),
    Check::get(REDIRECT, "www.bare.test", "/a?b=c"),
    Check::get(REDIRECT, "bare.test", "/a?b=c"),
    Check::get(
        REDIRECT,
        "moved.test",
        "/?status=302&set=Location:http://inside.test/x",
    ),
    Check::get(
        REDIRECT,
        "moved.test",
        "/?status=301&set=Location:http://other.test/x",
    ),
    Check::get(
        REDIRECT,
        "cookies.test",
        "/?set=Set-Cookie:a=b;%20Path=/inside/x;%20HttpOnly",
    ),
    Check::get(
        REDIRECT,
        "cookies.test",
        "/?set=Set-Cookie:a=b;%20Domain=inside.test;%20Path=/",
    ),
    // What backends and clients see.
    Check::get(HEADERS, "match.test", "/exact").with(&[("X-Forwarded-For", "192.0.2.1")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "1"),
    ]),
    Check::get(HEADERS, "match.test", "/exact")
        .with(&[("X-Real-IP", "192.0.2.1"), ("X-Scheme", "https")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[("Proxy", "http://evil.test")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[("under_score", "a"), ("dashed-name", "b")]),
    Check::get(HEADERS, "match.test", "/exact")
        .with(&[("TE", "trailers"), ("Keep-Alive", "timeout=5")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[("Cookie", "a=b"), ("Cookie", "c=d")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[("X-Twice", "1"), ("X-Twice", "2")]),
    Check::get(HEADERS, "match.test", "/exact")
        .with(&[("Authorization", "Basic YWxpY2U6c2VjcmV0")]),
    Check::get(HEADERS, "match.test", "/exact").with(&[
        ("User-Agent", "a \"b\" \\c"),
        ("Referer", "http://x.test/?a=b"),
    ]),
    Check::get(HEADERS, "match.test", "/exact").with(&[
        ("Accept-Encoding", "gzip"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "\"x\""),
    ]),
    Check::get(
        HEADERS,
        "match.test",
        "/exact?set=Server:mine&set=X-Powered-By:y",
    ),
    Check::get(HEADERS, "vhost.test", "/a"),
    Check::get(HEADERS, "match.test:8443", "/exact"),
    // Who may pass, how often.
    Check::get(ACCESS, "allowed.test", "/a"),
    Check::get(ACCESS, "foreign.test", "/a"),
    Check::get(ACCESS, "denied.test", "/a"),
    Check::get(ACCESS, "users.test", "/a"),
    Check::get(ACCESS, "users.test", "/a").with(&[("Authorization", "Basic YWxpY2U6d3Jvbmc=")]),
    Check::get(ACCESS, "users.test", "/a").with(&[("Authorization", "Basic YWxpY2U6c2VjcmV0")]),
    Check::get(ACCESS, "users.test", "/a").with(&[("Authorization", "Bearer x")]),
    Check::get(ACCESS, "rate.test", "/a").times(8),
    // How much a client may send.
    Check::get(BODIES, "body.test", "/a").body(0),
    Check::get(BODIES, "body.test", "/a").body(1024),
    Check::get(BODIES, "body.test", "/a").body(1025),
    Check::get(BODIES, "body.test", "/a").chunked(1000),
    Check::get(BODIES, "body.test", "/a").chunked(3000),
    Check::get(BODIES, "match.test", "/exact").body(5000),
    // What becomes of failures.
    Check::get(FAILURES, "failures.test", "/none"),
    Check::get(FAILURES, "failures.test", "/dead"),
    Check::get(FAILURES, "failures.test", "/closing"),
    Check::get(FAILURES, "failures.test", "/garbage"),
    Check::get(FAILURES, "failures.test", "/huge"),
    Check::get(FAILURES, "failures.test", "/short"),
    Check::get(FAILURES, "silent.test", "/"),
    Check::get(FAILURES, "failures.test", "/closing").method("POST"),
];

static DIFFERENCES: &[Difference] = &[
    Difference {
        request: "GET MATCH.test:8080/exact",
        nginx: "field x-forwarded-port: 80",
        lockgate: "field x-forwarded-port: 8080",
        why: "the port that the client wrote; ingress-nginx says that of its own listener",
    },
    Difference {
        request: "GET match.test/prefix/%41%2d",
        nginx: "backend GET /prefix/%41%2d HTTP/1.1",
        lockgate: "backend GET /prefix/A- HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/pr%65fix/x",
        nginx: "backend GET /pr%65fix/x HTTP/1.1",
        lockgate: "backend GET /prefix/x HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/prefix/a%20b%3f",
        nginx: "backend GET /prefix/a%20b%3f HTTP/1.1",
        lockgate: "backend GET /prefix/a%20b%3F HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/prefix//x",
        nginx: "backend GET /prefix//x HTTP/1.1",
        lockgate: "backend GET /prefix/x HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/prefix/./x",
        nginx: "backend GET /prefix/./x HTTP/1.1",
        lockgate: "backend GET /prefix/x HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/prefix/../exact",
        nginx: "backend GET /prefix/../exact HTTP/1.1",
        lockgate: "backend GET /exact HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET match.test/prefix/%2e%2e/exact",
        nginx: "backend GET /prefix/%2e%2e/exact HTTP/1.1",
        lockgate: "backend GET /exact HTTP/1.1",
        why: "a backend gets the path that was matched ([0005](decisions/0005-path-normalisation.md)); nginx matches one spelling and sends the other",
    },
    Difference {
        request: "GET rewrite.test/something/a%2Fb",
        nginx: "backend GET /a/b HTTP/1.1",
        lockgate: "backend GET /a%2Fb HTTP/1.1",
        why: "an encoded slash belongs to its segment and never separates",
    },
    Difference {
        request: "GET permanent.test/a?b",
        nginx: "log 127.0.0.1 - - [] \"GET /a?b HTTP/1.1\" 301 PAGE \"-\" \"-\" 86 0.000 [test-web-80] [] - - - -",
        lockgate: "log 127.0.0.1 - - [] \"GET /a?b HTTP/1.1\" 301 PAGE \"-\" \"-\" 86 0.000 [-] [] - - - -",
        why: "the backend of a path that redirects is never asked, and is not known any more",
    },
    Difference {
        request: "GET temporal.test/a?b",
        nginx: "log 127.0.0.1 - - [] \"GET /a?b HTTP/1.1\" 307 PAGE \"-\" \"-\" 85 0.000 [test-web-80] [] - - - -",
        lockgate: "log 127.0.0.1 - - [] \"GET /a?b HTTP/1.1\" 307 PAGE \"-\" \"-\" 85 0.000 [-] [] - - - -",
        why: "the backend of a path that redirects is never asked, and is not known any more",
    },
    Difference {
        request: "POST temporal.test/a",
        nginx: "log 127.0.0.1 - - [] \"POST /a HTTP/1.1\" 307 PAGE \"-\" \"-\" 84 0.000 [test-web-80] [] - - - -",
        lockgate: "log 127.0.0.1 - - [] \"POST /a HTTP/1.1\" 307 PAGE \"-\" \"-\" 84 0.000 [-] [] - - - -",
        why: "the backend of a path that redirects is never asked, and is not known any more",
    },
    Difference {
        request: "GET match.test:8443/exact",
        nginx: "field x-forwarded-port: 80",
        lockgate: "field x-forwarded-port: 8443",
        why: "the port that the client wrote; ingress-nginx says that of its own listener",
    },
    Difference {
        request: "GET users.test/a",
        nginx: "www-authenticate: Basic realm=\"members\"",
        lockgate: "www-authenticate: Basic realm=\"members\", charset=\"UTF-8\"",
        why: "the charset of names and passwords is said (RFC 7617, 2.1)",
    },
    Difference {
        request: "GET users.test/a, Authorization: Basic YWxpY2U6d3Jvbmc=",
        nginx: "www-authenticate: Basic realm=\"members\"",
        lockgate: "www-authenticate: Basic realm=\"members\", charset=\"UTF-8\"",
        why: "the charset of names and passwords is said (RFC 7617, 2.1)",
    },
    Difference {
        request: "GET users.test/a, Authorization: Bearer x",
        nginx: "www-authenticate: Basic realm=\"members\"",
        lockgate: "www-authenticate: Basic realm=\"members\", charset=\"UTF-8\"",
        why: "the charset of names and passwords is said (RFC 7617, 2.1)",
    },
    Difference {
        request: "POST body.test/a, 1025 bytes",
        nginx: "log 127.0.0.1 - - [] \"POST /a HTTP/1.1\" 413 PAGE \"-\" \"-\" 103 0.000 [-] [] - - - -",
        lockgate: "log 127.0.0.1 - - [] \"POST /a HTTP/1.1\" 413 PAGE \"-\" \"-\" 1128 0.000 [test-web-80] [] - - - -",
        why: "what came of the body is counted, and the route is known by then",
    },
    Difference {
        request: "POST body.test/a, 1000 bytes in chunks",
        nginx: "field content-length: 1000",
        lockgate: "field transfer-encoding: chunked",
        why: "bodies are passed on as they come; nginx reads them to their end first",
    },
    Difference {
        request: "GET failures.test/garbage",
        nginx: "status is",
        lockgate: "status 502",
        why: "nginx takes what is no HTTP/1.x for HTTP/0.9 and passes it on",
    },
    Difference {
        request: "GET failures.test/huge",
        nginx: "status 502",
        lockgate: "status 200",
        why: "header sections of backends may be larger than `proxy-buffer-size`",
    },
];

/// The users of `users.test`: alice with the password `secret`.
pub(super) const USERS: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

/// What nginx gets.
pub(super) fn configuration(address: SocketAddr, home: &Path, backends: &Backends) -> String {
    // Each server begins with what ingress-nginx sets for all of its locations.
    const BEGIN: &str = "set $best_http_host $http_host; set $passed_authorization $http_authorization; \
        set $proxy_upstream_name \"-\"; set $proxy_alternative_upstream_name \"\";";
    let mut text = include_str!("nginx.conf")
        .replace("ADDRESS", &address.to_string())
        .replace("HOME", &home.display().to_string())
        .replace("BEGIN", BEGIN);
    for (name, port) in backends.ports() {
        text = text.replace(&format!("PORT({name})"), &port.to_string());
    }
    text
}

/// What Lockgate gets.
pub(super) const MANIFESTS: &str = include_str!("manifests.yaml");
