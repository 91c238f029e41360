//! What happens to a request, step by step: plain functions over `http` types and the
//! [`RequestContext`](crate::context::RequestContext). No engine is named in here, so that more than one can run them.

pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod deadline;
pub(crate) mod decide;
pub(crate) mod fields;
pub(crate) mod forwarding;
pub(crate) mod headers;
pub(crate) mod log;
pub(crate) mod original;
pub(crate) mod retry;
pub(crate) mod route;
mod session;
pub(crate) mod stand_in;
pub(crate) mod upstream;
