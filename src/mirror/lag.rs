//! How far a slave is behind its master.

use crate::btree::{Scan, Step};
use crate::error::Result;
use crate::format::{Key, Tid};
use crate::fs::pfs::Pfs;
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// How many TIDs before the slave's its newest change is looked for: first in a few, for ids of
/// objects are taken from the same numbers, then in many.
const BACK: [u64; 2] = [0x100, 0x1_0000];

/// What a slave lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// TIDs from the slave's to the newest that the master's PFS has; 0 if there is none newer.
    pub tids: u64,
    /// Seconds from the time of the slave's newest change to that of the master's; `None` where
    /// the slave has not changed in many TIDs, so that finding its newest change would be a search.
    pub seconds: Option<u64>,
}

/// How far `slave` is behind `master`. Reads what was changed since the slave's TID, no data.
pub fn lag<F: Fetch + ?Sized, G: Fetch + ?Sized>(
    (master, source): (&mut F, &Pfs),
    (fetch, slave): (&mut G, &Pfs),
    progress: &mut dyn Progress,
) -> Result<Lag> {
    let synced = slave.sync_end;
    let mut status = Status::default();
    let since = (synced.next(), source.sync_end);
    let Some((newest, time)) = newest(master, source.id, since, &mut status, progress)? else {
        return Ok(Lag {
            tids: 0,
            seconds: Some(0),
        });
    };
    let mut own = None;
    for back in BACK {
        let last = (Tid(synced.0.saturating_sub(back)), synced);
        own = self::newest(fetch, slave.id, last, &mut status, progress)?;
        if own.is_some() {
            break;
        }
    }
    let seconds = |(_, own): (Tid, u32)| u64::from(time.saturating_sub(own));
    Ok(Lag {
        tids: newest.0.saturating_sub(synced.0),
        seconds: own.map(seconds),
    })
}

/// The newest change of PFS `pfs` that has a TID from the first to the second one, and its time in
/// seconds since 1970. What has not changed since the first TID is not read.
fn newest<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    (first, last): (Tid, Tid),
    status: &mut Status,
    progress: &mut dyn Progress,
) -> Result<Option<(Tid, u32)>> {
    let mut newest = None;
    let mut scan = Scan::new(Key::pfs_min(pfs), Key::pfs_max(pfs), first);
    while let Some(step) = scan.next(fetch)? {
        let leaf = match step {
            Step::Leaf(leaf) => leaf,
            Step::Skip { .. } => continue,
            Step::Unreadable { error, .. } => return Err(error),
        };
        for element in leaf.elements() {
            let made = (element.base.create_tid(), element.create_ts.get());
            let gone = (element.base.delete_tid(), element.delete_ts.get());
            for change in [made, gone] {
                if (first..=last).contains(&change.0) {
                    newest = newest.max(Some(change));
                }
            }
            status.object = element.base.obj_id.get();
        }
        status.items += 1;
        progress.at(status)?;
    }
    Ok(newest)
}
