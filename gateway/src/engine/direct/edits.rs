//! Changes to a header section that is copied, not rebuilt.

use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::phases::fields::Fields;

/// What the phases want changed, as a list; the section itself is written from its bytes.
pub(super) struct Edits<'a, F> {
    /// The fields before the first change, where somebody wants to read them.
    original: Original<'a, F>,
    /// Names whose original fields are left out.
    gone: SmallVec<[Name; 16]>,
    added: SmallVec<[(Name, HeaderValue); 16]>,
    /// The marks of all names in `gone` and `added`: most names meet none of their own, and then nothing is compared.
    marks: u64,
    /// The fields after the changes so far, where somebody wanted to read them.
    current: OnceCell<HeaderMap>,
}

enum Original<'a, F> {
    Known(&'a HeaderMap),
    Read(F, OnceCell<HeaderMap>),
}

#[derive(Clone, Debug)]
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

/// A bit that is the same for all spellings of a name.
fn mark(name: &[u8]) -> u64 {
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return 1;
    };
    let first = usize::from(first.to_ascii_lowercase());
    let last = usize::from(last.to_ascii_lowercase());
    1 << ((name.len() + 3 * first + 7 * last) & 63)
}

impl<'a> Edits<'a, fn() -> HeaderMap> {
    /// No changes yet to these fields.
    pub(super) fn of(original: &'a HeaderMap) -> Self {
        Self::new(Original::Known(original))
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
            gone: SmallVec::new(),
            added: SmallVec::new(),
            marks: 0,
            current: OnceCell::new(),
        }
    }

    /// Is this field of the original section left out?
    pub(super) fn leaves_out(&self, name: &[u8]) -> bool {
        self.marks & mark(name) != 0
            && self
                .gone
                .iter()
                .any(|gone| gone.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Appends the fields that come on top of the original ones.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.added {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }

    fn original(&self) -> &HeaderMap {
        match &self.original {
            Original::Known(map) => map,
            Original::Read(read, map) => map.get_or_init(read),
        }
    }

    fn drop_all(&mut self, name: Name) {
        if self.change(&name) {
            self.added.retain(|(added, _)| !added.is(name.as_str()));
            if self.gone.iter().any(|gone| gone.is(name.as_str())) {
                return;
            }
        }
        self.gone.push(name);
    }

    fn add(&mut self, name: Name, value: HeaderValue) {
        self.change(&name);
        self.added.push((name, value));
    }

    /// A change to this field begins. Says whether there may have been one before.
    fn change(&mut self, name: &Name) -> bool {
        self.current.take();
        let mark = mark(name.as_str().as_bytes());
        let known = self.marks & mark != 0;
        self.marks |= mark;
        known
    }
}

impl<F: Fn() -> HeaderMap> Fields for Edits<'_, F> {
    fn map(&self) -> &HeaderMap {
        if self.gone.is_empty() && self.added.is_empty() {
            return self.original();
        }
        self.current.get_or_init(|| {
            let mut map = self.original().clone();
            for name in &self.gone {
                map.remove(name.as_str());
            }
            for (name, value) in &self.added {
                if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
                    map.append(name, value.clone());
                }
            }
            map
        })
    }

    fn remove(&mut self, name: &HeaderName) {
        self.drop_all(Name::Known(name.clone()));
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        self.drop_all(Name::Wire(name));
        self.add(Name::Wire(name), value);
    }

    fn replace(&mut self, name: &HeaderName, value: HeaderValue) {
        self.drop_all(Name::Known(name.clone()));
        self.add(Name::Known(name.clone()), value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        self.add(Name::Known(name.clone()), value);
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
            ["a: 1", "a: 2", "b: 3", "b: 4", "d: 6", "e: 7", "g: 1"]
        );
    }
}
