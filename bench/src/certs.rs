//! A certificate authority of our own, so that neither a demo nor a soak needs more than this crate.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

const DAY: Duration = Duration::from_hours(24);

/// Issues certificates for names under `.test`.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as a Secret holds it.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The key in PEM, PKCS#8.
    pub key_pem: String,
    /// The certificate in DER: what a client sees.
    pub der: CertificateDer<'static>,
}

impl Authority {
    /// A new authority with a key of its own.
    pub fn new(common_name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = Self::params(common_name)?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority kept in this directory as `ca.pem` and `ca-key.pem`; made when it is not there.
    pub fn load_or_create(dir: &Path, common_name: &str) -> Result<Self> {
        let (certificate_file, key_file) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        if certificate_file.exists() {
            let pem = read(&certificate_file)?;
            let key = KeyPair::from_pem(&read(&key_file)?)
                .with_context(|| format!("{} holds no key", key_file.display()))?;
            let issuer = Issuer::new(Self::params(common_name)?, key);
            return Ok(Self { pem, issuer });
        }
        let authority = Self::new(common_name)?;
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        write(&certificate_file, &authority.pem)?;
        write(&key_file, &authority.issuer.key().serialize_pem())?;
        Ok(authority)
    }

    fn params(common_name: &str) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = subject(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }

    /// The authority's own certificate in PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names; the first one is the common name.
    pub fn issue(&self, names: &[String], organization: Option<&str>) -> Result<Leaf> {
        self.issue_for(&KeyPair::generate()?, names, organization)
    }

    /// The same with an RSA key of 2048 bits.
    pub fn issue_rsa(&self, names: &[String]) -> Result<Leaf> {
        self.issue_for(&KeyPair::generate_for(&PKCS_RSA_SHA256)?, names, None)
    }

    fn issue_for(
        &self,
        key: &KeyPair,
        names: &[String],
        organization: Option<&str>,
    ) -> Result<Leaf> {
        let mut params = CertificateParams::new(names.to_vec())?;
        let common_name = names.first().map_or("unnamed", String::as_str);
        params.distinguished_name = subject(common_name, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        params.not_before = epoch + now - DAY;
        params.not_after = epoch + now + 90 * DAY;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Leaf {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
        })
    }
}

impl Leaf {
    /// A manifest of a Secret of type `kubernetes.io/tls` with this certificate.
    pub fn secret(&self, namespace: &str, name: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  namespace: {namespace}\n  \
             name: {name}\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
            STANDARD.encode(&self.certificate_pem),
            STANDARD.encode(&self.key_pem),
        );
        text
    }
}

/// What a client verifies certificates with.
pub fn roots(pem: &str) -> Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.context("not a PEM certificate")?)?;
    }
    anyhow::ensure!(!store.is_empty(), "no certificate in the PEM file");
    Ok(Arc::new(store))
}

/// The name that a client asks for and verifies.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).with_context(|| format!("`{host}` is not a server name"))
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file so that a watcher sees the old or the new one and nothing in between.
pub fn write(path: &Path, content: &str) -> Result<()> {
    let directory = path.parent().context("a file has a directory")?;
    let written: Result<()> = (|| {
        // Hidden and without a known ending: not a manifest until it has its name.
        let mut file = tempfile::Builder::new()
            .prefix(".")
            .suffix(".part")
            .tempfile_in(directory)?;
        file.write_all(content.as_bytes())?;
        file.persist(path)?;
        Ok(())
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_kept_and_signs_what_its_root_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path(), "test authority").unwrap();
        let again = Authority::load_or_create(dir.path(), "test authority").unwrap();
        assert_eq!(first.pem(), again.pem());
        let leaf = again.issue(&["a.test".to_owned()], Some("one")).unwrap();
        let roots = roots(first.pem()).unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots,
            Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        )
        .build()
        .unwrap();
        let now = rustls::pki_types::UnixTime::now();
        let verify = |host: &str| {
            use rustls::client::danger::ServerCertVerifier as _;
            verifier.verify_server_cert(&leaf.der, &[], &server_name(host).unwrap(), &[], now)
        };
        assert!(verify("a.test").is_ok());
        assert!(verify("b.test").is_err());
    }

    #[test]
    fn a_secret_holds_what_was_issued() {
        let authority = Authority::new("test authority").unwrap();
        let leaf = authority.issue(&["a.test".to_owned()], None).unwrap();
        let text = leaf.secret("shop", "tls");
        let encoded = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("tls.crt: "))
            .unwrap();
        let decoded = STANDARD.decode(encoded).unwrap();
        assert_eq!(String::from_utf8(decoded).unwrap(), leaf.certificate_pem);
        assert!(text.contains("namespace: shop\n  name: tls\n"), "{text}");
    }
}
