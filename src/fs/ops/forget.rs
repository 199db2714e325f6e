//! Old versions of objects without history, destroyed once the operation that deleted them cannot
//! be taken back any more.

use super::flags::keeps_history;
use crate::btree::{Editor, Scan, Step, put};
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::rt;
use crate::format::{Key, Tid};
use crate::fs::{ObjectId, inode};
use crate::store::{Fetch, Txn};
use std::collections::VecDeque;

/// Records that are looked up before they are destroyed; the memory that it needs.
const BATCH: usize = 4096;

/// Destroys what the transaction `tid` has marked deleted of objects that have no history, in steps.
///
/// Whether an object has history, its inode says as it stands, or as it was before `tid` if it is
/// gone. What an entry belongs to is its directory. Given up half way it leaves history, which does
/// no harm; so does what cannot be read. Inodes go last: until then they say whose the rest is.
pub struct Forget {
    pfs: u16,
    tid: Tid,
    /// Whether it has come to the inodes.
    inodes: bool,
    /// Where to look on; `None` at the end of a round.
    from: Option<Key>,
    found: VecDeque<Key>,
    /// The object that was looked at last, and whether it has no history.
    owner: Option<(i64, bool)>,
}

impl Forget {
    /// For what PFS `pfs` holds.
    pub fn new(pfs: u16, tid: Tid) -> Forget {
        Forget {
            pfs,
            tid,
            inodes: false,
            from: Some(Key::pfs_min(pfs)),
            found: VecDeque::new(),
            owner: None,
        }
    }

    /// Goes on until all is done (`true`) or the transaction is full. Every call gets on by at least
    /// one record.
    pub fn step(&mut self, editor: &mut Editor, txn: &mut Txn<'_>) -> Result<bool> {
        let mut got_on = false;
        loop {
            while let Some(key) = self.found.front() {
                if got_on && txn.is_full() {
                    return Ok(false);
                }
                // Slaves learn of it as of any removal without history.
                put::destroy(editor, txn, *key, self.tid)?;
                self.found.pop_front();
                got_on = true;
            }
            if !self.look(txn)? {
                return Ok(true);
            }
        }
    }

    /// Finds the next records; `false` if there are no more.
    fn look<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<bool> {
        let Some(from) = self.from.take() else {
            if self.inodes {
                return Ok(false);
            }
            self.inodes = true;
            self.from = Some(Key::pfs_min(self.pfs));
            return Ok(true);
        };
        let mut scan = Scan::new(from, Key::pfs_max(self.pfs), self.tid);
        while let Some(step) = scan.next(fetch)? {
            let Step::Leaf(leaf) = step else { continue };
            for element in leaf.elements() {
                if self.is_due(element) && self.forgets(fetch, element.base.key().obj_id)? {
                    self.found.push_back(element.base.key());
                }
            }
            if self.found.len() >= BATCH {
                // That one will be settled too by then.
                self.from = leaf.elements().last().map(|element| element.base.key());
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Whether this round is about the record, and its operation deleted it.
    fn is_due(&self, element: &LeafElement) -> bool {
        let rec_type = element.base.rec_type.get();
        let round = match rec_type {
            rt::INODE => self.inodes,
            // They belong to the PFS, not to its root directory.
            rt::PFS | rt::SNAPSHOT | rt::CONFIG => false,
            _ => !self.inodes,
        };
        round && element.base.delete_tid() == self.tid
    }

    /// Whether the object has no history.
    fn forgets<F: Fetch + ?Sized>(&mut self, fetch: &mut F, obj: i64) -> Result<bool> {
        if let Some((known, forgets)) = self.owner
            && known == obj
        {
            return Ok(forgets);
        }
        let id = ObjectId { pfs: self.pfs, obj };
        let before = Tid(self.tid.0.saturating_sub(1));
        let found = match inode(fetch, id, Tid::MAX) {
            Ok(None) => inode(fetch, id, before),
            found => found,
        };
        let forgets = match found {
            Ok(found) => found.is_some_and(|inode| !keeps_history(&inode.data)),
            Err(error) if error.is_media() => false,
            Err(error) => return Err(error),
        };
        self.owner = Some((obj, forgets));
        Ok(forgets)
    }
}
