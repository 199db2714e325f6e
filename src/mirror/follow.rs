//! Following a source that somebody else writes to (`mirror-stream`): when to look, whether there is
//! something new, and how long to wait where something fails. Time and chance come in as values.

use crate::error::Class;
use crate::format::volume::VolumeHeader;
use crate::format::{Offset, Tid, Zone};
use std::time::Duration;

/// Between two looks at a source that is busy.
pub const BUSY: Duration = Duration::from_millis(20);
/// Between two looks at one that has been quiet for long.
pub const QUIET: Duration = Duration::from_secs(1);
/// A look costs next to nothing: what has been quiet for so many pauses is looked at that often. A
/// writer that commits once a second is noticed within a sixteenth of a second.
const PATIENCE: u32 = 16;

/// What a root header says of what is committed. It is to be read before the view that shows it:
/// whatever comes in between is then noticed, at worst twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    first: Offset,
    next_tid: Tid,
}

impl Mark {
    /// The mark of a source with this root header, as it is on the device now.
    pub fn of(header: &VolumeHeader) -> Mark {
        Mark {
            first: Offset(header.zone(Zone::UNDO).first_offset.get()),
            next_tid: header.next_tid(),
        }
    }

    /// Whether something may have been committed between `self` and `now`: a commit moves the start
    /// of the UNDO FIFO, and no TID is used without the next one being raised. (The FIFO may come
    /// round to the same place.)
    pub fn differs(&self, now: &Mark) -> bool {
        self != now
    }
}

/// How long to wait before the next look at a source that has been quiet for so long.
pub fn pause(quiet: Duration) -> Duration {
    (quiet / PATIENCE).clamp(BUSY, QUIET)
}

/// Whether what failed so is worth another try: the same request may succeed later.
pub fn may_pass(class: Class) -> bool {
    matches!(class, Class::Busy | Class::Io | Class::Expired)
}

/// How long to wait after `failures` failures in a row (from 1), the last of this class. `chance` is
/// any number: the wait is half of what it would be and up to as much more, so that those that failed
/// together do not come back together.
///
/// A lock is a matter of moments; a device or a host that is gone takes longer. A view that was
/// overtaken is best taken anew at once: what it gave stays, and the next goes on from there.
pub fn backoff(class: Class, failures: u32, chance: u32) -> Duration {
    let (first, last) = match class {
        Class::Expired => (BUSY, BUSY * 4),
        Class::Busy => (BUSY, QUIET),
        _ => (Duration::from_millis(250), Duration::from_secs(30)),
    };
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    let whole = first.saturating_mul(doubled).min(last);
    let half = whole / 2;
    half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn busy_sources_are_looked_at_often() {
        let ms = Duration::from_millis;
        assert_eq!(pause(Duration::ZERO), BUSY);
        assert_eq!(pause(ms(300)), BUSY);
        assert_eq!(pause(ms(1600)), ms(100));
        assert_eq!(pause(Duration::from_secs(16)), QUIET);
        assert_eq!(pause(Duration::from_secs(1 << 40)), QUIET);
        // From one commit to the next a second later.
        let mut quiet = Duration::ZERO;
        while quiet < Duration::from_secs(1) {
            quiet += pause(quiet);
        }
        assert!(quiet < ms(1063), "{quiet:?}");
    }

    #[test]
    fn commits_are_seen() {
        let mut header: VolumeHeader = zerocopy::FromZeros::new_zeroed();
        let undo = usize::from(Zone::UNDO.0);
        let before = Mark::of(&header);
        header.blockmap[undo].next_offset.set(512);
        assert!(!before.differs(&Mark::of(&header)), "nothing is committed");
        header.blockmap[undo].first_offset.set(512);
        let committed = Mark::of(&header);
        assert!(before.differs(&committed));
        // Once round.
        header.next_tid.set(16);
        assert!(committed.differs(&Mark::of(&header)));
    }

    #[test]
    fn what_another_try_may_change() {
        for class in [Class::Busy, Class::Io, Class::Expired] {
            assert!(may_pass(class), "{class:?}");
        }
        let all = [
            Class::Other,
            Class::Usage,
            Class::Incompatible,
            Class::Damage,
            Class::Brake,
            Class::Interrupted,
            Class::NoSpace,
            Class::Protocol,
        ];
        assert!(!all.into_iter().any(may_pass));
    }

    proptest! {
        #[test]
        fn waits_grow_and_end_growing(failures in 1u32.., chance: u32, other: u32) {
            for (class, last) in [(Class::Expired, BUSY * 4), (Class::Busy, QUIET), (Class::Io, Duration::from_secs(30))] {
                let wait = backoff(class, failures, chance);
                prop_assert!(wait >= BUSY / 2 && wait <= last, "{wait:?}");
                // Even where chance has it the other way, never sooner than one time before.
                let later = backoff(class, failures.saturating_add(1), other);
                prop_assert!(later * 2 >= wait && later >= backoff(class, failures, 0));
            }
        }

        #[test]
        fn chance_spreads_them(failures in 1u32..100) {
            let wait = |chance| backoff(Class::Io, failures, chance);
            prop_assert_eq!(wait(0) * 2, wait(u32::MAX));
            prop_assert!(wait(0) < wait(1 << 31) && wait(1 << 31) < wait(u32::MAX));
        }
    }
}
