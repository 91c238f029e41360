//! The routes of one host, and which of them takes a request.

use std::cmp::Reverse;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use model::{NormalPath, PathMatch, RouteMatch};
use smallvec::SmallVec;

use crate::Lookup;
use crate::conditions::Conditions;
use crate::listeners::ListenerMask;
use crate::pattern::{Anchor, Pattern, Patterns};
use crate::route::CompiledRoute;
use crate::text::Text;

/// Up to this many routes, trying one after the other is faster than hashing.
const FEW: usize = 8;

/// Rank of a route among those of its host; the lowest that matches wins.
///
/// The order of the fields is the rule: exact paths, then prefixes, then regular expressions; the longer text first;
/// then method, number of header matches, number of query matches; then the order of the list (Ingress API,
/// "Multiple matches"; Gateway API, `HTTPRouteRule`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Specificity {
    kind: PathKind,
    length: Reverse<usize>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    position: usize,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

impl Specificity {
    /// The rank of the route that is at `position` in its host's list.
    pub(crate) fn of(matches: &RouteMatch, position: usize) -> Self {
        let RouteMatch {
            path,
            method,
            headers,
            query,
        } = matches;
        let (kind, length) = match path {
            PathMatch::Exact(path) => (PathKind::Exact, path.as_str().len()),
            PathMatch::Prefix(path) => (PathKind::Prefix, path.as_str().len()),
            PathMatch::Regex(text) => (PathKind::Regex, text.len()),
        };
        Self {
            kind,
            length: Reverse(length),
            method: Reverse(method.is_some()),
            headers: Reverse(headers.len()),
            query: Reverse(query.len()),
            position,
        }
    }
}

/// One route with what it demands of a request.
pub(crate) struct Rule {
    /// Where the route is in its host's list.
    pub(crate) position: usize,
    pub(crate) listeners: ListenerMask,
    pub(crate) route: Arc<CompiledRoute>,
    path: RulePath,
    conditions: Option<Box<Conditions>>,
}

enum RulePath {
    Exact(Text),
    /// Without its trailing slash; the root is empty.
    Prefix(Text),
    Regex(Arc<Pattern>),
}

impl Rule {
    /// Compiles the conditions under which `route` takes a request.
    pub(crate) fn compile(
        matches: &RouteMatch,
        position: usize,
        listeners: ListenerMask,
        patterns: &mut Patterns,
        route: impl FnOnce(&mut Patterns) -> CompiledRoute,
    ) -> Result<Self, String> {
        let path = match &matches.path {
            PathMatch::Exact(path) => RulePath::Exact(Text::new(path.as_str())),
            PathMatch::Prefix(path) => RulePath::Prefix(Text::new(without_slash(path))),
            PathMatch::Regex(text) => patterns
                .compile(Anchor::Start, text)
                .map(RulePath::Regex)
                .map_err(|fault| format!("regular expression `{text}`: {fault}"))?,
        };
        let conditions = Conditions::compile(matches, patterns)?;
        Ok(Self {
            position,
            listeners,
            route: Arc::new(route(patterns)),
            path,
            conditions,
        })
    }

    fn path_holds(&self, path: &str) -> bool {
        let path = path.as_bytes();
        match &self.path {
            RulePath::Exact(exact) => exact.as_bytes() == path,
            RulePath::Prefix(prefix) => path
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
            RulePath::Regex(pattern) => pattern.matches(path),
        }
    }

    fn rest_holds(&self, request: &Lookup<'_>) -> bool {
        self.listeners.contains(request.listener)
            && self
                .conditions
                .as_ref()
                .is_none_or(|conditions| conditions.hold(request))
    }
}

fn without_slash(path: &NormalPath) -> &str {
    let path = path.as_str();
    path.strip_suffix('/').unwrap_or(path)
}

/// The rules of a host, arranged for lookup.
pub(crate) enum Paths {
    /// In the order of their rank. Most hosts have one or two.
    Few(SmallVec<[Rule; 2]>),
    Many(Box<Index>),
}

/// Rules by path text. Every list is in the order of its ranks.
pub(crate) struct Index {
    hasher: RandomState,
    exact: HashTable<Group>,
    prefixes: HashTable<Group>,
    /// Lengths that occur among the prefixes, longest first. Only these are tried, so that a long path costs nothing
    /// but what the routes of this host ask for.
    lengths: Box<[usize]>,
    regexes: Box<[Rule]>,
}

