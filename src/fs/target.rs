//! Paths that are to be changed: the current state of one PFS, nothing else.
//!
//! The way leads through symlinks as for reading ([`super::namespace`]), but not into another PFS
//! and not into the past; a component with a TID is refused.

use super::dir::{self, name_is_valid};
use super::namespace::{Final, Object, child, resolve, show, split_extension};
use super::{Inode, Tree};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::store::Fetch;

/// A place in a directory, whether something is there or not.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory.
    pub dir: Inode,
    /// The name in it.
    pub name: Vec<u8>,
    /// What is there.
    pub found: Option<Inode>,
}

/// An object that is there. What a final symlink means is the caller's choice.
///
/// Errors: class `Usage` for paths that cannot be written to, `Other` for a path to nothing.
pub fn existing<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    path: &[u8],
    last: Final,
) -> Result<Inode> {
    check(path)?;
    let object = resolve(fetch, Tree::current(pfs), path, last)?;
    inside(object, pfs, path)
}

/// The place that `path` names: its directory must be there.
///
/// Errors: as [`existing`]; class `Usage` for a path that ends in no name.
pub fn place<F: Fetch + ?Sized>(fetch: &mut F, pfs: u16, path: &[u8]) -> Result<Place> {
    let (dir, name) = split(path)?;
    let dir = existing(fetch, pfs, dir, Final::Follow)?;
    if !dir.is_directory() {
        let text = format!("{}: its parent is no directory", show(path));
        return Err(Error::new(Class::Other, text));
    }
    let found = lookup(fetch, &dir, name)?;
    Ok(Place {
        dir,
        name: name.to_vec(),
        found,
    })
}

/// The object that `name` names in `dir` now.
pub fn lookup<F: Fetch + ?Sized>(fetch: &mut F, dir: &Inode, name: &[u8]) -> Result<Option<Inode>> {
    if dir::lookup(fetch, dir, name, Tid::MAX)?.is_none() {
        return Ok(None);
    }
    let here = Object {
        inode: *dir,
        asof: Tid::MAX,
    };
    child(fetch, &here, name).map(|object| Some(object.inode))
}

/// Directory and last name of a path.
pub fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    check(path)?;
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    let path = &path[..end];
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let name = &path[start..];
    if !name_is_valid(name) {
        let text = match name {
            b"" => "the root directory is no place for a new object".to_owned(),
            _ => format!("{:?} is no name for an object", show(name)),
        };
        return Err(Error::usage(text));
    }
    Ok((&path[..start], name))
}

/// Whether a new object can have this name and be found again.
pub fn name_is_free_of_tid(name: &[u8]) -> bool {
    split_extension(name).1.is_none()
}

/// Refuses paths into history.
fn check(path: &[u8]) -> Result<()> {
    match path
        .split(|b| *b == b'/')
        .find(|part| !name_is_free_of_tid(part))
    {
        None => Ok(()),
        Some(part) => Err(Error::usage(format!(
            "{}: {} names a TID: history cannot be changed",
            show(path),
            show(part)
        ))),
    }
}

fn inside(object: Object, pfs: u16, path: &[u8]) -> Result<Inode> {
    let other = object.inode.id.pfs;
    if other != pfs {
        return Err(Error::usage(format!(
            "{} leads into PFS {other}: name that one (#{other}) to change it",
            show(path)
        )));
    }
    if object.asof != Tid::MAX {
        let (path, tid) = (show(path), object.asof);
        return Err(Error::usage(format!(
            "{path} leads to the state as of {tid}: history cannot be changed"
        )));
    }
    Ok(object.inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_in_a_name() {
        let parts = |path: &'static str| split(path.as_bytes()).ok();
        assert_eq!(parts("/a/b"), Some((&b"/a/"[..], &b"b"[..])));
        assert_eq!(parts("a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(parts("/a//b//"), Some((&b"/a//"[..], &b"b"[..])));
        for path in ["", "/", "//", "/a/..", "/.", "..", "/a/."] {
            assert_eq!(parts(path), None, "{path}");
        }
        for path in ["/a@@0x0000000100000000", "/@@-1:00001/b", "/a@@-1/b"] {
            let error = split(path.as_bytes()).unwrap_err();
            assert_eq!(error.class(), Class::Usage);
            assert!(error.to_string().contains("history"), "{error}");
        }
        assert!(parts("/a@@b").is_some());
    }
}
