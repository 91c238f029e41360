//! One module per feature, on a Kubernetes with nodes and pods in which Lockgate is installed as shipped. This program is
//! a client outside of it.
//!
//! Started by `e2e/cluster/run.sh`.

mod cluster {
    mod api_server;
    mod drain;
    mod leader;
    mod nodes;
    mod rollout;
    mod scale;
    mod upgrade;
}
