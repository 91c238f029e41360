//! Regular expressions of routes: anchored, limited in size, linear in time.

use std::sync::Arc;

use regex::bytes::{Captures, Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use crate::intern::Interned;

/// Memory that one compiled expression may take. Expressions of real routes need a few kilobytes.
const SIZE_LIMIT: usize = 1 << 20;
/// Memory for the states that matching discovers, per expression and thread.
const CACHE_LIMIT: usize = 256 << 10;

/// Which ends of the text an expression has to touch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Anchor {
    /// The start.
    Start,
    /// Both.
    Whole,
    /// None.
    None,
}

/// Compiled expressions, shared by the routes that are written alike.
pub(crate) type Patterns = Interned<(Anchor, String), Pattern>;

impl Patterns {
    /// The compiled form of `text`, or why there is none.
    pub(crate) fn compile(&mut self, anchor: Anchor, text: &str) -> Result<Arc<Pattern>, String> {
        self.get_or_make(&(anchor, text.to_owned()), || Pattern::new(anchor, text))
    }
}

/// An anchored regular expression.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Every match begins with this. Comparing it first keeps a long list of expressions fast.
    literal: Box<[u8]>,
    regex: Regex,
}

impl Pattern {
    fn new(anchor: Anchor, text: &str) -> Result<Self, String> {
        // By itself first: `a)|(?:b` would be an expression within the group below, and not be anchored.
        // Bytes first: paths are ASCII, where the classes mean the same and are far smaller.
        let (unicode, hir) = match parse(text, false) {
            Ok(hir) => (false, hir),
            Err(_) => (true, parse(text, true)?),
        };
        let anchored = match anchor {
            Anchor::Start => format!("^(?:{text})"),
            Anchor::Whole => format!("^(?:{text})$"),
            Anchor::None => text.to_owned(),
        };
        let regex = RegexBuilder::new(&anchored)
            .unicode(unicode)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(CACHE_LIMIT)
            .build()
            .map_err(|error| {
                if let regex::Error::CompiledTooBig(limit) = error {
                    format!("it takes more than {limit} bytes when compiled")
                } else {
                    one_line(&error.to_string())
                }
            })?;
        let literal = match anchor {
            // It may match anywhere.
            Anchor::None => Box::default(),
            Anchor::Start | Anchor::Whole => Extractor::new()
                .kind(ExtractKind::Prefix)
                .extract(&hir)
                .longest_common_prefix()
                .unwrap_or_default()
                .into(),
        };
        Ok(Self { literal, regex })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        text.starts_with(&self.literal) && self.regex.is_match(text)
    }

    /// What its groups match.
    pub(crate) fn captures<'a>(&self, text: &'a [u8]) -> Option<Captures<'a>> {
        self.regex.captures(text)
    }
}

fn parse(text: &str, unicode: bool) -> Result<Hir, String> {
    ParserBuilder::new()
        .unicode(unicode)
        .utf8(false)
        .build()
        .parse(text)
        .map_err(|error| match error {
            regex_syntax::Error::Parse(error) => {
                format!(
                    "{} at character {}",
                    error.kind(),
                    error.span().start.column
                )
            }
            regex_syntax::Error::Translate(error) => {
                format!(
                    "{} at character {}",
                    error.kind(),
                    error.span().start.column
                )
            }
            other => one_line(&other.to_string()),
        })
}

/// The last line of a message; the lines above it repeat the expression.
fn one_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_anchored_as_a_whole() {
        for (anchor, pattern, text, want, why) in [
            (Anchor::Start, "/a", "/ab", true, "the end is free"),
            (Anchor::Start, "/a", "/b/a", false, "the start is not"),
            (
                Anchor::Start,
                "/a|/b",
                "/x/b",
                false,
                "every alternative is anchored",
            ),
            (Anchor::Start, "^/a$", "/a", true, "own anchors do no harm"),
            (Anchor::Start, "(?i)/A", "/a", true, "flags work"),
            (
                Anchor::Start,
                "(?i)/api/x",
                "/API/X/1",
                true,
                "no literal is too long",
            ),
            (
                Anchor::Start,
                "(?m)^/b",
                "/a\n/b",
                false,
                "nor do they lift the anchor",
            ),
            (Anchor::Start, r"/\w+/\d", "/ab/1", true, ""),
            (Anchor::Start, r"/[^/]+/x", "/a%C3%A4/x", true, ""),
            (Anchor::Start, r"/(api|apx)/\d", "/apx/1", true, ""),
            (
                Anchor::Start,
                r"/\p{Greek}",
                "/a",
                false,
                "Unicode classes are known",
            ),
            (
                Anchor::Whole,
                "/a|/ab",
                "/ab",
                true,
                "not the leftmost alternative alone",
            ),
            (
                Anchor::Whole,
                "a",
                "a\n",
                false,
                "a line end is a character",
            ),
            (
                Anchor::Whole,
                "a.c",
                "a\u{e9}c",
                false,
                "a dot is a byte, and that letter has two",
            ),
        ] {
            let compiled = Pattern::new(anchor, pattern).unwrap();
            assert_eq!(
                compiled.matches(text.as_bytes()),
                want,
                "{pattern} {text}: {why}"
            );
        }
    }

    #[test]
    fn a_broken_expression_says_where() {
        for (pattern, want) in [
            ("/a(", "unclosed group at character 3"),
            ("/a)|(?:/b", "unopened group at character 3"),
            (r"/(?=a)", "look-around"),
            (r"/(a)\1", "backreferences"),
            ("/(a{1000}){1000}", "more than 1048576 bytes"),
            (r"/\p{Nope}", "Unicode property not found at character 2"),
        ] {
            let reason = Pattern::new(Anchor::Start, pattern).unwrap_err();
            assert!(reason.contains(want), "{pattern}: {reason}");
            assert_eq!(reason.lines().count(), 1, "{reason}");
        }
    }
}
