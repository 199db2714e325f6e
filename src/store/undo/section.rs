//! Across a jump of the log's numbers, for a view of a volume that others write to.
//!
//! A log that somebody ended and somebody else went on with does not go on in sequence: whoever
//! opens a volume for writing begins in a block of its own, with numbers 2^26 further on, so that
//! nothing that a crash left ahead can follow (durability.md §9.4, `recover::jump`). Recovery never
//! reads across such a place, nor need it: the header's first_offset lies behind it before anything
//! more is logged. A view that was taken before must read across, or end.
//!
//! # What proves that nothing lies between
//!
//! The view has read the log up to its end P, and the next number would be s. Q is the boundary of a
//! block at or behind P. The log goes on at Q if all of this holds:
//!
//! 1. The header says that the log to undo begins at Q + one block, or later, and the device was
//!    flushed after that header was read.
//! 2. The block at Q is what a jump writes: a filler of its own in every sector, numbered from
//!    s + 2^26 on.
//! 3. The records that were read since the last jump still stand there, and the scan that found no s
//!    behind them came after the header was read.
//!
//! By 1 some writer carried the log from the end that it found across Q, and that stands on stable
//! media. What the view read is what that writer's scan met, by 3: both follow numbers by the same
//! rules, nobody writes to that part of the ring again before the ring comes around (which shows at
//! the view's start), and so both found the same P and the same s. A writer that does not jump
//! (DragonFly's, or one that keeps a REDO log) goes on with s behind P, and the scan with it. One
//! that jumps does it to Q and with s + 2^26, and nowhere else. It writes nothing between P and Q.
//!
//! * *A block that somebody left who crashed* before the header said so: that was the same end, and
//!   the same block. What came after is 1's affair, so the block alone is not believed: the next
//!   writer could go on behind P.
//! * *Records of a crashed writer that the view has read, and recovery then took back*: recovery
//!   rewrites the bytes that those records name, with what they say; the view has read the same
//!   records, and knows those bytes' older values from them or from earlier ones. If a power cut lost
//!   some of them, so that recovery found an earlier end, then its jump has another number: the view
//!   ends. It also ends if the new log lies within what the view has read: the record before
//!   first_offset is none of the last section then ([`Scanner::leads_to`]).
//! * *A block of 64 jumps ago*, when numbers were the same: 1 and 3 leave room for none but the
//!   writer's own at Q.
//! * *Versions below 4* number nothing; the header says where their log ends, jumps or not.

use super::super::Disks;
use super::super::log::{BLOCK, EPOCH};
use super::Scanner;
use crate::error::Result;
use crate::format::fifo::{self, SECTOR};
use crate::format::{BUFFER, Offset, Zone};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The part of the log since its numbers last jumped.
pub(super) struct Section {
    /// Where it begins, and at how many bytes from the start of the range.
    start: (u64, u64),
    /// The number that its first record has or will have.
    seq: u32,
    /// Of every record in it.
    hash: DefaultHasher,
}

impl Section {
    pub fn new(start: (u64, u64), seq: u32) -> Section {
        Section {
            start,
            seq,
            hash: DefaultHasher::new(),
        }
    }

    /// Takes notice of the next record. Its checksum stands for what is in it.
    pub fn note(&mut self, pos: u64, record: &fifo::Record<'_>) {
        let number = (record.seq(), record.crc());
        (pos, record.kind, record.size(), number).hash(&mut self.hash);
    }
}

impl Scanner {
    /// Goes on behind a jump of the numbers, if there is one that the log goes on with; says whether.
    /// `first` is the first_offset of a header that was read before the device was flushed.
    pub fn cross(&mut self, disks: &mut Disks, first: Offset) -> Result<bool> {
        let gap = self.end.next_multiple_of(BLOCK) - self.end;
        let behind = self.bytes + gap + BLOCK;
        let passed = self.ring.distance(self.first, first.short());
        if !self.is_sequenced() || passed < behind {
            return Ok(false);
        }
        let at = self.ring.wrap(self.end + gap);
        let seq = self.next_seq.wrapping_add(EPOCH);
        if !self.is_jump(disks, at, seq)? || !self.is_as_read(disks)? {
            return Ok(false);
        }
        self.bytes += gap;
        (self.end, self.reached, self.next_seq) = (at, self.bytes, seq);
        self.section = Section::new((at, self.bytes), seq);
        Ok(true)
    }

    /// Whether whoever begins at `first` (a header's first_offset) begins behind a record of the last
    /// section. Not so if the log was taken back behind what was read, and goes on otherwise.
    pub fn leads_to(&mut self, disks: &mut Disks, first: Offset) -> Result<bool> {
        self.window.forget();
        let (_, seq) = self.record_before(disks, self.ring.wrap(first.short()))?;
        let last = self.next_seq.wrapping_sub(1);
        let before = self.section.seq.wrapping_sub(1);
        Ok(seq.wrapping_sub(before) <= last.wrapping_sub(before))
    }

    /// Whether the block at `at` is that of a jump to `seq`.
    fn is_jump(&mut self, disks: &mut Disks, at: u64, seq: u32) -> Result<bool> {
        self.window.forget();
        for (index, pos) in (at..at + BLOCK).step_by(SECTOR as usize).enumerate() {
            let record = match self.record(disks, pos) {
                Err(error) if error.fault().is_some() => return Ok(false),
                other => other?,
            };
            let filler = record.kind == fifo::DUMMY && record.size() as u64 == SECTOR;
            if !filler || record.seq() != Some(seq.wrapping_add(index as u32)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the records since the last jump are those that were read.
    pub fn is_as_read(&mut self, disks: &mut Disks) -> Result<bool> {
        self.window.forget();
        let (start, bytes) = self.section.start;
        let mut found = Section::new((start, bytes), self.section.seq);
        let (mut pos, mut done, end) = (start, bytes, self.bytes);
        let read = self.section.hash.finish();
        while done < end {
            let record = match self.record(disks, pos) {
                Err(error) if error.fault().is_some() => return Ok(false),
                other => other?,
            };
            if record.seq().is_some() {
                found.note(pos, &record);
            }
            let size = record.size() as u64;
            pos = self.ring.wrap(pos + size);
            done += size;
        }
        Ok(found.hash.finish() == read)
    }

    /// The record at `pos`.
    fn record(&mut self, disks: &mut Disks, pos: u64) -> Result<fifo::Record<'_>> {
        let start = pos - pos % BUFFER as u64;
        let base = Offset::new(Zone::UNDO, 0, start);
        let buffer = self.window.buffer(disks, self.disk, &self.ring, start)?;
        let record = fifo::Record::at(buffer, (pos - start) as usize, base, self.ring.version);
        Ok(record?)
    }
}
