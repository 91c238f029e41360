//! Service and EndpointSlices → backend.
//!
//! The port that an Ingress names is looked for in this order: by name; by number; then, as ingress-nginx does, a
//! number (or name) that equals the `targetPort` of a port, with a warning. Ports of other protocols than TCP do not
//! count, but for what a ConfigMap says of UDP.
//!
//! What is spoken to the endpoints: the annotation `backend-protocol` of the Ingress, else `appProtocol` of the
//! Service's port, else that of a slice's port, else HTTP/1.1.

mod endpoints;

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::{
    Backend, BackendId, BackendProtocol, Endpoint, EndpointSet, HostName, ObjectRef, Origin,
    Redacted,
};

use self::endpoints::{Gathered, refusal};
use crate::NamespacedName;
use crate::ingress::Naming;
use crate::object::{kinds, name_of};
use crate::packed::Packed;
use crate::report::{Problem, Reason, quoted};
use crate::settings::{Compat, Settings};
use crate::snapshot::Snapshot;
use crate::stream::Transport;

/// Stands for the first port of a Service. No port can have this name.
const FIRST_PORT: &str = "*";

/// What became of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) backend: Backend,
    pub(crate) endpoints: EndpointSet,
    /// What every Ingress that names the backend has to know.
    pub(crate) remark: Option<Remark>,
    /// What is wrong with the slices.
    pub(crate) slices: Vec<(ObjectRef, Problem)>,
}

/// Something about a backend, for the owners of the Ingresses that name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Remark {
    /// It cannot be used.
    Fault(Reason, String),
    /// It can, but.
    Hint(Reason, String),
}

impl Remark {
    /// As a problem of the Ingress whose requests are copied to the backend.
    pub(crate) fn problem_of_copies(&self) -> Problem {
        const FIELD: &str = "metadata.annotations";
        match self {
            Self::Fault(reason, text) => {
                let text = format!("`mirror-target`: {text}; copies of requests are lost");
                Problem::error(*reason, FIELD, &text)
            }
            Self::Hint(reason, text) => {
                Problem::warning(*reason, FIELD, &format!("`mirror-target`: {text}"))
            }
        }
    }

    /// As a problem of the Ingress that names the backend.
    pub(crate) fn problem(&self, naming: &Naming) -> Problem {
        let Naming { field, count } = naming;
        let others = match count {
            0 | 1 => String::new(),
            2 => " (also used in 1 more place)".to_owned(),
            more => format!(" (also used in {} more places)", more - 1),
        };
        match self {
            Self::Fault(reason, text) => Problem::error(
                *reason,
                field,
                &format!("{text}{others}; requests to it are answered with 503"),
            ),
            Self::Hint(reason, text) => {
                Problem::warning(*reason, field, &format!("{text}{others}"))
            }
        }
    }
}

/// Marks a backend whose requests go to the address of the Service.
const BY_ADDRESS: &str = "+service";

/// Marks a backend whose port is one of UDP.
const BY_UDP: &str = "+udp";

/// The backend for a UDP port of a Service.
pub(crate) fn udp_backend(namespace: &str, service: &str, port: &str) -> BackendId {
    BackendId::new(namespace, service, &format!("{port}{BY_UDP}"))
}

/// The backend for a port of a Service. A protocol that an annotation asks for makes it a backend of its own, since
/// two Ingresses may speak differently to the same port; so does the wish to use the address of the Service.
pub(crate) fn backend_id(
    namespace: &str,
    service: &str,
    port: &str,
    protocol: Option<BackendProtocol>,
    by_address: bool,
) -> BackendId {
    let mut port = port.to_owned();
    if let Some(protocol) = protocol {
        port.push('+');
        port.push_str(suffix(protocol));
    }
    if by_address {
        port.push_str(BY_ADDRESS);
    }
    BackendId::new(namespace, service, &port)
}

/// The backend for the first port of a Service.
pub(crate) fn first_port(service: &NamespacedName) -> BackendId {
    BackendId::new(&service.namespace, &service.name, FIRST_PORT)
}

/// The Service of a backend.
pub(crate) fn service_of(id: &BackendId) -> NamespacedName {
    NamespacedName::new(&id.namespace, &id.service)
}

