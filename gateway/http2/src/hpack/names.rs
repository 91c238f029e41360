//! The names of fields: their lower case, their hash, and what is known of them beforehand.

use super::tables::{ENTRIES, STATIC_LEN};

/// Names up to this length are put in lower case on the stack.
pub(super) const SHORT_NAME: usize = 64;
/// The longest name known, rounded up.
const KNOWN_NAME: usize = 32;

/// Names whose values are secret.
const SECRET: [&[u8]; 4] = [
    b"authorization",
    b"cookie",
    b"proxy-authorization",
    b"set-cookie",
];

/// Names whose values seldom repeat.
const UNIQUE: [&[u8]; 11] = [
    b":path",
    b"age",
    b"content-length",
    b"content-range",
    b"date",
    b"etag",
    b"if-modified-since",
    b"if-none-match",
    b"last-modified",
    b"location",
    b"x-request-id",
];

/// How fields of a name are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// By the dynamic table, if they repeat.
    Repeating,
    /// As literals.
    Unique,
    /// As literals never indexed.
    Secret,
}

/// What is known of a name beforehand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The name, zeros after it, and its length.
    start: [u8; KNOWN_NAME],
    len: u8,
    /// The position of this name in `KNOWN`, 0 if it is not there.
    pub(super) at: u8,
    /// The entries of the static table with this name: the index of the first one, and the one
    /// after the last. Both are 0 if there is none.
    pub(super) first: u8,
    pub(super) end: u8,
    pub(super) kind: Kind,
}

impl Known {
    const fn name(&self) -> &[u8] {
        self.start.split_at(self.len as usize).0
    }

    #[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
    const fn new(name: &[u8], at: u8, index: u8) -> Self {
        let mut start = [0; KNOWN_NAME];
        let mut len: u8 = 0;
        while (len as usize) < name.len() {
            start[len as usize] = name[len as usize];
            len += 1;
        }
        Self {
            start,
            len,
            at,
            first: index,
            end: index,
            kind: kind(name),
        }
    }
}

const UNKNOWN: Known = Known::new(b"", 0, 0);
static UNKNOWN_NAME: Known = UNKNOWN;

/// Room for the names known: the first stands for those unknown.
const KNOWNS: usize = 64;

const KNOWN_LIST: ([Known; KNOWNS], u8) = known_list();
static KNOWN: [Known; KNOWNS] = KNOWN_LIST.0;

/// Where hashes of names begin: no two known names have the same slot.
const SEED: u64 = SEED_AND_SLOTS.0;
/// The position in `KNOWN` by the leading octet of the hash of the name.
static SLOTS: [u8; 256] = SEED_AND_SLOTS.1;
const SEED_AND_SLOTS: (u64, [u8; 256]) = seed_and_slots();

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn known_list() -> ([Known; KNOWNS], u8) {
    let mut list = [UNKNOWN; KNOWNS];
    let mut len: u8 = 1;
    let mut index: u8 = 1;
    while index as usize <= STATIC_LEN {
        let name = ENTRIES[index as usize - 1].0;
        if !same(list[len as usize - 1].name(), name) {
            list[len as usize] = Known::new(name, len, index);
            len += 1;
        }
        index += 1;
        list[len as usize - 1].end = index;
    }
    list[len as usize] = Known::new(b"x-request-id", len, 0);
    (list, len + 1)
}

