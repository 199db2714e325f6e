//! A slave made ready for a pass: checked against the source, and where a pass was interrupted, told
//! how to go on.
//!
//! A cursor in the slave's PFS record says how far an interrupted pass came. It counts only for the
//! source that made it. A source whose PFS record has another version since may have been taken back
//! behind what the slave got of it; and what stands above the slave's TID without any cursor may be
//! of any source. Both are taken back before the next pass: what no source knows any more would come
//! to light with its acknowledgement.

use super::lane::{greeted, key_in};
use super::takeback;
use super::target::Slave;
use super::window::{Resume, SourcePfs, Window};
use crate::btree::{Scan, Step};
use crate::error::{Class, Error, Result};
use crate::format::mark::{self, fold};
use crate::format::record::{PfsData, rt};
use crate::format::{Key, Tid};
use crate::fs::pfs::{self, Pfs};
use crate::fs::rollback::RolledBack;
use crate::progress::{Progress, Status};
use crate::store::{Fetch, Store};

/// The source, as cursors know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    uuid: u64,
    leaf: Tid,
}

impl Identity {
    /// Of the PFS that is the source. A slave's record changes with every pass, and what it gave
    /// once it never takes back; so only a master is known by its record.
    pub fn of(pfs: &Pfs) -> Identity {
        let leaf = pfs.leaf.as_ref().filter(|_| !pfs.is_slave());
        Identity {
            uuid: fold(&pfs.data.unique_uuid),
            leaf: leaf.map_or(Tid::ZERO, |leaf| leaf.base.create_tid()),
        }
    }

    /// Of the source whose record a stream tells, and which was created at `leaf`.
    pub fn told(pfs: &PfsData, leaf: Tid) -> Identity {
        Identity {
            uuid: fold(&pfs.unique_uuid),
            leaf,
        }
    }

    /// The TID at which the source's PFS record was created; 0 if it is a slave.
    pub fn leaf(&self) -> Tid {
        self.leaf
    }

    fn made(&self, cursor: &mark::Cursor) -> bool {
        cursor.source == self.uuid && cursor.source_leaf == self.leaf
    }
}

/// A slave that a pass can begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// The slave.
    pub slave: Slave,
    /// Where to go on, in the source's PFS.
    pub resume: Option<Resume>,
    /// What is to be noted at checkpoints: the cursor that there is, or one at the start.
    pub cursor: mark::Cursor,
}

impl Ready {
    /// The slave's TID.
    pub fn synced(&self) -> Tid {
        self.slave.data.sync_end_tid()
    }

    /// What it lacks up to `end`.
    pub fn window(&self, source: &SourcePfs, end: Tid) -> Window {
        window(source, self.synced(), end, self.resume)
    }
}

fn window(source: &SourcePfs, synced: Tid, end: Tid, resume: Option<Resume>) -> Window {
    let floor = Tid(source.data.sync_beg_tid.get());
    Window {
        begin: synced.next().max(floor),
        end,
        resume,
    }
}

/// What slave `id` of `fetch` lacks of what the source that is `identity` has, for a plan; `false`
/// with it if something is to be taken back first.
///
/// Errors: those of [`check`].
pub fn lacks<F: Fetch + ?Sized>(
    fetch: &mut F,
    id: u16,
    source: &SourcePfs,
    identity: &Identity,
    progress: &mut dyn Progress,
) -> Result<(Window, bool)> {
    let slave = check(fetch, id, source)?;
    let good = valid(&slave, identity);
    let resume = good.map(|cursor| resume(&cursor, source));
    let synced = slave.data.sync_end_tid();
    let end = resume.map_or(source.end, |resume| resume.end.max(source.end));
    let due = is_due(fetch, &slave, identity, progress)?;
    Ok((window(source, synced, end, resume), !due))
}

/// The cursor that counts for the source that is `identity`.
fn valid(slave: &Pfs, identity: &Identity) -> Option<mark::Cursor> {
    let cursor = takeback::cursor(slave);
    cursor.filter(|cursor| cursor.end != Tid::MAX && identity.made(cursor))
}

/// Whether what stands above the slave's TID is to be taken back.
fn is_due<F: Fetch + ?Sized>(
    fetch: &mut F,
    slave: &Pfs,
    identity: &Identity,
    progress: &mut dyn Progress,
) -> Result<bool> {
    match (takeback::cursor(slave), valid(slave, identity)) {
        (_, Some(_)) => Ok(false),
        (Some(_), None) => Ok(true),
        (None, None) => strays(fetch, slave, progress),
    }
}

fn resume(cursor: &mark::Cursor, source: &SourcePfs) -> Resume {
    Resume {
        key: key_in(cursor.key, source.id),
        end: cursor.end,
    }
}

