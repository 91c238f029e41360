//! Objects in, report out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::Ingress;
use model::{Action, ObjectRef};
use translate::annotation::{self, Annotation};
use translate::{
    Change, NamespacedName, Object, Problem, Reason, Settings, Severity, kinds, setting,
};

use super::flags::OldFlags;
use super::report::{
    ConfigMapReport, IngressReport, Item, LeftOut, Readiness, Report, Risk, Summary, Usage, Verdict,
};
use super::steps::steps;
use crate::render::Evaluation;

/// What a problem says that closes the routes of an Ingress; the verdict says it already.
const CLOSES: [&str; 2] = [
    "; the routes of this Ingress answer 503 rather than without it",
    " The routes of this Ingress answer 503 rather than without it",
];

/// The only ConfigMap among the objects, if it looks like that of a controller.
pub(super) fn only_configmap(changes: &[Change]) -> Option<NamespacedName> {
    let mut found = changes.iter().filter_map(|change| match change {
        Change::Apply(Object::ConfigMap(object)) => {
            let keys = object.data.as_ref()?;
            let known = keys.keys().any(|key| setting::find(key).is_some());
            known.then(|| name_of(&change_reference(change)))
        }
        Change::Apply(_) | Change::Delete(_) => None,
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn change_reference(change: &Change) -> ObjectRef {
    match change {
        Change::Apply(object) => object.reference(),
        Change::Delete(object) => object.clone(),
    }
}

fn name_of(object: &ObjectRef) -> NamespacedName {
    NamespacedName::new(&object.namespace, &object.name)
}

/// What becomes of the Ingresses.
pub(super) fn assess(
    result: &Evaluation,
    mut notes: Vec<String>,
    settings: Settings,
    old: &OldFlags,
) -> Report {
    let Settings {
        ingress_class: class,
        annotation_prefixes: prefixes,
        configmap,
        ..
    } = settings;
    let closed = closed(result);
    let mut missing = BTreeSet::new();
    let mut ingresses = Vec::new();
    for (name, ingress) in result.translator.snapshot().ingresses() {
        let object = name.reference(kinds::INGRESS);
        if !result.translator.report().claims(&object) {
            continue;
        }
        let problems = result.translator.report().problems_of(&object);
        missing.extend(
            problems
                .iter()
                .filter(|problem| problem.reason == Reason::SecretNotFound)
                .map(|_| name.to_string()),
        );
        let reasons = closed.get(&object).into_iter().flatten();
        if let Some(ingress) = ingress.unpack() {
            let report = ingress_report(name, &ingress, problems, reasons, &prefixes);
            ingresses.push(report);
        }
    }
    if !missing.is_empty() {
        notes.push(format!(
            "Secrets of {} Ingresses could not be read; whether they are good is not checked",
            missing.len()
        ));
    }
    ingresses.sort_by_cached_key(|ingress| (ingress.readiness, ingress.full_name()));
    let left_out = result
        .translator
        .report()
        .unclaimed()
        .map(|(object, why)| LeftOut {
            ingress: name_of(object).to_string(),
            why: why.to_owned(),
        })
        .collect();
    let mut configmap = configmap.and_then(|name| configmap_report(&name, result));
    if let Some(report) = &mut configmap {
        report.items.sort();
    }
    Report {
        summary: summary(class, &ingresses),
        steps: steps(&ingresses, configmap.as_ref()),
        annotations: usages(&ingresses),
        ingresses,
        configmap,
        flags: old.items(),
        left_out,
        notes,
    }
}

/// Why routes of Ingresses answer 503, or are not there.
fn closed(result: &Evaluation) -> BTreeMap<ObjectRef, BTreeSet<String>> {
    let mut closed: BTreeMap<ObjectRef, BTreeSet<String>> = BTreeMap::new();
    for host in result.translator.model().hosts.values() {
        for route in &host.routes {
            if let Action::Respond { reason, .. } = &route.action {
                let reasons = closed
                    .entry(ObjectRef::clone(&route.origin.object))
                    .or_default();
                reasons.insert(reason.clone());
            }
        }
    }
    for reject in &result.rejects {
        let reasons = closed
            .entry(ObjectRef::clone(&reject.origin.object))
            .or_default();
        reasons.insert(format!("{}: {}", reject.origin.field, reject.reason));
    }
    closed
}

fn ingress_report<'a>(
    name: &NamespacedName,
    ingress: &Ingress,
    problems: &[Problem],
    closed: impl Iterator<Item = &'a String>,
    prefixes: &[String],
) -> IngressReport {
    let annotations = ingress.metadata.annotations.iter().flatten();
    let mut items: Vec<Item> = annotations
        .filter_map(|(full, value)| {
            let short = prefixes
                .iter()
                .find_map(|prefix| full.strip_prefix(prefix)?.strip_prefix('/'))?;
            let field = format!("metadata.annotations[{full}]");
            let about = problems.iter().filter(|problem| *problem.field == *field);
            Some(item((short, value), &field, about))
        })
        .collect();
    items.sort();
    let mut findings: Vec<String> = problems
        .iter()
        .filter(|problem| is_finding(problem))
        .map(|problem| short_of(&problem.message))
        .collect();
    let mut blocked = items.iter().any(|item| item.verdict == Verdict::Refused);
    for reason in closed {
        match reason.as_str() {
            // Said by its own finding, or not checked.
            "invalid-secret" => {
                blocked |= problems
                    .iter()
                    .any(|problem| problem.reason == Reason::InvalidSecret);
            }
            "invalid-annotation"
            | "unsupported-annotation"
            | "invalid-backend"
            | "invalid-policy"
            | "invalid-setting"
            | "unsupported-setting" => blocked = true,
            rejected => {
                blocked = true;
                findings.push(format!("{rejected}; this route is not served"));
            }
        }
    }
    let readiness = if blocked {
        Readiness::Blocked
    } else if items.iter().all(|item| item.verdict == Verdict::Honoured) && findings.is_empty() {
        Readiness::Ready
    } else {
        Readiness::Review
    };
    let rules = ingress
        .spec
        .iter()
        .flat_map(|spec| spec.rules.iter().flatten());
    let hosts: BTreeSet<String> = rules
        .map(|rule| match rule.host.as_deref() {
            None | Some("") => "*".to_owned(),
            Some(host) => host.to_owned(),
        })
        .collect();
    IngressReport {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        readiness,
        hosts: hosts.into_iter().collect(),
        items,
        findings,
    }
}

/// What becomes of one annotation, from what translation says about it.
fn item<'a>(
    (short, value): (&str, &str),
    field: &str,
    about: impl Iterator<Item = &'a Problem>,
) -> Item {
    let known = annotation::find(short);
    let said = about.min_by_key(|problem| problem.severity);
    let (verdict, text) = match (said, known) {
        (Some(problem), known) => (
            verdict_of(problem, known),
            match known.map(|known| known.verdict) {
                // The table says it without the consequence, which the verdict says.
                Some(annotation::Verdict::Ignored(why)) if problem.message.contains(why) => {
                    why.to_owned()
                }
                Some(annotation::Verdict::Refused(why)) if problem.message.contains(why) => {
                    match known.and_then(|known| known.waiver) {
                        Some(waiver) if verdict_of(problem, known) == Verdict::Refused => {
                            format!("{why} (`lockgate.dev/{waiver}: \"true\"` goes without)")
                        }
                        _ => why.to_owned(),
                    }
                }
                _ => short_of(
                    problem
                        .message
                        .strip_prefix(field)
                        .and_then(|text| text.strip_prefix(": "))
                        .unwrap_or(&problem.message),
                ),
            },
        ),
        (None, Some(known)) => match known.verdict_on(value) {
            annotation::Verdict::Different(text) => (Verdict::Different, text.to_owned()),
            annotation::Verdict::Ignored(text) => (Verdict::Ignored, text.to_owned()),
            annotation::Verdict::Honoured | annotation::Verdict::Refused(_) => {
                (Verdict::Honoured, String::new())
            }
        },
        (None, None) => (Verdict::Ignored, "there is no such annotation".to_owned()),
    };
    Item {
        verdict,
        name: short.to_owned(),
        text,
    }
}

fn verdict_of(problem: &Problem, known: Option<&Annotation>) -> Verdict {
    let closes = CLOSES
        .iter()
        .any(|consequence| problem.message.contains(consequence));
    match (problem.severity, known) {
        _ if closes => Verdict::Refused,
        (Severity::Warning, Some(known))
            if matches!(known.verdict, annotation::Verdict::Different(_)) =>
        {
            Verdict::Different
        }
        (Severity::Error | Severity::Warning, _) => Verdict::Ignored,
    }
}

fn short_of(text: &str) -> String {
    let mut text = text.to_owned();
    for consequence in CLOSES {
        text = text.replace(consequence, "");
    }
    text
}

/// Is this to be said beside the verdicts? What is as good or bad as with the old controller is not.
fn is_finding(problem: &Problem) -> bool {
    match problem.reason {
        Reason::ServiceNotFound
        | Reason::SecretNotFound
        | Reason::PortNotFound
        | Reason::MatchedByTargetPort
        | Reason::EndpointRefused
        | Reason::CertificateMismatch
        | Reason::NothingToServe
        | Reason::MoreProblems => false,
        Reason::InvalidAnnotation
        | Reason::UnknownAnnotation
        | Reason::UnsupportedAnnotation
        | Reason::Conflict => !problem.field.starts_with("metadata.annotations["),
        Reason::RegexHost
        | Reason::PolicyNotFound
        | Reason::InvalidPolicy
        | Reason::InvalidHost
        | Reason::InvalidPath
        | Reason::InvalidPathType
        | Reason::InvalidBackend
        | Reason::ResourceBackend
        | Reason::ExternalNameRefused
        | Reason::CanaryWithoutMain
        | Reason::TlsConflict
        | Reason::InvalidSecret
        | Reason::InvalidSetting
        | Reason::PolicyViolation
        | Reason::ReferenceRefused
        | Reason::InvalidConfigMap
        | Reason::UnsupportedSetting => true,
    }
}

fn configmap_report(name: &NamespacedName, result: &Evaluation) -> Option<ConfigMapReport> {
    let object = result.translator.snapshot().configmap()?;
    let reference = name.reference(kinds::CONFIG_MAP);
    let problems = result.translator.report().problems_of(&reference);
    let items = object.data.iter().flatten().map(|(key, _)| {
        let field = format!("data[{key}]");
        let said = problems.iter().find(|problem| *problem.field == *field);
        let (verdict, text) = match (said, setting::find(key).map(|setting| setting.verdict)) {
            (Some(problem), known) => (
                match (problem.severity, known) {
                    (Severity::Error, _) if problem.message.contains("503") => Verdict::Refused,
                    (Severity::Warning, Some(annotation::Verdict::Different(_))) => {
                        Verdict::Different
                    }
                    (Severity::Error | Severity::Warning, _) => Verdict::Ignored,
                },
                match known {
                    Some(annotation::Verdict::Ignored(why) | annotation::Verdict::Refused(why)) => {
                        why.to_owned()
                    }
                    _ => problem
                        .message
                        .strip_prefix(&format!("{field}: "))
                        .unwrap_or(&problem.message)
                        .to_owned(),
                },
            ),
            (None, Some(annotation::Verdict::Different(text))) => {
                (Verdict::Different, text.to_owned())
            }
            (None, _) => (Verdict::Honoured, String::new()),
        };
        Item {
            verdict,
            name: key.clone(),
            text,
        }
    });
    Some(ConfigMapReport {
        name: name.to_string(),
        items: items.collect(),
    })
}

fn summary(class: String, ingresses: &[IngressReport]) -> Summary {
    let count = |readiness| {
        ingresses
            .iter()
            .filter(|ingress| ingress.readiness == readiness)
            .count()
    };
    let hosts = |only: Option<Readiness>| {
        ingresses
            .iter()
            .filter(|ingress| only.is_none_or(|only| ingress.readiness == only))
            .flat_map(|ingress| &ingress.hosts)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let namespaces: BTreeSet<&str> = ingresses
        .iter()
        .map(|ingress| ingress.namespace.as_str())
        .collect();
    let (blocked, review) = (count(Readiness::Blocked), count(Readiness::Review));
    Summary {
        class,
        ingresses: ingresses.len(),
        namespaces: namespaces.len(),
        hosts: hosts(None),
        ready: count(Readiness::Ready),
        review,
        blocked,
        blocked_hosts: hosts(Some(Readiness::Blocked)),
        risk: match (blocked, review) {
            (0, 0) => Risk::Low,
            (0, _) => Risk::Medium,
            _ => Risk::High,
        },
    }
}

/// Each annotation with its verdicts, the worst first, then the most used.
fn usages(ingresses: &[IngressReport]) -> Vec<Usage> {
    let mut by_name: BTreeMap<&str, Usage> = BTreeMap::new();
    for item in ingresses.iter().flat_map(|ingress| &ingress.items) {
        let usage = by_name.entry(&item.name).or_insert_with(|| Usage {
            name: item.name.clone(),
            ..Usage::default()
        });
        usage.ingresses += 1;
        *match item.verdict {
            Verdict::Refused => &mut usage.refused,
            Verdict::Ignored => &mut usage.ignored,
            Verdict::Different => &mut usage.different,
            Verdict::Honoured => &mut usage.honoured,
        } += 1;
    }
    let mut usages: Vec<Usage> = by_name.into_values().collect();
    usages.sort_by_key(|usage| {
        let Usage {
            name,
            ingresses,
            refused,
            ignored,
            different,
            honoured: _,
        } = usage;
        let kind = (*refused == 0, *ignored == 0, *different == 0);
        (kind, std::cmp::Reverse(*ingresses), name.clone())
    });
    usages
}
