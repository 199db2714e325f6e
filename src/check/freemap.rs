//! The freemap: all layer-1 entries, all layer-2 entries of those that are populated, and the
//! sums (format.md §21 rule 2).
//!
//! Of what is read only the big-blocks in use are kept, in [`Space`](super::space::Space).

use super::{Run, ahead};
use crate::error::Result;
use crate::format::freemap::{LAYER1_ENTRIES, LAYER2_ENTRIES, Layer1, Layer2, layer1_entry};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, CrcKind, Fault, Offset, Rule, XBUFFER, Zone, crc};
use crate::store::Fetch;
use std::collections::HashSet;
use std::fmt::Display;
use std::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Layer-1 entries of one volume: 4 PiB.
const VOLUME_ENTRIES: usize = 1024;

/// What the walk over the freemap adds up.
#[derive(Default)]
struct Sums {
    free: u64,
    data: u64,
    /// Big-blocks that the FIFO should have.
    undo: HashSet<u64>,
    undo_found: u64,
    /// Big-blocks of the freemap itself.
    freemap: HashSet<u64>,
    freemap_found: u64,
    /// Something could not be read: the sums prove nothing.
    incomplete: bool,
    /// The entries with a good CRC met last. Most entries repeat the one before.
    good1: Option<Layer1>,
    good2: Option<Layer2>,
}

/// Checks the freemap that `header` names and fills the table of big-blocks in use.
pub(super) fn check<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    header: &VolumeHeader,
) -> Result<()> {
    let root = Offset(header.zone(Zone::FREEMAP).phys_offset.get());
    let mut sums = Sums::default();
    let undo = (header.undo_bytes() / BIGBLOCK) as usize;
    for slot in header.undo_array.iter().take(undo) {
        if !sums.undo.insert(Offset(slot.get()).long()) {
            let fault = Fault::new(Rule::UndoArray, root_place(), "each big-block once", slot);
            run.sink.error(fault, "UNDO array");
        }
    }
    sums.freemap.insert(root.long());
    let arrays = layer1(run, fetch, root, &mut sums)?;
    for (at, place, entry) in arrays {
        let free = layer2(run, fetch, at, &entry, &mut sums)?;
        sums.free += free;
        let stored = entry.blocks_free.get();
        if stored != free && !sums.incomplete {
            let fault = Fault::new(Rule::Layer1Free, place, free, stored);
            run.sink.error(fault, format!("layer 1 entry of {at}"));
        }
    }
    if sums.incomplete {
        run.space.set_partial();
    } else {
        statistics(run, header, &sums);
    }
    Ok(())
}

fn root_place() -> Offset {
    let place = offset_of!(VolumeHeader, undo_array);
    Offset::new(Zone::RAW_VOLUME, 0, place as u64)
}

/// Compares what was counted with the header.
fn statistics(run: &mut Run<'_>, header: &VolumeHeader, sums: &Sums) {
    for (rule, place, stored, counted) in [
        (
            Rule::StatFree,
            offset_of!(VolumeHeader, stat_freebigblocks),
            header.stat_freebigblocks.get(),
            sums.free,
        ),
        (
            Rule::StatBigblocks,
            offset_of!(VolumeHeader, stat_bigblocks),
            header.stat_bigblocks.get(),
            sums.data,
        ),
    ] {
        if u64::try_from(stored) != Ok(counted) {
            let at = Offset::new(Zone::RAW_VOLUME, 0, place as u64);
            run.sink
                .error(Fault::new(rule, at, counted, stored), "volume header");
        }
    }
    for (rule, expected, found, what) in [
        (
            Rule::UndoArray,
            sums.undo.len() as u64,
            sums.undo_found,
            "zone 3",
        ),
        (
            Rule::Layer2Owner,
            sums.freemap.len() as u64,
            sums.freemap_found,
            "zone 4",
        ),
    ] {
        if expected != found {
            let expected = format!("{expected} big-blocks of {what}");
            let fault = Fault::new(rule, root_place(), expected, found);
            run.sink.error(fault, "freemap");
        }
    }
}

