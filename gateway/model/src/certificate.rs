//! Certificates and per-host TLS policy.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ClientAuth, Origin, Redacted};

/// Identifies a certificate. From a Secret it is `namespace/name`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CertificateId(Box<str>);

impl CertificateId {
    /// The certificate of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The certificate held by this Secret.
    pub fn secret(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a private key is encoded.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    /// RSA, RFC 8017.
    Pkcs1,
    /// Any algorithm, RFC 5958.
    Pkcs8,
    /// Elliptic curves, RFC 5915.
    Sec1,
}

/// What a key signs with. A host can have one certificate of each kind; what the client offers decides.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 or P-384.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSA, 2048 bits or more.
    Rsa,
}

/// A private key in DER. Its bytes are overwritten when it is dropped.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateKey {
    /// Its encoding.
    pub format: KeyFormat,
    /// Its bytes; never printed.
    pub der: Redacted<Vec<u8>>,
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.der.wipe();
    }
}

/// A certificate chain with its key. Whoever makes one has checked that they belong together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain in DER, the certificate of the host first.
    #[serde(skip_serializing, default)]
    pub chain: Vec<Vec<u8>>,
    /// The key of the first certificate.
    pub key: PrivateKey,
    /// What the key signs with.
    pub algorithm: KeyAlgorithm,
    /// Subject alternative names (DNS and IP), sorted; for people, not for matching.
    pub names: Vec<String>,
    /// Valid from, in seconds since 1970.
    pub not_before: i64,
    /// Valid until, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the first certificate, in lower-case hexadecimal.
    pub fingerprint: String,
    /// The object that holds it.
    pub origin: Origin,
}

/// A TLS version that can be required.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// How TLS is spoken for a host.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPolicy {
    /// The lowest version that is accepted.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Cipher suites by their IANA names, best first; empty for the library's own list. A name that the library does
    /// not have closes the host: its handshakes are refused. A list that names no suite of TLS 1.3 leaves those of
    /// TLS 1.3 as they are.
    #[serde(default)]
    pub cipher_suites: Vec<String>,
    /// Is HTTP/2 offered?
    #[serde(default = "yes")]
    pub http2: bool,
    /// How certificates of clients are verified; `None` does not ask for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<Arc<ClientAuth>>,
}

fn yes() -> bool {
    true
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::default(),
            cipher_suites: Vec::new(),
            http2: true,
            client_auth: None,
        }
    }
}

/// TLS for the server names of one pattern.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsHost {
    /// Certificates, in order of preference among those whose algorithm the client can verify. One that is missing
    /// from the model is skipped; when none is left, those of the default serve.
    pub certificates: Vec<CertificateId>,
    /// Versions, ciphers, protocols.
    #[serde(default)]
    pub policy: TlsPolicy,
    /// Where this was asked for.
    pub origin: Origin,
}
