//! Records of a mirror stream (mirroring.md §5).
//!
//! A record is a 16-byte head, a body and, for [`Kind::Record`], the data. It starts on an 8-byte
//! boundary of the stream; what pads it is not part of it.

use super::crc::crc32;
use super::node::{Base, LeafElement};
use super::record::PfsData;
use super::{Fault, Offset, Rule, Tid, XBUFFER};
use std::mem::size_of;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The signature of a stream record.
pub const SIGNATURE: u32 = 0x4DD9_7272;
/// The signature as a big-endian machine would have written it; never valid.
pub const SIGNATURE_REVERSED: u32 = SIGNATURE.swap_bytes();
/// Size of the head in bytes.
pub const HEAD: usize = size_of::<Head>();
/// Largest record that a receiver takes, in bytes.
pub const RECORD_MAX: usize = 320 + XBUFFER;
/// Size of SYNC, IDLE, TERM and UPDATE in bytes.
pub const SHORT: usize = 24;
/// Size of PASS, and of REC without its data.
pub const ELEMENT: usize = HEAD + size_of::<LeafElement>();
/// Size of SKIP.
pub const SKIP: usize = HEAD + 2 * size_of::<Base>();
/// Size of PFSD.
pub const PFSD: usize = HEAD + 8 + size_of::<PfsData>();
/// Size of CURSOR.
pub const CURSOR: usize = HEAD + size_of::<Base>() + 8;

/// Type flag: the source found something wrong with the record.
pub const CRC_ERROR: u32 = 0x8000_0000;
/// Type flag: what is wrong is the data's CRC.
pub const DATA_CRC_BAD: u32 = 0x4000_0000;
/// Type flag: the element without its data.
pub const NODATA: u32 = 0x1000_0000;

/// What a record is: the low byte of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A B-Tree element with its data.
    Record = 1,
    /// A PFS's state; opens a batch.
    Pfsd = 2,
    /// The target's acknowledgement.
    Update = 3,
    /// The end of a batch.
    Sync = 4,
    /// A key range of which the stream says nothing.
    Skip = 5,
    /// A B-Tree element that the target should have.
    Pass = 6,
    /// The end of the stream.
    Term = 7,
    /// The end of a batch without work.
    Idle = 8,
    /// By what else than its PFSD a target's cursor knows the source. From here on: only where both
    /// ends have announced it ([`Capabilities`]).
    Source = 0x10,
    /// How far an interrupted batch came.
    Cursor = 0x11,
    /// That there is nothing to say yet.
    Alive = 0x12,
    /// SKIP of a range of which the source cannot read anything.
    Unreadable = 0x13,
}

impl Kind {
    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::Record,
            2 => Kind::Pfsd,
            3 => Kind::Update,
            4 => Kind::Sync,
            5 => Kind::Skip,
            6 => Kind::Pass,
            7 => Kind::Term,
            8 => Kind::Idle,
            0x10 => Kind::Source,
            0x11 => Kind::Cursor,
            0x12 => Kind::Alive,
            0x13 => Kind::Unreadable,
            _ => return None,
        })
    }
}

/// The head of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Head {
    /// [`SIGNATURE`].
    pub signature: U32,
    /// CRC-32 of everything behind this field, whatever the volume's version.
    pub rec_crc: U32,
    /// Size of head, body and data in bytes.
    pub rec_size: U32,
    /// [`Kind`] and flags.
    pub kind: U32,
}

/// The body of PFSD.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PfsdBody {
    /// 1.
    pub version: U32,
    /// Zero from the original; capabilities between two mallets.
    pub reserved: U32,
    /// The PFS record.
    pub pfs: PfsData,
}

const _: () = {
    assert!(HEAD == 16 && ELEMENT == 80 && SKIP == 96 && PFSD == 316 && CURSOR == 64);
};

