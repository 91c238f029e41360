//! Secret → certificate.

mod clients;
mod users;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use model::{
    Authorities, Certificate, HostPattern, KeyAlgorithm, KeyFormat, Origin, PrivateKey, Redacted,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

pub(crate) use self::clients::ClientLists;
pub(crate) use self::users::{UserSources, UsersFault, UsersForm};
use crate::object::{kinds, name_of};

const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// Smallest RSA key that is accepted, in bits.
const RSA_BITS: usize = 2048;

/// What is wrong with a Secret. The text never quotes its contents.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SecretFault {
    /// It is not there.
    #[error("it does not exist")]
    Missing,
    /// A key is not there or empty.
    #[error("`{0}` is missing or empty")]
    Empty(&'static str),
    /// The text is not PEM.
    #[error("`{0}` is not PEM: {1}")]
    Pem(&'static str, &'static str),
    /// No certificate or no private key among what the PEM text holds.
    #[error("`{0}` has no {1} in it")]
    Nothing(&'static str, &'static str),
    /// The private key is encrypted.
    #[error("`tls.key` is encrypted; store it without a passphrase")]
    Encrypted,
    /// A certificate of the chain cannot be read.
    #[error("certificate {number} of `tls.crt` cannot be read: {reason}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// What the parser says.
        reason: &'static str,
    },
    /// The key is of a kind or size that is not served.
    #[error("the key is {0}; RSA with 2048 bits or more, P-256, P-384 and Ed25519 are accepted")]
    Algorithm(String),
    /// The private key cannot be read.
    #[error("`tls.key` cannot be read as a private key")]
    Key,
    /// The key belongs to another certificate of the chain.
    #[error(
        "`tls.key` belongs to certificate {0} of `tls.crt`; the certificate of the host has to come first"
    )]
    Order(usize),
    /// A certificate that others are to be traced back to cannot be used.
    #[error("certificate {0} of `ca.crt` cannot be used as an authority")]
    Authority(usize),
    /// A certificate that those of clients are to be traced back to is not the certificate of an authority.
    #[error("certificate {0} of `ca.crt` is not the certificate of an authority")]
    NoAuthority(usize),
    /// A revocation list cannot be used.
    #[error("revocation list {number} of `ca.crl` cannot be used: {reason}")]
    RevocationList {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key belongs to no certificate of the chain.
    #[error("`tls.key` does not belong to the certificate in `tls.crt`")]
    Mismatch,
}

/// Reads certificate and key of a Secret of type `kubernetes.io/tls`.
///
/// The type itself is not looked at: every Secret that has the two keys will do, as with ingress-nginx.
pub(crate) fn certificate(secret: &Secret) -> Result<Arc<Certificate>, SecretFault> {
    let chain = chain_of(bytes(secret, CHAIN)?)?;
    let key = Zeroizing::new(key_of(bytes(secret, KEY)?)?);
    let first = chain
        .first()
        .ok_or(SecretFault::Nothing(CHAIN, "certificate"))?;
    let leaf = parse(first, 1)?;
    for (index, der) in chain.iter().enumerate().skip(1) {
        parse(der, index + 1)?;
    }
    let algorithm = algorithm_of(&leaf)?;
    check_pair(&chain, &key)?;
    Ok(Arc::new(Certificate {
        names: names_of(&leaf),
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        fingerprint: fingerprint(first),
        algorithm,
        key: PrivateKey {
            format: match &*key {
                PrivateKeyDer::Pkcs1(_) => KeyFormat::Pkcs1,
                PrivateKeyDer::Sec1(_) => KeyFormat::Sec1,
                PrivateKeyDer::Pkcs8(_) | _ => KeyFormat::Pkcs8,
            },
            der: Redacted::new(key.secret_der().to_vec()),
        },
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        origin: Origin::new(name_of(&secret.metadata).reference(kinds::SECRET), ""),
    }))
}

/// The certificates that those of backends are traced back to. Nothing where the Secret has none.
pub(crate) fn authorities(secret: &Secret) -> Result<Option<Arc<Authorities>>, SecretFault> {
    let Ok(pem) = bytes(secret, AUTHORITIES) else {
        return Ok(None);
    };
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| SecretFault::Pem(AUTHORITIES, pem_reason(&error)))?;
    if list.is_empty() {
        return Err(SecretFault::Nothing(AUTHORITIES, "certificate"));
    }
    let mut store = RootCertStore::empty();
    for (index, der) in list.iter().enumerate() {
        let unusable = || SecretFault::Authority(index + 1);
        parse(der, index + 1).map_err(|_| unusable())?;
        store.add(der.clone()).map_err(|_| unusable())?;
    }
    Ok(Some(Arc::new(
        list.iter().map(|der| der.to_vec()).collect(),
    )))
}

/// Has the Secret a certificate, good or not?
pub(crate) fn has_certificate(secret: &Secret) -> bool {
    secret
        .data
        .as_ref()
        .is_some_and(|data| data.contains_key(CHAIN))
}

