//! The command line of the old controller.

use translate::{NamespacedName, Settings};

use super::report::{Item, Verdict};

/// Flags that Lockgate has as well, and their names here.
const SAME: [(&str, &str); 16] = [
    ("annotations-prefix", "--annotations-prefix"),
    ("configmap", "--configmap"),
    ("controller-class", "--controller-name"),
    ("default-backend-service", "--default-backend-service"),
    ("default-ssl-certificate", "--default-ssl-certificate"),
    ("election-id", "--election-id"),
    ("enable-ssl-passthrough", "--enable-ssl-passthrough"),
    ("http-port", "--http-listen"),
    ("https-port", "--https-listen"),
    ("ingress-class", "--ingress-class"),
    ("publish-service", "--publish-service"),
    ("publish-status-address", "--publish-status-address"),
    ("tcp-services-configmap", "--tcp-services-configmap"),
    ("udp-services-configmap", "--udp-services-configmap"),
    (
        "watch-ingress-without-class",
        "--watch-ingress-without-class",
    ),
    ("watch-namespace", "--watch-namespace"),
];

/// Flags that mean nothing here, or nothing yet.
const WITHOUT: [(&str, &str); 21] = [
    ("apiserver-host", "use `--kubeconfig`"),
    (
        "deep-inspect",
        "values are read strictly, and nothing is ever executed",
    ),
    (
        "disable-catch-all",
        "not supported yet: a defaultBackend without rules is served",
    ),
    (
        "disable-leader-election",
        "status is written by the leader only",
    ),
    (
        "disable-svc-external-name",
        "not supported yet: ExternalName Services are served",
    ),
    (
        "enable-annotation-validation",
        "values are always validated",
    ),
    ("enable-metrics", "metrics are always there"),
    (
        "enable-ssl-chain-completion",
        "put the whole chain into the Secret",
    ),
    ("enable-topology-aware-routing", "not supported yet"),
    ("healthz-port", "use `--admin-listen`"),
    (
        "ingress-class-by-name",
        "the controller of the IngressClass decides",
    ),
    ("metrics-per-host", "see `--max-metric-series`"),
    ("profiling", "there is none"),
    (
        "report-node-internal-ip-address",
        "use `--publish-status-address`",
    ),
    ("shutdown-grace-period", "use `--shutdown-delay`"),
    (
        "ssl-passthrough-proxy-port",
        "connections that end here need no second port",
    ),
    ("sync-period", "changes are watched"),
    ("sync-rate-limit", "nothing is reloaded"),
    (
        "validating-webhook",
        "the webhook is optional: `--admission-listen`, see docs/admission.md",
    ),
    (
        "validating-webhook-certificate",
        "`--admission-secret` names a Secret",
    ),
    (
        "validating-webhook-key",
        "`--admission-secret` names a Secret",
    ),
];

/// The flags of the old controller, with their values.
#[derive(Clone, Debug, Default)]
pub(super) struct OldFlags(Vec<(String, String)>);

impl OldFlags {
    /// Reads them as they stand on a command line or, one a line, in a manifest.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut flags = Vec::new();
        let mut words = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .map(|word| word.trim_matches(['"', '\'', '[', ']']))
            .filter(|word| !word.is_empty() && *word != "-")
            .peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else {
                // The program itself comes first.
                if flags.is_empty() && word.starts_with('/') || word.starts_with('-') {
                    continue;
                }
                return Err(format!("`{word}` is no flag"));
            };
            let (name, value) = if let Some((name, value)) = flag.split_once('=') {
                (name, value.to_owned())
            } else {
                let value = words.next_if(|next| !next.starts_with('-'));
                (flag, value.unwrap_or("true").to_owned())
            };
            flags.push((name.to_owned(), value));
        }
        Ok(Self(flags))
    }

    /// What they say about objects.
    pub(super) fn settings(&self, mut settings: Settings) -> Settings {
        for (name, value) in &self.0 {
            let object = || value.parse::<NamespacedName>().ok();
            match name.as_str() {
                "annotations-prefix" => {
                    // Our own prefix stays in front of it.
                    settings.annotation_prefixes.truncate(1);
                    settings.annotation_prefixes.push(value.clone());
                }
                "configmap" => settings.configmap = object(),
                "controller-class" => settings.controller_name.clone_from(value),
                "default-backend-service" => settings.default_backend_service = object(),
                "default-ssl-certificate" => settings.default_certificate_secret = object(),
                "enable-ssl-passthrough" => settings.ssl_passthrough = value == "true",
                "tcp-services-configmap" => settings.tcp_services = object(),
                "udp-services-configmap" => settings.udp_services = object(),
                "ingress-class" => settings.ingress_class.clone_from(value),
                "watch-ingress-without-class" => settings.watch_without_class = value == "true",
                "watch-namespace" if !value.is_empty() => {
                    settings.watch_namespaces = [value.clone()].into();
                }
                _ => {}
            }
        }
        settings
    }

    /// What becomes of them, the worst first.
    pub(super) fn items(&self) -> Vec<Item> {
        let find = |table: &[(&str, &'static str)], name: &str| {
            let found = table.iter().find(|(flag, _)| *flag == name);
            found.map(|(_, text)| *text)
        };
        let mut items: Vec<Item> = self
            .0
            .iter()
            .map(|(name, value)| {
                let (verdict, text) = if let Some(ours) = find(&SAME, name) {
                    let text = match name.as_str() {
                        "http-port" | "https-port" => format!("{ours} 0.0.0.0:{value}"),
                        _ if value == "true" => ours.to_owned(),
                        _ => format!("{ours} {value}"),
                    };
                    (Verdict::Honoured, text)
                } else {
                    let why = find(&WITHOUT, name).unwrap_or("there is no such flag here");
                    (Verdict::Ignored, why.to_owned())
                };
                Item {
                    verdict,
                    name: format!("--{name}"),
                    text,
                }
            })
            .collect();
        items.sort();
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_they_are_written() {
        let text = "/nginx-ingress-controller --configmap=ingress/controller --ingress-class internal\n- --watch-ingress-without-class\n--enable-ssl-passthrough -v=2";
        let flags = OldFlags::parse(text).unwrap();
        let settings = flags.settings(Settings::default());
        assert_eq!(settings.ingress_class, "internal");
        assert!(settings.watch_without_class);
        assert_eq!(
            settings.configmap,
            Some(NamespacedName::new("ingress", "controller"))
        );
        let items: Vec<_> = flags
            .items()
            .iter()
            .map(|item| format!("{} {}: {}", item.verdict.as_str(), item.name, item.text))
            .collect();
        assert_eq!(
            items,
            [
                "honoured --configmap: --configmap ingress/controller",
                "honoured --enable-ssl-passthrough: --enable-ssl-passthrough",
                "honoured --ingress-class: --ingress-class internal",
                "honoured --watch-ingress-without-class: --watch-ingress-without-class",
            ]
        );
        assert!(OldFlags::parse("configmap").is_err());
    }
}
