//! Less memory after many changes at once.
//!
//! A tree that has grown in the order of its keys, as lists of an API server do, is little more than half full. One that is
//! made of a sorted list is full. At the start, nearly everything comes in one settlement, so the trees are made anew
//! behind it.

use model::{Changes, RoutingModel};

use super::Translator;
use crate::few::dense;

/// With fewer changes than this nothing is worth any trouble.
const MANY: usize = 1000;

/// Is so much of the model new that its trees are to be made anew? Then that costs less than what has been done already.
pub(super) fn is_worthwhile(changes: &Changes, model: &RoutingModel) -> bool {
    let count = changes.hosts.len() + changes.certificates.len();
    count >= MANY && count * 3 >= model.hosts.len() + model.certificates.len()
}

impl Translator {
    /// Makes all trees anew that have an element for each object.
    pub(super) fn make_dense(&mut self) {
        let model = &mut self.model;
        dense(&mut model.hosts);
        dense(&mut model.tls_hosts);
        dense(&mut model.backends);
        dense(&mut model.endpoints);
        dense(&mut model.certificates);
        dense(&mut self.entries);
        dense(&mut self.classes);
        self.of_class.values_mut().for_each(dense);
        dense(&mut self.wanted);
        self.index.make_dense();
        self.snapshot.make_dense();
        self.report.make_dense();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use model::{HostPattern, VirtualHost};

    use super::*;
    use crate::{Change, Settings, manifests};

    fn changes(hosts: std::ops::Range<usize>) -> Changes {
        let host = |number| HostPattern::parse(&format!("h{number}.test")).unwrap();
        Changes {
            hosts: hosts.map(host).collect(),
            ..Changes::default()
        }
    }

    #[test]
    fn trees_are_made_anew_behind_many_changes_only() {
        let mut model = RoutingModel::default();
        for pattern in changes(0..9000).hosts {
            model
                .hosts
                .insert(pattern, Arc::new(VirtualHost::default()));
        }
        assert!(is_worthwhile(&changes(0..9000), &model), "all of it");
        assert!(is_worthwhile(&changes(0..3000), &model), "much of it");
        assert!(!is_worthwhile(&changes(0..2900), &model), "less");
        model.hosts.clear();
        assert!(!is_worthwhile(&changes(0..999), &model), "little at all");
    }

    #[test]
    fn nothing_is_lost() {
        let mut translator = Translator::new(Settings {
            watch_without_class: true,
            ..Settings::default()
        });
        let text: Vec<String> = (0..40)
            .map(|number| {
                format!(
                    "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: a{number}}}, spec: {{tls: [{{hosts: [h{number}.test], secretName: s}}], rules: [{{host: h{number}.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: w, port: {{number: 80}}}}}}}}]}}}}]}}}}"
                )
            })
            .collect();
        let objects = manifests::parse(&text.join("\n---\n")).objects;
        assert_eq!(objects.len(), 40);
        translator.apply(objects.into_iter().map(Change::Apply));
        let before = format!("{translator:?}");
        translator.make_dense();
        assert_eq!(format!("{translator:?}"), before);
        let claimed: BTreeSet<_> = translator.report().claimed().collect();
        assert_eq!((translator.model().hosts.len(), claimed.len()), (40, 40));
    }
}
