//! The bandwidth ceiling (`-b`), and the clock that it and the time limit (`-t`) go by.
//!
//! The original spends a budget of one second at a time (mirroring.md §9.3); here bytes are spread
//! evenly, in portions of a twentieth of a second.

use std::time::Duration;

/// What time it is, and waiting. Time enters the library only through this.
pub trait Clock {
    /// Time since some fixed moment; never goes backwards.
    fn now(&mut self) -> Duration;

    /// Lets this much time pass.
    fn sleep(&mut self, time: Duration);
}

impl<C: Clock + ?Sized> Clock for &mut C {
    fn now(&mut self) -> Duration {
        (**self).now()
    }
    fn sleep(&mut self, time: Duration) {
        (**self).sleep(time);
    }
}

/// How much may be caught up after a stall or a sleep that lasted too long.
const CREDIT: Duration = Duration::from_millis(250);
/// Portions a second.
const PORTIONS: u64 = 20;
const NANOS: u128 = 1_000_000_000;

/// Spreads bytes over time so that they stay below a rate.
///
/// It is a token bucket, kept as the moment at which everything let through so far would have left
/// a line of exactly that rate.
#[derive(Clone, Debug)]
pub struct Throttle {
    rate: u64,
    /// When the line is free again, in nanoseconds; `None` before the first byte.
    free: Option<u128>,
    /// What dividing by the rate left over, in nanoseconds × bytes/s.
    rest: u128,
}

impl Throttle {
    /// A ceiling of `rate` bytes a second; 0 is taken as 1.
    pub fn new(rate: u64) -> Throttle {
        Throttle {
            rate: rate.max(1),
            free: None,
            rest: 0,
        }
    }

    /// The most bytes to be written in one go.
    pub fn portion(&self) -> usize {
        usize::try_from((self.rate / PORTIONS).max(1)).unwrap_or(usize::MAX)
    }

    /// How long to wait before the next portion.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let now = now.as_nanos();
        // A line idle for long does not save up its idle time.
        let floor = match self.free {
            None => now,
            Some(_) => now.saturating_sub(CREDIT.as_nanos()),
        };
        let free = self.free.unwrap_or(0).max(floor);
        self.free = Some(free);
        let wait = free.saturating_sub(now);
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Takes notice of `bytes` written.
    pub fn spent(&mut self, bytes: usize) {
        let rate = u128::from(self.rate);
        let owed = bytes as u128 * NANOS + self.rest;
        self.rest = owed % rate;
        self.free = Some(self.free.unwrap_or(0).saturating_add(owed / rate));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A clock that only sleeping moves, and that oversleeps.
    pub(crate) struct Virtual {
        pub now: Duration,
        pub late: Duration,
    }

    impl Virtual {
        pub(crate) fn new() -> Virtual {
            Virtual {
                now: Duration::from_secs(1000),
                late: Duration::ZERO,
            }
        }
    }

    impl Clock for Virtual {
        fn now(&mut self) -> Duration {
            self.now
        }
        fn sleep(&mut self, time: Duration) {
            self.now += time + self.late;
        }
    }

    /// Bytes that pass in 30 s if writers always have `chunk` bytes at hand.
    fn passed(rate: u64, chunk: usize, late: Duration) -> u64 {
        let mut clock = Virtual::new();
        clock.late = late;
        let end = clock.now + Duration::from_secs(30);
        let mut throttle = Throttle::new(rate);
        let mut bytes = 0;
        loop {
            let wait = throttle.wait(clock.now());
            if !wait.is_zero() {
                clock.sleep(wait);
            }
            if clock.now() >= end {
                return bytes;
            }
            let n = chunk.min(throttle.portion());
            throttle.spent(n);
            bytes += n as u64;
        }
    }

    proptest! {
        #[test]
        fn rate_is_kept_within_two_percent(
            rate in 20_000u64..4_000_000_000,
            chunk in 1usize..4096,
            late in 0u64..100,
        ) {
            // Few writes a second, or the test takes too long.
            let chunk = chunk.max((rate / 5000) as usize);
            let bytes = passed(rate, chunk, Duration::from_millis(late)) as f64;
            let wanted = rate as f64 * 30.0;
            prop_assert!((bytes / wanted - 1.0).abs() < 0.02, "{bytes} of {wanted}");
        }
    }

    #[test]
    fn slow_lines_move_byte_by_byte() {
        let bytes = passed(3, 100, Duration::ZERO);
        assert!((89..=91).contains(&bytes), "{bytes} of 90");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut throttle = Throttle::new(1000);
        let mut now = Duration::from_secs(5);
        assert_eq!(throttle.wait(now), Duration::ZERO);
        throttle.spent(50);
        now += Duration::from_secs(60);
        let mut burst = 0;
        while throttle.wait(now).is_zero() {
            throttle.spent(50);
            burst += 50;
        }
        assert!(
            burst <= 300,
            "{burst} bytes at once after a minute of silence"
        );
    }
}
