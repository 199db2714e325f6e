//! The UNDO FIFO read forward: where the log ends, and the old bytes it holds (durability.md §5,
//! §10.2).
//!
//! Of every byte that changed since the start of the range, the *oldest* logged value is its value
//! at that start: the first record met going forward wins. That is the same as applying all records
//! newest first, and it goes on being right while a writer appends.

mod section;

use super::Disks;
use super::overlay::{OVERLAY_MAX, Overlay};
use crate::error::{Class, Error, Result};
use crate::format::freemap::{LAYER2_SPAN, Layer2};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, BUFFER, Fault, Offset, Rule, Zone, fifo};
use crate::io::{Buf, Bytes};
use section::Section;
use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

/// Bytes of the ring that one read takes at most.
const CHUNK_MAX: u64 = 1 << 20;
/// First version whose records carry sequence numbers that tell the end of the log.
const SEQUENCED: u32 = 4;

/// Where the ring lies, and how its records are to be read.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Byte offset on the root volume's device of every big-block of the ring.
    bigblocks: Vec<u64>,
    version: u32,
}

impl Ring {
    /// The ring that `header` describes (checked by [`VolumeHeader::check_root`]).
    pub(super) fn new(header: &VolumeHeader) -> Ring {
        let count = (header.undo_bytes() / BIGBLOCK) as usize;
        let base = header.buf_beg.get().cast_unsigned();
        let place = |slot: &zerocopy::little_endian::U64| base + Offset(slot.get()).short();
        Ring {
            bigblocks: header.undo_array.iter().take(count).map(place).collect(),
            version: header.version.get(),
        }
    }

    /// A ring of so many big-blocks, one behind the other.
    #[cfg(test)]
    pub(super) fn of_bigblocks(count: u64, version: u32) -> Ring {
        let bigblocks = (0..count).map(|n| n * BIGBLOCK).collect();
        Ring { bigblocks, version }
    }

    /// The version whose rules its records follow.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Length of the ring in bytes.
    pub fn bytes(&self) -> u64 {
        self.bigblocks.len() as u64 * BIGBLOCK
    }

    /// `pos`, or 0 in place of the ring's end.
    pub(super) fn wrap(&self, pos: u64) -> u64 {
        if pos >= self.bytes() { 0 } else { pos }
    }

    /// How far it is from `from` forward to `to`.
    pub fn distance(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (self.wrap(from), self.wrap(to));
        if to >= from {
            to - from
        } else {
            self.bytes() - from + to
        }
    }

    /// The device offset of byte `pos`, and how many bytes follow it there.
    pub(super) fn locate(&self, pos: u64) -> (u64, u64) {
        // The positions that come here are below the ring's length.
        let bigblock = self.bigblocks.get((pos / BIGBLOCK) as usize);
        let within = pos % BIGBLOCK;
        (bigblock.map_or(0, |at| at + within), BIGBLOCK - within)
    }
}

/// A piece of the ring in memory: whole 16 KiB buffers.
struct Window {
    /// Position of the first byte.
    start: u64,
    buf: Buf,
    /// How much the next read may take.
    ahead: u64,
}

impl Window {
    fn empty() -> Window {
        Window {
            start: u64::MAX,
            buf: Buf::zeroed(0),
            ahead: BUFFER as u64,
        }
    }

    /// The 16 KiB buffer at `start`, from the device if it is not here.
    fn buffer(&mut self, disks: &mut Disks, disk: usize, ring: &Ring, start: u64) -> Result<&[u8]> {
        let here = start.checked_sub(self.start);
        let within = match here {
            Some(within) if within < self.buf.len() as u64 => within as usize,
            _ => {
                let (at, room) = ring.locate(start);
                let len = self.ahead.min(room);
                self.buf = match disks.read(disk, at, len as usize) {
                    // The fault may lie in what nobody has asked for.
                    Err(_) if len > BUFFER as u64 => disks.read(disk, at, BUFFER)?,
                    other => other?,
                };
                self.start = start;
                self.ahead = (self.ahead * 4).min(CHUNK_MAX);
                0
            }
        };
        Ok(&self.buf[within..within + BUFFER])
    }

    /// Forgets what is in memory: the device may have changed.
    fn forget(&mut self) {
        *self = Window::empty();
    }
}

