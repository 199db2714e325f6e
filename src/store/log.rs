//! The UNDO FIFO written: records of old bytes, framed and numbered as recovery expects them
//! (durability.md §2, §9.4).
//!
//! Every checkpoint's records begin on a 4 KiB boundary and are filled up to one with numbered
//! fillers, so that no block with committed records is ever written again. Where a checkpoint enters
//! a 16 KiB buffer, or ends at one, all of it is formatted: what it does not use carries numbers that
//! cannot follow. A later one that goes on there writes only the blocks it uses.

use super::undo::Ring;
use crate::format::fifo::{self, SECTOR};
use crate::format::{BUFFER, CrcKind, Offset};
use std::mem::size_of;

/// Boundary on which every checkpoint's records begin and end, in bytes: the largest sector there is.
pub(super) const BLOCK: u64 = 4096;
/// What is flipped in the numbers of sectors that are not in use.
const UNUSED: u32 = 0x4000_0000;
/// How far the numbers jump after a crash, so that records which it left behind cannot follow.
pub(super) const EPOCH: u32 = 1 << 26;
/// Bytes of the log that one write takes at most.
const PIECE_MAX: usize = 1 << 20;
/// Bytes that a record of old bytes takes beside them.
const FRAME: usize = size_of::<fifo::UndoHead>() + size_of::<fifo::Tail>();

/// The append point of the FIFO, and the number of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Append {
    /// Byte position in the ring.
    pub pos: u64,
    /// Sequence number.
    pub seq: u32,
    /// Where the bytes end that were formatted behind `pos` (a buffer's end), and made stable: they
    /// carry numbers that cannot follow, and need no writing again. At most `pos` if there are none.
    pub formatted: u64,
}

/// A piece of the FIFO to be written: its position, and its bytes (whole sectors, in one big-block).
pub(super) type Piece = (u64, Vec<u8>);

/// Builds the part of the FIFO that one checkpoint appends.
pub(super) struct Log<'a> {
    ring: &'a Ring,
    kind: CrcKind,
    at: Append,
    /// Finished pieces, and the one being built (its last sector may be in work).
    pieces: Vec<Piece>,
}

