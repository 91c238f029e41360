//! The decoder of header blocks.

use super::dynamic::{Mark, Name, Table};
use super::huffman;
use super::tables::{STATIC, STATIC_LEN};

/// The largest integer accepted.
const LARGEST: u64 = 1 << 31;
/// Octets of an integer after the first.
const CONTINUATIONS: usize = 5;
/// The scratch kept from one block to the next, in octets.
const SCRATCH: usize = 4096;

/// The block is no header block (RFC 7541): the connection cannot go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Invalid;

/// Decodes the header blocks of one connection, in the order they arrive.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// The largest limit the peer may set.
    most: usize,
    /// The strings of one field that were Huffman coded.
    scratch: Vec<u8>,
}

impl Decoder {
    /// `most`: octets of the dynamic table, as announced in `SETTINGS_HEADER_TABLE_SIZE`. Counts
    /// as at most 65,535.
    pub(crate) fn new(most: usize) -> Self {
        let table = Table::new(most);
        Self {
            most: table.limit(),
            table,
            scratch: Vec::new(),
        }
    }

    /// Decodes a whole header block (HEADERS and CONTINUATION put together). Calls
    /// `field(name, value, sensitive)` for each field in order; `sensitive` is true for "never
    /// indexed" literals. Neither name nor value is checked for its characters.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        field: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), Invalid> {
        let done = self.fields(block, field);
        if self.scratch.len() > SCRATCH {
            self.scratch = Vec::new();
        }
        done
    }

    fn fields(
        &mut self,
        block: &[u8],
        field: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), Invalid> {
        let mut input = self.size_updates(block)?;
        while let Some((&first, rest)) = input.split_first() {
            input = rest;
            if first & 0x80 != 0 {
                let index = integer(first & 0x7f, 0x7f, &mut input)?;
                let (name, value) = find(&self.table, index)?;
                field(name, value, false);
            } else if first & 0x40 != 0 {
                let index = integer(first & 0x3f, 0x3f, &mut input)?;
                self.literal(index, &mut input, true, &mut |name, value| {
                    field(name, value, false);
                })?;
            } else if first & 0x20 == 0 {
                let index = integer(first & 0x0f, 0x0f, &mut input)?;
                let sensitive = first & 0x10 != 0;
                self.literal(index, &mut input, false, &mut |name, value| {
                    field(name, value, sensitive);
                })?;
            } else {
                // A size update that is not at the beginning, or the third one.
                return Err(Invalid);
            }
        }
        Ok(())
    }

    /// Takes the size updates at the beginning of a block: two at most.
    fn size_updates<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], Invalid> {
        let mut input = block;
        for _ in 0..2 {
            match input.split_first() {
                Some((&first, rest)) if first & 0xe0 == 0x20 => {
                    input = rest;
                    let limit = integer(first & 0x1f, 0x1f, &mut input)?;
                    if limit > self.most {
                        return Err(Invalid);
                    }
                    self.table.resize(limit);
                }
                _ => break,
            }
        }
        Ok(input)
    }

    /// One literal, after its first integer: the index of the name, 0 if the name follows.
    fn literal(
        &mut self,
        index: usize,
        input: &mut &[u8],
        insert: bool,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Invalid> {
        let mut end = 0;
        let name = match index {
            0 => Some(string(input, &mut self.scratch, &mut end)?),
            _ => None,
        };
        let value = string(input, &mut self.scratch, &mut end)?;
        let value = value.octets(&self.scratch)?;
        let source = match name {
            Some(name) => Name::Octets(name.octets(&self.scratch)?),
            None => match STATIC.get(index.wrapping_sub(1)) {
                Some(&(name, _)) => Name::Octets(name),
                None => Name::Entry(index.wrapping_sub(STATIC_LEN)),
            },
        };
        match source {
            Name::Octets(name) => field(name, value),
            Name::Entry(age) => field(self.table.get(age).ok_or(Invalid)?.0, value),
        }
        if insert {
            self.table
                .insert(source, value, Mark::default())
                .ok_or(Invalid)?;
        }
        Ok(())
    }

    /// The octets of memory it holds.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.table.memory() + self.scratch.capacity()
    }
}

/// The entry of the static or the dynamic table.
#[inline]
fn find(table: &Table, index: usize) -> Result<(&[u8], &[u8]), Invalid> {
    // 0 becomes the largest number, which is the age of no entry.
    let at = index.wrapping_sub(1);
    match STATIC.get(at) {
        Some(&entry) => Ok(entry),
        None => table
            .get(at.wrapping_sub(STATIC_LEN).wrapping_add(1))
            .ok_or(Invalid),
    }
}

/// An integer (section 5.1), of which `first` was in the first octet. `full` says that more octets
/// follow.
#[inline]
fn integer(first: u8, full: u8, input: &mut &[u8]) -> Result<usize, Invalid> {
    if first < full {
        Ok(usize::from(first))
    } else {
        long_integer(first, input)
    }
}

fn long_integer(first: u8, input: &mut &[u8]) -> Result<usize, Invalid> {
    let mut sum = u64::from(first);
    for (index, &octet) in input.iter().take(CONTINUATIONS).enumerate() {
        sum += u64::from(octet & 0x7f) << (7 * index);
        if octet & 0x80 == 0 {
            *input = input.get(index + 1..).ok_or(Invalid)?;
            return if sum > LARGEST {
                Err(Invalid)
            } else {
                usize::try_from(sum).or(Err(Invalid))
            };
        }
    }
    Err(Invalid)
}

/// A string literal.
#[derive(Clone, Copy, Debug)]
enum Text<'a> {
    /// As it is in the block.
    Plain(&'a [u8]),
    /// Decoded into the scratch.
    Scratch(usize, usize),
}

impl<'a> Text<'a> {
    fn octets(self, scratch: &'a [u8]) -> Result<&'a [u8], Invalid> {
        match self {
            Text::Plain(octets) => Ok(octets),
            Text::Scratch(begin, end) => scratch.get(begin..end).ok_or(Invalid),
        }
    }
}

/// A string (section 5.2). One that is Huffman coded is decoded into `scratch` from `end` on.
#[inline]
fn string<'a>(
    input: &mut &'a [u8],
    scratch: &mut Vec<u8>,
    end: &mut usize,
) -> Result<Text<'a>, Invalid> {
    let (&first, rest) = input.split_first().ok_or(Invalid)?;
    *input = rest;
    let len = integer(first & 0x7f, 0x7f, input)?;
    let (octets, rest) = input.split_at_checked(len).ok_or(Invalid)?;
    *input = rest;
    if first & 0x80 == 0 {
        return Ok(Text::Plain(octets));
    }
    let begin = *end;
    *end = huffman::decode(octets, scratch, begin)?;
    Ok(Text::Scratch(begin, *end))
}
