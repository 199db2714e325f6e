//! What changes to the tree stand on: a picture that can be changed.

use crate::error::Result;
use crate::format::{Offset, Tid, Zone};
use crate::store::{Fetch, Txn};

/// A picture with its own changes in it: a transaction, or memory that behaves like one. The
/// methods are those of [`Txn`].
pub trait Edit: Fetch {
    /// The TID of what is made and deleted.
    fn tid(&self) -> Tid;
    /// The time in seconds.
    fn now_seconds(&self) -> u32;
    /// Metadata to be changed.
    fn modify(&mut self, at: Offset, len: usize) -> Result<&mut [u8]>;
    /// New space.
    fn allocate(&mut self, zone: Zone, len: usize) -> Result<Offset>;
    /// Writes new space from its start.
    fn fill(&mut self, at: Offset, bytes: &[u8]) -> Result<()>;
    /// Gives space back.
    fn free(&mut self, at: Offset, len: usize) -> Result<()>;
    /// Sets the root node.
    fn set_root(&mut self, at: Offset);
    /// Changes the count of live inodes.
    fn count_inodes(&mut self, by: i64);
    /// Differs between two calls if the tree may have changed in between.
    fn tree_stamp(&self) -> u64;
    /// Notes that the tree changed.
    fn bump_tree(&mut self);
}

impl Edit for Txn<'_> {
    fn tid(&self) -> Tid {
        Txn::tid(self)
    }
    fn now_seconds(&self) -> u32 {
        Txn::now_seconds(self)
    }
    fn modify(&mut self, at: Offset, len: usize) -> Result<&mut [u8]> {
        Txn::modify(self, at, len)
    }
    fn allocate(&mut self, zone: Zone, len: usize) -> Result<Offset> {
        Txn::allocate(self, zone, len)
    }
    fn fill(&mut self, at: Offset, bytes: &[u8]) -> Result<()> {
        Txn::fill(self, at, bytes)
    }
    fn free(&mut self, at: Offset, len: usize) -> Result<()> {
        Txn::free(self, at, len)
    }
    fn set_root(&mut self, at: Offset) {
        Txn::set_root(self, at);
    }
    fn count_inodes(&mut self, by: i64) {
        Txn::count_inodes(self, by);
    }
    fn tree_stamp(&self) -> u64 {
        Txn::tree_stamp(self)
    }
    fn bump_tree(&mut self) {
        Txn::bump_tree(self);
    }
}