/// Which big-blocks' layer-2 entries were seen free in the log: they may have been reused.
///
/// The first logged value of an entry is that of the view; every later one was reached after it.
#[derive(Default)]
pub(super) struct Freed {
    /// Zone-2 addresses of the layer-2 arrays, with the big-block that their first entry describes.
    arrays: Vec<(Offset, Offset)>,
    logged: HashSet<u64>,
    freed: HashSet<u64>,
}

impl Freed {
    /// Watches these layer-2 arrays, each with the address of the first byte it describes.
    pub fn watch(&mut self, arrays: Vec<(Offset, Offset)>) {
        self.arrays = arrays;
    }

    /// Whether the big-block at `bigblock` (zone 2) was free at some time since the view.
    pub fn contains(&self, bigblock: Offset) -> bool {
        self.freed.contains(&bigblock.0)
    }

    fn note(&mut self, at: Offset, old: &[u8]) {
        let size = size_of::<Layer2>() as u64;
        let found = self
            .arrays
            .iter()
            .find(|(array, _)| array.0 == at.bigblock().0);
        let Some((array, first)) = found else { return };
        let (from, to) = (at.0 - array.0, at.0 - array.0 + old.len() as u64);
        // The owner is an entry's first byte.
        for entry in from.div_ceil(size)..to.div_ceil(size) {
            let bigblock = Offset(first.0 + entry * BIGBLOCK);
            let owner = old.get((entry * size - from) as usize);
            let again = !self.logged.insert(bigblock.0);
            if again && owner == Some(&Zone::FREE.0) {
                self.freed.insert(bigblock.0);
            }
        }
    }
}

/// The big-block that the first entry of a layer-2 array describes, from any address in its span.
pub(super) fn span_start(at: Offset) -> Offset {
    let long = at.long() / LAYER2_SPAN * LAYER2_SPAN;
    Offset(long).in_zone(Zone::RAW_BUFFER)
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Start of the range to undo, bytes from the start of the ring.
    pub first: u64,
    /// The end of the log: behind the last record.
    pub end: u64,
    /// Records in the range, fillers not counted.
    pub records: u64,
    /// Bytes from `first` to `end`.
    pub bytes: u64,
}

/// Whether the log's start is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intact {
    /// It is.
    Yes,
    /// Other records stand there.
    No,
    /// No whole record stands there at the moment.
    Unclear,
}

/// Reads the log from the start of the range to undo, and on as it grows.
pub(super) struct Scanner {
    ring: Ring,
    disk: usize,
    window: Window,
    first: u64,
    /// Sequence number that the record at `first` has or will have.
    first_seq: u32,
    /// Where the record before `first` starts.
    before: u64,
    end: u64,
    /// Bytes from `first` to `end`.
    bytes: u64,
    /// Bytes from `first` to the end of the fillers behind `end`.
    reached: u64,
    records: u64,
    /// Where the first record is, and its number.
    opening: Option<(u64, u32)>,
    next_seq: u32,
    section: Section,
    pub overlay: Overlay,
    pub freed: Freed,
}

impl Scanner {
    /// Prepares a scan from the header's `first_offset`; on version 4 and later finds the sequence
    /// number that it starts with.
    pub fn new(disks: &mut Disks, disk: usize, header: &VolumeHeader) -> Result<Scanner> {
        let mut scanner = Scanner::at_first(disk, header);
        let first = scanner.first;
        if scanner.is_sequenced() {
            let (before, seq) = scanner.record_before(disks, first)?;
            scanner.before = before;
            scanner.first_seq = seq.wrapping_add(1);
            scanner.next_seq = scanner.first_seq;
            scanner.section = Section::new((first, 0), scanner.first_seq);
        }
        Ok(scanner)
    }

    /// A scan of nothing, where not even the log's start can be read.
    pub fn blind(disk: usize, header: &VolumeHeader) -> Scanner {
        Scanner::at_first(disk, header)
    }

    fn at_first(disk: usize, header: &VolumeHeader) -> Scanner {
        let ring = Ring::new(header);
        let first = ring.wrap(Offset(header.zone(Zone::UNDO).first_offset.get()).short());
        Scanner {
            ring,
            disk,
            window: Window::empty(),
            first,
            first_seq: 0,
            before: first,
            end: first,
            bytes: 0,
            reached: 0,
            records: 0,
            opening: None,
            next_seq: 0,
            section: Section::new((first, 0), 0),
            overlay: Overlay::default(),
            freed: Freed::default(),
        }
    }

