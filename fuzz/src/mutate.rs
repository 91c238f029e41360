//! Changes of bytes that are the same every time.

/// Makes new inputs out of those that there are.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

/// What parsers trip over.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b"/",
    b"..",
    b"%2e",
    b"%2f",
    b"%00",
    b"\\",
    b"#",
    b"?",
    b"@",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"0",
    b"-1",
    b"+1",
    b"18446744073709551616",
    b"\xff",
    b"\xc3\xa9",
    b"*",
    b"{",
    b"}",
    b"$",
    b"- ",
    b"&a",
    b"*a",
    b"~",
    b"|",
    b">",
    b"(",
    b")",
    b"0\r\n\r\n",
    b"Content-Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
];

impl Mutator {
    /// From these inputs.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "there is nothing to begin with");
        Self { state: 1, seeds }
    }

    /// A number below `most` (`SplitMix64`).
    fn below(&mut self, most: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or(usize::MAX);
        z % most.max(1)
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        self.seeds[at].clone()
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut bytes = self.seed();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = bytes.len().min(at + self.below(9));
            match self.below(6) {
                0 => {
                    bytes.drain(at..end);
                }
                1 => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..end, word.iter().copied());
                }
                2 => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                3 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (self.state % 8);
                    }
                }
                4 => {
                    let other = self.seed();
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes.truncate(64 * 1024);
        bytes
    }
}
