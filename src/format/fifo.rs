//! Records of the UNDO/REDO FIFO (durability.md §2).
//!
//! A record is a head (16 bytes), a body and a tail (8 bytes), so that a scan can go both ways.
//! A PAD of eight bytes is only a head's first half, and is its own tail.

use super::{BUFFER, CrcKind, Fault, Offset, Rule, crc};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Signature of a head.
pub const HEAD: u16 = 0xC84E;
/// Signature of a tail.
pub const TAIL: u16 = 0xC74F;
/// Filler without sequence number and CRC.
pub const PAD: u16 = 0x8040;
/// Filler with both; formatting and alignment.
pub const DUMMY: u16 = 0x0041;
/// Old bytes of a metadata range.
pub const UNDO: u16 = 0x0043;
/// New bytes of a file, logged by fsync.
pub const REDO: u16 = 0x0044;
/// Flag of a REDO record: bytes written to a file.
pub const REDO_WRITE: u32 = 0x01;
/// Flag of a REDO record: a file got another length.
pub const REDO_TRUNC: u32 = 0x02;
/// Flag of a REDO record: a block that bytes were written to is on the medium.
pub const REDO_TERM_WRITE: u32 = 0x04;
/// Flag of a REDO record: a change of length is on the medium.
pub const REDO_TERM_TRUNC: u32 = 0x08;
/// Framing unit in bytes (version 4 and later): no record crosses it, each starts with a sequence number.
pub const SECTOR: u64 = 512;

/// The head of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Head {
    /// [`HEAD`].
    pub signature: U16,
    /// [`PAD`], [`DUMMY`], [`UNDO`] or [`REDO`].
    pub kind: U16,
    /// Size of the whole record in bytes, a multiple of 8.
    pub size: U32,
    /// Sequence number.
    pub seq: U32,
    /// CRC of the record around this field.
    pub crc: U32,
}

/// The tail of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tail {
    /// [`TAIL`].
    pub signature: U16,
    /// As in the head.
    pub kind: U16,
    /// As in the head.
    pub size: U32,
}

/// Head and body of an UNDO record; the old bytes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UndoHead {
    /// The common head.
    pub head: Head,
    /// Where the bytes were: zone 1 (a header) or zone 2.
    pub undo_offset: U64,
    /// How many.
    pub bytes: I32,
    /// Zero.
    pub reserved: U32,
}

/// Head and body of a REDO record; the new bytes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RedoHead {
    /// The common head.
    pub head: Head,
    /// The file.
    pub obj_id: I64,
    /// File offset, new size or FIFO offset, by `flags`.
    pub redo_offset: U64,
    /// Length of the chunk or block.
    pub bytes: I32,
    /// WRITE 1, TRUNC 2, TERM_WRITE 4, TERM_TRUNC 8, SYNC 16.
    pub flags: U32,
    /// PFS id in the upper half.
    pub localization: U32,
    /// Zero.
    pub reserved01: U32,
    /// Zero.
    pub reserved02: U64,
}

const _: () = {
    assert!(size_of::<Head>() == 16);
    assert!(size_of::<Tail>() == 8);
    assert!(size_of::<UndoHead>() == 32);
    assert!(size_of::<RedoHead>() == 56);
};

/// A record found in a 16 KiB buffer of the FIFO.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The whole record.
    bytes: &'a [u8],
    /// Its kind.
    pub kind: u16,
}

