//! Which certificates of clients are good.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;
#[path = "common/old.rs"]
mod old;

use std::sync::Arc;

use model::{ClientAuth, KeyAlgorithm, RoutingModel, TlsPolicy};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use table::{ClientFault, ClientVerifier, compile};

use crate::common::{certificate, pattern, tls_host};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// 2030-06-01.
const NOW: u64 = 1_906_502_400;

fn ca(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(ca(name), KeyPair::generate().unwrap()).unwrap()
}

fn below(by: &Issuer, name: &str) -> Issuer {
    CertifiedIssuer::signed_by(ca(name), KeyPair::generate().unwrap(), by).unwrap()
}

fn issued(by: &Issuer, params: &CertificateParams) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, by).unwrap().der().clone()
}

fn verifier(authorities: &[&Issuer], revoked: &[Vec<u8>], depth: u32) -> Arc<ClientVerifier> {
    let auth = ClientAuth {
        fingerprint: "f".into(),
        authorities: Arc::new(authorities.iter().map(|by| by.der().to_vec()).collect()),
        revoked: Arc::new(revoked.to_vec()),
        depth,
    };
    let mut model = RoutingModel::default();
    let own = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "own");
    model
        .certificates
        .insert(model::CertificateId::new("own"), Arc::new(own));
    let policy = TlsPolicy {
        client_auth: Some(Arc::new(auth)),
        ..TlsPolicy::default()
    };
    model
        .tls_hosts
        .insert(pattern("a.test"), tls_host(&["own"], policy));
    let compiled = compile(&model);
    assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
    let entry = compiled.table.tls(Some("a.test")).unwrap();
    entry.clients.clone().unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

#[test]
fn a_chain_has_to_end_at_a_listed_authority() {
    let (listed, foreign) = (root("listed"), root("foreign"));
    let namesake = root("listed");
    let first = below(&listed, "first");
    let second = below(&first, "second");
    let leaf = named("client");
    let short = vec![issued(&listed, &leaf)];
    let longer = vec![issued(&first, &leaf), first.der().clone()];
    let longest = vec![
        issued(&second, &leaf),
        first.der().clone(),
        second.der().clone(),
    ];
    let own = named("own")
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap();
    for (chain, depth, want, why) in [
        (&short, 0, Ok(()), "directly"),
        (&longer, 0, Err(ClientFault::TooDeep), "one in between"),
        (&longer, 1, Ok(()), "one in between"),
        (&longest, 1, Err(ClientFault::TooDeep), "two in between"),
        (&longest, 2, Ok(()), "two in between, in any order"),
        (
            &vec![issued(&first, &leaf)],
            5,
            Err(ClientFault::UnknownAuthority),
            "what is in between has to be sent",
        ),
        (
            &vec![issued(&foreign, &leaf), foreign.der().clone()],
            5,
            Err(ClientFault::UnknownAuthority),
            "an authority that comes along is not a listed one",
        ),
        (
            &vec![issued(&namesake, &leaf)],
            5,
            Err(ClientFault::Signature),
            "a name is not a key",
        ),
        (
            &vec![own.der().clone()],
            5,
            Err(ClientFault::SelfSigned),
            "",
        ),
        (
            &vec![CertificateDer::from(vec![0x30, 0])],
            5,
            Err(ClientFault::Other),
            "noise",
        ),
        (&Vec::new(), 5, Err(ClientFault::Other), "nothing"),
    ] {
        let verifier = verifier(&[&listed], &[], depth);
        assert_eq!(
            verifier.verify(chain, at(NOW)),
            want,
            "depth {depth}: {why}"
        );
    }
    let both = verifier(&[&foreign, &listed], &[], 1);
    assert_eq!(both.verify(&short, at(NOW)), Ok(()), "one of several");
}