/// What an end of a two-way session can do beyond what the original does: bits in the reserved word of
/// its first PFSD. The original leaves zero there and never looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// What the original can do, and every end of a one-way stream.
    pub const NONE: Capabilities = Capabilities(0);
    /// It goes on at the record where a batch was interrupted: SOURCE and CURSOR; UNREADABLE, which
    /// nobody may go on behind.
    pub const RESUME: Capabilities = Capabilities(1);
    /// It says ALIVE where it would be silent for long, and takes that for what it is.
    pub const ALIVE: Capabilities = Capabilities(2);
    /// All that this library can do.
    pub const ALL: Capabilities = Capabilities(3);

    /// What this end and the other one, which announced `other`, can both do.
    pub fn both(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// Whether `what` is among it.
    pub fn has(self, what: Capabilities) -> bool {
        self.0 & what.0 == what.0
    }
}

/// A record's contents.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Body<'a> {
    /// An element with its data, and whether the source flagged the data as bad.
    Record {
        /// The element, in the source's terms.
        leaf: LeafElement,
        /// Its data; empty with `nodata`.
        data: &'a [u8],
        /// Flagged as damaged at the source.
        bad: bool,
        /// Sent without its data.
        nodata: bool,
    },
    /// A PFS's state.
    Pfsd(PfsdBody),
    /// Acknowledged up to this TID.
    Update(u64),
    /// The batch is complete.
    Sync,
    /// Nothing is said about `[from, to)`.
    Skip {
        /// First key of the range.
        from: Base,
        /// The key behind it.
        to: Base,
    },
    /// An element that the target should have.
    Pass(LeafElement),
    /// The stream is complete.
    Term,
    /// There was no work.
    Idle,
    /// The TID at which the source's PFS record was created; 0 if the source is a slave.
    Source(Tid),
    /// Every key below `key` is as of a view whose end was at least `end`; 0: there is no cursor.
    Cursor {
        /// The first key that is not resolved; its PFS id means nothing.
        key: Base,
        /// The end of the interrupted batch's window.
        end: Tid,
    },
    /// There is nothing to say yet.
    Alive,
    /// Nothing is known about `[from, to)`.
    Unreadable {
        /// First key of the range.
        from: Base,
        /// The key behind it.
        to: Base,
    },
}

/// `size` rounded up to the stream's alignment.
pub fn padded(size: usize) -> usize {
    size.saturating_add(7) & !7
}

impl Head {
    /// Reads a head and checks what can be checked before the rest is there: signature and size.
    /// `at` is the byte offset in the stream, for messages.
    pub fn parse(bytes: &[u8; HEAD], at: u64) -> Result<Head, Fault> {
        let head = Head::read_from_bytes(bytes.as_slice())
            .map_err(|_| Fault::new(Rule::Stream, Offset(at), "a record head", "too few bytes"))?;
        let signature = head.signature.get();
        if signature != SIGNATURE {
            let found = match signature {
                SIGNATURE_REVERSED => "a stream of the other byte order".to_owned(),
                other => format!("0x{other:08x}"),
            };
            return Err(Fault::new(
                Rule::Stream,
                Offset(at),
                "signature 0x4dd97272",
                found,
            ));
        }
        let size = head.rec_size.get() as usize;
        if !(HEAD..=RECORD_MAX).contains(&size) {
            let expected = format!("a record of {HEAD} to {RECORD_MAX} bytes");
            return Err(Fault::new(Rule::Stream, Offset(at), expected, size));
        }
        Ok(head)
    }

    /// Size of the record in bytes, without padding.
    pub fn size(&self) -> usize {
        self.rec_size.get() as usize
    }
}

