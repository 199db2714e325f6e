//! What came of many passes beside a writer.

use mallet::Error;
use mallet::format::Tid;
use mallet::mirror::Clock;
use mallet::mirror::copy::Event;
use std::time::Duration;

/// What came of all passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub passes: u64,
    /// Ended with an acknowledgement for some slave.
    pub acknowledged: u64,
    /// Had nothing to say.
    pub idle: u64,
    /// Stopped by the test.
    pub stopped: u64,
    /// The view expired: all of them, and why.
    pub discarded: u64,
    pub freed: u64,
    pub overwritten: u64,
    pub cut_off: u64,
    pub restless: u64,
    pub undone: u64,
    /// Acknowledgements, and those of passes that went on.
    pub acks: u64,
    pub resumed: u64,
    pub taken_back: u64,
    /// While a view was read: commits, times the log was filled, crashes.
    pub commits: u64,
    pub storms: u64,
    pub purges: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub prunings: u64,
    pub full: u64,
    pub half_done: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        let pairs = [
            (&mut self.passes, other.passes),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.idle, other.idle),
            (&mut self.stopped, other.stopped),
            (&mut self.discarded, other.discarded),
            (&mut self.freed, other.freed),
            (&mut self.overwritten, other.overwritten),
            (&mut self.cut_off, other.cut_off),
            (&mut self.restless, other.restless),
            (&mut self.undone, other.undone),
            (&mut self.acks, other.acks),
            (&mut self.resumed, other.resumed),
            (&mut self.taken_back, other.taken_back),
            (&mut self.commits, other.commits),
            (&mut self.storms, other.storms),
            (&mut self.purges, other.purges),
            (&mut self.crashes, other.crashes),
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.prunings, other.prunings),
            (&mut self.full, other.full),
            (&mut self.half_done, other.half_done),
        ];
        for (sum, one) in pairs {
            *sum += one;
        }
    }
}

impl Tally {
    /// Takes notice of a view that expired.
    pub fn expired(&mut self, error: &Error) {
        self.discarded += 1;
        let text = error.to_string();
        let has = |words: &str| text.contains(words);
        let count = match () {
            () if has("is free") || has("was freed") => &mut self.freed,
            () if has("written around") => &mut self.overwritten,
            () if has("log ends before") => &mut self.cut_off,
            () if has("hold still") => &mut self.restless,
            () if has("taken back") => &mut self.undone,
            () => panic!("expired for an unknown reason: {text}"),
        };
        *count += 1;
    }
}

/// Acknowledgements: of which slave, and as of what.
pub type Acks = Vec<(usize, Tid)>;

/// What a copy told.
#[derive(Debug, Default)]
pub struct Told {
    pub acks: Acks,
    pub resumed: u64,
    pub taken_back: u64,
    pub error: Option<Error>,
}

impl Told {
    /// Takes notice of what happens in a copy to the `chosen` slaves.
    pub fn hear(&mut self, event: &Event<'_>, chosen: &[usize]) {
        match event {
            Event::Acknowledged(at, tid, _) => self.acks.push((chosen[*at], *tid)),
            Event::Resumed(..) => self.resumed += 1,
            Event::TakenBack(..) => self.taken_back += 1,
            Event::Withheld(..) | Event::Damage(_) => {
                panic!("damage where there is none: {event:?}")
            }
            _ => {}
        }
    }
}

/// A clock that stands still.
pub struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}
