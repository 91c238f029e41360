//! Protocol and TLS towards backends.

use model::BackendProtocol;

use super::super::{Annotation, Annotations, Group, Risk, Scope, Value};
use super::transfer::switch;
use crate::{tls_names, value};

/// Protocol and TLS towards backends.
pub(super) static BACKEND: &[Annotation] = &[
    Annotation::different("backend-protocol", Value::OneOf(&["HTTP", "HTTPS", "GRPC", "GRPCS", "AUTO_HTTP", "FCGI"]), |read, text| protocol(text).map(|(v, http2)| set_protocol(read, v, http2)), "`FCGI` cannot be used; with `HTTPS`, HTTP/2 is spoken where the pod offers it").alike(|text| matches!(protocol(text), Ok((BackendProtocol::Http1 | BackendProtocol::H2c, _) | (BackendProtocol::Https, true)))).by_default("HTTP").about(Group::Backend, "What is spoken to the pods."),
    Annotation::different("proxy-ssl-secret", Value::Object, |read, text| value::object(text).map(|v| read.backend_tls().secret = Some(v)), "a Secret of another namespace needs a `ReferenceGrant`; without it, or if it cannot be used, it closes the route; with a client certificate it has to be of type `kubernetes.io/tls`").scope(Scope::Backend).risk(Risk::Medium).guarding().about(Group::Backend, "The client certificate for TLS towards the backend (`tls.crt`, `tls.key`), and the authority (`ca.crt`) that its certificate has to come from."),
    Annotation::different("proxy-ssl-verify", Value::Switch, |read, text| switch(text).map(|v| read.backend_tls().verify = v), "without an authority in `proxy-ssl-secret` it closes the route").alike(|text| text == "off").by_default("off").scope(Scope::Backend).guarding().about(Group::Backend, "Refuses backends whose certificate is not good."),
    Annotation::different("proxy-ssl-name", Value::Host, |read, text| tls_name(text).map(|v| read.backend_tls().name = Some(v)), "a name or an address, no variables; it counts without `proxy-ssl-secret`, too; without it the name is SERVICE.NAMESPACE.svc").scope(Scope::Backend).risk(Risk::High).guarding().about(Group::Backend, "The name that is sent to the backend and that its certificate has to have."),
    Annotation::different("proxy-ssl-server-name", Value::Switch, |_, text| switch(text).map(|_| ()), "the name is always sent").alike(|text| text == "on").by_default("off").scope(Scope::Backend).about(Group::Backend, "Sends a server name to the backend."),
    Annotation::different("proxy-ssl-verify-depth", Value::Number(0, u32::MAX), |read, text| value::number(text, 0, u32::MAX).map(|v| read.backend_tls().depth = Some(v)), "without it, chains of up to six authorities between the backend's certificate and `ca.crt` are followed; with it, `HTTPS` is HTTP/1.1 and `GRPCS` HTTP/2, and each request has a connection of its own").by_default("1").scope(Scope::Backend).guarding().about(Group::Backend, "How many authorities may stand between the backend's certificate and `ca.crt`, where `proxy-ssl-verify` asks."),
    Annotation::different("proxy-ssl-protocols", Value::Text("`TLSv1.2`, `TLSv1.3`, by spaces"), |read, text| tls_names::versions(text).map(|v| read.backend_tls().versions = Some((v.v1_2, v.v1_3))), "without it, both versions are offered and the backend chooses; older ones are left out of a list, and a list of nothing else closes the route; with only one of them, `HTTPS` is HTTP/1.1 and `GRPCS` HTTP/2, and each request has a connection of its own; it counts without `proxy-ssl-secret`, too").by_default("TLSv1.2").scope(Scope::Backend).guarding().about(Group::Backend, "TLS versions towards the backend."),
    Annotation::different("proxy-ssl-ciphers", Value::Text("OpenSSL names, by colons"), |read, text| cipher_suites(text).map(|v| read.backend_tls().cipher_suites = v), "of the suites of TLS 1.2 the six that rustls has, all with forward secrecy; a list of others closes the route; where it leaves some out, `HTTPS` is HTTP/1.1 and `GRPCS` HTTP/2, and each request has a connection of its own; it counts without `proxy-ssl-secret`, too").by_default("DEFAULT").scope(Scope::Backend).risk(Risk::Medium).guarding().about(Group::Backend, "Cipher suites of TLS 1.2 towards the backend."),
    Annotation::different("proxy-http-version", Value::OneOf(&["1.0", "1.1"]), |_, text| http_version(text), "1.1 only").alike_if_readable().by_default("1.1").about(Group::Backend, "The version of HTTP towards the backend."),
    Annotation::different("connection-proxy-header", Value::OneOf(&["keep-alive", "close"]), |_, text| connection_header(text), "connections are always kept").alike(|text| text == "keep-alive").about(Group::Backend, "The `Connection` header towards the backend."),
    Annotation::honoured("service-upstream", Value::Boolean, |read, text| value::boolean(text).map(|v| read.traffic().service_upstream = v)).by_default("false").scope(Scope::Backend).about(Group::Backend, "Sends requests to the address of the Service instead of the pods."),
    Annotation::ignored("fastcgi-index", Value::Text("file name"), "FastCGI is not spoken; put a web server into the pod").risk(Risk::Medium).about(Group::Backend, "The index file of a FastCGI backend."),
    Annotation::ignored("fastcgi-params-configmap", Value::Object, "FastCGI is not spoken; put a web server into the pod").risk(Risk::Medium).about(Group::Backend, "Parameters for a FastCGI backend."),
];

