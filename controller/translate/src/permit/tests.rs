use super::*;

fn permits(policies: &[(&str, GatewayPolicySpec)]) -> Permits {
    let policies = policies.iter().map(|(name, spec)| {
        let policy = GatewayPolicy::new(name, spec.clone());
        (Box::from(*name), Arc::new(policy))
    });
    Permits::new(&policies.collect())
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn hosts(namespaces: &[&str], hosts: &[&str]) -> GatewayPolicySpec {
    GatewayPolicySpec {
        namespaces: texts(namespaces),
        hosts: texts(hosts),
        ..GatewayPolicySpec::default()
    }
}

#[test]
fn hosts_belong_to_whom_the_most_specific_entry_names() {
    let permits = permits(&[
        ("shop", hosts(&["shop"], &["shop.test", "*.shop.test"])),
        ("blog", hosts(&["blog"], &["blog.shop.test", "Blog.test"])),
        ("teams", hosts(&["team-*"], &["*.teams.test"])),
        ("both", hosts(&["team-a", "blog"], &["both.test"])),
    ]);
    for (namespace, host, may, why) in [
        ("shop", "shop.test", true, "it has it"),
        ("shop", "a.shop.test", true, "it has all below"),
        ("shop", "a.b.shop.test", true, "however deep"),
        ("shop", "*.shop.test", true, "the wildcard itself"),
        ("shop", "*.b.shop.test", true, "a wildcard below"),
        ("shop", "blog.shop.test", false, "a name is more specific"),
        ("blog", "blog.shop.test", true, "and it is the blog's"),
        ("blog", "blog.test", true, "case means nothing"),
        ("blog", "shop.test", false, "another's"),
        (
            "blog",
            "free.test",
            false,
            "a namespace with hosts has no others",
        ),
        ("shop", "evilshop.test", false, "not below"),
        ("other", "free.test", true, "nobody's: the first claim wins"),
        (
            "other",
            "shop.test",
            false,
            "another's, and no policy is for it",
        ),
        ("other", "x.shop.test", false, "the same below"),
        ("other", "*.shop.test", false, "the same as wildcard"),
        ("other", "*.test", false, "it would take in shop.test"),
        ("other", "*.free.test", true, "it takes in nobody's"),
        ("other", "", false, "it would take in all"),
        ("team-a", "a.teams.test", true, ""),
        (
            "team-a",
            "both.test",
            true,
            "each of its policies adds hosts",
        ),
        ("blog", "both.test", true, "shared"),
        ("team-b", "both.test", false, ""),
        ("teams", "a.teams.test", false, "the pattern wants a dash"),
    ] {
        let host = HostPattern::parse(host).unwrap();
        let permit = permits.of(namespace);
        let got = permit.host(&host);
        assert_eq!(got.is_ok(), may, "{namespace} {host} {why}: {got:?}");
    }
}

#[test]
fn a_star_is_for_what_nobody_else_has() {
    let everybody = permits(&[
        ("all", hosts(&[], &["*"])),
        ("shop", hosts(&["shop"], &["shop.test"])),
    ]);
    for (namespace, host, may) in [
        ("shop", "shop.test", true),
        ("shop", "free.test", true),
        ("shop", "", true),
        ("other", "free.test", true),
        ("other", "shop.test", false),
    ] {
        let host = HostPattern::parse(host).unwrap();
        assert_eq!(
            everybody.of(namespace).host(&host).is_ok(),
            may,
            "{namespace} {host}"
        );
    }
    let platform = permits(&[("platform", hosts(&["platform"], &["*"]))]);
    assert!(platform.of("platform").host(&HostPattern::Any).is_ok());
    let free = HostPattern::parse("free.test").unwrap();
    assert!(platform.of("other").host(&free).is_err());
}

#[test]
fn an_entry_that_cannot_be_read_opens_nothing() {
    let permits = permits(&[("shop", hosts(&["shop"], &["shop test"]))]);
    let host = HostPattern::parse("free.test").unwrap();
    assert!(permits.of("shop").host(&host).is_err());
    let mut annotations = Annotations::default();
    let mut problems = Vec::new();
    let none = BTreeMap::new();
    let violated = permits
        .of("shop")
        .annotations(&none, &mut annotations, &mut problems);
    assert_eq!(violated, BTreeSet::from(["shop".into()]));
    assert_eq!(annotations.closed, Some("policy-violation"));
}

#[test]
fn annotations_are_permitted_by_risk_and_by_name() {
    let by_risk = GatewayPolicySpec {
        max_risk: Some(RiskLevel::Medium),
        allow_annotations: texts(&["server-alias"]),
        deny_annotations: texts(&["app-root", "whitelist-source-range"]),
        ..GatewayPolicySpec::default()
    };
    let by_name = GatewayPolicySpec {
        allow_annotations: texts(&["limit-rps"]),
        ..GatewayPolicySpec::default()
    };
    for (spec, annotation, may, why) in [
        (&by_risk, "proxy-read-timeout", true, "low"),
        (&by_risk, "rewrite-target", true, "medium"),
        (&by_risk, "configuration-snippet", false, "critical"),
        (&by_risk, "server-alias", true, "high, and allowed"),
        (&by_risk, "app-root", false, "medium, and denied"),
        (&by_risk, "whitelist-source-range", false, "by its old name"),
        (&by_risk, "no-such-thing", true, "it does nothing"),
        (&by_name, "limit-rps", true, "allowed"),
        (&by_name, "proxy-read-timeout", false, "not allowed"),
    ] {
        let rules = Rules::new(spec);
        let got = rules.annotation(annotation::current(annotation));
        assert_eq!(got.is_ok(), may, "{annotation} {why}: {got:?}");
    }
    let open = Rules::new(&GatewayPolicySpec::default());
    assert!(
        open.annotation("configuration-snippet").is_ok(),
        "it says nothing about it"
    );
}

#[test]
fn values_above_a_limit_are_cut() {
    let limits = LimitPolicy {
        body_size: Some("1m".to_owned()),
        timeout_seconds: Some(10),
        tries: Some(2),
    };
    let policy = |limits| GatewayPolicySpec {
        limits: Some(limits),
        ..GatewayPolicySpec::default()
    };
    let tighter = LimitPolicy {
        timeout_seconds: Some(5),
        ..LimitPolicy::default()
    };
    let permits = permits(&[("a", policy(limits)), ("b", policy(tighter))]);
    let mut annotations = Annotations {
        body_limit: Some(0),
        read_timeout: Some(600),
        send_timeout: Some(3),
        ..Annotations::default()
    };
    annotations.traffic().tries = Some(0);
    let mut problems = Vec::new();
    let none = BTreeMap::new();
    permits
        .of("any")
        .annotations(&none, &mut annotations, &mut problems);
    assert_eq!(
        annotations.body_limit,
        Some(1 << 20),
        "0 is no limit at all"
    );
    assert_eq!(
        annotations.read_timeout,
        Some(5),
        "the smallest limit counts"
    );
    assert_eq!(annotations.send_timeout, Some(3));
    assert_eq!(
        annotations.connect_timeout, None,
        "what is not said is the ConfigMap's"
    );
    assert_eq!(annotations.traffic().tries, Some(2));
    assert_eq!(annotations.closed, None);
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn patterns_of_namespaces() {
    for (pattern, text, want) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("a*", "a", true),
        ("*", "", true),
        ("*-prod", "a-prod", true),
        ("*-prod", "a-prod-x", false),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
    ] {
        assert_eq!(fits(pattern, text), want, "{pattern} {text}");
    }
}

#[test]
fn faults_are_told_to_the_owner_of_the_policy() {
    let spec = GatewayPolicySpec {
        namespaces: texts(&["Team A"]),
        hosts: texts(&["a..b"]),
        allow_annotations: texts(&["limit-rsp"]),
        deny_annotations: texts(&["app-rot"]),
        limits: Some(LimitPolicy {
            body_size: Some("many".to_owned()),
            timeout_seconds: Some(0),
            tries: Some(0),
        }),
        ..GatewayPolicySpec::default()
    };
    let violators = ["a/x", "b/y"].map(|name| name.parse().unwrap());
    let problems = problems(&spec, violators.iter());
    let fields: Vec<&str> = problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(
        fields,
        [
            "spec.namespaces[0]",
            "spec.hosts[0]",
            "spec.allowAnnotations[0]",
            "spec.denyAnnotations[0]",
            "spec.limits.bodySize",
            "spec.limits.timeoutSeconds",
            "spec.limits.tries",
            "",
        ]
    );
    let last = &problems.last().unwrap().message;
    assert_eq!(
        last,
        "2 Ingresses ask for more than it permits, and did not get it: a/x, b/y"
    );
}
