//! Medians, spreads and how they are written.

use std::fmt;
use std::time::Duration;

/// Times of single operations, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    micros: Vec<u32>,
}

impl Samples {
    pub(crate) fn push(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.micros.append(&mut other.micros);
    }

    pub(crate) fn count(&self) -> usize {
        self.micros.len()
    }

    /// The time that this part of them, from 0 to 1, does not exceed, in milliseconds; 0 without any.
    pub(crate) fn quantile_ms(&self, part: f64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        if sorted.is_empty() {
            return 0.0;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((sorted.len() - 1) as f64 * part).round() as usize;
        f64::from(sorted[index]) / 1_000.0
    }

    pub(crate) fn median_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }

    /// `median 0.31 ms, p99 1.2 ms`.
    pub(crate) fn text(&self) -> String {
        format!("median {:.2} ms, p99 {:.2} ms", self.median_ms(), self.quantile_ms(0.99))
    }
}

/// One figure of several rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    values: Vec<f64>,
}

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Rounds {
    /// `12,700 (12,300–13,100)`: the median and the spread.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lowest = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.values.iter().copied().fold(0.0, f64::max);
        write!(formatter, "{} ({}–{})", thousands(self.median()), thousands(lowest), thousands(highest))
    }
}

/// `12,700`; small figures keep two digits after the point.
pub(crate) fn thousands(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as MB, a million each.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