/// The protocol, and whether it is HTTP/2 where that cannot be negotiated.
fn protocol(text: &str) -> Result<(BackendProtocol, bool), String> {
    match text.trim().to_ascii_uppercase().as_str() {
        "HTTP" => Ok((BackendProtocol::Http1, false)),
        "HTTPS" => Ok((BackendProtocol::Https, false)),
        "GRPCS" => Ok((BackendProtocol::Https, true)),
        "GRPC" => Ok((BackendProtocol::H2c, true)),
        "AUTO_HTTP" => Ok((BackendProtocol::Auto, false)),
        "FCGI" => Err("FastCGI is not spoken; put a web server into the pod".to_owned()),
        _ => Err("it is none of HTTP, HTTPS, GRPC, GRPCS and AUTO_HTTP".to_owned()),
    }
}

fn set_protocol(read: &mut Annotations, protocol: BackendProtocol, http2: bool) {
    read.protocol = Some(protocol);
    if protocol == BackendProtocol::Https && http2 {
        read.backend_tls().http2 = true;
    }
}

/// Empty where nothing is narrowed.
fn cipher_suites(text: &str) -> Result<Vec<&'static str>, String> {
    let suites = tls_names::suites(text)?;
    Ok(if suites.are_all() {
        Vec::new()
    } else {
        suites.names
    })
}

fn http_version(text: &str) -> Result<(), String> {
    match text.trim() {
        "1.1" => Ok(()),
        "1.0" => Err("HTTP/1.0 is not spoken to backends".to_owned()),
        _ => Err("it is neither `1.0` nor `1.1`".to_owned()),
    }
}

fn connection_header(text: &str) -> Result<(), String> {
    match text.trim() {
        "keep-alive" => Ok(()),
        "close" => Err("connections to backends are always kept".to_owned()),
        _ => Err("it is neither `keep-alive` nor `close`".to_owned()),
    }
}

/// What a certificate can be for. A variable would be a name that nobody has.
fn tls_name(text: &str) -> Result<Box<str>, String> {
    let name = text.trim();
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if is_address || model::HostName::parse(name).is_ok() {
        return Ok(name.into());
    }
    Err("it is neither a host name nor an address".to_owned())
}
