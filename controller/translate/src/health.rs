//! What Ingresses say about the health of their backends.
//!
//! Endpoints are shared by all who use a Service, and so is what is known of them. Where several Ingresses speak of one
//! backend, the oldest that says something counts, for each subject by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{BackendId, BackendLimits, CheckKind, Health, HealthCheck, HostName, Outliers};

use crate::ingress::Entry;
use crate::report::{Reason, quoted};
use crate::{Problem, Snapshot, backend_tls, value};

/// What the annotations of one Ingress say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HealthValues {
    pub(crate) outliers: Option<Outliers>,
    pub(crate) check: Option<HealthCheck>,
    pub(crate) max_requests: Option<u32>,
    pub(crate) max_pending: Option<u32>,
    pub(crate) max_per_endpoint: Option<u32>,
}

/// What counts for a backend, of what these Ingresses say.
pub(crate) fn of<'a>(
    id: &BackendId,
    users: impl Iterator<Item = &'a Entry>,
    snapshot: &Snapshot,
) -> Option<Health> {
    let mut users: Vec<(&Entry, &HealthValues)> = users
        .filter(|entry| names(entry, id))
        .filter_map(|entry| Some((entry, entry.annotations.health.as_deref()?)))
        .collect();
    users.sort_by(|(a, _), (b, _)| a.rank.cmp(&b.rank));
    let health = Health {
        outliers: users
            .iter()
            .find_map(|(_, values)| values.outliers.clone())
            .unwrap_or_default(),
        limits: BackendLimits {
            requests: first(&users, |values| values.max_requests),
            pending: first(&users, |values| values.max_pending),
            requests_per_endpoint: first(&users, |values| values.max_per_endpoint),
        },
        check: users
            .iter()
            .find(|(_, values)| values.check.is_some())
            .and_then(|(entry, values)| check_with_tls(entry, values.check.as_ref()?, snapshot)),
    };
    (health != Health::default()).then_some(health)
}

/// A check over TLS as its Ingress asks for it. Where that cannot be used, its routes are closed, and there is nothing to
/// check.
fn check_with_tls(entry: &Entry, check: &HealthCheck, snapshot: &Snapshot) -> Option<HealthCheck> {
    let tls = entry.backend_tls.as_deref();
    let tls = tls.map(|part| backend_tls::of(part, snapshot)).transpose();
    Some(HealthCheck {
        tls: tls.ok()?.map(Arc::new),
        ..check.clone()
    })
}

fn first(users: &[(&Entry, &HealthValues)], limit: fn(&HealthValues) -> Option<u32>) -> u32 {
    let mut said = users.iter().filter_map(|(_, values)| limit(values));
    said.next().unwrap_or_default()
}

/// What an Ingress says in vain, because an older one says otherwise.
pub(crate) fn overruled(entry: &Entry, id: &BackendId, counts: Option<&Health>) -> Option<Problem> {
    let values = entry.annotations.health.as_deref()?;
    if !names(entry, id) {
        return None;
    }
    let usual = Health::default();
    let Health {
        outliers,
        limits,
        check,
    } = counts.unwrap_or(&usual);
    let BackendLimits {
        requests,
        pending,
        requests_per_endpoint,
    } = *limits;
    let differs = |own: Option<u32>, counts: u32| own.is_some_and(|own| own != counts);
    let asked = [
        (
            "outlier-detection",
            values.outliers.as_ref().is_some_and(|own| own != outliers),
        ),
        ("health-check", checks_otherwise(values, check.as_ref())),
        ("max-requests", differs(values.max_requests, requests)),
        ("max-pending-requests", differs(values.max_pending, pending)),
        (
            "max-requests-per-endpoint",
            differs(values.max_per_endpoint, requests_per_endpoint),
        ),
    ];
    let lost: Vec<&str> = asked
        .iter()
        .filter(|(_, lost)| *lost)
        .map(|(name, _)| *name)
        .collect();
    if lost.is_empty() {
        return None;
    }
    Some(Problem::warning(
        Reason::Conflict,
        "metadata.annotations",
        &format!(
            "`{}`: an Ingress that comes first says otherwise for Service {}/{}, and that counts for all who use it",
            lost.join("`, `"),
            id.namespace,
            id.service
        ),
    ))
}

