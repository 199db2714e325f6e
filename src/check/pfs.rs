//! Pseudo file systems: which there are, as of what each is looked at, and the snapshots.

use super::Run;
use super::files::{Files, Seen};
use super::leaf::{self, History, describe, element_place};
use super::pass::Pass;
use super::records::{Data, Harvest};
use super::sink::Severity;
use crate::btree;
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::{PfsData, SnapshotData, rt};
use crate::format::{Fault, Key, Localization, Offset, ROOT_OBJ, Rule, Tid, Zone};
use crate::store::Fetch;
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// Bytes that the views of one pass over snapshots may take together.
const GROUP_BYTES: u64 = 64 << 20;
/// Snapshots that are looked at, over all PFSs: bounds the time that a hostile volume can take.
const SNAPSHOTS_MAX: usize = 4096;

/// The current PFS records.
pub(super) struct Table(BTreeMap<u16, PfsData>);

impl Table {
    /// Reads the current PFS records; what cannot be read counts as missing.
    pub fn read<F: Fetch + ?Sized>(fetch: &mut F) -> Result<Table> {
        let class = Localization::new(0, Localization::MISC);
        let from = Key::first_version(class, ROOT_OBJ, rt::PFS, i64::MIN);
        let to = Key {
            key: i64::MAX,
            create_tid: Tid::MAX,
            ..from
        };
        let mut table = BTreeMap::new();
        let mut pass = Pass::new(from, to);
        while let Some(item) = pass.next(fetch, None, &btree::record::extent)? {
            for leaf in item.leaf.node.leaves() {
                let key = leaf.base.key();
                if key < from || key > to || !leaf.base.delete_tid().is_zero() {
                    continue;
                }
                match btree::data(fetch, leaf) {
                    Ok(data) if data.crc_ok => {
                        if let Ok(id) = u16::try_from(key.key >> 16) {
                            table.insert(id, PfsData::from_bytes(&data.bytes));
                        }
                    }
                    Ok(_) => {}
                    Err(error) if error.is_media() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Table(table))
    }

    /// As of what `pfs` is looked at: a slave as of its last complete batch, a master currently, a
    /// destroyed one not at all. PFS 0 is always a master, and so is one without a record.
    pub fn view(&self, pfs: u16) -> Option<Tid> {
        match self.0.get(&pfs) {
            Some(data) if data.is_deleted() && pfs != 0 => None,
            Some(data) if data.is_slave() && pfs != 0 => Some(data.sync_end_tid()),
            _ => Some(Tid::MAX),
        }
    }

    /// How the history of `pfs` came about.
    pub fn history(&self, pfs: u16) -> History {
        match self.0.get(&pfs) {
            _ if pfs == 0 => History::Own,
            Some(data) if data.is_slave() => History::Mirrored,
            _ => History::Unknown,
        }
    }
}

/// Checks what a PFS record holds.
pub(super) fn record(run: &mut Run<'_>, leaf: &LeafElement, at: Offset, data: &[u8]) {
    let mut error = |expected: &str, found: String| {
        let fault = Fault::new(Rule::PfsRecord, at, expected.to_owned(), found);
        run.sink.error(fault, describe(leaf));
    };
    let key = leaf.base.key();
    if key.obj_id != ROOT_OBJ || key.key & 0xFFFF != 0 || !(0..=0xFFFF).contains(&(key.key >> 16)) {
        let found = format!("object {}, key 0x{:x}", key.obj_id, key.key);
        error("object 1 and the PFS id in bits 16 to 31 of the key", found);
    }
    let pfs = PfsData::from_bytes(data);
    let flags = pfs.mirror_flags.get();
    let known = PfsData::SLAVE | PfsData::DELETED;
    if flags & !known != 0 || (key.key == 0 && flags != 0) {
        let expected = "flags of slave and destroyed only; none for PFS 0";
        error(expected, format!("0x{flags:08x}"));
    }
}

/// A snapshot of a PFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Snapshot {
    pub pfs: u16,
    pub tid: Tid,
}

/// The snapshot that a record names. The key counts; a different TID in the data is an old
/// conversion's doing.
pub(super) fn snapshot(run: &mut Run<'_>, leaf: &LeafElement, data: &[u8]) -> Option<Snapshot> {
    let tid = Tid(leaf.base.key.get().cast_unsigned());
    if let Ok(stored) = SnapshotData::ref_from_bytes(data)
        && stored.tid.get() != tid.0
    {
        let expected = format!("TID {tid}, as in the key");
        let found = Tid(stored.tid.get());
        let fault = Fault::new(Rule::Snapshot, leaf.data_offset(), expected, found);
        run.sink.warn(fault, describe(leaf));
    }
    let pfs = Localization(leaf.base.localization.get()).pfs();
    (tid > Tid(1)).then_some(Snapshot { pfs, tid })
}

/// How many records of a PFS a view may have to keep.
#[derive(Clone, Copy, Default)]
pub(super) struct Weight {
    pub inodes: u64,
    pub entries: u64,
}

impl Weight {
    fn bytes(self) -> u64 {
        4096 + self.inodes * 32 + self.entries * 24
    }
}

/// Looks at every snapshot's view, several of a PFS in one pass.
pub(super) fn snapshots<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    mut harvest: Harvest,
) -> Result<()> {
    let table = Table::read(fetch)?;
    let list = &mut harvest.snapshots;
    // A snapshot above what a slave has in full shows a batch under way.
    list.retain(|s| table.view(s.pfs).is_some_and(|end| s.tid < end));
    list.sort_unstable();
    list.dedup();
    if list.len() > SNAPSHOTS_MAX {
        run.report.snapshots_left_out = (list.len() - SNAPSHOTS_MAX) as u64;
        list.truncate(SNAPSHOTS_MAX);
    }
    let mut rest = list.as_slice();
    while let Some(first) = rest.first() {
        let weight = harvest.weights.get(&first.pfs).copied().unwrap_or_default();
        let most = (GROUP_BYTES / weight.bytes()).max(1) as usize;
        let same = rest.iter().take_while(|s| s.pfs == first.pfs).count();
        let (group, others) = rest.split_at(same.min(most));
        group_pass(run, fetch, group)?;
        rest = others;
    }
    Ok(())
}

