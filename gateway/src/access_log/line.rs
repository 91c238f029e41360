//! One request as one line of JSON, and what lines are made from.

use std::time::Duration;

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderName, StatusCode, Version};

use super::clock::Clock;
use super::write::{Object, escape_json, name, write_address};
use crate::context::{RequestContext, Try};
use crate::phases::forwarding::X_FORWARDED_FOR;
use crate::phases::log::Outcome;

/// What a line is made from.
pub(super) struct Facts<'a> {
    pub(super) context: &'a RequestContext,
    pub(super) outcome: &'a Outcome<'a>,
    pub(super) status: StatusCode,
    pub(super) elapsed: Duration,
}

impl Facts<'_> {
    pub(super) fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.outcome.request.headers.get(name)
    }

    /// The host as the client wrote it.
    pub(super) fn host(&self) -> Option<&[u8]> {
        let authority = self.outcome.request.uri.authority();
        self.header(&HOST)
            .or_else(|| authority.map(|authority| authority.as_str().as_bytes()))
    }

    fn last_try(&self) -> Option<&Try> {
        self.context.tries.last()
    }
}

/// Appends a JSON object and a line end. Fields that a request does not have are left out.
pub(super) fn json(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let context = facts.context;
    let request = facts.outcome.request;
    let mut line = Object::open(out, "time", |out| {
        out.push(b'"');
        clock.rfc3339(out, context.started_at);
        out.push(b'"');
    });
    line.address(name!("remote_addr"), context.client.address);
    if let Some(value) = facts.header(&X_FORWARDED_FOR) {
        line.bytes(name!("x_forwarded_for"), value);
    }
    let peer = context.connection.peer.ip().to_canonical();
    if peer != context.client.address {
        line.address(name!("peer_addr"), peer);
    }
    if context.connection.proxied {
        line.address(name!("proxy_protocol_addr"), context.connection.client.ip());
    }
    if let Some(id) = &context.request_id {
        line.bytes(name!("request_id"), id.as_bytes());
    }
    line.text(name!("method"), request.method.as_str());
    if let Some(host) = facts.host() {
        line.bytes(name!("host"), host);
    }
    let mut target = facts.outcome.target.splitn(2, |byte| *byte == b'?');
    line.bytes(name!("path"), target.next().unwrap_or_default());
    if let Some(query) = target.next() {
        line.bytes(name!("query"), query);
    }
    line.word(name!("protocol"), protocol(request.version));
    let scheme = if context.client.https {
        "https"
    } else {
        "http"
    };
    line.word(name!("scheme"), scheme);
    if let Some(tls) = &context.connection.tls {
        line.word(name!("tls_version"), tls.version);
        line.word(name!("tls_cipher"), tls.cipher);
        if let Some(name) = &tls.server_name {
            line.text(name!("sni"), name);
        }
    }
    if let Some(certificate) = &context.certificate {
        line.bytes(name!("ssl_client_verify"), certificate.verdict.as_bytes());
        line.bytes(name!("ssl_client_s_dn"), certificate.subject());
    }
    line.number(name!("status"), facts.status.as_u16().into());
    line.number(name!("bytes_sent"), facts.outcome.sent);
    let received = context.header_bytes + facts.outcome.received;
    line.number(name!("bytes_received"), received);
    line.seconds(name!("request_time"), facts.elapsed);
    upstream_fields(&mut line, facts);
    if let Some(value) = facts.header(&USER_AGENT) {
        line.bytes(name!("user_agent"), value);
    }
    if let Some(value) = facts.header(&REFERER) {
        line.bytes(name!("referer"), value);
    }
    match &context.reason {
        Some(reason) => line.text(name!("reason"), reason.as_str()),
        None => line.word(name!("reason"), "upstream"),
    }
    line.close();
}

fn upstream_fields(line: &mut Object<'_>, facts: &Facts<'_>) {
    let context = facts.context;
    if let Some(last) = facts.last_try() {
        line.quoted(name!("upstream_addr"), |out| {
            list(out, &context.tries, |out, attempt| {
                write_address(out, attempt.address());
            });
        });
        if let Some(status) = last.status {
            line.number(name!("upstream_status"), status.as_u16().into());
        }
        if let Some(connected) = last.connected.filter(|_| !last.reused) {
            line.seconds(name!("upstream_connect_time"), connected);
        }
        if let Some(header) = last.header {
            line.seconds(name!("upstream_header_time"), header);
        }
        if let Some(ended) = last.ended {
            line.seconds(name!("upstream_response_time"), ended);
        }
        line.number(name!("tries"), context.tries.len());
    }
    if let Some(route) = &context.route {
        line.text(name!("namespace"), &route.origin.object.namespace);
        line.text(name!("ingress"), &route.origin.object.name);
    }
    if let Some(target) = &context.target {
        line.text(name!("service"), &target.backend.id.service);
        line.text(name!("service_port"), &target.backend.id.port);
    }
    if let Some(route) = &context.route {
        line.quoted(name!("rule_path"), |out| {
            let (mark, path) = route.path.marked();
            out.extend_from_slice(mark.as_bytes());
            escape_json(out, path.as_bytes());
        });
    }
}

pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        each(out, item);
    }
}

pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/0.9",
    }
}
