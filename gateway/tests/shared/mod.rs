//! What all tests over real sockets wait and count with.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time::timeout;

/// Longer than anything here may take, shorter than anybody wants to wait for a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where metrics are kept; forced before the first of them is made.
pub(crate) static METRICS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// The sum of a metric's series that have all of `labels` (`name="value"`).
pub(crate) fn counted(metric: &str, labels: &[&str]) -> f64 {
    METRICS
        .render()
        .lines()
        .filter(|line| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Fails the test if `future` takes too long.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let wait = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}
