//! The encoder of header blocks.
//!
//! Strings are not Huffman coded: what repeats is in the dynamic table and takes an octet, and the
//! rest is not worth the time.

use super::dynamic::{self, Mark, Table};
use super::names::{self, Kind, Known, SHORT_NAME, hash, known, lower, slot};
use super::tables::{STATIC, STATIC_LEN};

/// The limit of the dynamic table at first, and the most that is used of a larger one.
const LIMIT: usize = 4096;
/// Values above this length are not inserted.
const LONG_VALUE: usize = 512;
/// Lists of entries, by the hash of name and value.
const LISTS: usize = 128;
/// Slots of entries, by the hash of the name.
const NAMES: usize = 64;
/// Sets of the hashes of fields seen lately.
const SETS: usize = 64;
/// The hashes of a set.
const SET: usize = 4;

/// First octet and its mask: a literal with incremental indexing.
const INSERTED: (u8, u8) = (0x40, 0x3f);
/// A literal without indexing.
const PASSING: (u8, u8) = (0x00, 0x0f);
/// A literal never indexed.
const NEVER_INDEXED: (u8, u8) = (0x10, 0x0f);

/// What finds entries of the dynamic table, by their numbers.
#[derive(Debug)]
struct Index {
    /// The newest entry of each list.
    lists: [u16; LISTS],
    /// The newest entry of each slot.
    names: [u16; NAMES],
    /// The fields seen lately that are no entries, the latest of each set first.
    seen: [[u32; SET]; SETS],
}

impl Index {
    fn new() -> Self {
        Self {
            lists: [0; LISTS],
            names: [0; NAMES],
            seen: [[0; SET]; SETS],
        }
    }

    /// The list of the fields with this hash.
    #[inline]
    fn list(&mut self, hash: u64) -> Option<&mut u16> {
        self.lists.get_mut(usize::from(slot(hash)) % LISTS)
    }

    /// The slot of the names with this hash.
    #[inline]
    fn name(&mut self, hash: u64) -> Option<&mut u16> {
        self.names.get_mut(usize::from(slot(hash)) % NAMES)
    }

    /// Whether the field was seen lately. It is from now on.
    #[inline]
    fn seen(&mut self, hash: u64, check: u32) -> bool {
        let Some(set) = self.seen.get_mut(usize::from(slot(hash)) % SETS) else {
            return false;
        };
        let seen = set.contains(&check);
        if !seen {
            set.rotate_right(1);
            set[0] = check;
        }
        seen
    }
}

/// Bits of a hash to tell fields of the same list apart.
const fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Encodes the header blocks of one connection, in the order they are sent.
///
/// A field is inserted in the dynamic table when it is seen for the second time, so that values
/// that do not repeat evict none that do.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Table,
    index: Option<Box<Index>>,
    /// The size updates due: the smallest limit since the last block, and the last one.
    due: Option<(usize, usize)>,
}

