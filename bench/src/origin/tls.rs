//! The certificate of the TLS port.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certs::Authority;

/// Serves HTTP/2 and HTTP/1.1 with the certificate chain and the key in these PEM files.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let unusable = |path: &Path| format!("cannot use {}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| unusable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| unusable(key))?;
    config(chain, key)
}

/// Serves HTTP/2 and HTTP/1.1 with a certificate for these names that nobody trusts.
pub fn untrusted(names: &[String]) -> Result<Arc<ServerConfig>> {
    let leaf = Authority::new("origin")?.issue(names, None)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes())?;
    config(vec![leaf.der], key)
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
