//! A PFS taken back to a TID: what was created later is destroyed, what was deleted later lives
//! again (mirroring.md §2.5).

use crate::btree::{Editor, Scan, Step, put};
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::rt;
use crate::format::{Key, Tid};
use crate::progress::{Progress, Status};
use crate::store::{Fetch, Store};

/// Records that are looked up before they are changed; the memory that a rollback needs.
const BATCH: usize = 4096;

/// What to take back.
#[derive(Clone, Copy, Debug)]
pub struct Rollback {
    /// The PFS.
    pub pfs: u16,
    /// Everything after this TID goes; 0: everything.
    pub to: Tid,
    /// Whether snapshot and configuration records stay, whatever their TID.
    pub spare_local: bool,
}

/// What was taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// Records destroyed.
    pub destroyed: u64,
    /// Deletions cleared.
    pub undeleted: u64,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Destroyed,
    Undeleted,
}

/// Records to be changed, in key order.
type Batch = Vec<(Key, Fate)>;

impl Rollback {
    /// What becomes of `element`; `None` if it stays as it is.
    fn fate(&self, element: &LeafElement) -> Option<Fate> {
        let local = matches!(element.base.rec_type.get(), rt::SNAPSHOT | rt::CONFIG);
        if self.spare_local && local {
            None
        } else if element.base.create_tid() > self.to {
            Some(Fate::Destroyed)
        } else if element.base.delete_tid() > self.to {
            Some(Fate::Undeleted)
        } else {
            None
        }
    }

    /// The next records from `from` on that do not stay as they are, in key order, and where to
    /// look on; `None` there if there are no more.
    fn next<F: Fetch + ?Sized>(&self, fetch: &mut F, from: Key) -> Result<(Batch, Option<Key>)> {
        // A tree that never was mirrored may say 0 where there are records.
        let since = if self.to.is_zero() {
            Tid::ZERO
        } else {
            self.to.next()
        };
        let mut scan = Scan::new(from, Key::pfs_max(self.pfs), since);
        let mut found = Vec::new();
        while let Some(step) = scan.next(fetch)? {
            let leaf = match step {
                Step::Leaf(leaf) => leaf,
                Step::Skip { .. } => continue,
                // Half a rollback is none.
                Step::Unreadable { error, .. } => return Err(error),
            };
            for element in leaf.elements() {
                if let Some(fate) = self.fate(element) {
                    found.push((element.base.key(), fate));
                }
            }
            if found.len() >= BATCH {
                let last = leaf.elements().last().map(|element| element.base.key());
                // That one will be settled too by then.
                return Ok((found, last));
            }
        }
        Ok((found, None))
    }
}

/// Takes back what `what` says, over as many transactions as it needs; repeating it after a crash
/// goes on where it ended. `mirror_tid` stays as it is (mirroring.md §3).
///
/// What there is to do is found by `mirror_tid`: what was changed under a mount that does not
/// maintain it is overlooked, unless everything goes.
///
/// Errors: `Damage` and `Io` where a part of the tree cannot be read; what was taken back until then
/// stays taken back.
pub fn roll_back(
    store: &mut Store,
    what: &Rollback,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let mut done = RolledBack::default();
    let mut editor = Editor::new();
    let mut from = Some(Key::pfs_min(what.pfs));
    while let Some(begin) = from {
        let (batch, next) = what.next(store.view(), begin)?;
        from = next;
        if batch.is_empty() {
            continue;
        }
        // Under a TID that was used already: no record carries it, and the allocator's base, by which
        // an intent is known to be the last word, stays as it is.
        let mut txn = store.resume(what.to.next(), now)?;
        for (key, fate) in batch {
            if txn.is_full() {
                txn.checkpoint()?;
            }
            match fate {
                Fate::Destroyed => {
                    put::destroy(&mut editor, &mut txn, key, Tid::ZERO)?;
                    done.destroyed += 1;
                }
                Fate::Undeleted => {
                    put::mark_deleted(&mut editor, &mut txn, key, Tid::ZERO, 0)?;
                    done.undeleted += 1;
                }
            }
        }
        txn.commit()?;
        progress.at(&Status {
            items: done.destroyed + done.undeleted,
            ..Status::default()
        })?;
    }
    Ok(done)
}