impl<'a> Body<'a> {
    /// Reads the body of a whole record (`bytes` is head, body and data, without padding) and
    /// checks CRC and sizes. `at` is the byte offset in the stream, for messages.
    pub fn parse(bytes: &'a [u8], at: u64) -> Result<Body<'a>, Fault> {
        let fault = |expected: &str, found: String| {
            Err(Fault::new(
                Rule::Stream,
                Offset(at),
                expected.to_owned(),
                found,
            ))
        };
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return fault("a record head", format!("{} bytes", bytes.len()));
        };
        let head = Head::parse(head, at)?;
        if head.size() != bytes.len() {
            return fault("a whole record", format!("{} bytes", bytes.len()));
        }
        let sum = crc32(&bytes[8..]);
        if sum != head.rec_crc.get() {
            let stored = super::fault::hex32(head.rec_crc.get());
            return fault(&format!("record CRC 0x{sum:08x}"), stored);
        }
        let kind = head.kind.get();
        let flags = kind & !0xFF;
        let Some(code) = Kind::from_code(kind as u8).filter(|code| match code {
            Kind::Record => flags & !(CRC_ERROR | DATA_CRC_BAD | NODATA) == 0,
            _ => flags == 0,
        }) else {
            return fault("a known record type", format!("0x{kind:08x}"));
        };
        let size_is = |size: usize| bytes.len() == size;
        let body = &bytes[HEAD..];
        match code {
            Kind::Record => Body::parse_record(body, kind, at),
            Kind::Pfsd if size_is(PFSD) => match PfsdBody::read_from_bytes(body) {
                Ok(pfsd) => Ok(Body::Pfsd(pfsd)),
                Err(_) => fault("a PFS record", format!("{} bytes", body.len())),
            },
            Kind::Pass if size_is(ELEMENT) => match LeafElement::read_from_bytes(body) {
                Ok(leaf) => Ok(Body::Pass(leaf)),
                Err(_) => fault("an element", format!("{} bytes", body.len())),
            },
            Kind::Skip | Kind::Unreadable if size_is(SKIP) => {
                let (from, to) = body.split_at(size_of::<Base>());
                match (Base::read_from_bytes(from), Base::read_from_bytes(to)) {
                    (Ok(from), Ok(to)) if code == Kind::Skip => Ok(Body::Skip { from, to }),
                    (Ok(from), Ok(to)) => Ok(Body::Unreadable { from, to }),
                    _ => fault("two bounds", format!("{} bytes", body.len())),
                }
            }
            Kind::Update if size_is(SHORT) => match body.first_chunk::<8>() {
                Some(tid) => Ok(Body::Update(u64::from_le_bytes(*tid))),
                None => fault("a TID", format!("{} bytes", body.len())),
            },
            Kind::Source if size_is(SHORT) => match body.first_chunk::<8>() {
                Some(tid) => Ok(Body::Source(Tid(u64::from_le_bytes(*tid)))),
                None => fault("a TID", format!("{} bytes", body.len())),
            },
            Kind::Cursor if size_is(CURSOR) => {
                let (key, end) = body.split_at(size_of::<Base>());
                match (Base::read_from_bytes(key), U64::read_from_bytes(end)) {
                    (Ok(key), Ok(end)) => Ok(Body::Cursor {
                        key,
                        end: Tid(end.get()),
                    }),
                    _ => fault("a key and a TID", format!("{} bytes", body.len())),
                }
            }
            Kind::Alive if size_is(SHORT) => Ok(Body::Alive),
            Kind::Sync if size_is(SHORT) => Ok(Body::Sync),
            Kind::Idle if size_is(SHORT) => Ok(Body::Idle),
            Kind::Term if size_is(SHORT) => Ok(Body::Term),
            other => fault(
                &format!("the size of a {other:?}"),
                format!("{} bytes", bytes.len()),
            ),
        }
    }