/// Does another check count than that of the Ingress? Where there is none, it cannot be used, which others say.
fn checks_otherwise(values: &HealthValues, counts: Option<&HealthCheck>) -> bool {
    let same = |own: &HealthCheck, counts: &HealthCheck| {
        let counts = HealthCheck {
            tls: None,
            ..counts.clone()
        };
        *own == counts
    };
    values
        .check
        .as_ref()
        .zip(counts)
        .is_some_and(|(own, counts)| !same(own, counts))
}

/// Does a rule of the Ingress lead to this backend? Those that only annotations name have other purposes.
fn names(entry: &Entry, id: &BackendId) -> bool {
    // Fields of rules come first.
    entry
        .backends
        .get(id)
        .is_some_and(|naming| naming.count > 0 && &*naming.field != "metadata.annotations")
}

/// When endpoints are left alone: `off`, or `key=value` by semicolons.
pub(crate) fn outliers(text: &str) -> Result<Outliers, String> {
    if text.trim() == "off" {
        return Ok(Outliers {
            failures: 0,
            ..Outliers::default()
        });
    }
    let mut rules = Outliers::default();
    let percent = |text: &str| {
        let number = value::number(text, 0, 100)?;
        u8::try_from(number).map_err(|error| error.to_string())
    };
    for option in options(text) {
        let (key, text) = option?;
        let read = match key {
            "failures" => value::number(text, 0, 1_000_000).map(|v| rules.failures = v),
            "statuses" => value::error_statuses(text).map(|v| rules.statuses = v),
            "error-rate" => percent(text).map(|v| rules.error_rate = v),
            "window" => value::milliseconds(text, 1000).map(|v| rules.window_ms = v),
            "requests" => value::number(text, 1, 1_000_000).map(|v| rules.least_requests = v),
            "base" => value::milliseconds(text, 100).map(|v| rules.base_ms = v),
            "max" => value::milliseconds(text, 100).map(|v| rules.most_ms = v),
            "share" => percent(text).map(|v| rules.share = v),
            "panic" => percent(text).map(|v| rules.panic = v),
            _ => Err("there is no such option".to_owned()),
        };
        read.map_err(|reason| format!("{}: {reason}", quoted(key)))?;
    }
    if rules.most_ms < rules.base_ms {
        return Err("`max` is shorter than `base`".to_owned());
    }
    Ok(rules)
}

/// How endpoints are checked: `http:/path`, `grpc`, `grpc:service` or `tcp`, and `key=value` by semicolons.
pub(crate) fn check(text: &str) -> Result<HealthCheck, String> {
    let (kind, rest) = match text.split_once(';') {
        Some((kind, rest)) => (kind.trim(), Some(rest)),
        None => (text.trim(), None),
    };
    let mut check = HealthCheck {
        kind: kind_of_check(kind)?,
        host: None,
        interval_ms: 5000,
        timeout_ms: 1000,
        unhealthy: 3,
        healthy: 2,
        tls: None,
    };
    for option in rest.into_iter().flat_map(options) {
        let (key, text) = option?;
        let read = match (key, &mut check.kind) {
            ("interval", _) => value::milliseconds(text, 1000).map(|v| check.interval_ms = v),
            ("timeout", _) => value::milliseconds(text, 100).map(|v| check.timeout_ms = v),
            ("unhealthy", _) => value::number(text, 1, 100).map(|v| check.unhealthy = v),
            ("healthy", _) => value::number(text, 1, 100).map(|v| check.healthy = v),
            ("host", CheckKind::Http { .. } | CheckKind::Grpc { .. }) => {
                host(text).map(|v| check.host = Some(v))
            }
            ("status", CheckKind::Http { from, to, .. }) => {
                statuses(text).map(|range| (*from, *to) = range)
            }
            _ => Err("there is no such option".to_owned()),
        };
        read.map_err(|reason| format!("{}: {reason}", quoted(key)))?;
    }
    if check.timeout_ms > check.interval_ms {
        return Err("`timeout` is longer than `interval`".to_owned());
    }
    Ok(check)
}

fn kind_of_check(text: &str) -> Result<CheckKind, String> {
    match text.split_once(':') {
        None if text == "tcp" => Ok(CheckKind::Tcp),
        None if text == "grpc" => Ok(CheckKind::Grpc {
            service: String::new(),
        }),
        Some(("http", path)) => Ok(CheckKind::Http {
            path: value::absolute_path(path)?,
            from: 200,
            to: 399,
        }),
        Some(("grpc", service)) => {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
            if service.is_empty() || service.len() > 127 || !service.bytes().all(legal) {
                return Err(format!("{} is not the name of a service", quoted(service)));
            }
            Ok(CheckKind::Grpc {
                service: service.to_owned(),
            })
        }
        _ => Err("it is none of `http:/path`, `grpc`, `grpc:service` and `tcp`".to_owned()),
    }
}

