//! Records to files: what a pseudo file system holds, now and as of any transaction.
//!
//! Everything here reads through a [`Fetch`] and names two things: an [`ObjectId`] (object ids are
//! unique only within their PFS) and the TID as of which it is looked at. [`Tree`] is both for a
//! whole PFS; [`Tid::MAX`] is "now".
//!
//! * [`pfs`] and [`snapshot`]: which pseudo file systems there are, and their named TIDs;
//!   [`asof`] turns a time, a duration or a label into a TID;
//! * [`dir`], [`file`](mod@file): the contents of one object;
//! * [`namespace`]: paths to objects; [`walk`]: all objects below one, in order;
//! * [`list`], [`history`], [`diff`], [`extract`] into a [`dest`]: what the commands show and
//!   copy out.

pub mod asof;
pub mod change;
pub mod dest;
pub mod diff;
pub mod dir;
pub mod extract;
pub mod file;
pub mod history;
pub mod import;
pub mod list;
pub mod namespace;
pub mod newfs;
pub mod operation;
pub mod ops;
mod order;
pub mod pfs;
pub mod pfs_edit;
pub mod pfs_ops;
pub mod recover;
pub mod redo;
pub mod rollback;
pub mod snapshot;
pub mod target;
pub mod walk;

use crate::btree;
use crate::btree::record::good_data;
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{FIX_SYMLINK, INLINE_SYMLINK, InodeData, ObjType, rt};
use crate::format::{Fault, Key, Localization, ROOT_OBJ, Rule, Tid};
use crate::store::Fetch;
use std::fmt;

/// An object: its id is unique within its PFS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// The PFS.
    pub pfs: u16,
    /// The object id.
    pub obj: i64,
}

impl ObjectId {
    /// The root directory of PFS `pfs`.
    pub const fn root(pfs: u16) -> ObjectId {
        ObjectId { pfs, obj: ROOT_OBJ }
    }

    /// The lowest key of the object's records of `rec_type` in `class` with `key` or above.
    pub fn key(self, class: u16, rec_type: u16, key: i64) -> Key {
        Key::first_version(Localization::new(self.pfs, class), self.obj, rec_type, key)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object 0x{:016x} of PFS {}", self.obj, self.pfs)
    }
}

/// One PFS as of a TID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tree {
    /// The PFS.
    pub pfs: u16,
    /// The view's TID; [`Tid::MAX`] for the current state.
    pub asof: Tid,
}

impl Tree {
    /// The current state of PFS `pfs`.
    pub const fn current(pfs: u16) -> Tree {
        Tree {
            pfs,
            asof: Tid::MAX,
        }
    }
}

/// An inode: the record and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Inode {
    /// The object.
    pub id: ObjectId,
    /// The record of the version that was looked up; its `create_tid` names the version.
    pub leaf: LeafElement,
    /// The inode's fields.
    pub data: InodeData,
}

impl Inode {
    /// The TID that made this version.
    pub fn tid(&self) -> Tid {
        self.leaf.base.create_tid()
    }

    /// What the object is; `None` for a code that does not exist.
    pub fn kind(&self) -> Option<ObjType> {
        self.data.obj_type()
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == Some(ObjType::Directory)
    }

    /// Bytes in the file, as far as offsets can reach (2^63 - 1).
    pub fn size(&self) -> u64 {
        self.data.size.get().min(i64::MAX.cast_unsigned())
    }
}

/// The inode of `id` as of `asof`; `None` if the object does not exist then.
///
/// An inode that cannot be read or whose CRC is wrong is an error of class `Io` or `Damage`.
pub fn inode<F: Fetch + ?Sized>(fetch: &mut F, id: ObjectId, asof: Tid) -> Result<Option<Inode>> {
    let key = id.key(Localization::INODE, rt::INODE, 0);
    let Some(leaf) = btree::lookup(fetch, key, asof)? else {
        return Ok(None);
    };
    inode_at(fetch, id, leaf).map(Some)
}

