//! Addresses, zones and transaction ids.

use super::BIGBLOCK;
use std::fmt;

const SHORT_MASK: u64 = (1 << 52) - 1;
const LONG_MASK: u64 = (1 << 60) - 1;

/// A zone: what an address is used for (format.md §2). Values from media may be any nibble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub u8);

impl Zone {
    /// Layer-2 owner code of a free big-block.
    pub const FREE: Zone = Zone(0);
    /// The raw volume; byte 0 is the volume header.
    pub const RAW_VOLUME: Zone = Zone(1);
    /// The raw buffer space behind the reserved areas.
    pub const RAW_BUFFER: Zone = Zone(2);
    /// The UNDO/REDO FIFO, a linear space.
    pub const UNDO: Zone = Zone(3);
    /// Layer-1 and layer-2 arrays.
    pub const FREEMAP: Zone = Zone(4);
    /// B-Tree nodes.
    pub const BTREE: Zone = Zone(8);
    /// Inodes, directory entries and other record data.
    pub const META: Zone = Zone(9);
    /// File data of 16 KiB and more.
    pub const LARGE_DATA: Zone = Zone(10);
    /// Shorter file data.
    pub const SMALL_DATA: Zone = Zone(11);
    /// Layer-2 owner code of a big-block that does not exist.
    pub const UNAVAILABLE: Zone = Zone(15);

    /// Whether addresses of this zone translate to zone 2 by exchanging the nibble.
    pub fn is_blockmapped(self) -> bool {
        self.0 == 4 || (8..=15).contains(&self.0)
    }

    /// Whether record data, nodes or file data may live here (zones 8 to 11).
    pub fn is_data(self) -> bool {
        (8..=11).contains(&self.0)
    }

    /// The name of the zone's use.
    pub fn label(self) -> &'static str {
        match self.0 {
            0 => "free",
            1 => "raw volume",
            2 => "raw buffer",
            3 => "undo",
            4 => "freemap",
            8 => "btree",
            9 => "meta",
            10 => "large data",
            11 => "small data",
            15 => "unavailable",
            _ => "reserved",
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {}", self.0)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {}", self.0)
    }
}

/// A 64-bit HAMMER address: zone (4 bits), volume (8), byte offset (52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// No address.
    pub const NULL: Offset = Offset(0);
    /// All ones: unused or unavailable.
    pub const UNAVAILABLE: Offset = Offset(u64::MAX);

    /// Builds an address from its parts; `short` is cut to 52 bits.
    pub const fn new(zone: Zone, volume: u8, short: u64) -> Offset {
        Offset(((zone.0 as u64) << 60) | ((volume as u64) << 52) | (short & SHORT_MASK))
    }

    /// The zone nibble.
    pub const fn zone(self) -> Zone {
        Zone((self.0 >> 60) as u8)
    }

    /// The volume number.
    pub const fn volume(self) -> u8 {
        (self.0 >> 52) as u8
    }

    /// The byte offset within the volume's zone (low 52 bits).
    pub const fn short(self) -> u64 {
        self.0 & SHORT_MASK
    }

    /// Volume and byte offset together (low 60 bits).
    pub const fn long(self) -> u64 {
        self.0 & LONG_MASK
    }

    /// The same place under another zone nibble.
    pub const fn in_zone(self, zone: Zone) -> Offset {
        Offset(((zone.0 as u64) << 60) | self.long())
    }

    /// Byte offset within the big-block.
    pub const fn in_bigblock(self) -> u64 {
        self.0 & (BIGBLOCK - 1)
    }

    /// The address of the big-block's first byte.
    pub const fn bigblock(self) -> Offset {
        Offset(self.0 & !(BIGBLOCK - 1))
    }

    /// Index of the layer-1 entry.
    pub const fn layer1_index(self) -> usize {
        (self.long() >> 42) as usize
    }

    /// Index of the layer-2 entry within its array.
    pub const fn layer2_index(self) -> usize {
        ((self.long() >> 23) & 0x7_FFFF) as usize
    }

    /// The address of the 16 KiB buffer that holds this byte.
    pub const fn buffer(self) -> Offset {
        Offset(self.0 & !(super::BUFFER as u64 - 1))
    }

    /// Byte offset within the 16 KiB buffer.
    pub const fn in_buffer(self) -> usize {
        (self.0 & (super::BUFFER as u64 - 1)) as usize
    }

    /// The address `bytes` further on, if that is in the same zone and volume.
    pub fn checked_add(self, bytes: u64) -> Option<Offset> {
        let short = self.short().checked_add(bytes)?;
        (short <= SHORT_MASK).then(|| Offset::new(self.zone(), self.volume(), short))
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

/// A transaction id: strictly increasing per file system, not time based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tid(pub u64);

impl Tid {
    /// As a view: everything that is current.
    pub const MAX: Tid = Tid(u64::MAX);
    /// None, or "not deleted".
    pub const ZERO: Tid = Tid(0);
    /// The highest that is believed. TIDs count up from 2^32 by the thousand; one that is higher is
    /// noise, and following it would use up the object ids, which are TIDs of 63 bits.
    pub const LIMIT: Tid = Tid((1 << 62) - 1);

    /// The next number.
    pub fn next(self) -> Tid {
        Tid(self.0.saturating_add(1))
    }

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

/// Whether a record created at `create` and deleted at `delete` (0: never) is visible as of
/// `asof` (format.md §9.3).
pub fn visible(create: Tid, delete: Tid, asof: Tid) -> bool {
    create <= asof && (delete.is_zero() || asof < delete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_parts() {
        let at = Offset(0x8030_0000_0180_1000);
        assert_eq!(
            (at.zone(), at.volume(), at.short()),
            (Zone::BTREE, 3, 0x180_1000)
        );
        assert_eq!(at.in_zone(Zone::RAW_BUFFER), Offset(0x2030_0000_0180_1000));
        assert_eq!(at.layer1_index(), 3 * 1024);
        assert_eq!(at.layer2_index(), 3);
        assert_eq!(at.bigblock().0, 0x8030_0000_0180_0000);
        assert_eq!(at.in_buffer(), 0x1000);
        assert_eq!(Offset(0x8FFF_FFFF_FFFF_FFFF).checked_add(1), None);
    }

    #[test]
    fn visibility() {
        assert!(visible(Tid(5), Tid(0), Tid(5)));
        assert!(!visible(Tid(5), Tid(0), Tid(4)));
        assert!(visible(Tid(5), Tid(9), Tid(8)));
        assert!(!visible(Tid(5), Tid(9), Tid(9)));
        assert!(!visible(Tid(5), Tid(9), Tid::MAX));
    }
}
