//! One rustls configuration per TLS policy: what the hosts of a policy share, and what outlives a table.

use std::fmt;
use std::sync::{Arc, OnceLock};

use model::{ClientAuth, TlsPolicy, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::{ServerConfig, SupportedCipherSuite, version};
use sha2::{Digest, Sha256};

use crate::certificates::HostCertificates;
use crate::clients::{Asking, ClientVerifier};
use crate::intern::Interned;

/// Sessions that are kept, per policy, for clients of TLS 1.2 without tickets.
const SESSIONS: usize = 20_000;

/// Names a TLS policy by its content: equal in every table and every process, and different for any two policies.
///
/// A connection that was made under one policy must not carry requests for a host of another (status 421).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId(u128);

impl PolicyId {
    pub(crate) fn of(policy: &TlsPolicy) -> Self {
        let mut hash = Self::hash_without_clients(policy);
        if let Some(clients) = &policy.client_auth {
            let ClientAuth {
                fingerprint,
                authorities,
                revoked,
                depth,
            } = &**clients;
            hash.update(depth.to_be_bytes());
            hash.update(authorities.len().to_be_bytes());
            let parts = authorities.iter().chain(&**revoked).map(Vec::as_slice);
            for part in parts.chain([fingerprint.as_bytes()]) {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
        }
        Self::from_hash(hash)
    }

    /// The same for all policies that differ only in what is made of certificates of clients.
    pub(crate) fn without_clients(policy: &TlsPolicy) -> Self {
        Self::from_hash(Self::hash_without_clients(policy))
    }

    fn hash_without_clients(policy: &TlsPolicy) -> Sha256 {
        let TlsPolicy {
            min_version,
            cipher_suites,
            http2,
            client_auth: _,
        } = policy;
        let mut hash = Sha256::new();
        hash.update([
            match min_version {
                TlsVersion::V1_2 => 2,
                TlsVersion::V1_3 => 3,
            },
            u8::from(*http2),
        ]);
        hash.update(cipher_suites.len().to_be_bytes());
        for suite in cipher_suites {
            hash.update(suite.len().to_be_bytes());
            hash.update(suite);
        }
        hash
    }

    fn from_hash(hash: Sha256) -> Self {
        let half = hash
            .finalize()
            .iter()
            .take(16)
            .fold(0, |number, byte| number << 8 | u128::from(*byte));
        Self(half)
    }
}

impl fmt::Debug for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyId({:032x})", self.0)
    }
}

/// The configurations in use, carried from table to table. Ticket keys and sessions live in them, so resumption
/// survives a swap, and never crosses from one policy to another: rustls compares the server name of a session, not
/// the policy that it was made under.
pub(crate) type Policies = Interned<TlsPolicy, Base>;

/// What the hosts of one policy share.
pub(crate) struct Base {
    pub(crate) id: PolicyId,
    /// The same for all policies that differ only in the field below.
    pub(crate) transport: PolicyId,
    /// Judges the certificates of clients, where they are asked for.
    pub(crate) clients: Option<Arc<ClientVerifier>>,
    config: ServerConfig,
}

impl Base {
    pub(crate) fn new(policy: &TlsPolicy, provider: &CryptoProvider) -> Result<Self, String> {
        let suites = cipher_suites(policy, &provider.cipher_suites)?;
        let versions: Vec<_> = [&version::TLS13, &version::TLS12]
            .into_iter()
            .filter(|version| suites.iter().any(|suite| suite.version() == *version))
            .collect();
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites,
            ..provider.clone()
        });
        let no_certificates = HostCertificates::new(Box::default(), Arc::clone(&provider));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|fault| fault.to_string())?;
        let (builder, clients) = match &policy.client_auth {
            None => (builder.with_no_client_auth(), None),
            Some(auth) => {
                let asking = Asking::new(auth, &provider)?;
                let clients = ClientVerifier::new(auth, &provider)?;
                (
                    builder.with_client_cert_verifier(Arc::new(asking)),
                    Some(Arc::new(clients)),
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(no_certificates));
        config.alpn_protocols = if policy.http2 {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            vec![b"http/1.1".to_vec()]
        };
        // Who lists suites, best first, wants this order and not the client's.
        config.ignore_client_order = !policy.cipher_suites.is_empty();
        if clients.is_some() {
            // A client that came without a certificate could not show one for as long as it resumes its session, and
            // nothing that was shown once is to count without the key.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(|fault| fault.to_string())?;
            config.session_storage = Arc::new(Sessions(OnceLock::new()));
        }
        Ok(Self {
            id: PolicyId::of(policy),
            transport: PolicyId::without_clients(policy),
            clients,
            config,
        })
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        self.config.crypto_provider()
    }

    /// The configuration of hosts that have these certificates.
    pub(crate) fn with_certificates(&self, resolver: Arc<dyn ResolvesServerCert>) -> ServerConfig {
        let mut config = self.config.clone();
        config.cert_resolver = resolver;
        config
    }
}

/// The suites that `policy` allows among `known`, best first.
fn cipher_suites(
    policy: &TlsPolicy,
    known: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut suites = suites_named(&policy.cipher_suites, known)?;
    suites.retain(|suite| policy.min_version == TlsVersion::V1_2 || is_13(suite));
    Ok(suites)
}

