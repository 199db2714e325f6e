//! The TID that a moment stands for.

use super::{pfs::Pfs, snapshot};
use crate::btree::Cursor;
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::{Key, Tid};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// Records looked at between two reports of progress.
const REPORT: u64 = 4096;

/// A moment in a PFS's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As of this TID.
    Tid(Tid),
    /// As of a time, in whole seconds since 1970: records carry no more.
    Time(i64),
    /// As of the snapshot with this label.
    Label(String),
}

/// The TID that `moment` stands for in `pfs`.
///
/// TIDs carry no time: a time stands for the largest `create_tid` of the PFS whose `create_ts` is
/// not after it, which takes a walk through all of the PFS's leaves. In a slave, records above its
/// `sync_end_tid` do not count: they belong to an unfinished pass. A time before the first record,
/// and a label that does not name exactly one snapshot, are errors of class `Usage`.
pub fn resolve<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: &Pfs,
    moment: &Moment,
    progress: &mut dyn Progress,
) -> Result<Tid> {
    match moment {
        Moment::Tid(tid) => Ok(*tid),
        Moment::Label(label) => Ok(snapshot::find(fetch, pfs.id, label)?.tid),
        Moment::Time(time) => at_time(fetch, pfs, *time, progress),
    }
}

/// What is known of a time after some records: the answer so far, and the earliest record.
#[derive(Default)]
struct Search {
    best: Option<Tid>,
    earliest: Option<u32>,
}

impl Search {
    fn see(&mut self, leaf: &LeafElement, time: i64, end: Tid) {
        let (tid, seconds) = (leaf.base.create_tid(), leaf.create_ts.get());
        // Snapshot and configuration records carry no time.
        if seconds == 0 || tid > end {
            return;
        }
        self.earliest = Some(self.earliest.map_or(seconds, |e| e.min(seconds)));
        if i64::from(seconds) <= time {
            self.best = self.best.max(Some(tid));
        }
    }
}

fn at_time<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: &Pfs,
    time: i64,
    progress: &mut dyn Progress,
) -> Result<Tid> {
    let end = match pfs.is_slave() {
        true => pfs.sync_end,
        false => Tid::MAX,
    };
    let mut cursor = Cursor::new(Key::pfs_min(pfs.id), Key::pfs_max(pfs.id));
    let mut search = Search::default();
    let mut status = Status::default();
    while let Some(leaf) = cursor.next(fetch)? {
        search.see(&leaf, time, end);
        status.items += 1;
        if status.items.is_multiple_of(REPORT) {
            status.object = leaf.base.obj_id.get();
            progress.at(&status)?;
        }
    }
    let id = pfs.id;
    search.best.ok_or_else(|| match search.earliest {
        Some(first) => {
            let first = show(i64::from(first));
            let time = show(time);
            Error::usage(format!(
                "{time} is before the first record of PFS {id}, of {first}"
            ))
        }
        None => Error::usage(format!("PFS {id} holds no record with a time")),
    })
}

fn show(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => format!("second {seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn leaf(tid: u64, seconds: u32) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.create_tid.set(tid);
        leaf.create_ts.set(seconds);
        leaf
    }

    #[test]
    fn largest_tid_not_after_a_time() {
        // Clocks can go backwards; 0 is no time.
        let records = [(0x10, 100), (0x30, 90), (0x40, 200), (0x50, 0), (0x60, 150)];
        let at = |time, end| {
            let mut search = Search::default();
            for (tid, seconds) in records {
                search.see(&leaf(tid, seconds), time, Tid(end));
            }
            search.best.map(|t| t.0)
        };
        assert_eq!(at(89, u64::MAX), None);
        assert_eq!(at(90, u64::MAX), Some(0x30));
        assert_eq!(at(149, u64::MAX), Some(0x30));
        assert_eq!(at(1000, u64::MAX), Some(0x60));
        assert_eq!(at(1000, 0x5f), Some(0x40));
    }
}
