//! How much a backend may have to do at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::BackendLimits;

use super::group::Group;

/// Why there is no place for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    /// The backend has enough requests.
    Requests,
    /// Enough requests wait for a connection to the backend.
    Pending,
    /// The endpoint has enough requests.
    Endpoint,
}

impl Limit {
    /// The reason in log and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "backend-requests-limited",
            Self::Pending => "backend-pending-limited",
            Self::Endpoint => "endpoint-requests-limited",
        }
    }
}

/// What requests of a backend with limits have taken.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) requests: AtomicU32,
    pub(super) pending: AtomicU32,
    pub(super) refused_requests: AtomicU64,
    pub(super) refused_pending: AtomicU64,
    pub(super) refused_endpoint: AtomicU64,
}

impl Usage {
    /// Counts a request that found no place.
    pub(super) fn refused(&self, limit: Limit) {
        let counter = match limit {
            Limit::Requests => &self.refused_requests,
            Limit::Pending => &self.refused_pending,
            Limit::Endpoint => &self.refused_endpoint,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The place of a request among those of its backend; dropping it gives it back.
#[derive(Debug)]
pub(in crate::upstream) struct Place {
    group: Arc<Group>,
    requests: bool,
    pending: bool,
}

impl Place {
    /// A place for a request that has no connection yet, if there is one.
    pub(in crate::upstream) fn take(
        group: &Arc<Group>,
        limits: &BackendLimits,
    ) -> Result<Option<Self>, Limit> {
        if limits.requests == 0 && limits.pending == 0 {
            return Ok(None);
        }
        let mut place = Self {
            group: Arc::clone(group),
            requests: false,
            pending: false,
        };
        // What has been taken goes with the place where the rest is refused.
        place.requests = take(&group.usage().requests, limits.requests).ok_or(Limit::Requests)?;
        place.pending = take(&group.usage().pending, limits.pending).ok_or(Limit::Pending)?;
        Ok(Some(place))
    }

    /// There is a connection.
    pub(in crate::upstream) fn connected(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.group.usage().pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connected();
        if self.requests {
            self.group.usage().requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Takes one of `most`. Says whether that was counted: 0 is no limit.
fn take(count: &AtomicU32, most: u32) -> Option<bool> {
    if most == 0 {
        return Some(false);
    }
    take_one(count, most).then_some(true)
}

/// Counts one more, unless there are `most`.
pub(in crate::upstream) fn take_one(count: &AtomicU32, most: u32) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < most).then(|| taken.saturating_add(1))
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(group: &Group) -> (u32, u32) {
        let usage = group.usage();
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        (of(&usage.requests), of(&usage.pending))
    }

    #[test]
    fn a_refusal_leaves_nothing_behind() {
        let group = Arc::new(Group::new());
        let limits = BackendLimits {
            requests: 3,
            pending: 1,
            requests_per_endpoint: 0,
        };
        let mut first = Place::take(&group, &limits).unwrap().unwrap();
        assert_eq!(Place::take(&group, &limits).unwrap_err(), Limit::Pending);
        assert_eq!(counts(&group), (1, 1));
        first.connected();
        first.connected();
        assert_eq!(counts(&group), (1, 0));
        let mut second = Place::take(&group, &limits).unwrap().unwrap();
        second.connected();
        let third = Place::take(&group, &limits).unwrap().unwrap();
        assert_eq!(Place::take(&group, &limits).unwrap_err(), Limit::Requests);
        assert_eq!(counts(&group), (3, 1));
        drop((first, second, third));
        assert_eq!(counts(&group), (0, 0));
        let none = BackendLimits::default();
        assert!(Place::take(&group, &none).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_places_whatever_the_limits_become(
            events in prop::collection::vec((0..4_u8, 0..4_u32, 0..4_u32), 0..200),
        ) {
            let group = Arc::new(Group::new());
            let mut places: Vec<(Place, bool)> = Vec::new();
            for (event, requests, pending) in events {
                match (event, places.is_empty()) {
                    (0 | 1, _) | (_, true) => {
                        let limits = BackendLimits { requests, pending, requests_per_endpoint: 0 };
                        if let Ok(Some(place)) = Place::take(&group, &limits) {
                            places.push((place, false));
                        }
                    }
                    (2, false) => {
                        let (place, connected) = places.last_mut().unwrap();
                        place.connected();
                        *connected = true;
                    }
                    (_, false) => drop(places.remove(0)),
                }
                let counted = places.iter().filter(|(place, _)| place.requests).count();
                let waiting = places.iter().filter(|(place, _)| place.pending).count();
                prop_assert!(places.iter().all(|(place, connected)| !(*connected && place.pending)));
                let (counted, waiting) = (u32::try_from(counted).unwrap(), u32::try_from(waiting).unwrap());
                prop_assert_eq!(counts(&group), (counted, waiting));
            }
            drop(places);
            prop_assert_eq!(counts(&group), (0, 0));
        }
    }
}