#[test]
fn time_and_purpose_count() {
    let listed = root("listed");
    let verifier = verifier(&[&listed], &[], 1);
    let mut purposes = named("client");
    purposes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = issued(&listed, &purposes);
    purposes
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ClientAuth);
    let both = issued(&listed, &purposes);
    let authority = below(&listed, "second");
    let used = |usages: &[KeyUsagePurpose]| {
        let mut params = named("client");
        params.key_usages = usages.to_vec();
        issued(&listed, &params)
    };
    let signs = used(&[KeyUsagePurpose::KeyEncipherment]);
    let agrees = used(&[
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyEncipherment,
    ]);
    let usual = issued(&listed, &named("client"));
    let year = 31_557_600;
    for (certificate, seconds, want, why) in [
        (&usual, NOW, Ok(()), "no purpose is any purpose"),
        (&both, NOW, Ok(()), ""),
        (&server, NOW, Err(ClientFault::Purpose), "for servers"),
        (&usual, NOW + 10 * year, Err(ClientFault::Expired), ""),
        (&usual, NOW - 11 * year, Err(ClientFault::NotYetValid), ""),
        (
            authority.der(),
            NOW,
            Err(ClientFault::Purpose),
            "for signing others",
        ),
        (
            &signs,
            NOW,
            Err(ClientFault::Purpose),
            "only for enciphering",
        ),
        (&agrees, NOW, Ok(()), "one of two usages is enough"),
    ] {
        let got = verifier.verify(std::slice::from_ref(certificate), at(seconds));
        assert_eq!(got, want, "{why}");
    }
}

#[test]
fn an_authority_whose_time_is_over_vouches_for_nobody() {
    let mut params = ca("listed");
    params.not_after = date_time_ymd(2025, 1, 1);
    let listed = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let client = issued(&listed, &named("client"));
    let verifier = verifier(&[&listed], &[], 1);
    let earlier = 1_700_000_000;
    assert_eq!(
        verifier.verify(std::slice::from_ref(&client), at(earlier)),
        Ok(())
    );
    assert_eq!(
        verifier.verify(&[client], at(NOW)),
        Err(ClientFault::UnknownAuthority)
    );
}

#[test]
fn a_listed_certificate_is_good_by_itself() {
    let pinned = anything_by_itself("pinned");
    let signing = root("signing");
    let listed = verifier(&[&signing], &[], 1);
    assert_eq!(
        listed.verify(&[signing.der().clone()], at(NOW)),
        Err(ClientFault::Purpose),
        "only for signing others"
    );
    let verifier = verifier(&[&pinned], &[], 1);
    let own = [pinned.der().clone()];
    assert_eq!(verifier.verify(&own, at(NOW)), Ok(()));
    assert_eq!(
        verifier.verify(&own, at(NOW + 400_000_000)),
        Err(ClientFault::Expired)
    );
}

