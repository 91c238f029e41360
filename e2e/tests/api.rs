//! One module per feature that an API server alone can show: no pod runs, `lockgate` is a process. They share one API
//! server and run one after another.
//!
//! Started by `e2e/cluster/run.sh api`, with `--test-threads=1`.

mod api {
    mod admin;
    mod admission;
    mod api_server;
    mod cases;
    mod certificates;
    mod endpoints;
    mod events;
    mod guide;
    mod headers;
    mod install;
    mod migrate;
    mod policies;
    mod serving;
    mod settings;
    mod shutdown;
    mod status;
    mod streams;
}
