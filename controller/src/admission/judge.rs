//! What is refused, and of what there is only a warning.
//!
//! | what would follow | verdict |
//! | --- | --- |
//! | an error that only the owner of the object can solve | refused |
//! | an error that another object solves (a Service that comes later) | a warning: the order of applying must not matter |
//! | an error that is there already | a warning: whoever changes something else is not held up |
//! | a warning | a warning |

use model::ObjectRef;
use table::Reject;
use translate::{Previewed, Problem, Reason, Severity, kinds};

/// How many faults are named.
const NAMED: usize = 10;

/// What is said about an object.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Judgement {
    /// Why it is refused; nothing if it is not.
    pub(super) refusals: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Judges an object by what would become of it. `rejected` is what the table cannot take of it at present.
pub(super) fn judge(foreseen: Previewed, rejected: &[Reject]) -> Judgement {
    let Previewed {
        object,
        model,
        problems,
        present,
        others,
    } = foreseen;
    let mut judgement = Judgement::default();
    for problem in problems {
        let is_news = !present.contains(&problem);
        judgement.add(
            &object,
            refuses(&object, &problem),
            is_news,
            &problem.message,
        );
    }
    if *object.kind == *kinds::INGRESS {
        let rejects = table::compile(&model).rejects;
        for reject in rejects
            .iter()
            .filter(|reject| *reject.origin.object == object)
        {
            let Reject { origin, reason } = reject;
            let text = format!("{}: {reason}", origin.field);
            judgement.add(&object, true, !rejected.contains(reject), &text);
        }
    }
    for (other, problem) in others {
        let text = format!("{other}: {}", problem.message);
        if problem.reason == Reason::PolicyViolation && problem.severity == Severity::Error {
            judgement.refusals.push(text);
        } else {
            judgement.warnings.push(text);
        }
    }
    judgement
}

impl Judgement {
    fn add(&mut self, object: &ObjectRef, refuses: bool, is_news: bool, text: &str) {
        if refuses && is_news {
            self.refusals.push(text.to_owned());
        } else if refuses {
            self.warnings
                .push(format!("{object}: {text} (this is so already)"));
        } else {
            self.warnings.push(format!("{object}: {text}"));
        }
    }

    /// The refusals as one text.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.refusals.as_slice() {
            [] => None,
            [only] => Some(only.clone()),
            several => {
                let mut text = format!("{} faults:", several.len());
                for line in listed(several) {
                    text.push_str("\n- ");
                    text.push_str(&line);
                }
                Some(text)
            }
        }
    }

    /// The warnings, as many as anybody reads.
    pub(super) fn warnings(&self) -> Vec<String> {
        listed(&self.warnings)
    }
}

fn refuses(object: &ObjectRef, problem: &Problem) -> bool {
    // The fault of a RoutePolicy is that of its owner, whoever names it.
    let of_a_policy = *object.kind == *kinds::INGRESS && problem.reason == Reason::InvalidPolicy;
    problem.severity == Severity::Error && !problem.reason.awaits_others() && !of_a_policy
}

fn listed(all: &[String]) -> Vec<String> {
    let mut listed: Vec<String> = all.iter().take(NAMED).cloned().collect();
    if all.len() > NAMED {
        listed.push(format!("{} more are not listed", all.len() - NAMED));
    }
    listed
}
