//! Large volumes, streamed: one master PFS (number 1) of directories full of files, and a chosen
//! number of leaves with newer records.

use super::files::{self, Object};
use super::{Built, Data, FIRST_TID, Options, Record, Writer, micros, pattern};
use mallet::format::record::{InodeData, ObjType, PfsData, rt};
use mallet::format::{BIGBLOCK, HALF_BUFFER, Key, LARGE_DATA, Localization, ROOT_OBJ, Tid};
use std::ops::RangeInclusive;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

/// The PFS that holds the files.
pub const PFS: u16 = 1;
/// The lowest object id in use but for roots.
const FIRST_ID: u64 = (1 << 32) + 0x1000;

/// What a large volume holds.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Number of files.
    pub files: u64,
    /// Files in a directory; directories are in the root.
    pub files_per_dir: u64,
    /// Sizes of files in bytes; each file's follows from the seed.
    pub sizes: RangeInclusive<u64>,
    /// Records that are newer than the rest.
    pub changes: Changes,
    /// Whether the data of changed records lies among that of their neighbours, as after a
    /// reblock; else it lies together in big-blocks of its own, as the kernel would allocate it.
    pub scattered: bool,
}

/// Which leaves hold a record changed by the last TID: an inode or a block of data, its old
/// version beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// None.
    None,
    /// This many, spread over the tree as evenly as the records allow.
    Spread(u64),
    /// This many neighbours, all of them leaves of file data.
    Together(u64),
}

/// What a large volume became.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// The numbers.
    pub built: Built,
    /// The TID of the changes; 0 if there are none.
    pub changed_at: Tid,
    /// Leaves changed.
    pub changed_leaves: u64,
    /// The last TID in use.
    pub last: Tid,
}

impl Bulk {
    fn dirs(&self) -> u64 {
        self.files.div_ceil(self.files_per_dir)
    }

    fn dir_id(&self, dir: u64) -> u64 {
        FIRST_ID + dir * (self.files_per_dir + 1)
    }

    /// Numbers of the files of directory `dir`, with their object ids.
    fn files_of(&self, dir: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = dir * self.files_per_dir;
        let end = (first + self.files_per_dir).min(self.files);
        let id = self.dir_id(dir) + 1;
        (first..end).map(move |file| (file, id + file - first))
    }

    fn size(&self, seed: u64, id: u64) -> u64 {
        let span = self.sizes.end() - self.sizes.start() + 1;
        self.sizes.start() + pattern::mix(seed ^ pattern::mix(id)) % span
    }

    /// The first TID after all object ids; directory `n` is made 16 × (n + 1) later.
    fn first_tid(&self) -> u64 {
        (self.dir_id(self.dirs()) + 16).next_multiple_of(16)
    }

    /// Calls `each` with every directory's number and every one of its files' ids.
    fn each_file(&self, mut each: impl FnMut(u64, u64)) {
        for dir in 0..self.dirs() {
            for (_, id) in self.files_of(dir) {
                each(dir, id);
            }
        }
    }

    /// Records, changes not counted, and the space in bytes that a volume for all of it needs.
    pub fn needs(&self, options: &Options) -> (u64, u64) {
        let (mut data, mut small, mut blocks) = (0, 0, 0);
        self.each_file(|_, id| {
            for (_, len) in files::blocks(self.size(options.seed, id)) {
                let zone = if len < u64::from(LARGE_DATA) {
                    &mut small
                } else {
                    &mut data
                };
                *zone += len;
                blocks += 1;
            }
        });
        let objects = self.files + self.dirs();
        let elements = 2 * objects + blocks + 4;
        let nodes = elements / (63.0 * options.fill) as u64 * 4096 * 21 / 20;
        let meta = objects * (128 + 48) * 21 / 20;
        // Small blocks leave gaps before buffer boundaries.
        let small = if *self.sizes.end() > HALF_BUFFER / 4 {
            small * 4 / 3
        } else {
            small * 21 / 20
        };
        let freemap = (data >> 42) * BIGBLOCK;
        let space = data + small + nodes + meta + freemap + options.undo_bytes + 14 * BIGBLOCK;
        (elements, space.next_multiple_of(BIGBLOCK))
    }

