//! The slave's own elements beside a stream: what becomes of those that the source does not mention,
//! when it is done (`apply`) and when it is only counted (`plan`).

use super::apply::{Applied, Batch};
use super::arrival::{element_key, localized};
use super::sieve::For;
use crate::btree::Cursor;
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::rt;
use crate::format::{Key, Tid};
use crate::store::Fetch;
use std::collections::VecDeque;

/// Elements of the slave that are read at a time: at first, and at most.
const AHEAD: (usize, usize) = (32, 512);

/// What becomes of an element of the slave that the source does not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Deleted,
    Destroyed,
}

impl Fate {
    /// It must not be visible as of the window's end. A deletion behind that end was left by a pass
    /// that was given up, and is brought forward. An element of the end itself cannot be deleted
    /// there; nobody has seen it unless that TID is published.
    pub fn of(own: &LeafElement, batch: &Batch) -> Fate {
        if is_local(own) || !own.visible(batch.end) {
            return Fate::Stays;
        }
        match own.base.create_tid() == batch.end {
            // Published already: a deletion there could not be taken back.
            false if batch.end == batch.synced => Fate::Stays,
            false => Fate::Deleted,
            true if batch.end > batch.synced => Fate::Destroyed,
            true => Fate::Stays,
        }
    }
}

/// The slave's elements from the place on, read in portions.
pub(super) struct Ahead {
    ready: VecDeque<LeafElement>,
    /// Where the next portion begins, the flag: not at it; `None` at the end of the PFS.
    next: Option<(Key, bool)>,
    to: Key,
    portion: usize,
}

impl Ahead {
    pub fn from(start: Key, to: Key) -> Ahead {
        Ahead {
            ready: VecDeque::new(),
            next: Some((start, true)),
            to,
            portion: AHEAD.0,
        }
    }

    /// The next element.
    pub fn front<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
        if self.ready.is_empty() {
            self.read(fetch)?;
        }
        Ok(self.ready.front().copied())
    }

    fn read<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let Some((from, at)) = self.next.take() else {
            return Ok(());
        };
        // Not kept: the tree changes before the next portion is read.
        let mut cursor = Cursor::new(from, self.to);
        while self.ready.len() < self.portion {
            let Some(own) = cursor.next(fetch)? else {
                return Ok(());
            };
            if at || own.base.key() != from {
                self.ready.push_back(own);
            }
        }
        self.next = self.ready.back().map(|last| (last.base.key(), false));
        self.portion = (self.portion * 2).min(AHEAD.1);
        Ok(())
    }

    /// Takes the first of the elements that were read, if it has this key.
    pub fn take(&mut self, key: Key) -> Option<LeafElement> {
        let found = self.ready.front().is_some_and(|own| own.base.key() == key);
        found.then(|| self.ready.pop_front()).flatten()
    }

    /// Leaves out everything below `to`.
    pub fn jump(&mut self, to: Key) {
        let passed = self.ready.partition_point(|own| own.base.key() < to);
        self.ready.drain(..passed);
        if self.ready.is_empty() && self.next.is_some_and(|(next, _)| next < to) {
            self.next = Some((to, true));
            self.portion = AHEAD.0;
        }
    }
}

/// Elements of a slave between two looks at time and signals.
const TICK: u64 = 64;

/// Looks at time and signals.
type Tick<'t> = &'t mut dyn FnMut() -> Result<()>;

/// A slave that a pass is only thought through for: what the pass would delete in it without a word
/// of the source. It needs the memory of one portion.
pub struct Shadow<'v> {
    fetch: &'v mut dyn Fetch,
    batch: Batch,
    /// What stands above the slave's TID is taken back first.
    taken_back: bool,
    ahead: Ahead,
    applied: Applied,
}

