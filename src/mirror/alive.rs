//! Telling an end that is slow from one that is gone: where both ends of a session have announced it,
//! each says ALIVE when it would be silent for long, while it applies or flushes, scans or waits for
//! changes. Time comes in as values, from any start.

use crate::format::mrecord::{self, Capabilities};
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An end that has been silent for so long says that it is alive.
pub const EVERY: Duration = Duration::from_secs(1);
/// So much patience is the least with an end that does: its machine may be busy.
pub const LEAST: Duration = Duration::from_secs(3);

/// The way to the other end, for who writes to it and for whoever keeps it from being silent: copies
/// are the same way.
///
/// Whoever writes calls `flush` behind whole records, and only there: between two flushes nothing else
/// is said.
pub struct Pulse<W>(Arc<Mutex<Voice<W>>>);

impl<W> Clone for Pulse<W> {
    fn clone(&self) -> Pulse<W> {
        Pulse(Arc::clone(&self.0))
    }
}

struct Voice<W> {
    out: W,
    /// Both ends have announced it.
    agreed: bool,
    /// Nothing but whole records was said.
    whole: bool,
    /// Something was said since the last beat.
    spoke: bool,
    /// The last beat after something was said.
    last: Option<Duration>,
}

impl<W: Write> Pulse<W> {
    /// A way that leads to `out`.
    pub fn new(out: W) -> Pulse<W> {
        Pulse(Arc::new(Mutex::new(Voice {
            out,
            agreed: false,
            whole: true,
            spoke: false,
            last: None,
        })))
    }

    fn voice(&self) -> MutexGuard<'_, Voice<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of what both ends can do: ALIVE is said only where it was announced.
    pub fn agreed(&self, what: Capabilities) {
        self.voice().agreed = what.has(Capabilities::ALIVE);
    }

    /// Says ALIVE if nothing was said for [`EVERY`] up to `now`, and `out` is `ready` to take it at
    /// once; says whether it did. Errors: those of `out`. To be called some times within [`EVERY`].
    pub fn beat(&self, now: Duration, ready: impl FnOnce(&W) -> bool) -> io::Result<bool> {
        // Whoever holds it is saying something.
        let Ok(mut voice) = self.0.try_lock() else {
            return Ok(false);
        };
        let last = match (voice.last, voice.spoke) {
            (Some(last), false) => last,
            _ => now,
        };
        (voice.last, voice.spoke) = (Some(last), false);
        let due = now.saturating_sub(last) >= EVERY;
        if !due || !voice.agreed || !voice.whole || !ready(&voice.out) {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        mrecord::append_alive(&mut bytes);
        voice.last = Some(now);
        voice.out.write_all(&bytes)?;
        voice.out.flush()?;
        Ok(true)
    }
}

impl<W: Write> Write for Pulse<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut voice = self.voice();
        (voice.spoke, voice.whole) = (true, false);
        voice.out.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut voice = self.voice();
        (voice.spoke, voice.whole) = (true, false);
        voice.out.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut voice = self.voice();
        voice.whole = true;
        voice.out.flush()
    }
}

/// How long the other end may be silent.
///
/// An end that says ALIVE may never be silent for long. One that does not, as the original's, is silent
/// for as long as it has nothing to say: it counts only while it owes something.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    most: Option<Duration>,
    alive: bool,
    owed: bool,
    /// Since when it is silent, or owes something.
    since: Duration,
}

impl Patience {
    /// With an end that may be silent for at most so long (`None`: for ever), from `now` on.
    pub fn new(most: Option<Duration>, now: Duration) -> Patience {
        Patience {
            most,
            alive: false,
            owed: false,
            since: now,
        }
    }

    /// Takes notice of what both ends can do.
    pub fn agreed(&mut self, what: Capabilities, now: Duration) {
        self.alive = what.has(Capabilities::ALIVE);
        self.since = self.since.max(now);
    }

    /// The other end owes something from `now` on, or does not any more.
    pub fn owed(&mut self, owed: bool, now: Duration) {
        if owed && !self.owed {
            self.since = self.since.max(now);
        }
        self.owed = owed;
    }

    /// Something was heard of it, or it is listened to again: what it said meanwhile is yet to be read.
    pub fn heard(&mut self, now: Duration) {
        self.since = self.since.max(now);
    }

