//! Histograms for the `metrics` facade that count a sample where it belongs at once.
//!
//! The recorder of `metrics-exporter-prometheus` keeps every sample, with its time, until it puts them in order. Requests
//! are counted in four histograms each, so that megabytes per second would go through the caches of the processor.
//! Counters and gauges stay with that recorder.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString,
    Unit,
};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use crate::expiry::escaped;

/// The upper bounds of the buckets of a histogram, in ascending order.
pub(crate) type Bounds = &'static [f64];

/// The bounds of histograms with these names.
pub(crate) type OwnBounds = &'static [(&'static str, Bounds)];

/// As many bounds as a histogram may have: with the bucket above them and the sum, it fits into three cache lines.
pub(crate) const MOST_BOUNDS: usize = 20;

/// All histograms.
#[derive(Debug)]
pub(crate) struct Histograms {
    own: OwnBounds,
    others: fn(&str) -> Bounds,
    families: RwLock<BTreeMap<String, Family>>,
}

/// The histograms of one name.
#[derive(Debug, Default)]
struct Family {
    help: Option<SharedString>,
    series: HashMap<Key, Arc<Series>>,
}

/// One histogram.
#[derive(Debug)]
struct Series {
    bounds: Bounds,
    /// The bits of an `f64`.
    sum: AtomicU64,
    /// How many samples were above the bound before and not above this one; after the last bound, how many were above it.
    counts: [AtomicU64; MOST_BOUNDS + 1],
}

/// One histogram, and its labels as text.
type Labelled = (String, Arc<Series>);

impl Series {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            sum: AtomicU64::new(0.0_f64.to_bits()),
            counts: [const { AtomicU64::new(0) }; MOST_BOUNDS + 1],
        }
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // It is always changed in the end.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Histograms {
    /// None yet. A histogram has its own bounds or those that `others` tells by its name; what is beyond [`MOST_BOUNDS`]
    /// is left out.
    pub(crate) fn new(own: OwnBounds, others: fn(&str) -> Bounds) -> Self {
        Self {
            own,
            others,
            families: RwLock::default(),
        }
    }

    fn describe(&self, name: &str, help: SharedString) {
        let mut families = self
            .families
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        families.entry(name.to_owned()).or_default().help = Some(help);
    }

    fn register(&self, key: &Key) -> Arc<Series> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let known = families
            .get(key.name())
            .and_then(|family| family.series.get(key));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        drop(families);
        let mut families = self
            .families
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(key.name().to_owned()).or_default();
        let series = family.series.entry(key.clone()).or_insert_with(|| {
            let own = self.own.iter().find(|(name, _)| *name == key.name());
            let bounds = own.map_or_else(|| (self.others)(key.name()), |(_, bounds)| bounds);
            Arc::new(Series::new(bounds.get(..MOST_BOUNDS).unwrap_or(bounds)))
        });
        Arc::clone(series)
    }

    /// Writes all of them in the text format of Prometheus.
    fn render(&self, text: &mut String) {
        for (name, help, mut all) in self.snapshot() {
            // Writing to a text does not fail.
            if let Some(help) = help {
                let help = help.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} histogram");
            all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            for (labels, series) in all {
                write_series(text, &name, &labels, &series);
            }
            text.push('\n');
        }
    }

    /// All that have something to tell: nobody waits for a lock while they are written.
    fn snapshot(&self) -> Vec<(String, Option<SharedString>, Vec<Labelled>)> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let families = families.iter();
        let used = families.filter(|(_, family)| !family.series.is_empty());
        used.map(|(name, family)| {
            let series = family.series.iter();
            let series = series.map(|(key, series)| (labels(key.labels()), Arc::clone(series)));
            (name.clone(), family.help.clone(), series.collect())
        })
        .collect()
    }
}

fn write_series(text: &mut String, name: &str, labels: &str, series: &Series) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    let mut counts = series
        .counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed));
    for (bound, inside) in series.bounds.iter().zip(&mut counts) {
        count += inside;
        let _ = writeln!(
            text,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        );
    }
    count += counts.next().unwrap_or(0);
    let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let sum = f64::from_bits(series.sum.load(Ordering::Relaxed));
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    let _ = writeln!(
        text,
        "{name}_sum{labels} {sum}\n{name}_count{labels} {count}"
    );
}

