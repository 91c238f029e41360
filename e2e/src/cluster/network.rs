//! The network of a cluster: namespaces joined by a router, which is the namespace that all of this runs in. Nothing
//! leads to the machine's own network.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::tool;

/// The router's address on the network of the nodes; the control plane listens on it.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where the clients are: outside the cluster, behind the router.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The network namespace of the clients.
pub const CLIENT_NAMESPACE: &str = "client";

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A node's place in the network.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Of the node, and of its network namespace.
    pub name: &'static str,
    /// The node's address.
    pub address: Ipv4Addr,
    /// The network of its pods.
    pub pods: &'static str,
    /// The zone that it is in.
    pub zone: &'static str,
}

/// All nodes.
pub const NODES: [Place; 2] = [
    Place {
        name: "node-1",
        address: Ipv4Addr::new(198, 51, 100, 11),
        pods: "10.244.1.0/24",
        zone: "a",
    },
    Place {
        name: "node-2",
        address: Ipv4Addr::new(198, 51, 100, 12),
        pods: "10.244.2.0/24",
        zone: "b",
    },
];

/// Settings of every namespace that forwards. Closed connections must not fill the table of connections: a load test
/// opens thousands per second.
const FORWARDING: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
];

/// Makes everything, in the network namespace that this program runs in.
pub(super) fn build() -> Result<()> {
    // The table of connections exists from the first rule on that asks for it.
    let tracking = "table ip lockgate-e2e { chain forward { type filter hook forward priority 0; ct state invalid accept; }; }";
    tool::run("nft", &["-f", "-"], tracking).context("nftables with connection tracking")?;
    forward(None)?;
    ip(&format!(
        "link set lo up\n\
         link add lan0 type bridge\n\
         address add {CONTROL_PLANE}/24 dev lan0\n\
         link set lan0 up\n"
    ))?;
    for node in NODES {
        let Place {
            name,
            address,
            pods,
            ..
        } = node;
        namespace(name, "lan0", address, CONTROL_PLANE)?;
        tool::run(
            "nsenter",
            &[&in_namespace(name), "nft", "-f", "-"],
            tracking,
        )?;
        forward(Some(name))?;
        ip(&format!("route add {pods} via {address}\n"))?;
    }
    namespace(CLIENT_NAMESPACE, "", CLIENT, GATEWAY)?;
    ip(&format!(
        "address add {GATEWAY}/24 dev to-{CLIENT_NAMESPACE}\n"
    ))
}

/// The option of `nsenter` that leads into a network namespace.
pub(super) fn in_namespace(name: &str) -> String {
    format!("--net=/run/netns/{name}")
}

/// A namespace with `eth0`, whose other end is `to-NAME` in the router, on its bridge where one is named.
fn namespace(name: &str, bridge: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    let bridged = if bridge.is_empty() {
        String::new()
    } else {
        format!("link set to-{name} master {bridge}\n")
    };
    ip(&format!(
        "netns add {name}\n\
         link add to-{name} type veth peer name eth0 netns {name}\n\
         {bridged}\
         link set to-{name} up\n"
    ))?;
    tool::run(
        "ip",
        &["-netns", name, "-batch", "-"],
        &format!(
            "link set lo up\n\
             address add {address}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {gateway}\n"
        ),
    )?;
    Ok(())
}

fn ip(commands: &str) -> Result<()> {
    tool::run("ip", &["-batch", "-"], commands).map(drop)
}

/// Lets a namespace forward. What is below `/proc/sys/net` belongs to the namespace of who writes it.
fn forward(namespace: Option<&str>) -> Result<()> {
    let script = FORWARDING
        .map(|(setting, value)| format!("echo {value} >/proc/sys/{setting}\n"))
        .concat();
    match namespace {
        Some(name) => tool::run("nsenter", &[&in_namespace(name), "sh", "-e"], &script),
        None => tool::run("sh", &["-e"], &script),
    }
    .map(drop)
}
