//! Which endpoints may be chosen now.
//!
//! An endpoint gives way to the others while connections to it fail, while it is ejected because it did not answer, and
//! while it fails the checks of its health. All of that is a [`Condition`] of the endpoint; what bounds it is a
//! [`Group`] for its backend. Nothing in here takes a lock.

mod checks;
mod condition;
mod group;
mod limits;
mod probe;
#[cfg(test)]
mod tests;

pub(crate) use checks::Checks;
pub(super) use condition::Condition;
pub use group::BackendState;
pub(super) use group::Group;
pub(crate) use limits::Limit;
pub(super) use limits::{Place, take_one};
pub(crate) use probe::server_name;
