//! The dynamic table (RFC 7541, section 2.3.2), of a decoder or an encoder.

use std::collections::VecDeque;

/// What an entry counts beside its octets.
const OVERHEAD: usize = 32;

/// The first allocations: octets, and entries.
const FIRST: usize = 512;
const FIRST_ENTRIES: usize = 16;

/// The largest limit there can be. It keeps lengths within 16 bits.
const LARGEST: usize = 0xffff;

/// Where an entry is. Its value follows its name.
#[derive(Clone, Copy, Debug)]
struct Entry {
    begin: u32,
    name: u16,
    value: u16,
    mark: Mark,
}

/// What an encoder finds an entry by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// A hash of the field.
    pub(super) hash: u32,
    /// The number of the entry that was the last one in the same list.
    pub(super) older: u16,
}

impl Entry {
    fn size(self) -> usize {
        usize::from(self.name) + usize::from(self.value) + OVERHEAD
    }
}

/// The name of a new entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    /// The octets, from outside of the table.
    Octets(&'a [u8]),
    /// That of the entry of this age.
    Entry(usize),
}

/// Entries in the order they were inserted. The octets of all of them are in one piece of memory;
/// those of evicted entries remain at its beginning until the space is needed.
///
/// An entry is named by its age: the newest is 1. Its number does not change: it counts those ever
/// inserted, and begins again after 65,535.
#[derive(Debug)]
pub(super) struct Table {
    octets: Vec<u8>,
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// The number of the next entry.
    next: u16,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.min(LARGEST);
        Self {
            octets: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            limit,
            next: 0,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the limit, and evicts what is above.
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit.min(LARGEST);
        self.evict(self.limit);
        if self.limit == 0 {
            self.octets = Vec::new();
            self.entries = VecDeque::new();
        }
    }

    /// The name and value of the entry of this age.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entry(age)?;
        let octets = self.octets.get(entry.begin as usize..)?;
        let (name, octets) = octets.split_at_checked(usize::from(entry.name))?;
        Some((name, octets.get(..usize::from(entry.value))?))
    }

    /// The number of the next entry.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// The age of the entry with this number. There may be no such entry any more.
    #[inline]
    pub(super) fn age(&self, number: u16) -> usize {
        usize::from(self.next.wrapping_sub(number))
    }

    /// The age of the entry with this hash that is this field, in the list that begins with the
    /// entry `newest`. Without a name the hash alone tells whose the value is.
    #[inline]
    pub(super) fn find(
        &self,
        newest: u16,
        hash: u32,
        name: Option<&[u8]>,
        value: &[u8],
    ) -> Option<usize> {
        let mut age = self.age(newest);
        loop {
            // The list ends with an entry that is gone.
            let entry = self.entry(age)?;
            if entry.mark.hash == hash && self.is(entry, name, value) {
                return Some(age);
            }
            // The number may be that of another entry by now, but a list only gets older.
            let older = self.age(entry.mark.older);
            if older <= age {
                return None;
            }
            age = older;
        }
    }

    #[inline]
    fn is(&self, entry: Entry, name: Option<&[u8]>, value: &[u8]) -> bool {
        let begin = entry.begin as usize;
        let middle = begin + usize::from(entry.name);
        let end = middle + usize::from(entry.value);
        self.octets.get(middle..end) == Some(value)
            && name.is_none_or(|name| self.octets.get(begin..middle) == Some(name))
    }

    #[inline]
    fn entry(&self, age: usize) -> Option<Entry> {
        self.entries
            .get(self.entries.len().checked_sub(age)?)
            .copied()
    }

    /// Inserts an entry and evicts those it displaces. One that is larger than the table only
    /// empties it. Returns whether the entry was inserted; `None` if there is no entry of the age
    /// `name` gives.
    pub(super) fn insert(&mut self, name: Name<'_>, value: &[u8], mark: Mark) -> Option<bool> {
        let name_len = match name {
            Name::Octets(octets) => octets.len(),
            Name::Entry(age) => usize::from(self.entry(age)?.name),
        };
        let size = name_len + value.len() + OVERHEAD;
        if size > self.limit {
            self.evict(0);
            return Some(false);
        }
        let space = name_len + value.len();
        if self.octets.len() + space > self.octets.capacity() {
            self.make_room(space);
        }
        // The name is copied before its entry is evicted.
        let begin = self.octets.len();
        match name {
            Name::Octets(octets) => self.octets.extend_from_slice(octets),
            Name::Entry(age) => {
                let from = self.entry(age)?.begin as usize;
                self.octets.extend_from_within(from..from + name_len);
            }
        }
        self.octets.extend_from_slice(value);
        if self.size + size > self.limit {
            self.evict(self.limit - size);
        }
        self.size += size;
        self.entries.push_back(Entry {
            begin: u32::try_from(begin).ok()?,
            name: u16::try_from(name_len).ok()?,
            value: u16::try_from(value.len()).ok()?,
            mark,
        });
        self.next = self.next.wrapping_add(1);
        Some(true)
    }

    /// Evicts the oldest entries until the size is at most `limit`.
    fn evict(&mut self, limit: usize) {
        while self.size > limit {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.size -= entry.size();
        }
    }

    /// Makes room for `space` more octets: gives up those of evicted entries if they are half of
    /// all, or if there would be too many octets, and allocates otherwise.
    #[cold]
    fn make_room(&mut self, space: usize) {
        // The live octets and the new ones are at most the limit each.
        let most = self.limit * 2;
        let len = self.octets.len();
        let dead = self
            .entries
            .front()
            .map_or(len, |entry| entry.begin as usize);
        if dead >= len - dead || len + space > most {
            self.octets.drain(..dead);
            for entry in &mut self.entries {
                entry.begin = entry
                    .begin
                    .saturating_sub(u32::try_from(dead).unwrap_or(u32::MAX));
            }
        }
        let len = self.octets.len();
        if len + space > self.octets.capacity() {
            if self.entries.capacity() == 0 {
                self.entries
                    .reserve_exact(FIRST_ENTRIES.min(most / OVERHEAD));
            }
            let want = (len + space)
                .max(self.octets.capacity() * 2)
                .max(FIRST)
                .min(most);
            self.octets.reserve_exact(want - len);
        }
    }

    /// The octets of memory it holds.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.octets.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}
