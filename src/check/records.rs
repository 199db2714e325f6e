//! The main pass: every record of the volume, every version, with its data.

use super::files::{Files, Seen};
use super::leaf::{self, describe, element_place};
use super::pass::Pass;
use super::pfs::{Snapshot, Table, Weight};
use super::{Run, pfs};
use crate::btree;
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::{Entry, InodeData, ObjType, rt};
use crate::format::{Fault, Key, Localization, Offset, Rule, Zone, align16};
use crate::io::Bytes;
use crate::store::Fetch;
use std::collections::BTreeMap;

/// The data of a record as far as it is known.
#[derive(Clone)]
pub(super) enum Data {
    /// Not read: file data without the option for it.
    Unread,
    /// Missing or wrong; a finding has been made of it.
    Damaged,
    /// As its CRC says.
    Good(Bytes),
}

/// What the pass leaves behind for the passes over snapshots.
#[derive(Default)]
pub(super) struct Harvest {
    /// The snapshots found.
    pub snapshots: Vec<Snapshot>,
    /// How much memory a view of each PFS can take.
    pub weights: BTreeMap<u16, Weight>,
}

/// Checks all records.
pub(super) fn check<F: Fetch + ?Sized>(run: &mut Run<'_>, fetch: &mut F) -> Result<Harvest> {
    let table = Table::read(fetch)?;
    let mut harvest = Harvest::default();
    let mut pass = Pass::new(Key::MIN, Key::MAX);
    let (media, all) = (run.media, run.options.data);
    let wanted = |leaf: &LeafElement| {
        leaf::placed(leaf, media).filter(|(at, _)| all || at.zone() == Zone::META)
    };
    let mut view: Option<Files> = None;
    let mut live_inodes = 0u64;
    while let Some(item) = pass.next(fetch, Some(run), &wanted)? {
        for index in item.range.clone() {
            let Some(leaf) = item.leaf.node.leaves().get(index) else {
                break;
            };
            let pfs = Localization(leaf.base.localization.get()).pfs();
            leaf::check(run, leaf, item.leaf.at, index, table.history(pfs));
            let at = element_place(item.leaf.at, index);
            let data = data(run, fetch, leaf, at)?;
            contents(run, leaf, at, &data);
            harvest.note(run, leaf, &data);
            live_inodes += u64::from(
                leaf.base.rec_type.get() == rt::INODE && leaf.base.delete_tid().is_zero(),
            );
            if view.as_ref().is_none_or(|v| v.pfs() != pfs) {
                if let Some(done) = view.take() {
                    done.finish(run, fetch)?;
                }
                view = table.view(pfs).map(|asof| Files::new(pfs, asof, false));
                run.report.views += u64::from(view.is_some());
            }
            if let Some(view) = &mut view {
                view.feed(
                    run,
                    fetch,
                    Seen {
                        leaf: *leaf,
                        at,
                        data,
                    },
                )?;
            }
            run.report.records += 1;
            run.status.items += 1;
            run.status.object = leaf.base.obj_id.get();
            run.pulse()?;
        }
    }
    if let Some(done) = view.take() {
        done.finish(run, fetch)?;
    }
    run.report.inodes = live_inodes;
    inodes(run, fetch, live_inodes);
    Ok(harvest)
}

/// `vol0_stat_inodes` against the live inodes of all PFSs.
fn inodes<F: Fetch + ?Sized>(run: &mut Run<'_>, fetch: &F, live: u64) {
    let stored = fetch.header().stat_inodes.get();
    if u64::try_from(stored) == Ok(live) {
        return;
    }
    let place = std::mem::offset_of!(crate::format::volume::VolumeHeader, stat_inodes);
    let at = Offset::new(Zone::RAW_VOLUME, 0, place as u64);
    let fault = Fault::new(Rule::StatInodes, at, live, stored);
    run.doubtful(fault, "volume header");
}

