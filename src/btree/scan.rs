//! The scan that mirroring stands on: leaves of a key range, subtrees without changes since a TID
//! left out (mirroring.md §4.2).

use super::path::{Level, announce, child, root};
use crate::error::{Error, Result};
use crate::format::node::{Base, InternalElement, LeafElement};
use crate::format::{Key, Tid};
use crate::store::{Fetch, NodeRef};

/// What the scan finds next, in key order.
#[derive(Debug)]
pub enum Step {
    /// Elements of one leaf within the range; never none.
    Leaf(LeafStep),
    /// Nothing below `[from, to)` was created or deleted at or after the scan's TID. Bounds are
    /// those of the node that holds the children left out, cut to the range.
    Skip {
        /// First key of the space left out.
        from: Base,
        /// The key behind it.
        to: Base,
    },
    /// A node could not be read; what lies in `[from, to)` is unknown.
    Unreadable {
        /// First key of the unreadable space.
        from: Base,
        /// The key behind it.
        to: Base,
        /// Why.
        error: Error,
    },
}

/// Elements of one leaf.
#[derive(Clone, Debug)]
pub struct LeafStep {
    /// The leaf.
    pub node: NodeRef,
    /// Index of the first element within the range.
    pub first: usize,
    /// Index behind the last one.
    pub end: usize,
    /// Where the leaf's keys begin by its parent, cut to the range.
    pub from: Base,
    /// The key behind them.
    pub to: Base,
    /// Nothing among them was created or deleted after this TID, by its parent.
    pub changed: Tid,
}

impl LeafStep {
    /// The elements.
    pub fn elements(&self) -> &[LeafElement] {
        &self.node.leaves()[self.first..self.end]
    }
}

/// A scan of `[from, to]` (inclusive) for what was created or deleted at or after `tid_beg`.
///
/// The way to `from` is not filtered: the leaf that covers it is given whatever its age
/// (mirroring.md §4.2).
pub struct Scan {
    from: Key,
    to: Key,
    tid_beg: Tid,
    levels: Vec<Level>,
    /// Still on the way to the leaf that covers `from`.
    seeking: bool,
    started: bool,
}

impl Scan {
    /// A scan before `from`.
    pub fn new(from: Key, to: Key, tid_beg: Tid) -> Scan {
        Scan {
            from,
            to,
            tid_beg,
            levels: Vec::new(),
            seeking: true,
            started: false,
        }
    }

    /// The next step; `None` at the end of the range. An error is one of the root or of the whole
    /// view; the scan is over then.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Step>> {
        if !self.started {
            self.started = true;
            let root = root(fetch)?;
            self.enter(fetch, root);
        }
        loop {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            if level.node.is_leaf() {
                let found = elements(level, self.from, self.to);
                let node = level.node.clone();
                self.levels.pop();
                let step = found.map(|found| self.leaf(node, found));
                self.next_child();
                match step {
                    Some(step) => return Ok(Some(step)),
                    None => continue,
                }
            }
            let Some(element) = level.child() else {
                self.leave();
                continue;
            };
            if element.base.key() > self.to {
                self.levels.clear();
                continue;
            }
            if !self.seeking && Tid(element.mirror_tid.get()) < self.tid_beg {
                return Ok(Some(self.skip()));
            }
            let below = child(fetch, level, depth);
            match below {
                Ok(below) => self.enter(fetch, below),
                Err(error) if error.is_media() => return Ok(Some(self.unreadable(error))),
                Err(error) => {
                    self.levels.clear();
                    return Err(error);
                }
            }
        }
    }

    fn enter<F: Fetch + ?Sized>(&mut self, fetch: &mut F, mut level: Level) {
        if level.node.is_leaf() {
            self.seeking = false;
        } else {
            if self.seeking {
                self.seeking = level.seek(self.from);
            }
            let (to, tid_beg) = (self.to, self.tid_beg);
            let wanted = |e: &InternalElement| {
                (e.base.key() <= to).then(|| Tid(e.mirror_tid.get()) >= tid_beg)
            };
            announce(fetch, &level, wanted);
        }
        self.levels.push(level);
    }

    fn leave(&mut self) {
        self.levels.pop();
        self.next_child();
    }

    fn next_child(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.index += 1;
        }
    }

    /// The step of a leaf that the current level, if there is one, is about to be left for.
    fn leaf(&self, node: NodeRef, found: (usize, usize)) -> Step {
        let (from, to) = (self.from, self.to);
        let (first, end) = found;
        let (left, right, changed) = match self.levels.last() {
            Some(parent) => {
                let bounds = (
                    parent.node.base(parent.index),
                    parent.node.base(parent.index + 1),
                );
                let changed = parent.child().map_or(Tid::MAX, |e| Tid(e.mirror_tid.get()));
                (bounds.0, bounds.1, changed)
            }
            None => (Base::from_key(from), Base::from_key(to), Tid::MAX),
        };
        range(from, to, left, right, |from, to| {
            Step::Leaf(LeafStep {
                node,
                first,
                end,
                from,
                to,
                changed,
            })
        })
    }

    /// Leaves out the children from the next one on that have not changed.
    fn skip(&mut self) -> Step {
        let (from, to, tid_beg) = (self.from, self.to, self.tid_beg);
        // Called with a level whose next child is to be left out.
        let Some(level) = self.levels.last_mut() else {
            return range(
                from,
                to,
                Base::from_key(from),
                Base::from_key(to),
                Step::skip,
            );
        };
        let first = level.index;
        let clean = |e: &&InternalElement| Tid(e.mirror_tid.get()) < tid_beg;
        level.index += level.node.children()[first..]
            .iter()
            .take_while(clean)
            .count();
        let bounds = (level.node.base(first), level.node.base(level.index));
        range(from, to, bounds.0, bounds.1, Step::skip)
    }

    /// Goes on behind the next child, which cannot be read.
    fn unreadable(&mut self, error: Error) -> Step {
        self.seeking = false;
        let (from, to) = (self.from, self.to);
        let Some(level) = self.levels.last_mut() else {
            return Step::Unreadable {
                from: Base::from_key(from),
                to: Base::from_key(to),
                error,
            };
        };
        let bounds = (
            level.node.base(level.index),
            level.node.base(level.index + 1),
        );
        level.index += 1;
        range(from, to, bounds.0, bounds.1, |from, to| Step::Unreadable {
            from,
            to,
            error,
        })
    }
}

impl Step {
    fn skip(from: Base, to: Base) -> Step {
        Step::Skip { from, to }
    }
}

/// A step over `[left, right)` cut to the scan's range.
fn range(
    from: Key,
    to: Key,
    left: Base,
    right: Base,
    step: impl FnOnce(Base, Base) -> Step,
) -> Step {
    let left = if left.key() < from {
        Base::from_key(from)
    } else {
        left
    };
    let right = if right.key() > to {
        Base::from_key(to)
    } else {
        right
    };
    step(left, right)
}

/// The elements of a leaf that lie in the range, first and behind the last; `None` if none do.
fn elements(level: &Level, from: Key, to: Key) -> Option<(usize, usize)> {
    let elements = level.node.leaves();
    let (first, last) = (elements.first()?, elements.last()?);
    let begin = match first.base.key() < from {
        true => elements.partition_point(|e| e.base.key() < from),
        false => 0,
    };
    let end = match last.base.key() > to {
        true => elements.partition_point(|e| e.base.key() <= to),
        false => elements.len(),
    };
    (begin < end).then_some((begin, end))
}
