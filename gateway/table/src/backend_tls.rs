//! TLS towards endpoints where it is narrower than what the library speaks.

use std::sync::Arc;

use model::{BackendTls, BackendTlsLimits, TlsVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    SupportedCipherSuite, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use crate::policies::{is_13, suites_named};

/// Can this be spoken at all?
pub(crate) fn check(limits: &BackendTlsLimits) -> Result<(), String> {
    suites(limits, &aws_lc_rs::default_provider().cipher_suites).map(|_| ())
}

/// What rustls needs for connections that keep to `limits`. One for all of a route, so that sessions are resumed.
///
/// # Errors
///
/// When a certificate cannot be used, or nothing is left that could be spoken. Nobody may be connected to then.
pub fn narrow_client(tls: &BackendTls, limits: &BackendTlsLimits) -> Result<ClientConfig, String> {
    let BackendTls {
        fingerprint: _,
        client,
        authorities,
        name: _,
        limits: _,
    } = tls;
    let known = aws_lc_rs::default_provider();
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(limits, &known.cipher_suites)?,
        ..known
    });
    let versions: Vec<_> = [&version::TLS13, &version::TLS12]
        .into_iter()
        .filter(|version| {
            let mut suites = provider.cipher_suites.iter();
            suites.any(|suite| suite.version() == *version)
        })
        .collect();
    let anchors = match authorities {
        None => None,
        Some(authorities) => {
            let anchors = authorities.iter().map(|der| {
                anchor_from_trusted_cert(&CertificateDer::from(der.as_slice()))
                    .map(|anchor| anchor.to_owned())
                    .map_err(|fault| format!("an authority cannot be used: {fault}"))
            });
            Some(anchors.collect::<Result<Vec<_>, _>>()?)
        }
    };
    let verifier = Verifier {
        anchors,
        depth: limits
            .depth
            .map(|depth| usize::try_from(depth).unwrap_or(usize::MAX)),
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|fault| fault.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = client.chain.iter().cloned().map(CertificateDer::from);
            let key = PrivateKeyDer::try_from(client.key.der.expose().clone())
                .map_err(ToOwned::to_owned)?;
            builder
                .with_client_auth_cert(chain.collect(), key)
                .map_err(|fault| fault.to_string())?
        }
    };
    config.alpn_protocols = vec![if limits.http2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    Ok(config)
}

/// The suites that `limits` leave; never none.
fn suites(
    limits: &BackendTlsLimits,
    known: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut suites = suites_named(&limits.cipher_suites, known)?;
    suites.retain(|suite| match limits.version {
        None => true,
        Some(TlsVersion::V1_2) => !is_13(suite),
        Some(TlsVersion::V1_3) => is_13(suite),
    });
    if suites.is_empty() {
        return Err("no cipher suite is left for TLS towards the backend".to_owned());
    }
    Ok(suites)
}

/// Looks at the certificate of an endpoint.
#[derive(Debug)]
struct Verifier {
    /// `None` takes any certificate, as without narrowing.
    anchors: Option<Vec<TrustAnchor<'static>>>,
    depth: Option<usize>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn verify(
        &self,
        anchors: &[TrustAnchor<'_>],
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let entity = EndEntityCert::try_from(certificate)?;
        let short = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            if self.depth.is_some_and(|depth| between > depth) {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        entity.verify_for_usage(
            self.algorithms.all,
            anchors,
            others,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&short),
        )?;
        entity.verify_is_valid_for_subject_name(name)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(anchors) = &self.anchors {
            self.verify(anchors, certificate, others, name, now)
                .map_err(|fault| CertificateError::Other(OtherError(Arc::new(fault))))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_nothing_to_speak_is_refused() {
        const OLD: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        const NEW: &str = "TLS_AES_128_GCM_SHA256";
        for (version, suites, want, why) in [
            (None, vec![], 9, "everything"),
            (Some(TlsVersion::V1_2), vec![], 6, "the suites of 1.2"),
            (Some(TlsVersion::V1_3), vec![], 3, "the suites of 1.3"),
            (None, vec![OLD], 4, "1.3 is not mentioned and stays"),
            (
                Some(TlsVersion::V1_2),
                vec![OLD],
                1,
                "but not where it is left out",
            ),
            (
                Some(TlsVersion::V1_2),
                vec![NEW],
                0,
                "a suite of the other version",
            ),
            (None, vec!["TLS_NULL_WITH_NULL_NULL"], 0, "no suite"),
        ] {
            let limits = BackendTlsLimits {
                version,
                cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
                depth: None,
                http2: false,
            };
            let left = super::suites(&limits, &aws_lc_rs::default_provider().cipher_suites);
            assert_eq!(left.map_or(0, |left| left.len()), want, "{why}");
            assert_eq!(check(&limits).is_ok(), want > 0, "{why}");
        }
    }
}
