//! What a client gets in a real handshake, in memory.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::io;
use std::sync::Arc;

use model::{
    Certificate, CertificateId, Changes, KeyAlgorithm, RoutingModel, TlsPolicy, TlsVersion,
};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    ServerConnection, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion, version,
};
use table::{Table, compile, recompile};

use crate::common::{certificate, pattern, tls_host};

const HOST: &str = "a.test";
const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const OLD: &[&SupportedProtocolVersion] = &[&version::TLS12];

/// A model with certificates for a.test of every kind: `ecdsa`, `ed25519`, `rsa`.
fn model_with(certificates: &[&str], policy: TlsPolicy) -> RoutingModel {
    let mut model = RoutingModel::default();
    for (id, algorithm) in [
        ("ecdsa", KeyAlgorithm::Ecdsa),
        ("ed25519", KeyAlgorithm::Ed25519),
        ("rsa", KeyAlgorithm::Rsa),
    ] {
        let certificate = certificate(algorithm, &[HOST, "other.test"], id);
        model
            .certificates
            .insert(CertificateId::new(id), Arc::new(certificate));
    }
    let host = tls_host(certificates, policy);
    model.tls_hosts.insert(pattern(HOST), host);
    model
}

fn kind_of(scheme: SignatureScheme) -> SignatureAlgorithm {
    match scheme.as_str().unwrap_or_default() {
        name if name.starts_with("ECDSA") => SignatureAlgorithm::ECDSA,
        name if name.starts_with("ED25519") => SignatureAlgorithm::ED25519,
        name if name.starts_with("RSA") => SignatureAlgorithm::RSA,
        _ => SignatureAlgorithm::Anonymous,
    }
}

/// Keeps the signature schemes of some kinds of key.
fn only(provider: &mut CryptoProvider, kinds: &[SignatureAlgorithm]) {
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let kept: Vec<_> = mapping
        .iter()
        .filter(|(scheme, _)| kinds.contains(&kind_of(*scheme)))
        .copied()
        .collect();
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all,
        mapping: kept.leak(),
    };
}

fn client(model: &RoutingModel, provider: CryptoProvider) -> ClientConfig {
    client_of(model, provider, BOTH)
}

fn client_of(
    model: &RoutingModel,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in model.certificates.values() {
        let der = CertificateDer::from(certificate.chain[0].clone());
        roots.add(der).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Both ends of a finished handshake.
struct Session {
    client: ClientConnection,
    server: ServerConnection,
}

impl Session {
    fn certificate<'m>(&self, model: &'m RoutingModel) -> &'m str {
        let got = &self.client.peer_certificates().unwrap()[0];
        let (id, _) = model
            .certificates
            .iter()
            .find(|(_, certificate)| certificate.chain[0] == got.as_ref())
            .unwrap();
        id.as_str()
    }
}

fn handshake(table: &Table, config: &Arc<ClientConfig>) -> Result<Session, rustls::Error> {
    let entry = table.tls(Some(HOST)).unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&entry.config)).unwrap();
    // Until both have nothing left to say: the session tickets come after the handshake.
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.len();
        let mut input = io::Cursor::new(wire);
        while server.read_tls(&mut input).unwrap() > 0 {
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        sent += wire.len();
        let mut input = io::Cursor::new(wire);
        while client.read_tls(&mut input).unwrap() > 0 {
            client.process_new_packets()?;
        }
        if sent == 0 {
            return Ok(Session { client, server });
        }
    }
}

#[test]
fn the_client_gets_a_certificate_that_it_can_verify() {
    use SignatureAlgorithm::{ECDSA, ED25519, RSA};

    let all = ["ecdsa", "ed25519", "rsa"];
    for (certificates, kinds, want, why) in [
        (
            &all[..],
            &[ECDSA, ED25519, RSA][..],
            "ecdsa",
            "the first of the host",
        ),
        (&all, &[RSA], "rsa", ""),
        (&all, &[ECDSA], "ecdsa", ""),
        (&all, &[ED25519], "ed25519", ""),
        (&all, &[ED25519, RSA], "ed25519", ""),
        (
            &["rsa", "ecdsa"],
            &[ECDSA, RSA],
            "rsa",
            "the host's order, not the client's",
        ),
        (&["rsa", "ecdsa"], &[ECDSA], "ecdsa", ""),
    ] {
        let model = model_with(certificates, TlsPolicy::default());
        let table = compile(&model).table;
        for versions in [BOTH, OLD] {
            let mut provider = aws_lc_rs::default_provider();
            only(&mut provider, kinds);
            let config = client_of(&model, provider, versions);
            let session = handshake(&table, &Arc::new(config)).unwrap();
            assert_eq!(
                session.certificate(&model),
                want,
                "{certificates:?} {kinds:?}: {why}"
            );
        }
    }
}

