//! YAML documents → objects.
//!
//! Takes what `kubectl apply` takes: a stream of documents, each an object or a `List` of them, in YAML or JSON. One
//! document that cannot be read does not harm the others, and every problem names its document and line.
//!
//! Beyond what the API server stores: `stringData` of a Secret is moved into `data`; `Endpoints` are turned into
//! EndpointSlices, as the API server's mirroring does; a namespaced object without a namespace is in `default`. What
//! the API server would fill in is filled in only where translation needs it.

mod endpoints;
mod node;
mod objects;

use std::fmt;

use self::node::Node;
use crate::{Object, Severity};

/// What a stream of manifests holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects, in the order of the stream.
    pub objects: Vec<Object>,
    /// The line of the stream at which each of the objects begins, counted from 1.
    pub lines: Vec<usize>,
    /// What could not be read, or will have no effect.
    pub problems: Vec<ManifestProblem>,
}

/// Something that is wrong with a manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestProblem {
    /// Which document of the stream, counted from 1.
    pub document: usize,
    /// Which line of the stream, counted from 1.
    pub line: usize,
    /// What is wrong, in words.
    pub message: String,
    /// An error: the object is left out. A warning: it is read, but not as it is written.
    pub severity: Severity,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            document,
            line,
            message,
            severity,
        } = self;
        write!(
            f,
            "line {line} (document {document}): {severity}: {message}"
        )
    }
}

/// Reads a stream of manifests. Total: whatever cannot be read is a problem.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, document) in documents(text).into_iter().enumerate() {
        let mut sink = Sink {
            document: index + 1,
            parsed: &mut parsed,
        };
        match node::read(document.text) {
            Ok(node) => objects::read(&node.moved(document.line - 1), &mut sink),
            Err(node::Unreadable { line, reason }) => {
                sink.error(document.line + line.saturating_sub(1), reason);
            }
        }
    }
    parsed
}

/// Where the objects and problems of one document go.
struct Sink<'a> {
    document: usize,
    parsed: &'a mut Parsed,
}

impl Sink<'_> {
    fn error(&mut self, line: usize, message: String) {
        self.problem(line, message, Severity::Error);
    }

    fn object(&mut self, line: usize, object: Object) {
        self.parsed.objects.push(object);
        self.parsed.lines.push(line);
    }

    fn warning(&mut self, line: usize, message: String) {
        self.problem(line, message, Severity::Warning);
    }

    fn problem(&mut self, line: usize, message: String, severity: Severity) {
        self.parsed.problems.push(ManifestProblem {
            document: self.document,
            line,
            message,
            severity,
        });
    }
}

struct Document<'a> {
    /// Line of its first character, counted from 1.
    line: usize,
    text: &'a str,
}

/// Cuts the stream at its document markers, which stand at the start of a line and nowhere else (YAML 1.2, 9.1.2). So a
/// document that does not parse leaves the others alone. Documents with nothing but comments are left out.
fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut offset, mut line) = (0, 1);
    for full in text.split_inclusive('\n') {
        let content = full.trim_end();
        let marker = content == "---" || content == "..." || content.starts_with("--- ");
        if marker {
            push(&mut found, text.get(start..offset), start_line);
            // What follows on the line of `---` belongs to the new document.
            start = offset + 3;
            start_line = line;
        }
        offset += full.len();
        line += 1;
    }
    push(&mut found, text.get(start..), start_line);
    found
}

fn push<'a>(found: &mut Vec<Document<'a>>, text: Option<&'a str>, line: usize) {
    let Some(text) = text else { return };
    let empty = text.lines().all(|line| {
        let line = line.trim_start();
        line.is_empty() || line.starts_with('#') || line.starts_with("%YAML")
    });
    if !empty {
        found.push(Document { line, text });
    }
}

impl Node {
    /// The same, `lines` further down.
    fn moved(mut self, lines: usize) -> Self {
        self.shift(lines);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_at_its_markers() {
        let text = "# only a comment\n---\na: 1\n--- # note\nb: |\n  --- not a marker\n...\n---\n\n---\nc: 1";
        let documents: Vec<_> = documents(text)
            .into_iter()
            .map(|document| (document.line, document.text.trim()))
            .collect();
        assert_eq!(
            documents,
            [
                (2, "a: 1"),
                (4, "# note\nb: |\n  --- not a marker"),
                (10, "c: 1")
            ]
        );
    }
}
