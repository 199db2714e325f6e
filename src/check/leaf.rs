//! The rules that a leaf element must keep by itself and with its neighbours (format.md §21
//! rule 4, rule 7).

use super::Run;
use super::media::Media;
use crate::format::node::{LeafElement, RECORD};
use crate::format::record::{NAME_MAX, PATH_MAX, classes, data_zone, rt};
use crate::format::{
    BUFFER, Fault, Key, LARGE_DATA, Localization, Offset, ROOT_OBJ, Rule, Tid, XBUFFER, Zone,
    align16,
};
use std::ops::RangeInclusive;

/// The TID of the records that newfs makes, above the `vol0_next_tid` it stores.
pub(super) const NEWFS_TID: Tid = Tid(0x1_0000_0001);
/// The `vol0_next_tid` that newfs stores.
pub(super) const NEWFS_NEXT: Tid = Tid(0x1_0000_0000);

/// The data of `leaf` if it lies where data of its kind can lie: its address and length.
pub(super) fn placed(leaf: &LeafElement, media: &Media) -> Option<(Offset, usize)> {
    let len = usize::try_from(leaf.data_len.get()).ok()?;
    if len == 0 {
        return None;
    }
    place_fault(leaf, media)
        .is_none()
        .then(|| (leaf.data_offset(), len))
}

/// What is wrong with the length, zone or address of `leaf`'s data.
fn place_fault(leaf: &LeafElement, media: &Media) -> Option<(Rule, String, String)> {
    let rec_type = leaf.base.rec_type.get();
    let at = leaf.data_offset();
    let range = lengths(rec_type)?;
    let len = match u32::try_from(leaf.data_len.get()) {
        Ok(len) if range.contains(&len) => len,
        _ => {
            let expected = format!("{} to {} bytes", range.start(), range.end());
            return Some((Rule::LeafLength, expected, leaf.data_len.to_string()));
        }
    };
    let zone = data_zone(rec_type, len)?;
    if at.zone() != zone {
        return Some((Rule::LeafZone, zone.to_string(), at.to_string()));
    }
    let unit = if zone == Zone::LARGE_DATA {
        BUFFER as u64
    } else {
        16
    };
    if !at.0.is_multiple_of(unit) {
        let expected = format!("a multiple of {unit}");
        return Some((Rule::LeafAddress, expected, at.to_string()));
    }
    let space = align16(u64::from(len));
    let inside = match u64::from(len) <= BUFFER as u64 {
        true => at.in_buffer() as u64 + space <= BUFFER as u64,
        false => at.in_bigblock() + space <= crate::format::BIGBLOCK,
    };
    if !inside {
        let expected = "no crossing of buffers (of big-blocks above 16 KiB)";
        let found = format!("{len} bytes at {at}");
        return Some((Rule::LeafAddress, expected.into(), found));
    }
    if !media.holds(at, space) {
        let expected = "an address inside its volume";
        return Some((Rule::LeafAddress, expected.into(), at.to_string()));
    }
    None
}

/// Lengths that data of a record type can have; `None` for types that do not exist.
fn lengths(rec_type: u16) -> Option<RangeInclusive<u32>> {
    Some(match rec_type {
        rt::INODE | rt::SNAPSHOT => 128..=128,
        rt::DATA | rt::DB => 1..=XBUFFER as u32,
        rt::DIRENTRY => 17..=16 + NAME_MAX as u32,
        rt::FIX => 1..=PATH_MAX as u32,
        rt::CONFIG => 1..=1024,
        rt::EXT | rt::PFS => 1..=LARGE_DATA,
        _ => return None,
    })
}

/// What the records before say about the next one.
#[derive(Default)]
pub(super) struct Versions {
    /// The record and when its latest version ends.
    last: Option<(Key, Tid)>,
}

impl Versions {
    /// Takes the next element; what overlaps, and whether both are current.
    fn overlap(&mut self, leaf: &LeafElement) -> Option<(Tid, bool)> {
        let key = leaf.base.key();
        let mut end = leaf.base.delete_tid();
        let mut found = None;
        if let Some((last, last_end)) = self.last
            && last.cmp_record(&key).is_eq()
        {
            if last_end.is_zero() || last_end > key.create_tid {
                found = Some((last_end, last_end.is_zero() && end.is_zero()));
            }
            if last_end.is_zero() || (!end.is_zero() && last_end > end) {
                end = last_end;
            }
        }
        self.last = Some((key, end));
        found
    }
}

/// How the PFS of a record came to its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// PFS 0: written here only.
    Own,
    /// A master that may have been a slave.
    Unknown,
    /// A slave: pruning at the master can leave versions that overlap (mirroring.md §7.8).
    Mirrored,
}

