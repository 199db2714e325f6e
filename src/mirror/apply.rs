//! The records of one batch made true in a slave PFS (mirroring.md §7).
//!
//! Keys ascend strictly, and so does the place in the slave up to which everything is resolved. What
//! the slave has between two records of the stream and the source did not mention does not exist
//! there any more, except in skipped ranges.
//!
//! The slave's own elements are read some way ahead: changes happen only at or below the place that
//! is resolved, so what was read stays true. An empty slave costs one look.
//!
//! Nothing that is published changes before [`Applier::complete`]: records are created above the
//! slave's `sync_end_tid`, deletions carry a TID above it, and what exists keeps its data. Parts of
//! a batch may therefore become durable at any time.

use super::ack::Ack;
use super::arrival::{TID_LIMIT, element_key, localized, refused, stored};
use super::damage::{Damage, Damages, What};
use super::own::{Ahead, Fate};
use super::takeback;
use crate::btree::Editor;
use crate::btree::put::{self, NewRecord};
use crate::error::{Error, Result};
use crate::format::mark::{self, MARK_SIZE};
use crate::format::node::{Base, LeafElement};
use crate::format::record::rt;
use crate::format::{CrcKind, Key, Localization, Tid};
use crate::fs::{pfs, pfs_edit};
use crate::store::{Durable, Fetch, Txn};

/// What a batch is about, as the target sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The slave PFS.
    pub pfs: u16,
    /// Records created before this TID are not made anew.
    pub begin: Tid,
    /// The end of the window: what the slave will have.
    pub end: Tid,
    /// The slave's `sync_end_tid`: what it has.
    pub synced: Tid,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records created.
    pub created: u64,
    /// Bytes of data of those.
    pub bytes: u64,
    /// Records marked deleted, or deleted at another TID, because the source said so.
    pub deleted: u64,
    /// Records deleted because the source did not mention them.
    pub gap_deleted: u64,
    /// Records that came and were there already.
    pub existing: u64,
    /// Records that came, are older than what the batch creates, and are not there.
    pub dropped: u64,
    /// Elements met that were live as of the end of the window.
    pub live: u64,
}

impl Applied {
    /// Adds what another batch did.
    pub fn add(&mut self, other: &Applied) {
        self.created += other.created;
        self.bytes += other.bytes;
        self.deleted += other.deleted;
        self.gap_deleted += other.gap_deleted;
        self.existing += other.existing;
        self.dropped += other.dropped;
        self.live += other.live;
    }

    /// Whether so much of what was met is deleted without a word of the source that the source is
    /// probably the wrong one.
    pub fn brakes(&self) -> bool {
        self.gap_deleted > BRAKE_FLOOR && self.gap_deleted > self.live / 2
    }
}

/// Under which terms a batch may be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Though it deletes most of what it met.
    pub allow_deletes: bool,
    /// Though not everything of it arrived whole.
    pub accept_damage: bool,
    /// Though the source does not go as far as the slave: what lies behind its end is not looked at.
    pub allow_older: bool,
    /// In no case: an earlier batch of the session was not acknowledged.
    pub withhold: bool,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It is durable and acknowledged.
    Acknowledged(Ack),
    /// It is durable and not acknowledged: something was damaged or dropped.
    Withheld,
    /// It deletes too much. The transaction is gone; [`super::takeback::take_back`] does the rest.
    Braked,
}

/// Fewer implied deletions than this never stop a batch.
pub const BRAKE_FLOOR: u64 = 10_000;

/// Applies one batch. It belongs to one transaction at a time; after an error both are to be
/// dropped, and the batch begins anew.
pub struct Applier {
    batch: Batch,
    editor: Editor,
    ahead: Ahead,
    /// Everything below is resolved; the flag: not at it.
    place: (Key, bool),
    /// What a checkpoint notes about how far the pass came.
    cursor: Option<mark::Cursor>,
    /// Whether the batch may delete most of what it meets.
    allow_deletes: bool,
    applied: Applied,
    damage: Damages,
    raised: Tid,
    hint: CrcKind,
}

impl Applier {
    /// For one batch. Errors, of class `Protocol`: TIDs that no window has.
    pub fn new(batch: Batch) -> Result<Applier> {
        if batch.end > TID_LIMIT || batch.end < Tid(1) {
            let end = batch.end;
            return Err(refused(format!(
                "a window that ends at {end} is impossible"
            )));
        }
        let start = Key::pfs_min(batch.pfs);
        Ok(Applier {
            batch,
            editor: Editor::new(),
            ahead: Ahead::from(start, Key::pfs_max(batch.pfs)),
            place: (start, true),
            cursor: None,
            allow_deletes: false,
            applied: Applied::default(),
            damage: Damages::default(),
            raised: Tid::ZERO,
            hint: CrcKind::Castagnoli,
        })
    }

