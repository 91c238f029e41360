//! A change in words, for the log.

use std::collections::BTreeSet;
use std::fmt::Display;

use model::Changes;

/// Does the change concern nothing but endpoints?
pub(super) fn only_endpoints(changes: &Changes) -> bool {
    let Changes {
        hosts,
        tls_hosts,
        backends,
        endpoints: _,
        certificates,
        streams,
        globals,
    } = changes;
    hosts.is_empty()
        && tls_hosts.is_empty()
        && backends.is_empty()
        && certificates.is_empty()
        && !streams
        && !globals
}

/// The changes in words, for example `a change of 2 hosts (a.test, b.test) and 1 certificate (shop/tls)`.
pub(super) fn describe(changes: &Changes) -> String {
    let Changes {
        hosts,
        tls_hosts,
        backends,
        endpoints,
        certificates,
        streams,
        globals,
    } = changes;
    let mut parts: Vec<String> = [
        named("host", hosts),
        named("server name", tls_hosts),
        named("backend", backends),
        named("endpoint set", endpoints),
        named("certificate", certificates),
    ]
    .into_iter()
    .flatten()
    .collect();
    if *streams {
        parts.push("what is passed on".to_owned());
    }
    if *globals {
        parts.push("the global settings".to_owned());
    }
    match parts.split_last() {
        None => "no change".to_owned(),
        Some((only, [])) => format!("a change of {only}"),
        Some((last, rest)) => format!("a change of {} and {last}", rest.join(", ")),
    }
}

/// How many there are, and the first few of them.
fn named<T: Display>(what: &str, items: &BTreeSet<T>) -> Option<String> {
    const NAMED: usize = 3;
    let count = items.len();
    if count == 0 {
        return None;
    }
    let plural = if count == 1 { "" } else { "s" };
    let mut names: Vec<String> = items.iter().take(NAMED).map(ToString::to_string).collect();
    if count > NAMED {
        names.push("…".to_owned());
    }
    Some(format!("{count} {what}{plural} ({})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use model::{BackendId, HostPattern};

    use super::*;

    #[test]
    fn changes_are_told_in_words() {
        let mut changes = Changes::default();
        let id = |port: &str| BackendId::new("shop", "web", port);
        changes.endpoints.insert(id("80"));
        assert_eq!(
            describe(&changes),
            "a change of 1 endpoint set (shop/web:80)"
        );
        assert!(only_endpoints(&changes));
        for host in ["a.test", "b.test", "c.test", "d.test"] {
            changes.hosts.insert(HostPattern::parse(host).unwrap());
        }
        changes.globals = true;
        assert_eq!(
            describe(&changes),
            "a change of 4 hosts (a.test, b.test, c.test, …), 1 endpoint set (shop/web:80) and the global settings"
        );
        assert!(!only_endpoints(&changes));
    }
}
