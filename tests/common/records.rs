//! Volumes of single records, for trees that no kernel would make.

use super::build::files::{Object, entry, inode};
use super::build::{Data, Options, Record, Writer};
use mallet::format::namehash::NameHash;
use mallet::format::record::{InodeData, ObjType, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::fs::Tree;
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::walk::{Found, Scope, Visit, Walk};
use mallet::io::{OpenOptions, open};
use mallet::store::{View, ViewOptions, VolumeSet};
use std::collections::BTreeMap;
use std::path::Path;
use zerocopy::IntoBytes;

/// Of the volumes made.
pub const VERSION: u32 = 7;
/// Of all records.
pub const TID: Tid = Tid(0x1_0000_0020);

/// Opens a volume.
pub fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// Records of a volume, put in order.
#[derive(Default)]
pub struct Records {
    /// Type code and data by key.
    pub records: BTreeMap<Key, (u8, Vec<u8>)>,
    /// How many entries were made, to give each a key of its own.
    pub entries: i64,
}

impl Records {
    /// A root directory.
    pub fn new() -> Records {
        let mut records = Records::default();
        records.inode(ROOT_OBJ, ObjType::Directory, |_| {});
        records
    }

    /// Any record.
    pub fn put(
        &mut self,
        class: u16,
        obj: i64,
        rec_type: u16,
        key: i64,
        kind: ObjType,
        data: &[u8],
    ) {
        let key = Key {
            localization: Localization::new(0, class),
            obj_id: obj,
            rec_type,
            key,
            create_tid: TID,
        };
        self.records.insert(key, (kind as u8, data.to_vec()));
    }

    /// An inode, as `change` makes it.
    pub fn inode(&mut self, obj: i64, kind: ObjType, change: impl FnOnce(&mut InodeData)) {
        let mut data = inode(VERSION, kind, ROOT_OBJ, TID);
        change(&mut data);
        self.put(
            Localization::INODE,
            obj,
            rt::INODE,
            0,
            kind,
            data.as_bytes(),
        );
    }

    /// A directory entry.
    pub fn entry(&mut self, dir: i64, name: &[u8], target: i64) {
        self.entries += 1;
        let key = NameHash::Alg1.key(name) + self.entries % 1000;
        let data = entry(Object { pfs: 0, id: target }, name);
        self.put(
            Localization::INODE,
            dir,
            rt::DIRENTRY,
            key,
            ObjType::File,
            &data,
        );
    }

    /// The block of a file that ends at `end`.
    pub fn block(&mut self, obj: i64, end: i64, data: &[u8]) {
        self.put(Localization::MISC, obj, rt::DATA, end, ObjType::File, data);
    }

    /// Writes the volume; it lasts as long as the folder.
    pub fn build(&self) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("volume");
        let mut writer = Writer::create(&Options::new(&path, VERSION, 512 << 20));
        for (key, (obj_type, data)) in &self.records {
            writer.push(Record {
                key: *key,
                delete_tid: Tid::ZERO,
                obj_type: *obj_type,
                data: Data::Bytes(data),
            });
        }
        writer.finish();
        let view = view(&path);
        (dir, view)
    }
}

/// Everything that a walk from the root meets.
pub fn walk(view: &mut View, tree: Tree) -> Vec<Found> {
    let object = resolve(view, tree, b"/", Final::Itself).expect("a root");
    let mut walk = Walk::new(object, b"/", Scope::All);
    let (mut all, mut depth) = (Vec::new(), 0i64);
    while let Some(visit) = walk.next(view).expect("a view that holds") {
        match visit {
            Visit::Object(found) => {
                let inode = found.inode.filter(|_| found.error.is_none());
                depth += i64::from(inode.is_some_and(|i| i.is_directory()));
                all.push(found);
            }
            Visit::Leave { .. } => depth -= 1,
            Visit::Trouble { error, .. } => panic!("{error}"),
        }
    }
    assert_eq!(depth, 0, "every directory entered is left");
    all
}