impl<'v> Shadow<'v> {
    /// For the pass `batch` into a slave of `fetch`; with `taken_back`, what the slave has above its
    /// TID counts as not there.
    pub fn new(fetch: &'v mut dyn Fetch, batch: Batch, taken_back: bool) -> Shadow<'v> {
        let (from, to) = (Key::pfs_min(batch.pfs), Key::pfs_max(batch.pfs));
        Shadow {
            fetch,
            batch,
            taken_back,
            ahead: Ahead::from(from, to),
            applied: Applied::default(),
        }
    }

    /// Takes the next item that is for the slave.
    pub(super) fn item(&mut self, item: &For<'_>, tick: Tick<'_>) -> Result<()> {
        match item {
            For::Nothing => Ok(()),
            For::Record(leaf, ..) | For::Pass(leaf) => {
                let key = element_key(leaf, self.batch.pfs)?;
                self.pass_to(Some(key), tick)?;
                if key.rec_type != rt::CONFIG
                    && let Some(own) = self.ahead.take(key)
                {
                    self.meet(own, true);
                }
                Ok(())
            }
            For::Skip(from, to, _) => {
                let pfs = self.batch.pfs;
                self.pass_to(Some(localized(from, pfs)), tick)?;
                self.ahead.jump(localized(to, pfs));
                Ok(())
            }
        }
    }

    /// The source has said everything. Only `gap_deleted` and `live` of what comes back are counted.
    pub(super) fn finish(&mut self, tick: Tick<'_>) -> Result<Applied> {
        self.pass_to(None, tick)?;
        Ok(self.applied)
    }

    /// Counts what is not mentioned: every element below `to`, or to the end of the PFS.
    fn pass_to(&mut self, to: Option<Key>, tick: Tick<'_>) -> Result<()> {
        for count in 1u64.. {
            if count.is_multiple_of(TICK) {
                tick()?;
            }
            let own = self.ahead.front(&mut *self.fetch);
            let own = own.map_err(|error| error.context("the slave's B-Tree"))?;
            let Some(own) = own.filter(|own| to.is_none_or(|to| own.base.key() < to)) else {
                return Ok(());
            };
            self.ahead.take(own.base.key());
            self.meet(own, false);
        }
        Ok(())
    }

    fn meet(&mut self, own: LeafElement, mentioned: bool) {
        let own = match self.taken_back {
            true => taken_back(own, self.batch.synced),
            false => Some(own),
        };
        let Some(own) = own else { return };
        self.applied.live += u64::from(own.visible(self.batch.end));
        let stays = mentioned || Fate::of(&own, &self.batch) == Fate::Stays;
        self.applied.gap_deleted += u64::from(!stays);
    }
}

/// What becomes of an element of a slave that is taken back to `synced`.
fn taken_back(mut own: LeafElement, synced: Tid) -> Option<LeafElement> {
    if is_local(&own) {
        return Some(own);
    }
    if own.base.delete_tid() > synced {
        own.base.delete_tid.set(0);
        own.delete_ts.set(0);
    }
    (own.base.create_tid() <= synced).then_some(own)
}

/// Whether the element is the slave's own affair.
fn is_local(own: &LeafElement) -> bool {
    [rt::CONFIG, rt::SNAPSHOT].contains(&own.base.rec_type.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn own(rec_type: u16, create: u64, delete: u64) -> LeafElement {
        let mut own = LeafElement::new_zeroed();
        own.base.rec_type.set(rec_type);
        own.base.create_tid.set(create);
        own.base.delete_tid.set(delete);
        own
    }

    #[test]
    fn fates_of_the_unmentioned() {
        let fate = |rec_type, create, delete, synced| {
            let batch = Batch {
                pfs: 1,
                begin: Tid(1),
                end: Tid(100),
                synced: Tid(synced),
            };
            Fate::of(&own(rec_type, create, delete), &batch)
        };
        use Fate::*;
        for (create, delete, synced, expected) in [
            (10, 0, 50, Deleted),
            (60, 0, 50, Deleted),
            // Deleted by then.
            (10, 20, 50, Stays),
            (10, 100, 50, Stays),
            // A deletion that a pass with a later end left.
            (10, 101, 50, Deleted),
            // Not there yet.
            (101, 0, 50, Stays),
            (101, 150, 50, Stays),
            // Created at the end: seen by somebody or not.
            (100, 0, 50, Destroyed),
            (100, 120, 50, Destroyed),
            (100, 0, 100, Stays),
            // What is published is not unpublished.
            (10, 0, 100, Stays),
            (10, 0, 150, Deleted),
        ] {
            let found = fate(rt::DATA, create, delete, synced);
            assert_eq!(found, expected, "{create} {delete} {synced}");
            for local in [rt::CONFIG, rt::SNAPSHOT] {
                assert_eq!(fate(local, create, delete, synced), Stays);
            }
        }
    }

    #[test]
    fn taking_back_leaves_what_is_acknowledged() {
        let tids = |rec_type, create, delete| {
            let left = taken_back(own(rec_type, create, delete), Tid(50));
            left.map(|own| (own.base.create_tid().0, own.base.delete_tid().0))
        };
        assert_eq!(tids(rt::DATA, 10, 0), Some((10, 0)));
        assert_eq!(tids(rt::DATA, 10, 50), Some((10, 50)));
        assert_eq!(tids(rt::DATA, 50, 51), Some((50, 0)));
        assert_eq!(tids(rt::DATA, 51, 0), None);
        assert_eq!(tids(rt::DATA, 51, 60), None);
        assert_eq!(tids(rt::SNAPSHOT, 51, 60), Some((51, 60)));
    }
}
