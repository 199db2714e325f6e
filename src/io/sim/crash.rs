//! The images that a power cut may leave: everything up to the last flush, and of the writes since
//! any part, in pieces of 512 bytes.

use super::contents::Contents;
use super::{Event, Random, SimDisk};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The unit in which a write survives or not, in bytes.
pub(super) const TEAR: usize = 512;

/// Which of the writes since the last flush survive; numbers count them from 0 in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survive {
    /// All.
    All,
    /// None.
    None,
    /// Only this one.
    Only(usize),
    /// All but this one.
    Without(usize),
    /// A subset, chosen by this seed.
    Some(u64),
    /// A subset of their 512-byte sectors, chosen by this seed.
    Torn(u64),
}

/// How many images of each kind [`SimDisk::crash_images`] makes between two flushes.
#[derive(Clone, Copy, Debug)]
pub struct CrashPlan {
    /// Most writes that are kept alone, and that are left out alone.
    pub singles: usize,
    /// Random subsets.
    pub subsets: usize,
    /// Random subsets of sectors.
    pub torn: usize,
    /// Directs the random ones.
    pub seed: u64,
}

impl Default for CrashPlan {
    fn default() -> CrashPlan {
        CrashPlan {
            singles: 64,
            subsets: 8,
            torn: 8,
            seed: 1,
        }
    }
}

/// A disk as a power cut could have left it.
pub struct CrashImage {
    /// The cut came before this event of the log.
    pub cut: usize,
    /// What survived.
    pub survive: Survive,
    /// The disk, with an empty log.
    pub disk: SimDisk,
}

impl SimDisk {
    /// The disk as a power cut leaves it that comes after the first `cut` events of the log (see
    /// [`SimDisk::now`]).
    pub fn crash(&self, cut: usize, survive: Survive) -> io::Result<SimDisk> {
        let disk = self.lock();
        let events = disk.log.get(..cut).unwrap_or(&disk.log);
        let flushed = events.iter().rposition(|event| *event == Event::Flush);
        let since = flushed.map_or(0, |at| at + 1);
        let mut contents = disk.initial.clone();
        apply(&mut contents, &events[..since], Survive::All)?;
        apply(&mut contents, &events[since..], survive)?;
        Ok(SimDisk::with(contents, disk.sector))
    }

    /// The images of power cuts at every point of the log. A cut between two flushes with some
    /// of the writes before it is the same as one right before the second flush with those, so
    /// the images are made per flush: all writes since the one before, each alone, all but each,
    /// random subsets, and torn ones; and the disk as it was at first.
    pub fn crash_images(&self, plan: CrashPlan) -> CrashImages {
        let disk = self.lock();
        CrashImages {
            stable: disk.initial.clone(),
            log: disk.log.clone(),
            sector: disk.sector,
            random: Random(plan.seed),
            plan,
            epoch: 0..0,
            kinds: vec![Survive::None],
        }
    }
}

/// The images of [`SimDisk::crash_images`].
pub struct CrashImages {
    /// The contents at the start of `epoch`.
    stable: Contents,
    log: Vec<Event>,
    sector: usize,
    random: Random,
    plan: CrashPlan,
    /// The events between two flushes.
    epoch: Range<usize>,
    /// Still to be made of `epoch`, last first.
    kinds: Vec<Survive>,
}

impl CrashImages {
    /// Goes on to the next events between two flushes; `None` at the end of the log.
    fn advance(&mut self) -> Option<io::Result<()>> {
        let events = &self.log[self.epoch.clone()];
        if let Err(error) = apply(&mut self.stable, events, Survive::All) {
            return Some(Err(error));
        }
        // The flush itself is in no epoch; the first epoch starts without one.
        let start = match self.log.get(self.epoch.end) {
            Some(Event::Flush) => self.epoch.end + 1,
            _ => self.epoch.end,
        };
        let rest = self.log.get(start..).filter(|rest| !rest.is_empty())?;
        let flush = rest.iter().position(|event| *event == Event::Flush);
        self.epoch = start..start + flush.unwrap_or(rest.len());
        self.kinds = self.kinds_of(self.epoch.len());
        Some(Ok(()))
    }

    /// What is worth making of `count` writes.
    fn kinds_of(&mut self, count: usize) -> Vec<Survive> {
        let mut kinds = Vec::new();
        if count == 0 {
            return kinds;
        }
        let singles = count.min(self.plan.singles);
        let single = |random: &mut Random, nth: usize| match count > singles {
            true => random.below(count),
            false => nth,
        };
        for nth in 0..if count > 1 { singles } else { 0 } {
            kinds.push(Survive::Only(single(&mut self.random, nth)));
        }
        for nth in 0..if count > 2 { singles } else { 0 } {
            kinds.push(Survive::Without(single(&mut self.random, nth)));
        }
        for _ in 0..if count > 3 { self.plan.subsets } else { 0 } {
            kinds.push(Survive::Some(self.random.next()));
        }
        for _ in 0..self.plan.torn {
            kinds.push(Survive::Torn(self.random.next()));
        }
        kinds.push(Survive::All);
        kinds
    }
}

impl Iterator for CrashImages {
    type Item = io::Result<CrashImage>;

    fn next(&mut self) -> Option<io::Result<CrashImage>> {
        while self.kinds.is_empty() {
            if let Err(error) = self.advance()? {
                self.log.clear();
                self.epoch = 0..0;
                return Some(Err(error));
            }
        }
        let survive = self.kinds.pop()?;
        let mut contents = self.stable.clone();
        let result = apply(&mut contents, &self.log[self.epoch.clone()], survive);
        Some(result.map(|()| CrashImage {
            cut: self.epoch.end,
            survive,
            disk: SimDisk::with(contents, self.sector),
        }))
    }
}

/// Applies to `contents` what survives of `events`, in order.
fn apply(contents: &mut Contents, events: &[Event], survive: Survive) -> io::Result<()> {
    let mut random = match survive {
        Survive::Some(seed) | Survive::Torn(seed) => Random(seed),
        _ => Random(0),
    };
    // Few, half or most of them.
    let eighths = [1, 4, 7][random.below(3)];
    let writes = events.iter().filter_map(|event| match event {
        Event::Write { at, bytes } => Some((*at, Arc::clone(bytes))),
        Event::Flush => None,
    });
    for (number, (at, bytes)) in writes.enumerate() {
        let whole = match survive {
            Survive::All => true,
            Survive::None => false,
            Survive::Only(one) => number == one,
            Survive::Without(one) => number != one,
            Survive::Some(_) => random.below(8) < eighths,
            Survive::Torn(_) => {
                tear(contents, at, &bytes, || random.below(8) < eighths)?;
                false
            }
        };
        if whole {
            contents.write(at, &bytes)?;
        }
    }
    Ok(())
}

/// Writes those sectors of `bytes` that `keep` says.
fn tear(
    contents: &mut Contents,
    at: u64,
    bytes: &[u8],
    mut keep: impl FnMut() -> bool,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let place = at + done as u64;
        let count = TEAR - (place % TEAR as u64) as usize;
        let piece = &bytes[done..bytes.len().min(done + count)];
        if keep() {
            contents.write(place, piece)?;
        }
        done += piece.len();
    }
    Ok(())
}
