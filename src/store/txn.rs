//! Changes to a volume set, atomic and durable: the store that writes, and its transactions.
//!
//! A [`Store`] owns the volumes and has recovered them. A [`Txn`] borrows it mutably, so there is one
//! writer. [`Txn::modify`] is the only door to metadata: it keeps what was there for the UNDO log.
//! [`Txn::commit`] takes the changes through the phases of a checkpoint (see [`super::checkpoint`])
//! and gives a [`Durable`], which nothing else makes.

use super::alloc::Resting;
use super::frames::{Frame, Frames};
use super::log::Append;
use super::stage::Stage;
use super::undo::Ring;
use super::{Fetch, NodeRef, View, VolumeSet};
use crate::error::{Class, Error, Result};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, BUFFER, Fault, NODE_SIZE, Offset, Rule, Tid, XBUFFER, Zone};
use crate::io::{Buf, Bytes};
use std::ops::Range;
use std::sync::Arc;

/// TIDs are multiples of this, as DragonFly hands them out.
const TID_STEP: u64 = 16;
/// TIDs from here on are refused.
const TID_MAX: u64 = 0xFFFF_FFFF_FF00_0000;
/// Room for one record's worst case: a split on every level, with all the children of the nodes.
const LOG_RESERVE: usize = 256 << 10;
/// Bytes of the ring that a log never uses, so that its end never meets its start.
pub(super) const RING_SLACK: u64 = 64 << 10;

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
    pub(super) tid: Tid,
}

impl Durable {
    /// The TID of the transaction that was committed last.
    pub fn tid(&self) -> Tid {
        self.tid
    }
}

/// A volume set that is open for writing.
pub struct Store {
    /// The committed state.
    pub(super) view: View,
    pub(super) options: StoreOptions,
    pub(super) recovered: Recovered,
    /// The first 16 KiB of the root volume as committed; the header is its beginning.
    pub(super) header_buffer: Buf,
    /// The header as the open transaction has it.
    pub(super) work: VolumeHeader,
    /// Volumes and the bytes of their whole big-blocks, by number.
    pub(super) spaces: Vec<(u8, u64)>,
    pub(super) frames: Frames,
    pub(super) stage: Stage,
    pub(super) resting: Resting,
    pub(super) ring: Ring,
    /// Where the log goes on.
    pub(super) append: Append,
    /// Start of the range to undo, as it is on the device.
    pub(super) first: u64,
    /// Whether commits leave that start alone.
    pub(super) held: bool,
    /// Whether a commit has left it alone.
    pub(super) behind: bool,
    /// Checkpoints that were committed.
    pub(super) committed: u64,
    /// Those of them that are beyond recall, while the start is held.
    pub(super) held_from: u64,
    /// TID of the last transaction that was committed.
    pub(super) last_tid: Tid,
    /// Bytes of file data handed to the device since the last checkpoint.
    pub(super) staged: u64,
    /// Writes of an abandoned transaction may be under way.
    pub(super) unsettled: bool,
    /// Whether the numbers of the log must jump before anything is logged.
    pub(super) jump_due: bool,
    pub(super) stamp: u64,
    pub(super) written: Written,
}

impl Store {
    /// Recovers the volumes (stage 1, durability.md §5) and opens them for writing. The devices
    /// must be open for writing and nobody else's.
    ///
    /// Errors: `Damage` where the FIFO or the header cannot be used, `Busy` where another system
    /// writes to the volumes, `Io`, `NoSpace`.
    pub fn open(set: VolumeSet, options: &StoreOptions) -> Result<Store> {
        super::recover::open(set, options)
    }

