//! Certificates of clients: one answer for a host, whoever has paths on it.
//!
//! What a client is asked belongs to the server name, since it has to be known in the handshake. So the oldest Ingress
//! of a host that asks decides for all paths of it, as with ingress-nginx. Two things differ from there:
//!
//! - Only Ingresses of the namespace that has the host, which is that of its oldest one, are heard.
//! - Whoever is not heard, or not first, and asks for more than is asked of everybody, is closed instead of served with
//!   less.

use std::sync::Arc;

use model::{AskedCertificate, ClientAuth, ClientCertificate, EnoughCertificate, Filter};

use crate::access::INVALID_SECRET;
use crate::annotation::Verify;
use crate::ingress::Entry;
use crate::ingress::clients::ClientPart;
use crate::report::Reason;
use crate::{Problem, Snapshot};

/// Why a route is closed whose Ingress asks for more than its host.
const OTHER_CERTIFICATES: &str = "other-certificates";

/// What is asked on a host.
pub(crate) struct Clients<'a> {
    /// Who says so.
    owner: &'a Entry,
    part: &'a ClientPart,
    /// How certificates are verified; `None` where clients are not asked, an error where nobody can pass.
    auth: Result<Option<Arc<ClientAuth>>, ()>,
}

/// What is asked on a host with routes of these Ingresses, which are in the order of their rank.
pub(crate) fn of<'a>(
    entries: impl Iterator<Item = &'a Entry> + Clone,
    snapshot: &Snapshot,
) -> Option<Clients<'a>> {
    let entries = entries.filter(|entry| !entry.annotations.is_canary());
    let namespace = &entries.clone().next()?.rank.name.namespace;
    let (owner, part) = entries
        .filter(|entry| entry.rank.name.namespace == *namespace)
        .find_map(|entry| Some((entry, entry.clients.as_deref()?)))?;
    Some(Clients {
        owner,
        part,
        auth: auth(part, snapshot),
    })
}

fn auth(part: &ClientPart, snapshot: &Snapshot) -> Result<Option<Arc<ClientAuth>>, ()> {
    let secret = part.secret.as_ref().ok_or(())?;
    // A broken Secret is one also where it is not used: its owner is about to use it.
    let lists = snapshot.clients(secret).map_err(|_| ())?;
    if part.verify == Verify::Off {
        return Ok(None);
    }
    Ok(Some(Arc::new(ClientAuth {
        fingerprint: format!("{}-{}", lists.fingerprint, part.depth).into(),
        authorities: Arc::clone(&lists.authorities),
        revoked: Arc::clone(&lists.revoked),
        depth: part.depth,
    })))
}

impl Clients<'_> {
    /// How certificates are verified, where clients are asked for them.
    pub(crate) fn auth(&self) -> Option<Arc<ClientAuth>> {
        self.auth.as_ref().ok()?.clone()
    }

    fn filter(&self, entry: &Entry) -> Result<Filter, &'static str> {
        let own = entry.clients.as_deref();
        if own.is_some_and(|own| !self.part.implies(own)) {
            return Err(OTHER_CERTIFICATES);
        }
        let auth = self.auth.as_ref().map_err(|()| INVALID_SECRET)?;
        let enough = match self.part.verify {
            Verify::On => EnoughCertificate::Good,
            Verify::Optional | Verify::Off => EnoughCertificate::GoodOrNone,
            Verify::OptionalWithoutAuthority => EnoughCertificate::AnyAuthority,
        };
        let told = own.unwrap_or(self.part);
        Ok(Filter::ClientCertificate(Arc::new(ClientCertificate {
            asked: auth.as_ref().map(|auth| AskedCertificate {
                fingerprint: auth.fingerprint.clone(),
                enough,
            }),
            error_page: told.error_page.clone(),
            subject: self.part.subject.clone(),
            passed_on: told.pass,
            open_without_tls: false,
        })))
    }
}

/// The filter of the routes of an Ingress on a host, or why they are closed.
pub(crate) fn filter(
    entry: &Entry,
    clients: Option<&Clients<'_>>,
) -> Result<Option<Filter>, &'static str> {
    match clients {
        Some(clients) => clients.filter(entry).map(Some),
        None if entry.clients.is_some() => Err(OTHER_CERTIFICATES),
        None => Ok(None),
    }
}

/// What an Ingress is told that does not decide about its host.
pub(crate) fn problem(
    entry: &Entry,
    clients: Option<&Clients<'_>>,
    host: &model::HostPattern,
) -> Option<Problem> {
    let at = "metadata.annotations";
    let own = entry.clients.as_deref();
    let Some(clients) = clients else {
        own?;
        let text = format!(
            "an older Ingress of another namespace has host `{host}`, and decides about certificates of clients; the paths of this Ingress answer 503 there rather than without them"
        );
        return Some(Problem::error(Reason::TlsConflict, at, &text));
    };
    let owner = &clients.owner.rank.name;
    if *owner == entry.rank.name {
        return None;
    }
    if own.is_some_and(|own| !clients.part.implies(own)) {
        let text = format!(
            "Ingress {owner} decides about certificates of clients on host `{host}`, and asks for less or for others; the paths of this Ingress answer 503 there"
        );
        return Some(Problem::error(Reason::TlsConflict, at, &text));
    }
    if clients.auth.is_err() {
        let text = format!(
            "Ingress {owner} asks for certificates of clients on host `{host}`, which cannot be verified; the paths of this Ingress answer 503 there, too"
        );
        return Some(Problem::error(Reason::InvalidSecret, at, &text));
    }
    own.filter(|own| *own != clients.part).map(|_| {
        let text = format!(
            "Ingress {owner} decides about certificates of clients on host `{host}`; of the annotations here only those that pass the certificate on and name an error page count"
        );
        Problem::warning(Reason::TlsConflict, at, &text)
    })
}