/// The suites of these IANA names among `known`, best first; without a name, all.
///
/// A list that names no suite of TLS 1.3 says nothing about TLS 1.3, as in nginx and OpenSSL: its suites stay.
pub(crate) fn suites_named(
    names: &[String],
    known: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut suites = Vec::new();
    for name in names {
        let suite = known
            .iter()
            .find(|suite| iana_name(suite) == *name)
            .ok_or_else(|| {
                format!(
                    "`{}` is not a cipher suite of Lockgate",
                    name.escape_debug()
                )
            })?;
        suites.push(*suite);
    }
    if suites.is_empty() {
        suites = known.to_vec();
    } else if !suites.iter().any(is_13) {
        suites.splice(0..0, known.iter().copied().filter(is_13));
    }
    Ok(suites)
}

pub(crate) fn is_13(suite: &SupportedCipherSuite) -> bool {
    suite.version() == &version::TLS13
}

/// The name in IANA's registry, where TLS 1.3 suites have no version in it.
fn iana_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}"),
        None => name.to_owned(),
    }
}

/// A session cache that takes its memory when the first session is kept: nearly all clients use tickets.
struct Sessions(OnceLock<Arc<ServerSessionMemoryCache>>);

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0
            .get_or_init(|| ServerSessionMemoryCache::new(SESSIONS))
            .put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get()?.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get()?.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    fn policy(min_version: TlsVersion, suites: &[&str]) -> TlsPolicy {
        TlsPolicy {
            min_version,
            cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
            ..TlsPolicy::default()
        }
    }

    #[test]
    fn a_list_of_suites_is_the_list_in_its_order() {
        const RSA: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        const ECDSA: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
        const AES_13: &str = "TLS_AES_128_GCM_SHA256";
        const ALL_13: [&str; 3] = [
            "TLS_AES_256_GCM_SHA384",
            "TLS_AES_128_GCM_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
        ];
        let provider = aws_lc_rs::default_provider();
        for (min_version, given, want, why) in [
            (TlsVersion::V1_3, vec![], ALL_13.to_vec(), "all of 1.3"),
            (
                TlsVersion::V1_2,
                vec![RSA, ECDSA],
                [&ALL_13[..], &[RSA, ECDSA]].concat(),
                "1.3 is not mentioned and stays",
            ),
            (TlsVersion::V1_3, vec![RSA], ALL_13.to_vec(), ""),
            (
                TlsVersion::V1_2,
                vec![AES_13, RSA],
                vec![AES_13, RSA],
                "1.3 is mentioned and restricted",
            ),
            (TlsVersion::V1_2, vec![AES_13], vec![AES_13], "no 1.2 left"),
        ] {
            let policy = policy(min_version, &given);
            let suites = cipher_suites(&policy, &provider.cipher_suites).unwrap();
            let names: Vec<_> = suites.iter().map(iana_name).collect();
            assert_eq!(names, want, "{given:?}: {why}");
            assert!(Base::new(&policy, &provider).is_ok(), "{given:?}");
        }
        let unknown = policy(TlsVersion::V1_2, &[RSA, "TLS_RSA_WITH_RC4_128_SHA"]);
        assert!(Base::new(&unknown, &provider).is_err());
    }

    #[test]
    fn the_key_exchange_is_hybrid_first() {
        let base = Base::new(&TlsPolicy::default(), &aws_lc_rs::default_provider()).unwrap();
        assert_eq!(
            base.provider().kx_groups.first().map(|group| group.name()),
            Some(NamedGroup::X25519MLKEM768)
        );
    }

    fn with_clients(
        fingerprint: &str,
        authorities: &[&[u8]],
        revoked: &[&[u8]],
        depth: u32,
    ) -> TlsPolicy {
        let owned = |list: &[&[u8]]| list.iter().map(|der| der.to_vec()).collect::<Vec<_>>();
        TlsPolicy {
            client_auth: Some(Arc::new(ClientAuth {
                fingerprint: fingerprint.into(),
                authorities: Arc::new(owned(authorities)),
                revoked: Arc::new(owned(revoked)),
                depth,
            })),
            ..TlsPolicy::default()
        }
    }

    #[test]
    fn certificates_of_clients_do_not_change_the_name_of_the_rest() {
        let with = with_clients("f", &[b"ab"], &[], 1);
        let strict = policy(TlsVersion::V1_3, &[]);
        let without = PolicyId::without_clients(&TlsPolicy::default());
        assert_eq!(PolicyId::without_clients(&with), without);
        assert_ne!(PolicyId::without_clients(&strict), without);
        assert_eq!(PolicyId::of(&TlsPolicy::default()), without);
    }

    #[test]
    fn every_part_of_a_policy_is_part_of_its_name() {
        let policies = [
            TlsPolicy::default(),
            policy(TlsVersion::V1_3, &[]),
            TlsPolicy {
                http2: false,
                ..TlsPolicy::default()
            },
            policy(TlsVersion::V1_2, &["AB", "C"]),
            policy(TlsVersion::V1_2, &["A", "BC"]),
            policy(TlsVersion::V1_2, &["BC", "A"]),
            with_clients("f", &[b"ab", b"c"], &[], 1),
            with_clients("f", &[b"a", b"bc"], &[], 1),
            with_clients("f", &[b"ab"], &[b"c"], 1),
            with_clients("f", &[b"ab", b"c"], &[], 2),
            with_clients("g", &[b"ab", b"c"], &[], 1),
        ];
        for (n, one) in policies.iter().enumerate() {
            for (m, other) in policies.iter().enumerate() {
                assert_eq!(PolicyId::of(one) == PolicyId::of(other), n == m);
            }
        }
    }
}