impl<'a> Log<'a> {
    /// A log that goes on at `at`, a sector's start.
    pub fn new(ring: &'a Ring, at: Append) -> Log<'a> {
        Log {
            ring,
            kind: CrcKind::of_version(ring.version()),
            at,
            pieces: Vec::new(),
        }
    }

    /// Logs `old`, the bytes at `target` (zone 1 or 2), which lie in one buffer.
    pub fn undo(&mut self, target: Offset, old: &[u8]) {
        let mut done = 0;
        while done < old.len() {
            let room = self.room();
            if room <= FRAME {
                self.skip(room);
                continue;
            }
            let take = (room - FRAME).min(old.len() - done);
            let size = FRAME + take.next_multiple_of(8);
            let place = Offset(target.0 + done as u64);
            let bytes = &old[done..done + take];
            self.record(fifo::UNDO, size, |body| {
                body[..8].copy_from_slice(&place.0.to_le_bytes());
                body[8..12].copy_from_slice(&(take as i32).to_le_bytes());
                body[16..16 + take].copy_from_slice(bytes);
            });
            done += take;
        }
    }

    /// Fills up to the next multiple of `boundary` bytes with numbered fillers. Gives what is to be
    /// written, and the new append point.
    pub fn finish(mut self, boundary: u64) -> (Vec<Piece>, Append) {
        if !self.at.pos.is_multiple_of(SECTOR) {
            let room = self.room();
            self.skip(room);
        }
        while !self.at.pos.is_multiple_of(boundary) {
            self.record(fifo::DUMMY, SECTOR as usize, |_| {});
        }
        self.at.pos = self.ring.wrap(self.at.pos);
        if self.at.pos.is_multiple_of(BUFFER as u64) && !self.pieces.is_empty() {
            // Readers tell the end by what stands behind it; damage there would look like damage of
            // the log. The slack of the ring has room for it.
            self.enter();
        }
        (self.pieces, self.at)
    }

    /// One block of fillers whose numbers begin at the append point's, however far they jump.
    pub fn fillers(mut self) -> (Vec<Piece>, Append) {
        self.record(fifo::DUMMY, SECTOR as usize, |_| {});
        self.finish(BLOCK)
    }

    /// Bytes left in the sector of the append point.
    fn room(&self) -> usize {
        (SECTOR - self.at.pos % SECTOR) as usize
    }

    /// Passes over the rest of the sector, which a filler of no number takes already.
    fn skip(&mut self, room: usize) {
        self.at.pos += room as u64;
    }

    /// Writes a record of `size` bytes at the append point (which fits in its sector), and a filler
    /// behind it.
    fn record(&mut self, kind: u16, size: usize, body: impl FnOnce(&mut [u8])) {
        self.enter();
        let (seq, crc) = (self.at.seq, self.kind);
        let within = (self.at.pos % SECTOR) as usize;
        let sector = self.sector_start();
        // `enter` saw to a piece that holds the sector of the append point last.
        let Some((_, piece)) = self.pieces.last_mut() else {
            return;
        };
        let place = sector + within;
        let record = &mut piece[place..place + size];
        record.fill(0);
        body(&mut record[size_of::<fifo::Head>()..size - size_of::<fifo::Tail>()]);
        frame(record, kind, Some(seq));
        let sum = crc.sum2(&record[..12], &record[16..]);
        record[12..16].copy_from_slice(&sum.to_le_bytes());
        let rest = &mut piece[place + size..sector + SECTOR as usize];
        if !rest.is_empty() {
            rest.fill(0);
            frame(rest, fifo::PAD, None);
        }
        self.at.seq = seq.wrapping_add(1);
        self.at.pos += size as u64;
    }

    /// Where the append point's sector begins in the last piece.
    fn sector_start(&self) -> usize {
        let sector = self.at.pos - self.at.pos % SECTOR;
        self.pieces
            .last()
            .map_or(0, |(start, _)| (sector - start) as usize)
    }

    /// Makes sure that the last piece holds the append point's sector: a new buffer is formatted
    /// whole, one that was entered before is gone on with.
    fn enter(&mut self) {
        self.at.pos = self.ring.wrap(self.at.pos);
        if !self.at.pos.is_multiple_of(SECTOR) {
            return;
        }
        let pos = self.at.pos;
        let here = self.pieces.last();
        let (adjacent, long) = match here {
            Some((start, piece)) => {
                let end = start + piece.len() as u64;
                if *start <= pos && pos < end {
                    return;
                }
                let crosses = pos.is_multiple_of(crate::format::BIGBLOCK);
                (end == pos && !crosses, piece.len() + BUFFER > PIECE_MAX)
            }
            None => (false, false),
        };
        if !adjacent || long {
            self.pieces.push((pos, Vec::new()));
        }
        let mut len = BUFFER - (pos % BUFFER as u64) as usize;
        if pos + len as u64 == self.at.formatted {
            len = (BLOCK - pos % BLOCK) as usize;
        } else {
            self.at.formatted = pos + len as u64;
        }
        let formatted = formatted(self.at.seq, len, self.kind);
        if let Some((_, piece)) = self.pieces.last_mut() {
            piece.extend_from_slice(&formatted);
        }
    }
}

/// `len` bytes of sectors that are not in use, of a buffer that is entered with the number `seq`.
pub(super) fn formatted(seq: u32, len: usize, kind: CrcKind) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, sector) in bytes.chunks_exact_mut(SECTOR as usize).enumerate() {
        frame(
            sector,
            fifo::DUMMY,
            Some((seq ^ UNUSED).wrapping_add(index as u32)),
        );
        let sum = kind.sum2(&sector[..12], &sector[16..]);
        sector[12..16].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Writes head and tail of a record that fills `bytes`; fillers of eight bytes have no tail.
fn frame(bytes: &mut [u8], kind: u16, seq: Option<u32>) {
    let size = (bytes.len() as u32).to_le_bytes();
    bytes[..2].copy_from_slice(&fifo::HEAD.to_le_bytes());
    bytes[2..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&size);
    if let Some(seq) = seq {
        bytes[8..12].copy_from_slice(&seq.to_le_bytes());
    }
    if let Some(tail) = bytes.len().checked_sub(8).filter(|tail| *tail > 0) {
        bytes[tail..tail + 2].copy_from_slice(&fifo::TAIL.to_le_bytes());
        bytes[tail + 2..tail + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[tail + 4..].copy_from_slice(&size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Zone;
    use crate::format::fifo::Record;
    use proptest::prelude::*;

    proptest! {
        /// What is logged comes back in order, record after record with ascending numbers, and what
        /// follows is valid and does not go on; every sector begins with a number.
        #[test]
        fn logged_bytes_come_back(
            runs in proptest::collection::vec((0usize..16000, 1usize..1500, any::<u8>()), 1..60),
            start in 0u64..4, wrapped: bool, entered: bool, version in 4u32..8,
        ) {
            let ring = Ring::of_bigblocks(2, version);
            let from = if wrapped { ring.bytes() - BUFFER as u64 } else { 0 };
            let pos = from + start * BLOCK;
            let buffer = pos / BUFFER as u64 * BUFFER as u64;
            let mut image = vec![0; ring.bytes() as usize];
            let entered = entered && start > 0;
            if entered {
                let kind = CrcKind::of_version(version);
                let whole = formatted(u32::MAX - 100, BUFFER, kind);
                image[buffer as usize..][..BUFFER].copy_from_slice(&whole);
            }
            let known = if entered { buffer + BUFFER as u64 } else { 0 };
            let at = Append { pos, seq: u32::MAX - 3, formatted: known };
            let mut log = Log::new(&ring, at);
            let mut expected = Vec::new();
            for (n, (begin, len, byte)) in runs.iter().enumerate() {
                let len = (*len).min(BUFFER - begin);
                let target = Offset::new(Zone::RAW_BUFFER, 0, (n * BUFFER + begin) as u64);
                log.undo(target, &vec![*byte; len]);
                expected.extend((0..len as u64).map(|i| (target.0 + i, *byte)));
            }
            let (pieces, end) = log.finish(BLOCK);
            for (pos, piece) in &pieces {
                let pos = *pos as usize;
                let ends = (pos + piece.len()) as u64;
                prop_assert_eq!(ends % BLOCK, 0);
                // Only blocks of a buffer that was entered before may be left out.
                prop_assert!(ends.is_multiple_of(BUFFER as u64) || entered && ends < known);
                image[pos..pos + piece.len()].copy_from_slice(piece);
            }
            let (mut pos, mut seq, mut found) = (at.pos, at.seq, Vec::new());
            while pos != end.pos {
                let buffer = pos / BUFFER as u64 * BUFFER as u64;
                let bytes = &image[buffer as usize..][..BUFFER];
                let place = Offset::new(Zone::UNDO, 0, pos);
                let record = Record::at(bytes, (pos - buffer) as usize, place, version).expect("a record");
                prop_assert!(pos % SECTOR + record.size() as u64 <= SECTOR);
                prop_assert!(pos % SECTOR != 0 || record.seq().is_some());
                if let Some(number) = record.seq() {
                    prop_assert_eq!(number, seq);
                    seq = seq.wrapping_add(1);
                }
                if let Some(undo) = record.undo(place).expect("an undo record") {
                    found.extend(undo.old.iter().enumerate().map(|(i, b)| (undo.at.0 + i as u64, *b)));
                }
                pos = ring.wrap(pos + record.size() as u64);
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(seq, end.seq);
            {
                let buffer = end.pos / BUFFER as u64 * BUFFER as u64;
                let bytes = &image[buffer as usize..][..BUFFER];
                let next = Record::at(bytes, (end.pos - buffer) as usize, Offset(buffer), version);
                prop_assert_ne!(next.expect("a valid record").seq(), Some(end.seq));
            }
        }
    }
}
