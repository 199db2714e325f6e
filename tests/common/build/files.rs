//! Small volumes from operations on files: every operation has a TID of its own and leaves
//! history behind, as a mounted file system would (format.md §18).

use super::{Built, Data, FIRST_TID, Options, Placed, Record, Writer, micros, pattern};
use mallet::format::namehash::NameHash;
use mallet::format::record::{
    EntryHead, INLINE_SYMLINK, InodeData, ObjType, PfsData, SnapshotData,
};
use mallet::format::record::{FIX_SYMLINK, rt};
use mallet::format::{
    HALF_BUFFER, Key, LARGE_DATA, Localization, ROOT_OBJ, Tid, align16, block_size,
};
use std::collections::{BTreeMap, HashMap};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// An object of a PFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The PFS.
    pub pfs: u16,
    /// The object id.
    pub id: i64,
}

impl Object {
    /// The root directory of `pfs`.
    pub fn root(pfs: u16) -> Object {
        Object { pfs, id: ROOT_OBJ }
    }

    fn key(self, class: u16, rec_type: u16, key: i64, create_tid: Tid) -> Key {
        Key {
            localization: Localization::new(self.pfs, class),
            obj_id: self.id,
            rec_type,
            key,
            create_tid,
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This many bytes that follow from the seed and the object.
    Pattern(u64),
    /// A file of `size` bytes with pattern in the blocks that hold these offsets, holes elsewhere.
    Sparse {
        /// Size in bytes.
        size: u64,
        /// An offset in every block that is there.
        blocks: Vec<u64>,
    },
}

impl Content {
    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Pattern(size) | Content::Sparse { size, .. } => *size,
        }
    }

    /// The whole contents as object `obj` of a volume of `seed` holds them, holes as zeros.
    pub fn bytes(&self, seed: u64, obj: i64) -> Vec<u8> {
        let mut all = vec![0; self.size() as usize];
        for (base, len) in self.blocks() {
            let block = self.block(seed, obj, base, len);
            let end = (base + len).min(self.size());
            all[base as usize..end as usize].copy_from_slice(&block[..(end - base) as usize]);
        }
        all
    }

    /// Base and record length of every block that is there.
    fn blocks(&self) -> Vec<(u64, u64)> {
        let there = |base: u64, len: u64| match self {
            Content::Sparse { blocks, .. } => {
                blocks.iter().any(|at| (base..base + len).contains(at))
            }
            _ => true,
        };
        blocks(self.size())
            .filter(|(base, len)| there(*base, *len))
            .collect()
    }

    fn block(&self, seed: u64, obj: i64, base: u64, len: u64) -> Vec<u8> {
        let mut block = vec![0; len as usize];
        let used = (self.size() - base).min(len) as usize;
        match self {
            Content::Bytes(bytes) => {
                block[..used].copy_from_slice(&bytes[base as usize..base as usize + used]);
            }
            _ => pattern::fill(seed, obj, base, &mut block[..used]),
        }
        block
    }
}

/// Base and record length of every block of a file of `size` bytes without holes (format.md §14).
pub fn blocks(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut base = 0;
    std::iter::from_fn(move || {
        (base < size).then(|| {
            let at = base;
            base += block_size(at);
            let short = size <= HALF_BUFFER;
            (at, if short { align16(size) } else { block_size(at) })
        })
    })
}

struct Stored {
    delete_tid: Tid,
    obj_type: u8,
    data: Vec<u8>,
}

/// A volume's records in memory, and the operations that make them.
pub struct Files {
    version: u32,
    seed: u64,
    tid: Tid,
    records: BTreeMap<Key, Stored>,
    inodes: BTreeMap<Object, InodeData>,
}

/// An inode's data for tests and bulk loads: everything but what is said here is usual.
pub fn inode(version: u32, kind: ObjType, parent: i64, tid: Tid) -> InodeData {
    let mut data = InodeData::new_zeroed();
    data.version = U16::new(1);
    data.mode = U16::new(if kind == ObjType::Directory {
        0o755
    } else {
        0o644
    });
    data.ctime = U64::new(micros(tid));
    data.mtime = data.ctime;
    data.atime = data.ctime;
    data.parent_obj_id = I64::new(parent);
    data.obj_type = kind as u8;
    data.nlinks = U64::new(1);
    if kind == ObjType::Directory {
        data.cap_flags = match version {
            1 => 0,
            2..=5 => InodeData::CAP_DIR_LOCAL_INO,
            _ => InodeData::CAP_DIR_LOCAL_INO | 1,
        };
    }
    data
}

