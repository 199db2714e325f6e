//! Snapshots: TIDs with a label (format.md §16.2; file systems of version 3 and up).

use super::ObjectId;
use crate::btree;
use crate::btree::record::good_data;
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{SnapshotData, rt};
use crate::format::{Localization, Tid};
use crate::store::Fetch;
use zerocopy::FromBytes;

/// Most TIDs that [`find`] names for one label.
const NAMED_MAX: usize = 8;

/// A snapshot of a PFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The TID: the record's key, whatever its data says.
    pub tid: Tid,
    /// When it was taken, microseconds since 1970.
    pub time_us: u64,
    /// Its label; may be empty.
    pub label: Box<[u8]>,
}

/// Walks the snapshots of a PFS by TID, in constant memory.
///
/// A node or a record that cannot be read is an error of the one call that meets it; the next call
/// goes on behind it.
pub struct Snapshots {
    pfs: u16,
    cursor: btree::AsOf,
    /// The second half: keys are signed on the medium, TIDs are not.
    upper: Option<btree::AsOf>,
}

impl Snapshots {
    /// The snapshots of PFS `pfs`.
    pub fn new(pfs: u16) -> Snapshots {
        let root = ObjectId::root(pfs);
        let key = |key| root.key(Localization::INODE, rt::SNAPSHOT, key);
        let range = |first, last| btree::AsOf::new(key(first), key(last), Tid::MAX);
        Snapshots {
            pfs,
            cursor: range(0, i64::MAX),
            upper: Some(range(i64::MIN, -1)),
        }
    }

    /// The next snapshot.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Snapshot>> {
        match self.next_leaf(fetch)? {
            Some(leaf) => self.read(fetch, &leaf).map(Some),
            None => Ok(None),
        }
    }

    fn next_leaf<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
        loop {
            if let Some(leaf) = self.cursor.next(fetch)? {
                return Ok(Some(leaf));
            }
            match self.upper.take() {
                Some(upper) => self.cursor = upper,
                None => return Ok(None),
            }
        }
    }

    fn read<F: Fetch + ?Sized>(&self, fetch: &mut F, leaf: &LeafElement) -> Result<Snapshot> {
        let (tid, pfs) = (Tid(leaf.base.key.get().cast_unsigned()), self.pfs);
        let bytes = good_data(fetch, leaf)
            .map_err(|e| e.context(format!("snapshot {tid} of PFS {pfs}")))?;
        let mut whole = [0; size_of::<SnapshotData>()];
        let len = bytes.len().min(whole.len());
        whole[..len].copy_from_slice(&bytes[..len]);
        let data = SnapshotData::read_from_bytes(&whole).expect("exactly one record's bytes");
        Ok(Snapshot {
            tid,
            time_us: data.ts.get(),
            label: data.label().into(),
        })
    }
}

/// The snapshots of PFS `pfs`, by TID. [`Snapshots`] needs no memory for all of them.
pub fn all<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16) -> Result<Vec<Snapshot>> {
    let mut snapshots = Snapshots::new(pfs);
    let mut all = Vec::new();
    while let Some(snapshot) = snapshots.next(fetch)? {
        all.push(snapshot);
    }
    Ok(all)
}

/// How many snapshots PFS `pfs` has; does not read what they say.
pub fn count<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16) -> Result<u64> {
    let mut snapshots = Snapshots::new(pfs);
    let mut count = 0;
    while snapshots.next_leaf(fetch)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The snapshot of PFS `pfs` with this label.
///
/// None, or several, are errors of class `Usage`; the latter names TIDs to choose from.
pub fn find<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16, label: &str) -> Result<Snapshot> {
    let mut snapshots = Snapshots::new(pfs);
    let mut matches = Matches::default();
    while let Some(snapshot) = snapshots.next(fetch)? {
        if *snapshot.label == *label.as_bytes() {
            matches.add(snapshot);
        }
    }
    matches.only(pfs, label)
}

/// Snapshots with the label that was asked for.
#[derive(Default)]
struct Matches {
    /// The first ones.
    named: Vec<Snapshot>,
    /// How many more there are.
    more: u64,
}

impl Matches {
    fn add(&mut self, snapshot: Snapshot) {
        match self.named.len() < NAMED_MAX {
            true => self.named.push(snapshot),
            false => self.more += 1,
        }
    }

    fn only(mut self, pfs: u16, label: &str) -> Result<Snapshot> {
        if self.named.len() > 1 {
            let mut tids: Vec<_> = self.named.iter().map(|s| s.tid.to_string()).collect();
            if self.more > 0 {
                tids.push(format!("{} others", self.more));
            }
            let tids = tids.join(" or ");
            return Err(Error::usage(format!(
                "the label {label:?} is that of several snapshots of PFS {pfs}: name one by its \
                 TID, {tids}"
            )));
        }
        self.named.pop().ok_or_else(|| {
            Error::usage(format!(
                "PFS {pfs} has no snapshot with the label {label:?} (snapls lists what there is)"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let select = |tids: &[u64]| {
            let mut matches = Matches::default();
            for tid in tids {
                matches.add(Snapshot {
                    tid: Tid(*tid),
                    time_us: 0,
                    label: (*b"b").into(),
                });
            }
            matches.only(0, "b")
        };
        assert_eq!(select(&[1]).map(|s| s.tid).ok(), Some(Tid(1)));
        assert!(select(&[]).is_err());
        let twice = select(&[2, 3]).expect_err("two carry it").to_string();
        assert!(
            twice.contains("0000000000000002 or 0x0000000000000003"),
            "{twice}"
        );
        let tids: Vec<u64> = (1..=1000).collect();
        let many = select(&tids).expect_err("all carry it").to_string();
        assert!(many.contains("0000000008 or 992 others"), "{many}");
    }
}
