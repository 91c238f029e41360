//! One stream as one line.

use super::clock::Clock;
use super::line::list;
use super::write::{Object, name, show, write_address, write_ip, write_number, write_seconds};
use crate::stream::{Ending, Entrance, StreamFacts};

/// What a line is made from.
pub(super) struct Facts<'a> {
    pub(super) stream: &'a StreamFacts,
    pub(super) ending: Ending,
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// Appends a JSON object and a line end. Fields that a stream does not have are left out.
pub(super) fn json(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let of = facts.stream;
    let mut line = Object::open(out, "time", |out| {
        out.push(b'"');
        clock.rfc3339(out, of.started_at);
        out.push(b'"');
    });
    line.address(name!("remote_addr"), of.client.ip());
    if of.proxied {
        line.address(name!("peer_addr"), of.peer.ip());
        line.address(name!("proxy_protocol_addr"), of.client.ip());
    }
    line.word(name!("protocol"), of.entrance.protocol());
    line.shown(name!("entrance"), &of.entrance);
    if let Some(name) = &of.server_name {
        line.text(name!("sni"), name.as_str());
    }
    line.number(name!("status"), facts.ending.status().into());
    line.number(name!("bytes_sent"), size(facts.sent));
    line.number(name!("bytes_received"), size(facts.received));
    line.seconds(name!("session_time"), of.started.elapsed());
    if !of.tries.is_empty() {
        line.quoted(name!("upstream_addr"), |out| {
            list(out, &of.tries, |out, address| write_address(out, *address));
        });
        line.number(name!("tries"), of.tries.len());
    }
    if let Some(connected) = of.connected {
        line.seconds(name!("upstream_connect_time"), connected);
    }
    let object = &of.stream.origin.object;
    line.text(name!("namespace"), &object.namespace);
    if matches!(of.entrance, Entrance::Tls(_)) {
        line.text(name!("ingress"), &object.name);
    }
    line.text(name!("service"), &of.stream.backend.service);
    line.text(name!("service_port"), &of.stream.backend.port);
    line.word(name!("reason"), facts.ending.as_str());
    line.close();
}

/// Appends the default line of ingress-nginx:
///
/// `[$remote_addr] [$time_local] $protocol $status $bytes_sent $bytes_received $session_time`
pub(super) fn text(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let of = facts.stream;
    out.push(b'[');
    write_ip(out, of.client.ip());
    out.extend_from_slice(b"] [");
    clock.local(out, of.started_at);
    show(
        out,
        format_args!("] {} {} ", of.entrance.protocol(), facts.ending.status()),
    );
    for number in [facts.sent, facts.received] {
        write_number(out, size(number));
        out.push(b' ');
    }
    write_seconds(out, of.started.elapsed());
    out.push(b'\n');
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
