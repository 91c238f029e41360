//! Names that many values have in common.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use ahash::AHashSet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name of an object or of a part of one. Equal names are one piece of memory, wherever they came from: a Service is
/// named by its endpoints, by each path that leads to it, and by all that was made from these.
///
/// Making one takes a lock that all others who make one want, too, and so it is nothing for requests. Clones take none.
#[derive(Clone)]
pub struct Name(Arc<str>);

/// All names that there are, and some that there were.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Known {
    names: AHashSet<Arc<str>>,
    /// How many were left when those that nobody has any more were last looked for.
    left: usize,
}

/// That many more than were left may come before they are looked for again: at least so many, and at least as many as
/// were left, so that a name costs the same with few and with many.
const MORE: usize = 1024;

impl Known {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        if self.names.len() - self.left >= self.left.max(MORE) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.left = self.names.len();
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Self(known.share(text))
    }
}

impl Eq for Name {}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // Two of the same text are the same, always.
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for Name {
    fn default() -> Self {
        "".into()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // That of the text, and not that of its place: it is the same in every process.
        (**self).hash(state);
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_piece_of_memory() {
        let [one, other] = ["a-name-of-this-test"; 2].map(Name::from);
        assert_eq!(one, other);
        assert_eq!(one.as_ptr(), other.as_ptr());
        assert_ne!(one, Name::from("another-name-of-this-test"));
    }

    #[test]
    fn names_that_nobody_has_are_forgotten_and_others_stay() {
        let mut known = Known::default();
        let kept: Vec<_> = (0..10).map(|n| known.share(&format!("kept-{n}"))).collect();
        for n in 0..20 * MORE {
            drop(known.share(&format!("gone-{n}")));
            assert!(known.names.len() <= 2 * MORE + kept.len());
        }
        for (n, name) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(name, &known.share(&format!("kept-{n}"))));
        }
    }

    #[test]
    fn names_are_ordered_written_and_read_as_their_text() {
        let mut texts = ["b", "", "a/b", "a-b", "a"];
        let mut names = texts.map(Name::from);
        texts.sort_unstable();
        names.sort_unstable();
        assert_eq!(names.each_ref().map(|name| &**name), texts);
        for name in names {
            assert_eq!(format!("{name} {name:?}"), format!("{0} {0:?}", &*name));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
        }
    }
}