#[test]
fn a_client_with_nothing_in_common_is_told_so() {
    let model = model_with(&["ecdsa"], TlsPolicy::default());
    let table = compile(&model).table;
    let mut provider = aws_lc_rs::default_provider();
    only(&mut provider, &[SignatureAlgorithm::RSA]);
    let config = Arc::new(client(&model, provider));
    let fault = handshake(&table, &config).map(|_| ()).unwrap_err();
    assert!(
        matches!(fault, rustls::Error::PeerIncompatible(_)),
        "{fault:?}"
    );
}

#[test]
fn in_tls_1_2_the_offered_suites_count_too() {
    let model = model_with(&["ecdsa", "rsa"], TlsPolicy::default());
    let table = compile(&model).table;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        suite.version() == &version::TLS12
            && suite.usable_for_signature_algorithm(SignatureAlgorithm::RSA)
    });
    let config = Arc::new(client_of(&model, provider, OLD));
    let session = handshake(&table, &config).unwrap();
    assert_eq!(session.certificate(&model), "rsa");
}

#[test]
fn the_policy_decides_about_versions_and_protocols() {
    let strict = TlsPolicy {
        min_version: TlsVersion::V1_3,
        http2: false,
        ..TlsPolicy::default()
    };
    let model = model_with(&["ecdsa"], TlsPolicy::default());
    let table = compile(&model).table;
    let strict_model = model_with(&["ecdsa"], strict);
    let strict_table = compile(&strict_model).table;
    let session = |table, model, versions| {
        let provider = aws_lc_rs::default_provider();
        handshake(table, &Arc::new(client_of(model, provider, versions)))
    };

    let usual = session(&table, &model, BOTH).unwrap();
    assert_eq!(usual.server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        usual.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let group = usual.server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let old = session(&table, &model, OLD).unwrap();
    assert_eq!(
        old.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );

    let strict = session(&strict_table, &strict_model, BOTH).unwrap();
    assert_eq!(strict.server.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(session(&strict_table, &strict_model, OLD).is_err());
    assert_ne!(
        table.tls(Some(HOST)).unwrap().policy,
        strict_table.tls(Some(HOST)).unwrap().policy
    );
}

#[test]
fn names_find_their_entry() {
    let mut model = model_with(&["ecdsa"], TlsPolicy::default());
    for text in ["*.test", "**.deep.test"] {
        let host = tls_host(&["rsa"], TlsPolicy::default());
        model.tls_hosts.insert(pattern(text), host);
    }
    let table = compile(&model).table;
    let found = |table: &Table, name: Option<&str>| {
        let entry = table.tls(name)?;
        Some(entry.pattern.as_ref().map(ToString::to_string))
    };
    let text = |text: &str| Some(Some(text.to_owned()));
    assert_eq!(found(&table, Some("a.test")), text("a.test"));
    assert_eq!(found(&table, Some("b.test")), text("*.test"));
    assert_eq!(found(&table, Some("x.y.deep.test")), text("**.deep.test"));
    assert_eq!(found(&table, Some("x.y.test")), None, "nothing, no default");
    assert_eq!(found(&table, None), None);

    model.default_tls = Some(tls_host(&["rsa"], TlsPolicy::default()));
    let table = compile(&model).table;
    assert_eq!(found(&table, Some("x.y.test")), Some(None), "the default");
    assert_eq!(found(&table, None), Some(None));
    let host = tls_host(&["rsa"], TlsPolicy::default());
    model.tls_hosts.insert(pattern("*"), host);
    let table = compile(&model).table;
    assert_eq!(found(&table, None), text("*"), "every host, also none");
}

#[test]
fn a_host_without_certificates_borrows_those_of_the_default_and_keeps_its_policy() {
    let strict = TlsPolicy {
        min_version: TlsVersion::V1_3,
        ..TlsPolicy::default()
    };
    let mut model = model_with(&["missing"], strict);
    let lonely = compile(&model).table;
    assert!(lonely.tls(Some(HOST)).is_none(), "no certificate at all");

    model.default_tls = Some(tls_host(&["rsa"], TlsPolicy::default()));
    let table = compile(&model).table;
    let provider = aws_lc_rs::default_provider;
    let session = handshake(&table, &Arc::new(client(&model, provider()))).unwrap();
    assert_eq!(session.certificate(&model), "rsa");
    let old = client_of(&model, provider(), OLD);
    assert!(handshake(&table, &Arc::new(old)).is_err());

    // The default changes its certificate, and so does who borrows it.
    let before = model.clone();
    model.default_tls = Some(tls_host(&["ecdsa"], TlsPolicy::default()));
    let table = recompile(&table, &model, &Changes::between(&before, &model)).table;
    let session = handshake(&table, &Arc::new(client(&model, provider()))).unwrap();
    assert_eq!(session.certificate(&model), "ecdsa");

    // Its own certificate arrives.
    let before = model.clone();
    let own = certificate(KeyAlgorithm::Ecdsa, &[HOST], "own");
    model
        .certificates
        .insert(CertificateId::new("missing"), Arc::new(own));
    let table = recompile(&table, &model, &Changes::between(&before, &model)).table;
    let session = handshake(&table, &Arc::new(client(&model, provider()))).unwrap();
    assert_eq!(session.certificate(&model), "missing");
}

/// Replaces the certificate `id` by a new one with the same names.
fn rotate(model: &mut RoutingModel, id: &str) -> Changes {
    let before = model.clone();
    let rotated: Certificate = certificate(KeyAlgorithm::Ecdsa, &[HOST], "rotated");
    model
        .certificates
        .insert(CertificateId::new(id), Arc::new(rotated));
    Changes::between(&before, model)
}

#[test]
fn sessions_survive_a_swap_and_end_with_the_policy() {
    let tls13 = Resumption::in_memory_sessions(8);
    let tickets = Resumption::in_memory_sessions(8);
    let sessions =
        Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    for (versions, resumption, how) in [
        (BOTH, tls13, "tickets of TLS 1.3"),
        (OLD, tickets, "tickets of TLS 1.2"),
        (OLD, sessions, "session identifiers"),
    ] {
        let mut model = model_with(&["ecdsa"], TlsPolicy::default());
        let first = compile(&model).table;
        let mut config = client_of(&model, aws_lc_rs::default_provider(), versions);
        config.resumption = resumption;
        let config = Arc::new(config);
        let kind = |table: &Table| {
            let session = handshake(table, &config).unwrap();
            session.server.handshake_kind().unwrap()
        };
        assert_ne!(kind(&first), HandshakeKind::Resumed, "{how}");
        assert_eq!(kind(&first), HandshakeKind::Resumed, "{how}");

        let changes = rotate(&mut model, "ecdsa");
        let second = recompile(&first, &model, &changes).table;
        drop(first);
        assert_eq!(kind(&second), HandshakeKind::Resumed, "{how} after a swap");

        let before = model.clone();
        let other = TlsPolicy {
            http2: false,
            ..TlsPolicy::default()
        };
        // The old certificate, which the client trusts.
        model
            .tls_hosts
            .insert(pattern(HOST), tls_host(&["rsa"], other));
        let changes = Changes::between(&before, &model);
        let third = recompile(&second, &model, &changes).table;
        assert_ne!(
            kind(&third),
            HandshakeKind::Resumed,
            "{how}, another policy"
        );
    }
}

#[test]
fn unchanged_hosts_keep_their_entry() {
    let mut model = model_with(&["ecdsa"], TlsPolicy::default());
    for n in 0..100 {
        let host = tls_host(&["rsa"], TlsPolicy::default());
        model.tls_hosts.insert(pattern(&format!("h{n}.test")), host);
    }
    let first = compile(&model).table;
    let changes = rotate(&mut model, "ecdsa");
    let second = recompile(&first, &model, &changes).table;
    let same = |name: &str| {
        Arc::ptr_eq(
            first.tls(Some(name)).unwrap(),
            second.tls(Some(name)).unwrap(),
        )
    };
    assert!(!same(HOST));
    assert!((0..100).all(|n| same(&format!("h{n}.test"))));
    let one = first.tls(Some("h1.test")).unwrap();
    let other = first.tls(Some("h2.test")).unwrap();
    assert!(
        Arc::ptr_eq(&one.config, &other.config),
        "equal settings share a configuration"
    );
}
