//! One module per feature, on a Kubernetes with nodes and pods in which Lockgate is installed as shipped. This program is
//! a client outside of it.
//!
//! Started by `e2e/cluster/run.sh`.

mod cluster {
    mod admin;
    mod api_server;
    mod baseline;
    mod certificates;
    mod class;
    mod conformance;
    mod drain;
    mod events;
    mod faults;
    mod gateway_policies;
    mod grants;
    mod leader;
    mod namespaces;
    mod nodes;
    mod policies;
    mod protocols;
    mod rollout;
    mod scale;
    mod status;
    mod upgrade;
}
