//! Changes to the files of a PFS, exactly as DragonFly makes them at record level (operations.md
//! §13, format.md §18): everything that a transaction does carries its TID, and what a transaction
//! changes twice is in its last form.
//!
//! Every function takes object ids of one PFS, looks at the current state, and leaves the transaction
//! to be committed by the caller. One that fails may have changed something: drop the transaction.

use super::{Inode, ObjectId};
use crate::btree::Editor;
use crate::error::Result;
use crate::format::record::ObjType;
use crate::store::Txn;

/// What a new object is to be.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// Its type.
    pub kind: ObjType,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `chflags` bits beside those inherited from the directory.
    pub uflags: u32,
    /// Device number, for devices.
    pub rdev: (u32, u32),
    /// Target, for symlinks.
    pub target: &'a [u8],
    /// Modification and access time, microseconds; `None`: now.
    pub times: Option<(u64, u64)>,
}

/// What of an inode to change; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// `chflags` bits.
    pub uflags: Option<u32>,
    /// Modification time, microseconds; in place.
    pub mtime: Option<u64>,
    /// Access time, microseconds; in place.
    pub atime: Option<u64>,
}

/// Changes to the files of one PFS.
#[derive(Debug)]
pub struct Ops {
    pfs: u16,
    editor: Editor,
}

impl Ops {
    /// For the PFS of this number.
    pub fn new(pfs: u16) -> Ops {
        Ops {
            pfs,
            editor: Editor::new(),
        }
    }

    /// The editor that the changes go through.
    pub fn editor(&mut self) -> &mut Editor {
        &mut self.editor
    }

    /// The PFS.
    pub fn pfs(&self) -> u16 {
        self.pfs
    }

    /// The object as the transaction sees it.
    pub fn inode(&mut self, txn: &mut Txn<'_>, obj: i64) -> Result<Option<Inode>> {
        super::inode(
            txn,
            ObjectId { pfs: self.pfs, obj },
            crate::format::Tid::MAX,
        )
    }

    /// Makes an object and its entry in directory `dir`. Gives its id.
    pub fn create(
        &mut self,
        txn: &mut Txn<'_>,
        dir: i64,
        name: &[u8],
        new: &NewObject<'_>,
    ) -> Result<i64> {
        let _ = (txn, dir, name, new);
        todo!()
    }

    /// Another entry for an object that is no directory.
    pub fn link(&mut self, txn: &mut Txn<'_>, obj: i64, dir: i64, name: &[u8]) -> Result<()> {
        let _ = (txn, obj, dir, name);
        todo!()
    }

    /// Takes the entry away (a directory must be empty), and the object with its last one.
    pub fn remove(&mut self, txn: &mut Txn<'_>, dir: i64, name: &[u8]) -> Result<()> {
        let _ = (txn, dir, name);
        todo!()
    }

    /// Moves an entry, over an existing one if that is compatible (as rename(2)).
    pub fn rename(
        &mut self,
        txn: &mut Txn<'_>,
        from: (i64, &[u8]),
        to: (i64, &[u8]),
    ) -> Result<()> {
        let _ = (txn, from, to);
        todo!()
    }

    /// Changes attributes: a new version of the inode, or in place for times alone.
    pub fn set_attributes(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        attributes: &Attributes,
    ) -> Result<()> {
        let _ = (txn, obj, attributes);
        todo!()
    }

    /// Writes `bytes` at file offset `at`, extending the file as needed.
    pub fn write(&mut self, txn: &mut Txn<'_>, obj: i64, at: u64, bytes: &[u8]) -> Result<()> {
        let _ = (txn, obj, at, bytes);
        todo!()
    }

    /// Sets the file's length.
    pub fn truncate(&mut self, txn: &mut Txn<'_>, obj: i64, size: u64) -> Result<()> {
        let _ = (txn, obj, size);
        todo!()
    }

    /// Replaces the block at base offset `base` of a file whose final length is `size`: `block` is
    /// the block's bytes up to that length (whole blocks before the end); `None` makes a hole. The
    /// inode is left to [`Ops::finish_file`]. For bulk writers, which go through a file in order.
    pub fn put_block(
        &mut self,
        txn: &mut Txn<'_>,
        file: &Inode,
        base: u64,
        block: Option<&[u8]>,
        size: u64,
    ) -> Result<()> {
        let _ = (txn, file, base, block, size);
        todo!()
    }

    /// Gives a file its final length and times after [`Ops::put_block`]: a new version of the inode.
    pub fn finish_file(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        size: u64,
        mtime: u64,
    ) -> Result<()> {
        let _ = (txn, obj, size, mtime);
        todo!()
    }
}