/// Refuses a slave that has more than its master: the master was taken back, or restored from an
/// older copy, or the slave was written to in between. What the master has changed since would never
/// reach it. A slave as a source may lag.
///
/// Errors: class `Incompatible`.
pub fn ahead(slave: &Pfs, source: &SourcePfs) -> Result<()> {
    let synced = slave.data.sync_end_tid();
    if source.data.is_slave() || synced <= source.committed {
        return Ok(());
    }
    let (id, end) = (slave.id, source.committed);
    let text = format!(
        "PFS {id} is as of {synced}, and its master has only {end}: one of them was changed, taken \
         back or restored behind the other's back; make the slave anew, or set its sync-end-tid to \
         the last state that both share (pfs-update) (-F: copy what is behind {synced} all the same)"
    );
    Err(Error::new(Class::Incompatible, text))
}

/// Checks that PFS `id` of `fetch` can follow `source`. Changes nothing.
///
/// Errors: class `Usage` if there is no such PFS, `Incompatible` if it is no slave of this master.
pub fn check<F: Fetch + ?Sized>(fetch: &mut F, id: u16, source: &SourcePfs) -> Result<Pfs> {
    let found = pfs::load(fetch, id)?;
    let Some(found) = found else {
        return Err(Error::usage(format!("there is no PFS {id}")));
    };
    fits(&found, source)?;
    Ok(found)
}

/// Checks that `found` can follow `source`.
///
/// Errors: class `Incompatible` if it is no slave of this master.
pub fn fits(found: &Pfs, source: &SourcePfs) -> Result<()> {
    let (id, data) = (found.id, found.data);
    greeted(source, Slave { id, data })?;
    if data.unique_uuid == source.data.unique_uuid {
        let text = format!("PFS {id} is its own source");
        return Err(Error::new(Class::Incompatible, text));
    }
    if found.leaf.is_none() {
        let text = format!("PFS {id} has no record of its own, and cannot be a slave");
        return Err(Error::new(Class::Incompatible, text));
    }
    Ok(())
}

/// Makes slave `id` ready for a pass from the source that is `identity`; says what was taken back
/// for that.
pub(super) fn settle(
    store: &mut Store,
    id: u16,
    source: &SourcePfs,
    identity: &Identity,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<(Ready, Option<RolledBack>)> {
    let found = check(store.view(), id, source)?;
    let good = valid(&found, identity);
    let taken_back = match is_due(store.view(), &found, identity, progress)? {
        true => Some(takeback::take_back(store, id, now, progress)?),
        false => None,
    };
    // Another mark than a cursor, or one of an older version of the record, says nothing.
    if good.is_none() {
        takeback::settle(store, id, now, progress)?;
    }
    let found = check(store.view(), id, source)?;
    let start = start(&found, identity);
    let resume = good.map(|cursor| resume(&cursor, source));
    let ready = Ready {
        slave: Slave {
            id,
            data: found.data,
        },
        resume,
        cursor: good.unwrap_or(start),
    };
    Ok((ready, taken_back))
}

/// The cursor of a pass that begins, from the source that is `identity` into `slave`.
pub(super) fn start(slave: &Pfs, identity: &Identity) -> mark::Cursor {
    let leaf = slave.leaf.as_ref();
    mark::Cursor {
        key: Key::pfs_min(slave.id),
        end: Tid::ZERO,
        source: identity.uuid,
        source_leaf: identity.leaf,
        own_leaf: leaf.map_or(Tid::ZERO, |leaf| leaf.base.create_tid()),
    }
}

/// Whether the slave holds anything above its TID.
fn strays<F: Fetch + ?Sized>(
    fetch: &mut F,
    slave: &Pfs,
    progress: &mut dyn Progress,
) -> Result<bool> {
    let synced = slave.data.sync_end_tid();
    let (from, to) = (Key::pfs_min(slave.id), Key::pfs_max(slave.id));
    let mut scan = Scan::new(from, to, synced.next());
    let mut status = Status::default();
    while let Some(step) = scan.next(fetch)? {
        let leaf = match step {
            Step::Leaf(leaf) => leaf,
            Step::Skip { .. } => continue,
            Step::Unreadable { error, .. } => return Err(error.context("the slave's B-Tree")),
        };
        status.items += 1;
        progress.at(&status)?;
        let stray = leaf.elements().iter().any(|element| {
            let local = [rt::CONFIG, rt::SNAPSHOT].contains(&element.base.rec_type.get());
            !local && element.base.create_tid().max(element.base.delete_tid()) > synced
        });
        if stray {
            return Ok(true);
        }
    }
    Ok(false)
}
