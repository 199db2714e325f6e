//! Paths to objects, as the kernel resolves them (format.md §13, operations.md §4.2).
//!
//! A component may end in `@@0x<16 hex digits>` or `@@-1`, optionally with `:<5 digits>` behind:
//! from there on the path is seen as of that TID, and a component that is nothing but an extension
//! with a PFS number goes to the root of that PFS. Links to a PFS read as such components, so
//! following them needs no special case.

use super::{Inode, ObjectId, Tree, dir, pfs, root, symlink_target};
use crate::error::{Class, Error, Result};
use crate::format::record::{ObjType, PATH_MAX};
use crate::format::{Fault, Rule, Tid};
use crate::store::Fetch;
use std::collections::VecDeque;

/// Most symlinks that one path may lead through.
pub const LINKS_MAX: usize = 32;
/// Most components that are looked up for one path, those of symlinks included.
const COMPONENTS_MAX: usize = 65536;

/// An object in a view.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The version of the inode that is visible.
    pub inode: Inode,
    /// The TID as of which it, and what lies below it, is seen.
    pub asof: Tid,
}

/// What follows a name's `@@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The view's TID.
    pub asof: Tid,
    /// The PFS, where one is named.
    pub pfs: Option<u16>,
}

/// Splits a path component at its first `@@`, if a well-formed extension follows; otherwise all of
/// it is the name.
pub fn split_extension(component: &[u8]) -> (&[u8], Option<Extension>) {
    let at = component.windows(2).position(|pair| pair == b"@@");
    let split = at.and_then(|at| Some((&component[..at], extension(&component[at + 2..])?)));
    match split {
        Some((name, extension)) => (name, Some(extension)),
        None => (component, None),
    }
}

fn extension(text: &[u8]) -> Option<Extension> {
    let text = std::str::from_utf8(text).ok()?;
    let (tid, pfs) = match text.split_once(':') {
        Some((tid, pfs)) => (tid, Some(pfs)),
        None => (text, None),
    };
    let asof = match tid.strip_prefix("0x").or(tid.strip_prefix("0X")) {
        Some(hex) if hex.len() == 16 => Tid(u64::from_str_radix(hex, 16).ok()?),
        None if tid == "-1" => Tid::MAX,
        _ => return None,
    };
    // `from_str_radix` and `parse` take a sign.
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let pfs = match pfs {
        Some(id) if id.len() == 5 && digits(id) => Some(id.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    let sane = tid == "-1" || digits(&tid[2..]);
    // TID 0 means "current" to the kernel's visibility test.
    let asof = if asof.is_zero() { Tid::MAX } else { asof };
    sane.then_some(Extension { asof, pfs })
}

/// Whether a final symlink is itself what a path means, or what it points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    /// The link itself, unless the path ends in `/`.
    Itself,
    /// What it points at.
    Follow,
}

/// The object at `path` in `tree`.
///
/// `path` is absolute, a missing leading `/` is understood; absolute symlinks lead to the root of
/// `tree`, `..` leads back along the way that was taken and stays at that root. A path to nothing
/// is an error of class `Other`, an entry without an inode one of class `Damage`.
pub fn resolve<F: Fetch + ?Sized>(
    fetch: &mut F,
    tree: Tree,
    path: &[u8],
    last: Final,
) -> Result<Object> {
    let inode = root(fetch, tree)?.ok_or_else(|| pfs::no_root(tree))?;
    let root = Object {
        inode,
        asof: tree.asof,
    };
    let mut way = Way {
        stack: vec![root],
        rest: components(path),
        links: 0,
        // A path that ends in "/" names what its last link points at.
        follow_last: last == Final::Follow || path.ends_with(b"/"),
    };
    let result = way.walk(fetch);
    result.map_err(|e| e.context(format_args!("{} in PFS {}", show(path), tree.pfs)))
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
    parts.map(<[u8]>::to_vec).collect()
}

/// A path for messages: control bytes and broken UTF-8 made visible.
pub fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

struct Way {
    /// The objects passed, the root first; never empty.
    stack: Vec<Object>,
    rest: VecDeque<Vec<u8>>,
    links: usize,
    follow_last: bool,
}

impl Way {
    fn walk<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Object> {
        let mut steps = 0;
        while let Some(component) = self.rest.pop_front() {
            steps += 1;
            if steps > COMPONENTS_MAX {
                return Err(Error::new(Class::Other, "the path has too many components"));
            }
            match component.as_slice() {
                b"." => {}
                b".." => {
                    if self.stack.len() > 1 {
                        self.stack.pop();
                    }
                }
                name => self.step(fetch, name)?,
            }
        }
        Ok(self.here())
    }

    fn here(&self) -> Object {
        *self.stack.last().expect("the root is never popped")
    }

    fn step<F: Fetch + ?Sized>(&mut self, fetch: &mut F, component: &[u8]) -> Result<()> {
        let dir = self.here();
        let object = child(fetch, &dir, component)?;
        let is_link = object.inode.kind() == Some(ObjType::Symlink);
        if is_link && (!self.rest.is_empty() || self.follow_last) {
            return self.follow(fetch, &object);
        }
        self.stack.push(object);
        Ok(())
    }

    fn follow<F: Fetch + ?Sized>(&mut self, fetch: &mut F, link: &Object) -> Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Error::new(
                Class::Other,
                format!("more than {LINKS_MAX} symlinks"),
            ));
        }
        let target = symlink_target(fetch, &link.inode, link.asof)?;
        if target.is_empty() || target.len() > PATH_MAX {
            let text = format!("a symlink of {} bytes leads nowhere", target.len());
            return Err(Error::new(Class::Other, text));
        }
        if target.starts_with(b"/") {
            self.stack.truncate(1);
        }
        for part in components(&target).into_iter().rev() {
            self.rest.push_front(part);
        }
        Ok(())
    }
}

