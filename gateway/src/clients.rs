//! The certificate that a client has shown on its connection.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::{CertificateDer, UnixTime};
use table::{ClientFault, ClientVerifier, Names, names_of_certificate};

/// What a client has shown when it was asked for a certificate, and what was made of it.
#[derive(Debug)]
pub(crate) struct Presented {
    /// Its own certificate first; empty if it has none.
    chain: Vec<CertificateDer<'static>>,
    /// By the verifier that was asked last: nearly always the only one.
    judged: Mutex<Option<Arc<Judgement>>>,
}

/// What is thought of a certificate.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// The verifier that said so.
    by: Box<str>,
    /// What is wrong with it.
    pub(crate) fault: Option<ClientFault>,
    /// The same as nginx says it.
    pub(crate) verdict: HeaderValue,
    /// What it says about itself.
    pub(crate) names: Option<Names>,
    certificate: CertificateDer<'static>,
    escaped: OnceLock<HeaderValue>,
}

impl Presented {
    /// What came in a handshake. Nobody has looked at it yet.
    pub(crate) fn new(chain: &[CertificateDer<'static>]) -> Self {
        Self {
            chain: chain.to_vec(),
            judged: Mutex::default(),
        }
    }

    /// What `verifier` says about the certificate; `None` if there is none.
    ///
    /// It says so once for a connection, and anew after it has been replaced by another one.
    pub(crate) fn judged_by(&self, verifier: &ClientVerifier) -> Option<Arc<Judgement>> {
        let first = self.chain.first()?;
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = judged
            .as_ref()
            .filter(|known| *known.by == *verifier.fingerprint())
        {
            return Some(Arc::clone(known));
        }
        let fault = verifier.verify(&self.chain, UnixTime::now()).err();
        let verdict = match fault {
            None => HeaderValue::from_static("SUCCESS"),
            Some(fault) => HeaderValue::try_from(format!("FAILED:{fault}"))
                .unwrap_or_else(|_| HeaderValue::from_static("FAILED")),
        };
        let judgement = Arc::new(Judgement {
            by: verifier.fingerprint().into(),
            fault,
            verdict,
            names: names_of_certificate(first),
            certificate: first.clone(),
            escaped: OnceLock::new(),
        });
        *judged = Some(Arc::clone(&judgement));
        Some(judgement)
    }
}

impl Judgement {
    /// The certificate as PEM, escaped as for a URL.
    pub(crate) fn escaped(&self) -> HeaderValue {
        self.escaped
            .get_or_init(|| escaped(&self.certificate))
            .clone()
    }

    /// The subject; empty where there is none.
    pub(crate) fn subject(&self) -> &[u8] {
        self.names
            .as_ref()
            .map(|names| names.subject.as_bytes())
            .unwrap_or_default()
    }
}

fn escaped(certificate: &[u8]) -> HeaderValue {
    let mut out = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    let text = STANDARD.encode(certificate);
    for (place, character) in text.chars().enumerate() {
        if place > 0 && place.is_multiple_of(64) {
            out.push_str("%0A");
        }
        match character {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            other => out.push(other),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_escaped_as_nginx_escapes_it() {
        assert_eq!(
            escaped(&[0xfb, 0xff, 0xfe, 0x01]),
            "-----BEGIN%20CERTIFICATE-----%0A%2B%2F%2F%2BAQ%3D%3D%0A-----END%20CERTIFICATE-----%0A"
        );
        // 48 bytes are one line of 64 characters.
        let two_lines = escaped(&[0; 49]);
        let want = format!(
            "-----BEGIN%20CERTIFICATE-----%0A{}%0AAA%3D%3D%0A-----END%20CERTIFICATE-----%0A",
            "A".repeat(64)
        );
        assert_eq!(two_lines, want);
        assert!(!escaped(&[0; 48]).to_str().unwrap().contains("%0A%0A"));
    }
}