fn suffix(protocol: BackendProtocol) -> &'static str {
    match protocol {
        BackendProtocol::Http1 => "http1",
        BackendProtocol::H2c => "h2c",
        BackendProtocol::Https => "https",
        BackendProtocol::Auto => "auto",
    }
}

fn split_port(port: &str) -> (&str, Option<BackendProtocol>) {
    let Some((port, asked)) = port.split_once('+') else {
        return (port, None);
    };
    let protocol = [
        BackendProtocol::Http1,
        BackendProtocol::H2c,
        BackendProtocol::Https,
        BackendProtocol::Auto,
    ]
    .into_iter()
    .find(|protocol| suffix(*protocol) == asked);
    (port, protocol)
}

/// RFC 1123 name with dots, as far as it matters here: nothing in it can be mistaken for a separator.
pub(crate) fn is_service_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// A port name has at least one letter, so that it is never a number.
pub(crate) fn is_port_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

/// Looks up what a backend stands for.
pub(crate) fn resolve(id: &BackendId, snapshot: &Snapshot, settings: &Settings) -> Resolved {
    let allow_loopback = settings.allow_loopback_endpoints;
    let name = service_of(id);
    let (port, by_address) = match id.port.strip_suffix(BY_ADDRESS) {
        Some(port) => (port, true),
        None => (&*id.port, false),
    };
    let (port, transport) = match port.strip_suffix(BY_UDP) {
        Some(port) => (port, Transport::Udp),
        None => (port, Transport::Tcp),
    };
    let (port, asked) = split_port(port);
    let origin = Origin::new(name.reference(kinds::SERVICE), "spec.ports");
    let mut resolved = Resolved {
        backend: Backend {
            protocol: asked.unwrap_or_default(),
            seed: None,
            health: None,
            origin,
        },
        endpoints: EndpointSet::default(),
        remark: None,
        slices: Vec::new(),
    };
    let service = snapshot.services().get(&name).and_then(Packed::unpack);
    let Some(service) = &service else {
        return refused(
            resolved,
            Reason::ServiceNotFound,
            format!("Service {name} does not exist"),
        );
    };
    // Nobody outside the cluster sees it, and who does may see the endpoints as well.
    let uid = service.metadata.uid.as_deref();
    resolved.backend.seed = uid.map(|uid| Redacted::new(uid.into()));
    // A port that only a pod has is none that a rule can name.
    let strict = settings.compat == Some(Compat::Strict);
    let found =
        find_port(service, port, transport).filter(|(_, by_target)| !(strict && *by_target));
    if is_external_name(service) {
        return external_name(resolved, service, port, found, asked, allow_loopback);
    }
    let Some((service_port, by_target)) = found else {
        return refused(
            resolved,
            Reason::PortNotFound,
            format!(
                "Service {name} has no {} port {}",
                transport.name(),
                shown(port)
            ),
        );
    };
    if by_target {
        resolved.remark = Some(Remark::Hint(
            Reason::MatchedByTargetPort,
            format!(
                "{} is the targetPort of port {} of Service {name}; it is taken for that port, as by ingress-nginx, but other controllers will not",
                shown(port),
                service_port.port
            ),
        ));
    }
    let mut gathered = Gathered::new(allow_loopback, transport, &settings.locality);
    for slice in snapshot.slices_of(&name) {
        gathered.slice(&slice, service_port.name.as_deref().unwrap_or_default());
    }
    let app_protocol = service_port
        .app_protocol
        .as_deref()
        .or(gathered.app_protocol.as_deref());
    resolved.backend.protocol = asked.unwrap_or_else(|| protocol_of(app_protocol));
    let address = by_address.then(|| service_address(service, service_port.port));
    resolved.endpoints = EndpointSet::Addresses(match address.flatten() {
        Some(address) => vec![Endpoint::new(address)],
        // A headless Service has no address of its own.
        None => gathered.choose(),
    });
    resolved.slices = gathered.problems;
    resolved
}