/// The data of a directory entry.
pub fn entry(object: Object, name: &[u8]) -> Vec<u8> {
    let head = EntryHead {
        obj_id: I64::new(object.id),
        localization: U32::new(u32::from(object.pfs) << 16),
        reserved: U32::ZERO,
    };
    [head.as_bytes(), name].concat()
}

/// A text in a fixed field.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}

impl Files {
    /// What newfs leaves: the root directory and the record of PFS 0.
    pub fn new(options: &Options) -> Files {
        let mut files = Files {
            version: options.version,
            seed: options.seed,
            tid: FIRST_TID,
            records: BTreeMap::new(),
            inodes: BTreeMap::new(),
        };
        files.make_root(0);
        let mut pfs = PfsData::default_for(options.fsid());
        pfs.sync_low_tid = U64::new(1);
        pfs.label = text(&options.label);
        files.put_pfs(0, &pfs);
        files.tid = Tid(1 << 32);
        files
    }

    /// The TID of the last operation.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Takes the next TID.
    fn step(&mut self) -> Tid {
        self.tid = Tid((self.tid.0 & !15) + 16);
        self.tid
    }

    fn put(&mut self, key: Key, obj_type: u8, data: Vec<u8>) {
        let key = Key {
            create_tid: self.tid,
            ..key
        };
        let delete_tid = Tid::ZERO;
        self.records.insert(
            key,
            Stored {
                delete_tid,
                obj_type,
                data,
            },
        );
    }

    /// Marks the visible version of `key` deleted; one made by the same TID vanishes.
    fn delete(&mut self, key: Key) {
        let tid = self.tid;
        let from = Key {
            create_tid: Tid(1),
            ..key
        };
        let to = Key {
            create_tid: tid,
            ..key
        };
        let mut versions = self.records.range_mut(from..=to);
        let Some((key, stored)) = versions.rfind(|(_, s)| s.delete_tid.is_zero()) else {
            panic!("no record to delete at {key}");
        };
        let key = *key;
        stored.delete_tid = tid;
        if key.create_tid == tid {
            self.records.remove(&key);
        }
    }

    /// Keys of the visible records of `object` of `rec_type`, as of now.
    fn visible(&self, object: Object, class: u16, rec_type: u16) -> Vec<Key> {
        let from = object.key(class, rec_type, i64::MIN, Tid(1));
        let to = object.key(class, rec_type, i64::MAX, Tid::MAX);
        let all = self.records.range(from..=to);
        all.filter(|(_, s)| s.delete_tid.is_zero())
            .map(|(key, _)| *key)
            .collect()
    }

    fn put_inode(&mut self, object: Object, data: InodeData) {
        let key = object.key(Localization::INODE, rt::INODE, 0, Tid::ZERO);
        self.put(key, data.obj_type, data.as_bytes().to_vec());
        self.inodes.insert(object, data);
    }

    /// Gives `object` a new version of its inode.
    fn change(&mut self, object: Object, change: impl FnOnce(&mut InodeData)) {
        let mut data = self.inodes[&object];
        self.delete(object.key(Localization::INODE, rt::INODE, 0, Tid::ZERO));
        change(&mut data);
        self.put_inode(object, data);
    }

    fn make_root(&mut self, pfs: u16) {
        let data = inode(self.version, ObjType::Directory, 0, self.tid);
        self.put_inode(Object::root(pfs), data);
    }

    fn put_pfs(&mut self, pfs: u16, data: &PfsData) {
        let key = Object::root(0).key(
            Localization::MISC,
            rt::PFS,
            PfsData::record_key(pfs),
            Tid::ZERO,
        );
        self.put(key, ObjType::Directory as u8, data.as_bytes().to_vec());
    }

    fn add_entry(&mut self, dir: Object, name: &[u8], target: Object) {
        let inode = self.inodes[&dir];
        let hash = inode.name_hash().expect("a known hash");
        let mut key = dir.key(inode.entry_class(), rt::DIRENTRY, hash.key(name), Tid::ZERO);
        let taken = self.visible(dir, inode.entry_class(), rt::DIRENTRY);
        while taken.iter().any(|t| t.key == key.key) {
            key.key += 1;
        }
        assert!(key.key <= hash.last_key(name), "too many collisions");
        let obj_type = self.inodes[&target].obj_type;
        self.put(key, obj_type, entry(target, name));
    }