fn host(text: &str) -> Result<String, String> {
    HostName::parse(text)
        .map(|host| host.as_str().to_owned())
        .map_err(|error| error.to_string())
}

/// One status, or the first and the last.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let read = |text: &str| {
        let status = text.trim().parse::<u16>().ok();
        status.filter(|status| (200..600).contains(status))
    };
    read(from)
        .zip(read(to))
        .filter(|(from, to)| from <= to)
        .ok_or_else(|| "it is neither a status nor two with `-`, from 200 to 599".to_owned())
}

/// `key=value` by semicolons, each key once, at least one.
fn options(text: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let mut seen = BTreeSet::new();
    let parts = text.split(';').map(str::trim);
    parts.map(move |part| {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{} is not `key=value`", quoted(part)))?;
        let (key, value) = (key.trim(), value.trim());
        if !seen.insert(key) {
            return Err(format!("{} stands there twice", quoted(key)));
        }
        Ok((key, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_strictly() {
        let http = |path: &str, from, to| CheckKind::Http {
            path: path.to_owned(),
            from,
            to,
        };
        let grpc = |service: &str| CheckKind::Grpc {
            service: service.to_owned(),
        };
        let usual = |kind| HealthCheck {
            kind,
            host: None,
            interval_ms: 5000,
            timeout_ms: 1000,
            unhealthy: 3,
            healthy: 2,
            tls: None,
        };
        for (text, want) in [
            ("http:/healthz", Some(usual(http("/healthz", 200, 399)))),
            (
                "http:/a?b=c; interval=10s;timeout=500ms; unhealthy=1;healthy=5;host=a.test;status=204",
                Some(HealthCheck {
                    host: Some("a.test".to_owned()),
                    interval_ms: 10_000,
                    timeout_ms: 500,
                    unhealthy: 1,
                    healthy: 5,
                    ..usual(http("/a?b=c", 204, 204))
                }),
            ),
            ("http:/;status=200-299", Some(usual(http("/", 200, 299)))),
            ("tcp", Some(usual(CheckKind::Tcp))),
            ("grpc", Some(usual(grpc("")))),
            ("grpc:shop.v1.Cart", Some(usual(grpc("shop.v1.Cart")))),
            ("", None),
            ("http", None),
            ("http:", None),
            ("http:healthz", None),
            ("http://a.test/", None),
            ("http:/a b", None),
            ("https:/healthz", None),
            ("grpc:", None),
            ("grpc:a/b", None),
            ("tcp:80", None),
            ("tcp;status=200", None),
            ("tcp;host=a.test", None),
            ("tcp;interval=500ms", None),
            ("tcp;interval=1s;timeout=2s", None),
            ("tcp;unhealthy=0", None),
            ("tcp;healthy=x", None),
            ("tcp;;", None),
            ("http:/;status=100", None),
            ("http:/;status=300-200", None),
            ("http:/;host=a b", None),
        ] {
            assert_eq!(check(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn outliers_are_read_strictly() {
        let usual = Outliers::default();
        for (text, want) in [
            (
                "failures=3",
                Some(Outliers {
                    failures: 3,
                    ..usual.clone()
                }),
            ),
            (
                " failures = 0 ; error-rate=50; window=30s ;requests=100",
                Some(Outliers {
                    failures: 0,
                    error_rate: 50,
                    window_ms: 30_000,
                    least_requests: 100,
                    ..usual.clone()
                }),
            ),
            (
                "statuses=503,502;base=500ms;max=5m;share=10;panic=0",
                Some(Outliers {
                    statuses: vec![502, 503],
                    base_ms: 500,
                    most_ms: 300_000,
                    share: 10,
                    panic: 0,
                    ..usual.clone()
                }),
            ),
            (
                "off",
                Some(Outliers {
                    failures: 0,
                    ..usual
                }),
            ),
            ("", None),
            ("on", None),
            ("failures", None),
            ("failures=-1", None),
            ("failures=3;failures=4", None),
            ("failures=3;", None),
            ("error-rate=101", None),
            ("statuses=200", None),
            ("window=10ms", None),
            ("base=1m;max=1s", None),
            ("base=2m", None),
            ("colour=red", None),
        ] {
            assert_eq!(outliers(text).ok(), want, "{text}");
        }
    }
}
