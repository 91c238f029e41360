//! What a name was probably meant to be.

use super::Annotation;

/// Names that ingress-nginx once had, or never had although people write them, and what to use instead.
const FORMER: [(&str, &str); 15] = [
    (
        "add-base-url",
        "it was removed; let the application make its links relative",
    ),
    (
        "client-header-buffer-size",
        "it never existed; the gateway has limits of its own",
    ),
    (
        "client-max-body-size",
        "it never existed; use `proxy-body-size`",
    ),
    ("enable-influxdb", "it was removed; use the metrics"),
    (
        "enable-opentracing",
        "it was removed; use `enable-opentelemetry`",
    ),
    (
        "enable-websockets",
        "it never existed; WebSockets work without it",
    ),
    ("global-rate-limit", "it was removed; use `limit-rps`"),
    (
        "large-client-header-buffers",
        "it never existed; the gateway has limits of its own",
    ),
    (
        "opentracing-trust-incoming-span",
        "it was removed; use `opentelemetry-trust-incoming-span`",
    ),
    (
        "preserve-host",
        "it never existed; the Host header is always kept",
    ),
    (
        "secure-backends",
        "it was removed; use `backend-protocol: HTTPS`",
    ),
    (
        "secure-verify-ca-secret",
        "it was removed; use `proxy-ssl-secret` and `proxy-ssl-verify`",
    ),
    (
        "session-cookie-hash",
        "it was removed; it has no meaning any more",
    ),
    (
        "ssl-redirect-port",
        "it never existed; use `use-port-in-redirects`",
    ),
    ("use-forwarded-headers", "it is a key of the ConfigMap"),
];

/// The name of today for one that ingress-nginx still reads.
pub(crate) fn current(name: &str) -> &str {
    match name {
        "limit-whitelist" => "limit-allowlist",
        name => name,
    }
}

/// What is known of a name that was an annotation once.
pub(super) fn former(name: &str) -> Option<&'static str> {
    let found = FORMER.iter().find(|(former, _)| *former == name);
    found.map(|(_, instead)| *instead)
}

/// The annotation whose name differs least, if that is little.
pub(super) fn nearest(name: &str) -> Option<&'static Annotation> {
    // A longer name than any has no neighbour, and hostile ones can be long.
    if name.len() > 64 {
        return None;
    }
    super::all()
        .map(|annotation| (distance(name, annotation.name), annotation))
        .min_by_key(|(distance, annotation)| (*distance, annotation.name))
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, annotation)| annotation)
}

/// How many characters have to be added, left out or exchanged.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, x) in a.chars().enumerate() {
        let mut corner = above;
        let mut left = above + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let exchanged = corner + usize::from(x != *y);
            corner = *cell;
            left = exchanged.min(left + 1).min(corner + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        for (name, want) in [
            ("rewrite-taget", Some("rewrite-target")),
            ("whitelist-source-ranges", Some("whitelist-source-range")),
            ("auth-ulr", Some("auth-url")),
            ("something-else", None),
            ("", None),
        ] {
            assert_eq!(nearest(name).map(|near| near.name), want, "{name}");
        }
        assert!(nearest(&"x".repeat(100_000)).is_none());
        for (a, b, want) in [("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), want);
            assert_eq!(distance(b, a), want);
        }
    }
}
