//! What a device without a HAMMER volume at its start holds instead: a relative of HAMMER, or
//! partitions in which a HAMMER volume stands, so that the error can say where.
//!
//! Looks into the primary GPT, an MBR with its chain of logical partitions, and DragonFly's 64-bit
//! disk labels, at the start of the device and of each partition found (a label stands inside a
//! slice there).

mod signatures;

pub use signatures::occupant;

use crate::format::volume::{SIGNATURE, SIGNATURE_HAMMER2, SIGNATURE_REVERSED};
use crate::io::{Device, read_at};
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sizes of a sector that partition tables count in, in bytes.
const SECTORS: [u64; 2] = [512, 4096];
/// Entries of a GPT that are looked at; the usual number is 128.
const GPT_ENTRIES_MAX: u32 = 1024;
/// Longest entry of a GPT; the usual length is 128.
const GPT_ENTRY_MAX: u32 = 1024;
/// Logical partitions of an MBR that are looked at.
const LOGICAL_MAX: usize = 128;
/// Partitions of a disk label, as many as DragonFly accepts.
const LABEL_ENTRIES_MAX: u32 = 16;

/// What stands on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A HAMMER signature at the start.
    Hammer,
    /// HAMMER's signature with its bytes reversed.
    Reversed,
    /// A HAMMER2 volume.
    Hammer2,
    /// HAMMER volumes in these partitions, by offset; none if the list is empty.
    Partitions(Vec<Candidate>),
}

/// A HAMMER volume in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it begins, in bytes from the start of the device.
    pub offset: u64,
    /// The partition, in words.
    pub description: String,
}

/// Looks at a device that has no HAMMER signature at its start: what it is instead, and what to
/// name instead, for an error that names the device itself.
pub fn explain(device: &mut dyn Device) -> Option<String> {
    match probe(device) {
        Found::Hammer => None,
        Found::Reversed => Some("a HAMMER volume of the wrong byte order".to_owned()),
        Found::Hammer2 => {
            let text = "a HAMMER2 volume; only HAMMER(1) is supported, not its successor";
            Some(text.to_owned())
        }
        Found::Partitions(list) if list.is_empty() => {
            let text = "not a HAMMER volume, and no partition holds one";
            Some(text.to_owned())
        }
        Found::Partitions(list) => {
            let places = list.iter().map(|candidate| {
                let name = device.name_at(candidate.offset);
                format!("{name} ({})", candidate.description)
            });
            let places: Vec<String> = places.collect();
            let places = places.join(" or ");
            Some(format!("the volume is in a partition, use {places}"))
        }
    }
}

/// Looks at the start of `device` and into its partitions. Needs a device with nothing in flight.
/// What cannot be read holds nothing.
pub fn probe(device: &mut dyn Device) -> Found {
    match signature(device, 0) {
        Some(SIGNATURE) => return Found::Hammer,
        Some(SIGNATURE_REVERSED) => return Found::Reversed,
        Some(SIGNATURE_HAMMER2) => return Found::Hammer2,
        _ => {}
    }
    let mut places = BTreeMap::new();
    let mut slices = vec![(0, String::new())];
    for sector in SECTORS {
        slices.extend(gpt(device, sector));
        slices.extend(mbr(device, sector));
    }
    for (offset, description) in slices {
        for (inside, letter) in label(device, offset) {
            let separator = if description.is_empty() { "" } else { ", " };
            let description = format!("{description}{separator}disklabel64 partition {letter}");
            places.entry(inside).or_insert(description);
        }
        places.entry(offset).or_insert(description);
    }
    let hammers = places
        .into_iter()
        .filter(|(offset, _)| signature(device, *offset) == Some(SIGNATURE));
    Found::Partitions(
        hammers
            .map(|(offset, description)| Candidate {
                offset,
                description,
            })
            .collect(),
    )
}

/// The first eight bytes at `offset`.
fn signature(device: &mut dyn Device, offset: u64) -> Option<u64> {
    let bytes = read_at(device, offset, 8).ok()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Reads a `T` at `offset`.
fn read<T: FromBytes>(device: &mut dyn Device, offset: u64) -> Option<T> {
    let bytes = read_at(device, offset, size_of::<T>()).ok()?;
    T::read_from_bytes(&bytes).ok()
}

/// The header of a GUID partition table, in sector 1.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GptHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc: U32,
    reserved: U32,
    own_sector: U64,
    other_sector: U64,
    first_usable: U64,
    last_usable: U64,
    disk: [u8; 16],
    entries_sector: U64,
    entries: U32,
    entry_size: U32,
    entries_crc: U32,
}

/// The fixed part of an entry in a GUID partition table.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GptEntry {
    kind: [u8; 16],
    unique: [u8; 16],
    first_sector: U64,
    last_sector: U64,
    attributes: U64,
    name: [u8; 72],
}

/// An entry of a master boot record.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MbrEntry {
    active: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first_sector: U32,
    sectors: U32,
}

/// A master boot record, or one link of the chain of logical partitions.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Mbr {
    code: [u8; 446],
    entries: [MbrEntry; 4],
    magic: [u8; 2],
}

/// DragonFly's `disklabel64`, at the start of a slice; offsets are bytes from there.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Label {
    reserved: [u8; 512],
    magic: U32,
    crc: U32,
    align: U32,
    partitions: U32,
    storage: [u8; 16],
    total_size: U64,
    boot_base: U64,
    partition_base: U64,
    partition_stop: U64,
    backup_base: U64,
    pack_name: [u8; 64],
    reserved1: [u8; 64],
    entries: [LabelEntry; LABEL_ENTRIES_MAX as usize],
}

