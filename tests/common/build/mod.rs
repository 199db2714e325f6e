//! Builds volumes from nothing, for tests and measurements: complete, valid and clean, without
//! one transaction.
//!
//! [`Writer`] takes records in key order and streams them to disk, so that a volume of any size
//! costs little memory: record data goes into zones 9 to 11 by the allocation rules, leaves and
//! their parents are packed bottom-up, and freemap, UNDO FIFO and headers are written last.
//! [`files::Files`] makes small volumes from operations on files, with history; [`bulk`] makes large ones.
//!
//! Everything follows from the options and the seed: the same call writes the same bytes.

pub mod bulk;
mod disk;
pub mod files;
mod loader;
pub mod pattern;

use disk::{Disk, Lane};
use loader::Loader;
use mallet::format::node::{Base, LeafElement, RECORD};
use mallet::format::{BIGBLOCK, CrcKind, Key, Offset, ROOT_OBJ, Tid, record};
use std::path::PathBuf;
use zerocopy::little_endian::{I32, U32, U64};

/// The TID that a fresh file system's first two records carry.
pub const FIRST_TID: Tid = Tid(0x1_0000_0001);

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// File system version, 1 to 7.
    pub version: u32,
    /// Path and size in bytes of every volume, the root volume first.
    pub volumes: Vec<(PathBuf, u64)>,
    /// Size of the UNDO FIFO in bytes, whole big-blocks.
    pub undo_bytes: u64,
    /// The label.
    pub label: String,
    /// Decides the file system id, and data made by pattern.
    pub seed: u64,
    /// How full nodes are: 1.0 packs 63 elements into a leaf and 62 children into a node.
    pub fill: f64,
    /// Write zeros to all space not in use, so that the image files have no holes.
    pub full: bool,
    /// Let [`files::Files`] store equal large blocks once (version 5 and later).
    pub dedup: bool,
    /// Take big-blocks from the volumes in turn, so that little data reaches all of them; else
    /// volumes fill in order of address.
    pub scatter: bool,
}

impl Options {
    /// One volume of `size` bytes at `path`: a FIFO of 8 MiB, nodes 0.7 full, sparse.
    pub fn new(path: impl Into<PathBuf>, version: u32, size: u64) -> Options {
        Options {
            version,
            volumes: vec![(path.into(), size)],
            undo_bytes: BIGBLOCK,
            label: "built".into(),
            seed: 1,
            fill: 0.7,
            full: false,
            dedup: false,
            scatter: false,
        }
    }

    /// Adds a volume of `size` bytes at `path`.
    pub fn volume(mut self, path: impl Into<PathBuf>, size: u64) -> Options {
        self.volumes.push((path.into(), size));
        self
    }

    /// The file system id.
    pub fn fsid(&self) -> [u8; 16] {
        pattern::uuid(self.seed, 0)
    }
}

/// A record to store.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its key; records come in ascending order.
    pub key: Key,
    /// When it was deleted, 0 if it is not.
    pub delete_tid: Tid,
    /// The object's type code.
    pub obj_type: u8,
    /// Its data.
    pub data: Data<'a>,
}

/// A record's data.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// New bytes; may be empty.
    Bytes(&'a [u8]),
    /// New bytes that a later transaction allocated: they lie with others of their kind, away from
    /// those of the records around.
    Late(&'a [u8]),
    /// The bytes of a record stored before, as deduplication leaves it.
    Shared(Placed),
}

/// Where a record's data went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its address; 0 if there is none.
    pub at: Offset,
    /// Its length in bytes.
    pub len: u32,
    /// Its CRC.
    pub crc: u32,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// The root node.
    pub root: Offset,
    /// Records.
    pub elements: u64,
    /// Leaves.
    pub leaves: u64,
    /// Internal nodes.
    pub internals: u64,
    /// Levels, leaves included.
    pub depth: usize,
    /// Bytes of record data, zones 9 to 11.
    pub data_bytes: u64,
    /// Base of the TID allocator.
    pub next_tid: Tid,
}

/// Writes a volume from a stream of records.
pub struct Writer {
    disk: Disk,
    loader: Loader,
    crc: CrcKind,
    elements: u64,
    data_bytes: u64,
    live_inodes: u64,
    top: u64,
}