    /// What recovery found and did.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Begins a transaction with the next TID; `now` is in microseconds since 1970.
    pub fn begin(&mut self, now: u64) -> Result<Txn<'_>> {
        self.check()?;
        let tid = self.next_tid()?;
        self.txn(tid, now)
    }

    /// Begins a transaction that goes on under `tid`, the TID of an operation whose first
    /// checkpoints are committed.
    pub fn resume(&mut self, tid: Tid, now: u64) -> Result<Txn<'_>> {
        self.check()?;
        self.raise_tid(tid);
        self.txn(tid, now)
    }

    fn txn(&mut self, tid: Tid, now: u64) -> Result<Txn<'_>> {
        Ok(Txn {
            store: self,
            tid,
            now,
            checkpoints: 0,
            aside: None,
        })
    }

    /// An error if a write or flush has failed: the store does nothing more.
    fn check(&mut self) -> Result<()> {
        self.view.set().disks.check_latch()
    }

    fn next_tid(&mut self) -> Result<Tid> {
        let next = self.work.next_tid.get();
        let tid = next.saturating_add(TID_STEP) & !(TID_STEP - 1);
        if tid >= TID_MAX {
            return Err(no_more_tids());
        }
        self.work.next_tid.set(tid);
        Ok(Tid(tid))
    }

    /// The next TID will be above `tid`. One above [`Tid::LIMIT`] is not believed: damage is not to
    /// use up the TIDs.
    pub fn raise_tid(&mut self, tid: Tid) {
        if tid <= Tid::LIMIT {
            let next = self.work.next_tid.get().max(tid.0);
            self.work.next_tid.set(next);
        }
    }

    /// While held, commits leave the start of the range to undo where it is: a crash takes all of
    /// them back. For the replay of REDO records, which must not be half done. The first commit
    /// after it moves the start.
    pub fn hold(&mut self, held: bool) {
        if held && !self.held && !self.behind {
            self.held_from = self.committed;
        }
        self.held = held;
    }

    /// Checkpoints that no crash takes back.
    pub(super) fn beyond_recall(&self) -> u64 {
        match self.held || self.behind {
            true => self.held_from,
            false => self.committed,
        }
    }

    /// Proof that the committed state is durable. An error if the store is latched, or held.
    pub fn durable(&mut self) -> Result<Durable> {
        self.check()?;
        if self.behind {
            let text = "a crash would take back what was committed last";
            return Err(Error::new(Class::Other, text));
        }
        Ok(Durable { tid: self.last_tid })
    }

    /// Lets nothing more be written until the volumes are opened again, for the reason that `error`
    /// gives: the medium holds what only recovery can settle.
    pub fn poison(&mut self, error: &Error) {
        let disks = &mut self.view.set().disks;
        disks.latch(error.class(), error.to_string());
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
        self.written
    }

    /// Takes back what the open transaction changed since the last checkpoint.
    fn abandon(&mut self) {
        let next = self.work.next_tid;
        self.work = *self.view.header();
        self.work.next_tid = next;
        self.frames = Frames::default();
        self.stage.drop_pending();
        self.resting.forget(self.committed + 1);
        self.unsettled |= self.staged > 0;
        self.staged = 0;
        self.stamp += 1;
    }

    /// Bytes of the ring that must stay as they are: those that a crash leads back over, and a REDO
    /// log that may have to be replayed.
    pub(super) fn log_used(&self) -> u64 {
        let from = |pos| self.ring.distance(pos, self.append.pos);
        match self.recovered.redo.filter(|_| self.behind) {
            Some(redo) => from(self.first).max(from(redo)),
            None => from(self.first),
        }
    }

    /// The most that the log of one checkpoint may take, in bytes.
    pub(super) fn log_room(&self) -> u64 {
        let used = self.log_used();
        match self.held || self.behind {
            true => (self.ring.bytes() - used).saturating_sub(RING_SLACK),
            false => self.ring.bytes() / 2,
        }
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
    /// Buffers of metadata, those of each checkpoint counted once.
    pub buffers: u64,
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
    pub(super) store: &'s mut Store,
    tid: Tid,
    now: u64,
    checkpoints: u64,
    /// TIDs for the ids of objects, if they were set aside: those above the start, up to the end.
    aside: Option<Range<u64>>,
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        if self.is_dirty() {
            self.store.abandon();
        }
    }
}

