//! One operation of a user: one TID, all or nothing, however many checkpoints it takes.
//!
//! What fits one checkpoint is a transaction and nothing more. The first checkpoint of a longer one
//! carries an [`Intent`] in the PFS's record: while that stands, every reader takes the PFS as of
//! before the operation ([`super::pfs`]), and whoever opens the volume for writing takes the
//! operation back ([`super::recover`]). The last checkpoint clears it, and with that the operation is
//! there.
//!
//! The intent names the header's `vol0_next_tid`, which another system raises with whatever it
//! writes. So it must be the same in all checkpoints: the TIDs for the ids of objects to come are
//! set aside before the first.
//!
//! So that it can be taken back, nothing older than the operation is destroyed before it is there.
//! Old versions of objects without history go in its last checkpoint if that is the only one, else
//! in checkpoints behind it; a crash before these leaves them as history.

use super::ops::{Forget, History, Ops, Sweep};
use super::pfs::record_key;
use super::pfs_edit::{set_mark, store_record};
use super::rollback::{Rollback, RolledBack, roll_back};
use crate::btree;
use crate::btree::{Editor, Scan, Step};
use crate::error::{Error, Result};
use crate::format::mark::{Intent, MARK_SIZE};
use crate::format::node::LeafElement;
use crate::format::record::PfsData;
use crate::format::{Key, Tid};
use crate::progress::Progress;
use crate::store::{Durable, Fetch, Store, Txn, Written};

/// Objects that an operation of more than one checkpoint can still make after the first.
const OBJECTS: u64 = 1 << 28;

/// An operation under way. Made by [`run`].
pub struct Operation<'s> {
    txn: Txn<'s>,
    ops: Ops,
    /// Whether a checkpoint with an intent was made.
    marked: bool,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Its TID.
    pub tid: Tid,
    /// Whether it changed anything; without a change nothing was written.
    pub changed: bool,
    /// Whether old versions of objects without history are still there: the operation is complete,
    /// but the medium failed before they could be destroyed.
    pub left_over: bool,
    /// Proof that it stays.
    pub durable: Durable,
    /// What it wrote.
    pub written: Written,
}

