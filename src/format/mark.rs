//! What mallet keeps in the 64 reserved bytes of a PFS record: on a slave how far an interrupted
//! pass came ([`Cursor`]), on a master that an operation is under way ([`Intent`]). Zero from
//! DragonFly, which carries the bytes along and ignores them.
//!
//! Either is valid only with its checksum and only under the record version that it was written
//! into: any rewrite of the record by another program ends it.

use super::{CrcKind, Key, Localization, Tid};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size in bytes of the reserved field.
pub const MARK_SIZE: usize = 64;
/// What an intent begins with.
const INTENT: [u8; 8] = *b"mallet\x01I";

/// How far an interrupted pass into a slave came: every key below `key` is as of a view whose end
/// was at least `end`; all others are as of the slave's `sync_end_tid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The first key that is not resolved; its PFS is the slave's own.
    pub key: Key,
    /// The end of the pass's window; [`Tid::MAX`]: roll back to `sync_end_tid` before all else.
    pub end: Tid,
    /// The source's `unique_uuid`, folded ([`fold`]).
    pub source: u64,
    /// The `create_tid` of the source's PFS record; 0 if the source is a slave.
    pub source_leaf: Tid,
    /// The `create_tid` of the record that holds this.
    pub own_leaf: Tid,
}

/// The cursor as stored.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredCursor {
    obj_id: I64,
    key: I64,
    create_tid: U64,
    rec_type: U16,
    class: U16,
    end: U64,
    source: U64,
    source_leaf: U64,
    own_leaf: U64,
    crc: U32,
}

/// An operation that needs several checkpoints: what carries its TID is to be taken back when the
/// volume is opened for writing, and is not there for whoever reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The operation's TID.
    pub tid: Tid,
    /// `vol0_next_tid` as the operation's checkpoints write it. A higher one on the volume means
    /// that another system has written since.
    pub next_tid: Tid,
    /// The `create_tid` of the record that holds this.
    pub own_leaf: Tid,
}

/// The intent as stored.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredIntent {
    magic: [u8; 8],
    tid: U64,
    next_tid: U64,
    own_leaf: U64,
    reserved: [u8; 28],
    crc: U32,
}

const _: () = {
    assert!(size_of::<StoredCursor>() == MARK_SIZE);
    assert!(size_of::<StoredIntent>() == MARK_SIZE);
    assert!(offset_of!(StoredCursor, end) == 28 && offset_of!(StoredCursor, crc) == 60);
    assert!(offset_of!(StoredIntent, crc) == 60);
};

/// The 128 bits of a UUID in 64: both halves, exclusive-or'd.
pub fn fold(uuid: &[u8; 16]) -> u64 {
    let (low, high) = uuid.split_at(8);
    let half = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    half(low) ^ half(high)
}

fn sum(bytes: &[u8; MARK_SIZE]) -> u32 {
    CrcKind::Castagnoli.sum(&bytes[..MARK_SIZE - size_of::<U32>()])
}

impl Cursor {
    /// The cursor in `bytes`, of the slave PFS `pfs` whose record was created at `own_leaf`; `None`
    /// if there is no valid one.
    pub fn read(bytes: &[u8; MARK_SIZE], pfs: u16, own_leaf: Tid) -> Option<Cursor> {
        let stored = StoredCursor::read_from_bytes(bytes).ok()?;
        let whole = stored.crc.get() == sum(bytes) && stored.own_leaf.get() == own_leaf.0;
        (whole && !bytes.starts_with(&INTENT)).then(|| Cursor {
            key: Key {
                localization: Localization::new(pfs, stored.class.get()),
                obj_id: stored.obj_id.get(),
                rec_type: stored.rec_type.get(),
                key: stored.key.get(),
                create_tid: Tid(stored.create_tid.get()),
            },
            end: Tid(stored.end.get()),
            source: stored.source.get(),
            source_leaf: Tid(stored.source_leaf.get()),
            own_leaf,
        })
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> [u8; MARK_SIZE] {
        let mut stored = StoredCursor {
            obj_id: I64::new(self.key.obj_id),
            key: I64::new(self.key.key),
            create_tid: U64::new(self.key.create_tid.0),
            rec_type: U16::new(self.key.rec_type),
            class: U16::new(self.key.localization.class()),
            end: U64::new(self.end.0),
            source: U64::new(self.source),
            source_leaf: U64::new(self.source_leaf.0),
            own_leaf: U64::new(self.own_leaf.0),
            crc: U32::ZERO,
        };
        stored.crc = U32::new(sum(&to_array(&stored)));
        to_array(&stored)
    }
}

impl Intent {
    /// The intent in `bytes`, of a PFS whose record was created at `own_leaf`; `None` if there is
    /// no valid one.
    pub fn read(bytes: &[u8; MARK_SIZE], own_leaf: Tid) -> Option<Intent> {
        let stored = StoredIntent::read_from_bytes(bytes).ok()?;
        let whole = stored.crc.get() == sum(bytes) && stored.own_leaf.get() == own_leaf.0;
        (whole && stored.magic == INTENT).then(|| Intent {
            tid: Tid(stored.tid.get()),
            next_tid: Tid(stored.next_tid.get()),
            own_leaf,
        })
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> [u8; MARK_SIZE] {
        let mut stored = StoredIntent::new_zeroed();
        stored.magic = INTENT;
        stored.tid = U64::new(self.tid.0);
        stored.next_tid = U64::new(self.next_tid.0);
        stored.own_leaf = U64::new(self.own_leaf.0);
        stored.crc = U32::new(sum(&to_array(&stored)));
        to_array(&stored)
    }
}

fn to_array<T: IntoBytes + Immutable>(stored: &T) -> [u8; MARK_SIZE] {
    let mut bytes = [0; MARK_SIZE];
    bytes.copy_from_slice(stored.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_come_back(obj: i64, key: i64, tid: u64, rec_type: u16, end: u64, source: u64, flip in 0usize..512) {
            let cursor = Cursor {
                key: Key { localization: Localization::new(5, 2), obj_id: obj, rec_type, key, create_tid: Tid(tid) },
                end: Tid(end), source, source_leaf: Tid(7), own_leaf: Tid(9),
            };
            let mut bytes = cursor.to_bytes();
            prop_assert_eq!(Cursor::read(&bytes, 5, Tid(9)), Some(cursor));
            prop_assert_eq!(Cursor::read(&bytes, 5, Tid(10)), None);
            prop_assert_eq!(Intent::read(&bytes, Tid(9)), None);
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(Cursor::read(&bytes, 5, Tid(9)), None);
        }

        #[test]
        fn intents_come_back(tid: u64, next: u64, flip in 0usize..512) {
            let intent = Intent { tid: Tid(tid), next_tid: Tid(next), own_leaf: Tid(9) };
            let mut bytes = intent.to_bytes();
            prop_assert_eq!(Intent::read(&bytes, Tid(9)), Some(intent));
            prop_assert_eq!(Cursor::read(&bytes, 5, Tid(9)), None);
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(Intent::read(&bytes, Tid(9)), None);
        }
    }

    #[test]
    fn nothing_is_no_mark() {
        let nothing = [0; MARK_SIZE];
        assert_eq!(Cursor::read(&nothing, 0, Tid(0)), None);
        assert_eq!(Intent::read(&nothing, Tid(0)), None);
    }
}
