//! A header section as it came: its bytes, and where in them the fields stand.
//!
//! Few fields of a request are looked at by anybody. A section finds those by their place and becomes a map only when
//! somebody asks for one.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::names;

/// From where to where something stands.
pub(crate) type Span = (usize, usize);

/// A field by its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The name.
    pub(crate) name: Span,
    /// The value.
    pub(crate) value: Span,
    /// The [`mark`] of its name.
    pub(crate) mark: u8,
    /// Is it for more than this connection?
    pub(crate) end_to_end: bool,
    /// Is its line written as Lockgate writes one?
    pub(crate) usual: bool,
    /// Must it never be kept in a table of header compression (RFC 7541, 6.2.3)?
    pub(crate) sensitive: bool,
}

impl Field {
    /// A field of `section`.
    pub(crate) fn new(section: &[u8], name: Span, value: Span, end_to_end: bool) -> Self {
        let usual = value.0 == name.1 + 2
            && get(section, (name.1, value.0)) == b": "
            && get(section, (value.1, value.1 + 2)) == b"\r\n";
        Self {
            name,
            value,
            mark: mark(get(section, name)),
            end_to_end,
            usual,
            sensitive: false,
        }
    }
}

/// What stands there.
pub(crate) fn get(whole: &[u8], span: Span) -> &[u8] {
    whole.get(span.0..span.1).unwrap_or_default()
}

/// A number below 64 that is the same for all spellings of a name. Most names have another one than those that are
/// looked for, and nothing is compared.
pub(crate) fn mark(name: &[u8]) -> u8 {
    let [first, .., before, last] = name else {
        return 0;
    };
    // Letters of both cases become the same.
    let weight = |byte: &u8| usize::from(*byte | 0x20);
    let sum = name.len() + 3 * weight(first) + 5 * weight(before) + 7 * weight(last);
    u8::try_from(sum & 63).unwrap_or(0)
}

/// The header section of a request.
#[derive(Debug, Default)]
pub(crate) struct Section {
    bytes: Bytes,
    fields: Vec<Field>,
    /// A bit for the mark of each name.
    marks: u64,
    map: OnceLock<HeaderMap>,
}

impl Section {
    /// These fields of these bytes. Their names and values are what a parser lets pass.
    pub(crate) fn new(bytes: Bytes, fields: Vec<Field>) -> Self {
        let marks = fields
            .iter()
            .fold(0, |marks, field| marks | 1 << field.mark);
        Self {
            bytes,
            fields,
            marks,
            map: OnceLock::new(),
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The memory for the fields, to be used again.
    pub(crate) fn into_memory(self) -> Vec<Field> {
        self.fields
    }

    /// All fields as a map.
    pub(crate) fn map(&self) -> &HeaderMap {
        self.map.get_or_init(|| {
            let mut map = HeaderMap::with_capacity(self.fields.len());
            for field in &self.fields {
                // Whatever is a field to `httparse` is one to `http`: there is a test for it.
                if let (Some(name), Some(value)) = (self.name(field), self.value(field)) {
                    map.append(name, value);
                }
            }
            map
        })
    }

    /// The fields of this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Field> {
        let mark = mark(name.as_bytes());
        let fields = if self.marks & 1 << mark == 0 {
            &[]
        } else {
            self.fields.as_slice()
        };
        fields.iter().filter(move |field| {
            field.mark == mark && get(&self.bytes, field.name).eq_ignore_ascii_case(name.as_bytes())
        })
    }

    /// The name of a field.
    pub(crate) fn name(&self, field: &Field) -> Option<HeaderName> {
        names::name(get(&self.bytes, field.name))
    }

    /// The value of a field.
    pub(crate) fn value(&self, field: &Field) -> Option<HeaderValue> {
        let (start, end) = field.value;
        let mut value = HeaderValue::from_maybe_shared(self.bytes.slice(start..end)).ok()?;
        value.set_sensitive(field.sensitive);
        Some(value)
    }

    /// How long all names and values are together.
    pub(crate) fn size(&self) -> usize {
        let sizes = self
            .fields
            .iter()
            .map(|field| field.name.1 - field.name.0 + field.value.1 - field.value.0);
        sizes.sum()
    }
}
