//! Is the certificate of a client good?

use std::borrow::Cow;
use std::fmt;

use model::ClientAuth;
use rustls::DistinguishedName;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RawPublicKeyEntity, RevocationOptionsBuilder, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, ParsedExtension, X509Certificate, X509Version,
};

/// What is wrong with a certificate. Shown in the words of OpenSSL, which backends know from nginx.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientFault {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It comes from itself, and is not listed.
    SelfSigned,
    /// It comes from nobody who is listed.
    UnknownAuthority,
    /// Too many authorities stand between it and one that is listed.
    TooDeep,
    /// Its authority has taken it back.
    Revoked,
    /// There is no revocation list of its authority.
    NoRevocationList,
    /// The revocation list of its authority is too old.
    RevocationListExpired,
    /// The revocation list of its authority is for a time to come.
    RevocationListNotYetValid,
    /// It is not for clients.
    Purpose,
    /// It is the certificate of an authority.
    Authority,
    /// It was not signed by the authority that it names.
    Signature,
    /// Anything else.
    Other,
}

impl ClientFault {
    /// Can it be overlooked where the authority does not matter?
    pub fn is_about_authority(self) -> bool {
        matches!(
            self,
            Self::SelfSigned | Self::UnknownAuthority | Self::Authority
        )
    }
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "certificate has expired",
            Self::NotYetValid => "certificate is not yet valid",
            Self::SelfSigned => "self-signed certificate",
            Self::UnknownAuthority => "unable to verify the first certificate",
            Self::TooDeep => "certificate chain too long",
            Self::Revoked => "certificate revoked",
            Self::NoRevocationList => "unable to get certificate CRL",
            Self::RevocationListExpired => "CRL has expired",
            Self::RevocationListNotYetValid => "CRL is not yet valid",
            Self::Purpose => "unsuitable certificate purpose",
            Self::Signature => "certificate signature failure",
            Self::Authority | Self::Other => "certificate rejected",
        })
    }
}

/// Knows which certificates of clients are good.
pub struct ClientVerifier {
    fingerprint: Box<str>,
    anchors: Vec<TrustAnchor<'static>>,
    /// One for each anchor.
    authorities: Vec<Authority>,
    revoked: Vec<RevocationList>,
    depth: usize,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What webpki does not look at in an authority.
struct Authority {
    der: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

/// A revocation list, and what webpki does not look at.
struct RevocationList {
    list: CertRevocationList<'static>,
    not_before: i64,
    /// Without an end webpki does not take it.
    not_after: Option<i64>,
}

impl RevocationList {
    fn new(der: &[u8]) -> Result<Self, String> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|fault| format!("a revocation list cannot be used: {fault}"))?;
        let (_, parsed) = CertificateRevocationList::from_der(der)
            .map_err(|_| "a revocation list cannot be used".to_owned())?;
        Ok(Self {
            list: list.into(),
            not_before: parsed.last_update().timestamp(),
            not_after: parsed.next_update().map(|end| end.timestamp()),
        })
    }

    fn has_begun(&self, now: i64) -> bool {
        self.not_before <= now
    }

    fn is_over(&self, now: i64) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }
}