    /// Lets every checkpoint note, in the slave's PFS record, how far the pass is: `cursor` with the
    /// key put in. While the pass is below `cursor.key` (where an earlier one stopped), what is
    /// noted stays.
    pub fn note_progress(&mut self, cursor: mark::Cursor) {
        self.cursor = Some(cursor);
    }

    /// Lets the batch delete most of what it meets. Without this, a batch that is interrupted while it
    /// does leaves a mark: whoever opens the volume next takes it back, lest the next pass publish
    /// deletions of the wrong source.
    pub fn allow_deletes(&mut self, allowed: bool) {
        self.allow_deletes = allowed;
    }

    /// The batch.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// What was done so far.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// What did not arrive whole.
    pub fn damage(&self) -> &Damages {
        &self.damage
    }

    /// The first key, in the slave's PFS, that is not resolved.
    pub fn position(&self) -> Key {
        match self.place {
            (key, true) => key,
            (key, false) => successor(key),
        }
    }

    /// An element created in the window, with its data. Data that is not what the element's CRC says
    /// is damage: see [`Applier::damaged`].
    pub fn rec(&mut self, txn: &mut Txn<'_>, leaf: &LeafElement, data: &[u8]) -> Result<()> {
        let key = self.arrive(txn, leaf)?;
        if leaf.base.create_tid() > self.batch.end {
            let (tid, end) = (leaf.base.create_tid(), self.batch.end);
            return Err(refused(format!(
                "a record created at {tid}, behind the window's end {end}, at {key}"
            )));
        }
        if key.rec_type == rt::CONFIG {
            return Ok(());
        }
        if let Some(own) = self.take_own(key) {
            self.applied.existing += 1;
            return self.follow(txn, &own, leaf);
        }
        let version = txn.version();
        let Some(stored) = stored(leaf, data, self.batch.pfs, version, &mut self.hint)? else {
            let text = "its data is not what its CRC says".to_owned();
            self.damage.add(&Damage::record(leaf, What::Sum, text));
            return Ok(());
        };
        if leaf.base.create_tid() < self.batch.begin {
            self.applied.dropped += 1;
            return Ok(());
        }
        let record = NewRecord {
            base: Base {
                localization: key.localization.0.into(),
                ..leaf.base
            },
            create_ts: leaf.create_ts.get(),
            delete_ts: leaf.delete_ts.get(),
            data: &stored.data,
            crc: Some(stored.crc),
        };
        put::create(&mut self.editor, txn, &record)?;
        self.raise(txn, leaf);
        self.applied.created += 1;
        self.applied.bytes += stored.data.len() as u64;
        Ok(())
    }

    /// An older element, as the source has it now.
    pub fn pass(&mut self, txn: &mut Txn<'_>, leaf: &LeafElement) -> Result<()> {
        let key = self.arrive(txn, leaf)?;
        if key.rec_type == rt::CONFIG {
            return Ok(());
        }
        match self.take_own(key) {
            Some(own) => self.follow(txn, &own, leaf),
            None => Ok(()),
        }
    }

    /// An element whose data the source could not read: it exists, and is what it is here. Counted,
    /// and as long as it is, the batch is not acknowledged.
    pub fn damaged(
        &mut self,
        txn: &mut Txn<'_>,
        leaf: &LeafElement,
        damage: &Damage,
    ) -> Result<()> {
        self.damage.add(damage);
        self.pass(txn, leaf)
    }

    /// Nothing is said of `[from, to)`.
    pub fn skip(&mut self, txn: &mut Txn<'_>, from: &Base, to: &Base) -> Result<()> {
        let from = localized(from, self.batch.pfs);
        let to = localized(to, self.batch.pfs);
        self.ascend(from)?;
        if from > to {
            return Err(refused(format!(
                "a range that ends before its begin {from}"
            )));
        }
        self.delete_to(txn, Some(from))?;
        self.ahead.jump(to);
        self.place = (to, true);
        Ok(())
    }

    /// A range of which the source could not say anything: skipped, and counted as damage.
    pub fn unreadable(
        &mut self,
        txn: &mut Txn<'_>,
        from: &Base,
        to: &Base,
        damage: &Damage,
    ) -> Result<()> {
        self.damage.add(damage);
        self.skip(txn, from, to)
    }

    /// The source has said everything: what is left of the slave does not exist any more. Only after
    /// SYNC.
    pub fn finish(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        self.delete_to(txn, None)?;
        self.place = (Key::pfs_max(self.batch.pfs), false);
        Ok(())
    }

