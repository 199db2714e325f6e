//! A slave returned to what it last acknowledged (decisions on the brake): what a pass of the wrong
//! source left would be taken for published by the next acknowledgement.

use super::apply::Applied;
use crate::btree::{self, Editor};
use crate::error::{Class, Error, Result};
use crate::format::mark::{self, MARK_SIZE};
use crate::format::{Key, Tid};
use crate::fs::pfs::{self, Pfs};
use crate::fs::pfs_edit;
use crate::fs::rollback::{Rollback, RolledBack, roll_back};
use crate::progress::Progress;
use crate::store::{Fetch, Store};

/// The slave PFS `id` as stored. Errors: class `Usage` if there is none.
fn load(store: &mut Store, id: u16) -> Result<Pfs> {
    pfs::load(store.view(), id)?
        .ok_or_else(|| Error::usage(format!("PFS {id} does not exist any more")))
}

/// The resume cursor that slave `pfs` carries, if it is one of its record's.
pub fn cursor(pfs: &Pfs) -> Option<mark::Cursor> {
    let leaf = pfs.leaf.as_ref()?;
    mark::Cursor::read(&pfs.data.reserved03, pfs.id, leaf.base.create_tid())
}

/// Whether the slave must be taken back before anything else is done with it: an earlier taking
/// back was interrupted.
pub fn is_due(pfs: &Pfs) -> bool {
    cursor(pfs).is_some_and(|cursor| cursor.end == Tid::MAX)
}

/// The mark that says "take this back first", for the record of slave PFS `id` as it is now; `None`
/// if it has none.
pub fn first<F: Fetch + ?Sized>(fetch: &mut F, id: u16) -> Result<Option<mark::Cursor>> {
    let leaf = btree::lookup(fetch, pfs::record_key(id), Tid::MAX)?;
    Ok(leaf.map(|leaf| mark::Cursor {
        key: Key::pfs_min(id),
        end: Tid::MAX,
        source: 0,
        source_leaf: Tid::ZERO,
        own_leaf: leaf.base.create_tid(),
    }))
}

/// Takes slave PFS `id` back to its `sync_end_tid`, snapshots and configuration spared. That this
/// is to be done is durable before it begins, so that an interruption does not leave half of it.
pub fn take_back(
    store: &mut Store,
    id: u16,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let slave = load(store, id)?;
    let first = first(store.view(), id)?.filter(|_| slave.is_slave());
    let Some(first) = first else {
        return Err(Error::usage(format!("PFS {id} is no slave")));
    };
    set_mark(store, id, now, &first.to_bytes())?;
    let what = Rollback {
        pfs: id,
        to: slave.data.sync_end_tid(),
        spare_local: true,
    };
    let done = roll_back(store, &what, now, progress)?;
    clear_mark(store, id, now)?;
    Ok(done)
}

/// Makes slave PFS `id` ready for a pass that is not continued from a cursor: finishes a taking back
/// that was interrupted, and forgets any cursor.
pub fn settle(store: &mut Store, id: u16, now: u64, progress: &mut dyn Progress) -> Result<()> {
    let slave = load(store, id)?;
    if is_due(&slave) {
        take_back(store, id, now, progress)?;
    } else if slave.leaf.is_some() && slave.data.reserved03 != [0; MARK_SIZE] {
        clear_mark(store, id, now)?;
    }
    Ok(())
}

fn clear_mark(store: &mut Store, id: u16, now: u64) -> Result<()> {
    set_mark(store, id, now, &[0; MARK_SIZE])
}

fn set_mark(store: &mut Store, id: u16, now: u64, mark: &[u8; MARK_SIZE]) -> Result<()> {
    let mut txn = store.begin(now)?;
    pfs_edit::set_mark(&mut Editor::new(), &mut txn, id, mark)?;
    txn.commit()?;
    Ok(())
}

/// The error that says why a batch was stopped.
pub fn braked(pfs: u16, applied: &Applied) -> Error {
    let Applied {
        gap_deleted, live, ..
    } = applied;
    Error::new(
        Class::Brake,
        format!(
            "the stream implies the deletion of {gap_deleted} of the {live} live records that it \
             met in PFS {pfs}, most likely because it is of another state of the master; the \
             slave was taken back to what it had (--allow-deletes: delete them)"
        ),
    )
}