    /// Whether it has been silent for too long.
    pub fn is_over(&self, now: Duration) -> bool {
        let Some(most) = self.most else {
            return false;
        };
        let most = if self.alive { most.max(LEAST) } else { most };
        (self.alive || self.owed) && now.saturating_sub(self.since) >= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mrecord::Kind;
    use crate::mirror::wire::Records;
    use proptest::prelude::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_broken_between_records_only() {
        let mut pulse = Pulse::new(Vec::new());
        let mut record = Vec::new();
        mrecord::append_mark(&mut record, Kind::Sync);
        let beat = |pulse: &Pulse<Vec<u8>>, at: u32| pulse.beat(SEC * at, |_| true).unwrap();
        for at in 0..5 {
            assert!(!beat(&pulse, at), "not announced");
        }
        pulse.agreed(Capabilities::ALIVE);
        assert!(beat(&pulse, 5));
        assert!(!beat(&pulse, 5), "just said");
        assert!(!pulse.beat(SEC * 9, |_| false).unwrap(), "it would block");
        assert!(beat(&pulse, 9));
        pulse.write_all(&record[..10]).unwrap();
        assert!(!beat(&pulse, 20) && !beat(&pulse, 30), "within a record");
        pulse.write_all(&record[10..]).unwrap();
        pulse.flush().unwrap();
        assert!(!beat(&pulse, 40), "it has just spoken");
        assert!(beat(&pulse, 41));
        let held = pulse.clone();
        let voice = held.voice();
        assert!(!beat(&pulse, 60), "somebody speaks");
        let (mut records, mut kinds) = (Records::new(&voice.out[..]), Vec::new());
        while let Some(record) = records.next().unwrap() {
            kinds.push(record.bytes[12]);
        }
        let (alive, sync) = (Kind::Alive as u8, Kind::Sync as u8);
        assert_eq!(kinds, [alive, alive, sync, alive]);
    }

    #[test]
    fn the_original_may_be_silent_while_it_owes_nothing() {
        let mut patience = Patience::new(Some(SEC * 10), Duration::ZERO);
        assert!(!patience.is_over(SEC * 1000));
        patience.owed(true, SEC * 1000);
        assert!(!patience.is_over(SEC * 1009) && patience.is_over(SEC * 1010));
        patience.owed(true, SEC * 1009);
        assert!(patience.is_over(SEC * 1010), "it owed that before");
        patience.heard(SEC * 1010);
        assert!(!patience.is_over(SEC * 1019));
        patience.owed(false, SEC * 1019);
        assert!(!patience.is_over(SEC * 5000));
        patience.agreed(Capabilities::ALL, SEC * 5000);
        assert!(!patience.is_over(SEC * 5009) && patience.is_over(SEC * 5010));
        let hasty = Patience {
            most: Some(SEC),
            ..patience
        };
        assert!(!hasty.is_over(SEC * 5002) && hasty.is_over(SEC * 5003));
        let endless = Patience {
            most: None,
            ..patience
        };
        assert!(!endless.is_over(Duration::MAX));
    }

    proptest! {
        /// Two ends that keep each other from being silent never give up, whatever else they say, and
        /// however rarely within reason anybody looks.
        #[test]
        fn who_is_alive_is_never_given_up(
            steps in prop::collection::vec((1u64..500, any::<bool>()), 1..200),
            most in 1u64..10_000,
        ) {
            let mut pulse = Pulse::new(Vec::new());
            pulse.agreed(Capabilities::ALIVE);
            let mut patience = Patience::new(Some(Duration::from_millis(most)), Duration::ZERO);
            patience.agreed(Capabilities::ALIVE, Duration::ZERO);
            let (mut now, mut heard) = (Duration::ZERO, 0);
            for (pause, speaks) in steps {
                now += Duration::from_millis(pause);
                if speaks {
                    pulse.write_all(b"something").unwrap();
                    pulse.flush().unwrap();
                }
                pulse.beat(now, |_| true).unwrap();
                let said = pulse.voice().out.len();
                if said > heard {
                    heard = said;
                    patience.heard(now);
                }
                prop_assert!(!patience.is_over(now), "at {now:?}");
            }
        }
    }
}
