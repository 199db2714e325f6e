//! Entries taken away, and objects with their last one.

use super::{Ops, Sweep, flags, shown};
use crate::error::Result;
use crate::fs::Inode;
use crate::store::Txn;
use zerocopy::little_endian::U64;

/// Files longer than this are first made objects without entries: their records may not all go in
/// one checkpoint.
const LARGE: u64 = 1 << 20;

impl Ops {
    /// Takes the entry away (a directory must be empty), and the object with its last one.
    ///
    /// The records of a large file can take several checkpoints; after the first the entry is gone
    /// and the object has no links.
    pub fn remove(&mut self, txn: &mut Txn<'_>, dir: i64, name: &[u8]) -> Result<()> {
        match self.begin_remove(txn, dir, name)? {
            Some(sweep) => sweep.finish(self, txn),
            None => Ok(()),
        }
    }

    /// As [`Ops::remove`], with the object's records left to be removed by the sweep it gives;
    /// `None` if the object has other entries.
    pub fn begin_remove(
        &mut self,
        txn: &mut Txn<'_>,
        dir: i64,
        name: &[u8],
    ) -> Result<Option<Sweep>> {
        let parent = self.directory(txn, dir)?;
        let entry = self.found(txn, &parent, name)?;
        let target = self.target(txn, &entry)?;
        self.check_removable(txn, &parent, target.as_ref())
            .map_err(|e| e.context(shown(name)))?;
        self.drop_entry(txn, &parent, &entry.leaf)?;
        match target {
            Some(inode) => self.unlink(txn, &inode),
            None => Ok(None),
        }
    }

    /// Refuses what must stay: by its flags or those of its directory, or because something is in it.
    pub(super) fn check_removable(
        &mut self,
        txn: &mut Txn<'_>,
        parent: &Inode,
        target: Option<&Inode>,
    ) -> Result<()> {
        let locked = flags::IMMUTABLE | flags::APPEND;
        flags::check(&parent.data, locked, "take entries out of the directory")?;
        let Some(inode) = target else { return Ok(()) };
        flags::check(&inode.data, locked | flags::NOUNLINK, "remove the object")?;
        match inode.is_directory() {
            true => self.check_empty(txn, inode),
            false => Ok(()),
        }
    }

    /// One entry less for an object; with the last one its removal begins.
    pub(super) fn unlink(&mut self, txn: &mut Txn<'_>, inode: &Inode) -> Result<Option<Sweep>> {
        let links = inode.data.nlinks.get().saturating_sub(1);
        let mut data = inode.data;
        data.nlinks = U64::new(links);
        data.ctime = U64::new(txn.now());
        if links > 0 || inode.size() > LARGE {
            self.save(txn, inode, &data)?;
        }
        Ok((links == 0).then(|| Sweep::removal(inode.id)))
    }
}