impl Authority {
    fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl ClientVerifier {
    pub(crate) fn new(auth: &ClientAuth, provider: &CryptoProvider) -> Result<Self, String> {
        let ClientAuth {
            fingerprint,
            authorities,
            revoked,
            depth,
        } = auth;
        if authorities.is_empty() {
            return Err("there is no authority for certificates of clients".to_owned());
        }
        let mut verifier = Self {
            fingerprint: fingerprint.clone(),
            anchors: Vec::with_capacity(authorities.len()),
            authorities: Vec::with_capacity(authorities.len()),
            revoked: Vec::with_capacity(revoked.len()),
            depth: usize::try_from(*depth).unwrap_or(usize::MAX),
            algorithms: provider.signature_verification_algorithms,
        };
        for der in authorities.iter() {
            let unusable = || "an authority for certificates of clients cannot be used".to_owned();
            let certificate = CertificateDer::from(der.as_slice());
            let anchor = anchor_from_trusted_cert(&certificate).map_err(|_| unusable())?;
            verifier.anchors.push(anchor.to_owned());
            let parsed = parse(der).ok_or_else(unusable)?;
            verifier.authorities.push(Authority {
                not_before: parsed.validity().not_before.timestamp(),
                not_after: parsed.validity().not_after.timestamp(),
                der: der.clone(),
            });
        }
        for der in revoked.iter() {
            verifier.revoked.push(RevocationList::new(der)?);
        }
        Ok(verifier)
    }

    /// Stands for everything that it knows.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The names of the authorities.
    pub(super) fn subjects(&self) -> impl Iterator<Item = DistinguishedName> {
        self.anchors
            .iter()
            .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
    }

    /// Is this certificate good, the first one of what a client has sent? That the client has its key is known from the
    /// handshake.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), ClientFault> {
        let (first, others) = chain.split_first().ok_or(ClientFault::Other)?;
        let parsed = parse(first).ok_or(ClientFault::Other)?;
        let verified = if self.lists(first) {
            check_by_itself(&parsed, now)
        } else if parsed.version() != X509Version::V3 {
            self.verify_directly(&parsed, now)
        } else if parsed.is_ca() {
            check_extensions(&parsed).and_then(|()| self.verify_directly(&parsed, now))
        } else {
            self.verify_chain(first, &parsed, others, now)
        };
        // OpenSSL looks at this before the signature, but what it finds last is what counts.
        if matches!(verified, Ok(()) | Err(ClientFault::SelfSigned)) {
            check_usage(&parsed)?;
        }
        if verified == Err(ClientFault::SelfSigned) && !self.revoked.is_empty() {
            return Err(ClientFault::NoRevocationList);
        }
        verified
    }

    fn verify_chain(
        &self,
        first: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ClientFault> {
        let entity = EndEntityCert::try_from(first).map_err(|fault| judged(&fault, parsed))?;
        let anchors = self.anchors_at(now);
        let lists = self.lists_at(seconds(now));
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) => Some(
                options
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build(),
            ),
            Err(_) if self.revoked.is_empty() => None,
            // Without a list nobody would be looked up.
            Err(_) => return Err(ClientFault::RevocationListNotYetValid),
        };
        let short = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > self.depth {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        let verified = entity.verify_for_usage(
            self.algorithms.all,
            &anchors,
            others,
            now,
            KeyUsage::client_auth(),
            revocation,
            Some(&short),
        );
        verified.map(|_| ()).map_err(|fault| {
            let fault = judged(&fault, parsed);
            if fault == ClientFault::NoRevocationList && lists.len() < self.revoked.len() {
                return ClientFault::RevocationListNotYetValid;
            }
            fault
        })
    }

    /// The revocation lists whose time has come, which webpki does not ask of them. It takes the first one of an issuer,
    /// so those that are over come last.
    fn lists_at(&self, now: i64) -> Vec<&CertRevocationList<'static>> {
        let begun = self.revoked.iter().filter(|one| one.has_begun(now));
        let mut begun: Vec<_> = begun.collect();
        begun.sort_by_key(|one| one.is_over(now));
        begun.into_iter().map(|one| &one.list).collect()
    }

    /// Is it one of the authorities itself? Whoever lists a certificate that was made for one client and by nobody else
    /// means this. Where there are revocation lists it has to be looked up in one, which webpki does.
    fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.revoked.is_empty()
            && self
                .authorities
                .iter()
                .any(|authority| authority.der == certificate.as_ref())
    }

    /// A certificate without extensions, as `openssl x509 -req` makes them when it is not told otherwise, or one of an
    /// authority. webpki does not take these from clients, so that one step is all that is verified: a listed authority
    /// has to have signed it.
    fn verify_directly(
        &self,
        certificate: &X509Certificate<'_>,
        now: UnixTime,
    ) -> Result<(), ClientFault> {
        check_validity(certificate, now)?;
        if !self.revoked.is_empty() {
            return Err(ClientFault::NoRevocationList);
        }
        let at = seconds(now);
        let mut fault = unknown_authority(certificate);
        for (authority, anchor) in self.authorities.iter().zip(&self.anchors) {
            let Some(issuer) = parse(&authority.der) else {
                continue;
            };
            if issuer.subject().as_raw() != certificate.issuer().as_raw()
                || !authority.is_valid_at(at)
                || !may_sign(&issuer)
            {
                continue;
            }
            // They are about names, which are not compared here.
            if anchor.name_constraints.is_some() {
                fault = ClientFault::Other;
                continue;
            }
            let key = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
            let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
                continue;
            };
            let content = certificate.tbs_certificate.as_ref();
            let signed = self.algorithms.all.iter().any(|algorithm| {
                let signature = &certificate.signature_value.data;
                key.verify_signature(*algorithm, content, signature).is_ok()
            });
            if signed {
                return Ok(());
            }
            fault = ClientFault::Signature;
        }
        Err(fault)
    }

    /// The authorities whose time has come and is not over, which webpki does not ask of them.
    fn anchors_at(&self, now: UnixTime) -> Cow<'_, [TrustAnchor<'static>]> {
        let at = seconds(now);
        if self.authorities.iter().all(|one| one.is_valid_at(at)) {
            return Cow::Borrowed(&self.anchors);
        }
        let valid = self.anchors.iter().zip(&self.authorities);
        let valid = valid.filter(|(_, authority)| authority.is_valid_at(at));
        Cow::Owned(valid.map(|(anchor, _)| anchor.clone()).collect())
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Some(parsed),
        Ok(_) | Err(_) => None,
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), ClientFault> {
    let at = seconds(now);
    if at < certificate.validity().not_before.timestamp() {
        return Err(ClientFault::NotYetValid);
    }
    if at > certificate.validity().not_after.timestamp() {
        return Err(ClientFault::Expired);
    }
    Ok(())
}