    /// Writes the volume.
    pub fn build(&self, options: &Options) -> Made {
        let (elements, _) = self.needs(options);
        let mut load = Load {
            bulk: self,
            options,
            writer: Writer::create(options),
            changes: Chooser::new(self.changes, elements, options.fill),
            changed_at: Tid(self.first_tid() + 16 * (self.dirs() + 2)),
            block: vec![0; 65536],
        };
        load.pfs0();
        for class in [Localization::INODE, Localization::MISC] {
            load.changes.ready =
                class == Localization::MISC || matches!(self.changes, Changes::Spread(_));
            load.class(class);
        }
        let changed_leaves = load.changes.done;
        let changed = changed_leaves > 0;
        let last = Tid(self.first_tid() + 16 * self.dirs());
        Made {
            built: load.writer.finish(),
            changed_at: if changed { load.changed_at } else { Tid::ZERO },
            changed_leaves,
            last: if changed { load.changed_at } else { last },
        }
    }
}

/// Decides which leaves get a change.
struct Chooser {
    wanted: u64,
    /// Leaves from one change to the next.
    stride: u64,
    done: u64,
    last_leaf: Option<u64>,
    ready: bool,
}

impl Chooser {
    fn new(changes: Changes, elements: u64, fill: f64) -> Chooser {
        let leaves = elements / (63.0 * fill).round() as u64;
        let (wanted, stride) = match changes {
            Changes::None => (0, 1),
            Changes::Together(n) => (n, 0),
            Changes::Spread(n) => (n, (leaves / n.max(1)).max(1)),
        };
        Chooser {
            wanted,
            stride,
            done: 0,
            last_leaf: None,
            ready: false,
        }
    }

    /// Whether the next record, to be stored in two versions, makes its leaf a changed one.
    fn take(&mut self, writer: &Writer) -> bool {
        let (leaf, count) = writer.leaf();
        // A lone change goes into the middle of the tree, others to the middle of their shares.
        let due = self.done * self.stride + self.stride / 2;
        let takes = self.ready
            && self.done < self.wanted
            && leaf >= due
            && self.last_leaf != Some(leaf)
            && count + 2 <= writer.leaf_capacity();
        if takes {
            self.done += 1;
            self.last_leaf = Some(leaf);
        }
        takes
    }
}

struct Load<'a> {
    bulk: &'a Bulk,
    options: &'a Options,
    writer: Writer,
    changes: Chooser,
    changed_at: Tid,
    block: Vec<u8>,
}

