//! A recorder for tests: keeps the last values by name and labels.

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What was recorded so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    counters: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    gauges: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    histograms: Arc<Mutex<BTreeMap<String, Arc<Samples>>>>,
    described: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Debug, Default)]
struct Samples(AtomicU64);

impl HistogramFn for Samples {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// `name{label=value,...}`, without the application.
fn text(key: &Key) -> String {
    let labels: Vec<String> = key
        .labels()
        .filter(|label| label.key() != "application")
        .map(|label| format!("{}={}", label.key(), label.value()))
        .collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Recorded {
    /// A counter's value; 0 where there is none.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        counters
            .get(name)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(crate) fn gauge(&self, name: &str) -> f64 {
        let gauges = self.gauges.lock().unwrap();
        let bits = gauges
            .get(name)
            .map_or(0, |gauge| gauge.load(Ordering::Relaxed));
        f64::from_bits(bits)
    }

    /// How many samples a histogram has.
    pub(crate) fn samples(&self, name: &str) -> u64 {
        let histograms = self.histograms.lock().unwrap();
        histograms
            .get(name)
            .map_or(0, |samples| samples.0.load(Ordering::Relaxed))
    }

    /// The names that were asked for, without labels.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        names.extend(self.counters.lock().unwrap().keys().cloned());
        names.extend(self.gauges.lock().unwrap().keys().cloned());
        names.extend(self.histograms.lock().unwrap().keys().cloned());
        let mut names: Vec<String> = names
            .iter()
            .map(|name| name.split('{').next().unwrap().to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The names that were described.
    pub(crate) fn described(&self) -> Vec<String> {
        self.described.lock().unwrap().keys().cloned().collect()
    }

    fn describe(&self, key: &KeyName, description: &SharedString) {
        let mut described = self.described.lock().unwrap();
        described.insert(key.as_str().to_owned(), description.to_string());
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        let counter = Arc::clone(counters.entry(text(key)).or_default());
        counter.as_ref().increment(0);
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(text(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(text(key)).or_default()))
    }
}
