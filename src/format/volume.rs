//! The volume header and its blockmap array (format.md §4, §5).

use super::fault::hex32;
use super::{BIGBLOCK, CrcKind, Fault, Offset, Rule, Tid, UNDO_BIGBLOCKS_MAX, Zone, crc};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The signature of a HAMMER(1) volume.
pub const SIGNATURE: u64 = 0xC841_4D4D_C552_3031;
/// The signature as a big-endian machine would have written it; never valid.
pub const SIGNATURE_REVERSED: u64 = SIGNATURE.swap_bytes();
/// The signature of a HAMMER2 volume, recognised to say so.
pub const SIGNATURE_HAMMER2: u64 = 0x4841_4d32_0517_2011;
/// The file system type, 61dc63ac-6e38-11dc-8513-01301bb8a9f5, as stored.
pub const FSTYPE: [u8; 16] = [
    0xAC, 0x63, 0xDC, 0x61, 0x38, 0x6E, 0xDC, 0x11, 0x85, 0x13, 0x01, 0x30, 0x1B, 0xB8, 0xA9, 0xF5,
];
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = size_of::<VolumeHeader>();
/// Bytes of zone 2 that addresses can tell apart on one volume.
pub const ZONE_MAX: u64 = 1 << 52;
/// The lowest file system version there is.
pub const VERSION_MIN: u32 = 1;
/// The highest file system version there is.
pub const VERSION_MAX: u32 = 7;

/// One of the header's sixteen zone descriptors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockmapEntry {
    /// Zone 4: the layer-1 array. Zone 3: all ones.
    pub phys_offset: U64,
    /// Zone 3: where the range to undo starts.
    pub first_offset: U64,
    /// Zone 3: the append point; zones 8 to 15: the allocation iterator.
    pub next_offset: U64,
    /// Zone 3: the end of the FIFO.
    pub alloc_offset: U64,
    /// Zero.
    pub reserved: U32,
    /// CRC of the 36 bytes before; advisory.
    pub entry_crc: U32,
}

impl BlockmapEntry {
    /// The CRC of this entry under `kind`.
    pub fn sum(&self, kind: CrcKind) -> u32 {
        kind.sum(&self.as_bytes()[..offset_of!(BlockmapEntry, entry_crc)])
    }
}

/// The header at byte 0 of every volume.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VolumeHeader {
    /// [`SIGNATURE`].
    pub signature: U64,
    /// Start of the boot area, bytes from the start of the device.
    pub bot_beg: I64,
    /// Start of the memory-log area.
    pub mem_beg: I64,
    /// Start of zone 2.
    pub buf_beg: I64,
    /// End of the usable area.
    pub buf_end: I64,
    /// Formerly `vol_locked`.
    pub reserved01: I64,
    /// File system id, the same on all volumes.
    pub fsid: [u8; 16],
    /// [`FSTYPE`].
    pub fstype: [u8; 16],
    /// NUL-terminated label.
    pub label: [u8; 64],
    /// This volume's number.
    pub vol_no: I32,
    /// Number of volumes; the root's is authoritative.
    pub vol_count: I32,
    /// File system version; the root's governs.
    pub version: U32,
    /// CRC of the bytes around it; advisory.
    pub crc: U32,
    /// Zero on disk.
    pub flags: U32,
    /// Number of the root volume: zero.
    pub rootvol: U32,
    /// Formerly block size and count.
    pub reserved02: [U64; 4],
    /// Big-blocks that are neither freemap nor UNDO.
    pub stat_bigblocks: I64,
    /// Free big-blocks of all volumes.
    pub stat_freebigblocks: I64,
    /// Formerly byte statistics.
    pub reserved03: I64,
    /// Live inodes.
    pub stat_inodes: I64,
    /// Formerly record statistics.
    pub reserved04: I64,
    /// The root node, zone 8.
    pub btree_root: U64,
    /// Base of the TID allocator, raised without UNDO.
    pub next_tid: U64,
    /// Zero.
    pub reserved05: I64,
    /// One entry a zone.
    pub blockmap: [BlockmapEntry; 16],
    /// The FIFO's big-blocks, zone 2; unused slots all ones.
    pub undo_array: [U64; UNDO_BIGBLOCKS_MAX],
}

