//! Where requests go: live state of endpoints, the choice of one, names that are resolved at run time.
//!
//! Nothing in here is part of a table: what is known about an endpoint outlives every swap.

mod budget;
mod health;
mod load;
mod registry;
mod resolver;
mod select;
mod session;
mod view;
mod wish;

pub use health::BackendState;
pub(crate) use health::{Checks, Limit, server_name};
pub use registry::EndpointState;
pub(crate) use registry::{EndpointRegistry, InFlight, now};
pub(crate) use resolver::{Resolver, Unresolved, is_permitted};
pub(crate) use select::Picker;
pub(crate) use session::{Session, Token};
pub(crate) use wish::{Place, Turn, Wish};
