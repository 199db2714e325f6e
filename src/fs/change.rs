//! Changes to what is in a PFS, by path: each a part of one [`Operation`].
//!
//! Paths are those of [`super::target`]. A change that fails leaves the operation to be given up.

use super::dir::{DirEntry, Entries};
use super::namespace::{Final, show};
use super::operation::Operation;
use super::ops::{Attributes, NewObject};
use super::target::{Place, existing, lookup, name_is_free_of_tid, place};
use super::{Inode, ObjectId};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::format::record::{ObjType, PATH_MAX};
use crate::progress::{Progress, Status};
use std::collections::VecDeque;

/// Entries of a directory gathered before they are taken away.
const ENTRIES: usize = 512;

/// What new objects get that nobody says more about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// A new object of this kind.
    pub fn object(self, kind: ObjType, mode: u16) -> NewObject<'static> {
        NewObject {
            kind,
            mode,
            uid: self.uid,
            gid: self.gid,
            uflags: 0,
            rdev: (0, 0),
            target: b"",
            times: None,
        }
    }
}

/// The error about `path`.
pub(super) fn about(path: &[u8]) -> impl Fn(Error) -> Error {
    move |error| error.context(show(path))
}

/// An error about what stands at `path`.
pub(super) fn refuse(path: &[u8], text: &str) -> Error {
    Error::new(Class::Other, format!("{}: {text}", show(path)))
}

/// The place for a new object at `path`.
pub(super) fn free_place(op: &mut Operation<'_>, path: &[u8]) -> Result<Place> {
    let pfs = op.pfs();
    let place = place(op.txn(), pfs, path)?;
    match place.found {
        None => Ok(place),
        Some(_) => Err(refuse(path, "is there already")),
    }
}

/// Makes a directory; with `parents` those on the way too, and one that is there will do.
pub fn make_directory(
    op: &mut Operation<'_>,
    path: &[u8],
    parents: bool,
    owner: Owner,
) -> Result<()> {
    if !parents {
        let place = free_place(op, path)?;
        return make_in(op, &place, owner).map_err(about(path));
    }
    let pfs = op.pfs();
    let mut end = 0;
    while end < path.len() {
        let start = path[end..].iter().position(|b| *b != b'/');
        let Some(start) = start.map(|start| start + end) else {
            return Ok(());
        };
        let rest = path[start..].iter().position(|b| *b == b'/');
        end = rest.map_or(path.len(), |rest| start + rest);
        let so_far = &path[..end];
        if matches!(&path[start..end], b"." | b"..") {
            continue;
        }
        let place = place(op.txn(), pfs, so_far)?;
        match place.found {
            None => make_in(op, &place, owner).map_err(about(so_far))?,
            Some(found) if found.is_directory() => {}
            Some(_) => {
                // A symlink to a directory will do as well.
                let found = existing(op.txn(), pfs, so_far, Final::Follow)?;
                if !found.is_directory() {
                    return Err(refuse(so_far, "is there already, and no directory"));
                }
            }
        }
    }
    Ok(())
}

fn make_in(op: &mut Operation<'_>, place: &Place, owner: Owner) -> Result<()> {
    let new = owner.object(ObjType::Directory, 0o755);
    op.step(|txn, ops| ops.create(txn, place.dir.id.obj, &place.name, &new))?;
    Ok(())
}

/// Makes a symlink to `target`, whatever that is.
pub fn symlink(op: &mut Operation<'_>, target: &[u8], path: &[u8], owner: Owner) -> Result<()> {
    if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
        let text = format!("the target of a symlink has 1 to {PATH_MAX} bytes");
        return Err(Error::usage(text));
    }
    let place = free_place(op, path)?;
    let new = NewObject {
        target,
        ..owner.object(ObjType::Symlink, 0o755)
    };
    op.step(|txn, ops| ops.create(txn, place.dir.id.obj, &place.name, &new))
        .map_err(about(path))?;
    Ok(())
}

/// Gives the object at `target` another name.
pub fn link(op: &mut Operation<'_>, target: &[u8], path: &[u8]) -> Result<()> {
    let pfs = op.pfs();
    let object = existing(op.txn(), pfs, target, Final::Itself)?;
    if object.is_directory() {
        return Err(refuse(target, "is a directory, which has one name only"));
    }
    let place = free_place(op, path)?;
    op.step(|txn, ops| ops.link(txn, object.id.obj, place.dir.id.obj, &place.name))
        .map_err(about(path))
}

/// Moves an object to exactly this path, as rename(2): over a file, or over an empty directory.
pub fn rename(op: &mut Operation<'_>, from: &[u8], to: &[u8]) -> Result<()> {
    let pfs = op.pfs();
    let old = place(op.txn(), pfs, from)?;
    let Some(object) = old.found else {
        return Err(refuse(from, "is not there"));
    };
    let new = place(op.txn(), pfs, to)?;
    if let Some(over) = &new.found
        && over.id != object.id
    {
        match (object.is_directory(), over.is_directory()) {
            (true, false) => return Err(refuse(to, "is no directory, and gives way to none")),
            (false, true) => return Err(refuse(to, "is a directory: name a place in it")),
            _ => {}
        }
    }
    op.step(|txn, ops| {
        let from = (old.dir.id.obj, old.name.as_slice());
        ops.begin_rename(txn, from, (new.dir.id.obj, &new.name))
    })
    .and_then(|sweep| op.sweep(sweep))
    .map_err(about(to))
}

