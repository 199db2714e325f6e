use super::*;
use crate::io::sim::SimDisk;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// An empty disk of 64 MiB with a volume's signature at each of `volumes`.
fn disk(volumes: &[u64]) -> SimDisk {
    let disk = SimDisk::new(64 * MIB);
    for offset in volumes {
        put(&disk, *offset, &SIGNATURE.to_le_bytes());
    }
    disk
}

fn put(disk: &SimDisk, offset: u64, bytes: &[u8]) {
    disk.write(offset, bytes).expect("inside the disk");
}

fn mbr_entry(kind: u8, first_sector: u32) -> MbrEntry {
    MbrEntry {
        active: 0,
        first_chs: [0; 3],
        kind,
        last_chs: [0; 3],
        first_sector: U32::new(first_sector),
        sectors: U32::new(2048),
    }
}

fn put_mbr(disk: &SimDisk, offset: u64, entries: &[(u8, u32)]) {
    let mut table = Mbr {
        code: [0; 446],
        entries: [mbr_entry(0, 0); 4],
        magic: [0x55, 0xAA],
    };
    for (slot, (kind, first)) in table.entries.iter_mut().zip(entries) {
        *slot = mbr_entry(*kind, *first);
    }
    put(disk, offset, table.as_bytes());
}

/// A GPT with partitions that begin at these sectors.
fn put_gpt(disk: &SimDisk, sector: u64, first_sectors: &[u64]) {
    put_mbr(disk, 0, &[(MBR_PROTECTIVE, 1)]);
    let mut table = Vec::new();
    for number in 0..128 {
        let first = first_sectors.get(number).copied().unwrap_or(0);
        let entry = GptEntry {
            kind: [u8::from(first > 0); 16],
            unique: [0; 16],
            first_sector: U64::new(first),
            last_sector: U64::new(first),
            attributes: U64::ZERO,
            name: [0; 72],
        };
        table.extend_from_slice(entry.as_bytes());
    }
    put(disk, 2 * sector, &table);
    let mut header = GptHeader {
        signature: *b"EFI PART",
        revision: U32::new(0x10000),
        header_size: U32::new(92),
        header_crc: U32::ZERO,
        reserved: U32::ZERO,
        own_sector: U64::new(1),
        other_sector: U64::ZERO,
        first_usable: U64::ZERO,
        last_usable: U64::ZERO,
        disk: [0; 16],
        entries_sector: U64::new(2),
        entries: U32::new(128),
        entry_size: U32::new(128),
        entries_crc: U32::new(crc32fast::hash(&table)),
    };
    header.header_crc = U32::new(crc32fast::hash(header.as_bytes()));
    put(disk, sector, header.as_bytes());
}

/// A disk label with these partitions: offset in the slice, size.
fn put_label(disk: &SimDisk, offset: u64, partitions: &[(u64, u64)]) {
    let mut label = Label::read_from_bytes(&[0; size_of::<Label>()]).expect("its own size");
    label.magic = U32::new(LABEL_MAGIC);
    label.partitions = U32::new(16);
    for (slot, (offset, size)) in label.entries.iter_mut().zip(partitions) {
        slot.offset = U64::new(*offset);
        slot.size = U64::new(*size);
    }
    label.crc = U32::new(crc32fast::hash(&label.as_bytes()[512..]));
    put(disk, offset, label.as_bytes());
}

