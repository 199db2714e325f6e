//! Changes to a volume set, atomic and durable: the store that writes, and its transactions.
//!
//! A [`Store`] owns the volumes and has recovered them. A [`Txn`] borrows it mutably, so there is one
//! writer. [`Txn::modify`] is the only door to metadata: it keeps what was there for the UNDO log.
//! [`Txn::commit`] takes the changes through the phases of a checkpoint (see [`super::checkpoint`])
//! and gives a [`Durable`], which nothing else makes.

use super::{Fetch, NodeRef, View, VolumeSet};
use crate::error::Result;
use crate::format::volume::VolumeHeader;
use crate::format::{Offset, Tid, Zone};
use crate::io::Bytes;

/// How a store works.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Memory for clean metadata buffers, in bytes.
    pub cache_bytes: usize,
    /// Memory for data read ahead, in bytes.
    pub readahead_bytes: usize,
    /// Memory for changed buffers, in bytes: a transaction that needs more makes checkpoints.
    pub dirty_bytes: usize,
    /// How long to watch a volume that needs recovery for another writer before touching it
    /// (`Busy` if anything moves); `None` does not look.
    pub watch: Option<std::time::Duration>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 64 << 20,
            readahead_bytes: 32 << 20,
            dirty_bytes: 24 << 20,
            watch: None,
        }
    }
}

/// Proof that everything committed so far is on stable media and no crash takes it back. Made by
/// [`Txn::commit`] after the last flush, and by [`Store::durable`] for what was found committed.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    tid: Tid,
}

impl Durable {
    /// The TID of the transaction that was committed last.
    pub fn tid(&self) -> Tid {
        self.tid
    }
}

/// A volume set that is open for writing.
pub struct Store {
    view: View,
}

impl Store {
    /// Recovers the volumes (stage 1, durability.md §5) and opens them for writing.
    pub fn open(set: VolumeSet, options: &StoreOptions) -> Result<Store> {
        let _ = (set, options);
        todo!()
    }

    /// What recovery found and did.
    pub fn recovered(&self) -> &Recovered {
        todo!()
    }

    /// Begins a transaction with the next TID; `now` is in microseconds since 1970.
    pub fn begin(&mut self, now: u64) -> Result<Txn<'_>> {
        let _ = now;
        todo!()
    }

    /// Begins a transaction that goes on under `tid`, the TID of an operation whose first
    /// checkpoints are committed.
    pub fn resume(&mut self, tid: Tid, now: u64) -> Result<Txn<'_>> {
        let _ = (tid, now);
        todo!()
    }

    /// The next TID will be above `tid`.
    pub fn raise_tid(&mut self, tid: Tid) {
        let _ = tid;
        todo!()
    }

    /// While held, commits leave the start of the range to undo where it is: a crash takes all of
    /// them back. For the replay of REDO records, which must not be half done.
    pub fn hold(&mut self, held: bool) {
        let _ = held;
        todo!()
    }

    /// Proof that the committed state is durable. An error if the store is latched.
    pub fn durable(&self) -> Result<Durable> {
        todo!()
    }

    /// The committed state. Reads only; valid while no transaction is open.
    pub fn view(&mut self) -> &mut View {
        &mut self.view
    }

    /// Gives the volumes back.
    pub fn into_volumes(self) -> VolumeSet {
        self.view.into_volumes()
    }

    /// What was written so far.
    pub fn written(&self) -> Written {
        todo!()
    }
}

/// What recovery found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// UNDO FIFO records that were taken back.
    pub undone: u64,
    /// Where replay of the REDO log begins: a position in the FIFO, if there is a log to replay.
    pub redo: Option<u64>,
    /// The range of the FIFO that recovery found: start, end, and the number of the first record.
    pub range: (u64, u64),
}

/// What a store wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of file data (zones 10 and 11).
    pub data: u64,
    /// Bytes of UNDO log.
    pub undo: u64,
    /// Bytes of metadata and headers.
    pub meta: u64,
    /// Flushes.
    pub flushes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Nanoseconds spent waiting for flushes.
    pub flush_ns: u64,
}

/// An open transaction: a picture that includes its own changes. Dropping it without
/// [`Txn::commit`] takes back everything since the last checkpoint.
pub struct Txn<'s> {
    store: &'s mut Store,
}

