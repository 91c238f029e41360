//! Everything that reads what strangers send, as functions of bytes.
//!
//! A target panics where something is wrong: when what it calls panics, and when what came of it breaks a promise. The
//! tests of this crate run each of them over its corpus and over changes of it that are the same every time; `make fuzz`
//! runs them for longer, and lets libFuzzer look for bytes that reach new code.
#![forbid(unsafe_code)]

mod codec;
mod front;
mod mutate;
mod parsers;
mod translation;

pub use mutate::Mutator;

/// Something that reads bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the folder with its corpus.
    pub name: &'static str,
    /// Reads.
    pub run: fn(&[u8]),
    /// How many changed inputs the short run takes.
    pub short: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "manifests",
        run: translation::manifests,
        short: 500,
    },
    Target {
        name: "annotations",
        run: translation::annotations,
        short: 1500,
    },
    Target {
        name: "users",
        run: translation::users,
        short: 1000,
    },
    Target {
        name: "addresses",
        run: translation::addresses,
        short: 1000,
    },
    Target {
        name: "hosts",
        run: parsers::hosts,
        short: 20_000,
    },
    Target {
        name: "paths",
        run: parsers::paths,
        short: 20_000,
    },
    Target {
        name: "cookies",
        run: parsers::cookies,
        short: 20_000,
    },
    Target {
        name: "proxy-header",
        run: parsers::proxy_header,
        short: 20_000,
    },
    Target {
        name: "client-hello",
        run: parsers::client_hello,
        short: 10_000,
    },
    Target {
        name: "framing",
        run: parsers::framing,
        short: 10_000,
    },
    Target {
        name: "http1",
        run: front::http1,
        short: 1500,
    },
    Target {
        name: "http2",
        run: front::http2,
        short: 1000,
    },
    Target {
        name: "http2-codec",
        run: codec::http2,
        short: 20_000,
    },
];