/// A partition of a disk label.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LabelEntry {
    offset: U64,
    size: U64,
    kind: u8,
    unused: [u8; 15],
    kind_uuid: [u8; 16],
    storage: [u8; 16],
}

const _: () = {
    assert!(size_of::<GptHeader>() == 92);
    assert!(size_of::<GptEntry>() == 128);
    assert!(size_of::<Mbr>() == 512);
    assert!(size_of::<LabelEntry>() == 64);
    assert!(offset_of!(Label, entries) == 712);
};

/// `kind` of an unused and of a protective MBR entry.
const MBR_UNUSED: u8 = 0;
const MBR_PROTECTIVE: u8 = 0xEE;
/// `kind` of the entries that begin a chain of logical partitions.
const MBR_EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
/// Magic of a disk label.
const LABEL_MAGIC: u32 = 0xC446_4C59;

/// The partitions of the primary GPT in sectors of `sector` bytes: offset and description.
fn gpt(device: &mut dyn Device, sector: u64) -> Vec<(u64, String)> {
    let Some((header, table)) = gpt_table(device, sector) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, entry) in table
        .chunks_exact(header.entry_size.get() as usize)
        .enumerate()
    {
        let Ok((entry, _)) = GptEntry::read_from_prefix(entry) else {
            break;
        };
        let offset = entry.first_sector.get().checked_mul(sector);
        if let Some(offset) = offset.filter(|offset| entry.kind != [0; 16] && *offset > 0) {
            found.push((offset, format!("GPT partition {}", number + 1)));
        }
    }
    found
}

/// The header and the entries, their CRCs checked.
fn gpt_table(device: &mut dyn Device, sector: u64) -> Option<(GptHeader, Vec<u8>)> {
    let header: GptHeader = read(device, sector)?;
    if header.signature != *b"EFI PART" {
        return None;
    }
    let size = header.header_size.get();
    if !(size_of::<GptHeader>() as u64..=sector).contains(&u64::from(size)) {
        return None;
    }
    let mut bytes = read_at(device, sector, size as usize).ok()?;
    let crc_at = offset_of!(GptHeader, header_crc);
    bytes.get_mut(crc_at..crc_at + 4)?.fill(0);
    if crc32fast::hash(&bytes) != header.header_crc.get() {
        return None;
    }
    let (count, size) = (header.entries.get(), header.entry_size.get());
    let usual = size_of::<GptEntry>() as u32..=GPT_ENTRY_MAX;
    if !usual.contains(&size) || count > GPT_ENTRIES_MAX {
        return None;
    }
    let offset = header.entries_sector.get().checked_mul(sector)?;
    let table = read_at(device, offset, (count * size) as usize).ok()?;
    (crc32fast::hash(&table) == header.entries_crc.get()).then_some((header, table))
}

/// The partitions of a master boot record in sectors of `sector` bytes, logical ones too.
fn mbr(device: &mut dyn Device, sector: u64) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let Some(table) = mbr_table(device, 0) else {
        return found;
    };
    for (number, entry) in table.entries.iter().enumerate() {
        let offset = u64::from(entry.first_sector.get()) * sector;
        if matches!(entry.kind, MBR_UNUSED | MBR_PROTECTIVE) || offset == 0 {
            continue;
        }
        found.push((offset, format!("MBR partition {}", number + 1)));
        if MBR_EXTENDED.contains(&entry.kind) {
            found.extend(logical(device, sector, offset));
        }
    }
    found
}

fn mbr_table(device: &mut dyn Device, offset: u64) -> Option<Mbr> {
    read(device, offset).filter(|table: &Mbr| table.magic == [0x55, 0xAA])
}

/// The logical partitions of the extended partition at `base`: a chain of tables, each with a
/// partition (counted from that table) and the next table (counted from `base`).
fn logical(device: &mut dyn Device, sector: u64, base: u64) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut place = base;
    for number in 5..5 + LOGICAL_MAX {
        let Some(table) = mbr_table(device, place) else {
            break;
        };
        let [entry, next, ..] = &table.entries;
        let offset = place.checked_add(u64::from(entry.first_sector.get()) * sector);
        if let Some(offset) = offset.filter(|_| entry.kind != MBR_UNUSED) {
            found.push((offset, format!("MBR partition {number}")));
        }
        let next_place = base.checked_add(u64::from(next.first_sector.get()) * sector);
        match next_place {
            Some(after) if MBR_EXTENDED.contains(&next.kind) && after != place => place = after,
            _ => break,
        }
    }
    found
}

/// The partitions of a disk label in the slice at `base`: offset on the device and letter.
fn label(device: &mut dyn Device, base: u64) -> Vec<(u64, char)> {
    let Some(label) = read::<Label>(device, base) else {
        return Vec::new();
    };
    let count = label.partitions.get();
    if label.magic.get() != LABEL_MAGIC || count > LABEL_ENTRIES_MAX {
        return Vec::new();
    }
    let entries = &label.entries[..count as usize];
    let summed = Label {
        crc: U32::ZERO,
        ..label
    };
    let end = offset_of!(Label, entries) + size_of_val(entries);
    let sum = crc32fast::hash(&summed.as_bytes()[offset_of!(Label, magic)..end]);
    if sum != label.crc.get() {
        return Vec::new();
    }
    let used = entries
        .iter()
        .zip('a'..)
        .filter(|(entry, _)| entry.size.get() > 0);
    used.filter_map(|(entry, letter)| Some((base.checked_add(entry.offset.get())?, letter)))
        .collect()
}

#[cfg(test)]
mod tests;
