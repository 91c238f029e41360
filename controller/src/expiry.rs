//! When certificates expire, as Prometheus text.
//!
//! Series of certificates that are gone have to go as well, or they would raise an alarm one day. The recorder of
//! the `metrics` facade cannot take a series back, so these are kept and written here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Certificate, CertificateId, RoutingModel};

use crate::telemetry;

/// Certificates that are served, with their end.
#[derive(Debug, Default)]
pub(crate) struct ExpiryBook(Mutex<BTreeMap<CertificateId, Arc<Certificate>>>);

impl ExpiryBook {
    /// Takes over what has become of these certificates.
    pub(crate) fn update(&self, model: &RoutingModel, changed: &BTreeSet<CertificateId>) {
        let mut book = self.lock();
        for id in changed {
            match model.certificates.get(id) {
                Some(certificate) => {
                    book.insert(id.clone(), Arc::clone(certificate));
                }
                None => {
                    book.remove(id);
                }
            }
        }
    }

    /// From when to when a certificate is valid, in seconds since 1970.
    pub(crate) fn validity(&self, id: &CertificateId) -> Option<(i64, i64)> {
        let book = self.lock();
        let certificate = book.get(id)?;
        Some((certificate.not_before, certificate.not_after))
    }

    /// Appends the metric to `text`: the `limit` certificates that expire first, and how many there are in all.
    pub(crate) fn render(&self, limit: usize, text: &mut String) {
        let mut by_end: Vec<(i64, String)> = self
            .lock()
            .iter()
            .map(|(id, certificate)| (certificate.not_after, escaped(id.as_str())))
            .collect();
        by_end.sort();
        let (expiry, count) = (telemetry::CERTIFICATE_EXPIRY, telemetry::CERTIFICATES);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP {expiry} When a served certificate expires, in seconds since 1970. Of very many, those that expire first.\n\
             # TYPE {expiry} gauge"
        );
        for (end, name) in by_end.iter().take(limit) {
            let _ = writeln!(text, "{expiry}{{certificate=\"{name}\"}} {end}");
        }
        let _ = writeln!(
            text,
            "# HELP {count} Certificates that are served.\n# TYPE {count} gauge\n{count} {}",
            by_end.len()
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CertificateId, Arc<Certificate>>> {
        // Each update is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label value as the text format wants it.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::self_signed;

    #[test]
    fn certificates_come_and_go_and_the_first_to_expire_are_listed() {
        let book = ExpiryBook::default();
        let mut model = RoutingModel::default();
        let mut changed = BTreeSet::new();
        let template = self_signed("Test", "a.test", &jiff::Zoned::now()).unwrap();
        for (name, not_after) in [("late", 300), ("early", 100), ("middle", 200)] {
            let id = CertificateId::secret("shop", name);
            let certificate = Certificate {
                not_after,
                ..template.clone()
            };
            model.certificates.insert(id.clone(), Arc::new(certificate));
            changed.insert(id);
        }
        book.update(&model, &changed);
        let rendered = || {
            let mut text = String::new();
            book.render(2, &mut text);
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rendered(),
            [
                "lockgate_certificate_expiry_timestamp_seconds{certificate=\"shop/early\"} 100",
                "lockgate_certificate_expiry_timestamp_seconds{certificate=\"shop/middle\"} 200",
                "lockgate_certificates 3",
            ]
        );
        book.update(&RoutingModel::default(), &changed);
        assert_eq!(rendered(), ["lockgate_certificates 0"]);
    }
}
