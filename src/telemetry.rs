//! What a running process reports about itself: logs, Prometheus metrics, and a feed of the hops of single updates.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::sync::broadcast;
use tracing_subscriber::EnvFilter;

use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::id::BotId;
use crate::redact::redact;

/// How many hops a slow subscriber may lag behind before it misses some.
const FEED_LIMIT: usize = 1_024;

/// Upper bounds of the latency histograms, in seconds.
const LATENCY_BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Sends log lines to stderr; `filter` is in the form of `RUST_LOG`.
///
/// # Errors
/// A configuration error when `filter` cannot be parsed.
pub fn start_logging(format: LogFormat, filter: Option<&str>) -> Result<()> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info"))
        .context(ErrorKind::Configuration, "RUST_LOG does not parse; write for example `info` or `lakegram=debug`")?;
    // Whoever logs a line never learns that it could not be written: a full log disk must not stop the service.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Unfailing(io::stderr()));
    let builder = builder.log_internal_errors(false).with_ansi(io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first subscriber.
    let _already_started = match format {
        LogFormat::Pretty => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A writer to which every write succeeds, and that no secret gets through; what cannot be written is lost.
#[derive(Debug)]
struct Unfailing<W>(W);

impl<W: Write> Write for Unfailing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All or nothing as far as possible: the rest of a broken line would only look like another line.
        let _lost = self.0.write_all(redact(&String::from_utf8_lossy(bytes)).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _lost = self.0.flush();
        Ok(())
    }
}

/// One step of one update, for those who watch it travel. Nothing depends on it.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The bot of the update.
    pub bot_id: BotId,
    /// The update.
    pub update_id: i64,
    /// The step: `bronze`, `asking`, `answered`, `silver`, `sending`, `replied`.
    pub step: &'static str,
    /// When it was done.
    pub at: Timestamp,
    /// A version, a status, a text: whatever is worth showing.
    pub detail: String,
}

/// The metrics of one process and its feed of hops. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    /// Existing metrics, by name, so that two pipelines share a metric.
    known: Arc<Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>>,
    feed: broadcast::Sender<Arc<Hop>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// An empty registry and a feed without subscribers.
    pub fn new() -> Self {
        Self { registry: Registry::new(), known: Arc::default(), feed: broadcast::Sender::new(FEED_LIMIT) }
    }

    /// Publishes a hop; only creates it if someone is watching.
    pub fn hop(&self, hop: impl FnOnce() -> Hop) {
        if self.feed.receiver_count() > 0 {
            // An error means that the last subscriber has just left.
            let _nobody_watches = self.feed.send(Arc::new(hop()));
        }
    }

    /// The hops from now on.
    pub fn watch_hops(&self) -> broadcast::Receiver<Arc<Hop>> {
        self.feed.subscribe()
    }

    /// A counter with this name; the existing one if there is one.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::new(name, help))
    }

    /// A family of counters with these label names. Labels are small closed sets, never ids.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of this name.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::new(name, help))
    }

    /// A family of gauges with these label names, as [`Self::counters`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram of latencies in seconds.
    pub fn latency(&self, name: &str, help: &str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_SECONDS.to_vec());
        self.registered(Histogram::with_opts(options))
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics could not be rendered");
        }
        let text = String::from_utf8(text).unwrap_or_default();
        text.split_inclusive('\n').map(without_secrets).collect()
    }

    /// Registers a metric, or returns the existing one with this name. Names are constants of this crate, so a failure
    /// is a mistake that tests catch.
    fn registered<M>(&self, made: prometheus::Result<M>) -> M
    where
        M: prometheus::core::Collector + Clone + Send + Sync + 'static,
    {
        #[allow(clippy::expect_used)]
        let metric = made.expect("metric names and labels are valid constants");
        let name = metric.desc().first().map(|desc| desc.fq_name.clone()).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = known.get(&name).and_then(|there| there.downcast_ref::<M>()) {
            return there.clone();
        }
        if let Err(error) = self.registry.register(Box::new(metric.clone())) {
            tracing::warn!(%error, name, "a metric is not shown");
        }
        known.insert(name, Box::new(metric.clone()));
        metric
    }
}

/// A line of metrics with its labels redacted. Names are constants.
fn without_secrets(line: &str) -> Cow<'_, str> {
    match (line.find('{'), line.rfind('}')) {
        (Some(begin), Some(end)) if begin < end && !line.starts_with('#') => {
            format!("{}{}{}", &line[..begin], redact(&line[begin..end]), &line[end..]).into()
        }
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_logged_nor_shown_as_a_label() {
        crate::redact::know("telemetry-canary-1");
        let mut lines = Vec::new();
        Unfailing(&mut lines).write_all(b"GET /?key=telemetry%2Dcanary-1\nnext").unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "GET /?key=***\nnext");
        let telemetry = Telemetry::new();
        telemetry.counters("telemetry_total", "c", &["of"]).with_label_values(&["telemetry-canary-1"]).inc();
        assert!(telemetry.render().contains("telemetry_total{of=\"***\"} 1\n"), "{}", telemetry.render());
    }

    #[test]
    fn metrics_render_as_prometheus_text() {
        let telemetry = Telemetry::new();
        telemetry.counter("lakegram_receive_updates_total", "updates").inc_by(3);
        assert!(telemetry.render().contains("lakegram_receive_updates_total 3"));
    }

    #[test]
    fn a_line_that_cannot_be_written_is_no_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let mut writer = Unfailing(Full);
        assert_eq!(writer.write(b"a line").unwrap(), 6);
        writer.flush().unwrap();
    }

    #[test]
    fn a_metric_made_twice_is_one() {
        let telemetry = Telemetry::new();
        telemetry.counter("lakegram_receive_updates_total", "updates").inc();
        telemetry.counter("lakegram_receive_updates_total", "updates").inc();
        assert!(telemetry.render().contains("lakegram_receive_updates_total 2"));
    }

    #[test]
    fn a_hop_nobody_watches_is_not_made() {
        Telemetry::new().hop(|| unreachable!("nobody watches"));
    }
}
