//! What a progress display knows: pure arithmetic over the library's [`Status`] values and a clock
//! given from outside.

use super::size;
use crate::progress::Status;
use std::fmt::Write;
use std::time::Duration;

/// How far one operation is. Nothing shown by it ever runs backwards.
#[derive(Clone, Debug)]
pub struct Gauge {
    title: String,
    unit: &'static str,
    interval: Duration,
    seen: Status,
    permille: Option<u16>,
    shown_at: Duration,
}

impl Gauge {
    /// A gauge at zero for an operation called `title` that counts `unit`s (a plural), with a line
    /// due after every `interval`.
    pub fn new(title: String, unit: &'static str, interval: Duration) -> Gauge {
        Gauge {
            title,
            unit,
            interval,
            seen: Status::default(),
            permille: None,
            shown_at: Duration::ZERO,
        }
    }

    /// Takes notice of `status`; numbers below what was seen before are left out.
    pub fn take(&mut self, status: &Status) {
        self.seen.items = self.seen.items.max(status.items);
        self.seen.bytes = self.seen.bytes.max(status.bytes);
        self.seen.object = status.object;
        self.seen.bytes_total = status.bytes_total;
        let permille = status.bytes_total.filter(|total| *total > 0).map(|total| {
            let share = u128::from(self.seen.bytes) * 1000 / u128::from(total);
            share.min(1000) as u16
        });
        self.permille = self.permille.max(permille);
    }

    /// Whether a line is due at `now` (counted from the start of the operation); if so, the next
    /// one is due an interval later.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.shown_at) >= self.interval;
        if due {
            self.shown_at = now;
        }
        due
    }

    /// Parts in a thousand done, where the end is known.
    pub fn permille(&self) -> Option<u16> {
        self.permille
    }

    /// The largest numbers seen.
    pub fn status(&self) -> &Status {
        &self.seen
    }

    /// One line: title, counts, share and rate at `now`.
    pub fn line(&self, now: Duration) -> String {
        let mut line = format!("{}: {} {}", self.title, self.seen.items, self.unit);
        if self.seen.bytes > 0 {
            // Writing into a string cannot fail.
            let _ = write!(line, ", {}", size::human(self.seen.bytes));
            if let (Some(total), Some(permille)) = (self.seen.bytes_total, self.permille) {
                let total = size::human(total.max(self.seen.bytes));
                let _ = write!(line, " of {total} ({} %)", permille / 10);
            }
            let millis = now.as_millis().max(1);
            let rate = u128::from(self.seen.bytes) * 1000 / millis;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            let _ = write!(line, ", {}/s", size::human(rate));
        }
        if self.seen.object != 0 {
            let _ = write!(line, ", object 0x{:016x}", self.seen.object);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gauge() -> Gauge {
        Gauge::new("check".into(), "nodes", Duration::from_secs(10))
    }

    #[test]
    fn a_line() {
        let mut gauge = gauge();
        assert_eq!(gauge.line(Duration::ZERO), "check: 0 nodes");
        gauge.take(&Status {
            items: 7,
            bytes: 3 << 20,
            bytes_total: Some(12 << 20),
            object: 0x1_0000_0001,
        });
        assert_eq!(
            gauge.line(Duration::from_secs(2)),
            "check: 7 nodes, 3.0 MiB of 12.0 MiB (25 %), 1.5 MiB/s, object 0x0000000100000001"
        );
    }

    #[test]
    fn lines_keep_their_distance() {
        let mut gauge = gauge();
        let due: Vec<u64> = (0..35)
            .filter(|s| gauge.is_due(Duration::from_secs(*s)))
            .collect();
        assert_eq!(due, [10, 20, 30]);
    }

    proptest! {
        #[test]
        fn nothing_runs_backwards(
            steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<u64>>()), 1..20)
        ) {
            let mut gauge = gauge();
            let mut before = (0, 0, None);
            for (items, bytes, bytes_total) in steps {
                gauge.take(&Status { items, bytes, bytes_total, object: 0 });
                let now = (gauge.status().items, gauge.status().bytes, gauge.permille());
                prop_assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2);
                prop_assert!(now.2.is_none_or(|p| p <= 1000));
                before = now;
                gauge.line(Duration::from_secs(1));
            }
        }
    }
}
