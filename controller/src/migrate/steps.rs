//! What there is to do. Pure.

use std::collections::{BTreeMap, BTreeSet};

use translate::{annotation, setting};

use super::report::{ConfigMapReport, IngressReport, Item, Readiness, Step, Verdict};

/// What to do: first what closes routes, then what is lost, each by the number of Ingresses. What means nothing here
/// needs no decision.
pub(super) fn steps(ingresses: &[IngressReport], configmap: Option<&ConfigMapReport>) -> Vec<Step> {
    let mut steps = steps_for_all(configmap);
    steps.extend(steps_for_some(ingresses));
    // Those of the ConfigMap first, where they are as grave.
    steps.sort_by_key(|(verdict, _)| *verdict);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// What the ConfigMap asks for and nothing here can do, and keys that nobody knows.
fn steps_for_all(configmap: Option<&ConfigMapReport>) -> Vec<(Verdict, Step)> {
    let items = configmap.into_iter().flat_map(|report| &report.items);
    let wanted = items.filter(|item| {
        item.verdict == Verdict::Refused
            || item.verdict == Verdict::Ignored && setting::find(&item.name).is_none()
    });
    wanted
        .map(|item| {
            let step = Step {
                what: format!("{} {} of the ConfigMap", verb(item.verdict), item.name),
                why: item.text.clone(),
                ingresses: Vec::new(),
            };
            (item.verdict, step)
        })
        .collect()
}

const fn verb(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Refused => "replace",
        Verdict::Ignored | Verdict::Different | Verdict::Honoured => "decide about",
    }
}

/// What closes an Ingress none of whose annotations is refused.
fn findings(ingresses: &[IngressReport]) -> Vec<(Verdict, Step)> {
    let refused = |item: &Item| item.verdict == Verdict::Refused;
    let mut causes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for ingress in ingresses {
        if ingress.readiness == Readiness::Blocked && !ingress.items.iter().any(refused) {
            for finding in &ingress.findings {
                let users = causes.entry(finding).or_default();
                users.insert(ingress.full_name());
            }
        }
    }
    causes
        .into_iter()
        .map(|(finding, users)| {
            let step = Step {
                what: "see to".to_owned(),
                why: finding.to_owned(),
                ingresses: users.into_iter().collect(),
            };
            (Verdict::Refused, step)
        })
        .collect()
}

fn steps_for_some(ingresses: &[IngressReport]) -> Vec<(Verdict, Step)> {
    let mut causes: BTreeMap<_, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
    for ingress in ingresses {
        for item in &ingress.items {
            let known = annotation::find(&item.name);
            let wanted = match (item.verdict, known.map(|known| known.verdict)) {
                (Verdict::Ignored, Some(annotation::Verdict::Ignored(why))) => {
                    why == annotation::PENDING || why != item.text
                }
                (Verdict::Refused | Verdict::Ignored, _) => true,
                (Verdict::Different | Verdict::Honoured, _) => false,
            };
            if wanted {
                let group = known.map(|known| known.group);
                let cause = causes.entry((item.verdict, group, item.text.as_str()));
                let (names, users) = cause.or_default();
                names.insert(&item.name);
                users.insert(ingress.full_name());
            }
        }
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|((verdict, ..), (names, users))| {
        (*verdict, std::cmp::Reverse(users.len()), names.clone())
    });
    let causes = causes
        .into_iter()
        .map(|((verdict, _, text), (names, users))| {
            let names: Vec<&str> = names.into_iter().collect();
            let step = Step {
                what: format!("{} {}", verb(verdict), names.join(", ")),
                why: text.to_owned(),
                ingresses: users.into_iter().collect(),
            };
            (verdict, step)
        });
    let mut steps: Vec<_> = causes.collect();
    steps.extend(findings(ingresses));
    steps
}
