//! Asks for a certificate of the client, and says so by HTTP where there is no good one.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use model::{AskedCertificate, EnoughCertificate};
use table::{CompiledClientCertificate, CompiledFilter, CompiledRoute};

use crate::clients::Judgement;
use crate::connection::TlsFacts;
use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::answer::Answer;
use crate::phases::fields::Fields;

const VERIFY: &str = "ssl-client-verify";
const SUBJECT: &str = "ssl-client-subject-dn";
const ISSUER: &str = "ssl-client-issuer-dn";
const CERTIFICATE: &str = "ssl-client-cert";

/// What a client may never say about itself.
static NAMES: [HeaderName; 4] = [
    HeaderName::from_static(VERIFY),
    HeaderName::from_static(SUBJECT),
    HeaderName::from_static(ISSUER),
    HeaderName::from_static(CERTIFICATE),
];

/// The answer to a client that does not have what is wanted.
pub(crate) fn answer(
    context: &mut RequestContext,
    wanted: &CompiledClientCertificate,
    host: &str,
) -> Option<Answer> {
    let judgement = match (&wanted.asked, &context.connection.tls) {
        (_, None) if wanted.open_without_tls => return None,
        // Without TLS nobody has a certificate.
        (None, _) | (_, None) => None,
        (Some(asked), Some(tls)) => match judged(context, tls, asked, host) {
            Ok(judgement) => judgement,
            Err(reason) => return Some(Answer::page(reason)),
        },
    };
    context.certificate = judgement;
    let shown = context.certificate.as_deref();
    let refused = match (wanted.enough(), shown.map(|shown| shown.fault)) {
        (None, _)
        | (Some(EnoughCertificate::GoodOrNone | EnoughCertificate::AnyAuthority), None)
        | (Some(_), Some(None)) => None,
        (Some(EnoughCertificate::Good), None) => Some(Reason::CertificateMissing),
        (Some(EnoughCertificate::AnyAuthority), Some(Some(fault)))
            if fault.is_about_authority() =>
        {
            None
        }
        (Some(_), Some(Some(_))) => Some(Reason::CertificateInvalid),
    };
    if let Some(reason) = refused {
        return Some(match &wanted.error_page {
            Some(url) => Answer::redirect(StatusCode::FOUND, reason, url.clone()),
            None => Answer::page(reason),
        });
    }
    let subject = shown.map(Judgement::subject).unwrap_or_default();
    (!wanted.takes(subject)).then(|| Answer::page(Reason::CertificateDenied))
}

/// What is thought of the certificate on this connection by the verifier of the host; `None` without a certificate.
///
/// The client was asked on behalf of the server name that it gave. Whether that stands for this host has been looked at
/// before (`phases::route`); what is asked for here has to be what was asked for there.
fn judged(
    context: &RequestContext,
    tls: &TlsFacts,
    asked: &AskedCertificate,
    host: &str,
) -> Result<Option<Arc<Judgement>>, Reason> {
    let verifier = context
        .table
        .tls(Some(host))
        .and_then(|entry| entry.clients.as_deref())
        .filter(|verifier| *verifier.fingerprint() == *asked.fingerprint)
        .ok_or(Reason::Misdirected)?;
    let presented = tls.presented.as_ref().ok_or(Reason::Misdirected)?;
    Ok(presented.judged_by(verifier))
}

/// Tells a backend, or another server that is asked, about the certificate. What a client says about it goes.
pub(crate) fn tell(
    wanted: &CompiledClientCertificate,
    context: &RequestContext,
    fields: &mut impl Fields,
) {
    for name in &NAMES {
        fields.remove(name);
    }
    let Some(shown) = &context.certificate else {
        fields.set(VERIFY, HeaderValue::from_static("NONE"));
        return;
    };
    fields.set(VERIFY, shown.verdict.clone());
    if let Some(names) = &shown.names {
        // nginx leaves out what is empty.
        for (name, value) in [(SUBJECT, &names.subject), (ISSUER, &names.issuer)] {
            if !value.is_empty() {
                fields.set(name, value.clone());
            }
        }
    }
    if wanted.passed_on {
        fields.set(CERTIFICATE, shown.escaped());
    }
}

/// What the route makes of the certificate of a client, if it makes anything of it.
pub(crate) fn of(route: &CompiledRoute) -> Option<&CompiledClientCertificate> {
    route.filters.iter().find_map(|filter| {
        if let CompiledFilter::ClientCertificate(wanted) = filter {
            Some(&**wanted)
        } else {
            None
        }
    })
}
