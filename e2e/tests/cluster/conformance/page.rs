//! docs/conformance.md.

use std::fmt::{self, Write as _};

use super::{Outcome, PROFILE};

const HEAD: &str = "\
# Conformance

The 30 runs of [ingress-controller-conformance](https://github.com/kubernetes-sigs/ingress-controller-conformance), the public
suite for Ingress controllers, against Lockgate in a cluster with real pods, from a client outside. The requests and the
expected answers are the suite's; the test (`e2e/tests/cluster/conformance.rs`) is our own. Written by `make conformance`; a run of
`make e2e` that shows anything else fails.

## The profile

Lockgate's defaults are those of ingress-nginx, and the suite expects something else in three places. Who wants the suite's
behaviour sets:

| what the suite expects | setting |
| --- | --- |
";

const CLASS: &str = "\
| Ingresses that name no class are served | flag `--watch-ingress-without-class`, or the annotation \
`ingressclass.kubernetes.io/is-default-class: \"true\"` on the IngressClass |
";

/// Writes the page.
pub(super) fn render(outcomes: &[Outcome]) -> Result<String, fmt::Error> {
    let mut page = String::from(HEAD) + CLASS;
    for (key, value) in PROFILE {
        let why = match key {
            "ssl-redirect" => {
                "plain HTTP to a host with a certificate is answered, not redirected (single Ingresses: the annotation \
                 `nginx.ingress.kubernetes.io/ssl-redirect`)"
            }
            "server-tokens" => "answers carry a `Server` field, whatever the backend sends",
            _ => "",
        };
        writeln!(page, "| {why} | ConfigMap: `{key}: \"{value}\"` |")?;
    }
    let passed = |shown: fn(&Outcome) -> &str| {
        let good = outcomes
            .iter()
            .filter(|outcome| shown(outcome) == outcome.case.expected);
        good.count()
    };
    let total = outcomes.len();
    write!(
        page,
        "\nA prefix with a trailing slash (`/aaa/bbb/` for a request of `/aaa/bbb`), which ingress-nginx answers with 301, \
         needs no setting. The flag `--compat strict` says the same as both keys of the ConfigMap ([compat.md](compat.md)).\n\n\
         ## Results\n\n\
         With the profile {} of {total} pass; with what is shipped, where each Ingress names its class, {}. Where the two \
         differ, the last column shows what the defaults answer.\n\n\
         | | feature | rule | request | expected | with the profile | by default |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        passed(|outcome| &outcome.profile),
        passed(|outcome| &outcome.shipped),
    )?;
    for (index, outcome) in outcomes.iter().enumerate() {
        let Outcome {
            case,
            profile,
            shipped,
        } = outcome;
        let request = match case.url {
            "" => "–".to_owned(),
            url => format!("`{} {url}`", case.method),
        };
        let verdict = if profile == case.expected {
            "passes".to_owned()
        } else {
            format!("**{profile}**")
        };
        let default = if shipped == profile { "same" } else { shipped };
        writeln!(
            page,
            "| {} | {} | {} | {request} | {} | {verdict} | {default} |",
            index + 1,
            case.feature.name(),
            case.rule,
            case.expected,
        )?;
    }
    Ok(page)
}
