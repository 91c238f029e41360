use translate::{Reason, Severity};

use super::*;

fn set(addresses: &[&str]) -> BTreeSet<Address> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

fn service(value: Value) -> Service {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_type_of_the_service_decides_which_addresses_are_published() {
    let publish = Publish::Service(NamespacedName::new("lockgate", "gateway"));
    for (spec, wanted) in [
        (
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "LB.example.com"}]}}}),
            set(&["192.0.2.1", "192.0.2.9", "lb.example.com"]),
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}}),
            set(&[]),
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["2001:db8::1"]}}),
            set(&["2001:db8::1"]),
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1"}}),
            set(&["10.0.0.1"]),
        ),
        (
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}}),
            set(&["10.0.0.1"]),
        ),
        (json!({"spec": {"clusterIP": "None"}}), set(&[])),
        (
            json!({"spec": {"type": "ExternalName", "externalName": "gateway.example.com"}}),
            set(&["gateway.example.com"]),
        ),
    ] {
        let service = service(spec.clone());
        assert_eq!(addresses(&publish, Some(&service)), Some(wanted), "{spec}");
    }
    assert_eq!(
        addresses(&publish, None),
        None,
        "unknown is not the same as none"
    );
    assert_eq!(addresses(&Publish::Nothing, None), None);
    let fixed = Publish::Addresses(set(&["192.0.2.1"]));
    assert_eq!(addresses(&fixed, None), Some(set(&["192.0.2.1"])));
}

#[test]
fn an_address_is_an_ip_or_a_name() {
    for bad in [
        "",
        "1.2.3",
        "-a.test",
        "a..test",
        "a_b.test",
        "*.a.test",
        "a.test:80",
    ] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

#[test]
fn a_status_is_written_only_on_difference() {
    let published = Published {
        now: Some(set(&["192.0.2.1"])),
        ever: set(&["192.0.2.1", "192.0.2.2"]),
    };
    let ours = set(&["192.0.2.1"]);
    let old = set(&["192.0.2.2"]);
    let theirs = set(&["198.51.100.7"]);
    let none = set(&[]);
    for (claim, current, wanted, why) in [
        (
            Claim::Ours,
            Some(&none),
            Some(ours.clone()),
            "ours and empty",
        ),
        (
            Claim::Ours,
            Some(&old),
            Some(ours.clone()),
            "ours and outdated",
        ),
        (Claim::Ours, None, Some(ours.clone()), "ours and strange"),
        (Claim::Ours, Some(&ours), None, "right already"),
        (
            Claim::Released,
            Some(&ours),
            Some(none.clone()),
            "it still shows our address",
        ),
        (
            Claim::Released,
            Some(&old),
            Some(none.clone()),
            "it shows an earlier address of ours",
        ),
        (
            Claim::Released,
            Some(&theirs),
            None,
            "its new controller has written",
        ),
        (Claim::Released, Some(&none), None, "empty already"),
        (Claim::Released, None, None, "strange"),
        (Claim::Foreign, Some(&ours), None, "it never was ours"),
    ] {
        assert_eq!(status(claim, current, &published), wanted, "{why}");
    }
    let unknown = Published::default();
    assert_eq!(
        status(Claim::Ours, Some(&old), &unknown),
        None,
        "no address is known"
    );
}

#[test]
fn patches_name_the_version_that_they_replace() {
    assert_eq!(
        status_patch("7", &set(&["lb.example.com", "192.0.2.1", "2001:db8::1"])),
        json!({
            "metadata": {"resourceVersion": "7"},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}, {"hostname": "lb.example.com"},
            ]}},
        })
    );
    assert_eq!(
        status_patch("8", &set(&[])),
        json!({
            "metadata": {"resourceVersion": "8"},
            "status": {"loadBalancer": {"ingress": null}},
        })
    );
}

#[test]
fn the_present_status_is_read_or_recognised_as_foreign() {
    let ingress = |entries: Value| -> Ingress {
        serde_json::from_value(json!({"status": {"loadBalancer": {"ingress": entries}}})).unwrap()
    };
    assert_eq!(current(&Ingress::default()), Some(set(&[])));
    assert_eq!(
        current(&ingress(
            json!([{"ip": "192.0.2.1"}, {"hostname": "a.test"}])
        )),
        Some(set(&["192.0.2.1", "a.test"]))
    );
    let ports = json!([{"ip": "192.0.2.1", "ports": [{"port": 80, "protocol": "TCP"}]}]);
    assert_eq!(current(&ingress(ports)), None);
}