fn labels<'k>(labels: impl Iterator<Item = &'k Label>) -> String {
    let mut text = String::new();
    for label in labels {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{}=\"{}\"", label.key(), escaped(label.value()));
    }
    text
}

/// All metrics of this process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    others: PrometheusHandle,
    histograms: Arc<Histograms>,
}

impl Metrics {
    /// What is recorded by a recorder, and the recorder.
    pub(crate) fn new(others: PrometheusRecorder, histograms: Histograms) -> (Self, impl Recorder) {
        let histograms = Arc::new(histograms);
        let metrics = Self {
            others: others.handle(),
            histograms: Arc::clone(&histograms),
        };
        (metrics, Split { others, histograms })
    }

    /// All of them, in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let mut text = self.others.render();
        self.histograms.render(&mut text);
        text
    }
}

/// Sends histograms one way and the rest the other.
struct Split {
    others: PrometheusRecorder,
    histograms: Arc<Histograms>,
}

impl Recorder for Split {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, help: SharedString) {
        self.histograms.describe(name.as_str(), help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.register(key))
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const BOUNDS: Bounds = &[0.5, 1.0, 2.5];

    fn rendered(record: impl FnOnce()) -> String {
        let others = PrometheusBuilder::new().build_recorder();
        let (metrics, recorder) =
            Metrics::new(others, Histograms::new(&[("short", &[1.0])], |_| BOUNDS));
        with_local_recorder(&recorder, record);
        metrics.render()
    }

    #[test]
    fn a_sample_counts_in_every_bucket_that_it_is_not_above() {
        let text = rendered(|| {
            metrics::describe_histogram!("took_seconds", "How long\nit \\ took.");
            for sample in [0.25, 0.5, 0.75, 2.5, 100.0] {
                histogram!("took_seconds").record(sample);
            }
        });
        let want = "# HELP took_seconds How long\\nit \\\\ took.\n\
             # TYPE took_seconds histogram\n\
             took_seconds_bucket{le=\"0.5\"} 2\n\
             took_seconds_bucket{le=\"1\"} 3\n\
             took_seconds_bucket{le=\"2.5\"} 4\n\
             took_seconds_bucket{le=\"+Inf\"} 5\n\
             took_seconds_sum 104\n\
             took_seconds_count 5\n\n";
        assert_eq!(text, want);
    }

    #[test]
    fn labels_make_series_and_are_escaped() {
        let text = rendered(|| {
            histogram!("size_bytes", "host" => "a", "path" => "/\"x\\y\n").record(1.0);
            histogram!("size_bytes", "host" => "b").record(2.0);
            histogram!("size_bytes", "host" => "b").record_many(3.0, 2);
            histogram!("short").record(1.5);
            counter!("seen_total").increment(1);
        });
        for line in [
            "size_bytes_bucket{host=\"a\",path=\"/\\\"x\\\\y\\n\",le=\"1\"} 1\n",
            "size_bytes_bucket{host=\"b\",le=\"2.5\"} 1\n",
            "size_bytes_sum{host=\"b\"} 8\n",
            "size_bytes_count{host=\"b\"} 3\n",
            "short_bucket{le=\"1\"} 0\nshort_bucket{le=\"+Inf\"} 1\n",
            "seen_total 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn what_is_described_and_never_recorded_is_not_listed() {
        let text = rendered(|| metrics::describe_histogram!("took_seconds", "How long it took."));
        assert_eq!(text, "");
    }

    #[test]
    fn samples_of_several_threads_are_all_counted() {
        let series = Arc::new(Series::new(BOUNDS));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let series = Arc::clone(&series);
                std::thread::spawn(move || (0..10_000).for_each(|_| series.record(2.0)))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut text = String::new();
        write_series(&mut text, "x", "", &series);
        assert!(text.ends_with("x_sum 80000\nx_count 40000\n"), "{text}");
    }
}
