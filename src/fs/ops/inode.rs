//! Inodes made, changed in versions, and changed in place.

use super::{Attributes, NewObject, Ops, flags, refused};
use crate::btree::put;
use crate::error::Result;
use crate::format::Localization;
use crate::format::record::{INLINE_SYMLINK, InodeData, ObjType, rt};
use crate::fs::Inode;
use crate::store::Txn;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// First version whose directories keep their entries beside the inode.
const LOCAL_ENTRIES: u32 = 2;
/// First version whose directories hash names by segments.
const SEGMENT_HASH: u32 = 6;
/// Permission bits.
const MODE: u16 = 0o7777;

/// A new object's inode with one link, made in directory `parent` of a file system of `version`.
pub(super) fn fresh(new: &NewObject<'_>, parent: &Inode, version: u32, now: u64) -> InodeData {
    let (mtime, atime) = new.times.unwrap_or((now, now));
    let mut data = InodeData::new_zeroed();
    data.version = U16::new(1);
    data.mode = U16::new(new.mode & MODE);
    data.uflags = U32::new(new.uflags | parent.data.uflags.get() & flags::INHERITED);
    data.ctime = U64::new(now);
    data.parent_obj_id = I64::new(parent.id.obj);
    data.uid = id_uuid(new.uid);
    data.gid = id_uuid(new.gid);
    data.obj_type = new.kind as u8;
    data.nlinks = U64::new(1);
    data.mtime = U64::new(mtime);
    data.atime = U64::new(atime);
    match new.kind {
        ObjType::Directory => data.cap_flags = cap_flags(version),
        ObjType::CharDevice | ObjType::BlockDevice => {
            data.rmajor = U32::new(new.rdev.0);
            data.rminor = U32::new(new.rdev.1);
        }
        ObjType::Symlink => {
            data.size = U64::new(new.target.len() as u64);
            if new.target.len() <= INLINE_SYMLINK {
                data.symlink[..new.target.len()].copy_from_slice(new.target);
            }
        }
        _ => {}
    }
    data
}

/// What a directory made by a file system of `version` can do.
fn cap_flags(version: u32) -> u8 {
    let place = match version >= LOCAL_ENTRIES {
        true => InodeData::CAP_DIR_LOCAL_INO,
        false => 0,
    };
    place | u8::from(version >= SEGMENT_HASH)
}

/// A user or group id as stored.
fn id_uuid(id: u32) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[12..].copy_from_slice(&id.to_le_bytes());
    uuid
}

impl Ops {
    /// A new version of an inode. The version that this transaction made is replaced.
    pub(super) fn save(&mut self, txn: &mut Txn<'_>, old: &Inode, data: &InodeData) -> Result<()> {
        if old.tid() == txn.tid() {
            return put::overwrite(&mut self.editor, txn, &old.leaf, data.as_bytes());
        }
        self.retire(txn, &old.leaf, flags::keeps_history(data))?;
        let key = old.id.key(Localization::INODE, rt::INODE, 0);
        self.insert(txn, key, data.obj_type, data.as_bytes())
    }

    /// Changes an inode's times in place.
    fn save_times(&mut self, txn: &mut Txn<'_>, old: &Inode, data: &InodeData) -> Result<()> {
        if (old.data.mtime, old.data.atime) == (data.mtime, data.atime) {
            return Ok(());
        }
        put::overwrite(&mut self.editor, txn, &old.leaf, data.as_bytes())
    }

    /// Sets the modification time to now, in place.
    pub(super) fn touch(&mut self, txn: &mut Txn<'_>, inode: &Inode) -> Result<()> {
        let data = InodeData {
            mtime: U64::new(txn.now()),
            ..inode.data
        };
        self.save_times(txn, inode, &data)
    }

    /// Changes attributes: a new version of the inode where anything but times changes, in place for
    /// times alone.
    ///
    /// As in the kernel, of what is flagged immutable or append-only nothing but the flags can be
    /// changed.
    pub fn set_attributes(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        attributes: &Attributes,
    ) -> Result<()> {
        let inode = self.existing(txn, obj)?;
        let mut data = inode.data;
        if let Some(uflags) = attributes.uflags {
            data.uflags = U32::new(uflags);
        }
        let others = Attributes {
            uflags: None,
            ..*attributes
        };
        if others != Attributes::default() {
            let locked = flags::IMMUTABLE | flags::APPEND;
            let stays = locked & data.uflags.get();
            if stays != 0 {
                flags::check(&inode.data, locked, "change the attributes of the object")?;
            }
        }
        if let Some(mode) = attributes.mode {
            if mode & !MODE != 0 {
                return Err(refused(format!(
                    "mode {mode:o} has more than permission bits"
                )));
            }
            data.mode = U16::new(mode);
        }
        if let Some(uid) = attributes.uid.filter(|uid| *uid != data.uid()) {
            data.uid = id_uuid(uid);
        }
        if let Some(gid) = attributes.gid.filter(|gid| *gid != data.gid()) {
            data.gid = id_uuid(gid);
        }
        let is_same = data.as_bytes() == inode.data.as_bytes();
        data.mtime = attributes.mtime.map_or(data.mtime, U64::new);
        data.atime = attributes.atime.map_or(data.atime, U64::new);
        if is_same {
            return self.save_times(txn, &inode, &data);
        }
        data.ctime = U64::new(txn.now());
        self.save(txn, &inode, &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_by_version() {
        assert_eq!(cap_flags(1), 0);
        assert_eq!(cap_flags(2), 4);
        assert_eq!(cap_flags(5), 4);
        assert_eq!(cap_flags(6), 5);
        assert_eq!(cap_flags(7), 5);
    }
}
