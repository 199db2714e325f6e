//! Files made and removed record by record, below the library's own file operations.

use super::timeline::Random;
use crate::common::build::files;
use mallet::btree::Editor;
use mallet::btree::put::{self, NewRecord};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::store::{Fetch, Txn};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// A file: its object and the keys of its records: inode, entry, data.
#[derive(Clone, Debug)]
pub struct RawFile {
    /// Inode first, then the entry.
    pub keys: Vec<Key>,
}

/// Makes files in the root directory of a PFS.
#[derive(Debug, Default)]
pub struct RawOps {
    /// The editor in use.
    pub editor: Editor,
    /// The files that are there.
    pub files: Vec<RawFile>,
    made: u64,
}

impl RawOps {
    fn record(
        &mut self,
        txn: &mut Txn<'_>,
        key: Key,
        kind: ObjType,
        data: &[u8],
    ) -> mallet::Result<()> {
        let mut base = Base::from_key(key);
        base.obj_type = kind as u8;
        let record = NewRecord {
            base,
            create_ts: txn.now_seconds(),
            delete_ts: 0,
            data,
            crc: None,
        };
        let made = put::create(&mut self.editor, txn, &record)?;
        assert!(made, "{key} is new");
        Ok(())
    }

    /// A file of `blocks` blocks of 16 KiB, or of `tail` bytes without one.
    pub fn file(
        &mut self,
        txn: &mut Txn<'_>,
        random: &mut Random,
        blocks: u64,
        tail: u64,
    ) -> mallet::Result<()> {
        let (tid, version) = (txn.tid(), txn.version());
        let obj = txn.new_object()?;
        self.made += 1;
        let name = format!("raw{:06}-{obj:x}", self.made);
        let key = |obj_id, class, rec_type, key| Key {
            localization: Localization::new(0, class),
            obj_id,
            rec_type,
            key,
            create_tid: tid,
        };
        let root = files::inode(version, ObjType::Directory, 0, tid);
        let mut inode = files::inode(version, ObjType::File, ROOT_OBJ, tid);
        let size = if blocks > 0 { blocks * 16384 } else { tail };
        inode.size = U64::new(size);
        let inode_key = key(obj, Localization::INODE, rt::INODE, 0);
        self.record(txn, inode_key, ObjType::File, inode.as_bytes())?;
        let hash = files::name_hash(version).key(name.as_bytes());
        let entry_key = key(ROOT_OBJ, root.entry_class(), rt::DIRENTRY, hash);
        let object = files::Object { pfs: 0, id: obj };
        let entry = files::entry(object, name.as_bytes());
        self.record(txn, entry_key, ObjType::File, &entry)?;
        let mut keys = vec![inode_key, entry_key];
        let lengths = match blocks {
            0 if tail > 0 => vec![(tail.next_multiple_of(16)) as usize],
            _ => vec![16384; blocks as usize],
        };
        let mut end = 0;
        for len in lengths {
            end += len as i64;
            let mut data = vec![random.next() as u8; len];
            if blocks == 0 {
                data[tail as usize..].fill(0);
            }
            data[0] = 1;
            let data_key = key(obj, Localization::MISC, rt::DATA, end);
            self.record(txn, data_key, ObjType::File, &data)?;
            keys.push(data_key);
        }
        self.files.push(RawFile { keys });
        Ok(())
    }

    /// Marks all records of a file deleted.
    pub fn delete(&mut self, txn: &mut Txn<'_>, index: usize) -> mallet::Result<RawFile> {
        let file = self.files.swap_remove(index);
        let (tid, now) = (txn.tid(), txn.now_seconds());
        for key in &file.keys {
            put::mark_deleted(&mut self.editor, txn, *key, tid, now)?;
        }
        Ok(file)
    }

    /// Takes all records of a file away, as pruning does.
    pub fn destroy(&mut self, txn: &mut Txn<'_>, file: &RawFile) -> mallet::Result<()> {
        for key in &file.keys {
            put::destroy(&mut self.editor, txn, *key, Tid::ZERO)?;
        }
        Ok(())
    }

    /// The element of a key.
    pub fn element(&mut self, txn: &mut Txn<'_>, key: Key) -> mallet::Result<LeafElement> {
        let found = self.editor.find(txn, key)?;
        Ok(found.expect("a record that is there"))
    }
}
