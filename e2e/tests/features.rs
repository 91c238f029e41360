//! One module per feature that a user sees. They share one API server and run one after another.
//!
//! Started by `e2e/cluster/run.sh`, with `--test-threads=1`.

mod features {
    mod admin;
    mod api_server;
    mod certificates;
    mod class;
    mod endpoints;
    mod events;
    mod install;
    mod leadership;
    mod serving;
    mod settings;
    mod shutdown;
    mod status;
}
