//! Whether a slave shows what its source shows, as of the slave's TID, told by digests alone.
//!
//! Two [`Witness`]es, one a side, are asked the same questions about ranges of keys. A range whose
//! digests agree is done; one whose digests do not is cut into pieces until so few records are left
//! that each can be told by a digest of its own. Nothing but keys, counts, TIDs and digests goes from
//! one side to the other, so that either may be elsewhere.
//!
//! Compared is the view as of one TID: of each record the version that is visible then. Left out of
//! it is what differs between good copies:
//!
//! * the PFS id, in keys and in directory entries; where the data lies; deletions behind the TID,
//!   which the view does not have;
//! * mtime and atime of inodes, changed in place and without a TID; the reserved bytes of PFS
//!   records, where each volume keeps its own notes;
//! * the kind of CRC. An element's CRC stands for its data only between volumes that write the same
//!   kind, and then a record that differs is looked at again by its data: version 7 keeps CRCs of
//!   the older kind;
//! * configuration and snapshots, which every copy has of its own.
//!
//! What cannot be left out is what a master no longer has: a record that the slave shows, and that the
//! master deleted after the slave's TID and has pruned since, looks like one that it never had.

mod compare;
mod link;
mod side;
mod wire;

pub use compare::{Edge, Report, verify};
pub use link::{Far, Host, Service, serve};
pub use side::{Ground, Side};
pub use wire::{Incoming, Message};

use crate::error::Result;
use crate::format::record::rt;
use crate::format::{CrcKind, Key, Localization, Tid};
use crate::fs::pfs::Pfs;
use std::fmt;
use std::ops::Range as Span;

/// A record's key without PFS and version: what it is called on both sides. Ordered as keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The class of localization.
    pub class: u16,
    /// Object id.
    pub obj_id: i64,
    /// Record type.
    pub rec_type: u16,
    /// Type-specific key.
    pub key: i64,
}

impl Place {
    /// Before all records of a PFS.
    pub const MIN: Place = Place {
        class: 0,
        obj_id: i64::MIN,
        rec_type: 0,
        key: i64::MIN,
    };

    /// What `key` is called in terms of no PFS.
    pub fn of(key: &Key) -> Place {
        Place {
            class: key.localization.class(),
            obj_id: key.obj_id,
            rec_type: key.rec_type,
            key: key.key,
        }
    }

    /// The key of its first version in PFS `pfs`.
    pub fn in_pfs(self, pfs: u16) -> Key {
        let localization = Localization::new(pfs, self.class);
        Key::first_version(localization, self.obj_id, self.rec_type, self.key)
    }
}

/// The records from one place up to another, which does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first place.
    pub from: Place,
    /// The place behind the last; `None`: up to the end of the PFS.
    pub to: Option<Place>,
}

impl Range {
    /// A whole PFS.
    pub const ALL: Range = Range {
        from: Place::MIN,
        to: None,
    };

    fn holds(&self, place: Place) -> bool {
        place >= self.from && self.to.is_none_or(|to| place < to)
    }
}

/// What stands for a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The CRC that its element carries, where nothing of the data may differ.
    Sums,
    /// The data, read.
    Data,
}

impl Depth {
    /// What can stand for data between file systems of these two versions.
    pub fn between(one: u32, other: u32) -> Depth {
        match CrcKind::of_version(one) == CrcKind::of_version(other) {
            true => Depth::Sums,
            false => Depth::Data,
        }
    }
}

/// What is wanted to be known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its total: [`Answer::Whole`].
    Whole,
    /// The totals of pieces of so many records (the last one of fewer): [`Answer::Pieces`].
    Pieces(u64),
    /// Its records: [`Answer::Records`].
    Records,
}

/// A question about the records of a range that are visible as of a TID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which keys.
    pub range: Range,
    /// When.
    pub as_of: Tid,
    /// How closely to look.
    pub depth: Depth,
    /// What to tell.
    pub wanted: Wanted,
}