impl Writer {
    /// Creates the image files (existing ones are overwritten) and reserves freemap and FIFO.
    pub fn create(options: &Options) -> Writer {
        let mut disk = Disk::create(options);
        let crc = CrcKind::of_version(options.version);
        let loader = Loader::new(&mut disk, crc, options.fill);
        Writer {
            disk,
            loader,
            crc,
            elements: 0,
            data_bytes: 0,
            live_inodes: 0,
            top: 0,
        }
    }

    /// Stores a record; its key must be above all keys before.
    pub fn push(&mut self, record: Record) -> Placed {
        let rec_type = record.key.rec_type;
        let placed = match record.data {
            Data::Bytes(bytes) => self.place(rec_type, bytes, false),
            Data::Late(bytes) => self.place(rec_type, bytes, true),
            Data::Shared(placed) => {
                self.disk.refer(placed.at, u64::from(placed.len));
                placed
            }
        };
        self.note(&record, placed);
        let mut base = Base::from_key(record.key);
        base.delete_tid = U64::new(record.delete_tid.0);
        base.obj_type = record.obj_type;
        base.btype = RECORD;
        let element = LeafElement {
            base,
            create_ts: U32::new(match rec_type {
                record::rt::SNAPSHOT => 0,
                _ => seconds(record.key.create_tid),
            }),
            delete_ts: U32::new(match record.delete_tid {
                Tid::ZERO => 0,
                tid => seconds(tid),
            }),
            data_offset: U64::new(placed.at.0),
            data_len: I32::new(placed.len.cast_signed()),
            data_crc: U32::new(placed.crc),
        };
        self.loader.push(&mut self.disk, element);
        placed
    }

    /// Allocates and writes a record's data.
    fn place(&mut self, rec_type: u16, bytes: &[u8], late: bool) -> Placed {
        if bytes.is_empty() {
            return Placed {
                at: Offset::NULL,
                len: 0,
                crc: 0,
            };
        }
        let len = bytes.len() as u32;
        let zone = record::data_zone(rec_type, len).expect("a record type with data");
        let lane = Lane { zone, late };
        let at = self.disk.allocate(lane, bytes.len() as u64);
        self.disk.write(lane, at, bytes);
        let crc = record::data_sum(rec_type, bytes, self.crc);
        Placed { at, len, crc }
    }

    fn note(&mut self, record: &Record, placed: Placed) {
        self.elements += 1;
        self.data_bytes += u64::from(placed.len);
        let live = record.delete_tid.is_zero();
        if record.key.rec_type == record::rt::INODE && live {
            self.live_inodes += 1;
        }
        // The first two records' TID is above the allocator's base on a fresh file system.
        let tids = [record.key.create_tid, record.delete_tid];
        let tids = tids.map(|tid| if tid == FIRST_TID { 0 } else { tid.0 });
        let obj = u64::try_from(record.key.obj_id).expect("a positive object id");
        let obj = if obj == ROOT_OBJ as u64 { 0 } else { obj };
        self.top = self.top.max(tids[0]).max(tids[1]).max(obj);
    }

    /// Which leaf the next record goes into and how many records that one holds already.
    pub fn leaf(&self) -> (u64, usize) {
        self.loader.leaf()
    }

    /// How many records a leaf gets.
    pub fn leaf_capacity(&self) -> usize {
        self.loader.leaf_max
    }

    /// Raises the TID allocator's base to at least `tid`.
    pub fn raise_next_tid(&mut self, tid: Tid) {
        self.top = self.top.max(tid.0);
    }

    /// Writes what is left, makes it stable and says what stands.
    pub fn finish(mut self) -> Built {
        let root = self.loader.finish(&mut self.disk);
        let next_tid = Tid(self.top.max(0x1_0000_0000).next_multiple_of(16));
        self.disk.finish(root, next_tid, self.live_inodes);
        Built {
            root,
            elements: self.elements,
            leaves: self.loader.leaves,
            internals: self.loader.internals,
            depth: self.loader.depth(),
            data_bytes: self.data_bytes,
            next_tid,
        }
    }
}

/// The time in seconds at which records of `tid` are said to be made.
pub fn seconds(tid: Tid) -> u32 {
    1_700_000_000 + (tid.0.saturating_sub(1 << 32) / 16) as u32
}

/// The same in microseconds.
pub fn micros(tid: Tid) -> u64 {
    u64::from(seconds(tid)) * 1_000_000
}
