//! How far a slave is behind its master.

use super::verify::{Seen, Tick};
use crate::btree::{Scan, Step};
use crate::error::Result;
use crate::format::{Key, Tid};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// How many TIDs before the slave's its newest change is looked for: first in a few, for ids of
/// objects are taken from the same numbers, then in many.
const BACK: [u64; 2] = [0x100, 0x1_0000];

/// What changed last, of what was asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Its TID.
    pub tid: Tid,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// Bytes of data of everything that was made from the first TID asked about to the last.
    pub bytes: u64,
}

/// Whoever can be asked what changed in a PFS.
pub trait Changes {
    /// The newest change from one TID to another, both included; `None` if nothing changed.
    fn newest(&mut self, first: Tid, last: Tid, tick: Tick<'_>) -> Result<Option<Change>>;
}

/// What a slave lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// TIDs from the slave's to the newest that the master's PFS has; 0 if there is none newer.
    pub tids: u64,
    /// Bytes of data of what the master has made since the slave's TID.
    pub bytes: u64,
    /// Seconds from the time of the slave's newest change to that of the master's; `None` where
    /// the slave has not changed in many TIDs, so that finding its newest change would be a search.
    pub seconds: Option<u64>,
}

/// How far `slave`, which is as of `synced`, is behind `master`, which is as of `end`. Makes them read
/// what was changed since the slave's TID, no data.
pub fn lag(
    (master, end): (&mut dyn Changes, Tid),
    (slave, synced): (&mut dyn Changes, Tid),
    progress: &mut dyn Progress,
) -> Result<Lag> {
    let mut status = Status::default();
    let mut tick = |seen: Seen| {
        status.items += seen.records;
        status.object = seen.object;
        progress.at(&status)
    };
    let Some(newest) = master.newest(synced.next(), end, &mut tick)? else {
        return Ok(Lag {
            seconds: Some(0),
            ..Lag::default()
        });
    };
    let mut own = None;
    for back in BACK {
        let first = Tid(synced.0.saturating_sub(back));
        own = slave.newest(first, synced, &mut tick)?;
        if own.is_some() {
            break;
        }
    }
    let seconds = |own: Change| u64::from(newest.time.saturating_sub(own.time));
    Ok(Lag {
        tids: newest.tid.0.saturating_sub(synced.0),
        bytes: newest.bytes,
        seconds: own.map(seconds),
    })
}

/// The newest change of PFS `pfs` that has a TID from the first to the second one. What has not
/// changed since the first TID is not read.
pub(super) fn newest<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    (first, last): (Tid, Tid),
    tick: Tick<'_>,
) -> Result<Option<Change>> {
    let mut newest: Option<(Tid, u32)> = None;
    let mut bytes = 0u64;
    let mut scan = Scan::new(Key::pfs_min(pfs), Key::pfs_max(pfs), first);
    while let Some(step) = scan.next(fetch)? {
        let leaf = match step {
            Step::Leaf(leaf) => leaf,
            Step::Skip { .. } => continue,
            Step::Unreadable { error, .. } => return Err(error),
        };
        let mut object = 0;
        for element in leaf.elements() {
            let made = (element.base.create_tid(), element.create_ts.get());
            let gone = (element.base.delete_tid(), element.delete_ts.get());
            for change in [made, gone] {
                if (first..=last).contains(&change.0) {
                    newest = newest.max(Some(change));
                }
            }
            if (first..=last).contains(&made.0) {
                let len = u64::try_from(element.data_len.get()).unwrap_or(0);
                bytes = bytes.saturating_add(len);
            }
            object = element.base.obj_id.get();
        }
        tick(Seen {
            records: 1,
            bytes: 0,
            object,
        })?;
    }
    Ok(newest.map(|(tid, time)| Change { tid, time, bytes }))
}
