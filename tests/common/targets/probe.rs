//! The start of a device that is no HAMMER volume: partition tables.

use mallet::format::crc::crc32;
use mallet::format::volume::SIGNATURE;
use mallet::io::sim::SimDisk;
use mallet::store::probe::{Found, explain, probe as look};

/// Bytes of the label's header before its magic; the sum begins there.
const LABEL_START: usize = 512;
/// Bytes of a label before its partitions, and of one partition.
const LABEL_ENTRIES: usize = 712;
const LABEL_ENTRY: usize = 64;

/// A device that holds these bytes, as they are and with the tables' sums put right.
pub fn probe(data: &[u8]) {
    run(data);
    let mut bytes = data.to_vec();
    for sector in [512, 4096] {
        repair_gpt(&mut bytes, sector);
    }
    for slice in (0..bytes.len()).step_by(512) {
        repair_label(&mut bytes[slice..]);
    }
    run(&bytes);
}

fn run(bytes: &[u8]) {
    let disk = SimDisk::from_bytes(bytes);
    let mut device = disk.reader(0);
    let found = look(&mut device);
    if let Found::Partitions(list) = &found {
        for candidate in list {
            let at = usize::try_from(candidate.offset).expect("an offset on the device");
            assert_eq!(bytes[at..at + 8], SIGNATURE.to_le_bytes());
            assert!(at > 0 && !candidate.description.is_empty());
        }
        assert!(list.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    }
    let explained = explain(&mut device);
    assert_eq!(explained.is_none(), found == Found::Hammer);
}

fn field(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

fn put(bytes: &mut [u8], at: usize, sum: u32) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = sum.to_le_bytes();
    Some(())
}

/// Sums of the entries and the header of a GUID partition table in sector 1.
fn repair_gpt(bytes: &mut [u8], sector: usize) -> Option<()> {
    let size = field(bytes, sector + 12)?;
    let first = field(bytes, sector + 72)?.checked_mul(sector)?;
    let len = field(bytes, sector + 80)?.checked_mul(field(bytes, sector + 84)?)?;
    let is_table = bytes.get(sector..)?.starts_with(b"EFI PART");
    if !is_table || !(92..=sector).contains(&size) {
        return None;
    }
    let entries = crc32(bytes.get(first..first.checked_add(len)?)?);
    put(bytes, sector + 88, entries)?;
    put(bytes, sector + 16, 0)?;
    let sum = crc32(bytes.get(sector..sector + size)?);
    put(bytes, sector + 16, sum)
}

/// The sum of a disk label at the start of `slice`.
fn repair_label(slice: &mut [u8]) -> Option<()> {
    if slice.get(LABEL_START..)?.first_chunk::<4>()? != &0xC446_4C59u32.to_le_bytes() {
        return None;
    }
    let count = field(slice, LABEL_START + 12)?.min(16);
    let end = LABEL_ENTRIES + count * LABEL_ENTRY;
    if slice.len() < end {
        return None;
    }
    put(slice, LABEL_START + 4, 0)?;
    let sum = crc32(&slice[LABEL_START..end]);
    put(slice, LABEL_START + 4, sum)
}
