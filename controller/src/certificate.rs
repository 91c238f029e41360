//! The certificate that serves where there is no other.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use model::{Certificate, KeyAlgorithm, KeyFormat, ObjectRef, Origin, PrivateKey, Redacted};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

/// Subject of the certificate that is made at the start.
const COMMON_NAME: &str = "Lockgate Default Certificate";

/// Its DNS name, one that nobody can have (RFC 2606).
const DNS_NAME: &str = "default.lockgate.invalid";

/// Longer than any process runs.
const VALID_YEARS: i16 = 5;

/// Why there is no such certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused.
    #[error("cannot make the default certificate: {0}")]
    Library(#[from] rcgen::Error),
    /// The clock of this machine is not in a year that a certificate can name.
    #[error("cannot make the default certificate: the clock says {0}")]
    Clock(Box<Zoned>),
}

/// The certificate for the time in which no Secret has one.
pub(crate) fn default_certificate(now: &Zoned) -> Result<Certificate, CertificateError> {
    self_signed(COMMON_NAME, DNS_NAME, now)
}

/// A self-signed P-256 certificate for one DNS name, valid from the day before `now` on.
///
/// Clients do not trust it. It lets their handshake succeed so far that they can say why.
pub(crate) fn self_signed(
    common_name: &str,
    dns_name: &str,
    now: &Zoned,
) -> Result<Certificate, CertificateError> {
    let clock = || CertificateError::Clock(Box::new(now.clone()));
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![dns_name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let today = now.with_time_zone(TimeZone::UTC).date();
    // Clocks of clients may be behind ours.
    let first = today.checked_sub(1.day()).map_err(|_| clock())?;
    let last = today
        .checked_add(VALID_YEARS.years())
        .map_err(|_| clock())?;
    let (first, last) = (
        parts(first).ok_or_else(clock)?,
        parts(last).ok_or_else(clock)?,
    );
    params.not_before = date_time_ymd(first.0, first.1, first.2);
    params.not_after = date_time_ymd(last.0, last.1, last.2);
    let (not_before, not_after) = (params.not_before, params.not_after);
    let certificate = params.self_signed(&key)?;
    let der = certificate.der().to_vec();
    Ok(Certificate {
        fingerprint: translate::fingerprint(&der),
        chain: vec![der],
        key: PrivateKey {
            format: KeyFormat::Pkcs8,
            der: Redacted::new(key.serialize_der()),
        },
        algorithm: KeyAlgorithm::Ecdsa,
        names: vec![dns_name.to_owned()],
        not_before: not_before.unix_timestamp(),
        not_after: not_after.unix_timestamp(),
        origin: Origin::new(ObjectRef::new("Certificate", "", common_name), ""),
    })
}

/// Year, month and day.
fn parts(date: Date) -> Option<(i32, u8, u8)> {
    let month = u8::try_from(date.month()).ok()?;
    let day = u8::try_from(date.day()).ok()?;
    Some((date.year().into(), month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_valid_from_yesterday_for_years_and_its_key_belongs_to_it() {
        let now: Zoned = "2026-03-01T12:00:00[UTC]".parse().unwrap();
        let certificate = self_signed(COMMON_NAME, DNS_NAME, &now).unwrap();
        let yesterday: jiff::Timestamp = "2026-02-28T00:00:00Z".parse().unwrap();
        let end: jiff::Timestamp = "2031-03-01T00:00:00Z".parse().unwrap();
        assert_eq!(certificate.not_before, yesterday.as_second());
        assert_eq!(certificate.not_after, end.as_second());
        assert_eq!(certificate.fingerprint.len(), 64);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.chain[0].clone().into()],
                rustls_pki_types::PrivatePkcs8KeyDer::from(certificate.key.der.expose().clone())
                    .into(),
            )
            .unwrap();
    }
}