/// The object that one path component names in `dir`.
pub fn child<F: Fetch + ?Sized>(fetch: &mut F, dir: &Object, component: &[u8]) -> Result<Object> {
    let (name, extension) = split_extension(component);
    let asof = extension.map_or(dir.asof, |e| e.asof);
    if let (b"", Some(Extension { pfs: Some(pfs), .. })) = (name, extension) {
        let tree = Tree { pfs, asof };
        let inode = root(fetch, tree)?.ok_or_else(|| pfs::no_root(tree))?;
        return Ok(Object { inode, asof });
    }
    let id = match name {
        b"" | b"." => dir.inode.id,
        _ => entry(fetch, &dir.inode, name, asof)?,
    };
    match super::inode(fetch, id, asof)? {
        Some(inode) => Ok(Object { inode, asof }),
        None if name.is_empty() || name == b"." => Err(not_found(component, asof)),
        None => Err(missing_inode(&dir.inode, name, id, asof)),
    }
}

fn entry<F: Fetch + ?Sized>(
    fetch: &mut F,
    dir: &Inode,
    name: &[u8],
    asof: Tid,
) -> Result<ObjectId> {
    if !dir.is_directory() {
        let text = format!("{} is looked up in what is no directory", show(name));
        return Err(Error::new(Class::Other, text));
    }
    match dir::lookup(fetch, dir, name, asof)? {
        Some(entry) => Ok(entry.target),
        None => Err(not_found(name, asof)),
    }
}

fn not_found(name: &[u8], asof: Tid) -> Error {
    let name = String::from_utf8_lossy(name);
    let text = match asof {
        Tid::MAX => format!("there is no {name:?}"),
        tid => format!("there is no {name:?} as of {tid}"),
    };
    Error::new(Class::Other, text)
}

/// The error about an entry whose object does not exist.
pub(super) fn missing_inode(dir: &Inode, name: &[u8], target: ObjectId, asof: Tid) -> Error {
    let expected = match asof {
        Tid::MAX => "an inode".to_owned(),
        tid => format!("an inode as of {tid}"),
    };
    let found = format!("none for {target}");
    Error::from(Fault::new(
        Rule::EntryTarget,
        dir.leaf.data_offset(),
        expected,
        found,
    ))
    .context(format!("entry {} of {}", show(name), dir.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        let split = |text: &'static str| split_extension(text.as_bytes());
        let ext = |asof, pfs| {
            Some(Extension {
                asof: Tid(asof),
                pfs,
            })
        };
        assert_eq!(
            split("a@@0x0000000100000000"),
            (b"a".as_slice(), ext(1 << 32, None))
        );
        assert_eq!(
            split("@@0X00000001000381a0:00003"),
            (b"".as_slice(), ext(0x1_0003_81a0, Some(3)))
        );
        assert_eq!(split("x@@-1"), (b"x".as_slice(), ext(u64::MAX, None)));
        assert_eq!(
            split("@@-1:65535"),
            (b"".as_slice(), ext(u64::MAX, Some(65535)))
        );
        let zero = "@@0x0000000000000000";
        assert_eq!(split(zero), (b"".as_slice(), ext(u64::MAX, None)));
        for name in [
            "a@@b",
            "@@PFS00001",
            "a@@0x123",
            "a@@0x+000000100000000",
            "a@@-1:1",
            "a@@-1:+0001",
            "a@@-1:0000a",
            "a@@-1:65536",
            "a@@-1:00001x",
            "a@@@-1",
            "a@@",
            "@",
            "",
        ] {
            assert_eq!(split(name), (name.as_bytes(), None), "{name}");
        }
    }

    #[test]
    fn components_of_paths() {
        assert_eq!(components(b"//a///b/"), [b"a", b"b"]);
        assert!(components(b"/").is_empty());
    }
}