fn service_address(service: &Service, port: i32) -> Option<SocketAddr> {
    let address = service.spec.as_ref()?.cluster_ip.as_deref()?;
    Some(SocketAddr::new(
        address.parse().ok()?,
        u16::try_from(port).ok()?,
    ))
}

fn shown(port: &str) -> String {
    if port == FIRST_PORT {
        "at all".to_owned()
    } else {
        quoted(port)
    }
}

fn refused(mut resolved: Resolved, reason: Reason, text: String) -> Resolved {
    resolved.endpoints = EndpointSet::Invalid(text.clone());
    resolved.remark = Some(Remark::Fault(reason, text));
    resolved
}

/// The port, and whether only its target port fits.
fn find_port<'a>(
    service: &'a Service,
    wanted: &str,
    transport: Transport,
) -> Option<(&'a ServicePort, bool)> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let usable = || {
        ports
            .iter()
            .filter(|port| transport.is(port.protocol.as_deref()))
    };
    if wanted == FIRST_PORT {
        return usable().next().map(|port| (port, false));
    }
    let number = wanted.parse::<i32>().ok();
    let direct = usable().find(|port| match number {
        Some(number) => port.port == number,
        None => port.name.as_deref() == Some(wanted),
    });
    let by_target = || {
        usable().find(|port| match (&port.target_port, number) {
            (Some(IntOrString::Int(target)), Some(number)) => *target == number,
            (Some(IntOrString::String(target)), None) => target == wanted,
            _ => false,
        })
    };
    direct
        .map(|port| (port, false))
        .or_else(|| by_target().map(|port| (port, true)))
}

fn protocol_of(app_protocol: Option<&str>) -> BackendProtocol {
    match app_protocol {
        Some("kubernetes.io/h2c" | "grpc") => BackendProtocol::H2c,
        Some("kubernetes.io/wss" | "https") => BackendProtocol::Https,
        // `http`, `kubernetes.io/ws`, and what nobody here knows.
        Some(_) | None => BackendProtocol::Http1,
    }
}

fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// The port is the one of the Ingress, even if the Service lists none; if it does, a numeric target port counts.
fn external_name(
    mut resolved: Resolved,
    service: &Service,
    port: &str,
    found: Option<(&ServicePort, bool)>,
    asked: Option<BackendProtocol>,
    allow_loopback: bool,
) -> Resolved {
    let name = name_of(&service.metadata);
    let number = match found {
        Some((port, _)) => match &port.target_port {
            Some(IntOrString::Int(target)) => u16::try_from(*target).ok(),
            Some(IntOrString::String(_)) | None => u16::try_from(port.port).ok(),
        },
        None => port.parse().ok(),
    };
    let Some(number) = number.filter(|number| *number > 0) else {
        return refused(
            resolved,
            Reason::PortNotFound,
            format!("Service {name} has no TCP port {}", shown(port)),
        );
    };
    resolved.backend.protocol = asked
        .unwrap_or_else(|| protocol_of(found.and_then(|(port, _)| port.app_protocol.as_deref())));
    let target = service
        .spec
        .as_ref()
        .and_then(|spec| spec.external_name.as_deref())
        .unwrap_or_default();
    let unusable = |resolved, why: &str| {
        refused(
            resolved,
            Reason::ExternalNameRefused,
            format!("externalName {} of Service {name} {why}", quoted(target)),
        )
    };
    if let Ok(address) = target.parse::<IpAddr>() {
        if let Some(why) = refusal(address, allow_loopback) {
            return unusable(resolved, why);
        }
        let address = SocketAddr::new(address.to_canonical(), number);
        resolved.endpoints = EndpointSet::Addresses(vec![Endpoint::new(address)]);
        return resolved;
    }
    match HostName::parse(target) {
        Err(error) => unusable(resolved, &format!("is not a host name: {error}")),
        Ok(host) if is_local_name(host.as_str()) => unusable(resolved, "names the gateway itself"),
        Ok(host) => {
            resolved.endpoints = EndpointSet::Dns { host, port: number };
            resolved
        }
    }
}

fn is_local_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    last == "localhost"
        || matches!(
            host,
            "localhost.localdomain" | "ip6-localhost" | "ip6-loopback"
        )
}
