//! Opening a file system for writing: the store's recovery (UNDO), then what only this room can do:
//! the REDO log replayed, a half-done operation taken back, TIDs kept apart from those in use.

use super::pfs::{self, Pfs};
use super::rollback::{Rollback, roll_back};
use super::{pfs_edit, redo};
use crate::btree::Editor;
use crate::error::Result;
use crate::format::Tid;
use crate::format::mark::{Cursor, Intent, MARK_SIZE};
use crate::store::{Fetch, Store, StoreOptions, VolumeSet};

/// How to open.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// For the store.
    pub store: StoreOptions,
    /// Replay the REDO log; without it, what programs had made durable by fsync since the crashed
    /// system's last flush is lost.
    pub redo: bool,
    /// Microseconds since 1970.
    pub now: u64,
}

/// What opening did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// UNDO records taken back.
    pub undone: u64,
    /// Writes and truncations of the REDO log carried out.
    pub redone: u64,
    /// Those left out, with the reason: an object that does not exist any more.
    pub not_redone: Vec<String>,
    /// Half-done operations taken back.
    pub rolled_back: u64,
}

/// Opens a volume set for writing. Repeating it after a crash comes to the same end.
///
/// Errors: those of [`Store::open`], [`redo::replay`] and [`roll_back`].
pub fn open(set: VolumeSet, options: &OpenOptions) -> Result<(Store, Report)> {
    let mut store = Store::open(set, &options.store)?;
    // As an operation's checkpoints left it; whatever is committed from here on may raise it.
    let next_tid = store.view().header().next_tid();
    let mut report = Report {
        undone: store.recovered().undone,
        ..Report::default()
    };
    // Until the REDO log is replayed, or given up, a crash must lead back to where it can be.
    store.hold(store.recovered().redo.is_some());
    report.rolled_back = take_back(&mut store, next_tid, options.now)?;
    store.hold(false);
    if options.redo {
        let redone = redo::replay(&mut store, options.now)?;
        report.redone = redone.done;
        report.not_redone = redone.skipped;
    }
    if store.recovered().redo.is_some() {
        // Nothing but this moves the log's start away from what was replayed, or left out.
        store.begin(options.now)?.commit()?;
    }
    raise_tids(&mut store)?;
    Ok((store, report))
}

/// The next TID will be above all in use.
fn raise_tids(store: &mut Store) -> Result<()> {
    let end = pfs::committed_end(store.view())?;
    store.raise_tid(end);
    for pfs in pfs::all(store.view())? {
        for tid in [pfs.data.sync_beg_tid, pfs.data.sync_end_tid] {
            store.raise_tid(Tid(tid.get()));
        }
    }
    Ok(())
}

/// Takes back what is half done in any PFS. Gives the number of operations.
fn take_back(store: &mut Store, next_tid: Tid, now: u64) -> Result<u64> {
    let mut count = 0;
    for pfs in pfs::all(store.view())? {
        let Some(to) = half_done(&pfs, next_tid) else {
            continue;
        };
        let what = Rollback {
            pfs: pfs.id,
            to,
            spare_local: true,
        };
        let context = |error: crate::error::Error| {
            error.context(format!("PFS {}: a half-done operation stands", pfs.id))
        };
        roll_back(store, &what, now, &mut ()).map_err(context)?;
        // Under a TID that was used already, so that the allocator's base stays what it was: after a
        // crash it must still say that nobody else has written.
        let tid = Tid(to.0.saturating_add(1));
        let mut txn = store.resume(tid, now)?;
        let mark = [0; MARK_SIZE];
        pfs_edit::set_mark(&mut Editor::new(), &mut txn, pfs.id, &mark).map_err(context)?;
        txn.commit()?;
        count += 1;
    }
    Ok(count)
}

/// The TID to which a PFS is to be taken back, if its record says that something is half done
/// (decisions on large operations and on the brake).
fn half_done(pfs: &Pfs, next_tid: Tid) -> Option<Tid> {
    let own_leaf = pfs.leaf?.base.create_tid();
    let mark = &pfs.data.reserved03;
    if let Some(intent) = Intent::read(mark, own_leaf) {
        // Another system that has written since has built on what is there.
        let stands = pfs::stands(&intent, next_tid);
        return stands.then(|| Tid(intent.tid.0.saturating_sub(1)));
    }
    let cursor = Cursor::read(mark, pfs.id, own_leaf)?;
    let to = pfs.data.sync_end_tid();
    // Nothing can lie above an end that is not believed.
    let is_wrong = cursor.end == Tid::MAX && pfs.is_slave() && to <= Tid::LIMIT;
    is_wrong.then_some(to)
}