/// An authority whose certificate is for anything.
fn anything_by_itself(name: &str) -> Issuer {
    let mut params = ca(name);
    params.key_usages = Vec::new();
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What nginx with OpenSSL answered to certificates of these kinds: an authority is a client as everybody else, if
/// nothing in its certificate says that it is for other things.
#[test]
fn an_authority_can_be_a_client() {
    let listed = root("listed");
    let namesake = root("listed");
    let mut params = ca("second");
    params.key_usages = Vec::new();
    let plain = issued(&listed, &params);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = issued(&listed, &params);
    params.extended_key_usages = Vec::new();
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let both = issued(&listed, &params);
    let year = 31_557_600;
    for (certificate, seconds, want, why) in [
        (plain.clone(), NOW, Ok(()), "for anything"),
        (both, NOW, Ok(()), "for signing others, and for this"),
        (server, NOW, Err(ClientFault::Purpose), "for servers"),
        (
            plain.clone(),
            NOW + 10 * year,
            Err(ClientFault::Expired),
            "",
        ),
        (
            issued(&namesake, &params),
            NOW,
            Err(ClientFault::Signature),
            "a name is not a key",
        ),
        (
            anything_by_itself("stranger").der().clone(),
            NOW,
            Err(ClientFault::SelfSigned),
            "nobody has listed it",
        ),
        (
            root("stranger").der().clone(),
            NOW,
            Err(ClientFault::Purpose),
            "nor would it do",
        ),
    ] {
        let verifier = verifier(&[&listed], &[], 1);
        assert_eq!(verifier.verify(&[certificate], at(seconds)), want, "{why}");
    }
    let looked_up = verifier(&[&listed], &[list(&listed, &[], 2039)], 1);
    assert_eq!(
        looked_up.verify(&[plain], at(NOW)),
        Err(ClientFault::NoRevocationList)
    );
}

fn list(by: &Issuer, revoked: &[u64], until: i32) -> Vec<u8> {
    list_from(by, revoked, 2021, until)
}

fn list_from(by: &Issuer, revoked: &[u64], from: i32, until: i32) -> Vec<u8> {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(from, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(by).unwrap().der().to_vec()
}

#[test]
fn what_is_revoked_does_not_pass_and_what_cannot_be_looked_up_neither() {
    let (listed, namesake) = (root("listed"), root("listed"));
    let between = below(&listed, "between");
    let numbered = |by: &Issuer, serial: u64| {
        let mut params = named("client");
        params.serial_number = Some(SerialNumber::from(serial));
        issued(by, &params)
    };
    let (good, bad) = (numbered(&listed, 7), numbered(&listed, 8));
    let deep = vec![numbered(&between, 7), between.der().clone()];
    let of_root = list(&listed, &[8], 2039);
    let of_between = list(&between, &[], 2039);
    for (lists, chain, want, why) in [
        (vec![of_root.clone()], vec![good.clone()], Ok(()), ""),
        (
            vec![of_root.clone()],
            vec![bad.clone()],
            Err(ClientFault::Revoked),
            "",
        ),
        (
            vec![list(&listed, &[], 2025)],
            vec![good.clone()],
            Err(ClientFault::RevocationListExpired),
            "nobody knows what has happened since",
        ),
        (
            vec![list_from(&listed, &[], 2035, 2039)],
            vec![good.clone()],
            Err(ClientFault::RevocationListNotYetValid),
            "nobody knows what will have happened until then",
        ),
        (
            vec![
                list_from(&listed, &[], 2035, 2039),
                list(&listed, &[], 2025),
            ],
            vec![good.clone()],
            Err(ClientFault::RevocationListExpired),
            "the one between is missing",
        ),
        (
            vec![list(&listed, &[], 2025), of_root.clone()],
            vec![good.clone()],
            Ok(()),
            "the one of now counts",
        ),
        (
            vec![list(&listed, &[], 2025), of_root.clone()],
            vec![bad.clone()],
            Err(ClientFault::Revoked),
            "whatever the old one says",
        ),
        (
            vec![list(&namesake, &[], 2039)],
            vec![good],
            Err(ClientFault::Other),
            "signed by somebody else",
        ),
        (
            vec![of_root.clone()],
            deep.clone(),
            Err(ClientFault::NoRevocationList),
            "of the authority in between",
        ),
        (
            vec![of_between, of_root.clone()],
            deep,
            Ok(()),
            "both lists",
        ),
        (
            vec![of_root],
            vec![listed.der().clone()],
            Err(ClientFault::NoRevocationList),
            "a list is asked also about a listed certificate",
        ),
    ] {
        let verifier = verifier(&[&listed], &lists, 3);
        assert_eq!(verifier.verify(&chain, at(NOW)), want, "{why}");
    }
}

#[test]
fn certificates_of_version_1_come_from_the_authority_itself() {
    let (listed, namesake) = (root("listed"), root("listed"));
    let between = below(&listed, "between");
    let old = |by: &Issuer| {
        let made = issued(by, &named("client"));
        CertificateDer::from(old::version_1(&made, by.key()))
    };
    let good = old(&listed);
    let year = 31_557_600;
    for (chain, lists, seconds, want, why) in [
        (vec![good.clone()], vec![], NOW, Ok(()), ""),
        (
            vec![good.clone()],
            vec![],
            NOW + 10 * year,
            Err(ClientFault::Expired),
            "",
        ),
        (
            vec![old(&namesake)],
            vec![],
            NOW,
            Err(ClientFault::Signature),
            "a name is not a key",
        ),
        (
            vec![old(&root("foreign"))],
            vec![],
            NOW,
            Err(ClientFault::UnknownAuthority),
            "",
        ),
        (
            vec![old(&between), between.der().clone()],
            vec![],
            NOW,
            Err(ClientFault::UnknownAuthority),
            "nothing says who may sign for whom",
        ),
        (
            vec![good],
            vec![list(&listed, &[], 2039)],
            NOW,
            Err(ClientFault::NoRevocationList),
            "lists are for the new ones",
        ),
    ] {
        let verifier = verifier(&[&listed], &lists, 3);
        assert_eq!(verifier.verify(&chain, at(seconds)), want, "{why}");
    }
}