    fn parse_record(body: &'a [u8], kind: u32, at: u64) -> Result<Body<'a>, Fault> {
        let fault = |expected: &str, found: String| {
            Err(Fault::new(
                Rule::Stream,
                Offset(at),
                expected.to_owned(),
                found,
            ))
        };
        let Ok((leaf, data)) = LeafElement::read_from_prefix(body) else {
            return fault("an element", format!("{} bytes", body.len()));
        };
        let len = leaf.data_len.get();
        if !(0..=XBUFFER as i32).contains(&len) {
            return fault("a data length of 0 to 65536", len.to_string());
        }
        let nodata = kind & NODATA != 0;
        let expected = if nodata || leaf.data_offset.get() == 0 {
            0
        } else {
            len as usize
        };
        // The original takes more bytes than the element speaks of; they mean nothing.
        let Some(data) = data.get(..expected) else {
            return fault(&format!("{expected} bytes of data"), data.len().to_string());
        };
        Ok(Body::Record {
            leaf,
            data,
            bad: kind & (CRC_ERROR | DATA_CRC_BAD) != 0,
            nodata,
        })
    }
}

/// The head of a record of `kind` whose body (and data) is `parts` in turn, CRC included: for
/// writers that hand the parts to the kernel where they lie.
pub fn head(kind: u32, parts: &[&[u8]]) -> Head {
    let size = HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut head = Head {
        signature: U32::new(SIGNATURE),
        rec_crc: U32::ZERO,
        rec_size: U32::new(size as u32),
        kind: U32::new(kind),
    };
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head.as_bytes()[8..]);
    parts.iter().for_each(|part| sum.update(part));
    head.rec_crc = U32::new(sum.finalize());
    head
}

