//! Finds the entry for a host name: exact, then the longest wildcard, then the one for every host.

use std::sync::Arc;

use model::{HostPattern, WildcardDepth};

use crate::shards::{Keyed, Sharded};
use crate::text::Text;

/// A value that stands for the hosts of one pattern.
pub(crate) trait Patterned {
    /// That pattern.
    fn pattern(&self) -> &HostPattern;

    /// What [`key`] makes of it, kept with the value.
    fn key(&self) -> &Text;
}

impl<T: Patterned> Keyed for Arc<T> {
    type Key = [u8];

    fn key(&self) -> &[u8] {
        T::key(self).as_bytes()
    }
}

/// The text that the entry of a pattern is filed under.
pub(crate) fn key(pattern: &HostPattern) -> Text {
    Text::new(key_text(pattern))
}

fn key_text(pattern: &HostPattern) -> &str {
    match pattern {
        HostPattern::Exact(name) => name.as_str(),
        HostPattern::Wildcard { suffix, .. } => suffix.as_str(),
        HostPattern::Any => "",
    }
}

/// Entries by host pattern. Lookups hash the name once, and once more for every label while there are wildcards
/// that may stand for several.
pub(crate) struct HostMap<T> {
    exact: Sharded<Arc<T>>,
    one_label: Sharded<Arc<T>>,
    labels: Sharded<Arc<T>>,
    any: Option<Arc<T>>,
}

impl<T> Clone for HostMap<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            one_label: self.one_label.clone(),
            labels: self.labels.clone(),
            any: self.any.clone(),
        }
    }
}

impl<T: Patterned> HostMap<T> {
    pub(crate) fn new() -> Self {
        Self {
            exact: Sharded::new(),
            one_label: Sharded::new(),
            labels: Sharded::new(),
            any: None,
        }
    }

    /// Adds `value` under its pattern and gives back what was there before.
    pub(crate) fn insert(&mut self, value: Arc<T>) -> Option<Arc<T>> {
        match shelf(value.pattern()) {
            Shelf::Exact => self.exact.insert(value),
            Shelf::OneLabel => self.one_label.insert(value),
            Shelf::Labels => self.labels.insert(value),
            Shelf::Any => self.any.replace(value),
        }
    }

    pub(crate) fn remove(&mut self, pattern: &HostPattern) -> Option<Arc<T>> {
        let key = key_text(pattern).as_bytes();
        match shelf(pattern) {
            Shelf::Exact => self.exact.remove(key),
            Shelf::OneLabel => self.one_label.remove(key),
            Shelf::Labels => self.labels.remove(key),
            Shelf::Any => self.any.take(),
        }
    }

    /// The most specific entry for `host`, which is in normal form.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<T>> {
        self.exact
            .get(host.as_bytes())
            .or_else(|| self.find_wildcard(host))
            .or(self.any.as_ref())
    }

    /// The entry for requests that name no host.
    pub(crate) fn any(&self) -> Option<&Arc<T>> {
        self.any.as_ref()
    }

    fn find_wildcard(&self, host: &str) -> Option<&Arc<T>> {
        if self.one_label.is_empty() && self.labels.is_empty() {
            return None;
        }
        let (label, mut suffix) = host.split_once('.')?;
        if !label.is_empty() {
            let found = self
                .one_label
                .get(suffix.as_bytes())
                .or_else(|| self.labels.get(suffix.as_bytes()));
            if found.is_some() {
                return found;
            }
        }
        if self.labels.is_empty() {
            return None;
        }
        while let Some((_, shorter)) = suffix.split_once('.') {
            suffix = shorter;
            let found = self.labels.get(suffix.as_bytes());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// All entries in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.exact
            .iter()
            .chain(self.one_label.iter())
            .chain(self.labels.iter())
            .chain(&self.any)
    }
}

enum Shelf {
    Exact,
    OneLabel,
    Labels,
    Any,
}

fn shelf(pattern: &HostPattern) -> Shelf {
    match pattern {
        HostPattern::Exact(_) => Shelf::Exact,
        HostPattern::Wildcard {
            depth: WildcardDepth::One,
            ..
        } => Shelf::OneLabel,
        HostPattern::Wildcard {
            depth: WildcardDepth::OneOrMore,
            ..
        } => Shelf::Labels,
        HostPattern::Any => Shelf::Any,
    }
}