fn found(disk: &SimDisk) -> Vec<(u64, String)> {
    match probe(&mut disk.reader(1)) {
        Found::Partitions(list) => list
            .into_iter()
            .map(|candidate| (candidate.offset, candidate.description))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn named(offset: u64, description: &str) -> (u64, String) {
    (offset, description.to_owned())
}

#[test]
fn signatures_at_the_start() {
    for (signature, expected) in [
        (SIGNATURE, Found::Hammer),
        (SIGNATURE_REVERSED, Found::Reversed),
        (SIGNATURE_HAMMER2, Found::Hammer2),
        (0, Found::Partitions(Vec::new())),
    ] {
        let disk = SimDisk::new(MIB);
        put(&disk, 0, &signature.to_le_bytes());
        assert_eq!(probe(&mut disk.reader(1)), expected);
    }
    for size in [0, 1, 7, 511, 512, 1000] {
        assert_eq!(found(&SimDisk::new(size)), []);
    }
}

#[test]
fn gpt_partitions() {
    for sector in SECTORS {
        let disk = disk(&[8 * MIB, 24 * MIB]).sector(sector as usize);
        put_gpt(
            &disk,
            sector,
            &[MIB / sector, 0, 8 * MIB / sector, u64::MAX],
        );
        put_label(&disk, MIB, &[(0, 0), (23 * MIB, MIB)]);
        let expected = [
            named(8 * MIB, "GPT partition 3"),
            named(24 * MIB, "GPT partition 1, disklabel64 partition b"),
        ];
        assert_eq!(found(&disk), expected);
        // Either checksum wrong: no table.
        for place in [sector + 24, 2 * sector + 4] {
            let broken = disk.snapshot();
            put(&broken, place, &[0x77]);
            assert_eq!(found(&broken), []);
        }
    }
}

#[test]
fn mbr_partitions() {
    let disk = disk(&[MIB, 5 * MIB, 9 * MIB, 13 * MIB]);
    let sectors = |mib: u32| mib * 2048;
    put_mbr(
        &disk,
        0,
        &[(0x6C, sectors(1)), (0x0F, sectors(4)), (0, sectors(13))],
    );
    // Two logical partitions and a chain that bites its tail.
    put_mbr(&disk, 4 * MIB, &[(0xA5, sectors(1)), (0x05, sectors(4))]);
    put_mbr(&disk, 8 * MIB, &[(0xA5, sectors(1)), (0x05, 0)]);
    let expected = [
        named(MIB, "MBR partition 1"),
        named(5 * MIB, "MBR partition 5"),
        named(9 * MIB, "MBR partition 6"),
    ];
    assert_eq!(found(&disk), expected);
    put(&disk, 510, &[0]);
    assert_eq!(found(&disk), []);
}

#[test]
fn disk_labels() {
    let disk = disk(&[2 * MIB, 10 * MIB, 20 * MIB]);
    let partitions = [
        (2 * MIB, MIB),
        (10 * MIB, 0),
        (u64::MAX, MIB),
        (20 * MIB, MIB),
    ];
    put_label(&disk, 0, &partitions);
    let expected = [
        named(2 * MIB, "disklabel64 partition a"),
        named(20 * MIB, "disklabel64 partition d"),
    ];
    assert_eq!(found(&disk), expected);
    put(&disk, 720, &[1]);
    assert_eq!(found(&disk), []);
}

#[test]
fn the_error_says_where() {
    let disk = disk(&[MIB]);
    put_mbr(&disk, 0, &[(0x6C, 2048)]);
    let mut device = disk.reader(1);
    let text = explain(&mut device).expect("no signature at the start");
    assert!(
        text.contains("use simulated disk@1048576 (MBR partition 1)"),
        "{text}"
    );
    put(&disk, 0, &SIGNATURE_HAMMER2.to_le_bytes());
    let text = explain(&mut device).expect("another signature");
    assert!(text.contains("a HAMMER2 volume"), "{text}");
    put(&disk, 0, &SIGNATURE.to_le_bytes());
    assert_eq!(explain(&mut device), None);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Tables with right checksums and wild contents, some of them damaged afterwards, end soon.
    #[test]
    fn hostile_tables(
        noise in prop::collection::vec((0..4096_u64, any::<u8>()), 0..40),
        firsts in prop::collection::vec(any::<u64>(), 0..8),
        parts in prop::collection::vec(any::<(u64, u64)>(), 0..16),
        links in prop::collection::vec((0..16_u32, 0..16_u32), 16),
        unreadable in prop::option::of(0..MIB),
    ) {
        let disk = disk(&[]);
        put_gpt(&disk, 512, &firsts);
        put_label(&disk, 32768, &parts);
        for (place, (entry, next)) in links.iter().enumerate() {
            put_mbr(&disk, 40_960 + 512 * place as u64, &[(0xA5, *entry), (5, *next)]);
        }
        put_mbr(&disk, 0, &[(0xA5, 64), (5, 80), (0xA5, u32::MAX)]);
        for (place, byte) in noise {
            put(&disk, place, &[byte]);
        }
        if let Some(place) = unreadable {
            disk.set_unreadable(place..place + 512);
        }
        probe(&mut disk.reader(1));
        prop_assert!(disk.counts().reads < 10_000);
    }
}
