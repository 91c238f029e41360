//! Certificates as rustls wants them, and which one a client gets.

use std::fmt;
use std::sync::Arc;

use model::{Certificate, KeyFormat, PrivateKey};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use crate::shards::Keyed;

/// A certificate of the model with its key loaded.
pub(crate) struct LoadedCertificate {
    pub(crate) id: model::CertificateId,
    pub(crate) source: Arc<Certificate>,
    /// `None` when it cannot be used.
    pub(crate) key: Option<Arc<dyn SigningKey>>,
}

impl LoadedCertificate {
    /// As rustls wants it, for one handshake. It wants a chain of its own: to copy one costs little beside a signature, and
    /// to keep a second one for each of thousands of certificates would take more memory than all else that is known of them.
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let key = Arc::clone(self.key.as_ref()?);
        Some(Arc::new(CertifiedKey::new(chain(&self.source), key)))
    }
}

fn chain(certificate: &Certificate) -> Vec<CertificateDer<'static>> {
    let chain = certificate.chain.iter();
    chain.map(|der| CertificateDer::from(der.clone())).collect()
}

impl Keyed for Arc<LoadedCertificate> {
    type Key = model::CertificateId;

    fn key(&self) -> &model::CertificateId {
        &self.id
    }
}

/// The key as rustls wants it.
pub fn key_der(PrivateKey { format, der }: &PrivateKey) -> PrivateKeyDer<'static> {
    let der = der.expose().clone();
    match format {
        KeyFormat::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
        KeyFormat::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
        KeyFormat::Sec1 => PrivateSec1KeyDer::from(der).into(),
    }
}

/// Loads the key and checks that it is the one of the first certificate.
pub fn load(certificate: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    // What rustls says about a key is not repeated: it could quote it.
    let key = provider
        .key_provider
        .load_private_key(key_der(&certificate.key))
        .map_err(|_| "the private key cannot be read, or is of a kind that is not supported")?;
    let loaded = CertifiedKey::new(chain(certificate), key);
    match loaded.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(loaded),
        Err(Error::NoCertificatesPresented) => Err("there is no certificate".to_owned()),
        Err(Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the certificate".to_owned())
        }
        // webpki reads version 3 only, but older ones are still made by hand, and clients may accept them.
        Err(_) if holds_public_key(&loaded) => Ok(loaded),
        Err(fault) => Err(format!("the certificate cannot be read: {fault}")),
    }
}

/// Does the first certificate have the public key of the private key, byte by byte?
fn holds_public_key(loaded: &CertifiedKey) -> bool {
    let (Some(key), Some(certificate)) = (loaded.key.public_key(), loaded.cert.first()) else {
        return false;
    };
    let is_sequence = certificate.first() == Some(&0x30);
    is_sequence
        && !key.is_empty()
        && certificate
            .windows(key.len())
            .any(|window| window == key.as_ref())
}

/// Chooses among the certificates of one host by what the client can verify.
pub(crate) struct HostCertificates {
    served: Box<[Arc<LoadedCertificate>]>,
    /// Its cipher suites are those that the host speaks.
    provider: Arc<CryptoProvider>,
}

impl HostCertificates {
    pub(crate) fn new(
        served: Box<[Arc<LoadedCertificate>]>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { served, provider }
    }

    /// A TLS 1.2 suite fixes the kind of key, so the client has to offer both, the signature and a suite for it.
    fn fits(&self, certificate: &LoadedCertificate, client: &ClientHello<'_>) -> bool {
        let Some(key) = &certificate.key else {
            return false;
        };
        let signs = key.choose_scheme(client.signature_schemes()).is_some();
        signs
            && self.provider.cipher_suites.iter().any(|suite| {
                suite.usable_for_signature_algorithm(key.algorithm())
                    && client.cipher_suites().contains(&suite.suite())
            })
    }
}

impl ResolvesServerCert for HostCertificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served
            .iter()
            .find(|certificate| self.fits(certificate, &client))
            // None fits: with one at hand, rustls tells the client what is missing.
            .or_else(|| self.served.first())?
            .certified()
    }
}

impl fmt::Debug for HostCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCertificates")
            .field("certificates", &self.served.len())
            .finish_non_exhaustive()
    }
}
