//! What a device that is to become a volume already holds: enough of the signatures of others to
//! ask before something is lost.

use crate::io::{Device, read_at};

/// Bytes at the start that all signatures lie within.
const LOOK: usize = 256 << 10;

/// A signature: where it stands, its bytes, whose it is. The first that is there decides.
const TABLE: &[(usize, &[u8], &str)] = &[
    (
        0,
        &[0x31, 0x30, 0x52, 0xC5, 0x4D, 0x4D, 0x41, 0xC8],
        "a HAMMER volume",
    ),
    (
        0,
        &[0xC8, 0x41, 0x4D, 0x4D, 0xC5, 0x52, 0x30, 0x31],
        "a HAMMER volume of the wrong byte order",
    ),
    (
        0,
        &[0x11, 0x20, 0x17, 0x05, 0x32, 0x4D, 0x41, 0x48],
        "a HAMMER2 volume",
    ),
    (0x438, &[0x53, 0xEF], "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (0, b"LUKS\xBA\xBE", "a LUKS volume"),
    (
        0x1018,
        &[0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA],
        "a bcache or bcachefs device",
    ),
    (0x400, &[0x10, 0x20, 0xF5, 0xF2], "an F2FS file system"),
    (0x400, &[0xE2, 0xE1, 0xF5, 0xE0], "an EROFS file system"),
    (0x10034, b"ReIsEr", "a ReiserFS file system"),
    (0x8000, b"JFS1", "a JFS file system"),
    (0x8001, b"CD001", "an ISO 9660 file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (0x36, b"FAT1", "a FAT file system"),
    (0x52, b"FAT32", "a FAT file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (
        0x2000 + 1372,
        &[0x19, 0x01, 0x54, 0x19],
        "a UFS file system",
    ),
    (
        0x10000 + 1372,
        &[0x19, 0x01, 0x54, 0x19],
        "a UFS file system",
    ),
    (4096 - 10, b"SWAPSPACE2", "swap space"),
    (4096 - 10, b"SWAP-SPACE", "swap space"),
    (16384 - 10, b"SWAPSPACE2", "swap space"),
    (65536 - 10, b"SWAPSPACE2", "swap space"),
    (0, b"LABELONE", "an LVM volume"),
    (512, b"LABELONE", "an LVM volume"),
    (1024, b"LABELONE", "an LVM volume"),
    (1536, b"LABELONE", "an LVM volume"),
    (0, &[0xFC, 0x4E, 0x2B, 0xA9], "a member of a RAID"),
    (4096, &[0xFC, 0x4E, 0x2B, 0xA9], "a member of a RAID"),
    (0, b"QFI\xFB", "a QCOW image of a virtual machine"),
    (0, b"KDMV", "a VMDK image of a virtual machine"),
    (512, &[0x59, 0x4C, 0x46, 0xC4], "a DragonFly disk label"),
    (512, b"EFI PART", "a GPT with partitions"),
    (4096, b"EFI PART", "a GPT with partitions"),
];
/// Where ZFS keeps its uberblocks: the second half of a label, one a KiB.
const ZFS: std::ops::Range<usize> = 128 << 10..256 << 10;
/// An uberblock's magic number.
const ZFS_MAGIC: u64 = 0x00BA_B10C;

/// What stands at the start of `device`, in words; `None` if it is nothing known. Needs a device
/// with nothing in flight. What cannot be read holds nothing.
pub fn occupant(device: &mut dyn Device) -> Option<&'static str> {
    let len = usize::try_from(device.size()).unwrap_or(LOOK).min(LOOK);
    let bytes = read_at(device, 0, len).ok()?;
    let there = |(at, magic, _): &&(usize, &[u8], &str)| {
        bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, what)) = TABLE.iter().find(there) {
        return Some(what);
    }
    if has_uberblock(&bytes) {
        return Some("a member of a ZFS pool");
    }
    has_partitions(&bytes).then_some("an MBR with partitions")
}

fn has_uberblock(bytes: &[u8]) -> bool {
    let labels = bytes.get(ZFS.start..).unwrap_or_default();
    let mut magics = labels
        .chunks(1024)
        .filter_map(|block| block.first_chunk::<8>());
    magics.any(|magic| {
        u64::from_le_bytes(*magic) == ZFS_MAGIC || u64::from_be_bytes(*magic) == ZFS_MAGIC
    })
}

/// Whether this is a master boot record with an entry in use. Boot sectors of other kinds end the
/// same way; their code is not four sensible entries.
fn has_partitions(bytes: &[u8]) -> bool {
    if bytes.get(510..512) != Some(&[0x55, 0xAA]) {
        return false;
    }
    let entries = bytes[446..510].chunks_exact(16);
    let sensible = entries.clone().all(|entry| matches!(entry[0], 0 | 0x80));
    sensible && entries.into_iter().any(|entry| entry[4] != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimDisk;

    fn found(at: u64, bytes: &[u8]) -> Option<&'static str> {
        let disk = SimDisk::new(1 << 20);
        disk.write(at, bytes).expect("inside the disk");
        occupant(&mut disk.device(1))
    }

    #[test]
    fn every_signature_is_found() {
        for (at, magic, what) in TABLE {
            assert_eq!(found(*at as u64, magic), Some(*what));
        }
        let uberblock = 0x00BA_B10C_u64.to_be_bytes();
        assert_eq!(found(200 << 10, &uberblock), Some("a member of a ZFS pool"));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(found(0, &[0; 512]), None);
        assert_eq!(found(300 << 10, b"XFSB"), None);
        assert_eq!(occupant(&mut SimDisk::new(512).device(1)), None);
        assert_eq!(occupant(&mut SimDisk::new(0).device(1)), None);
    }

    #[test]
    fn a_boot_record_counts_with_a_partition() {
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(found(0, &sector), None);
        sector[446 + 16 + 4] = 0x83;
        assert_eq!(found(0, &sector), Some("an MBR with partitions"));
        sector[446] = 7;
        assert_eq!(found(0, &sector), None);
    }

    /// What the own signatures say is what the format says.
    #[test]
    fn own_signatures() {
        use crate::format::volume::{SIGNATURE, SIGNATURE_HAMMER2, SIGNATURE_REVERSED};
        for (row, signature) in [SIGNATURE, SIGNATURE_REVERSED, SIGNATURE_HAMMER2]
            .iter()
            .enumerate()
        {
            assert_eq!(TABLE[row].1, signature.to_le_bytes());
        }
    }
}