/// Stands for what is read of a Secret, so that the same one is not read again.
pub(crate) fn digest(secret: &Secret) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, value) in secret.data.iter().flatten() {
        for part in [key.as_bytes(), &value.0] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// Does one of the certificate's names cover every host of the pattern? [`HostPattern::Any`] cannot be covered and is
/// not asked for.
pub(crate) fn covers(certificate: &Certificate, pattern: &HostPattern) -> bool {
    let wanted = match pattern {
        HostPattern::Any => return true,
        HostPattern::Exact(_) | HostPattern::Wildcard { .. } => pattern.to_string(),
    };
    certificate.names.iter().any(|name| {
        name.eq_ignore_ascii_case(&wanted)
            || HostPattern::parse(name).is_ok_and(|name| match name {
                HostPattern::Wildcard { .. } => name.matches(&wanted),
                HostPattern::Exact(_) | HostPattern::Any => false,
            })
    })
}

fn bytes<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a [u8], SecretFault> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|value| value.0.as_slice())
        .filter(|value| !value.trim_ascii().is_empty())
        .ok_or(SecretFault::Empty(key))
}

fn chain_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecretFault> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| SecretFault::Pem(CHAIN, pem_reason(&error)))?;
    if chain.is_empty() {
        return Err(SecretFault::Nothing(CHAIN, "certificate"));
    }
    Ok(chain)
}

fn key_of(pem: &[u8]) -> Result<PrivateKeyDer<'static>, SecretFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        // A PKCS#8 section of its own name, or RFC 1421 headers, which are not base64.
        if has(pem, b"ENCRYPTED PRIVATE KEY") || has(pem, b"Proc-Type: 4,ENCRYPTED") {
            SecretFault::Encrypted
        } else if matches!(error, pem::Error::NoItemsFound) {
            SecretFault::Nothing(KEY, "private key")
        } else {
            SecretFault::Pem(KEY, pem_reason(&error))
        }
    })
}

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// The parser's own words quote lines of the text, which may be part of a key.
fn pem_reason(error: &pem::Error) -> &'static str {
    if matches!(error, pem::Error::MissingSectionEnd { .. }) {
        "a section has no end line"
    } else if matches!(error, pem::Error::IllegalSectionStart { .. }) {
        "a section has a broken start line"
    } else if matches!(error, pem::Error::Base64Decode(_)) {
        "a section is not base64"
    } else {
        "it cannot be read"
    }
}

fn parse(der: &[u8], number: usize) -> Result<X509Certificate<'_>, SecretFault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(SecretFault::Certificate {
            number,
            reason: "bytes follow behind its end",
        }),
        // The parser's own words speak of its grammar and help nobody.
        Err(_) => Err(SecretFault::Certificate {
            number,
            reason: "it is not an X.509 certificate",
        }),
    }
}

fn algorithm_of(leaf: &X509Certificate<'_>) -> Result<KeyAlgorithm, SecretFault> {
    let info = leaf.public_key();
    let refused = |what: &str| SecretFault::Algorithm(what.to_owned());
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= RSA_BITS => Ok(KeyAlgorithm::Rsa),
        Ok(PublicKey::RSA(rsa)) => Err(SecretFault::Algorithm(format!(
            "RSA with {} bits",
            rsa.key_size()
        ))),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 | 384 if is_nist_curve(leaf) => Ok(KeyAlgorithm::Ecdsa),
            _ => Err(refused("on another elliptic curve")),
        },
        Ok(_) | Err(_) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            Ok(KeyAlgorithm::Ed25519)
        }
        Ok(PublicKey::DSA(_)) => Err(refused("DSA")),
        Ok(_) | Err(_) => Err(refused("of an unknown kind")),
    }
}

fn is_nist_curve(leaf: &X509Certificate<'_>) -> bool {
    leaf.public_key()
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .is_some_and(|oid| {
            matches!(
                oid.to_id_string().as_str(),
                "1.2.840.10045.3.1.7" | "1.3.132.0.34"
            )
        })
}

fn check_pair(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), SecretFault> {
    let signer = any_supported_type(key).map_err(|_| SecretFault::Key)?;
    let belongs = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], signer.clone())
            .keys_match()
            .is_ok()
    };
    match chain.iter().position(belongs) {
        Some(0) => Ok(()),
        Some(index) => Err(SecretFault::Order(index + 1)),
        None => Err(SecretFault::Mismatch),
    }
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut names: Vec<String> = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::DNSName(name) = name {
                Some(name.to_ascii_lowercase())
            } else if let GeneralName::IPAddress(bytes) = name {
                address(bytes)
            } else {
                None
            }
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// The fingerprint of a certificate in DER, as [`Certificate::fingerprint`] holds it.
pub fn fingerprint(der: &[u8]) -> String {
    hexadecimal(&Sha256::digest(der))
}

/// Two digits per byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
