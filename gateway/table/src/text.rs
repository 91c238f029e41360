//! Short texts that lie where they are used: on the way of a lookup each pointer followed is a wait for memory.

use std::fmt;

/// With its length and the kind this makes 40 bytes; nearly all host names and paths are shorter.
const INLINE: usize = 38;

/// A text, stored in place when it is short.
pub(crate) enum Text {
    Short { length: u8, bytes: [u8; INLINE] },
    Long(Box<[u8]>),
}

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        text.as_bytes().into()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text);
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_comes_back() {
        assert_eq!(size_of::<Text>(), 40);
        for length in 0..300 {
            let text = "x".repeat(length);
            let stored = Text::new(&text);
            assert_eq!(stored.as_bytes(), text.as_bytes());
            assert_eq!(matches!(stored, Text::Short { .. }), length <= INLINE);
        }
    }
}
