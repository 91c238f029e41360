//! Changes to a header section that is copied, not rebuilt.

use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::phases::fields::Fields;
use crate::phases::original::Headers;
use crate::section::mark;

/// What the phases want changed, as a list; the section itself is written from its bytes.
pub(super) struct Edits<'a, F> {
    /// The fields before the first change, where somebody wants to read them.
    original: Original<'a, F>,
    /// In their order. Whatever a later one makes void is not in it.
    changes: SmallVec<[Change; 16]>,
    /// The marks of all names in `changes`: most names meet none of their own, and then nothing is compared.
    marks: u64,
    /// The fields after the changes so far, where somebody wanted to read them.
    current: OnceCell<HeaderMap>,
}

struct Change {
    name: Name,
    /// The original fields of this name are left out.
    replaces: bool,
    /// What comes on top of the original fields.
    value: Option<HeaderValue>,
}

enum Original<'a, F> {
    Known(Headers<'a>),
    Read(F, OnceCell<HeaderMap>),
}

enum Name {
    Wire(&'static str),
    Known(HeaderName),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Wire(name) => name,
            Self::Known(name) => name.as_str(),
        }
    }

    fn is(&self, other: &str) -> bool {
        self.as_str().eq_ignore_ascii_case(other)
    }
}

impl<'a> Edits<'a, fn() -> HeaderMap> {
    /// No changes yet to these fields.
    pub(super) fn of(original: impl Into<Headers<'a>>) -> Self {
        Self::new(Original::Known(original.into()))
    }
}

impl<'a, F: Fn() -> HeaderMap> Edits<'a, F> {
    /// No changes yet to fields that `read` puts together when they are asked for.
    pub(super) fn lazy(read: F) -> Self {
        Self::new(Original::Read(read, OnceCell::new()))
    }

    fn new(original: Original<'a, F>) -> Self {
        Self {
            original,
            changes: SmallVec::new(),
            marks: 0,
            current: OnceCell::new(),
        }
    }

    /// Is this field of the original section left out?
    pub(super) fn leaves_out(&self, name: &[u8]) -> bool {
        self.leaves_out_marked(mark(name), name)
    }

    /// The same, where the mark of the name is known.
    pub(super) fn leaves_out_marked(&self, mark: u8, name: &[u8]) -> bool {
        self.marks & 1 << mark != 0
            && self.changes.iter().any(|change| {
                change.replaces && change.name.as_str().as_bytes().eq_ignore_ascii_case(name)
            })
    }

    /// The fields that come on top of the original ones.
    pub(super) fn added(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        let changes = self.changes.iter();
        changes.filter_map(|change| Some((change.name.as_str(), change.value.as_ref()?)))
    }

    /// Appends the fields that come on top of the original ones.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.added() {
            write_field(out, name.as_bytes(), value.as_bytes());
        }
    }

    fn original(&self) -> &HeaderMap {
        match &self.original {
            Original::Known(headers) => headers.map(),
            Original::Read(read, map) => map.get_or_init(read),
        }
    }

    fn change(&mut self, name: Name, replaces: bool, value: Option<HeaderValue>) {
        if self.current.get().is_some() {
            self.current = OnceCell::new();
        }
        let mark = 1 << mark(name.as_str().as_bytes());
        let same = |change: &Change| change.name.is(name.as_str());
        if replaces && self.marks & mark != 0 && self.changes.iter().any(same) {
            self.changes.retain(|change| !same(change));
        }
        self.marks |= mark;
        self.changes.push(Change {
            name,
            replaces,
            value,
        });
    }
}

impl<F: Fn() -> HeaderMap> Fields for Edits<'_, F> {
    fn map(&self) -> &HeaderMap {
        if self.changes.is_empty() {
            return self.original();
        }
        self.current.get_or_init(|| {
            let mut map = self.original().clone();
            for change in &self.changes {
                if change.replaces {
                    map.remove(change.name.as_str());
                }
                let name = HeaderName::from_bytes(change.name.as_str().as_bytes());
                if let (Ok(name), Some(value)) = (name, &change.value) {
                    map.append(name, value.clone());
                }
            }
            map
        })
    }

    fn names_that(&self, holds: impl Fn(&[u8]) -> bool) -> SmallVec<[HeaderName; 4]> {
        match &self.original {
            Original::Known(headers) if self.changes.is_empty() => headers.names_that(holds),
            Original::Known(_) | Original::Read(..) => Headers::Map(self.map()).names_that(holds),
        }
    }

    fn remove(&mut self, name: &HeaderName) {
        self.change(Name::Known(name.clone()), true, None);
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        self.change(Name::Wire(name), true, Some(value));
    }

    fn replace(&mut self, name: &HeaderName, value: HeaderValue) {
        self.change(Name::Known(name.clone()), true, Some(value));
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        self.change(Name::Known(name.clone()), false, Some(value));
    }
}

/// Appends one line of a header section.
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies the same changes to a map and to a list of changes.
    fn change(fields: &mut impl Fields) {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let value = HeaderValue::from_static;
        fields.append(&a, value("2"));
        fields.set("B", value("3"));
        fields.append(&b, value("4"));
        fields.set("C", value("5"));
        fields.remove(&HeaderName::from_static("c"));
        fields.replace(&HeaderName::from_static("d"), value("6"));
        fields.append(&HeaderName::from_static("e"), value("7"));
        fields.remove(&HeaderName::from_static("f"));
        fields.append(&HeaderName::from_static("f"), value("8"));
        fields.set("H", value("9"));
        fields.set("h", value("10"));
        fields.append(&HeaderName::from_static("i"), value("11"));
        fields.remove(&HeaderName::from_static("i"));
    }

    #[test]
    fn a_list_of_changes_is_what_a_map_makes_of_them() {
        let mut original = HeaderMap::new();
        for (name, value) in [
            ("a", "1"),
            ("b", "1"),
            ("b", "2"),
            ("c", "1"),
            ("f", "1"),
            ("g", "1"),
        ] {
            original.append(name, HeaderValue::from_static(value));
        }
        let mut want = original.clone();
        change(&mut want);
        let mut edits = Edits::of(&original);
        assert_eq!(edits.map(), &original);
        change(&mut edits);
        assert_eq!(edits.map(), &want);

        let mut lazy = Edits::lazy(|| original.clone());
        change(&mut lazy);
        assert_eq!(lazy.map(), &want);

        // What is written is the same.
        let mut text = Vec::new();
        for (name, value) in &original {
            if !lazy.leaves_out(name.as_str().to_ascii_uppercase().as_bytes()) {
                write_field(&mut text, name.as_str().as_bytes(), value.as_bytes());
            }
        }
        lazy.write(&mut text);
        let text = String::from_utf8(text).unwrap().to_ascii_lowercase();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "a: 1", "a: 2", "b: 3", "b: 4", "d: 6", "e: 7", "f: 8", "g: 1", "h: 10"
            ]
        );
    }
}