    /// Finishes the batch, stores its end as the slave's `sync_end_tid` in its last transaction, and
    /// makes it durable. What may not be acknowledged under `terms` is not.
    pub fn complete(&mut self, mut txn: Txn<'_>, terms: Terms) -> Result<Ending> {
        self.finish(&mut txn)?;
        if !terms.allow_deletes && self.brakes() {
            return Ok(Ending::Braked);
        }
        let whole = self.damage.is_empty() && self.applied.dropped == 0;
        if terms.withhold || (!whole && !terms.accept_damage) {
            self.note(&mut txn)?;
            txn.commit()?;
            return Ok(Ending::Withheld);
        }
        self.room(&mut txn)?;
        self.publish(&mut txn)?;
        let proof = txn.commit()?;
        Ok(Ending::Acknowledged(Ack::committed(self.batch.end, proof)))
    }

    /// Ends the work on a batch that is not complete, and keeps what was done of it.
    pub fn suspend(&mut self, mut txn: Txn<'_>) -> Result<Durable> {
        self.note(&mut txn)?;
        txn.commit()
    }

    /// Makes what was done so far durable, and notes how far that is.
    pub fn checkpoint(&mut self, txn: &mut Txn<'_>) -> Result<Durable> {
        self.note(txn)?;
        txn.checkpoint()
    }

    /// Whether the batch deletes so much without a word of the source that the source is probably
    /// the wrong one.
    pub fn brakes(&self) -> bool {
        self.applied.brakes()
    }

    /// Takes the next element: what lies below is resolved, and so is its own key. Gives the key.
    fn arrive(&mut self, txn: &mut Txn<'_>, leaf: &LeafElement) -> Result<Key> {
        let key = element_key(leaf, self.batch.pfs)?;
        self.ascend(key)?;
        self.delete_to(txn, Some(key))?;
        // Before the place moves: a checkpoint must not note as resolved what is yet to be done.
        self.room(txn)?;
        self.place = (key, false);
        Ok(key)
    }

    /// Keys ascend; an element that came is not there a second time.
    fn ascend(&self, key: Key) -> Result<()> {
        let in_order = match self.place {
            (place, true) => key >= place,
            (place, false) => key > place,
        };
        match in_order {
            true => Ok(()),
            false => Err(refused(format!("keys do not ascend at {key}"))),
        }
    }

    /// The slave's own element with this key, of those read ahead; it counts as visited.
    fn take_own(&mut self, key: Key) -> Option<LeafElement> {
        let own = self.ahead.take(key)?;
        self.applied.live += u64::from(own.visible(self.batch.end));
        Some(own)
    }

    /// Deletes what the source does not mention: every element from the place on, below `to`, or
    /// to the end of the PFS.
    fn delete_to(&mut self, txn: &mut Txn<'_>, to: Option<Key>) -> Result<()> {
        loop {
            let Some(own) = self.ahead.front(txn)? else {
                return Ok(());
            };
            let key = own.base.key();
            if to.is_some_and(|to| key >= to) {
                return Ok(());
            }
            self.ahead.take(key);
            self.unmentioned(txn, &own)?;
            self.place = (key, false);
        }
    }

    fn unmentioned(&mut self, txn: &mut Txn<'_>, own: &LeafElement) -> Result<()> {
        let fate = Fate::of(own, &self.batch);
        self.applied.live += u64::from(own.visible(self.batch.end));
        if fate == Fate::Stays {
            return Ok(());
        }
        self.room(txn)?;
        let key = own.base.key();
        match fate {
            Fate::Stays => {}
            Fate::Destroyed => {
                put::destroy(&mut self.editor, txn, key, Tid::ZERO)?;
            }
            Fate::Deleted => {
                let (end, now) = (self.batch.end, txn.now_seconds());
                put::mark_deleted(&mut self.editor, txn, key, end, now)?;
                self.raise_to(txn, end);
            }
        }
        self.applied.gap_deleted += 1;
        Ok(())
    }

    /// Gives the slave's element the deletion that the source's has. Nothing else of an element that
    /// exists ever changes, and a deletion is never taken back.
    fn follow(&mut self, txn: &mut Txn<'_>, own: &LeafElement, leaf: &LeafElement) -> Result<()> {
        let tid = leaf.base.delete_tid();
        // One from behind the window's end comes again in its own window, unless its source takes it
        // back before.
        if tid.is_zero() || tid == own.base.delete_tid() || tid > self.batch.end {
            return Ok(());
        }
        let Some(tid) = published_stays(own.base.delete_tid(), tid, &self.batch) else {
            return Ok(());
        };
        let (key, seconds) = (own.base.key(), leaf.delete_ts.get());
        put::mark_deleted(&mut self.editor, txn, key, tid, seconds)?;
        self.raise(txn, leaf);
        self.raise_to(txn, tid);
        self.applied.deleted += 1;
        Ok(())
    }

    /// Sees to it that one more record fits into the transaction.
    fn room(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        if txn.is_full() {
            self.checkpoint(txn)?;
        }
        Ok(())
    }

