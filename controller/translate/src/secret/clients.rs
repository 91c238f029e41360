//! What certificates of clients are verified with.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use model::Authorities;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Version};

use super::{SecretFault, hexadecimal, parse, pem_reason};

const REVOKED: &str = "ca.crl";

/// Authorities and revocation lists for certificates of clients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientLists {
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) revoked: Arc<Vec<Vec<u8>>>,
    /// Stands for both.
    pub(crate) fingerprint: Box<str>,
    /// From when to when there is a revocation list of everybody who has one, in seconds since 1970.
    pub(crate) validity: Option<(i64, i64)>,
}

impl ClientLists {
    /// Reads them. `authorities` is what has been read of `ca.crt`; nothing where the Secret has none.
    pub(crate) fn read(
        secret: &Secret,
        authorities: &Result<Option<Arc<Authorities>>, SecretFault>,
    ) -> Result<Option<Self>, SecretFault> {
        let Some(authorities) = authorities.clone()? else {
            return Ok(None);
        };
        for (index, der) in authorities.iter().enumerate() {
            let number = index + 1;
            let certificate = parse(der, number).map_err(|_| SecretFault::Authority(number))?;
            // The oldest ones cannot say what they are.
            if certificate.version() == X509Version::V3 && !certificate.is_ca() {
                return Err(SecretFault::NoAuthority(number));
            }
        }
        let revoked = revoked(secret)?;
        let mut hash = Sha256::new();
        for list in [&*authorities, &revoked] {
            hash.update(list.len().to_be_bytes());
            for der in list {
                hash.update(der.len().to_be_bytes());
                hash.update(der);
            }
        }
        Ok(Some(Self {
            authorities,
            validity: validity(&revoked),
            revoked: Arc::new(revoked),
            fingerprint: hexadecimal(&hash.finalize()).into(),
        }))
    }
}

/// The revocation lists. An empty key is one that says nothing: whoever has it means to have some.
fn revoked(secret: &Secret) -> Result<Vec<Vec<u8>>, SecretFault> {
    let Some(pem) = secret.data.as_ref().and_then(|data| data.get(REVOKED)) else {
        return Ok(Vec::new());
    };
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem.0)
        .collect::<Result<_, _>>()
        .map_err(|error| SecretFault::Pem(REVOKED, pem_reason(&error)))?;
    if lists.is_empty() {
        return Err(SecretFault::Nothing(REVOKED, "revocation list"));
    }
    for (index, list) in lists.iter().enumerate() {
        webpki::OwnedCertRevocationList::from_der(list).map_err(|error| {
            SecretFault::RevocationList {
                number: index + 1,
                reason: reason(&error, list),
            }
        })?;
    }
    Ok(lists.iter().map(|list| list.to_vec()).collect())
}

/// From when to when all lists count. Of several lists of one issuer any will do.
fn validity(lists: &[Vec<u8>]) -> Option<(i64, i64)> {
    let mut issuers: BTreeMap<&[u8], (i64, i64)> = BTreeMap::new();
    for der in lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
            continue;
        };
        let from = list.last_update().timestamp();
        let until = list.next_update().map_or(i64::MAX, |end| end.timestamp());
        issuers
            .entry(list.tbs_cert_list.issuer.as_raw())
            .and_modify(|(first, last)| {
                *first = from.min(*first);
                *last = until.max(*last);
            })
            .or_insert((from, until));
    }
    let from = issuers.values().map(|(from, _)| *from).max()?;
    let until = issuers.values().map(|(_, until)| *until).min()?;
    Some((from, until))
}

/// The parser's own words are for those who know its code.
fn reason(error: &webpki::Error, list: &[u8]) -> &'static str {
    use webpki::Error;
    // The first version does not say which one it is, and looks like nothing to webpki.
    let old =
        CertificateRevocationList::from_der(list).is_ok_and(|(_, list)| list.version().is_none());
    if old || matches!(error, Error::UnsupportedCrlVersion) {
        "it is not of version 2"
    } else if matches!(error, Error::UnsupportedDeltaCrl) {
        "it holds differences only"
    } else if matches!(error, Error::UnsupportedIndirectCrl) {
        "it is for certificates of others"
    } else {
        "it is not as in RFC 5280, or has extensions that are not known"
    }
}