/// The old bytes that an UNDO record holds.
#[derive(Clone, Copy, Debug)]
pub struct Undo<'a> {
    /// Their address, zone 1 or 2.
    pub at: Offset,
    /// The bytes.
    pub old: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record that starts at byte `pos` of `buffer`, whose first byte has FIFO address
    /// `base`; checks framing and CRC as a file system of `version` does.
    pub fn at(
        buffer: &'a [u8],
        pos: usize,
        base: Offset,
        version: u32,
    ) -> Result<Record<'a>, Fault> {
        let place = Offset(base.0.wrapping_add(pos as u64));
        let fault = |expected: &str, found: String| {
            Err(Fault::new(Rule::Fifo, place, expected.to_owned(), found))
        };
        let rest = buffer.get(pos..).unwrap_or_default();
        // Eight bytes are enough for the smallest PAD.
        let Some(start) = rest.first_chunk::<8>() else {
            return fault("a record", "the end of the buffer".into());
        };
        let signature = u16::from_le_bytes([start[0], start[1]]);
        let kind = u16::from_le_bytes([start[2], start[3]]);
        let size = u32::from_le_bytes([start[4], start[5], start[6], start[7]]) as usize;
        if signature != HEAD {
            return fault("head signature 0xc84e", format!("0x{signature:04x}"));
        }
        let Some(bytes) = rest
            .get(..size)
            .filter(|_| size >= 8 && size.is_multiple_of(8))
        else {
            let room = rest.len().min(BUFFER);
            return fault(&format!("a size of 8 to {room}"), size.to_string());
        };
        let record = Record { bytes, kind };
        if kind == PAD && size == 8 {
            return Ok(record);
        }
        let Some((_, tail)) = bytes.split_last_chunk::<8>() else {
            return fault("a tail", format!("a record of {size} bytes"));
        };
        let tail_signature = u16::from_le_bytes([tail[0], tail[1]]);
        let same = tail[2..4] == start[2..4] && tail[4..8] == start[4..8];
        if tail_signature != TAIL || !same {
            return fault("a tail that repeats the head", format!("{tail:02x?}"));
        }
        if kind != PAD {
            if size < size_of::<Head>() + size_of::<Tail>() {
                return fault("at least 24 bytes", size.to_string());
            }
            let stored = record.head_field(12);
            let sum = |crc: CrcKind| crc.sum2(&bytes[..12], &bytes[16..]);
            if crc::accept(version, stored, sum).is_none() {
                let expected = super::fault::hex32(sum(CrcKind::of_version(version)));
                return fault(&format!("CRC {expected}"), super::fault::hex32(stored));
            }
        }
        Ok(record)
    }

    /// Reads the record that ends just before byte `end` of `buffer` (`end` > 0).
    pub fn before(
        buffer: &'a [u8],
        end: usize,
        base: Offset,
        version: u32,
    ) -> Result<(usize, Record<'a>), Fault> {
        let place = Offset(base.0.wrapping_add(end as u64));
        let tail = buffer.get(..end).and_then(|b| b.last_chunk::<8>());
        let Some(tail) = tail else {
            return Err(Fault::new(
                Rule::Fifo,
                place,
                "a record before",
                "the buffer's start",
            ));
        };
        let signature = u16::from_le_bytes([tail[0], tail[1]]);
        let kind = u16::from_le_bytes([tail[2], tail[3]]);
        let size = u32::from_le_bytes([tail[4], tail[5], tail[6], tail[7]]) as usize;
        let is_small_pad = signature == HEAD && kind == PAD && size == 8;
        if !is_small_pad && signature != TAIL {
            let found = format!("0x{signature:04x}");
            return Err(Fault::new(
                Rule::Fifo,
                place,
                "tail signature 0xc74f before",
                found,
            ));
        }
        let Some(pos) = end.checked_sub(size).filter(|_| size >= 8) else {
            let expected = format!("a size of 8 to {end}");
            return Err(Fault::new(Rule::Fifo, place, expected, size));
        };
        let record = Record::at(buffer, pos, base, version)?;
        if record.size() != size {
            return Err(Fault::new(
                Rule::Fifo,
                place,
                format!("size {size}"),
                record.size(),
            ));
        }
        Ok((pos, record))
    }

    fn head_field(&self, at: usize) -> u32 {
        match self.bytes.get(at..at + 4) {
            Some(b) => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            None => 0,
        }
    }

    /// Size of the whole record in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The sequence number; PAD has none.
    pub fn seq(&self) -> Option<u32> {
        (self.kind != PAD).then(|| self.head_field(offset_of!(Head, seq)))
    }

    /// The checksum that it carries; PAD has none.
    pub fn crc(&self) -> Option<u32> {
        (self.kind != PAD).then(|| self.head_field(offset_of!(Head, crc)))
    }

    /// The old bytes of an UNDO record (`place` is the record's own address); `None` for other kinds.
    pub fn undo(&self, place: Offset) -> Result<Option<Undo<'a>>, Fault> {
        if self.kind != UNDO {
            return Ok(None);
        }
        let Ok((head, rest)) = UndoHead::ref_from_prefix(self.bytes) else {
            return Err(Fault::new(Rule::Fifo, place, "an UNDO body", self.size()));
        };
        let payload = rest.len().saturating_sub(size_of::<Tail>());
        let bytes = usize::try_from(head.bytes.get()).unwrap_or(usize::MAX);
        if bytes > payload {
            let expected = format!("0 to {payload} old bytes");
            return Err(Fault::new(Rule::Fifo, place, expected, head.bytes.get()));
        }
        let at = Offset(head.undo_offset.get());
        if !matches!(at.zone().0, 1 | 2) || at.in_buffer() + bytes > BUFFER {
            let expected = "an address in zone 1 or 2, within a buffer";
            return Err(Fault::new(Rule::Fifo, place, expected, at));
        }
        Ok(Some(Undo {
            at,
            old: &rest[..bytes],
        }))
    }

    /// The body of a REDO record.
    pub fn redo(&self) -> Option<&'a RedoHead> {
        if self.kind != REDO {
            return None;
        }
        RedoHead::ref_from_prefix(self.bytes)
            .ok()
            .map(|(head, _)| head)
    }

    /// The new bytes of a file that a REDO record holds; `None` for other kinds, and where the record
    /// is shorter than it says.
    pub fn redo_data(&self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.redo()?.bytes.get()).ok()?;
        let body = self.bytes.get(size_of::<RedoHead>()..)?;
        let payload = body.len().checked_sub(size_of::<Tail>())?;
        body.get(..payload)?.get(..len)
    }
}