    /// `len` bytes at byte `pos` of the ring as the device has them; within one 16 KiB buffer.
    pub fn raw(&mut self, disks: &mut Disks, pos: u64, len: usize) -> Result<Bytes> {
        let within = (pos % BUFFER as u64) as usize;
        if pos >= self.ring.bytes() || within + len > BUFFER {
            let place = Offset::new(Zone::UNDO, 0, pos);
            let text = format!("address {place} (+{len}): not within a buffer of the FIFO");
            return Err(Error::damage(text));
        }
        let start = pos - within as u64;
        let buffer = self.window.buffer(disks, self.disk, &self.ring, start)?;
        Ok(Bytes::new(Arc::new(Buf::copy_of(
            &buffer[within..within + len],
        ))))
    }

    /// Whether the end of the log is told by sequence numbers rather than by the header.
    pub fn is_sequenced(&self) -> bool {
        self.ring.version >= SEQUENCED
    }

    pub fn extent(&self) -> Extent {
        Extent {
            first: self.first,
            end: self.end,
            records: self.records,
            bytes: self.bytes,
        }
    }

    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next record's sequence number.
    pub fn next_seq(&self) -> u32 {
        self.next_seq
    }

    /// Whether the scan has come at least as far as `next` (a header's `next_offset`).
    pub fn has_reached(&self, next: Offset) -> bool {
        self.ring.distance(self.first, next.short()) <= self.reached
    }

    /// Reads on to the end of the log. `next` is the header's `next_offset`: the end itself on
    /// versions below 4.
    pub fn extend(&mut self, disks: &mut Disks, next: Offset) -> Result<()> {
        self.window.forget();
        if self.is_sequenced() {
            return self.extend_by_sequence(disks);
        }
        let goal = self.ring.distance(self.first, next.short());
        if goal < self.bytes {
            // The log only grows: it was written around its start.
            return Err(Error::new(Class::Expired, "the log ends before it did"));
        }
        while self.bytes < goal {
            let (size, _) = self.take(disks, self.end, None)?;
            self.end = self.ring.wrap(self.end + size);
            self.bytes += size;
            self.reached = self.bytes;
        }
        if self.bytes > goal {
            let place = Offset::new(Zone::UNDO, 0, self.end);
            let expected = format!("a record that ends at {next}");
            return Err(
                Fault::new(Rule::Fifo, place, expected, "one that goes on behind it").into(),
            );
        }
        Ok(())
    }

    fn extend_by_sequence(&mut self, disks: &mut Disks) -> Result<()> {
        let (mut pos, mut ahead) = (self.end, self.bytes);
        loop {
            if ahead > self.ring.bytes() {
                let place = Offset::new(Zone::UNDO, 0, self.first);
                let found = "records in sequence all around";
                return Err(Fault::new(Rule::Fifo, place, "an end of the log", found).into());
            }
            let (size, in_sequence) = self.take(disks, pos, Some(self.next_seq))?;
            if in_sequence == Some(false) {
                self.reached = ahead;
                return Ok(());
            }
            pos = self.ring.wrap(pos + size);
            ahead += size;
            if in_sequence == Some(true) {
                self.next_seq = self.next_seq.wrapping_add(1);
                (self.end, self.bytes) = (pos, ahead);
            }
        }
    }

    /// Reads the record at `pos`; if it is not a filler and has the number `seq` (or any, without
    /// one), takes over what it holds. Gives its size and whether it was in sequence, `None` for
    /// fillers.
    fn take(
        &mut self,
        disks: &mut Disks,
        pos: u64,
        seq: Option<u32>,
    ) -> Result<(u64, Option<bool>)> {
        let start = pos - pos % BUFFER as u64;
        let base = Offset::new(Zone::UNDO, 0, start);
        let buffer = self.window.buffer(disks, self.disk, &self.ring, start)?;
        let record = fifo::Record::at(buffer, (pos - start) as usize, base, self.ring.version)?;
        let size = record.size() as u64;
        let Some(number) = record.seq() else {
            return Ok((size, None));
        };
        if seq.is_some_and(|seq| seq != number) {
            return Ok((size, Some(false)));
        }
        self.records += 1;
        if let Some(undo) = record.undo(Offset::new(Zone::UNDO, 0, pos))? {
            self.freed.note(undo.at, undo.old);
            if !self.overlay.add(undo.at, undo.old) {
                let text = format!(
                    "the UNDO FIFO's range takes more than {} MiB of memory to undo",
                    OVERLAY_MAX >> 20
                );
                return Err(Error::new(Class::Other, text));
            }
        }
        self.opening.get_or_insert((pos, number));
        self.section.note(pos, &record);
        Ok((size, Some(true)))
    }