#[test]
fn many_problems_become_few_notes() {
    let object = ObjectRef::new("Ingress", "a", "b");
    let problem = |index: usize| Problem {
        severity: Severity::Error,
        reason: Reason::InvalidHost,
        field: "spec".into(),
        message: format!("spec: problem {index:02}"),
    };
    let reject = Reject {
        origin: Origin::new(object.clone(), "spec.rules[0]"),
        reason: "too long".to_owned(),
    };
    let of_another = Reject {
        origin: Origin::new(ObjectRef::new("Ingress", "a", "c"), ""),
        ..reject.clone()
    };
    let few = notes(&object, &[problem(0)], &[reject, of_another]);
    assert_eq!(
        few.into_iter().collect::<Vec<_>>(),
        [
            Note {
                reason: "InvalidHost",
                message: "spec: problem 00".to_owned()
            },
            Note {
                reason: "Rejected",
                message: "spec.rules[0]: too long".to_owned()
            },
        ]
    );
    let many: Vec<Problem> = (0..50).map(problem).collect();
    let many = notes(&object, &many, &[]);
    assert_eq!(many.len(), 10);
    assert!(
        many.iter()
            .any(|note| note.message.starts_with("41 more problems"))
    );
    let long = Note::new("InvalidHost", &"ä".repeat(600));
    assert_eq!(long.message.len(), 1024);
    assert_eq!(
        Note::new("InvalidHost", &"ä€".repeat(600)).message.len(),
        1022,
        "whole characters"
    );
}

#[test]
fn certificates_are_noted_before_and_after_their_end() {
    let secret = NamespacedName::new("shop", "tls");
    let day = 24 * 60 * 60;
    let validity = Validity {
        not_before: 1_000 * day,
        not_after: 1_090 * day,
    };
    let at = |day_of: i64| Timestamp::from_second(day_of * day).unwrap();
    let reason = |validity, now| expiry(&secret, validity, now).map(|note| note.reason);
    assert_eq!(reason(validity, at(999)), Some("CertificateNotYetValid"));
    assert_eq!(reason(validity, at(1_075)), None);
    assert_eq!(reason(validity, at(1_076)), Some("CertificateExpiring"));
    assert_eq!(reason(validity, at(1_090)), Some("CertificateExpired"));
    let short = Validity {
        not_before: 1_000 * day,
        not_after: 1_006 * day,
    };
    assert_eq!(reason(short, at(1_004)), None, "half of its life is left");
    assert_eq!(reason(short, at(1_005)), Some("CertificateExpiring"));
    assert_eq!(
        expiry(&secret, validity, at(1_080)).unwrap().message,
        "spec.tls: the certificate in Secret shop/tls expires at 1972-12-26T00:00:00Z; renew it before then"
    );
}

#[test]
fn revocation_lists_are_noted_before_and_after_their_end() {
    let day = 24 * 60 * 60;
    let term = RevocationTerm {
        secret: NamespacedName::new("shop", "clients"),
        not_before: 1_000 * day,
        not_after: 1_030 * day,
    };
    let at = |day_of: i64| {
        let now = Timestamp::from_second(day_of * day).unwrap();
        revocation(&term, now).map(|note| note.reason)
    };
    assert_eq!(at(999), Some("RevocationListNotYetValid"));
    assert_eq!(at(1_024), None);
    assert_eq!(at(1_025), Some("RevocationListExpiring"));
    assert_eq!(at(1_030), Some("RevocationListExpired"));
    let now = Timestamp::from_second(1_040 * day).unwrap();
    assert_eq!(
        revocation(&term, now).unwrap().message,
        "metadata.annotations: `auth-tls-secret`: a revocation list (`ca.crl`) in Secret shop/clients expired at 1972-10-27T00:00:00Z; every client with a certificate gets 400 until there is a new one"
    );
}