/// Counts the data's space, and reads and checks the data where that is asked for.
fn data<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    leaf: &LeafElement,
    at: Offset,
) -> Result<Data> {
    let Some((place, len)) = leaf::placed(leaf, run.media) else {
        run.unplaced = true;
        return Ok(Data::Damaged);
    };
    let what = || describe(leaf);
    run.space.refer(place, len as u64, &mut run.sink, &what);
    if place.zone() != Zone::META && !run.options.data {
        return Ok(Data::Unread);
    }
    let verified = match place.zone() {
        Zone::META => &mut run.report.metadata_bytes,
        _ => &mut run.report.data_bytes,
    };
    *verified += len as u64;
    run.status.bytes += align16(len as u64);
    let error = match btree::data(fetch, leaf) {
        Ok(data) if data.crc_ok => return Ok(Data::Good(data.bytes)),
        Ok(data) => btree::record::bad_crc(leaf, &data.bytes, run.version),
        Err(error) => error,
    };
    let fault = run.media_fault(error, Rule::DataRead, place)?;
    run.sink
        .error(fault, format!("{}, element {at}", describe(leaf)));
    Ok(Data::Damaged)
}

impl Harvest {
    fn note(&mut self, run: &mut Run<'_>, leaf: &LeafElement, data: &Data) {
        let pfs = Localization(leaf.base.localization.get()).pfs();
        let weight = self.weights.entry(pfs).or_default();
        match leaf.base.rec_type.get() {
            rt::INODE => weight.inodes += 1,
            rt::DIRENTRY => weight.entries += 1,
            rt::SNAPSHOT if leaf.base.delete_tid().is_zero() => {
                if let Data::Good(data) = data {
                    self.snapshots.extend(pfs::snapshot(run, leaf, data));
                }
            }
            _ => {}
        }
    }
}

/// The rules for what a record of each type holds, whether or not some view shows it.
fn contents(run: &mut Run<'_>, leaf: &LeafElement, at: Offset, data: &Data) {
    let Data::Good(data) = data else { return };
    match leaf.base.rec_type.get() {
        rt::INODE => {
            if let Some(inode) = InodeData::from_bytes(data) {
                inode_contents(run, leaf, &inode);
            }
        }
        rt::DIRENTRY => {
            if let Some(entry) = Entry::from_bytes(data) {
                entry_contents(run, leaf, &entry);
            }
        }
        rt::PFS => pfs::record(run, leaf, at, data),
        _ => {}
    }
}

fn inode_contents(run: &mut Run<'_>, leaf: &LeafElement, inode: &InodeData) {
    let mut error = |expected: &str, found: String| {
        let fault = Fault::new(Rule::Inode, leaf.data_offset(), expected.to_owned(), found);
        run.sink.error(fault, describe(leaf));
    };
    if inode.version.get() != 1 {
        error("version 1", inode.version.to_string());
    }
    let kind = inode.obj_type();
    if kind.is_none() || inode.obj_type != leaf.base.obj_type {
        let found = format!("{} (element: {})", inode.obj_type, leaf.base.obj_type);
        error("an object type of 1 to 9, as in the element", found);
    }
    if leaf.base.key.get() != 0 {
        error("key 0", format!("0x{:x}", leaf.base.key.get()));
    }
    let size = inode.size.get();
    if i64::try_from(size).is_err() {
        error("a size below 2^63", size.to_string());
    }
    if kind == Some(ObjType::Directory) {
        if size != 0 {
            error("a directory of size 0", size.to_string());
        }
        if inode.name_hash().is_none() {
            let found = format!("capabilities 0x{:02x}", inode.cap_flags);
            error("hash algorithm 0 or 1", found);
        }
    }
}

fn entry_contents(run: &mut Run<'_>, leaf: &LeafElement, entry: &Entry<'_>) {
    let mut error = |rule, expected: String, found: String| {
        let fault = Fault::new(rule, leaf.data_offset(), expected, found);
        run.sink.error(fault, describe(leaf));
    };
    if !entry.name_is_valid() {
        let name = entry.name.escape_ascii().to_string();
        error(
            Rule::EntryName,
            "1 to 255 bytes without / and NUL".into(),
            name,
        );
    }
    let own = Localization(leaf.base.localization.get()).pfs();
    let expected = Localization::new(own, 0);
    if entry.localization != expected {
        let found = format!("{:?}", entry.localization);
        error(Rule::EntryLocalization, format!("{expected:?}"), found);
    }
}
