//! Directory entries: found, made, taken away (format.md §13).

use super::live::Live;
use super::{Ops, flags, last_version, refused, shown};
use crate::btree::record::good_data;
use crate::error::{Class, Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{Entry, EntryHead, NAME_MAX, rt};
use crate::format::{Key, Localization};
use crate::fs::dir::name_is_valid;
use crate::fs::{Inode, ObjectId};
use crate::store::Txn;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32};

/// An entry that was found.
pub(super) struct Found {
    /// Its record.
    pub leaf: LeafElement,
    /// The object that it names.
    pub target: ObjectId,
}

/// Refuses names that a directory cannot hold.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name_is_valid(name) {
        return Ok(());
    }
    Err(refused(match name.len() {
        0 => "an empty name".to_owned(),
        len if len > NAME_MAX => format!("a name of {len} bytes: {NAME_MAX} is the most"),
        _ => format!("{} is no name that a directory can hold", shown(name)),
    }))
}

impl Ops {
    /// The directory `obj`.
    pub(super) fn directory(&mut self, txn: &mut Txn<'_>, obj: i64) -> Result<Inode> {
        let dir = self.existing(txn, obj)?;
        if !dir.is_directory() {
            return Err(refused(format!("{} is not a directory", dir.id)));
        }
        if dir.data.nlinks.get() == 0 {
            return Err(refused(format!("{} was removed", dir.id)));
        }
        Ok(dir)
    }

    /// The entry `name` of `dir`.
    pub(super) fn find(
        &mut self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        name: &[u8],
    ) -> Result<Option<Found>> {
        let (from, to) = keys(dir, name)?;
        let mut entries = Live::new(from, to);
        while let Some(leaf) = entries.next(&mut self.editor, txn)? {
            let bytes = good_data(txn, &leaf).map_err(|e| e.context(leaf.base.key()))?;
            let Some(entry) = Entry::from_bytes(&bytes) else {
                continue;
            };
            if entry.name == name {
                let target = ObjectId {
                    pfs: entry.localization.pfs(),
                    obj: entry.obj_id,
                };
                return Ok(Some(Found { leaf, target }));
            }
        }
        Ok(None)
    }

    /// The entry `name` of `dir`, which must exist.
    pub(super) fn found(&mut self, txn: &mut Txn<'_>, dir: &Inode, name: &[u8]) -> Result<Found> {
        self.find(txn, dir, name)?
            .ok_or_else(|| refused(format!("{} does not exist", shown(name))))
    }

    /// The object that an entry names; `None` if it has lost it.
    pub(super) fn target(&mut self, txn: &mut Txn<'_>, entry: &Found) -> Result<Option<Inode>> {
        if entry.target.pfs != self.pfs {
            return Ok(None);
        }
        self.inode(txn, entry.target.obj)
    }

    /// Makes an entry for `obj`, of type `kind`, in `dir`, and gives the directory its new time.
    /// The first key at or above the name's hash is taken that no entry has, not even one that this
    /// transaction deleted.
    pub(super) fn add_entry(
        &mut self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        name: &[u8],
        (obj, kind): (i64, u8),
    ) -> Result<()> {
        let (mut free, to) = keys(dir, name)?;
        let mut taken = Live::with_deleted(free, to, txn.tid());
        while let Some(leaf) = taken.next(&mut self.editor, txn)? {
            if leaf.base.key.get() != free.key {
                break;
            }
            if free.key == to.key {
                let text = format!("no key is left in {} for {}", dir.id, shown(name));
                return Err(Error::new(Class::NoSpace, text));
            }
            free.key += 1;
        }
        let head = EntryHead {
            obj_id: I64::new(obj),
            localization: U32::new(Localization::new(self.pfs, 0).0),
            reserved: U32::ZERO,
        };
        let data = [head.as_bytes(), name].concat();
        self.insert(txn, free, kind, &data)?;
        self.touch(txn, dir)
    }

    /// Takes an entry out of `dir`, and gives the directory its new time.
    pub(super) fn drop_entry(
        &mut self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        entry: &LeafElement,
    ) -> Result<()> {
        self.retire(txn, entry, flags::keeps_history(&dir.data))?;
        self.touch(txn, dir)
    }

    /// Refuses a directory that holds anything.
    pub(super) fn check_empty(&mut self, txn: &mut Txn<'_>, dir: &Inode) -> Result<()> {
        let class = dir.data.entry_class();
        let from = dir.id.key(class, rt::INODE + 1, i64::MIN);
        let to = dir.id.key(class, u16::MAX, i64::MAX);
        match Live::new(from, to).next(&mut self.editor, txn)? {
            None => Ok(()),
            Some(_) => Err(refused(format!("{}: directory not empty", dir.id))),
        }
    }
}

/// The first and the last key that the entry `name` of `dir` can have.
fn keys(dir: &Inode, name: &[u8]) -> Result<(Key, Key)> {
    let Some(hash) = dir.data.name_hash() else {
        let flags = dir.data.cap_flags;
        let text = format!(
            "{}: no hash of names is known for flags 0x{flags:02x}",
            dir.id
        );
        return Err(Error::damage(text));
    };
    let class = dir.data.entry_class();
    let key = |key| dir.id.key(class, rt::DIRENTRY, key);
    Ok((key(hash.key(name)), last_version(key(hash.last_key(name)))))
}
