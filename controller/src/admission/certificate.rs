//! The webhook's certificate: that of a Secret, also when it changes.

use std::sync::{Arc, PoisonError, RwLock};

use model::Certificate;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};
use translate::NamespacedName;

use crate::reconcile::{Pass, PassObserver};

/// The certificate that connections get. Without one there are none.
#[derive(Debug, Default)]
pub(crate) struct Certificates(RwLock<Option<Arc<CertifiedKey>>>);

impl Certificates {
    fn replace(&self, key: Option<CertifiedKey>) {
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *served = key.map(Arc::new);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        served.clone()
    }
}

/// Hands over the certificate of a Secret whenever there is another one.
pub(crate) struct Follower {
    secret: NamespacedName,
    provider: Arc<CryptoProvider>,
    served: Arc<Certificates>,
    seen: Option<Arc<Certificate>>,
}

impl Follower {
    pub(crate) fn new(
        secret: NamespacedName,
        provider: Arc<CryptoProvider>,
        served: Arc<Certificates>,
    ) -> Self {
        Self {
            secret,
            provider,
            served,
            seen: None,
        }
    }
}

impl PassObserver for Follower {
    fn observe(&mut self, pass: &Pass<'_>) {
        // A Secret that breaks keeps on serving what it served, as those of hosts do.
        let present = pass.snapshot.certificate(&self.secret);
        if self.seen.as_ref() == present {
            return;
        }
        self.seen = present.cloned();
        let Some(certificate) = present else {
            self.served.replace(None);
            return;
        };
        let secret = &self.secret;
        match table::load_certificate(certificate, &self.provider) {
            Ok(key) => {
                self.served.replace(Some(key));
                info!(%secret, fingerprint = certificate.fingerprint, "The admission webhook has a certificate");
            }
            Err(fault) => {
                warn!(%secret, fault, "The certificate of the admission webhook cannot be used; it keeps what it has");
            }
        }
    }
}
