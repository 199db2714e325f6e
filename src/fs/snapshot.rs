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

/// A snapshot of a PFS.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The TID: the record's key, whatever its data says.
    pub tid: Tid,
    /// When it was taken, microseconds since 1970; its label.
    pub data: SnapshotData,
    /// The record.
    pub leaf: LeafElement,
}

impl Snapshot {
    /// The label; may be empty.
    pub fn label(&self) -> &[u8] {
        self.data.label()
    }

    /// When it was taken, microseconds since 1970.
    pub fn time_us(&self) -> u64 {
        self.data.ts.get()
    }
}

/// The snapshots of PFS `pfs`, by TID.
pub fn all<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16) -> Result<Vec<Snapshot>> {
    let root = ObjectId::root(pfs);
    let from = root.key(Localization::INODE, rt::SNAPSHOT, i64::MIN);
    let to = root.key(Localization::INODE, rt::SNAPSHOT, i64::MAX);
    let mut cursor = btree::AsOf::new(from, to, Tid::MAX);
    let mut snapshots = Vec::new();
    while let Some(leaf) = cursor.next(fetch)? {
        let tid = Tid(leaf.base.key.get().cast_unsigned());
        let bytes = good_data(fetch, &leaf)
            .map_err(|e| e.context(format!("snapshot {tid} of PFS {pfs}")))?;
        let mut whole = [0; size_of::<SnapshotData>()];
        let len = bytes.len().min(whole.len());
        whole[..len].copy_from_slice(&bytes[..len]);
        let data = SnapshotData::read_from_bytes(&whole).expect("exactly one record's bytes");
        snapshots.push(Snapshot { tid, data, leaf });
    }
    // Keys are signed on the medium, TIDs are not.
    snapshots.sort_by_key(|s| s.tid);
    Ok(snapshots)
}

/// The snapshot of PFS `pfs` with this label.
///
/// None, or several, are errors of class `Usage`; the latter names the TIDs to choose from.
pub fn find<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16, label: &str) -> Result<Snapshot> {
    select(all(fetch, pfs)?, pfs, label)
}

fn select(snapshots: Vec<Snapshot>, pfs: u16, label: &str) -> Result<Snapshot> {
    let mut matches = snapshots
        .into_iter()
        .filter(|s| s.label() == label.as_bytes());
    let Some(found) = matches.next() else {
        return Err(Error::usage(format!(
            "PFS {pfs} has no snapshot with the label {label:?} (snapls lists what there is)"
        )));
    };
    let others: Vec<String> = matches.map(|s| s.tid.to_string()).collect();
    if others.is_empty() {
        return Ok(found);
    }
    Err(Error::usage(format!(
        "the label {label:?} is that of several snapshots of PFS {pfs}: name one by its TID, {} or {}",
        found.tid,
        others.join(" or ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn snapshot(tid: u64, label: &str) -> Snapshot {
        let mut data = SnapshotData::new_zeroed();
        data.label[..label.len()].copy_from_slice(label.as_bytes());
        let leaf = LeafElement::new_zeroed();
        Snapshot {
            tid: Tid(tid),
            data,
            leaf,
        }
    }

    #[test]
    fn labels() {
        let all = || vec![snapshot(1, "a"), snapshot(2, "b"), snapshot(3, "b")];
        assert_eq!(select(all(), 0, "a").map(|s| s.tid).ok(), Some(Tid(1)));
        assert!(select(all(), 0, "c").is_err());
        let twice = select(all(), 0, "b").expect_err("two carry it").to_string();
        assert!(
            twice.contains("0000000000000002 or 0x0000000000000003"),
            "{twice}"
        );
    }
}