const _: () = {
    assert!(size_of::<BlockmapEntry>() == 40);
    assert!(size_of::<VolumeHeader>() == 1928);
    assert!(offset_of!(VolumeHeader, fsid) == 0x30);
    assert!(offset_of!(VolumeHeader, label) == 0x50);
    assert!(offset_of!(VolumeHeader, vol_no) == 0x90);
    assert!(offset_of!(VolumeHeader, crc) == 0x9C);
    assert!(offset_of!(VolumeHeader, stat_bigblocks) == 0xC8);
    assert!(offset_of!(VolumeHeader, btree_root) == 0xF0);
    assert!(offset_of!(VolumeHeader, next_tid) == 0xF8);
    assert!(offset_of!(VolumeHeader, blockmap) == 0x108);
    assert!(offset_of!(VolumeHeader, undo_array) == 0x388);
};

impl VolumeHeader {
    /// Reads the header from the first bytes of a volume; `None` if `bytes` is too short.
    pub fn from_prefix(bytes: &[u8]) -> Option<VolumeHeader> {
        VolumeHeader::read_from_prefix(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// The CRC of this header under `kind`: both sides of the CRC field, exclusive-or'd.
    pub fn sum(&self, kind: CrcKind) -> u32 {
        let at = offset_of!(VolumeHeader, crc);
        let bytes = self.as_bytes();
        kind.sum2(&bytes[..at], &bytes[at + 4..])
    }

    /// The zone descriptor of `zone`.
    pub fn zone(&self, zone: Zone) -> &BlockmapEntry {
        &self.blockmap[usize::from(zone.0 & 15)]
    }

    /// The label up to its NUL.
    pub fn label(&self) -> &[u8] {
        until_nul(&self.label)
    }

    /// Size of zone 2 in bytes; 0 if the bounds make no sense.
    pub fn buffer_space(&self) -> u64 {
        let (beg, end) = (self.buf_beg.get(), self.buf_end.get());
        if beg < 0 || end < beg {
            0
        } else {
            (end - beg).cast_unsigned()
        }
    }

    /// Length of the FIFO in bytes.
    pub fn undo_bytes(&self) -> u64 {
        Offset(self.zone(Zone::UNDO).alloc_offset.get()).short()
    }

    /// The base of the TID allocator.
    pub fn next_tid(&self) -> Tid {
        Tid(self.next_tid.get())
    }

    /// Checks what must hold before anything else of volume `index` (a position in the set, for
    /// messages) may be used: signature, areas within `device_size` bytes, version, root number.
    pub fn check(&self, at: Offset, device_size: u64) -> Result<(), Fault> {
        let fault = |rule, expected: &str, found: String| {
            Err(Fault::new(rule, at, expected.to_owned(), found))
        };
        if self.signature.get() != SIGNATURE {
            let found = format!("0x{:016x}", self.signature.get());
            return fault(Rule::VolumeSignature, "0xc8414d4dc5523031", found);
        }
        let (bot, mem) = (self.bot_beg.get(), self.mem_beg.get());
        let (beg, end) = (self.buf_beg.get(), self.buf_end.get());
        let inside = u64::try_from(end).is_ok_and(|end| end <= device_size);
        // Zone-2 offsets have 52 bits.
        let reachable = self.buffer_space() <= ZONE_MAX;
        let aligned = beg % super::BUFFER as i64 == 0 && end % super::BUFFER as i64 == 0;
        if !(0 < bot && bot <= mem && mem <= beg && beg < end && inside && aligned && reachable) {
            return fault(
                Rule::VolumeRange,
                &format!("0 < boot <= memory log <= buffers < end <= {device_size}, in 16 KiB"),
                format!("{bot}, {mem}, {beg}, {end}"),
            );
        }
        if !(0..=255).contains(&self.vol_no.get()) {
            return fault(
                Rule::VolumeSet,
                "volume number 0 to 255",
                self.vol_no.to_string(),
            );
        }
        if self.rootvol.get() != 0 {
            return fault(Rule::VolumeSet, "root volume 0", self.rootvol.to_string());
        }
        if self.fstype != FSTYPE {
            let found = uuid::Uuid::from_bytes_le(self.fstype).to_string();
            return fault(
                Rule::VolumeType,
                "61dc63ac-6e38-11dc-8513-01301bb8a9f5",
                found,
            );
        }
        Ok(())
    }

    /// Checks what the root volume's header must say beyond [`VolumeHeader::check`]: version,
    /// root node, freemap root, FIFO geometry.
    pub fn check_root(&self, at: Offset) -> Result<(), Fault> {
        let fault = |rule, expected: &str, found: String| {
            Err(Fault::new(rule, at, expected.to_owned(), found))
        };
        let version = self.version.get();
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return fault(Rule::VolumeVersion, "1 to 7", version.to_string());
        }
        let root = Offset(self.btree_root.get());
        if root.zone() != Zone::BTREE || !root.0.is_multiple_of(super::NODE_SIZE as u64) {
            return fault(Rule::NodeAddress, "a root node in zone 8", root.to_string());
        }
        let layer1 = Offset(self.zone(Zone::FREEMAP).phys_offset.get());
        if layer1.zone() != Zone::RAW_BUFFER || layer1.volume() != 0 || layer1.in_bigblock() != 0 {
            return fault(
                Rule::Blockmap,
                "a layer-1 big-block in zone 2",
                layer1.to_string(),
            );
        }
        let undo = self.zone(Zone::UNDO);
        let end = Offset(undo.alloc_offset.get());
        let bigblocks = end.short() / BIGBLOCK;
        if end.zone() != Zone::UNDO
            || end.volume() != 0
            || end.in_bigblock() != 0
            || !(1..=UNDO_BIGBLOCKS_MAX as u64).contains(&bigblocks)
        {
            return fault(
                Rule::UndoArray,
                "1 to 128 big-blocks of FIFO",
                end.to_string(),
            );
        }
        for slot in &self.undo_array[..bigblocks as usize] {
            let slot = Offset(slot.get());
            let inside = slot.short() + BIGBLOCK <= self.buffer_space();
            if slot.zone() != Zone::RAW_BUFFER
                || slot.volume() != 0
                || slot.in_bigblock() != 0
                || !inside
            {
                return fault(Rule::UndoArray, "big-blocks of volume 0", slot.to_string());
            }
        }
        let (first, next) = (
            Offset(undo.first_offset.get()),
            Offset(undo.next_offset.get()),
        );
        for (name, value) in [("first", first), ("next", next)] {
            if value.zone() != Zone::UNDO || value > end || value.0 % 8 != 0 {
                return fault(
                    Rule::Blockmap,
                    &format!("a FIFO {name}_offset up to {end}"),
                    value.to_string(),
                );
            }
        }
        Ok(())
    }

    /// Advisory: the header CRC and the blockmap entries' CRCs, which healthy volumes can have
    /// wrong (format.md §3).
    pub fn stale_sums(&self, at: Offset) -> Vec<Fault> {
        let version = self.version.get();
        let mut faults = Vec::new();
        let mut note = |rule, place: Offset, stored: u32, sum: &dyn Fn(CrcKind) -> u32| {
            if crc::accept(version, stored, sum).is_none() {
                let expected = hex32(sum(CrcKind::of_version(version)));
                faults.push(Fault::new(rule, place, expected, hex32(stored)));
            }
        };
        note(Rule::VolumeCrc, at, self.crc.get(), &|kind| self.sum(kind));
        if self.vol_no.get() == 0 {
            for (index, entry) in self.blockmap.iter().enumerate() {
                if entry.as_bytes() == [0; 40] {
                    continue;
                }
                let place = offset_of!(VolumeHeader, blockmap) + 40 * index;
                let place = Offset(at.0 + place as u64);
                note(Rule::BlockmapCrc, place, entry.entry_crc.get(), &|kind| {
                    entry.sum(kind)
                });
            }
        }
        faults
    }
}

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that describes `space` bytes of zone 2.
    fn header(space: i64) -> VolumeHeader {
        let mut header = <VolumeHeader as zerocopy::FromZeros>::new_zeroed();
        header.signature.set(SIGNATURE);
        header.fstype = FSTYPE;
        header.bot_beg.set(16384);
        header.mem_beg.set(16384);
        header.buf_beg.set(32768);
        header.buf_end.set(32768 + space);
        header
    }

    /// No more space than addresses can tell apart, and no more than the device has.
    #[test]
    fn space_is_bounded() {
        let check = |space: i64, device: u64| header(space).check(Offset::NULL, device).is_ok();
        let max = ZONE_MAX as i64;
        assert!(check(max, u64::MAX));
        assert!(!check(max + 16384, u64::MAX));
        assert!(!check(1 << 53, u64::MAX));
        assert!(check(1 << 23, 32768 + (1 << 23)));
        assert!(!check(1 << 23, 32767 + (1 << 23)));
        assert!(!check((i64::MAX / 16384 - 4) * 16384, u64::MAX));
    }
}