    fn find_entry(&self, dir: Object, name: &[u8]) -> (Key, Object) {
        let class = self.inodes[&dir].entry_class();
        for key in self.visible(dir, class, rt::DIRENTRY) {
            let data = &self.records[&key].data;
            let entry = mallet::format::record::Entry::from_bytes(data).expect("an entry");
            if entry.name == name {
                let pfs = entry.localization.pfs();
                return (
                    key,
                    Object {
                        pfs,
                        id: entry.obj_id,
                    },
                );
            }
        }
        panic!("no entry {}", name.escape_ascii());
    }

    fn create(&mut self, dir: Object, name: &[u8], kind: ObjType, size: u64) -> Object {
        let tid = self.step();
        let object = Object {
            pfs: dir.pfs,
            id: tid.0.cast_signed(),
        };
        let mut data = inode(self.version, kind, dir.id, tid);
        data.size = U64::new(size);
        self.put_inode(object, data);
        self.add_entry(dir, name, object);
        object
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, dir: Object, name: &[u8]) -> Object {
        self.create(dir, name, ObjType::Directory, 0)
    }

    /// Makes a file.
    pub fn file(&mut self, dir: Object, name: &[u8], content: &Content) -> Object {
        let file = self.create(dir, name, ObjType::File, content.size());
        self.put_blocks(file, content, self.seed);
        file
    }

    fn put_blocks(&mut self, file: Object, content: &Content, seed: u64) {
        for (base, len) in content.blocks() {
            let key = (base + len).cast_signed();
            let key = file.key(Localization::MISC, rt::DATA, key, Tid::ZERO);
            let data = content.block(seed, file.id, base, len);
            self.put(key, ObjType::File as u8, data);
        }
    }

    /// Makes a FIFO, socket or device node.
    pub fn special(
        &mut self,
        dir: Object,
        name: &[u8],
        kind: ObjType,
        major: u32,
        minor: u32,
    ) -> Object {
        let node = self.create(dir, name, kind, 0);
        self.change(node, |data| {
            data.rmajor = U32::new(major);
            data.rminor = U32::new(minor);
        });
        node
    }

    /// Makes a symlink.
    pub fn symlink(&mut self, dir: Object, name: &[u8], target: &[u8]) -> Object {
        let link = self.create(dir, name, ObjType::Symlink, target.len() as u64);
        if target.len() <= INLINE_SYMLINK {
            self.change(link, |data| {
                data.symlink[..target.len()].copy_from_slice(target)
            });
        } else {
            let key = link.key(Localization::MISC, rt::FIX, FIX_SYMLINK, Tid::ZERO);
            self.put(key, ObjType::Symlink as u8, target.to_vec());
        }
        link
    }

    /// Gives `object` one more name.
    pub fn link(&mut self, object: Object, dir: Object, name: &[u8]) {
        let tid = self.step();
        self.add_entry(dir, name, object);
        self.change(object, |data| {
            data.nlinks += 1;
            data.ctime = U64::new(micros(tid));
        });
    }

    /// Changes permission bits.
    pub fn chmod(&mut self, object: Object, mode: u16) {
        let tid = self.step();
        self.change(object, |data| {
            data.mode = U16::new(mode);
            data.ctime = U64::new(micros(tid));
        });
    }

    /// Replaces a file's contents; pattern data follows from `seed` instead of the volume's.
    pub fn rewrite(&mut self, file: Object, content: &Content, seed: u64) {
        let tid = self.step();
        for key in self.visible(file, Localization::MISC, rt::DATA) {
            self.delete(key);
        }
        self.put_blocks(file, content, seed);
        self.change(file, |data| {
            data.size = U64::new(content.size());
            data.mtime = U64::new(micros(tid));
        });
    }

