//! The UNDO FIFO from end to end, as it is on the device: for dumps.

use super::View;
use crate::error::{Error, Result};
use crate::format::fifo::{self, Record};
use crate::format::{BUFFER, Fault, Offset, Zone};
use crate::io::Bytes;

/// What stands at one place of the FIFO.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its address (zone 3).
    pub at: Offset,
    /// Bytes from here to the next one.
    pub size: usize,
    /// Its sequence number; fillers and damaged records have none.
    pub seq: Option<u32>,
    /// What it is.
    pub kind: EntryKind,
}

/// What a record is.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// Old bytes of metadata.
    Undo {
        /// Their address (zone 1 or 2).
        target: Offset,
        /// How many.
        bytes: usize,
    },
    /// New contents of a file, or their length.
    Redo {
        /// The file.
        obj_id: i64,
        /// PFS in the upper half.
        localization: u32,
        /// File offset, new size or FIFO address, by `flags`.
        offset: u64,
        /// How many bytes.
        bytes: i32,
        /// WRITE 1, TRUNC 2, TERM_WRITE 4, TERM_TRUNC 8, SYNC 16.
        flags: u32,
    },
    /// A numbered filler.
    Dummy,
    /// An unnumbered filler.
    Pad,
    /// A record of a type that does not exist.
    Unknown(u16),
    /// No record; the walk goes on at the next sector.
    Damaged(Fault),
}

/// Walks the FIFO from its first byte to its last.
#[derive(Debug, Default)]
pub struct Walk {
    pos: u64,
    buffer: Option<(u64, Bytes)>,
}

impl Walk {
    /// A walk from the start.
    pub fn new() -> Walk {
        Walk::default()
    }

    /// The next record, `None` at the end. What cannot be read as a record is an entry too; an
    /// unreadable buffer is an error of this call, and the next call goes on behind it.
    pub fn next(&mut self, view: &mut View) -> Result<Option<Entry>> {
        use super::Fetch;
        let (end, version) = (view.header().undo_bytes(), view.version());
        if self.pos >= end {
            return Ok(None);
        }
        let start = self.pos - self.pos % BUFFER as u64;
        if self.buffer.as_ref().is_none_or(|(here, _)| *here != start) {
            match view.fifo_bytes(start, BUFFER) {
                Ok(bytes) => self.buffer = Some((start, bytes)),
                Err(error) => {
                    self.pos = start + BUFFER as u64;
                    let place = Offset::new(Zone::UNDO, 0, start);
                    return Err(error.context(format_args!("FIFO {place}")));
                }
            }
        }
        let Some((_, bytes)) = &self.buffer else {
            return Err(Error::damage("no FIFO buffer"));
        };
        let entry = entry(bytes, start, (self.pos - start) as usize, version);
        self.pos += entry.size as u64;
        Ok(Some(entry))
    }
}

/// What stands at byte `pos` of the buffer at byte `start` of the FIFO.
fn entry(bytes: &[u8], start: u64, pos: usize, version: u32) -> Entry {
    let base = Offset::new(Zone::UNDO, 0, start);
    let at = Offset::new(Zone::UNDO, 0, start + pos as u64);
    let read =
        Record::at(bytes, pos, base, version).and_then(|record| Ok((record, kind(&record, at)?)));
    match read {
        Ok((record, kind)) => Entry {
            at,
            size: record.size(),
            seq: record.seq(),
            kind,
        },
        Err(fault) => {
            let sector = fifo::SECTOR as usize;
            Entry {
                at,
                size: sector - pos % sector,
                seq: None,
                kind: EntryKind::Damaged(fault),
            }
        }
    }
}

fn kind(record: &Record<'_>, at: Offset) -> Result<EntryKind, Fault> {
    if let Some(undo) = record.undo(at)? {
        return Ok(EntryKind::Undo {
            target: undo.at,
            bytes: undo.old.len(),
        });
    }
    if let Some(redo) = record.redo() {
        return Ok(EntryKind::Redo {
            obj_id: redo.obj_id.get(),
            localization: redo.localization.get(),
            offset: redo.redo_offset.get(),
            bytes: redo.bytes.get(),
            flags: redo.flags.get(),
        });
    }
    Ok(match record.kind {
        fifo::DUMMY => EntryKind::Dummy,
        fifo::PAD => EntryKind::Pad,
        other => EntryKind::Unknown(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All entries of a buffer, one after the other.
    fn entries(bytes: &[u8]) -> Vec<Entry> {
        let (mut pos, mut found) = (0, Vec::new());
        while pos < BUFFER {
            let entry = entry(bytes, 0, pos, 7);
            assert!(entry.size > 0 && pos + entry.size <= BUFFER);
            pos += entry.size;
            found.push(entry);
        }
        found
    }

    fn pad(bytes: &mut [u8], pos: usize, size: usize) {
        let head = [fifo::HEAD, fifo::PAD].map(u16::to_le_bytes).concat();
        let tail = [fifo::TAIL, fifo::PAD].map(u16::to_le_bytes).concat();
        let size_bytes = (size as u32).to_le_bytes();
        bytes[pos..pos + 4].copy_from_slice(&head);
        bytes[pos + 4..pos + 8].copy_from_slice(&size_bytes);
        if size > 8 {
            bytes[pos + size - 8..pos + size - 4].copy_from_slice(&tail);
            bytes[pos + size - 4..pos + size].copy_from_slice(&size_bytes);
        }
    }

    #[test]
    fn goes_on_behind_damage() {
        let mut bytes = vec![0; BUFFER];
        for pos in (0..BUFFER).step_by(512) {
            pad(&mut bytes, pos, 512);
        }
        bytes[512] ^= 1;
        // A record in the middle of a sector is lost with what follows it there.
        pad(&mut bytes, 1024, 24);
        let found = entries(&bytes);
        let damaged: Vec<u64> = found
            .iter()
            .filter(|e| matches!(e.kind, EntryKind::Damaged(_)))
            .map(|e| e.at.short())
            .collect();
        assert_eq!(damaged, [512, 1048]);
        assert_eq!(found.len(), BUFFER / 512 + 1);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(seed: u64, zeros: bool) {
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..BUFFER)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    if zeros { 0 } else { state as u8 }
                })
                .collect();
            entries(&bytes);
        }
    }
}