/// Rules that are filed under one text.
struct Group {
    text: Text,
    rules: SmallVec<[Rule; 1]>,
}

impl Paths {
    /// Arranges `rules`, which come with their ranks.
    pub(crate) fn new(mut rules: Vec<(Specificity, Rule)>) -> Self {
        rules.sort_unstable_by_key(|(rank, _)| *rank);
        let few = rules.len() <= FEW;
        let rules = rules.into_iter().map(|(_, rule)| rule);
        if few {
            Self::Few(rules.collect())
        } else {
            Self::Many(Box::new(Index::new(rules)))
        }
    }

    /// The rule that takes `request`.
    pub(crate) fn find(&self, request: &Lookup<'_>) -> Option<&Rule> {
        match self {
            Self::Few(rules) => rules
                .iter()
                .find(|rule| rule.path_holds(request.path) && rule.rest_holds(request)),
            Self::Many(index) => index.find(request),
        }
    }

    /// All rules in no particular order.
    pub(crate) fn rules(&self) -> Vec<&Rule> {
        match self {
            Self::Few(rules) => rules.iter().collect(),
            Self::Many(index) => {
                let groups = index.exact.iter().chain(index.prefixes.iter());
                groups
                    .flat_map(|group| &group.rules)
                    .chain(&index.regexes)
                    .collect()
            }
        }
    }
}

impl Index {
    /// Files `rules`, which are in the order of their ranks.
    fn new(rules: impl Iterator<Item = Rule>) -> Self {
        let mut index = Self {
            hasher: RandomState::new(),
            exact: HashTable::new(),
            prefixes: HashTable::new(),
            lengths: Box::default(),
            regexes: Box::default(),
        };
        let mut lengths = Vec::new();
        let mut regexes = Vec::new();
        for rule in rules {
            match &rule.path {
                RulePath::Exact(_) => file(&index.hasher, &mut index.exact, rule),
                RulePath::Prefix(text) => {
                    lengths.push(text.as_bytes().len());
                    file(&index.hasher, &mut index.prefixes, rule);
                }
                RulePath::Regex(_) => regexes.push(rule),
            }
        }
        lengths.sort_unstable_by_key(|length| Reverse(*length));
        lengths.dedup();
        index.lengths = lengths.into();
        index.regexes = regexes.into();
        index
    }

    fn find(&self, request: &Lookup<'_>) -> Option<&Rule> {
        self.filed(&self.exact, request.path.as_bytes(), request)
            .or_else(|| self.find_prefix(request))
            .or_else(|| {
                self.regexes
                    .iter()
                    .find(|rule| rule.path_holds(request.path) && rule.rest_holds(request))
            })
    }

    /// A group holds `/a/` before `/a`: both are filed under the text without the slash, and the longer comes first.
    /// So one look per length suffices.
    fn find_prefix(&self, request: &Lookup<'_>) -> Option<&Rule> {
        let path = request.path.as_bytes();
        self.lengths.iter().find_map(|&length| {
            let (prefix, rest) = path.split_at_checked(length)?;
            let whole_elements = matches!(rest.first(), None | Some(b'/'));
            whole_elements
                .then(|| self.filed(&self.prefixes, prefix, request))
                .flatten()
        })
    }

    fn filed<'a>(
        &self,
        groups: &'a HashTable<Group>,
        text: &[u8],
        request: &Lookup<'_>,
    ) -> Option<&'a Rule> {
        groups
            .find(self.hasher.hash_one(text), |group| {
                group.text.as_bytes() == text
            })?
            .rules
            .iter()
            .find(|rule| rule.rest_holds(request))
    }
}

fn file(hasher: &RandomState, groups: &mut HashTable<Group>, rule: Rule) {
    let (RulePath::Exact(text) | RulePath::Prefix(text)) = &rule.path else {
        return;
    };
    let text = text.as_bytes();
    let entry = groups.entry(
        hasher.hash_one(text),
        |group| group.text.as_bytes() == text,
        |group| hasher.hash_one(group.text.as_bytes()),
    );
    let group = entry.or_insert_with(|| Group {
        text: Text::from(text),
        rules: SmallVec::new(),
    });
    group.into_mut().rules.push(rule);
}