impl Load<'_> {
    fn push(&mut self, key: Key, delete_tid: Tid, obj_type: ObjType, data: &[u8]) {
        let late = key.create_tid == self.changed_at && !self.bulk.scattered;
        self.writer.push(Record {
            key,
            delete_tid,
            obj_type: obj_type as u8,
            data: if late {
                Data::Late(data)
            } else {
                Data::Bytes(data)
            },
        });
    }

    /// The root directory of PFS 0 and the records of both PFSs.
    fn pfs0(&mut self) {
        let version = self.options.version;
        let at = |class, rec_type, key, create_tid| Key {
            localization: Localization::new(0, class),
            obj_id: ROOT_OBJ,
            rec_type,
            key,
            create_tid,
        };
        let root = files::inode(version, ObjType::Directory, 0, FIRST_TID);
        let key = at(Localization::INODE, rt::INODE, 0, FIRST_TID);
        self.push(key, Tid::ZERO, ObjType::Directory, root.as_bytes());
        let mut pfs = PfsData::default_for(self.options.fsid());
        pfs.sync_low_tid = U64::new(1);
        let key = at(
            Localization::MISC,
            rt::PFS,
            PfsData::record_key(0),
            FIRST_TID,
        );
        self.push(key, Tid::ZERO, ObjType::Directory, pfs.as_bytes());
        let mut pfs = PfsData::default_for(pattern::uuid(self.options.seed, 1));
        pfs.sync_beg_tid = U64::new(1);
        pfs.sync_end_tid = U64::new(1);
        let tid = Tid(self.bulk.first_tid());
        let key = at(Localization::MISC, rt::PFS, PfsData::record_key(PFS), tid);
        self.push(key, Tid::ZERO, ObjType::Directory, pfs.as_bytes());
    }

    fn key(class: u16, id: u64, rec_type: u16, key: i64, create_tid: Tid) -> Key {
        Key {
            localization: Localization::new(PFS, class),
            obj_id: id.cast_signed(),
            rec_type,
            key,
            create_tid,
        }
    }

    /// All records of one class.
    fn class(&mut self, class: u16) {
        let bulk = self.bulk;
        let first = bulk.first_tid();
        let root = ROOT_OBJ.cast_unsigned();
        let dirs = (0..bulk.dirs()).map(|dir| {
            let name = format!("d{dir:05}");
            (name, bulk.dir_id(dir), Tid(first + 16 * (dir + 1)))
        });
        let dirs: Vec<_> = dirs.collect();
        self.directory(class, root, 0, Tid(first), &dirs);
        for (dir, (_, dir_id, tid)) in (0..).zip(&dirs) {
            let files = bulk
                .files_of(dir)
                .map(|(file, id)| (format!("f{file:08}"), id, *tid));
            let files: Vec<_> = files.collect();
            self.directory(class, *dir_id, root.cast_signed(), *tid, &files);
            for (_, id, tid) in &files {
                if class == Localization::INODE {
                    self.file_inode(*id, *dir_id, *tid);
                } else {
                    self.file_data(*id, *tid);
                }
            }
        }
    }

    /// What `class` holds of a directory with these entries (name, object, TID).
    fn directory(
        &mut self,
        class: u16,
        id: u64,
        parent: i64,
        tid: Tid,
        entries: &[(String, u64, Tid)],
    ) {
        let data = files::inode(self.options.version, ObjType::Directory, parent, tid);
        if class == Localization::INODE {
            let key = Self::key(class, id, rt::INODE, 0, tid);
            self.push(key, Tid::ZERO, ObjType::Directory, data.as_bytes());
        }
        if class != data.entry_class() {
            return;
        }
        let kind = if id == ROOT_OBJ.cast_unsigned() {
            ObjType::Directory
        } else {
            ObjType::File
        };
        let hash = files::name_hash(self.options.version);
        let mut sorted: Vec<_> = entries
            .iter()
            .map(|e| (hash.key(e.0.as_bytes()), e))
            .collect();
        sorted.sort();
        let mut last = 0;
        for (key, (name, target, tid)) in sorted {
            // Names of one hash take the keys that follow.
            last = key.max(last + 1);
            let object = Object {
                pfs: PFS,
                id: target.cast_signed(),
            };
            let data = files::entry(object, name.as_bytes());
            self.push(
                Self::key(class, id, rt::DIRENTRY, last, *tid),
                Tid::ZERO,
                kind,
                &data,
            );
        }
    }

    fn file_inode(&mut self, id: u64, dir: u64, tid: Tid) {
        let mut data: InodeData =
            files::inode(self.options.version, ObjType::File, dir.cast_signed(), tid);
        data.size = U64::new(self.bulk.size(self.options.seed, id));
        let key = Self::key(Localization::INODE, id, rt::INODE, 0, tid);
        if !self.changes.take(&self.writer) {
            self.push(key, Tid::ZERO, ObjType::File, data.as_bytes());
            return;
        }
        let at = self.changed_at;
        self.push(key, at, ObjType::File, data.as_bytes());
        data.mode = U16::new(0o600);
        data.ctime = U64::new(micros(at));
        let key = Key {
            create_tid: at,
            ..key
        };
        self.push(key, Tid::ZERO, ObjType::File, data.as_bytes());
    }

    fn file_data(&mut self, id: u64, tid: Tid) {
        let seed = self.options.seed;
        let size = self.bulk.size(seed, id);
        for (base, len) in files::blocks(size) {
            let key = Self::key(
                Localization::MISC,
                id,
                rt::DATA,
                (base + len).cast_signed(),
                tid,
            );
            if self.changes.take(&self.writer) {
                let at = self.changed_at;
                self.file_block(key, at, seed, (base, len, size));
                let key = Key {
                    create_tid: at,
                    ..key
                };
                self.file_block(key, Tid::ZERO, seed + 1, (base, len, size));
            } else {
                self.file_block(key, Tid::ZERO, seed, (base, len, size));
            }
        }
    }

    /// One record of data: `len` bytes of a file of `size` from `base` on, zeros after its end.
    fn file_block(&mut self, key: Key, delete_tid: Tid, seed: u64, place: (u64, u64, u64)) {
        let (base, len, size) = place;
        let mut block = std::mem::take(&mut self.block);
        let used = (size - base).min(len) as usize;
        pattern::fill(seed, key.obj_id, base, &mut block[..used]);
        block[used..len as usize].fill(0);
        self.push(key, delete_tid, ObjType::File, &block[..len as usize]);
        self.block = block;
    }
}
