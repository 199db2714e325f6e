//! Records removed in steps, for objects whose records do not all fit into one checkpoint.

use super::data::{base_of, straddles};
use super::live::{Live, successor};
use super::{History, Ops, flags, refused};
use crate::error::Result;
use crate::format::record::rt;
use crate::format::{Key, Localization};
use crate::fs::ObjectId;
use crate::store::Txn;

/// The rest of an operation: records of one object that are still to go, and what is done then.
#[derive(Clone, Copy, Debug)]
#[must_use = "the operation is not complete before the sweep is"]
pub struct Sweep {
    id: ObjectId,
    /// Blocks of file data begin here or behind.
    first: i64,
    /// Where to go on.
    next: Key,
    to: Key,
    then: Then,
}

/// What ends a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The inode goes.
    Remove,
    /// The file gets this length.
    Cut(u64),
    /// Nothing.
    Nothing,
}

impl Sweep {
    /// Removes what is left of an object without entries: its records, then its inode.
    pub fn removal(id: ObjectId) -> Sweep {
        Sweep {
            id,
            first: i64::MIN,
            next: id.key(Localization::MISC, rt::DATA, i64::MIN),
            to: id.key(Localization::MISC, u16::MAX, i64::MAX),
            then: Then::Remove,
        }
    }

    /// Removes the blocks from file offset `from` (a block's) on, then gives the file its length.
    pub(super) fn cut(id: ObjectId, from: u64, size: u64) -> Sweep {
        Sweep {
            then: Then::Cut(size),
            ..Sweep::blocks(id, from)
        }
    }

    /// Removes the blocks from file offset `from` (a block's) on.
    pub(super) fn blocks(id: ObjectId, from: u64) -> Sweep {
        let first = i64::try_from(from).unwrap_or(i64::MAX);
        Sweep {
            id,
            first,
            next: id.key(Localization::MISC, rt::DATA, first.saturating_add(1)),
            to: id.key(Localization::MISC, rt::DATA, i64::MAX),
            then: Then::Nothing,
        }
    }

    /// The object.
    pub fn object(&self) -> ObjectId {
        self.id
    }

    /// Goes on until all is done (`true`) or the transaction is full: a checkpoint is due then, or
    /// another transaction. Every call gets on by at least one record.
    pub fn step(&mut self, ops: &mut Ops, txn: &mut Txn<'_>) -> Result<bool> {
        let Some(inode) = ops.inode(txn, self.id.obj)? else {
            return Ok(true);
        };
        let keep = flags::keeps_history(&inode.data);
        let mut records = Live::new(self.next, self.to);
        let mut got_on = false;
        while let Some(leaf) = records.next(&mut ops.editor, txn)? {
            let key = leaf.base.key();
            if key.rec_type == rt::DIRENTRY {
                continue;
            }
            if got_on && txn.is_full() {
                return Ok(false);
            }
            if self.then != Then::Remove && base_of(&leaf)? < self.first {
                return Err(straddles(&leaf, self.first).context(self.id));
            }
            ops.retire(txn, &leaf, keep)?;
            got_on = true;
            match successor(key) {
                Some(next) => self.next = next,
                None => break,
            }
        }
        if got_on && txn.is_full() {
            return Ok(false);
        }
        match self.then {
            Then::Remove => ops.retire(txn, &inode.leaf, keep)?,
            Then::Cut(size) => ops.cut(txn, &inode, size)?,
            Then::Nothing => {}
        }
        Ok(true)
    }

    /// Goes on to the end, with checkpoints where they are due. Errors: class `Other` if one is due
    /// in an operation that may have to be taken back: it makes its own, with an intent.
    pub fn finish(mut self, ops: &mut Ops, txn: &mut Txn<'_>) -> Result<()> {
        while !self.step(ops, txn)? {
            if ops.history == History::Later {
                return Err(refused(
                    "a change of several checkpoints goes in steps here",
                ));
            }
            txn.checkpoint()?;
        }
        Ok(())
    }
}