/// One pass over a PFS for several of its snapshots.
fn group_pass<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    group: &[Snapshot],
) -> Result<()> {
    let Some(first) = group.first() else {
        return Ok(());
    };
    let mut views: Vec<_> = group
        .iter()
        .map(|s| Files::new(s.pfs, s.tid, true))
        .collect();
    run.report.views += views.len() as u64;
    let (from, to) = (Key::pfs_min(first.pfs), Key::pfs_max(first.pfs));
    let highest = group.iter().map(|s| s.tid).max().unwrap_or_default();
    let media = run.media;
    let wanted = |leaf: &LeafElement| {
        let visible = leaf.base.create_tid() <= highest;
        leaf::placed(leaf, media).filter(|(at, _)| visible && at.zone() == Zone::META)
    };
    let mut pass = Pass::new(from, to);
    while let Some(item) = pass.next(fetch, None, &wanted)? {
        for index in item.range.clone() {
            let Some(leaf) = item.leaf.node.leaves().get(index) else {
                break;
            };
            let key = leaf.base.key();
            if key < from || key > to || key.create_tid > highest {
                continue;
            }
            let data = match wanted(leaf).map(|_| btree::data(fetch, leaf)) {
                None => Data::Unread,
                Some(Ok(data)) if data.crc_ok => Data::Good(data.bytes),
                Some(Ok(_)) => Data::Damaged,
                Some(Err(error)) if error.is_media() => Data::Damaged,
                Some(Err(error)) => return Err(error),
            };
            let at = element_place(item.leaf.at, index);
            let leaf = *leaf;
            for view in &mut views {
                let data = data.clone();
                view.feed(run, fetch, Seen { leaf, at, data })?;
            }
            run.pulse()?;
        }
    }
    views
        .into_iter()
        .try_for_each(|view| view.finish(run, fetch))
}

impl Run<'_> {
    /// Takes a fault that says something is missing: an error, unless nodes were lost, which may be
    /// all there is to it.
    pub(super) fn doubtful(&mut self, fault: Fault, detail: impl Into<String>) {
        self.missing(fault, detail.into(), self.incomplete);
    }

    /// As [`Run::doubtful`], with doubts of one's own.
    pub(super) fn missing(&mut self, fault: Fault, detail: String, doubts: bool) {
        if doubts {
            let detail = format!("{detail} (perhaps only for want of what is lost)");
            self.sink.put(Severity::Warn, fault, detail);
        } else {
            self.sink.error(fault, detail);
        }
    }
}
