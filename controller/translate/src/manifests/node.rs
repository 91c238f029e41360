//! A YAML or JSON document as a tree that remembers its lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// The nodes of one document that are read before it is refused.
const MOST_NODES: usize = 5_000_000;

/// The values one document may hold in text, in bytes.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// A value and the line it starts on. Lines of JSON documents are those of the document's start.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Scalar(Value),
    List(Vec<Node>),
    /// Key, its line, value.
    Map(Vec<(String, usize, Node)>),
}

/// Why a document is no tree.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Counted from 1; 0 if it is not known.
    pub(super) line: usize,
    pub(super) reason: String,
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    // JSON may be indented with tabs, which YAML refuses.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        let before = text.len() - text.trim_start().len();
        let line = 1 + text.bytes().take(before).filter(|b| *b == b'\n').count();
        return Ok(Node::from_json(value, line));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: MOST_NODES,
            max_events: 4 * MOST_NODES,
            max_total_scalar_bytes: MOST_BYTES,
        },
    };
    serde_saphyr::from_str_with_options::<Spanned<Bare>>(text, options)
        .map(Node::from)
        .map_err(|error| Unreadable {
            line: error
                .location()
                .and_then(|location| usize::try_from(location.line()).ok())
                .unwrap_or_default(),
            reason: format!("it cannot be read as YAML: {}", without_location(&error)),
        })
}

/// The line within the document would only be mistaken for the line within the file.
fn without_location(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    match text.rfind(" at line ").and_then(|end| text.get(..end)) {
        Some(text) => text.to_owned(),
        None => text.to_owned(),
    }
}

impl Node {
    fn from_json(value: Value, line: usize) -> Self {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Array(items) => Kind::List(
                items
                    .into_iter()
                    .map(|item| Self::from_json(item, line))
                    .collect(),
            ),
            Value::Object(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, line, Self::from_json(value, line)))
                    .collect(),
            ),
            scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => Kind::Scalar(scalar),
        };
        Self { line, kind }
    }

    /// The value of a key, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(name, _, _)| name == key)
                .map(|(_, _, value)| value),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) => None,
        }
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// Without the lines.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::value).collect(),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, _, value)| (key.clone(), value.value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    pub(super) fn shift(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.kind {
            Kind::Null | Kind::Scalar(_) => {}
            Kind::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Kind::Map(entries) => {
                for (_, line, value) in entries {
                    *line += lines;
                    value.shift(lines);
                }
            }
        }
    }
}

/// What the deserialiser builds; [`Spanned`] adds the lines.
enum Bare {
    Null,
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl From<Spanned<Bare>> for Node {
    fn from(spanned: Spanned<Bare>) -> Self {
        let line = line_of(&spanned);
        let kind = match spanned.value {
            Bare::Null => Kind::Null,
            Bare::Scalar(value) => Kind::Scalar(value),
            Bare::List(items) => Kind::List(items.into_iter().map(Self::from).collect()),
            Bare::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let line = line_of(&key);
                        (key.value, line, Self::from(value))
                    })
                    .collect(),
            ),
        };
        Self { line, kind }
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or_default()
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor)
    }
}

struct BareVisitor;

impl<'de> Visitor<'de> for BareVisitor {
    type Value = Bare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bare, E> {
        Ok(Bare::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bare, E> {
        Ok(Bare::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Bare, E> {
        Ok(Bare::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bare, E> {
        Ok(
            Number::from_f64(value)
                .map_or(Bare::Null, |number| Bare::Scalar(Value::Number(number))),
        )
    }

    fn visit_str<E>(self, value: &str) -> Result<Bare, E> {
        Ok(Bare::Scalar(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Bare, E> {
        Ok(Bare::Scalar(Value::String(value)))
    }

    fn visit_unit<E>(self) -> Result<Bare, E> {
        Ok(Bare::Null)
    }

    fn visit_none<E>(self) -> Result<Bare, E> {
        Ok(Bare::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bare, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bare, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Bare::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Bare, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Bare::Map(map))
    }
}