/// A certificate that is listed itself: only time and purpose are left to look at.
fn check_by_itself(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), ClientFault> {
    check_validity(certificate, now)?;
    check_purpose(certificate)
}

fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), ClientFault> {
    let purposes = certificate
        .extended_key_usage()
        .map_err(|_| ClientFault::Other)?;
    match purposes {
        Some(purposes) if !purposes.value.client_auth && !purposes.value.any => {
            Err(ClientFault::Purpose)
        }
        Some(_) | None => Ok(()),
    }
}

/// Is it used for what it is for? Without the extension, it is for anything. webpki does not look at this; of an
/// authority's certificate it often says that it is for nothing but signing others.
fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), ClientFault> {
    let usage = certificate.key_usage().map_err(|_| ClientFault::Other)?;
    match usage {
        Some(usage) if !usage.value.digital_signature() && !usage.value.key_agreement() => {
            Err(ClientFault::Purpose)
        }
        Some(_) | None => Ok(()),
    }
}

/// What webpki would look at in the extensions of a certificate.
fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), ClientFault> {
    let unknown = certificate.extensions().iter().any(|extension| {
        extension.critical
            && !matches!(
                extension.parsed_extension(),
                ParsedExtension::BasicConstraints(_)
                    | ParsedExtension::KeyUsage(_)
                    | ParsedExtension::ExtendedKeyUsage(_)
                    | ParsedExtension::SubjectAlternativeName(_)
            )
    });
    if unknown {
        return Err(ClientFault::Authority);
    }
    check_purpose(certificate)
}

/// May this authority sign certificates?
fn may_sign(authority: &X509Certificate<'_>) -> bool {
    match authority.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn unknown_authority(certificate: &X509Certificate<'_>) -> ClientFault {
    if certificate.issuer().as_raw() == certificate.subject().as_raw() {
        ClientFault::SelfSigned
    } else {
        ClientFault::UnknownAuthority
    }
}

fn judged(fault: &webpki::Error, certificate: &X509Certificate<'_>) -> ClientFault {
    use webpki::Error;
    // Not all of its words: what is not named here is `Other`, which nothing overlooks.
    if matches!(fault, Error::CertExpired { .. }) {
        ClientFault::Expired
    } else if matches!(fault, Error::CertNotValidYet { .. }) {
        ClientFault::NotYetValid
    } else if matches!(fault, Error::UnknownIssuer) {
        unknown_authority(certificate)
    } else if matches!(fault, Error::CaUsedAsEndEntity) {
        ClientFault::Authority
    } else if matches!(
        fault,
        Error::MaximumPathDepthExceeded | Error::PathLenConstraintViolated
    ) {
        ClientFault::TooDeep
    } else if matches!(fault, Error::CertRevoked) {
        ClientFault::Revoked
    } else if matches!(fault, Error::UnknownRevocationStatus) {
        ClientFault::NoRevocationList
    } else if matches!(fault, Error::CrlExpired { .. }) {
        ClientFault::RevocationListExpired
    } else if matches!(
        fault,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension
    ) {
        ClientFault::Purpose
    } else if matches!(fault, Error::InvalidSignatureForPublicKey) {
        ClientFault::Signature
    } else {
        ClientFault::Other
    }
}