impl Txn<'_> {
    /// The TID that this transaction's records carry.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// When it began, microseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The same in seconds, as leaf elements carry it.
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.now / 1_000_000).unwrap_or(u32::MAX)
    }

    /// The metadata (zones 8, 9 and 11, or zone 2 for the freemap) in `[at, at + len)`, to be
    /// changed; within one 16 KiB buffer. CRCs of nodes are set at commit; all others are the
    /// caller's. Call it again after anything else was asked of the transaction.
    pub fn modify(&mut self, at: Offset, len: usize) -> Result<&mut [u8]> {
        let (frame, range) = (buffer_of(at), at.in_buffer()..at.in_buffer() + len);
        if range.end > BUFFER || at.zone() == Zone::LARGE_DATA {
            let text = format!("address {at} (+{len}): not metadata within a buffer");
            return Err(Error::damage(text));
        }
        if self.store.frames.get(frame).is_none() {
            self.store.view.place(at, len)?;
            let old = self.store.view.frame(frame)?;
            self.store.frames.insert(frame, Frame::of(at.zone(), old));
        }
        // It was put there just now if it was not there.
        let bytes = self.store.frames.change(frame, range);
        bytes.ok_or_else(|| Error::damage(format!("the buffer at {frame} got lost")))
    }

    /// New space for `len` bytes in zone 8 to 11 (format.md §7.2). Zone-10 sizes are rounded up to
    /// 16 KiB. Contents are unspecified until filled. Errors: class `NoSpace`.
    pub fn allocate(&mut self, zone: Zone, len: usize) -> Result<Offset> {
        let at = self.take_space(zone, len)?;
        if zone == Zone::LARGE_DATA {
            return Ok(at);
        }
        let (frame, range) = (buffer_of(at), at.in_buffer()..at.in_buffer() + len);
        if self.store.frames.get(frame).is_none() {
            let new = match at.in_buffer() {
                // Space is handed out from the front: nothing of this buffer is in use.
                0 => Frame::fresh(zone),
                _ => Frame::of(zone, self.store.view.frame(frame)?),
            };
            self.store.frames.insert(frame, new);
        }
        if let Some(frame) = self.store.frames.get_mut(frame) {
            frame.allocated(&range);
        }
        Ok(at)
    }

    /// Writes `bytes` at the start of space that this checkpoint allocated; needs no UNDO. Zone-10
    /// data starts on its way to the device at once.
    pub fn fill(&mut self, at: Offset, bytes: &[u8]) -> Result<()> {
        if at.zone() != Zone::LARGE_DATA {
            self.modify(at, bytes.len())?.copy_from_slice(bytes);
            return Ok(());
        }
        let whole = bytes.len().next_multiple_of(BUFFER);
        if at.in_buffer() != 0 || whole > XBUFFER || at.in_bigblock() + whole as u64 > BIGBLOCK {
            let text = format!("address {at} (+{}): no place for file data", bytes.len());
            return Err(Error::damage(text));
        }
        let store = &mut *self.store;
        let (disk, place) = store.view.place(at, whole)?;
        store.view.drop_runs(buffer_of(at), whole / BUFFER);
        let disks = &mut store.view.set().disks;
        if store.unsettled {
            disks.finish_writes()?;
            store.stage.arrived();
            store.unsettled = false;
        }
        store.staged += whole as u64;
        store.written.data += whole as u64;
        if whole == bytes.len() {
            return store.stage.add(disks, disk, place, bytes);
        }
        let mut padded = vec![0; whole];
        padded[..bytes.len()].copy_from_slice(bytes);
        store.stage.add(disks, disk, place, &padded)
    }

    /// Gives back the space of `len` bytes at `at` (zones 8 to 11; rounded up to 16).
    pub fn free(&mut self, at: Offset, len: usize) -> Result<()> {
        self.give_back(at, len)
    }

    /// Sets the root node.
    pub fn set_root(&mut self, at: Offset) {
        self.store.work.btree_root.set(at.0);
    }

    /// Changes the count of live inodes.
    pub fn count_inodes(&mut self, by: i64) {
        let count = &mut self.store.work.stat_inodes;
        count.set(count.get().saturating_add(by));
    }

    /// A fresh TID for use as an object id. Errors: class `NoSpace` where there are no more.
    pub fn new_object(&mut self) -> Result<i64> {
        let tid = match &mut self.aside {
            None => self.store.next_tid()?,
            Some(aside) => {
                let tid = aside.start.saturating_add(TID_STEP) & !(TID_STEP - 1);
                if tid > aside.end {
                    let text = "one operation makes more objects than were set aside for it";
                    return Err(Error::new(Class::NoSpace, text));
                }
                aside.start = tid;
                Tid(tid)
            }
        };
        let text = "the file system has used up its object ids";
        i64::try_from(tid.0).map_err(|_| Error::new(Class::NoSpace, text))
    }

    /// Sets TIDs aside for `count` objects: later ones of this transaction are made of them, so that
    /// `vol0_next_tid`, which is given, stays as it is to the transaction's end.
    pub fn set_objects_aside(&mut self, count: u64) -> Result<Tid> {
        let first = self.store.work.next_tid.get();
        let end = first.saturating_add(count.saturating_mul(TID_STEP)) & !(TID_STEP - 1);
        if end >= TID_MAX {
            return Err(no_more_tids());
        }
        self.aside = Some(first..end);
        self.store.work.next_tid.set(first.max(end));
        Ok(Tid(self.store.work.next_tid.get()))
    }

    /// The allocator's next TID will be above `tid`, also after a crash once this is committed.
    pub fn raise_tid(&mut self, tid: Tid) {
        self.store.raise_tid(tid);
    }

    /// Whether the next record may no longer fit: a [`Txn::checkpoint`] is due. Ask before every
    /// record that is inserted, changed or removed.
    pub fn is_full(&self) -> bool {
        let store = &self.store;
        let log = store.frames.log_bytes() + LOG_RESERVE;
        store.frames.bytes() >= store.options.dirty_bytes || log as u64 >= store.log_room()
    }

    /// Whether anything was changed since the last checkpoint.
    pub fn is_dirty(&self) -> bool {
        let store = &self.store;
        store.behind && !store.held
            || !store.frames.is_empty()
            || store.staged > 0
            || !same_but_tid(&store.work, store.view.header())
    }

    /// How many checkpoints this transaction has made.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// Makes what was changed so far durable and goes on under the same TID. What is committed
    /// this way is not taken back by dropping the transaction.
    pub fn checkpoint(&mut self) -> Result<Durable> {
        self.store.check()?;
        self.checkpoints += 1;
        if !self.is_dirty() {
            // While held, a crash takes back what was committed before: this proves nothing.
            let tid = if self.store.behind {
                Tid::ZERO
            } else {
                self.tid
            };
            return Ok(Durable { tid });
        }
        let (tid, now) = (self.tid, self.now);
        let prepared = super::checkpoint::Prepared::new(self.store)?;
        let done = prepared
            .log()
            .and_then(|logged| logged.write())
            .and_then(|written| written.advance(tid, now));
        if let Err(error) = &done {
            // The transaction's buffers are gone, and the device has some of them.
            let disks = &mut self.store.view.set().disks;
            disks.latch(error.class(), error.to_string());
        }
        done
    }

    /// Makes the changes durable. Without changes nothing is written.
    pub fn commit(mut self) -> Result<Durable> {
        self.checkpoint()
    }

    /// A number that differs between two calls if the tree's nodes may have moved or changed
    /// shape in between; editors that remember a place compare it.
    pub fn tree_stamp(&self) -> u64 {
        self.store.stamp
    }

    /// Notes that the tree's nodes changed shape.
    pub fn bump_tree(&mut self) {
        self.store.stamp += 1;
    }

    /// What the store wrote so far, other transactions included.
    pub fn written(&self) -> Written {
        self.store.written
    }

    /// Waits for file data on its way to the device, if any of it lies in the range.
    fn settle_data(&mut self, at: Offset, len: usize) -> Result<()> {
        let store = &mut *self.store;
        let (disk, place) = store.view.place(at, len)?;
        if store.stage.overlaps(disk, place, len) {
            let disks = &mut store.view.set().disks;
            store.stage.start(disks)?;
            disks.finish_writes()?;
            store.stage.arrived();
        }
        Ok(())
    }
}

