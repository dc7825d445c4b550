//! What a run found out.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies of up to a minute, in nanoseconds with three digits. Recording is to saturate: an answer after more
/// than a minute is as bad as one after a minute.
pub(crate) fn empty_histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)
}

/// The percentiles of latency that are told: of which a distribution is drawn.
const PERCENTILES: [f64; 14] = [
    0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0,
];

/// The figures of the measured window.
pub(crate) struct Report {
    /// Right answers that were complete within the window.
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// From the first byte sent to the last byte received, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// CPU time that the server used in the window.
    pub(crate) server_cpu: Option<Duration>,
    /// Wrong answers and lost connections of the whole run, warm-up included, for a person.
    pub(crate) errors: Vec<String>,
}

impl Report {
    /// Whether every answer was right, and there was one.
    pub(crate) fn is_good(&self) -> bool {
        self.errors.is_empty() && self.requests > 0
    }

    pub(crate) fn first_error(&self) -> Option<&str> {
        match self.errors.first() {
            Some(error) => Some(error),
            None if self.requests == 0 => Some("no answer came"),
            None => None,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let microseconds = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        let cpu = match self.server_cpu {
            Some(cpu) if self.requests > 0 => {
                format!("{:.3}", cpu.as_secs_f64() * 1e6 / self.requests as f64)
            }
            _ => String::from("null"),
        };
        let percentiles = PERCENTILES.map(|percentile| {
            let latency = microseconds(percentile / 100.0);
            format!("[{percentile}, {latency:.1}]")
        });
        format!(
            "{{\"requests\": {}, \"seconds\": {seconds:.6}, \"requests_per_second\": {:.1}, \"p50_us\": {:.1}, \
             \"p99_us\": {:.1}, \"server_cpu_us_per_request\": {cpu}, \"errors\": {}, \"percentiles_us\": [{}]}}",
            self.requests,
            self.requests as f64 / seconds,
            microseconds(0.50),
            microseconds(0.99),
            self.errors.len(),
            percentiles.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(requests: u64) -> Report {
        let mut latency = empty_histogram().expect("valid bounds");
        for microseconds in 1..=requests {
            latency.saturating_record(microseconds * 1000);
        }
        Report {
            requests,
            elapsed: Duration::from_secs(2),
            latency,
            server_cpu: None,
            errors: Vec::new(),
        }
    }

    #[test]
    fn figures_are_those_of_the_window() {
        let mut report = report(100);
        report.server_cpu = Some(Duration::from_millis(1));
        assert_eq!(
            report.to_json(),
            "{\"requests\": 100, \"seconds\": 2.000000, \"requests_per_second\": 50.0, \"p50_us\": 50.0, \
             \"p99_us\": 99.0, \"server_cpu_us_per_request\": 10.000, \"errors\": 0, \"percentiles_us\": [[0, 1.0], \
             [1, 1.0], [5, 5.0], [10, 10.0], [25, 25.0], [50, 50.0], [75, 75.0], [90, 90.0], [95, 95.0], [99, 99.0], [99.5, 100.0], \
             [99.9, 100.0], [99.99, 100.0], [100, 100.0]]}"
        );
        assert!(report.is_good());
    }

    #[test]
    fn silence_and_wrong_answers_are_bad() {
        assert!(!report(0).is_good());
        let mut report = report(1);
        report.errors.push(String::from("wrong"));
        assert!(!report.is_good());
        assert_eq!(report.first_error(), Some("wrong"));
    }
}
