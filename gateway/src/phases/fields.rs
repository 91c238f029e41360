//! Header fields that a phase may change, whoever stores them.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::original::Headers;

/// Read and write access to header fields. An engine that stores them in another way than [`HeaderMap`] implements it
/// for its own type.
pub(crate) trait Fields {
    /// All fields.
    fn map(&self) -> &HeaderMap;
    /// The names of fields for which something holds, whatever their spelling.
    fn names_that(&self, holds: impl Fn(&[u8]) -> bool) -> SmallVec<[HeaderName; 4]> {
        Headers::Map(self.map()).names_that(holds)
    }
    /// Takes a field away, all its values.
    fn remove(&mut self, name: &HeaderName);
    /// Replaces a field. `name` is a valid field name, in the spelling for the wire.
    fn set(&mut self, name: &'static str, value: HeaderValue);
    /// Replaces a field.
    fn replace(&mut self, name: &HeaderName, value: HeaderValue);
    /// Adds a value to a field.
    fn append(&mut self, name: &HeaderName, value: HeaderValue);
}

impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }

    fn set(&mut self, name: &'static str, value: HeaderValue) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            self.insert(name, value);
        }
    }

    fn replace(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        Self::append(self, name, value);
    }
}