    /// Takes `name` out of `dir`; an object without names is gone, but for its history.
    pub fn remove(&mut self, dir: Object, name: &[u8]) {
        let tid = self.step();
        let (key, object) = self.find_entry(dir, name);
        self.delete(key);
        let data = self.inodes[&object];
        if data.nlinks.get() > 1 {
            self.change(object, |data| {
                data.nlinks -= 1;
                data.ctime = U64::new(micros(tid));
            });
            return;
        }
        if data.obj_type() == Some(ObjType::Directory) {
            let left = self.visible(object, data.entry_class(), rt::DIRENTRY);
            assert!(left.is_empty(), "a directory with entries");
        }
        for rec_type in [rt::DATA, rt::FIX] {
            for key in self.visible(object, Localization::MISC, rec_type) {
                self.delete(key);
            }
        }
        self.delete(object.key(Localization::INODE, rt::INODE, 0, Tid::ZERO));
        self.inodes.remove(&object);
    }

    /// Makes a master PFS.
    pub fn pfs_master(&mut self, pfs: u16, label: &str) {
        self.step();
        self.make_root(pfs);
        let mut data = PfsData::default_for(pattern::uuid(self.seed, u64::from(pfs) << 1));
        data.unique_uuid = data.shared_uuid;
        data.sync_beg_tid = U64::new(1);
        data.sync_end_tid = U64::new(1);
        data.label = text(label);
        self.put_pfs(pfs, &data);
    }

    /// Makes PFS `slave` the mirror of `master` as of the last operation.
    pub fn pfs_slave(&mut self, slave: u16, master: u16, label: &str) {
        let end = self.tid;
        self.step();
        let mut data = PfsData::default_for(pattern::uuid(self.seed, u64::from(master) << 1));
        data.unique_uuid = pattern::uuid(self.seed, (u64::from(slave) << 1) + 1);
        data.sync_beg_tid = U64::new(1);
        data.sync_end_tid = U64::new(end.0);
        data.mirror_flags = U32::new(PfsData::SLAVE);
        data.label = text(label);
        self.put_pfs(slave, &data);
        let from = Key::pfs_min(master);
        let copies = self
            .records
            .range(from..=Key::pfs_max(master))
            .map(|(key, stored)| {
                let localization = Localization::new(slave, key.localization.class());
                let key = Key {
                    localization,
                    ..*key
                };
                let mut data = stored.data.clone();
                if key.rec_type == rt::DIRENTRY {
                    let (head, _) = EntryHead::mut_from_prefix(&mut data).expect("an entry");
                    head.localization = U32::new(u32::from(slave) << 16);
                }
                let (delete_tid, obj_type) = (stored.delete_tid, stored.obj_type);
                (
                    key,
                    Stored {
                        delete_tid,
                        obj_type,
                        data,
                    },
                )
            });
        let copies: Vec<_> = copies.collect();
        self.records.extend(copies);
    }

    /// Takes a snapshot of `pfs` as of the last operation (version 3 and later).
    pub fn snapshot(&mut self, pfs: u16, label: &str) -> Tid {
        assert!(self.version >= 3, "no snapshot records before version 3");
        let at = self.tid;
        self.step();
        let mut data = SnapshotData::new_zeroed();
        data.tid = U64::new(at.0);
        data.ts = U64::new(micros(at));
        data.label = text(label);
        let key = at.0.cast_signed();
        let key = Object::root(pfs).key(Localization::INODE, rt::SNAPSHOT, key, Tid::ZERO);
        self.put(key, 0, data.as_bytes().to_vec());
        at
    }

    /// Writes the volume.
    pub fn build(&self, options: &Options) -> Built {
        assert!(options.version == self.version && options.seed == self.seed);
        assert!(
            !options.dedup || options.version >= 5,
            "no dedup before version 5"
        );
        let mut writer = Writer::create(options);
        let mut places: HashMap<&[u8], Placed> = HashMap::new();
        for (key, stored) in &self.records {
            let shares = options.dedup
                && key.rec_type == rt::DATA
                && stored.data.len() >= LARGE_DATA as usize;
            let place = places.get(&stored.data[..]).filter(|_| shares);
            let placed = writer.push(Record {
                key: *key,
                delete_tid: stored.delete_tid,
                obj_type: stored.obj_type,
                data: match place {
                    Some(placed) => Data::Shared(*placed),
                    None => Data::Bytes(&stored.data),
                },
            });
            if shares {
                places.insert(&stored.data, placed);
            }
        }
        if self.tid > Tid(1 << 32) {
            writer.raise_next_tid(self.tid);
        }
        writer.finish()
    }
}

/// The hash of directories made on file systems of `version`.
pub fn name_hash(version: u32) -> NameHash {
    if version >= 6 {
        NameHash::Alg1
    } else {
        NameHash::Alg0
    }
}