fn no_more_tids() -> Error {
    Error::new(Class::NoSpace, "the file system has used up its TIDs")
}

/// The zone-2 address of the buffer that holds `at`.
fn buffer_of(at: Offset) -> Offset {
    at.in_zone(Zone::RAW_BUFFER).buffer()
}

/// Whether two headers differ in nothing but the base of the TID allocator, which alone is not
/// worth a checkpoint.
fn same_but_tid(a: &VolumeHeader, b: &VolumeHeader) -> bool {
    use zerocopy::IntoBytes;
    let mut a = *a;
    a.next_tid = b.next_tid;
    a.as_bytes() == b.as_bytes()
}

impl Fetch for Txn<'_> {
    fn header(&self) -> &VolumeHeader {
        &self.store.work
    }

    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        if at.zone() == Zone::LARGE_DATA {
            self.settle_data(at, len)?;
            return self.store.view.bytes(at, len);
        }
        let end = at.in_buffer() + len;
        if end <= BUFFER {
            return match self.store.frames.get(buffer_of(at)) {
                Some(frame) => Ok(Bytes::new(Arc::clone(&frame.now)).slice(at.in_buffer()..end)),
                None => self.store.view.bytes(at, len),
            };
        }
        // Nothing of ours crosses buffers; an odd record of somebody else's may.
        let mut whole = Buf::copy_of(&self.store.view.bytes(at, len)?);
        let mut done = 0;
        while done < len {
            let here = Offset(at.0 + done as u64);
            let take = (BUFFER - here.in_buffer()).min(len - done);
            if let Some(frame) = self.store.frames.get(buffer_of(here)) {
                let piece = &frame.now[here.in_buffer()..here.in_buffer() + take];
                whole[done..done + take].copy_from_slice(piece);
            }
            done += take;
        }
        Ok(Bytes::new(Arc::new(whole)))
    }

    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        let changed = self.store.frames.get(buffer_of(at));
        let Some(frame) = changed.filter(|frame| {
            at.zone() == Zone::BTREE && frame.nodes >> (at.in_buffer() / NODE_SIZE) & 1 != 0
        }) else {
            return self.store.view.node(at);
        };
        if !at.0.is_multiple_of(NODE_SIZE as u64) {
            let expected = "a multiple of 4096 in zone 8";
            return Err(Fault::new(Rule::NodeAddress, at, expected, at).into());
        }
        // Its CRC is set at the checkpoint; what we put together has the right shape.
        let range = at.in_buffer()..at.in_buffer() + NODE_SIZE;
        NodeRef::new(Bytes::new(Arc::clone(&frame.now)).slice(range))
            .ok_or_else(|| Error::damage(format!("no node at {at}")))
    }

    fn want(&mut self, extents: &[(Offset, usize)]) {
        self.store.view.want(extents);
    }

    fn readahead(&self) -> usize {
        self.store.view.readahead()
    }

    fn forget(&mut self, at: Offset, len: usize) {
        self.store.view.forget(at, len);
    }
}