/// Reads and checks all layer-1 entries. Returns those with an array that can be read: the space
/// they describe, their own place, the entry.
fn layer1<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    root: Offset,
    sums: &mut Sums,
) -> Result<Vec<(Offset, Offset, Layer1)>> {
    let mut arrays = Vec::new();
    let per_chunk = XBUFFER / size_of::<Layer1>();
    for first in (0..LAYER1_ENTRIES).step_by(per_chunk) {
        let chunk = Offset(root.0 + (first * size_of::<Layer1>()) as u64);
        ahead(fetch, chunk);
        let Some(bytes) = run.metadata(fetch, chunk, XBUFFER, "layer 1")? else {
            sums.incomplete = true;
            continue;
        };
        for (index, entry) in entries::<Layer1>(&bytes).iter().enumerate() {
            let index = first + index;
            let at = Offset((index as u64) << 42).in_zone(Zone::RAW_BUFFER);
            let place = layer1_entry(root, at);
            if !same(&sums.good1, entry) {
                let stored = entry.layer1_crc.get();
                match crc::accept(run.version, stored, |kind| entry.sum(kind)) {
                    Some(_) => sums.good1 = Some(*entry),
                    None => {
                        let expected = entry.sum(CrcKind::of_version(run.version));
                        layer1_error(
                            run,
                            at,
                            place,
                            Rule::Layer1Crc,
                            &format_args!("0x{expected:08x}"),
                            &format_args!("0x{stored:08x}"),
                        );
                    }
                }
            }
            if layer1_one(run, at, place, entry, sums) {
                arrays.push((at, place, *entry));
            }
        }
        run.tick()?;
    }
    Ok(arrays)
}

/// Checks one layer-1 entry, that of the space at `at`; whether its array can be read.
fn layer1_one(
    run: &mut Run<'_>,
    at: Offset,
    place: Offset,
    entry: &Layer1,
    sums: &mut Sums,
) -> bool {
    let slot = (at.layer1_index() % VOLUME_ENTRIES) as u64;
    let exists = slot * (LAYER2_ENTRIES as u64) < run.media.bigblocks(at.volume());
    let array = entry.array();
    let sane = array.zone() == Zone::RAW_BUFFER
        && array.volume() == at.volume()
        && array.in_bigblock() == 0
        && run.media.holds(array, BIGBLOCK);
    if !exists {
        if entry.is_available() {
            layer1_error(run, at, place, Rule::Layer1Pointer, &"no array", &array);
        } else if entry.blocks_free.get() != 0 {
            layer1_error(run, at, place, Rule::Layer1Free, &0, &entry.blocks_free);
        }
        return false;
    }
    if !sane || !sums.freemap.insert(array.long()) {
        let expected = format!("a big-block of volume {} of its own", at.volume());
        layer1_error(run, at, place, Rule::Layer1Pointer, &expected, &array);
        sums.incomplete = true;
        return false;
    }
    true
}

/// Says what is wrong with the layer-1 entry at `place`, that of the space at `at`.
fn layer1_error(
    run: &mut Run<'_>,
    at: Offset,
    place: Offset,
    rule: Rule,
    expected: &dyn Display,
    found: &dyn Display,
) {
    run.sink.lazy_error(rule, || {
        let fault = Fault::new(rule, place, expected, found);
        (fault, format!("layer 1 entry of {at}"))
    });
}

/// Reads and checks the layer-2 array of the space at `base`; returns how many of its big-blocks
/// are free.
fn layer2<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    base: Offset,
    entry: &Layer1,
    sums: &mut Sums,
) -> Result<u64> {
    let mut free = 0;
    let per_chunk = XBUFFER / size_of::<Layer2>();
    for first in (0..LAYER2_ENTRIES).step_by(per_chunk) {
        let chunk = Offset(entry.array().0 + (first * size_of::<Layer2>()) as u64);
        ahead(fetch, chunk);
        let Some(bytes) = run.metadata(fetch, chunk, XBUFFER, "layer 2")? else {
            sums.incomplete = true;
            continue;
        };
        for (index, entry) in entries::<Layer2>(&bytes).iter().enumerate() {
            let at = Offset(base.0 + (first + index) as u64 * BIGBLOCK);
            let place = Offset(chunk.0 + (index * size_of::<Layer2>()) as u64);
            free += u64::from(entry.owner() == Zone::FREE);
            layer2_one(run, at, place, entry, sums);
        }
        run.tick()?;
    }
    Ok(free)
}

