//! The freemap's two layers (format.md §6).

use super::fault::hex32;
use super::{BIGBLOCK, CrcKind, Fault, Offset, Rule, Zone, crc};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entries of the layer-1 array: one big-block.
pub const LAYER1_ENTRIES: usize = 262_144;
/// Entries of a layer-2 array: one big-block.
pub const LAYER2_ENTRIES: usize = 524_288;
/// Bytes of zone 2 that one layer-1 entry describes: 4 TiB.
pub const LAYER2_SPAN: u64 = LAYER2_ENTRIES as u64 * BIGBLOCK;

/// A layer-1 entry: 4 TiB of one volume.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Layer1 {
    /// Free big-blocks below this entry.
    pub blocks_free: U64,
    /// Zone-2 address of the layer-2 array; all ones if there is none.
    pub phys_offset: U64,
    /// Zero.
    pub reserved: U64,
    /// Never used.
    pub layer2_crc: U32,
    /// CRC of the 28 bytes before.
    pub layer1_crc: U32,
}

/// A layer-2 entry: one big-block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Layer2 {
    /// The owner: a zone, 0 free, 15 nonexistent.
    pub zone: u8,
    /// Zero.
    pub reserved01: u8,
    /// Zero.
    pub reserved02: U16,
    /// Bytes from the start that were handed out at some time.
    pub append_off: U32,
    /// A big-block less what is referred to; negative after deduplication.
    pub bytes_free: I32,
    /// CRC of the 12 bytes before.
    pub entry_crc: U32,
}

const _: () = {
    assert!(size_of::<Layer1>() == 32);
    assert!(size_of::<Layer2>() == 16);
    assert!(size_of::<Layer1>() * LAYER1_ENTRIES == BIGBLOCK as usize);
    assert!(size_of::<Layer2>() * LAYER2_ENTRIES == BIGBLOCK as usize);
};

impl Layer1 {
    /// The CRC of this entry under `kind`.
    pub fn sum(&self, kind: CrcKind) -> u32 {
        kind.sum(&self.as_bytes()[..offset_of!(Layer1, layer1_crc)])
    }

    /// Whether there is space here at all.
    pub fn is_available(&self) -> bool {
        self.phys_offset.get() != Offset::UNAVAILABLE.0
    }

    /// The layer-2 array.
    pub fn array(&self) -> Offset {
        Offset(self.phys_offset.get())
    }

    /// Checks the CRC under a file system of `version`; `at` is the entry's address.
    pub fn check(&self, at: Offset, version: u32) -> Result<(), Fault> {
        match crc::accept(version, self.layer1_crc.get(), |kind| self.sum(kind)) {
            Some(_) => Ok(()),
            None => Err(Fault::new(
                Rule::Layer1Crc,
                at,
                hex32(self.sum(CrcKind::of_version(version))),
                hex32(self.layer1_crc.get()),
            )),
        }
    }
}

impl Layer2 {
    /// The CRC of this entry under `kind`.
    pub fn sum(&self, kind: CrcKind) -> u32 {
        kind.sum(&self.as_bytes()[..offset_of!(Layer2, entry_crc)])
    }

    /// The owner.
    pub fn owner(&self) -> Zone {
        Zone(self.zone)
    }

    /// Checks the CRC under a file system of `version`; `at` is the entry's address.
    pub fn check(&self, at: Offset, version: u32) -> Result<(), Fault> {
        match crc::accept(version, self.entry_crc.get(), |kind| self.sum(kind)) {
            Some(_) => Ok(()),
            None => Err(Fault::new(
                Rule::Layer2Crc,
                at,
                hex32(self.sum(CrcKind::of_version(version))),
                hex32(self.entry_crc.get()),
            )),
        }
    }

    /// The one form that an entry of owner 0, 3, 4 or 15 can have: `(append_off, bytes_free)`.
    pub fn canonical(owner: Zone) -> Option<(u32, i32)> {
        match owner {
            Zone::FREE => Some((0, BIGBLOCK as i32)),
            Zone::UNDO | Zone::FREEMAP | Zone::UNAVAILABLE => Some((BIGBLOCK as u32, 0)),
            _ => None,
        }
    }
}

/// The zone-2 address of the layer-1 entry that describes `at`, in the array at `root`.
pub fn layer1_entry(root: Offset, at: Offset) -> Offset {
    Offset(root.0 + (at.layer1_index() * size_of::<Layer1>()) as u64)
}

/// The zone-2 address of the layer-2 entry that describes `at`, in the array at `array`.
pub fn layer2_entry(array: Offset, at: Offset) -> Offset {
    Offset(
        array
            .0
            .wrapping_add((at.layer2_index() * size_of::<Layer2>()) as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry that owns the freemap's own big-block on every newfs image (format.md §22).
    #[test]
    fn first_entry_of_any_volume() {
        let entry = Layer2 {
            zone: 4,
            reserved01: 0,
            reserved02: U16::ZERO,
            append_off: U32::new(8_388_608),
            bytes_free: I32::ZERO,
            entry_crc: U32::new(0xF2AF_524B),
        };
        assert_eq!(entry.sum(CrcKind::Castagnoli), 0xF2AF_524B);
        assert_eq!(entry.sum(CrcKind::Ieee), 0x6663_E9C8);
        assert!(entry.check(Offset::NULL, 7).is_ok());
        assert_eq!(
            entry.check(Offset::NULL, 6).unwrap_err().rule,
            Rule::Layer2Crc
        );
    }
}