/// Carries out `body` on PFS `pfs` as one operation; `now` is in microseconds since 1970.
///
/// If `body` fails, or what it did cannot be made durable, nothing has changed: what was made
/// durable on the way is taken back, at once or, where the medium has failed, by whoever opens the
/// volume for writing next.
pub fn run<T>(
    store: &mut Store,
    pfs: u16,
    now: u64,
    body: impl FnOnce(&mut Operation<'_>) -> Result<T>,
) -> Result<(T, Done)> {
    ensure_record(store, pfs, now)?;
    let before = store.written();
    let mut operation = Operation {
        txn: store.begin(now)?,
        ops: Ops::with(pfs, History::Later),
        marked: false,
    };
    let tid = operation.txn.tid();
    let value = match body(&mut operation) {
        Ok(value) => value,
        Err(error) => {
            let marked = operation.marked;
            drop(operation);
            return Err(undo(store, pfs, tid, now, marked, error));
        }
    };
    let (marked, changed) = (operation.marked, operation.is_dirty());
    let (durable, owes) = match operation.commit() {
        Ok(end) => end,
        Err(error) => return Err(undo(store, pfs, tid, now, marked, error)),
    };
    // Whatever comes of this, the operation is there.
    let left_over = owes && forget(store, pfs, tid, now).is_err();
    let done = Done {
        tid,
        changed,
        left_over,
        durable,
        written: difference(store.written(), before),
    };
    Ok((value, done))
}

/// Destroys the old versions that a committed operation of several checkpoints has left of objects
/// without history.
fn forget(store: &mut Store, pfs: u16, tid: Tid, now: u64) -> Result<()> {
    // No record carries the TID of this transaction, so it need not use one up.
    let mut txn = store.resume(tid, now)?;
    let (mut forget, mut editor) = (Forget::new(pfs, tid), Editor::new());
    while !forget.step(&mut editor, &mut txn)? {
        txn.checkpoint()?;
    }
    txn.commit()?;
    Ok(())
}

/// Takes back what a failed operation has made durable, and gives the error to report. If that fails
/// too, the store is of no more use: whatever it committed would make the intent look like one that
/// another system has built on.
fn undo(store: &mut Store, pfs: u16, tid: Tid, now: u64, marked: bool, error: Error) -> Error {
    if !marked {
        return error;
    }
    // Nobody may end this one half way, not even whoever ended the operation.
    match take_back(store, pfs, tid, now, &mut ()) {
        Ok(_) => error,
        Err(second) => {
            let error = error.context(format_args!(
                "half of it is on the medium, unseen by readers, and could not be taken back \
                 ({second}); it is taken back when the volume is next opened for writing"
            ));
            store.poison(&second.context("half an operation could not be taken back"));
            error
        }
    }
}

/// Takes back the operation `tid` on PFS `pfs`, and clears its intent. Interrupted by a crash, it is
/// repeated at the next opening: the header's `vol0_next_tid` stays as the intent says.
fn take_back(
    store: &mut Store,
    pfs: u16,
    tid: Tid,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let what = Rollback {
        pfs,
        to: Tid(tid.0.saturating_sub(1)),
        spare_local: true,
    };
    let back = roll_back(store, &what, now, progress)?;
    let mut txn = store.resume(tid, now)?;
    set_mark(&mut Editor::new(), &mut txn, pfs, &[0; MARK_SIZE])?;
    txn.commit()?;
    Ok(back)
}

/// Sees to it that the PFS has a record, which an intent needs; PFS 0 can be without.
fn ensure_record(store: &mut Store, id: u16, now: u64) -> Result<()> {
    if btree::lookup(store.view(), record_key(id), Tid::MAX)?.is_some() {
        return Ok(());
    }
    if id != 0 {
        return Err(Error::usage(format!("there is no PFS {id}")));
    }
    let mut txn = store.begin(now)?;
    let data = PfsData::default_for(txn.header().fsid);
    store_record(&mut Editor::new(), &mut txn, 0, &data)?;
    txn.commit()?;
    Ok(())
}

fn difference(after: Written, before: Written) -> Written {
    Written {
        data: after.data.saturating_sub(before.data),
        undo: after.undo.saturating_sub(before.undo),
        meta: after.meta.saturating_sub(before.meta),
        buffers: after.buffers.saturating_sub(before.buffers),
        flushes: after.flushes.saturating_sub(before.flushes),
        checkpoints: after.checkpoints.saturating_sub(before.checkpoints),
        flush_ns: after.flush_ns.saturating_sub(before.flush_ns),
    }
}

impl<'s> Operation<'s> {
    /// The operation's TID.
    pub fn tid(&self) -> Tid {
        self.txn.tid()
    }

    /// The PFS that it works on.
    pub fn pfs(&self) -> u16 {
        self.ops.pfs()
    }

    /// The picture, its own changes included.
    pub fn txn(&mut self) -> &mut Txn<'s> {
        &mut self.txn
    }

    /// Changes to files, and the transaction that they need. One record at a time fits behind a
    /// call of [`Operation::room`].
    pub fn parts(&mut self) -> (&mut Txn<'s>, &mut Ops) {
        (&mut self.txn, &mut self.ops)
    }

    /// Makes one small change: a few records.
    pub fn step<T>(
        &mut self,
        change: impl FnOnce(&mut Txn<'s>, &mut Ops) -> Result<T>,
    ) -> Result<T> {
        self.room()?;
        change(&mut self.txn, &mut self.ops)
    }

    /// Sees to it that the next record fits: makes a checkpoint if need be, be it for the log or for
    /// the space that the operation itself has freed.
    pub fn room(&mut self) -> Result<()> {
        match self.txn.is_full() || self.txn.is_cramped() {
            true => self.checkpoint(),
            false => Ok(()),
        }
    }

    /// Carries out what a change has left to be done.
    pub fn sweep(&mut self, sweep: Option<Sweep>) -> Result<()> {
        let Some(mut sweep) = sweep else {
            return Ok(());
        };
        while !sweep.step(&mut self.ops, &mut self.txn)? {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes what was changed so far durable, and unseen by readers.
    fn checkpoint(&mut self) -> Result<()> {
        if !self.marked {
            let next_tid = self.txn.set_objects_aside(OBJECTS)?;
            let leaf = btree::lookup(&mut self.txn, record_key(self.ops.pfs()), Tid::MAX)?;
            let leaf = leaf.ok_or_else(|| Error::damage("the PFS has lost its record"))?;
            let intent = Intent {
                tid: self.txn.tid(),
                next_tid,
                own_leaf: leaf.base.create_tid(),
            };
            self.mark(&intent.to_bytes())?;
            // From here on a failure may leave it on the medium.
            self.marked = true;
        }
        self.txn.checkpoint()?;
        Ok(())
    }

    fn mark(&mut self, mark: &[u8; MARK_SIZE]) -> Result<()> {
        let pfs = self.ops.pfs();
        set_mark(self.ops.editor(), &mut self.txn, pfs, mark)
    }

    fn is_dirty(&self) -> bool {
        self.marked || self.txn.is_dirty()
    }

    /// Ends it; says too whether a [`forget`] is due.
    fn commit(mut self) -> Result<(Durable, bool)> {
        let mut owes = self.ops.owes();
        if self.marked {
            self.room()?;
            self.mark(&[0; MARK_SIZE])?;
        } else if owes && !self.txn.is_full() {
            // Nothing is on the medium yet: what fits goes in the same checkpoint.
            let mut forget = Forget::new(self.ops.pfs(), self.txn.tid());
            owes = !forget.step(self.ops.editor(), &mut self.txn)?;
        }
        Ok((self.txn.commit()?, owes))
    }
}

/// How many records of PFS `pfs` were made or deleted at `tid`, as they stand now.
pub fn records<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16, tid: Tid) -> Result<u64> {
    let mut scan = Scan::new(Key::pfs_min(pfs), Key::pfs_max(pfs), tid);
    let mut count = 0;
    while let Some(step) = scan.next(fetch)? {
        if let Step::Leaf(leaf) = step {
            let touched =
                |e: &&LeafElement| e.base.create_tid() == tid || e.base.delete_tid() == tid;
            count += leaf.elements().iter().filter(touched).count() as u64;
        }
    }
    Ok(count)
}
