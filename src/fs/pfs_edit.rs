//! PFS records written: new versions, and the reserved bytes in place.

use super::pfs::record_key;
use super::{ObjectId, inode};
use crate::btree::put::{self, NewRecord};
use crate::btree::record::good_data;
use crate::btree::{self, Editor};
use crate::error::{Error, Result};
use crate::format::mark::MARK_SIZE;
use crate::format::node::Base;
use crate::format::record::{InodeData, ObjType, PfsData, rt};
use crate::format::{Key, Localization, Tid};
use crate::store::{Fetch, Txn};
use std::mem::offset_of;
use zerocopy::{FromZeros, IntoBytes};

/// `chflags` bits that end the history of an object: of its owner, of the system.
const NO_HISTORY: u32 = 0x0000_0040 | 0x0040_0000;
/// Capability bit of directories: entries are found by the second hash (version 6).
const CAP_DIRHASH_ALG1: u8 = 0x01;

/// Stores `data` as PFS `id`'s record: a new version, the old one deleted at this TID (one made by
/// this transaction is replaced). The reserved bytes are cleared: they belong to a version.
pub fn store_record(editor: &mut Editor, txn: &mut Txn<'_>, id: u16, data: &PfsData) -> Result<()> {
    let mut data = *data;
    data.reserved03 = [0; MARK_SIZE];
    if let Some(old) = btree::lookup(txn, record_key(id), Tid::MAX)? {
        // As every other record that belongs to PFS 0's root directory.
        let root = inode(txn, ObjectId::root(0), Tid::MAX)?;
        let keep = root.is_none_or(|root| root.data.uflags.get() & NO_HISTORY == 0);
        put::retire(editor, txn, &old, keep)?;
    }
    let key = Key {
        create_tid: txn.tid(),
        ..record_key(id)
    };
    let mut base = Base::from_key(key);
    base.obj_type = ObjType::Directory as u8;
    let record = NewRecord {
        base,
        create_ts: txn.now_seconds(),
        delete_ts: 0,
        data: data.as_bytes(),
        crc: None,
    };
    match put::create(editor, txn, &record)? {
        true => Ok(()),
        false => Err(Error::damage(format!("the record {key} is there already"))),
    }
}

/// Makes the root directory of PFS `id`, which has none (mirroring.md §2.5).
pub fn add_root(editor: &mut Editor, txn: &mut Txn<'_>, id: u16) -> Result<()> {
    let key = Key {
        create_tid: txn.tid(),
        ..ObjectId::root(id).key(Localization::INODE, rt::INODE, 0)
    };
    let mut base = Base::from_key(key);
    base.obj_type = ObjType::Directory as u8;
    let data = root_inode(txn.version(), txn.now());
    let record = NewRecord {
        base,
        create_ts: txn.now_seconds(),
        delete_ts: 0,
        data: data.as_bytes(),
        crc: None,
    };
    match put::create(editor, txn, &record)? {
        true => Ok(()),
        false => Err(Error::damage(format!("the record {key} is there already"))),
    }
}

/// The inode of a fresh root directory in a file system of `version`; `now` in microseconds since
/// 1970.
pub fn root_inode(version: u32, now: u64) -> InodeData {
    let mut inode = InodeData::new_zeroed();
    inode.version.set(1);
    inode.mode.set(0o755);
    inode.ctime.set(now);
    inode.mtime.set(now);
    inode.atime.set(now);
    inode.obj_type = ObjType::Directory as u8;
    inode.nlinks.set(1);
    if version >= 2 {
        inode.cap_flags |= InodeData::CAP_DIR_LOCAL_INO;
    }
    if version >= 6 {
        inode.cap_flags |= CAP_DIRHASH_ALG1;
    }
    inode
}

/// Replaces the reserved bytes of PFS `id`'s record in place, under UNDO. Errors: class `Damage` if
/// it has no record, or one that is too short to have such bytes.
pub fn set_mark(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    id: u16,
    mark: &[u8; MARK_SIZE],
) -> Result<()> {
    let Some(leaf) = btree::lookup(txn, record_key(id), Tid::MAX)? else {
        return Err(Error::damage(format!("PFS {id} has no record")));
    };
    let mut data = good_data(txn, &leaf)
        .map_err(|error| error.context(format!("record of PFS {id}")))?
        .to_vec();
    let at = offset_of!(PfsData, reserved03);
    let Some(place) = data.get_mut(at..at + MARK_SIZE) else {
        let text = format!(
            "the record of PFS {id} is of an old form with {} bytes",
            data.len()
        );
        return Err(Error::damage(text));
    };
    place.copy_from_slice(mark);
    put::overwrite(editor, txn, &leaf, &data)
}
