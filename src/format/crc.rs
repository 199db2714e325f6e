//! Checksums: CRC-32 up to version 6, CRC-32C for what version 7 writes (format.md §3).

/// Which CRC a structure carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrcKind {
    /// CRC-32 as in zlib and Ethernet: versions 1 to 6, name hashes and streams for ever.
    Ieee,
    /// CRC-32C (Castagnoli): written since version 7.
    Castagnoli,
}

impl CrcKind {
    /// The kind that file systems of `version` write.
    pub fn of_version(version: u32) -> CrcKind {
        if version >= 7 {
            CrcKind::Castagnoli
        } else {
            CrcKind::Ieee
        }
    }

    /// The CRC of `bytes`.
    pub fn sum(self, bytes: &[u8]) -> u32 {
        match self {
            CrcKind::Ieee => crc32fast::hash(bytes),
            CrcKind::Castagnoli => crc32c::crc32c(bytes),
        }
    }

    /// The two-part sums of headers and FIFO records: both parts' CRCs, exclusive-or'd.
    pub fn sum2(self, head: &[u8], tail: &[u8]) -> u32 {
        self.sum(head) ^ self.sum(tail)
    }
}

/// The CRC-32 of `bytes`, as used by name hashes and stream records whatever the version.
pub fn crc32(bytes: &[u8]) -> u32 {
    CrcKind::Ieee.sum(bytes)
}

/// Finds the kind of CRC under which `stored` is right, of those that `version` accepts:
/// version 7 reads both, older ones CRC-32 only. `sum` computes the CRC of a kind.
pub fn accept(version: u32, stored: u32, sum: impl Fn(CrcKind) -> u32) -> Option<CrcKind> {
    if version >= 7 && sum(CrcKind::Castagnoli) == stored {
        return Some(CrcKind::Castagnoli);
    }
    (sum(CrcKind::Ieee) == stored).then_some(CrcKind::Ieee)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc, Table};
    use proptest::prelude::*;

    #[test]
    fn check_values() {
        assert_eq!(CrcKind::Ieee.sum(b"123456789"), 0xcbf4_3926);
        assert_eq!(CrcKind::Castagnoli.sum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        /// The fast libraries agree with the plain definition.
        #[test]
        fn same_as_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let ieee = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
            let castagnoli = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
            prop_assert_eq!(CrcKind::Ieee.sum(&bytes), ieee.checksum(&bytes));
            prop_assert_eq!(CrcKind::Castagnoli.sum(&bytes), castagnoli.checksum(&bytes));
        }
    }

    #[test]
    fn version_7_accepts_both() {
        let sum = |kind: CrcKind| kind.sum(b"x");
        assert_eq!(accept(7, sum(CrcKind::Ieee), sum), Some(CrcKind::Ieee));
        assert_eq!(
            accept(7, sum(CrcKind::Castagnoli), sum),
            Some(CrcKind::Castagnoli)
        );
        assert_eq!(accept(6, sum(CrcKind::Castagnoli), sum), None);
    }
}