impl Encoder {
    /// The dynamic table has 4096 octets at first.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(LIMIT),
            index: None,
            due: None,
        }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`, of which at most 4096 are used. What changes is
    /// written at the beginning of the next block.
    pub(crate) fn resize(&mut self, size: u32) {
        let limit = usize::try_from(size).unwrap_or(LIMIT).min(LIMIT);
        let (smallest, _) = *self.due.get_or_insert_with(|| (self.table.limit(), limit));
        self.due = Some((smallest.min(limit), limit));
    }

    /// Begins a block: writes the size updates that are due.
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.due.take() {
            self.update(out, smallest, last);
        }
    }

    #[cold]
    fn update(&mut self, out: &mut Vec<u8>, smallest: usize, last: usize) {
        for limit in [smallest, last] {
            if limit != self.table.limit() {
                integer(out, 0x20, 0x1f, limit);
                self.table.resize(limit);
            }
        }
    }

    /// `:status`.
    #[expect(clippy::unused_self, reason = "a field like the others")]
    pub(crate) fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let [hundreds, tens, ones] = [status / 100, status / 10, status]
                    .map(|digit| u8::try_from(digit % 10).unwrap_or(0) + b'0');
                out.extend_from_slice(&[8, 3, hundreds, tens, ones]);
                return;
            }
        };
        out.push(0x80 | index);
    }

    /// One field, or pseudo-header field such as `:path`. Upper-case letters of the name are
    /// written in lower case (HTTP/2 has no others).
    pub(crate) fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], sensitive: bool) {
        let mut space = [0; SHORT_NAME];
        let Some(name) = lower(name, &mut space) else {
            let first = if sensitive { NEVER_INDEXED } else { PASSING };
            literal(out, first, 0, &name.to_ascii_lowercase(), value);
            return;
        };
        let known = known(name);
        let index = usize::from(known.first);
        if sensitive || known.kind == Kind::Secret {
            literal(out, NEVER_INDEXED, index, name.octets, value);
            return;
        }
        for index in known.first..known.end {
            if STATIC
                .get(usize::from(index) - 1)
                .is_some_and(|entry| entry.1 == value)
            {
                out.push(0x80 | index);
                return;
            }
        }
        let size = name.octets.len() + value.len() + 32;
        if known.kind == Kind::Unique || value.len() > LONG_VALUE || size > self.table.limit() / 4 {
            literal(out, PASSING, index, name.octets, value);
            return;
        }
        self.repeating(out, name, known, value);
    }

    /// A field that may be in the dynamic table, or become an entry.
    fn repeating(&mut self, out: &mut Vec<u8>, name: names::Name<'_>, known: &Known, value: &[u8]) {
        let hash = hash(name.hash, value);
        let mut name_index = usize::from(known.first);
        let check = half(hash) & !0xff | u32::from(known.at);
        let unknown = (known.at == 0).then_some(name.octets);
        let table = &mut self.table;
        let index = self.index.get_or_insert_with(|| Box::new(Index::new()));
        let newest = index.list(hash).map_or(0, |number| *number);
        if let Some(age) = table.find(newest, check, unknown, value) {
            integer(out, 0x80, 0x7f, STATIC_LEN + age);
            return;
        }
        if name_index == 0 {
            let age = index.name(name.hash).map_or(0, |number| table.age(*number));
            if table
                .get(age)
                .is_some_and(|(known, _)| known == name.octets)
            {
                name_index = STATIC_LEN + age;
            }
        }
        if !index.seen(hash, check) {
            literal(out, PASSING, name_index, name.octets, value);
            return;
        }
        literal(out, INSERTED, name_index, name.octets, value);
        let number = table.next();
        let mark = Mark {
            hash: check,
            older: newest,
        };
        if table.insert(dynamic::Name::Octets(name.octets), value, mark) == Some(true) {
            if let Some(list) = index.list(hash) {
                *list = number;
            }
            if let Some(slot) = index.name(name.hash) {
                *slot = number;
            }
        }
    }
}

/// A literal with the name of an entry, or with its own if the index is 0.
#[inline]
fn literal(out: &mut Vec<u8>, first: (u8, u8), index: usize, name: &[u8], value: &[u8]) {
    integer(out, first.0, first.1, index);
    if index == 0 {
        string(out, name);
    }
    string(out, value);
}

/// A string, not Huffman coded.
#[inline]
fn string(out: &mut Vec<u8>, octets: &[u8]) {
    integer(out, 0, 0x7f, octets.len());
    out.extend_from_slice(octets);
}

/// An integer (section 5.1). `first` holds the bits before it, `full` is the largest number its
/// own bits of the first octet can hold.
#[inline]
fn integer(out: &mut Vec<u8>, first: u8, full: u8, number: usize) {
    match u8::try_from(number) {
        Ok(small) if small < full => out.push(first | small),
        _ => long_integer(out, first, full, number),
    }
}

fn long_integer(out: &mut Vec<u8>, first: u8, full: u8, number: usize) {
    out.push(first | full);
    let mut rest = number.saturating_sub(usize::from(full));
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
}