/// Appends a record to `out`: head with CRC, `parts` in turn, zeros up to the alignment.
pub fn append(out: &mut Vec<u8>, kind: u32, parts: &[&[u8]]) {
    let start = out.len();
    let head = head(kind, parts);
    out.reserve(padded(head.size()));
    out.extend_from_slice(head.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.resize(start + padded(head.size()), 0);
}

/// Appends an element with its data; `flags` are [`CRC_ERROR`] and the like.
pub fn append_record(out: &mut Vec<u8>, leaf: &LeafElement, data: &[u8], flags: u32) {
    append(out, Kind::Record as u32 | flags, &[leaf.as_bytes(), data]);
}

/// Appends PASS.
pub fn append_pass(out: &mut Vec<u8>, leaf: &LeafElement) {
    append(out, Kind::Pass as u32, &[leaf.as_bytes()]);
}

/// Appends SKIP of `[from, to)`.
pub fn append_skip(out: &mut Vec<u8>, from: &Base, to: &Base) {
    append(out, Kind::Skip as u32, &[from.as_bytes(), to.as_bytes()]);
}

/// Appends PFSD; `capabilities` is zero but in the first one that an end of a two-way session says
/// ([`Capabilities`]).
pub fn append_pfsd(out: &mut Vec<u8>, pfs: &PfsData, capabilities: u32) {
    let body = PfsdBody {
        version: U32::new(1),
        reserved: U32::new(capabilities),
        pfs: *pfs,
    };
    append(out, Kind::Pfsd as u32, &[body.as_bytes()]);
}

/// Appends UPDATE, the acknowledgement of `tid`.
pub fn append_update(out: &mut Vec<u8>, tid: u64) {
    append(out, Kind::Update as u32, &[U64::new(tid).as_bytes()]);
}

/// Appends SOURCE.
pub fn append_source(out: &mut Vec<u8>, leaf: Tid) {
    append(out, Kind::Source as u32, &[U64::new(leaf.0).as_bytes()]);
}

/// Appends CURSOR.
pub fn append_cursor(out: &mut Vec<u8>, key: &Base, end: Tid) {
    let end = U64::new(end.0);
    append(out, Kind::Cursor as u32, &[key.as_bytes(), end.as_bytes()]);
}

/// Appends ALIVE.
pub fn append_alive(out: &mut Vec<u8>) {
    append(out, Kind::Alive as u32, &[&[0; 8]]);
}

/// Appends SYNC, IDLE or TERM. Their eight body bytes mean nothing; they are what the original
/// leaves there.
pub fn append_mark(out: &mut Vec<u8>, kind: Kind) {
    append(out, kind as u32, &[&1u64.to_le_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{CrcKind, Key, Localization, Tid};
    use zerocopy::little_endian::I32;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter_map(|b| (b as char).to_digit(16).map(|d| d as u8))
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn marks_are_the_originals() {
        for (kind, expected) in [
            (
                Kind::Sync,
                "7272d94d65d123b618000000040000000100000000000000",
            ),
            (
                Kind::Idle,
                "7272d94de49c29b318000000080000000100000000000000",
            ),
            (
                Kind::Term,
                "7272d94d9503bdc118000000070000000100000000000000",
            ),
        ] {
            let mut out = Vec::new();
            append_mark(&mut out, kind);
            assert_eq!(out, hex(expected), "{kind:?}");
        }
        let mut out = Vec::new();
        append_update(&mut out, 0x1_2345_6789);
        assert_eq!(out, hex("7272d94d807d3c6d18000000030000008967452301000000"));
    }

    #[test]
    fn record_and_skip_are_the_originals() {
        let data = b"hello world data";
        let key = Key {
            localization: Localization(0x0003_0002),
            obj_id: 1,
            rec_type: 0x10,
            key: 5,
            create_tid: Tid(0x50),
        };
        let base = Base {
            obj_type: 2,
            btype: b'R',
            ..Base::from_key(key)
        };
        let leaf = LeafElement {
            base,
            create_ts: U32::new(1),
            delete_ts: U32::ZERO,
            data_offset: U64::new(0xb000_0000_0000_0000),
            data_len: I32::new(16),
            data_crc: U32::new(CrcKind::Ieee.sum(data)),
        };
        let mut out = Vec::new();
        append_record(&mut out, &leaf, data, 0);
        assert_eq!(
            out,
            hex(
                "7272d94d5da0f1af6000000001000000 01000000000000000500000000000000
                 50000000000000000000000000000000 10000252020003000100000000000000
                 00000000000000b010000000258d54d2 68656c6c6f20776f726c642064617461"
            )
        );
        match Body::parse(&out, 0).unwrap() {
            Body::Record {
                leaf: again,
                data: bytes,
                bad,
                nodata,
            } => {
                assert_eq!((again, bytes, bad, nodata), (leaf, &data[..], false, false));
            }
            other => panic!("{other:?}"),
        }
        let bound = |obj| Base {
            btype: b'R',
            ..Base::from_key(Key {
                obj_id: obj,
                key: 0,
                create_tid: Tid(1),
                ..key
            })
        };
        let mut out = Vec::new();
        append_skip(&mut out, &bound(2), &bound(9));
        assert_eq!(out[4..8], hex("fe0956de"));
    }

    #[test]
    fn records_beyond_the_originals() {
        let key = Base::from_key(Key {
            localization: Localization(2),
            obj_id: 77,
            rec_type: 0x10,
            key: -5,
            create_tid: Tid(0x50),
        });
        let mut out = Vec::new();
        append_cursor(&mut out, &key, Tid(9));
        assert_eq!(out.len(), CURSOR);
        let parsed = Body::parse(&out, 0).unwrap();
        assert!(matches!(parsed, Body::Cursor { key: again, end: Tid(9) } if again == key));
        let mut out = Vec::new();
        append_source(&mut out, Tid(7));
        assert!(matches!(Body::parse(&out, 0), Ok(Body::Source(Tid(7)))));
        let mut out = Vec::new();
        append_alive(&mut out);
        assert!(matches!(Body::parse(&out, 0), Ok(Body::Alive)));
        let (old, new) = (Capabilities::RESUME, Capabilities::ALL);
        assert_eq!(new.both(old), old);
        assert!(new.has(Capabilities::ALIVE) && !new.both(old).has(Capabilities::ALIVE));
        assert!(Capabilities::NONE.has(Capabilities::NONE));
    }

    #[test]
    fn bad_records_are_refused() {
        let mut good = Vec::new();
        append_mark(&mut good, Kind::Sync);
        assert!(matches!(Body::parse(&good, 0), Ok(Body::Sync)));
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(Body::parse(&bad, 0).is_err(), "flip at {index}");
        }
        let mut short = Vec::new();
        append(&mut short, Kind::Sync as u32, &[]);
        assert!(Body::parse(&short, 0).is_err(), "a 16-byte SYNC");
    }
}
