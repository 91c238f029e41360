//! Requests that are the same every time.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail"
)]

use http::Request;

use crate::driver::Random;

pub const REQUESTS: usize = 300;

/// What is to become of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Good,
    ClientResets,
    ServerResets,
    ServerDrops,
}

/// A request by its number.
pub struct Plan {
    pub fate: Fate,
    pub fields: Vec<(String, String)>,
    pub content: Vec<u8>,
    pub pieces: Vec<usize>,
    pub trailers: bool,
}

pub fn plan(number: usize) -> Plan {
    let mut random = Random(number as u64);
    let fate = match random.below(10) {
        0 => Fate::ClientResets,
        1 => Fate::ServerResets,
        2 => Fate::ServerDrops,
        _ => Fate::Good,
    };
    let mut fields = vec![("x-fate".to_owned(), format!("{fate:?}"))];
    let count = random.below(12);
    for field in 0..count {
        let length = random.below(100);
        fields.push((
            format!("x-{}", random.below(30)),
            format!("{field}{}", "v".repeat(length)),
        ));
    }
    if random.below(8) == 0 {
        fields.push((
            "x-large".to_owned(),
            format!("{number}{}", "l".repeat(20_000 + random.below(15_000))),
        ));
    }
    let length = match random.below(4) {
        0 => 0,
        1 => random.below(1000),
        2 => random.below(30_000),
        _ => random.below(300 * 1024),
    };
    let pieces = (0..5).map(|_| 1 + random.below(length + 1)).collect();
    let trailers = random.below(2) == 0;
    Plan {
        fate,
        fields,
        content: random.octets(length),
        pieces,
        trailers,
    }
}

impl Plan {
    /// The content in pieces.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut rest = &self.content[..];
        let mut all = Vec::new();
        let mut sizes = self.pieces.iter().cycle();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            all.push(part);
            rest = more;
        }
        all
    }

    pub fn request(&self) -> Request<()> {
        let mut request = Request::post("https://a.test/echo");
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    }
}