const fn kind(name: &[u8]) -> Kind {
    if contains(&SECRET, name) {
        Kind::Secret
    } else if contains(&UNIQUE, name) {
        Kind::Unique
    } else {
        Kind::Repeating
    }
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn contains(list: &[&[u8]], name: &[u8]) -> bool {
    let mut index = 0;
    while index < list.len() {
        if same(list[index], name) {
            return true;
        }
        index += 1;
    }
    false
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn seed_and_slots() -> (u64, [u8; 256]) {
    let mut seed = 0;
    'seed: loop {
        seed += 1;
        let mut slots = [0; 256];
        let mut at: u8 = 1;
        while at < KNOWN_LIST.1 {
            let slot = slot(hash(seed, KNOWN_LIST.0[at as usize].name()));
            if slots[slot as usize] != 0 {
                continue 'seed;
            }
            slots[slot as usize] = at;
            at += 1;
        }
        return (seed, slots);
    }
}

/// The leading octet of a hash.
pub(super) const fn slot(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Adds octets to a hash, in words of eight. A collision costs compression, nothing else.
pub(super) const fn hash(hash: u64, octets: &[u8]) -> u64 {
    let mut hash = mix(hash, octets.len() as u64);
    let mut rest = octets;
    while let Some((word, more)) = rest.split_first_chunk() {
        hash = mix(hash, u64::from_le_bytes(*word));
        rest = more;
    }
    if rest.is_empty() {
        hash
    } else {
        mix(hash, tail(octets))
    }
}

const fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The last eight octets as a word, or all of them if there are fewer.
const fn tail(octets: &[u8]) -> u64 {
    if let Some(word) = octets.last_chunk() {
        return u64::from_le_bytes(*word);
    }
    // Both parts overlap. What is twice there is the same.
    if let (Some(low), Some(high)) = (octets.first_chunk(), octets.last_chunk()) {
        let high = u32::from_le_bytes(*high) as u64;
        return u32::from_le_bytes(*low) as u64 | high << (octets.len() * 8 - 32);
    }
    match *octets {
        [a] => a as u64,
        [a, b] => a as u64 | (b as u64) << 8,
        [a, b, c] => a as u64 | (b as u64) << 8 | (c as u64) << 16,
        _ => 0,
    }
}

/// Puts the upper-case letters among the eight octets of a word in lower case.
const fn lower_word(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let low = word & (ONES * 0x7f);
    // The high bit of an octet says that it is at least `A`, above `Z`, and above 127.
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let above_z = low + ONES * (0x7f - b'Z' as u64);
    let upper = (from_a ^ above_z) & !word & (ONES * 0x80);
    word | upper >> 2
}

/// A name in lower case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) octets: &'a [u8],
    pub(super) hash: u64,
    /// The octets, if there are no more, and zeros after them.
    start: &'a [u8; KNOWN_NAME],
}

/// Puts a name in lower case in `space`, which holds zeros. `None` if it is too long.
#[inline]
pub(super) fn lower<'a>(name: &[u8], space: &'a mut [u8; SHORT_NAME]) -> Option<Name<'a>> {
    let mut hash = mix(SEED, name.len() as u64);
    if name.len() < 8 {
        if !name.is_empty() {
            let word = lower_word(tail(name));
            *space.first_chunk_mut()? = word.to_le_bytes();
            hash = mix(hash, word);
        }
    } else {
        let to = space.get_mut(..name.len())?;
        let (words, rest) = name.as_chunks();
        for (from, to) in words.iter().zip(to.as_chunks_mut().0) {
            let word = lower_word(u64::from_le_bytes(*from));
            *to = word.to_le_bytes();
            hash = mix(hash, word);
        }
        if !rest.is_empty() {
            let word = lower_word(tail(name));
            *to.last_chunk_mut()? = word.to_le_bytes();
            hash = mix(hash, word);
        }
    }
    Some(Name {
        octets: space.get(..name.len())?,
        hash,
        start: space.first_chunk()?,
    })
}

/// What is known of this name.
#[inline]
pub(super) fn known(name: Name<'_>) -> &'static Known {
    let at = SLOTS
        .get(usize::from(slot(name.hash)))
        .copied()
        .unwrap_or(0);
    match KNOWN.get(usize::from(at)) {
        Some(known)
            if known.start == *name.start && usize::from(known.len) == name.octets.len() =>
        {
            known
        }
        _ => &UNKNOWN_NAME,
    }
}
