//! The entries.

mod access;
mod authentication;
mod backend;
mod balance;
mod canary;
mod cors;
mod own;
mod raw;
mod responses;
mod routing;
mod transfer;

pub(crate) use self::transfer::{conditions, switch};
use super::Annotation;

pub(super) static GROUPS: [&[Annotation]; 13] = [
    routing::ROUTING,
    backend::BACKEND,
    transfer::TRANSFER,
    authentication::AUTHENTICATION,
    authentication::CERTIFICATES,
    access::ACCESS,
    cors::CORS,
    canary::CANARY,
    balance::AFFINITY,
    responses::RESPONSES,
    responses::TLS,
    raw::RAW,
    own::OWN,
];