/// Changes permission bits: `mode` makes the new ones of the old ones, and is told whether the
/// object is a directory.
pub fn change_mode(
    op: &mut Operation<'_>,
    path: &[u8],
    mode: &dyn Fn(u16, bool) -> u16,
) -> Result<()> {
    let pfs = op.pfs();
    let inode = existing(op.txn(), pfs, path, Final::Follow)?;
    let attributes = Attributes {
        mode: Some(mode(inode.data.mode(), inode.is_directory()) & 0o7777),
        ..Attributes::default()
    };
    op.step(|txn, ops| ops.set_attributes(txn, inode.id.obj, &attributes))
        .map_err(about(path))
}

/// Changes owner and group.
pub fn change_owner(
    op: &mut Operation<'_>,
    path: &[u8],
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<()> {
    let pfs = op.pfs();
    let inode = existing(op.txn(), pfs, path, Final::Follow)?;
    let attributes = Attributes {
        uid,
        gid,
        ..Attributes::default()
    };
    op.step(|txn, ops| ops.set_attributes(txn, inode.id.obj, &attributes))
        .map_err(about(path))
}

/// Sets a file's length.
pub fn truncate(op: &mut Operation<'_>, path: &[u8], size: u64) -> Result<()> {
    let pfs = op.pfs();
    let file = existing(op.txn(), pfs, path, Final::Follow)?;
    if file.kind() != Some(ObjType::File) {
        return Err(refuse(path, "is no regular file"));
    }
    op.step(|txn, ops| ops.begin_truncate(txn, file.id.obj, size))
        .and_then(|sweep| op.sweep(sweep))
        .map_err(about(path))
}

/// What [`remove`] is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Directories with everything below.
    pub recursive: bool,
    /// A path to nothing is no error.
    pub missing_ok: bool,
}

/// Takes an object away. Gives the number of entries that went.
pub fn remove(
    op: &mut Operation<'_>,
    path: &[u8],
    how: Removal,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let pfs = op.pfs();
    let place = place(op.txn(), pfs, path)?;
    let Some(found) = place.found else {
        return match how.missing_ok {
            true => Ok(0),
            false => Err(refuse(path, "is not there")),
        };
    };
    let dir = place.dir.id.obj;
    if !found.is_directory() {
        remove_entry(op, dir, &place.name).map_err(about(path))?;
        return Ok(1);
    }
    if !how.recursive {
        let some = Entries::new(&found, Tid::MAX).next(op.txn())?.is_some();
        if some {
            return Err(refuse(
                path,
                "is a directory that is not empty (-r takes all)",
            ));
        }
    }
    remove_tree(op, dir, &place.name, found, progress).map_err(about(path))
}

/// Takes away an entry and, if it is the last one, its object.
pub(super) fn remove_entry(op: &mut Operation<'_>, dir: i64, name: &[u8]) -> Result<()> {
    let sweep = op.step(|txn, ops| ops.begin_remove(txn, dir, name))?;
    op.sweep(sweep)
}

/// A directory being emptied.
struct Level {
    dir: Inode,
    /// Its place.
    parent: i64,
    name: Vec<u8>,
    /// Entries below this key are gone.
    next: Option<i64>,
    batch: VecDeque<DirEntry>,
}

impl Level {
    fn new(dir: Inode, parent: i64, name: Vec<u8>) -> Level {
        Level {
            dir,
            parent,
            name,
            next: Some(i64::MIN),
            batch: VecDeque::new(),
        }
    }

    /// The next entry. The tree changes between two batches, so each looks for its place anew.
    fn entry(&mut self, op: &mut Operation<'_>) -> Result<Option<DirEntry>> {
        if let (true, Some(first)) = (self.batch.is_empty(), self.next) {
            let mut entries = Entries::between(&self.dir, first, i64::MAX, Tid::MAX);
            self.next = None;
            while let Some(entry) = entries.next(op.txn())? {
                let behind = entry.leaf.base.key.get().checked_add(1);
                self.batch.push_back(entry);
                if self.batch.len() >= ENTRIES {
                    self.next = behind;
                    break;
                }
            }
        }
        Ok(self.batch.pop_front())
    }
}

fn remove_tree(
    op: &mut Operation<'_>,
    parent: i64,
    name: &[u8],
    dir: Inode,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let mut levels = vec![Level::new(dir, parent, name.to_vec())];
    let mut status = Status::default();
    while let Some(level) = levels.last_mut() {
        status.object = level.dir.id.obj;
        progress.at(&status)?;
        let Some(entry) = level.entry(op)? else {
            let (parent, name) = (level.parent, std::mem::take(&mut level.name));
            levels.pop();
            remove_entry(op, parent, &name)?;
            status.items += 1;
            continue;
        };
        let dir = level.dir;
        match lookup(op.txn(), &dir, &entry.name)? {
            Some(found) if found.is_directory() => {
                let here = ObjectId {
                    pfs: op.pfs(),
                    obj: found.id.obj,
                };
                if levels.iter().any(|above| above.dir.id == here) {
                    return Err(Error::damage(format!("{here} lies below itself")));
                }
                levels.push(Level::new(found, dir.id.obj, entry.name));
            }
            Some(_) => {
                remove_entry(op, dir.id.obj, &entry.name)?;
                status.items += 1;
            }
            None => {}
        }
    }
    Ok(status.items)
}

/// Refuses a name that a reader would take for a TID.
pub(super) fn check_name(name: &[u8], path: &[u8]) -> Result<()> {
    match super::dir::name_is_valid(name) && name_is_free_of_tid(name) {
        true => Ok(()),
        false => Err(refuse(path, "its name cannot be used: it would name a TID")),
    }
}