/// The inode that `leaf`, an INODE record of `id`, points at.
pub fn inode_at<F: Fetch + ?Sized>(
    fetch: &mut F,
    id: ObjectId,
    leaf: LeafElement,
) -> Result<Inode> {
    let bytes = good_data(fetch, &leaf).map_err(|e| e.context(id))?;
    let data = InodeData::from_bytes(&bytes).ok_or_else(|| {
        let fault = Fault::new(Rule::Inode, leaf.data_offset(), "128 bytes", bytes.len());
        Error::from(fault).context(id)
    })?;
    Ok(Inode { id, leaf, data })
}

/// The root directory of `tree`; `None` if there is none as of its TID (a slave that nothing was
/// mirrored into yet, or a TID before the PFS was made).
pub fn root<F: Fetch + ?Sized>(fetch: &mut F, tree: Tree) -> Result<Option<Inode>> {
    inode(fetch, ObjectId::root(tree.pfs), tree.asof)
}

/// A symlink's target as stored (format.md §15).
///
/// After a crash the kernel can leave a long symlink without its target record: an error of class
/// `Damage` about this one object.
pub fn stored_target<F: Fetch + ?Sized>(fetch: &mut F, link: &Inode, asof: Tid) -> Result<Vec<u8>> {
    let size = link.data.size.get();
    if size <= INLINE_SYMLINK as u64 {
        return Ok(link.data.symlink[..size as usize].to_vec());
    }
    let key = link.id.key(Localization::MISC, rt::FIX, FIX_SYMLINK);
    match btree::lookup(fetch, key, asof)? {
        Some(leaf) => Ok(good_data(fetch, &leaf)?.to_vec()),
        None => Err(Error::from(Fault::new(
            Rule::SymlinkTarget,
            link.leaf.data_offset(),
            format!("a record with {size} bytes of target"),
            "none",
        ))
        .context(link.id)),
    }
}

/// A symlink's target as the kernel shows it: current symlinks of PFS 0 of the form `@@PFSnnnnn`
/// become `@@-1:nnnnn` for a master, `@@0x<sync_end_tid>:nnnnn` for a slave (format.md §16.1).
pub fn symlink_target<F: Fetch + ?Sized>(
    fetch: &mut F,
    link: &Inode,
    asof: Tid,
) -> Result<Vec<u8>> {
    let stored = stored_target(fetch, link, asof)?;
    if asof != Tid::MAX || link.id.pfs != 0 {
        return Ok(stored);
    }
    let Some(id) = pfs_link(&stored) else {
        return Ok(stored);
    };
    Ok(match pfs::record(fetch, id)? {
        Some(data) if data.is_slave() => format!("@@{}:{id:05}", data.sync_end_tid()).into(),
        Some(_) => format!("@@-1:{id:05}").into(),
        None => stored,
    })
}

/// The PFS that a target of the form `@@PFSnnnnn` names. As the kernel, reads the digits up to the
/// first byte that is none.
fn pfs_link(target: &[u8]) -> Option<u16> {
    let rest = target.strip_prefix(b"@@PFS")?;
    if rest.len() != 5 {
        return None;
    }
    let digits = rest.iter().take_while(|b| b.is_ascii_digit());
    let id = digits.fold(0u32, |id, digit| id * 10 + u32::from(digit - b'0'));
    u16::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_pseudo_file_systems() {
        assert_eq!(pfs_link(b"@@PFS00012"), Some(12));
        assert_eq!(pfs_link(b"@@PFS65535"), Some(65535));
        assert_eq!(pfs_link(b"@@PFS65536"), None);
        assert_eq!(pfs_link(b"@@PFS12abc"), Some(12));
        assert_eq!(pfs_link(b"@@PFS0001"), None);
        assert_eq!(pfs_link(b"@@PFS000012"), None);
        assert_eq!(pfs_link(b"@@-1:00001"), None);
    }
}
