//! The ConfigMaps of TCP and UDP services: port → Service.
//!
//! An entry is `"9000": namespace/service:port`, where the port of the Service is a number or a name. For TCP `:PROXY`
//! may follow twice: the first expects a PROXY protocol header from clients, the second sends one to the pods, and
//! `::PROXY` is the second alone. An entry that cannot be read takes no other one down.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use model::BackendId;

use crate::report::{Reason, quoted};
use crate::service;
use crate::settings::Settings;
use crate::{NamespacedName, Problem};

/// What a port of a Service speaks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// As in manifests, where TCP may be left out.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Is this the protocol of a port?
    pub(crate) fn is(self, protocol: Option<&str>) -> bool {
        protocol.unwrap_or("TCP") == self.name()
    }
}

/// What stands for a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PortEntry {
    pub(crate) backend: BackendId,
    pub(crate) proxy_in: bool,
    pub(crate) proxy_out: bool,
    pub(crate) field: Box<str>,
}

/// The entries of a ConfigMap.
pub(crate) type PortEntries = BTreeMap<u16, PortEntry>;

/// Reads a ConfigMap; without one nothing is passed on.
pub(crate) fn entries(
    configmap: Option<&ConfigMap>,
    transport: Transport,
    settings: &Settings,
) -> (PortEntries, Vec<Problem>) {
    let mut entries = PortEntries::new();
    let mut problems = Vec::new();
    let data = configmap.and_then(|object| object.data.as_ref());
    for (key, text) in data.into_iter().flatten() {
        let field = format!("data[{key}]");
        let entry = port(key, transport, settings).and_then(|port| {
            let (entry, hint) = entry(text, transport, &field)?;
            Ok((port, entry, hint))
        });
        match entry {
            Ok((port, entry, hint)) => {
                problems.extend(
                    hint.map(|hint| Problem::warning(Reason::UnsupportedSetting, &field, &hint)),
                );
                entries.insert(port, entry);
            }
            Err(why) => problems.push(Problem::error(
                Reason::InvalidSetting,
                &field,
                &format!("{why}; nothing is passed on from there"),
            )),
        }
    }
    (entries, problems)
}

fn port(key: &str, transport: Transport, settings: &Settings) -> Result<u16, String> {
    let port = key
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0 && port.to_string() == key)
        .ok_or_else(|| format!("{} is not a port", quoted(key)))?;
    if transport == Transport::Tcp && settings.own_ports.contains(&port) {
        return Err(format!("port {port} is one of Lockgate's own"));
    }
    Ok(port)
}

/// The entry, and what is wrong with it although it can be used.
fn entry(
    text: &str,
    transport: Transport,
    field: &str,
) -> Result<(PortEntry, Option<String>), String> {
    let mut parts = text.trim().split(':');
    let malformed = || format!("{} is not of the form namespace/service:port", quoted(text));
    let (Some(name), Some(port)) = (parts.next(), parts.next()) else {
        return Err(malformed());
    };
    let NamespacedName { namespace, name } = name.parse().map_err(|_| malformed())?;
    if !service::is_service_name(&name) || !service::is_service_name(&namespace) {
        return Err(malformed());
    }
    let number = port.parse::<u16>().is_ok_and(|number| number > 0);
    if !number && !service::is_port_name(port) {
        return Err(format!("{} is not a port of a Service", quoted(port)));
    }
    let mut proxy = [false; 2];
    for flag in &mut proxy {
        *flag = match parts.next() {
            None | Some("") => false,
            Some(word) if word.eq_ignore_ascii_case("PROXY") => true,
            // Whoever writes something there wants something of it.
            Some(other) => {
                return Err(format!(
                    "{} follows the port, where only `PROXY` may",
                    quoted(other)
                ));
            }
        };
    }
    if parts.next().is_some() {
        return Err(malformed());
    }
    let [proxy_in, proxy_out] = proxy;
    let mut hint = None;
    if transport == Transport::Udp && (proxy_in || proxy_out) {
        hint = Some("the PROXY protocol is for TCP; datagrams go without it".to_owned());
    }
    let tcp = transport == Transport::Tcp;
    let entry = PortEntry {
        backend: match transport {
            Transport::Tcp => service::backend_id(&namespace, &name, port, None, false),
            Transport::Udp => service::udp_backend(&namespace, &name, port),
        },
        proxy_in: proxy_in && tcp,
        proxy_out: proxy_out && tcp,
        field: field.into(),
    };
    Ok((entry, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_ingress_nginx_reads_them() {
        for (text, want) in [
            ("db/pg:5432", Some(("db/pg:5432", false, false))),
            (" db/pg:pg ", Some(("db/pg:pg", false, false))),
            ("db/pg:5432:PROXY", Some(("db/pg:5432", true, false))),
            ("db/pg:5432:proxy:Proxy", Some(("db/pg:5432", true, true))),
            ("db/pg:5432::PROXY", Some(("db/pg:5432", false, true))),
            ("db/pg:5432:", Some(("db/pg:5432", false, false))),
            ("db/pg", None),
            ("pg:5432", None),
            ("db/pg:0", None),
            ("db/pg:70000", None),
            ("db/pg:5432:PROXY:PROXY:PROXY", None),
            ("db/pg:5432:PROXIES", None),
            ("db/a/b:5432", None),
            ("db/p\ng:5432", None),
            ("", None),
        ] {
            let got = entry(text, Transport::Tcp, "").ok().map(|(entry, hint)| {
                assert_eq!(hint, None);
                let id = entry.backend.to_string();
                (id, entry.proxy_in, entry.proxy_out)
            });
            let want = want.map(|(id, proxy_in, out)| (id.to_owned(), proxy_in, out));
            assert_eq!(got, want, "{text:?}");
        }
        let (udp, hint) = entry("dns/dns:53:PROXY", Transport::Udp, "").unwrap();
        assert!(!udp.proxy_in && hint.is_some());
    }

    #[test]
    fn ports_are_numbers_and_not_our_own() {
        let settings = Settings {
            own_ports: [8443].into(),
            ..Settings::default()
        };
        for (key, tcp, udp) in [
            ("53", true, true),
            ("8443", false, true),
            ("0", false, false),
            ("65536", false, false),
            ("053", false, false),
            ("dns", false, false),
            ("", false, false),
        ] {
            assert_eq!(port(key, Transport::Tcp, &settings).is_ok(), tcp, "{key}");
            assert_eq!(port(key, Transport::Udp, &settings).is_ok(), udp, "{key}");
        }
    }
}