    /// The last record before `pos` that is no filler: where it starts, and its number.
    fn record_before(&mut self, disks: &mut Disks, pos: u64) -> Result<(u64, u32)> {
        let mut pos = pos;
        // A sector begins with a numbered record, so the fillers before one are few.
        for _ in 0..=BUFFER / 8 {
            let end = if pos == 0 { self.ring.bytes() } else { pos };
            let start = (end - 1) - (end - 1) % BUFFER as u64;
            let base = Offset::new(Zone::UNDO, 0, start);
            let buffer = self.window.buffer(disks, self.disk, &self.ring, start)?;
            let within = (end - start) as usize;
            let (at, record) = fifo::Record::before(buffer, within, base, self.ring.version)?;
            pos = start + at as u64;
            if let Some(seq) = record.seq() {
                return Ok((pos, seq));
            }
        }
        let place = Offset::new(Zone::UNDO, 0, pos);
        Err(Fault::new(
            Rule::Fifo,
            place,
            "a numbered record",
            "nothing but fillers",
        )
        .into())
    }

    /// Whether the record before the range, and the first in it, still are what they were: the
    /// ring has not been written around. Reads them anew.
    pub fn is_intact(&mut self, disks: &mut Disks) -> Result<Intact> {
        self.window.forget();
        let before = (self.before, self.first_seq.wrapping_sub(1));
        for (pos, seq) in [Some(before), self.opening].into_iter().flatten() {
            match self.number_at(disks, pos)? {
                Some(number) if number == seq => {}
                Some(_) => return Ok(Intact::No),
                None => return Ok(Intact::Unclear),
            }
        }
        Ok(Intact::Yes)
    }

    /// The number of the record at `pos`, behind fillers; `None` where there is none.
    fn number_at(&mut self, disks: &mut Disks, pos: u64) -> Result<Option<u32>> {
        let mut pos = pos;
        for _ in 0..=BUFFER / 8 {
            let start = pos - pos % BUFFER as u64;
            let base = Offset::new(Zone::UNDO, 0, start);
            let buffer = self.window.buffer(disks, self.disk, &self.ring, start)?;
            let within = (pos - start) as usize;
            match fifo::Record::at(buffer, within, base, self.ring.version) {
                Ok(record) if record.seq().is_some() => return Ok(record.seq()),
                Ok(record) => pos = self.ring.wrap(pos + record.size() as u64),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;
    use zerocopy::little_endian::{I32, U16, U32};

    /// An entry whose owner is logged as free after its first record was free since the view.
    #[test]
    fn a_freed_bigblock_is_noticed() {
        let array = Offset::new(Zone::RAW_BUFFER, 0, 2 * BIGBLOCK);
        let first = Offset::new(Zone::RAW_BUFFER, 0, 0);
        let mut freed = Freed::default();
        freed.watch(vec![(array, first)]);
        let entry = |zone| Layer2 {
            zone,
            reserved01: 0,
            reserved02: U16::ZERO,
            append_off: U32::ZERO,
            bytes_free: I32::ZERO,
            entry_crc: U32::ZERO,
        };
        let place = |index: u64| Offset(array.0 + 16 * index);
        let bigblock = |index: u64| Offset(first.0 + BIGBLOCK * index);
        // Free in the view itself, claimed later: nothing of the view lies there.
        freed.note(place(4), entry(0).as_bytes());
        freed.note(place(4), entry(8).as_bytes());
        // Owned in the view, freed, reused.
        freed.note(place(9), entry(8).as_bytes());
        assert!(!freed.contains(bigblock(9)));
        freed.note(place(9), entry(0).as_bytes());
        assert!(freed.contains(bigblock(9)) && !freed.contains(bigblock(4)));
        // A log of single bytes tells it too; bytes that are not owners say nothing.
        freed.note(place(7), &[9]);
        freed.note(Offset(place(7).0 + 1), &[0; 4]);
        assert!(!freed.contains(bigblock(7)));
        freed.note(place(7), &[0]);
        assert!(freed.contains(bigblock(7)));
        // Elsewhere nothing is watched.
        freed.note(Offset(array.0 + BIGBLOCK), entry(0).as_bytes());
        freed.note(Offset(array.0 + BIGBLOCK), entry(0).as_bytes());
        assert_eq!(freed.freed.len(), 2);
    }
}