/// SHA-256 of records in terms of no PFS.
pub type Digest = [u8; 32];

/// What a range amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Records.
    pub count: u64,
    /// Those of them whose data is damaged, as far as it was read.
    pub damaged: u64,
    /// Of the digests of its records, in key order.
    pub digest: Digest,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called.
    pub place: Place,
    /// The version that is visible.
    pub create_tid: Tid,
    /// Bytes of data.
    pub len: u32,
    /// Whether its data was read and is damaged, or cannot be had.
    pub damaged: bool,
    /// Of all that has to be the same in a copy.
    pub digest: Digest,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The range's total.
    Whole(Total),
    /// The first place of each piece, and its total.
    Pieces(Vec<(Place, Total)>),
    /// The records.
    Records(Vec<Entry>),
}

/// Who is asked: what is to be known before the first question.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The version of its file system.
    pub version: u32,
    /// The PFS.
    pub pfs: Pfs,
}

/// How far a witness is, since it was last heard of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Records looked at.
    pub records: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// The object being looked at.
    pub object: i64,
}

/// Hears how far a witness is; an error ends it.
pub type Tick<'t> = &'t mut dyn FnMut(Seen) -> Result<()>;

/// One side: whoever can be asked about a PFS.
pub trait Witness {
    /// Questions that [`Witness::answer`] will be asked next: a witness that is elsewhere can begin
    /// to look.
    fn pose(&mut self, _asks: &[Ask]) -> Result<()> {
        Ok(())
    }

    /// An answer to each question, in their order. Errors are those of reading; damaged data is none.
    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>>;
}

/// How a record of the slave differs from the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The slave does not have it.
    Missing,
    /// The source does not have it.
    Extra,
    /// It is another version, or holds something else.
    Differs,
    /// Data was found damaged: in the source, in the slave, or in both.
    Damaged {
        /// In the source.
        source: bool,
        /// In the slave.
        slave: bool,
    },
}

impl How {
    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            How::Missing => "missing",
            How::Extra => "extra",
            How::Differs => "differs",
            How::Damaged { .. } => "damaged",
        }
    }
}

/// One record that is not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the record is called.
    pub place: Place,
    /// What is the matter.
    pub how: How,
    /// The version that the source shows.
    pub source: Option<Tid>,
    /// The version that the slave shows.
    pub slave: Option<Tid>,
    /// Bytes of data: the source's, else the slave's.
    pub len: u32,
}

impl Difference {
    /// The bytes of the file that the record holds, if it is file data.
    pub fn bytes(&self) -> Option<Span<u64>> {
        // A block's key is the offset behind its last byte.
        let end = u64::try_from(self.place.key).ok();
        end.filter(|_| self.place.rec_type == rt::DATA)
            .map(|end| end.saturating_sub(u64::from(self.len))..end)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        write!(f, "object 0x{:016x}", place.obj_id)?;
        match (self.bytes(), rt::name(place.rec_type)) {
            (Some(bytes), _) => write!(f, ", bytes {} to {}", bytes.start, bytes.end)?,
            (None, Some(name)) => write!(f, ", its {name} record 0x{:016x}", place.key)?,
            (None, None) => write!(f, ", record type 0x{:02x}", place.rec_type)?,
        }
        match self.how {
            How::Missing => f.write_str(": missing in the slave")?,
            How::Extra => f.write_str(": only in the slave")?,
            How::Differs => f.write_str(": differs")?,
            How::Damaged { source, slave } => f.write_str(match (source, slave) {
                (true, true) => ": damaged in both",
                (true, false) => ": damaged in the source",
                _ => ": damaged in the slave",
            })?,
        }
        let made = |tid: Option<Tid>| tid.map_or_else(|| "none".into(), |tid| tid.to_string());
        match self.source == self.slave {
            true => write!(f, " (made at {})", made(self.source)),
            false => write!(
                f,
                " (source: made at {}, slave: {})",
                made(self.source),
                made(self.slave)
            ),
        }
    }
}
