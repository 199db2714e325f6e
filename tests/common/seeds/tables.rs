//! Starts of disks with partition tables, each leading to volumes on the same few kilobytes.

use mallet::format::crc::crc32;
use mallet::format::volume::{SIGNATURE, SIGNATURE_HAMMER2};

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk of `len` bytes with a volume's signature at each of `volumes`.
fn disk(len: usize, volumes: &[usize]) -> Vec<u8> {
    let mut disk = vec![0; len];
    for at in volumes {
        put(&mut disk, *at, &SIGNATURE.to_le_bytes());
    }
    disk
}

/// A boot record with these partitions: kind and first sector.
fn boot_record(disk: &mut [u8], at: usize, entries: &[(u8, u32)]) {
    for (index, (kind, first)) in entries.iter().enumerate() {
        let entry = at + 446 + 16 * index;
        disk[entry + 4] = *kind;
        put(disk, entry + 8, &first.to_le_bytes());
        put(disk, entry + 12, &1u32.to_le_bytes());
    }
    put(disk, at + 510, &[0x55, 0xAA]);
}

/// A GUID partition table with partitions that begin at these sectors.
fn guid_table(disk: &mut [u8], sector: usize, firsts: &[u64]) {
    let mut table = vec![0; 128 * firsts.len()];
    for (entry, first) in table.chunks_exact_mut(128).zip(firsts) {
        entry[..16].fill(7);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&first.to_le_bytes());
    }
    put(disk, 2 * sector, &table);
    let mut header = [0; 92];
    put(&mut header, 0, b"EFI PART");
    put(&mut header, 8, &0x1_0000u32.to_le_bytes());
    put(&mut header, 12, &92u32.to_le_bytes());
    put(&mut header, 24, &1u64.to_le_bytes());
    put(&mut header, 72, &2u64.to_le_bytes());
    put(&mut header, 80, &(firsts.len() as u32).to_le_bytes());
    put(&mut header, 84, &128u32.to_le_bytes());
    put(&mut header, 88, &crc32(&table).to_le_bytes());
    let sum = crc32(&header);
    put(&mut header, 16, &sum.to_le_bytes());
    put(disk, sector, &header);
}

/// A 64-bit disk label with these partitions: offset in the slice and size, in bytes.
fn disk_label(disk: &mut [u8], at: usize, partitions: &[(u64, u64)]) {
    put(disk, at + 512, &0xC446_4C59u32.to_le_bytes());
    put(disk, at + 524, &(partitions.len() as u32).to_le_bytes());
    for (index, (offset, size)) in partitions.iter().enumerate() {
        let entry = at + 712 + 64 * index;
        put(disk, entry, &offset.to_le_bytes());
        put(disk, entry + 8, &size.to_le_bytes());
    }
    let end = at + 712 + 64 * partitions.len();
    let sum = crc32(&disk[at + 512..end]);
    put(disk, at + 516, &sum.to_le_bytes());
}

/// The seeds: name and bytes.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut mbr = disk(6144, &[2048, 4096, 5632]);
    boot_record(&mut mbr, 0, &[(0x6C, 4), (0x0F, 6)]);
    boot_record(&mut mbr, 3072, &[(0xA5, 2), (0x05, 4)]);
    boot_record(&mut mbr, 5120, &[(0xA5, 1), (0x05, 4)]);

    let mut gpt = disk(4096, &[2560, 3584]);
    boot_record(&mut gpt, 0, &[(0xEE, 1)]);
    guid_table(&mut gpt, 512, &[5, 6, 7]);

    let mut gpt4k = disk(12_800, &[12_288]);
    boot_record(&mut gpt4k, 0, &[(0xEE, 1)]);
    guid_table(&mut gpt4k, 4096, &[3]);

    let mut label = disk(4096, &[2048, 3072]);
    disk_label(&mut label, 0, &[(2048, 512), (0, 0), (3072, 512)]);

    let mut slice = disk(6144, &[4096]);
    boot_record(&mut slice, 0, &[(0x6C, 2)]);
    disk_label(&mut slice, 1024, &[(3072, 1024)]);

    let mut hammer2 = vec![0; 64];
    put(&mut hammer2, 0, &SIGNATURE_HAMMER2.to_le_bytes());
    vec![
        ("mbr", mbr),
        ("gpt", gpt),
        ("gpt-4096", gpt4k),
        ("label", label),
        ("label-in-slice", slice),
        ("hammer2", hammer2),
        ("empty", Vec::new()),
    ]
}