/// Checks one layer-2 entry, that of the big-block at `at` (zone 2).
fn layer2_one(run: &mut Run<'_>, at: Offset, place: Offset, entry: &Layer2, sums: &mut Sums) {
    let mut error = |rule, expected: &dyn Display, found: &dyn Display| {
        run.sink.lazy_error(rule, || {
            let fault = Fault::new(rule, place, expected, found);
            (fault, format!("layer 2 entry of big-block {at}"))
        });
    };
    if !same(&sums.good2, entry) {
        let stored = entry.entry_crc.get();
        match crc::accept(run.version, stored, |kind| entry.sum(kind)) {
            Some(_) => sums.good2 = Some(*entry),
            None => {
                let expected = entry.sum(CrcKind::of_version(run.version));
                error(
                    Rule::Layer2Crc,
                    &format_args!("0x{expected:08x}"),
                    &format_args!("0x{stored:08x}"),
                );
            }
        }
    }
    let owner = entry.owner();
    let exists = at.short() / BIGBLOCK < run.media.bigblocks(at.volume());
    if exists == (owner == Zone::UNAVAILABLE) {
        let expected = match exists {
            true => "an owner, or free: the volume reaches behind it",
            false => "owner 15: the volume ends before it",
        };
        error(Rule::Layer2End, &expected, &owner);
        return;
    }
    layer2_form(entry, &mut error);
    if !exists {
        return;
    }
    // The special owners must be exactly where the header and layer 1 say.
    if sums.undo.contains(&at.long()) {
        if owner != Zone::UNDO {
            error(Rule::UndoArray, &"owner zone 3", &owner);
        }
    } else if sums.freemap.contains(&at.long()) && owner != Zone::FREEMAP {
        error(Rule::Layer2Owner, &"owner zone 4", &owner);
    }
    sums.undo_found += u64::from(owner == Zone::UNDO);
    sums.freemap_found += u64::from(owner == Zone::FREEMAP);
    if !matches!(owner, Zone::UNDO | Zone::FREEMAP | Zone::UNAVAILABLE) {
        sums.data += 1;
    }
    if !matches!(owner, Zone::FREE | Zone::UNAVAILABLE) {
        run.space.add_block(at, entry);
        run.report.bigblocks_used += 1;
    }
}

/// What an entry of each owner can look like.
fn layer2_form(entry: &Layer2, error: &mut dyn FnMut(Rule, &dyn Display, &dyn Display)) {
    let owner = entry.owner();
    if !matches!(owner.0, 0 | 3 | 4 | 8..=11 | 15) {
        let expected = "owner 0, 3, 4, 8 to 11 or 15";
        error(Rule::Layer2Owner, &expected, &owner);
    }
    let (append, free) = (entry.append_off.get(), entry.bytes_free.get());
    if let Some(form) = Layer2::canonical(owner) {
        if (append, free) != form {
            let expected = format_args!("append_off {}, bytes_free {}", form.0, form.1);
            error(
                Rule::Layer2Canonical,
                &expected,
                &format_args!("{append}, {free}"),
            );
        }
        return;
    }
    if u64::from(append) > BIGBLOCK {
        error(
            Rule::Layer2Append,
            &format_args!("0 to {BIGBLOCK}"),
            &append,
        );
    }
    if i64::from(free) > BIGBLOCK as i64 {
        error(Rule::Layer2Free, &format_args!("up to {BIGBLOCK}"), &free);
    }
}

/// Whether `entry` is, byte for byte, the one with the good CRC.
fn same<T: IntoBytes + Immutable>(good: &Option<T>, entry: &T) -> bool {
    good.as_ref()
        .is_some_and(|good| good.as_bytes() == entry.as_bytes())
}

/// The entries in `bytes`; none if their number is not whole.
fn entries<T: FromBytes + KnownLayout + Immutable + zerocopy::Unaligned>(bytes: &[u8]) -> &[T] {
    <[T]>::ref_from_bytes(bytes).unwrap_or_default()
}
