//! Splitting a long transfer into several batches (`-S`, mirroring.md §8), so that an interruption
//! costs at most one of them.
//!
//! A prescan counts the stream's bytes by TID; neighbouring TIDs are then put together until a
//! chunk has reached the split size. Chunk ends are interpolated, the same numbers as the
//! original's as long as its 64-bit arithmetic holds.

use crate::format::Tid;
use crate::format::mrecord::{ELEMENT, padded};
use crate::format::node::LeafElement;
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, XBUFFER};

/// Split size in bytes unless the user says otherwise.
pub const DEFAULT: u64 = 4 << 30;
/// Parts that a window is divided into.
const PARTS: usize = 1 << 20;

/// TIDs that travel in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first.
    pub begin: Tid,
    /// The last, inclusive.
    pub end: Tid,
    /// Bytes of the stream that the prescan saw, PASS and SKIP aside; the estimate to show.
    pub bytes: u64,
}

/// Bytes of a stream by TID.
pub struct Histogram {
    begin: Tid,
    end: Tid,
    bytes: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty one over the window `[begin, end]`; 8 MiB of memory.
    pub fn new(begin: Tid, end: Tid) -> Histogram {
        Histogram {
            begin,
            end: end.max(begin),
            bytes: vec![0; PARTS],
            total: 0,
        }
    }

    /// Counts an element of the stream, its `delete_tid` clipped as the stream's is.
    pub fn add(&mut self, leaf: &LeafElement) {
        let len = usize::try_from(leaf.data_len.get())
            .unwrap_or(0)
            .min(XBUFFER);
        self.count(leaf.base.delete_tid(), ELEMENT);
        self.count(leaf.base.create_tid(), ELEMENT + padded(len));
    }

    /// Bytes counted so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn count(&mut self, tid: Tid, bytes: usize) {
        if !(self.begin..=self.end).contains(&tid) || tid.is_zero() {
            return;
        }
        let width = self.width();
        let mut part = match u128::from(tid.0 - self.begin.0) * PARTS as u128 {
            0 => 0,
            product => (product / width) as usize,
        };
        // Chunk ends are inclusive: what is exactly on a boundary belongs to the part before.
        if part > 0 && self.boundary(part) == tid {
            part -= 1;
        }
        self.bytes[part.min(PARTS - 1)] += bytes as u64;
        self.total += bytes as u64;
    }

    fn width(&self) -> u128 {
        u128::from(self.end.0 - self.begin.0)
    }

    /// Where part `part` begins.
    fn boundary(&self, part: usize) -> Tid {
        let offset = part as u128 * self.width() / PARTS as u128;
        // `part` is at most PARTS, so the offset is at most the width, which fits.
        Tid(self.begin.0 + offset as u64)
    }

    /// Puts parts together to chunks of at least `split` bytes, the last one aside. There is at
    /// least one; together they cover the window exactly.
    pub fn chunks(&self, split: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut current = Chunk {
            begin: self.begin,
            end: self.end,
            bytes: self.bytes[0],
        };
        for (part, bytes) in self.bytes.iter().enumerate().skip(1) {
            let end = self.boundary(part);
            if current.bytes >= split.max(1) && end >= current.begin && end < self.end {
                chunks.push(Chunk { end, ..current });
                current = Chunk {
                    begin: end.next(),
                    end: self.end,
                    bytes: 0,
                };
            }
            current.bytes += bytes;
        }
        chunks.push(current);
        chunks
    }
}

/// Whether a stream of this file system may be longer than `split` bytes, so that a prescan is
/// worth its while. Every byte of the stream but the record heads stands somewhere in the used
/// space, and an element's head and padding are less than half of what it occupies in the tree.
/// (Deduplicated data can be sent more often than it is stored; then a chunk is longer.)
pub fn may_exceed(header: &VolumeHeader, split: u64) -> bool {
    let blocks = header
        .stat_bigblocks
        .get()
        .saturating_sub(header.stat_freebigblocks.get());
    let used = u64::try_from(blocks)
        .unwrap_or(u64::MAX)
        .saturating_mul(BIGBLOCK);
    used.saturating_add(used / 2) > split
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn leaf(create: u64, delete: u64, len: i32) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.create_tid.set(create);
        leaf.base.delete_tid.set(delete);
        leaf.data_len.set(len);
        leaf
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Chunks follow each other without gap or overlap, cover the window, and hold the bytes
        /// of exactly the TIDs within their ends; all but the last reach the split size.
        #[test]
        fn chunks_partition_the_window(
            begin in 0u64..u64::MAX / 2,
            width in prop_oneof![0u64..100, 0u64..1 << 21, 0u64..u64::MAX / 2],
            picks in prop::collection::vec((0.0f64..=1.0, any::<bool>(), -5i32..70_000), 0..60),
            split in 1u64..300_000,
        ) {
            let end = begin + width;
            let mut histogram = Histogram::new(Tid(begin), Tid(end));
            let mut model = Vec::new();
            for (place, delete, len) in picks {
                let tid = begin + ((width as f64 * place) as u64).min(width);
                if tid == 0 {
                    continue;
                }
                if delete {
                    histogram.add(&leaf(0, tid, len));
                    model.push((tid, 80));
                } else {
                    histogram.add(&leaf(tid, u64::MAX, len));
                    model.push((tid, 80 + padded(len.clamp(0, 65536) as usize) as u64));
                }
            }
            let chunks = histogram.chunks(split);
            prop_assert_eq!(chunks[0].begin, Tid(begin));
            prop_assert_eq!(chunks[chunks.len() - 1].end, Tid(end));
            for pair in chunks.windows(2) {
                prop_assert_eq!(pair[0].end.next(), pair[1].begin);
                prop_assert!(pair[0].bytes >= split);
            }
            for chunk in &chunks {
                prop_assert!(chunk.begin <= chunk.end, "{chunk:?}");
                let inside = model.iter().filter(|(tid, _)| {
                    (chunk.begin..=chunk.end).contains(&Tid(*tid))
                });
                prop_assert_eq!(inside.map(|(_, bytes)| bytes).sum::<u64>(), chunk.bytes);
            }
            prop_assert_eq!(histogram.total(), model.iter().map(|(_, b)| b).sum::<u64>());
        }
    }

    #[test]
    fn ends_are_the_originals() {
        // 2^20 + 1 TIDs from 1000: part i begins at 1000 + i.
        let mut histogram = Histogram::new(Tid(1000), Tid(1000 + (1 << 20)));
        for tid in [1000, 1005, 1006, 5000] {
            histogram.add(&leaf(tid, 0, 16));
        }
        let ends: Vec<u64> = histogram.chunks(96).iter().map(|c| c.end.0).collect();
        // A chunk ends with the first boundary behind what filled it.
        assert_eq!(ends, [1001, 1005, 1006, 5000, 1000 + (1 << 20)]);
    }

    #[test]
    fn a_negligible_volume_needs_no_prescan() {
        let mut header = VolumeHeader::new_zeroed();
        header.stat_bigblocks.set(100);
        header.stat_freebigblocks.set(90);
        assert!(!may_exceed(&header, 10 * BIGBLOCK * 3 / 2));
        assert!(may_exceed(&header, 10 * BIGBLOCK * 3 / 2 - 1));
        header.stat_freebigblocks.set(i64::MIN);
        assert!(may_exceed(&header, DEFAULT));
    }
}