/// Checks `leaf`, element `index` of the node at `node`.
pub(super) fn check(
    run: &mut Run<'_>,
    leaf: &LeafElement,
    node: Offset,
    index: usize,
    history: History,
) {
    let base = &leaf.base;
    let at = element_place(node, index);
    let rec_type = base.rec_type.get();
    let mut faults = Vec::new();
    let mut fault = |rule, expected: String, found: String| {
        faults.push(Fault::new(rule, at, expected, found));
    };
    if base.btype != RECORD {
        let found = format!("0x{:02x}", base.btype);
        fault(Rule::LeafBtype, "'R' (0x52)".into(), found);
    }
    match classes(rec_type) {
        None => fault(
            Rule::LeafRecType,
            "a record type that exists".into(),
            format!("0x{rec_type:04x}"),
        ),
        Some(allowed) => {
            let lo = Localization(base.localization.get());
            // PFS records are looked up in PFS 0 alone; a slave of a PFS 0 has its master's, inert.
            if !allowed.contains(&lo.class()) {
                let expected = format!("class {allowed:?}");
                fault(Rule::LeafLocalization, expected, format!("{lo:?}"));
            }
        }
    }
    let (create, delete) = (base.create_tid(), base.delete_tid());
    if create <= Tid(1) || (!delete.is_zero() && delete <= create) {
        let expected = "create_tid above 1, delete_tid 0 or above it";
        fault(
            Rule::LeafTid,
            expected.into(),
            format!("create {create}, delete {delete}"),
        );
    }
    if let Some((rule, expected, found)) = place_fault(leaf, run.media) {
        fault(rule, expected, found);
    }
    for fault in faults {
        run.sink.error(fault, describe(leaf));
    }
    versions(run, leaf, at, history);
    next_tid(run, leaf, at);
}

fn versions(run: &mut Run<'_>, leaf: &LeafElement, at: Offset, history: History) {
    let Some((end, both_live)) = run.versions.overlap(leaf) else {
        return;
    };
    let expected = "a version before that is deleted by then";
    let found = match end.is_zero() {
        true => "one not deleted".to_owned(),
        false => format!("one deleted at {end}"),
    };
    let fault = Fault::new(Rule::LeafVersions, at, expected, found);
    match history {
        History::Own => run.sink.error(fault, describe(leaf)),
        History::Unknown if both_live => run.sink.error(fault, describe(leaf)),
        _ => run.sink.warn(fault, describe(leaf)),
    }
}

/// No TID or object id is above the allocator's base.
fn next_tid(run: &mut Run<'_>, leaf: &LeafElement, at: Offset) {
    let next = run.next_tid;
    let base = &leaf.base;
    let (create, delete) = (base.create_tid(), base.delete_tid());
    let newfs = next == NEWFS_NEXT && create == NEWFS_TID && base.obj_id.get() == ROOT_OBJ;
    let highest = create.max(delete);
    if highest > next && !(newfs && delete.is_zero()) {
        let expected = format!("TIDs up to vol0_next_tid {next}");
        let fault = Fault::new(Rule::NextTid, at, expected, highest);
        run.sink.error(fault, describe(leaf));
    }
    let obj = base.obj_id.get();
    if u64::try_from(obj).is_ok_and(|obj| (1..=next.0).contains(&obj)) || obj == ROOT_OBJ {
        return;
    }
    let expected = format!("an object id of 1 to vol0_next_tid {next}");
    let found = format!("0x{obj:016x}");
    let fault = Fault::new(Rule::NextTid, at, expected, found);
    // A mirrored object's id comes from its master's counter, and DragonFly's mirror-write raises
    // the counter by TIDs only.
    if obj > 0 && Localization(base.localization.get()).pfs() != 0 {
        run.sink.warn(fault, describe(leaf));
    } else {
        run.sink.error(fault, describe(leaf));
    }
}

/// The address of element `index` of the node at `node`.
pub(super) fn element_place(node: Offset, index: usize) -> Offset {
    Offset(node.0.wrapping_add(64 + 64 * index as u64))
}

/// A record in words: type, PFS, object, key, creation.
pub(super) fn describe(leaf: &LeafElement) -> String {
    let key = leaf.base.key();
    let kind = rt::name(key.rec_type).unwrap_or("unknown record");
    format!(
        "{kind}, PFS {}, object 0x{:016x}, key 0x{:x}, created {}",
        key.localization.pfs(),
        key.obj_id,
        key.key,
        key.create_tid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::Base;
    use proptest::prelude::*;
    use zerocopy::FromZeros;
    use zerocopy::little_endian::U64;

    fn version(create: u64, delete: u64) -> LeafElement {
        let key = Key {
            create_tid: Tid(create),
            ..Key::first_version(Localization(1), 5, rt::INODE, 0)
        };
        let mut leaf = LeafElement::new_zeroed();
        leaf.base = Base::from_key(key);
        leaf.base.delete_tid = U64::new(delete);
        leaf
    }

    proptest! {
        /// Some pair of versions overlaps exactly when the running check finds one.
        #[test]
        fn overlaps_as_by_pairs(ends in proptest::collection::btree_map(2u64..20, 0u64..25, 1..6)) {
            let list: Vec<_> = ends.iter().map(|(c, d)| {
                (*c, if *d == 0 { u64::MAX } else { (*d).max(*c + 1) }, *d == 0)
            }).collect();
            let mut versions = Versions::default();
            let found = list.iter().any(|(create, delete, live)| {
                versions.overlap(&version(*create, if *live { 0 } else { *delete })).is_some()
            });
            let pairs = list.iter().enumerate().any(|(i, a)| {
                list[i + 1..].iter().any(|b| a.1 > b.0)
            });
            prop_assert_eq!(found, pairs);
        }
    }
}
