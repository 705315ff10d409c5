//! Latencies in a few kilobytes: 128 steps per power of two, so a figure is right to 0.8 %.

use std::time::Duration;

const STEP_BITS: u32 = 7;
const STEPS: u64 = 1 << STEP_BITS;

/// Counts durations; memory does not grow.
#[derive(Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; (64 - STEP_BITS as usize + 1) << STEP_BITS],
            total: 0,
            max_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(ns)] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The duration that a `share` (0 to 1) of the counted ones do not exceed; zero when empty.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let rank = (share * to_f64(self.total)).ceil().max(1.0);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if to_f64(seen) >= rank {
                return to_f64(middle(index).min(self.max_ns)) / 1000.0;
            }
        }
        0.0
    }

    /// The longest duration, exactly.
    pub fn max_us(&self) -> f64 {
        to_f64(self.max_ns) / 1000.0
    }

    /// Durations counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

fn slot(ns: u64) -> usize {
    let shift = (64 - STEP_BITS).saturating_sub(ns.leading_zeros() + 1);
    // Values of one power of two share a shift; the top bits below it choose the step.
    usize::try_from((u64::from(shift) << STEP_BITS) + (ns >> shift)).unwrap_or(usize::MAX)
}

fn middle(slot: usize) -> u64 {
    let slot = slot as u64;
    if slot < 2 * STEPS {
        return slot;
    }
    let shift = (slot >> STEP_BITS) - 1;
    let value = slot - (shift << STEP_BITS);
    (value << shift) + (1 << shift >> 1)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds stay far below 2^53"
)]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_near_the_middle_of_its_slot() {
        let mut last = 0;
        for exponent in 0..63 {
            for value in [
                1u64 << exponent,
                (1 << exponent) + (1 << exponent >> 1),
                (2 << exponent) - 1,
            ] {
                let slot = slot(value);
                assert!(slot >= last, "slots grow with the value");
                last = slot;
                let error = to_f64(middle(slot).abs_diff(value)) / to_f64(value);
                assert!(error < 0.008, "{value} is shown as {}", middle(slot));
            }
        }
        assert!(slot(u64::MAX) < Histogram::default().counts.len());
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.add(Duration::from_micros(us));
        }
        assert!((histogram.quantile_us(0.5) - 500.0).abs() < 5.0);
        assert!((histogram.quantile_us(0.99) - 990.0).abs() < 9.0);
        assert!((histogram.max_us() - 1000.0).abs() < f64::EPSILON);
        assert!(Histogram::default().quantile_us(0.5).abs() < f64::EPSILON);
    }
}
