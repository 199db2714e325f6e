//! Reads under way: runs of neighbouring 16 KiB buffers, read with one request each.

use super::disks::Ticket;
use crate::format::{BUFFER, Offset};
use crate::io::{Buf, Bytes};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Bytes that one request takes at most.
pub(super) const RUN_MAX: usize = 1 << 20;

/// Some neighbouring buffers on their way from the device to whoever wants them.
pub(super) struct Run {
    /// Zone-2 address of the first buffer.
    pub at: Offset,
    /// Number of buffers.
    pub frames: usize,
    /// Whether the buffers go into the cache, or are handed out and gone.
    pub cached: bool,
    /// Position of the device.
    pub disk: usize,
    /// Byte offset on the device.
    pub place: u64,
    /// How often the run's parts will be asked for (of runs that are not cached).
    pub wanted: u32,
    pub state: State,
}

/// How far a run is.
pub(super) enum State {
    /// The device is at it.
    Reading(Ticket),
    /// Read, as the device has it.
    Raw(Buf),
    /// As the view has it.
    Ready(Bytes),
}

impl Run {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.frames * BUFFER
    }

    /// Whether the `frames` buffers at `at` are all in the run.
    pub fn covers(&self, at: Offset, frames: usize) -> bool {
        let end = |at: Offset, frames: usize| at.0 + (frames * BUFFER) as u64;
        self.at <= at && end(at, frames) <= end(self.at, self.frames)
    }
}

/// The runs of a view.
#[derive(Default)]
pub(super) struct Runs {
    runs: FxHashMap<u64, Run>,
    /// Run by the address of each of its buffers.
    by_frame: FxHashMap<u64, u64>,
    /// Ids by age.
    order: VecDeque<u64>,
    next_id: u64,
    held: usize,
}

impl Runs {
    /// Bytes of all runs.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The run that has the buffer at `at`.
    pub fn find(&self, at: Offset) -> Option<u64> {
        self.by_frame.get(&at.0).copied()
    }

    pub fn get(&self, id: u64) -> Option<&Run> {
        self.runs.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Run> {
        self.runs.get_mut(&id)
    }

    /// Takes a run in; its buffers displace the same ones of older runs.
    pub fn insert(&mut self, run: Run) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        for frame in 0..run.frames {
            self.by_frame.insert(run.at.0 + (frame * BUFFER) as u64, id);
        }
        self.held += run.len();
        self.runs.insert(id, run);
        self.order.push_back(id);
        id
    }

    /// Takes a run out.
    pub fn remove(&mut self, id: u64) -> Option<Run> {
        let run = self.runs.remove(&id)?;
        for frame in 0..run.frames {
            let key = run.at.0 + (frame * BUFFER) as u64;
            if self.by_frame.get(&key) == Some(&id) {
                self.by_frame.remove(&key);
            }
        }
        self.held -= run.len();
        while self
            .order
            .front()
            .is_some_and(|id| !self.runs.contains_key(id))
        {
            self.order.pop_front();
        }
        Some(run)
    }

    /// The oldest run.
    pub fn oldest(&self) -> Option<u64> {
        self.order
            .iter()
            .find(|id| self.runs.contains_key(id))
            .copied()
    }

    /// All runs.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.runs.values_mut()
    }
}

/// Neighbouring buffers that somebody wants: address, number, how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    pub cached: bool,
    pub at: Offset,
    pub frames: usize,
    pub times: u32,
}

/// Sorts wishes by address and joins those that touch or overlap, up to `frames_max` buffers
/// together.
pub(super) fn join(mut wishes: Vec<Wish>, frames_max: usize) -> Vec<Wish> {
    wishes.sort_unstable();
    let mut joined: Vec<Wish> = Vec::new();
    for wish in wishes {
        let wish_end = wish.at.0 + (wish.frames * BUFFER) as u64;
        if let Some(last) = joined.last_mut() {
            let last_end = last.at.0 + (last.frames * BUFFER) as u64;
            let end = wish_end.max(last_end);
            let frames = ((end - last.at.0) / BUFFER as u64) as usize;
            let touches = wish.cached == last.cached && wish.at.0 <= last_end;
            let same_volume = wish.at.volume() == last.at.volume();
            if touches && same_volume && frames <= frames_max.max(last.frames) {
                last.frames = frames;
                last.times += wish.times;
                continue;
            }
        }
        joined.push(wish);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every wish lies in one of the joined ones, and nothing is read that nobody wants.
        #[test]
        fn joined_wishes_cover(starts in proptest::collection::vec((0u64..60, 1usize..5), 0..40)) {
            let wish = |(start, frames): (u64, usize)| Wish {
                cached: false,
                at: Offset(0x2000_0000_0000_0000 + start * BUFFER as u64),
                frames,
                times: 1,
            };
            let wishes: Vec<Wish> = starts.into_iter().map(wish).collect();
            let joined = join(wishes.clone(), 16);
            for wish in &wishes {
                let within = |j: &Wish| {
                    j.at <= wish.at
                        && wish.at.0 + (wish.frames * BUFFER) as u64
                            <= j.at.0 + (j.frames * BUFFER) as u64
                };
                prop_assert!(joined.iter().any(within));
            }
            prop_assert!(joined.iter().all(|j| j.frames <= 16));
            let times: u32 = joined.iter().map(|j| j.times).sum();
            prop_assert_eq!(times as usize, wishes.len());
            for frame in 0..70u64 {
                let at = 0x2000_0000_0000_0000 + frame * BUFFER as u64;
                let has = |w: &&Wish| w.at.0 <= at && at < w.at.0 + (w.frames * BUFFER) as u64;
                prop_assert_eq!(joined.iter().any(|w| has(&w)), wishes.iter().any(|w| has(&w)));
            }
        }
    }
}
