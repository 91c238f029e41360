//! Where requests go: live state of endpoints, the choice of one, names that are resolved at run time.
//!
//! Nothing in here is part of a table: what is known about an endpoint outlives every swap.

mod budget;
mod health;
mod registry;
mod resolver;
mod ring;
mod select;
mod session;

pub use health::BackendState;
pub(crate) use health::{Checks, Limit, server_name};
pub use registry::EndpointState;
pub(crate) use registry::{EndpointRegistry, InFlight, now};
pub(crate) use resolver::{Resolver, Unresolved, is_permitted};
pub(crate) use ring::place;
pub(crate) use select::{Picker, Turn, Wish};
pub(crate) use session::{Session, Token};
