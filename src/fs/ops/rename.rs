//! Entries moved (operations.md §13.4).

use super::entry::{Found, check_name};
use super::{Ops, Sweep, flags, refused, shown};
use crate::error::{Error, Result};
use crate::format::ROOT_OBJ;
use crate::fs::Inode;
use crate::store::Txn;
use std::collections::HashSet;
use zerocopy::little_endian::{I64, U64};

impl Ops {
    /// Moves an entry, over an existing one if that is compatible (as rename(2)): nothing happens
    /// where both name the same object.
    ///
    /// The records of a large file that is replaced can take several checkpoints; after the first
    /// the entries are as they are to be.
    pub fn rename(
        &mut self,
        txn: &mut Txn<'_>,
        from: (i64, &[u8]),
        to: (i64, &[u8]),
    ) -> Result<()> {
        match self.begin_rename(txn, from, to)? {
            Some(sweep) => sweep.finish(self, txn),
            None => Ok(()),
        }
    }

    /// As [`Ops::rename`], with the records of the object that was replaced, if it is gone, left to
    /// be removed by the sweep it gives.
    pub fn begin_rename(
        &mut self,
        txn: &mut Txn<'_>,
        from: (i64, &[u8]),
        to: (i64, &[u8]),
    ) -> Result<Option<Sweep>> {
        check_name(to.1)?;
        let source = self.directory(txn, from.0)?;
        let entry = self.found(txn, &source, from.1)?;
        let Some(inode) = self.target(txn, &entry)? else {
            let text = format!("{}: its object does not exist", shown(from.1));
            return Err(Error::damage(text));
        };
        let target = self.directory(txn, to.0)?;
        let replaced = self.find(txn, &target, to.1)?;
        if replaced.as_ref().is_some_and(|r| r.target == entry.target) {
            return Ok(None);
        }
        self.check_movable(txn, (&source, &inode), &target)
            .map_err(|e| e.context(shown(from.1)))?;
        let sweep = match replaced {
            Some(replaced) => self
                .make_room(txn, &inode, &target, &replaced)
                .map_err(|e| e.context(shown(to.1)))?,
            None => None,
        };
        let named = (inode.id.obj, inode.data.obj_type);
        self.add_entry(txn, &target, to.1, named)?;
        let mut data = inode.data;
        data.parent_obj_id = I64::new(target.id.obj);
        data.ctime = U64::new(txn.now());
        self.save(txn, &inode, &data)?;
        self.drop_entry(txn, &source, &entry.leaf)?;
        Ok(sweep)
    }

    /// Refuses to move what is flagged, and a directory to a place below itself.
    fn check_movable(
        &mut self,
        txn: &mut Txn<'_>,
        (source, inode): (&Inode, &Inode),
        target: &Inode,
    ) -> Result<()> {
        let locked = flags::IMMUTABLE | flags::APPEND;
        flags::check(&source.data, locked, "take entries out of the directory")?;
        flags::check(&target.data, flags::IMMUTABLE, "change the directory")?;
        flags::check(&inode.data, locked | flags::NOUNLINK, "move the object")?;
        match inode.is_directory() {
            true => self.check_outside(txn, inode, target),
            false => Ok(()),
        }
    }

    /// Refuses a target directory that is `inode` or lies below it.
    fn check_outside(&mut self, txn: &mut Txn<'_>, inode: &Inode, target: &Inode) -> Result<()> {
        let mut seen = HashSet::new();
        let mut dir = *target;
        loop {
            if dir.id == inode.id {
                return Err(refused("cannot move a directory into itself"));
            }
            let parent = dir.data.parent_obj_id.get();
            if dir.id.obj == ROOT_OBJ || parent == 0 {
                return Ok(());
            }
            if !seen.insert(dir.id.obj) {
                let text = format!("{} lies below itself", dir.id);
                return Err(Error::damage(text));
            }
            dir = self.existing(txn, parent)?;
        }
    }

    /// Takes away the entry that another object is to get.
    fn make_room(
        &mut self,
        txn: &mut Txn<'_>,
        inode: &Inode,
        dir: &Inode,
        replaced: &Found,
    ) -> Result<Option<Sweep>> {
        let old = self.target(txn, replaced)?;
        if let Some(old) = &old {
            match (inode.is_directory(), old.is_directory()) {
                (true, false) => return Err(refused("is not a directory")),
                (false, true) => return Err(refused("is a directory")),
                _ => {}
            }
        }
        self.check_removable(txn, dir, old.as_ref())?;
        self.drop_entry(txn, dir, &replaced.leaf)?;
        match old {
            Some(old) => self.unlink(txn, &old),
            None => Ok(None),
        }
    }
}
