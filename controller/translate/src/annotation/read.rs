//! Reads the annotations of an Ingress.

use std::collections::{BTreeMap, BTreeSet};

use super::{Annotation, Annotations, Verdict, find, near};
use crate::Problem;
use crate::report::{Reason, quoted};

/// What inspects requests; `false` says that those of this Ingress need not be.
const FIREWALL: &str = "enable-modsecurity";
/// Says the same for whatever asks for it.
const WITHOUT_FIREWALL: &str = "accept-without-waf";

/// Reads the annotations of an Ingress.
///
/// Of a name that stands under several prefixes the first prefix counts.
pub(crate) fn read(
    annotations: Option<&BTreeMap<String, String>>,
    prefixes: &[String],
    problems: &mut Vec<Problem>,
) -> Annotations {
    let mut reader = Reader {
        read: Annotations::default(),
        seen: BTreeMap::new(),
        refused: Vec::new(),
        waived: BTreeSet::new(),
        problems,
    };
    for prefix in prefixes {
        for (name, text) in annotations.into_iter().flatten() {
            let short = name
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_prefix('/'));
            if let Some(short) = short {
                reader.annotation(name, short, text);
            }
        }
    }
    reader.finish()
}

struct Reader<'a> {
    read: Annotations,
    /// By their names without prefix, with their whole names.
    seen: BTreeMap<&'a str, &'a str>,
    refused: Vec<(&'static Annotation, Box<str>, String)>,
    /// What the owner accepts to go without.
    waived: BTreeSet<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn annotation(&mut self, name: &'a str, short: &'a str, text: &str) {
        let short = near::current(short);
        let field = format!("metadata.annotations[{name}]");
        if let Some(first) = self.seen.get(short) {
            self.problems.push(Problem::warning(
                Reason::Conflict,
                &field,
                &format!("`{first}` has the same name and counts; this one has no effect"),
            ));
            return;
        }
        self.seen.insert(short, name);
        let Some(annotation) = find(short) else {
            self.unknown(short, &field);
            return;
        };
        if let Some(read) = annotation.read {
            if let Err(reason) = read(&mut self.read, text) {
                if annotation.waiver.is_some() {
                    self.refused.push((annotation, reason.into(), field));
                } else {
                    self.invalid(annotation, &field, text, &reason);
                }
            } else if annotation.own && annotation.harmless.iter().all(|none| *none != text.trim())
            {
                self.waived.insert(annotation.name);
            }
            return;
        }
        match annotation.verdict_on(text) {
            Verdict::Ignored(why) => self.problems.push(Problem::warning(
                Reason::UnsupportedAnnotation,
                &field,
                &format!("this annotation has no effect: {why}"),
            )),
            Verdict::Refused(why) => self.refused.push((annotation, why.into(), field)),
            // It asks for nothing.
            Verdict::Honoured | Verdict::Different(_) => {
                self.read.without_firewall |= annotation.name == FIREWALL;
            }
        }
    }

    fn invalid(&mut self, annotation: &Annotation, field: &str, text: &str, reason: &str) {
        let consequence = if annotation.guards {
            self.close("invalid-annotation");
            "the routes of this Ingress answer 503 rather than without it"
        } else {
            annotation.otherwise
        };
        self.problems.push(Problem::error(
            Reason::InvalidAnnotation,
            field,
            &format!("{} cannot be used: {reason}; {consequence}", quoted(text)),
        ));
    }

    fn unknown(&mut self, short: &str, field: &str) {
        if let Some(instead) = near::former(short) {
            self.problems.push(Problem::warning(
                Reason::UnknownAnnotation,
                field,
                &format!("there is no such annotation: {instead}; it has no effect"),
            ));
            return;
        }
        let Some(meant) = near::nearest(short) else {
            self.problems.push(Problem::warning(
                Reason::UnknownAnnotation,
                field,
                "there is no such annotation; it has no effect",
            ));
            return;
        };
        let text = format!(
            "there is no such annotation; did you mean `{}`?",
            meant.name
        );
        if meant.guards {
            // Whoever mistypes a guard means to have one.
            self.close("invalid-annotation");
            let text =
                format!("{text} The routes of this Ingress answer 503 rather than without it");
            let problem = Problem::error(Reason::UnknownAnnotation, field, &text);
            self.problems.push(problem);
        } else {
            let text = format!("{text} It has no effect");
            let problem = Problem::warning(Reason::UnknownAnnotation, field, &text);
            self.problems.push(problem);
        }
    }

    fn close(&mut self, reason: &'static str) {
        self.read.closed.get_or_insert(reason);
    }

    fn finish(mut self) -> Annotations {
        self.read.without_firewall |= self.waived.contains(WITHOUT_FIREWALL);
        let is_canary = self.read.is_canary();
        if is_canary {
            // The Ingress that it belongs to guards it.
            self.read.closed = None;
        }
        for (annotation, why, field) in std::mem::take(&mut self.refused) {
            let waiver = annotation.waiver;
            let problem = if is_canary {
                Problem::warning(
                    Reason::UnsupportedAnnotation,
                    &field,
                    "a canary has the annotations of the Ingress that it belongs to; this one has no effect",
                )
            } else if let Some(waiver) = waiver.filter(|waiver| self.waived.contains(waiver)) {
                Problem::warning(
                    Reason::UnsupportedAnnotation,
                    &field,
                    &format!("{why}; the routes are served without it, as `{waiver}` says"),
                )
            } else {
                self.close("unsupported-annotation");
                let way_out = waiver.map_or_else(String::new, |waiver| {
                    format!(
                        "; `{}{waiver}: \"true\"` serves them",
                        crds::ANNOTATION_PREFIX
                    )
                });
                Problem::error(
                    Reason::UnsupportedAnnotation,
                    &field,
                    &format!(
                        "{why}; the routes of this Ingress answer 503 rather than without it{way_out}"
                    ),
                )
            };
            self.problems.push(problem);
        }
        if self.read.canary.is_some() && !is_canary {
            self.problems.push(Problem::warning(
                Reason::UnsupportedAnnotation,
                "metadata.annotations",
                "the annotations of a canary have no effect without `canary: \"true\"`",
            ));
        }
        self.read
    }
}
