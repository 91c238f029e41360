//! Certificates of clients: asked for in the handshake, judged for the first request.
//!
//! A handshake shows only that a client has the key of its certificate. Whether the certificate is good is found out
//! afterwards, so that the client can be told by HTTP.

mod names;
mod verify;

use std::fmt;
use std::sync::Arc;

use model::{AskedCertificate, ClientAuth, ClientCertificate, EnoughCertificate};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pattern::{Anchor, Pattern, Patterns};

pub use self::names::{Names, names};
pub use self::verify::{ClientFault, ClientVerifier};

/// What a route makes of the certificate of a client.
#[derive(Clone, Debug)]
pub struct CompiledClientCertificate {
    /// How it is verified, and what is enough; `None` does not ask for one.
    pub asked: Option<AskedCertificate>,
    /// Where a client goes instead of getting 400.
    pub error_page: Option<http::HeaderValue>,
    /// The backend gets the certificate.
    pub passed_on: bool,
    /// Nobody has to say who it is over plain HTTP.
    pub open_without_tls: bool,
    subject: Option<Arc<Pattern>>,
}

impl CompiledClientCertificate {
    pub(crate) fn compile(
        wanted: &ClientCertificate,
        patterns: &mut Patterns,
    ) -> Result<Self, String> {
        let ClientCertificate {
            asked,
            error_page,
            subject,
            passed_on,
            open_without_tls,
        } = wanted;
        let error_page = error_page.as_deref().map(http::HeaderValue::from_str);
        let subject = subject
            .as_deref()
            .map(|text| patterns.compile(Anchor::None, text));
        Ok(Self {
            asked: asked.clone(),
            error_page: error_page
                .transpose()
                .map_err(|_| "the URL of the error page has to be printable ASCII".to_owned())?,
            passed_on: *passed_on,
            open_without_tls: *open_without_tls,
            subject: subject
                .transpose()
                .map_err(|fault| format!("the regular expression for subjects: {fault}"))?,
        })
    }

    /// May a client with this subject pass? It is empty without a certificate.
    pub fn takes(&self, subject: &[u8]) -> bool {
        self.subject
            .as_ref()
            .is_none_or(|pattern| pattern.matches(subject))
    }

    /// What is enough, where a certificate is asked for.
    pub fn enough(&self) -> Option<EnoughCertificate> {
        self.asked.as_ref().map(|asked| asked.enough)
    }
}

impl PartialEq for CompiledClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        let same_subject = match (&self.subject, &other.subject) {
            // Equal expressions are compiled once.
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_subject
            && self.asked == other.asked
            && self.error_page == other.error_page
            && self.passed_on == other.passed_on
            && self.open_without_tls == other.open_without_tls
    }
}

impl Eq for CompiledClientCertificate {}

/// The side of the handshake: asks, and takes every certificate whose key the client has.
pub(crate) struct Asking {
    algorithms: WebPkiSupportedAlgorithms,
    /// Names of authorities, from which a browser sees which certificates to offer.
    hints: Vec<DistinguishedName>,
}

impl Asking {
    pub(crate) fn new(auth: &ClientAuth, provider: &CryptoProvider) -> Result<Self, String> {
        let verifier = ClientVerifier::new(auth, provider)?;
        Ok(Self {
            algorithms: provider.signature_verification_algorithms,
            hints: verifier.subjects().collect(),
        })
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("hints", &self.hints.len())
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Judged when a request is there to be answered.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // A scheme of TLS 1.2 does not say which curve it is for.
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signature.scheme)
            .map(|(_, algorithms)| *algorithms)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = key_of(certificate)?;
        let key = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| bad_encoding())?;
        candidates
            .iter()
            .any(|algorithm| {
                key.verify_signature(*algorithm, message, signature.signature())
                    .is_ok()
            })
            .then(HandshakeSignatureValid::assertion)
            .ok_or_else(|| CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // By the key alone: certificates of version 1, which webpki does not read, are still made by hand.
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &key_of(certificate)?,
            signature,
            &self.algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn bad_encoding() -> rustls::Error {
    CertificateError::BadEncoding.into()
}

fn key_of<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'a>, rustls::Error> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(SubjectPublicKeyInfoDer::from(
            parsed.tbs_certificate.subject_pki.raw,
        )),
        Ok(_) | Err(_) => Err(bad_encoding()),
    }
}
