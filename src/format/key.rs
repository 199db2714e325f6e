//! The B-Tree's key and its order (format.md §9).

use super::Tid;
use std::cmp::Ordering;
use std::fmt;

/// The first component of a key: PFS id in the upper half, record class in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Localization(pub u32);

impl Localization {
    /// The class of inode records.
    pub const INODE: u16 = 1;
    /// The class of everything that is not kept with the inodes.
    pub const MISC: u16 = 2;

    /// The localization of `class` in PFS `pfs`.
    pub const fn new(pfs: u16, class: u16) -> Localization {
        Localization(((pfs as u32) << 16) | class as u32)
    }

    /// The PFS id.
    pub const fn pfs(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The class.
    pub const fn class(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Debug for Localization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A key: localization, object, record type, key, creation; compared in that order, with a
/// creation TID of 0 above all others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// PFS and class.
    pub localization: Localization,
    /// Object id.
    pub obj_id: i64,
    /// Record type.
    pub rec_type: u16,
    /// Type-specific key.
    pub key: i64,
    /// Creation TID; 0 sorts as infinity.
    pub create_tid: Tid,
}

impl Key {
    /// The lowest key of all: the left bound of the root.
    pub const MIN: Key = Key {
        localization: Localization(0),
        obj_id: i64::MIN,
        rec_type: 0,
        key: i64::MIN,
        create_tid: Tid(1),
    };
    /// The highest bound of all: the right bound of the root.
    pub const MAX: Key = Key {
        localization: Localization(u32::MAX),
        obj_id: i64::MAX,
        rec_type: u16::MAX,
        key: i64::MAX,
        create_tid: Tid::MAX,
    };

    /// The lowest key of a PFS (mirroring.md §4.1).
    pub fn pfs_min(pfs: u16) -> Key {
        Key {
            localization: Localization::new(pfs, 0),
            ..Key::MIN
        }
    }

    /// The highest key of a PFS, inclusive.
    pub fn pfs_max(pfs: u16) -> Key {
        Key {
            localization: Localization::new(pfs, u16::MAX),
            ..Key::MAX
        }
    }

    /// The lowest key of one record of one object: every version of it follows.
    pub fn first_version(localization: Localization, obj_id: i64, rec_type: u16, key: i64) -> Key {
        Key {
            localization,
            obj_id,
            rec_type,
            key,
            create_tid: Tid(1),
        }
    }

    /// Compares everything but the creation TID: equal keys are versions of one record.
    pub fn cmp_record(&self, other: &Key) -> Ordering {
        self.localization
            .cmp(&other.localization)
            .then_with(|| self.obj_id.cmp(&other.obj_id))
            .then_with(|| self.rec_type.cmp(&other.rec_type))
            .then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        // Wrapping around by one puts 0 on top and keeps the order of the rest.
        self.cmp_record(other).then_with(|| {
            self.create_tid
                .0
                .wrapping_sub(1)
                .cmp(&other.create_tid.0.wrapping_sub(1))
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lo={:08x} obj={:016x} rt={:02x} key={:016x} tid={:016x}",
            self.localization.0, self.obj_id, self.rec_type, self.key, self.create_tid.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lo: u32, obj: i64, rt: u16, key: i64, tid: u64) -> Key {
        Key {
            localization: Localization(lo),
            obj_id: obj,
            rec_type: rt,
            key,
            create_tid: Tid(tid),
        }
    }

    #[test]
    fn order_is_by_field() {
        let sorted = [
            key(0, i64::MIN, 0, i64::MIN, 1),
            key(1, -1, 9, 9, 9),
            key(1, 1, 1, 0, 5),
            key(1, 1, 1, 0, u64::MAX),
            key(1, 1, 1, 0, 0),
            key(1, 1, 1, 1, 5),
            key(1, 1, 0x10, -1, 5),
            key(0x8000_0000, i64::MIN, 0, 0, 1),
        ];
        assert!(sorted.is_sorted());
        assert!(sorted.windows(2).all(|w| w[0] < w[1]));
    }
}