impl Txn<'_> {
    /// The TID that this transaction's records carry.
    pub fn tid(&self) -> Tid {
        todo!()
    }

    /// When it began, microseconds since 1970.
    pub fn now(&self) -> u64 {
        todo!()
    }

    /// The same in seconds, as leaf elements carry it.
    pub fn now_seconds(&self) -> u32 {
        todo!()
    }

    /// The metadata (zones 8, 9 and 11, or zone 2 for the freemap) in `[at, at + len)`, to be
    /// changed; within one 16 KiB buffer. CRCs of nodes are set at commit; all others are the
    /// caller's. Call it again after anything else was asked of the transaction.
    pub fn modify(&mut self, at: Offset, len: usize) -> Result<&mut [u8]> {
        let _ = (at, len);
        todo!()
    }

    /// New space for `len` bytes in zone 8 to 11 (format.md §7.2). Zone-10 sizes are rounded up to
    /// 16 KiB. Contents are unspecified until filled. Errors: class `NoSpace`.
    pub fn allocate(&mut self, zone: Zone, len: usize) -> Result<Offset> {
        let _ = (zone, len);
        todo!()
    }

    /// Writes `bytes` at the start of space that this checkpoint allocated; needs no UNDO. Zone-10
    /// data starts on its way to the device at once.
    pub fn fill(&mut self, at: Offset, bytes: &[u8]) -> Result<()> {
        let _ = (at, bytes);
        todo!()
    }

    /// Gives back the space of `len` bytes at `at` (zones 8 to 11; rounded up to 16).
    pub fn free(&mut self, at: Offset, len: usize) -> Result<()> {
        let _ = (at, len);
        todo!()
    }

    /// Sets the root node.
    pub fn set_root(&mut self, at: Offset) {
        let _ = at;
        todo!()
    }

    /// Changes the count of live inodes.
    pub fn count_inodes(&mut self, by: i64) {
        let _ = by;
        todo!()
    }

    /// A fresh TID for use as an object id.
    pub fn new_object(&mut self) -> i64 {
        todo!()
    }

    /// Sets TIDs aside for `count` objects: later ones of this transaction are made of them, so that
    /// `vol0_next_tid`, which is given, stays as it is to the transaction's end.
    pub fn set_objects_aside(&mut self, count: u64) -> Result<Tid> {
        let _ = count;
        todo!()
    }

    /// The allocator's next TID will be above `tid`, also after a crash once this is committed.
    pub fn raise_tid(&mut self, tid: Tid) {
        let _ = tid;
        todo!()
    }

    /// Whether the next record may no longer fit: a [`Txn::checkpoint`] is due. Ask before every
    /// record that is inserted, changed or removed.
    pub fn is_full(&self) -> bool {
        todo!()
    }

    /// Whether anything was changed since the last checkpoint.
    pub fn is_dirty(&self) -> bool {
        todo!()
    }

    /// How many checkpoints this transaction has made.
    pub fn checkpoints(&self) -> u64 {
        todo!()
    }

    /// Makes what was changed so far durable and goes on under the same TID. What is committed
    /// this way is not taken back by dropping the transaction.
    pub fn checkpoint(&mut self) -> Result<Durable> {
        todo!()
    }

    /// Makes the changes durable. Without changes nothing is written.
    pub fn commit(self) -> Result<Durable> {
        todo!()
    }

    /// A number that differs between two calls if the tree's nodes may have moved or changed
    /// shape in between; editors that remember a place compare it.
    pub fn tree_stamp(&self) -> u64 {
        todo!()
    }

    /// Notes that the tree's nodes changed shape.
    pub fn bump_tree(&mut self) {
        todo!()
    }

    /// What the store wrote so far, other transactions included.
    pub fn written(&self) -> Written {
        self.store.written()
    }
}

impl Fetch for Txn<'_> {
    fn header(&self) -> &VolumeHeader {
        todo!()
    }
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        let _ = (at, len);
        todo!()
    }
    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        let _ = at;
        todo!()
    }
    fn want(&mut self, extents: &[(Offset, usize)]) {
        let _ = extents;
        todo!()
    }
    fn readahead(&self) -> usize {
        todo!()
    }
    fn forget(&mut self, at: Offset, len: usize) {
        let _ = (at, len);
        todo!()
    }
}
