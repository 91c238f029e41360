//! TLS towards backends, from annotations and Secrets.

use model::{BackendTls, BackendTlsLimits, Certificate, TlsVersion};
use sha2::{Digest, Sha256};

use crate::Snapshot;
use crate::ingress::backend_tls::BackendTlsPart;
use crate::secret::SecretFault;

/// How TLS is spoken to the backends of an Ingress, or what is wrong with its Secret.
pub(crate) fn of(part: &BackendTlsPart, snapshot: &Snapshot) -> Result<BackendTls, SecretFault> {
    let mut tls = BackendTls {
        fingerprint: Box::default(),
        client: None,
        authorities: None,
        name: part.name.clone(),
        limits: part.limits.clone(),
    };
    if let Some(secret) = &part.secret {
        let (client, authorities) = snapshot.backend_tls(secret)?;
        tls.client = client;
        if part.verify {
            tls.authorities = Some(authorities.ok_or(SecretFault::Empty("ca.crt"))?);
        }
    }
    tls.fingerprint = fingerprint(&tls);
    Ok(tls)
}

fn fingerprint(tls: &BackendTls) -> Box<str> {
    let BackendTls {
        fingerprint: _,
        client,
        authorities,
        name,
        limits,
    } = tls;
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        hash.update([u8::from(bytes.is_some())]);
        hash.update(bytes.map_or(0, <[u8]>::len).to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(name.as_deref().map(str::as_bytes));
    let chain = client.iter().flat_map(|client| {
        let Certificate { chain, .. } = &**client;
        chain
    });
    for certificate in chain {
        part(Some(certificate));
    }
    part(None);
    for certificate in authorities.iter().flat_map(|list| list.iter()) {
        part(Some(certificate));
    }
    part(authorities.as_ref().map(|_| &[][..]));
    if let Some(limits) = limits {
        let BackendTlsLimits {
            version,
            cipher_suites,
            depth,
            http2,
        } = &**limits;
        let version = version.map(|version| match version {
            TlsVersion::V1_2 => [2],
            TlsVersion::V1_3 => [3],
        });
        part(version.as_ref().map(<[u8; 1]>::as_slice));
        part(
            depth
                .map(u32::to_be_bytes)
                .as_ref()
                .map(<[u8; 4]>::as_slice),
        );
        part(http2.then_some(&[][..]));
        for suite in cipher_suites {
            part(Some(suite.as_bytes()));
        }
    }
    crate::secret::hexadecimal(&hash.finalize()).into()
}
