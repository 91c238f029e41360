//! Lockgate's own histogram of how long changes take until they are in force.

use anyhow::{Context as _, Result};

use super::controller::Controller;

/// Counts up to the upper bound of each bucket, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Of a controller that has one.
    pub(super) async fn of(controller: &Controller) -> Result<Option<Self>> {
        match controller {
            Controller::Lockgate(lockgate) => {
                let page = lockgate.admin("/metrics").await?.body;
                Self::parse(&page).map(Some)
            }
            Controller::Traefik(_) => Ok(None),
        }
    }

    fn parse(page: &str) -> Result<Self> {
        let bucket = |line: &str| {
            let rest = line.strip_prefix("lockgate_publish_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        };
        let buckets: Vec<(f64, f64)> = page.lines().filter_map(bucket).collect();
        buckets.first().context("no histogram of tables")?;
        Ok(Self { buckets })
    }

    /// What has been counted since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| {
            let found = before.buckets.iter().find(|(other, _)| *other >= bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        let buckets = self.buckets.iter();
        Self {
            buckets: buckets
                .map(|&(bound, count)| (bound, count - earlier(bound)))
                .collect(),
        }
    }

    /// The value below which this share lies, in seconds, read off a straight line within its bucket.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let (_, all) = self.buckets.last()?;
        let wanted = all * share;
        let mut below = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= wanted && count > 0.0 {
                if bound.is_infinite() {
                    return Some(below.0);
                }
                let part = (wanted - below.1) / (count - below.1).max(1.0);
                return Some(below.0 + (bound - below.0) * part);
            }
            below = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
lockgate_publish_seconds_bucket{le=\"0.001\"} 10
lockgate_publish_seconds_bucket{le=\"0.005\"} 90
lockgate_publish_seconds_bucket{le=\"0.01\"} 100
lockgate_publish_seconds_bucket{le=\"+Inf\"} 100
lockgate_publish_seconds_sum 1
";

    #[test]
    fn a_quantile_is_read_off_within_its_bucket() {
        let histogram = Histogram::parse(PAGE).unwrap();
        let near = |share: f64, wanted: f64| {
            let read = histogram.quantile(share).unwrap();
            assert!(
                (read - wanted).abs() < 1e-9,
                "{share}: {read}, not {wanted}"
            );
        };
        near(0.5, 0.003);
        near(0.95, 0.0075);
        near(1.0, 0.01);
    }

    #[test]
    fn what_was_counted_before_is_left_out() {
        let before = Histogram::parse(PAGE).unwrap();
        assert_eq!(before.since(&before).quantile(0.99), None);
        let later = Histogram::parse(&PAGE.replace(" 100", " 110").replace(" 90", " 100")).unwrap();
        let bounds = later.since(&before).quantile(1.0).unwrap();
        assert!(bounds <= 0.005, "{bounds}");
    }

    #[test]
    fn a_page_without_it_is_an_error() {
        assert!(Histogram::parse("lockgate_build_info 1\n").is_err());
    }
}