    /// Object ids come from the same counter at the source: one that this slave gives out after an
    /// upgrade must not meet them.
    fn raise(&mut self, txn: &mut Txn<'_>, leaf: &LeafElement) {
        let obj = Tid(leaf.base.obj_id.get().max(0).cast_unsigned());
        let (create, delete) = (leaf.base.create_tid(), leaf.base.delete_tid());
        self.raise_to(txn, create.max(delete).max(obj));
    }

    /// The slave's own TIDs stay above those that it was given.
    fn raise_to(&mut self, txn: &mut Txn<'_>, tid: Tid) {
        if tid > self.raised {
            self.raised = tid;
            txn.raise_tid(tid);
        }
    }

    /// Notes in the slave's PFS record how far the pass is.
    fn note(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        let id = self.batch.pfs;
        if !self.allow_deletes && self.brakes() {
            let Some(first) = takeback::first(txn, id)? else {
                return Ok(());
            };
            return pfs_edit::set_mark(&mut self.editor, txn, id, &first.to_bytes());
        }
        // A record that does not belong into the window leaves it open what lies below.
        if self.applied.dropped > 0 {
            return Ok(());
        }
        let mut key = self.position();
        // What did not arrive is not resolved.
        if let Some(damage) = self.damage.first.first() {
            let class = damage.from.localization.class();
            let localization = Localization::new(id, class);
            key = key.min(Key {
                localization,
                ..damage.from
            });
        }
        let Some(cursor) = self.cursor.filter(|cursor| key > cursor.key) else {
            return Ok(());
        };
        let bytes = mark::Cursor { key, ..cursor }.to_bytes();
        pfs_edit::set_mark(&mut self.editor, txn, id, &bytes)
    }

    /// Stores the batch's end as what the slave has, if that is not so yet.
    fn publish(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        let id = self.batch.pfs;
        let Some(mut data) = pfs::record(txn, id)? else {
            return Err(Error::usage(format!("PFS {id} does not exist any more")));
        };
        let clean = data.reserved03 == [0; MARK_SIZE];
        if data.sync_end_tid() == self.batch.end && clean {
            return Ok(());
        }
        data.sync_end_tid.set(self.batch.end.0);
        pfs_edit::store_record(&mut self.editor, txn, id, &data)?;
        self.raise_to(txn, self.batch.end);
        Ok(())
    }
}

/// The deletion to give an element that is deleted at `own` (0: not) and, as its source says, at
/// `told`: the source's, unless that changes what the slave has published. A deletion that the source
/// should have told of earlier comes as early as it can; `None` if nothing is to change.
fn published_stays(own: Tid, told: Tid, batch: &Batch) -> Option<Tid> {
    let published = batch.synced;
    // An older window, which was forced.
    if batch.end < published {
        return Some(told);
    }
    let was_published = !own.is_zero() && own <= published;
    let tid = told.max(published.next());
    (!was_published && tid <= batch.end && tid != own).then_some(tid)
}

/// The next key of one that an element of a stream can have.
pub(super) fn successor(key: Key) -> Key {
    Key {
        create_tid: Tid(key.create_tid.0.wrapping_add(1)),
        ..key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn deletions_leave_alone_what_is_published() {
        let batch = |end| Batch {
            pfs: 1,
            begin: Tid(1),
            end: Tid(end),
            synced: Tid(50),
        };
        for (own, told, end, expected) in [
            (0, 60, 100, Some(60)),
            (70, 60, 100, Some(60)),
            (0, 20, 100, Some(51)),
            (51, 20, 100, None),
            (0, 20, 50, None),
            (20, 60, 100, None),
            (50, 20, 100, None),
            (30, 20, 40, Some(20)),
        ] {
            let found = published_stays(Tid(own), Tid(told), &batch(end));
            assert_eq!(found, expected.map(Tid), "{own} {told} {end}");
        }
    }

    #[test]
    fn brakes_need_many_and_most() {
        let batch = Batch {
            pfs: 1,
            begin: Tid(1),
            end: Tid(100),
            synced: Tid(1),
        };
        let mut applier = Applier::new(batch).unwrap();
        for (gap_deleted, live, expected) in [
            (10_000, 10_000, false),
            (10_001, 10_001, true),
            (10_001, 20_001, true),
            (10_001, 20_002, false),
            (0, 0, false),
        ] {
            applier.applied.gap_deleted = gap_deleted;
            applier.applied.live = live;
            assert_eq!(applier.brakes(), expected, "{gap_deleted} of {live}");
        }
    }

    #[test]
    fn impossible_windows_are_refused() {
        let batch = |end| Batch {
            pfs: 1,
            begin: Tid(1),
            end: Tid(end),
            synced: Tid(1),
        };
        assert!(Applier::new(batch(u64::MAX)).is_err());
        assert!(Applier::new(batch(0)).is_err());
        assert!(Applier::new(batch(1)).is_ok());
    }
}
