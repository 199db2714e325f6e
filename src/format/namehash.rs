//! Directory keys from names (format.md §13). CRC-32 always, also on version 7.

use super::crc::crc32;

/// How a directory turns names into keys: capability bits 0 and 1 of its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameHash {
    /// The whole name's CRC in the upper half; directories made before version 6.
    Alg0,
    /// The sum of the name's segments' CRCs, and the whole name's; since version 6.
    Alg1,
}

impl NameHash {
    /// The algorithm named by an inode's capability flags; `None` for values never assigned.
    pub fn from_cap_flags(flags: u8) -> Option<NameHash> {
        match flags & 3 {
            0 => Some(NameHash::Alg0),
            1 => Some(NameHash::Alg1),
            _ => None,
        }
    }

    /// The first key to try for `name`; always positive.
    pub fn key(self, name: &[u8]) -> i64 {
        let whole = crc32(name);
        let key = match self {
            NameHash::Alg0 => u64::from(whole & 0x7FFF_FFFF) << 32,
            NameHash::Alg1 => {
                let segments = name.split(|b| matches!(b, b'.' | b'-' | b'_' | b'~'));
                let sum = segments
                    .filter(|s| !s.is_empty())
                    .fold(0u32, |sum, s| sum.wrapping_add(crc32(s)));
                let low = (whole ^ (whole << 16)) & 0xFFFF_0000;
                (u64::from(sum & 0x7FFF_FFFF) << 32) | u64::from(low)
            }
        };
        // Keys below 1 << 32 are cookies of "." and "..".
        let key = if key >> 32 == 0 { key | 1 << 32 } else { key };
        key.cast_signed()
    }

    /// How far above [`NameHash::key`] collisions may push an entry.
    pub fn max_iterations(self) -> i64 {
        match self {
            NameHash::Alg0 => 0xFFFF_FFFF,
            NameHash::Alg1 => 0x00FF_FFFF,
        }
    }

    /// The last key that an entry called `name` can have.
    pub fn last_key(self, name: &[u8]) -> i64 {
        self.key(name).saturating_add(self.max_iterations())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_vectors() {
        for (name, alg0, alg1) in [
            ("a", 0x68b7_be43_0000_0000, 0x68b7_be43_56f4_0000),
            ("hello", 0x3610_a686_0000_0000, 0x3610_a686_9096_0000),
            ("hello.txt", 0x1260_cebb_0000_0000, 0x5248_05cb_dcdb_0000),
            ("a-b_c~d.e", 0x02e0_3415_0000_0000, 0x69e8_52d1_36f5_0000),
            (".profile", 0x15e5_da7c_0000_0000, 0x0157_aa0f_4f99_0000),
            ("...", 0x1a43_b61b_0000_0000, 0x0000_0001_ac58_0000),
            ("foo.c", 0x2f22_2776_0000_0000, 0x132d_4490_0854_0000),
            ("foo.c.tmp", 0x4d32_7717_0000_0000, 0x401c_c1d8_ba25_0000),
            ("README.md", 0x0993_68d6_0000_0000, 0x5322_e3c9_6145_0000),
        ] {
            assert_eq!(NameHash::Alg0.key(name.as_bytes()), alg0, "{name}");
            assert_eq!(NameHash::Alg1.key(name.as_bytes()), alg1, "{name}");
        }
    }
}
