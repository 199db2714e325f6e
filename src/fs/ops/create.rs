//! Objects and further links made.

use super::entry::check_name;
use super::inode::fresh;
use super::{NewObject, Ops, flags, refused, shown};
use crate::error::Result;
use crate::format::Localization;
use crate::format::record::{FIX_SYMLINK, INLINE_SYMLINK, ObjType, PATH_MAX, rt};
use crate::store::{Fetch, Txn};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Most entries that an object can have: what programs can be told.
const LINKS_MAX: u64 = u32::MAX as u64;

impl Ops {
    /// Makes an object and its entry in directory `dir`. Gives its id.
    pub fn create(
        &mut self,
        txn: &mut Txn<'_>,
        dir: i64,
        name: &[u8],
        new: &NewObject<'_>,
    ) -> Result<i64> {
        check_name(name)?;
        check_kind(new).map_err(|e| e.context(shown(name)))?;
        let parent = self.directory(txn, dir)?;
        flags::check(&parent.data, flags::IMMUTABLE, "change the directory")?;
        if self.find(txn, &parent, name)?.is_some() {
            return Err(refused(format!("{} exists", shown(name))));
        }
        let obj = txn.new_object()?;
        let (version, id, kind) = (txn.version(), self.id(obj), new.kind as u8);
        let data = fresh(new, &parent, version, txn.now());
        let key = id.key(Localization::INODE, rt::INODE, 0);
        self.insert(txn, key, kind, data.as_bytes())?;
        if new.kind == ObjType::Symlink && new.target.len() > INLINE_SYMLINK {
            let key = id.key(Localization::MISC, rt::FIX, FIX_SYMLINK);
            self.insert(txn, key, kind, new.target)?;
        }
        self.add_entry(txn, &parent, name, (obj, kind))?;
        Ok(obj)
    }

    /// Another entry for an object that is no directory.
    pub fn link(&mut self, txn: &mut Txn<'_>, obj: i64, dir: i64, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let inode = self.existing(txn, obj)?;
        let links = inode.data.nlinks.get();
        if inode.is_directory() {
            return Err(refused(format!("{} is a directory", inode.id)));
        }
        if links == 0 {
            return Err(refused(format!("{} was removed", inode.id)));
        }
        if links >= LINKS_MAX {
            return Err(refused(format!("{} has {links} links already", inode.id)));
        }
        flags::check(
            &inode.data,
            flags::IMMUTABLE | flags::APPEND,
            "link the object",
        )?;
        let parent = self.directory(txn, dir)?;
        flags::check(&parent.data, flags::IMMUTABLE, "change the directory")?;
        if self.find(txn, &parent, name)?.is_some() {
            return Err(refused(format!("{} exists", shown(name))));
        }
        self.add_entry(txn, &parent, name, (obj, inode.data.obj_type))?;
        let mut data = inode.data;
        data.nlinks = U64::new(links + 1);
        data.ctime = U64::new(txn.now());
        self.save(txn, &inode, &data)
    }
}

/// Refuses what cannot be made.
fn check_kind(new: &NewObject<'_>) -> Result<()> {
    match new.kind {
        ObjType::Database | ObjType::PseudoFs => Err(refused("objects of this type are not made")),
        ObjType::Symlink if new.target.len() > PATH_MAX => Err(refused(format!(
            "a target of {} bytes: {PATH_MAX} is the most",
            new.target.len()
        ))),
        ObjType::Symlink if new.target.contains(&0) => Err(refused("a target with a NUL byte")),
        _ => Ok(()),
    }
}
