//! Range cursors: every record between two keys, or those visible as of a TID.

use super::path::{Level, announce, child, root};
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::{Key, Tid};
use crate::store::Fetch;

/// Walks all records (every version) with keys in `[from, to]`, in key order.
///
/// An unreadable or damaged node is an error of the one call that meets it; the next call goes on
/// behind that node. After an error of the root there is nothing more.
pub struct Cursor {
    from: Key,
    to: Key,
    levels: Vec<Level>,
    started: bool,
}

impl Cursor {
    /// A cursor before `from`; the walk ends behind `to`.
    pub fn new(from: Key, to: Key) -> Cursor {
        Cursor {
            from,
            to,
            levels: Vec::new(),
            started: false,
        }
    }

    /// The next record.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
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
                match level.node.leaves().get(level.index) {
                    Some(element) if element.base.key() > self.to => self.levels.clear(),
                    Some(element) => {
                        level.index += 1;
                        return Ok(Some(*element));
                    }
                    None => self.leave(),
                }
                continue;
            }
            match level.child() {
                None => self.leave(),
                Some(element) if element.base.key() > self.to => self.levels.clear(),
                Some(_) => {
                    let below = child(fetch, level, depth);
                    match below {
                        Ok(below) => self.enter(fetch, below),
                        Err(error) => {
                            self.advance();
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Goes down into a node, to the place of the range's start in it.
    fn enter<F: Fetch + ?Sized>(&mut self, fetch: &mut F, mut level: Level) {
        if level.node.is_leaf() {
            let before = |e: &LeafElement| e.base.key() < self.from;
            level.index = level.node.leaves().partition_point(before);
        } else {
            level.seek(self.from);
            let to = self.to;
            announce(fetch, &level, |e| (e.base.key() <= to).then_some(true));
        }
        self.levels.push(level);
    }

    /// Goes up from a node that is done, and on to what follows it.
    fn leave(&mut self) {
        self.levels.pop();
        self.advance();
    }

    fn advance(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.index += 1;
        }
    }
}

/// Walks the records of a key range that are visible as of a TID: of each record's versions the one
/// with the greatest `create_tid` up to the TID, unless it is deleted by then. `Tid::MAX` is the
/// current state. The creation TIDs of the bounds are ignored.
pub struct AsOf {
    cursor: Cursor,
    asof: Tid,
    /// The best version so far of the record being looked at.
    best: Option<LeafElement>,
}

impl AsOf {
    /// A cursor over the records in `[from, to]` as of `asof`.
    pub fn new(from: Key, to: Key, asof: Tid) -> AsOf {
        let from = Key {
            create_tid: Tid(1),
            ..from
        };
        // A creation TID of 0 is above all others.
        let to = Key {
            create_tid: Tid::ZERO,
            ..to
        };
        AsOf {
            cursor: Cursor::new(from, to),
            asof,
            best: None,
        }
    }

    /// The next visible record. Errors as [`Cursor::next`].
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
        loop {
            let Some(element) = self.cursor.next(fetch)? else {
                return Ok(self.settle(None));
            };
            let created = element.base.create_tid();
            let candidate = (created <= self.asof && !created.is_zero()).then_some(element);
            let same = |best: &LeafElement| best.base.key().cmp_record(&element.base.key()).is_eq();
            if self.best.as_ref().is_some_and(same) {
                self.best = candidate.or(self.best);
            } else if let Some(visible) = self.settle(candidate) {
                return Ok(Some(visible));
            }
        }
    }

    /// Ends the record being looked at and begins the next; gives the first if it is visible.
    fn settle(&mut self, next: Option<LeafElement>) -> Option<LeafElement> {
        let best = std::mem::replace(&mut self.best, next);
        best.filter(|best| best.visible(self.asof))
    }
}

/// The version of one record (`key`'s creation TID is ignored) that is visible as of `asof`.
pub fn lookup<F: Fetch + ?Sized>(
    fetch: &mut F,
    key: Key,
    asof: Tid,
) -> Result<Option<LeafElement>> {
    AsOf::new(key, key, asof).next(fetch)
}
