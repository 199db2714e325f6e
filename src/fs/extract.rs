//! Copying objects out of a volume: contents with their holes, modes, times, owners, symlinks, hard
//! links, FIFOs and device nodes, confined to one folder ([`super::dest`]).

use super::dest::{Dest, Existing};
use super::dir::name_is_valid;
use super::file::{Body, Reader};
use super::list::Attributes;
use super::namespace::{Object, show, split_extension};
use super::walk::{Found, Scope, Visit, Walk};
use super::{Inode, ObjectId, stored_target};
use crate::error::{Class, Error, Result};
use crate::format::record::ObjType;
use crate::format::{Rule, Tid};
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of files copied before.
    pub hard_links: u64,
    /// FIFOs, sockets and device nodes.
    pub nodes: u64,
    /// Device nodes left out, as making them takes privileges.
    pub nodes_left_out: u64,
    /// Symlinks left out, as a crash took their target.
    pub links_left_out: u64,
    /// Files that may have come apart from their other names, for want of a hard link: the host
    /// refused one, or more than [`LINKS_BYTES_MAX`] were to be remembered.
    pub links_lost: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Objects with a problem, each told to the caller as it was met.
    pub problems: u64,
    /// Those of them that come from damage in the volume.
    pub damaged: u64,
}

/// What the first names of objects with several may take of memory, in bytes: those of some
/// 400 000 objects at a time. Objects met when it is used up are copied under each of their names.
pub const LINKS_BYTES_MAX: usize = 64 << 20;
/// What a first name takes beside its bytes.
const LINK_COST: usize = 96;

/// First names of objects with several names.
struct Links {
    first: HashMap<ObjectId, FirstName>,
    /// Bytes of memory left.
    left: usize,
}

struct FirstName {
    path: Vec<u8>,
    /// How many names are to come.
    names: u64,
}

impl Links {
    fn new(bytes: usize) -> Links {
        Links {
            first: HashMap::new(),
            left: bytes,
        }
    }

    /// Notes the name of an object that has `names` others; `false` if there is no room.
    fn note(&mut self, id: ObjectId, path: &[u8], names: u64) -> bool {
        self.forget(id);
        let Some(left) = self.left.checked_sub(path.len() + LINK_COST) else {
            return false;
        };
        self.left = left;
        let path = path.to_vec();
        self.first.insert(id, FirstName { path, names });
        true
    }

    fn first(&self, id: ObjectId) -> Option<&[u8]> {
        self.first.get(&id).map(|first| first.path.as_slice())
    }

    /// One more name was made. Behind the last one, the object need not be remembered.
    fn used(&mut self, id: ObjectId) {
        if let Some(first) = self.first.get_mut(&id) {
            first.names = first.names.saturating_sub(1);
            if first.names == 0 {
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: ObjectId) {
        if let Some(first) = self.first.remove(&id) {
            self.left += first.path.len() + LINK_COST;
        }
    }
}

/// Copies `object`, named `path`, to `dest`.
///
/// A directory's contents go into the directory `dest`, which is made if need be. Anything else
/// becomes the file `dest`, or goes into it under its own name if `dest` is a directory. What cannot
/// be copied is told to `problem` with its path, and the copy goes on; a block that cannot be read
/// is left as a hole. An error ends the copy: the host's space, the view, `progress`.
pub fn get<F: Fetch + ?Sized>(
    fetch: &mut F,
    object: Object,
    path: &[u8],
    dest: &Path,
    existing: Existing,
    progress: &mut dyn Progress,
    problem: &mut dyn FnMut(&[u8], &Error),
) -> Result<Report> {
    let (folder, name) = match object.inode.is_directory() {
        true => (dest.to_path_buf(), None),
        false => place(path, dest)?,
    };
    let mut made = false;
    if name.is_none() {
        made = make_folder(&folder)?;
    }
    let mut copy = Copy {
        dest: Dest::open(&folder, existing)?,
        asof: object.asof,
        finish_root: made,
        links: Links::new(LINKS_BYTES_MAX),
        left_out: Vec::new(),
        report: Report::default(),
        status: Status::default(),
        progress,
        problem,
    };
    match name {
        Some(name) => {
            let attributes = Attributes::of(&object.inode);
            copy.object(fetch, &name, &object.inode, &attributes)?;
        }
        None => copy.tree(fetch, object)?,
    }
    Ok(copy.report)
}

fn make_folder(folder: &Path) -> Result<bool> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::io(folder.display().to_string(), e)),
    }
}

/// Folder and name for an object that is no directory.
fn place(path: &[u8], dest: &Path) -> Result<(PathBuf, Option<Vec<u8>>)> {
    if dest.is_dir() {
        let last = path.split(|b| *b == b'/').rfind(|part| !part.is_empty());
        let (name, _) = split_extension(last.unwrap_or_default());
        if !name_is_valid(name) {
            let text = format!(
                "{} names no file: name one in {}",
                show(path),
                dest.display()
            );
            return Err(Error::usage(text));
        }
        return Ok((dest.to_path_buf(), Some(name.to_vec())));
    }
    let Some(name) = dest.file_name() else {
        return Err(Error::usage(format!("{} names no file", dest.display())));
    };
    let folder = match dest.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    Ok((folder.to_path_buf(), Some(name.as_bytes().to_vec())))
}

struct Copy<'a> {
    dest: Dest,
    asof: Tid,
    /// Whether the folder itself takes on the attributes of the directory copied.
    finish_root: bool,
    links: Links,
    /// Directories that could not be made: nothing below them is tried.
    left_out: Vec<Vec<u8>>,
    report: Report,
    status: Status,
    progress: &'a mut dyn Progress,
    problem: &'a mut dyn FnMut(&[u8], &Error),
}

impl Copy<'_> {
    fn tree<F: Fetch + ?Sized>(&mut self, fetch: &mut F, object: Object) -> Result<()> {
        let mut walk = Walk::new(object, b"/", Scope::All).with_contents();
        while let Some(visit) = walk.next(fetch)? {
            match visit {
                Visit::Object(found) => self.found(fetch, found)?,
                Visit::Leave { path, inode } => self.leave(&path, &inode)?,
                Visit::Trouble { path, error } => {
                    self.lost(path.strip_prefix(b"/").unwrap_or(&path), error)?;
                }
            }
        }
        Ok(())
    }

    fn found<F: Fetch + ?Sized>(&mut self, fetch: &mut F, found: Found) -> Result<()> {
        let path = found.path.strip_prefix(b"/").unwrap_or(&found.path);
        if self.is_left_out(path) {
            return Ok(());
        }
        self.status.items += 1;
        self.status.object = found.id.obj;
        self.progress.at(&self.status)?;
        if let Some(error) = found.error {
            return self.lost(path, error);
        }
        let Some(inode) = found.inode else {
            return Ok(());
        };
        if path.is_empty() {
            self.report.directories += 1;
            return Ok(());
        }
        let attributes = Attributes::of(&inode);
        self.object(fetch, path, &inode, &attributes)
    }

    fn is_left_out(&self, path: &[u8]) -> bool {
        self.left_out.iter().any(|dir| {
            path.strip_prefix(dir.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
        })
    }

    fn leave(&mut self, path: &[u8], inode: &Inode) -> Result<()> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if let Some(at) = self.left_out.iter().position(|dir| dir == path) {
            self.left_out.swap_remove(at);
            return Ok(());
        }
        if self.is_left_out(path) || (path.is_empty() && !self.finish_root) {
            return Ok(());
        }
        let finished = self.dest.finish(path, &Attributes::of(inode));
        self.note(path, finished)
    }

    /// Makes one object; what goes wrong with it alone is told, not returned.
    fn object<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        path: &[u8],
        inode: &Inode,
        attributes: &Attributes,
    ) -> Result<()> {
        let made = self.make(fetch, path, inode, attributes);
        if made.is_err() && inode.is_directory() {
            self.left_out.push(path.to_vec());
        }
        self.note(path, made)
    }

    fn make<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        path: &[u8],
        inode: &Inode,
        attributes: &Attributes,
    ) -> Result<()> {
        let directory = inode.is_directory();
        if !directory && attributes.nlinks > 1 && self.link(path, inode.id)? {
            return Ok(());
        }
        match inode.kind() {
            Some(ObjType::Directory) => {
                self.dest.directory(path)?;
                self.report.directories += 1;
            }
            Some(ObjType::File) => {
                let mut file = self.dest.file(path)?;
                self.contents(fetch, path, inode, &mut file)?;
                self.dest.finish_file(&file, attributes)?;
                self.report.files += 1;
            }
            Some(ObjType::Symlink) => {
                let target = match stored_target(fetch, inode, self.asof) {
                    Err(e) if e.fault().is_some_and(|f| f.rule == Rule::SymlinkTarget) => {
                        self.report.links_left_out += 1;
                        return Ok(());
                    }
                    target => target?,
                };
                self.dest.symlink(path, &target)?;
                self.dest.finish(path, attributes)?;
                self.report.symlinks += 1;
            }
            Some(kind @ (ObjType::CharDevice | ObjType::BlockDevice)) => {
                let rdev = attributes.rdev.unwrap_or_default();
                match self.dest.node(path, kind, rdev) {
                    Err(e) if is_not_permitted(&e) => {
                        self.report.nodes_left_out += 1;
                        return Ok(());
                    }
                    made => made?,
                }
                self.dest.finish(path, attributes)?;
                self.report.nodes += 1;
            }
            Some(kind @ (ObjType::Fifo | ObjType::Socket)) => {
                self.dest.node(path, kind, (0, 0))?;
                self.dest.finish(path, attributes)?;
                self.report.nodes += 1;
            }
            Some(ObjType::Database | ObjType::PseudoFs) | None => {
                let code = inode.data.obj_type;
                let text = format!("{}: objects of type {code} are not copied", inode.id);
                return Err(Error::damage(text));
            }
        }
        if !directory && attributes.nlinks > 1 {
            let noted = self.links.note(inode.id, path, attributes.nlinks - 1);
            self.report.links_lost += u64::from(!noted);
        }
        Ok(())
    }

    /// Makes `path` another name of an object copied before; `false` if there is none, or the host
    /// allows no further link to it: then the object is to be copied anew.
    fn link(&mut self, path: &[u8], id: ObjectId) -> Result<bool> {
        let Some(first) = self.links.first(id) else {
            return Ok(false);
        };
        match self.dest.hard_link(first, path) {
            Ok(()) => {}
            Err(e) if is_no_link(&e) => {
                self.report.links_lost += 1;
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        self.report.hard_links += 1;
        self.links.used(id);
        Ok(true)
    }

    fn contents<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        path: &[u8],
        inode: &Inode,
        file: &mut File,
    ) -> Result<()> {
        let host = |e| Error::io("the host refuses", e);
        // First the size: a file that cannot be that long is not begun.
        file.set_len(inode.size()).map_err(host)?;
        let mut reader = Reader::new(inode, self.asof);
        loop {
            let piece = match reader.next(fetch) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(e) if e.is_media() => {
                    self.lost(path, e)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            match piece.body {
                Body::Data(bytes) => {
                    file.write_all_at(&bytes, piece.at).map_err(host)?;
                    self.report.bytes += piece.len;
                    self.status.bytes += piece.len;
                    self.progress.at(&self.status)?;
                }
                Body::Hole => {}
                Body::Bad(e) => self.lost(path, e)?,
            }
        }
    }

    /// Tells a problem with one object and lets the copy go on.
    fn note(&mut self, path: &[u8], result: Result<()>) -> Result<()> {
        match result {
            Err(e) => self.trouble(path, e),
            Ok(()) => Ok(()),
        }
    }

    /// Tells what the volume does not give.
    fn lost(&mut self, path: &[u8], error: Error) -> Result<()> {
        // What a device does not give is damage as well.
        self.report.damaged += u64::from(error.class() == Class::Io);
        self.trouble(path, error)
    }

    fn trouble(&mut self, path: &[u8], error: Error) -> Result<()> {
        match error.class() {
            Class::Damage => self.report.damaged += 1,
            Class::Io | Class::Other | Class::Usage => {}
            // Out of space, interrupted, a view that is gone: what follows would fail as well.
            _ => return Err(error.context(show(path))),
        }
        self.report.problems += 1;
        (self.problem)(path, &error);
        Ok(())
    }
}

/// What the host said.
fn host_error(error: &Error) -> Option<&std::io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn is_not_permitted(error: &Error) -> bool {
    host_error(error).is_some_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

/// Whether the host refuses this hard link as such: too many names, another file system mounted
/// below the folder, or one that has none.
fn is_no_link(error: &Error) -> bool {
    let errno = host_error(error).and_then(|e| e.raw_os_error());
    errno.is_some_and(|errno| {
        let errno = Errno::from_raw(errno);
        matches!(
            errno,
            Errno::EMLINK | Errno::EPERM | Errno::EXDEV | Errno::EOPNOTSUPP
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_names_within_their_budget() {
        let id = |obj| ObjectId { pfs: 0, obj };
        let mut links = Links::new(3 * (LINK_COST + 4));
        // Hard links from outside the tree: none of these is ever used up.
        for obj in 0..1000 {
            assert_eq!(links.note(id(obj), b"name", 1), obj < 3, "{obj}");
        }
        assert_eq!(links.first(id(2)), Some(&b"name"[..]));
        assert_eq!(links.first(id(3)), None);
        links.used(id(1));
        assert_eq!(links.first(id(1)), None, "all names are made");
        assert!(links.note(id(7), b"more", 2) && !links.note(id(8), b"", 1));
        // Another first name takes the place of the one before.
        assert!(links.note(id(7), b"then", 1) && links.left == 0);
        links.used(id(7));
        assert_eq!((links.left, links.first.len()), (LINK_COST + 4, 2));
    }

    #[test]
    fn refusals_of_links() {
        let refused = |errno: Errno| is_no_link(&Error::io("the host refuses", errno.into()));
        assert!(refused(Errno::EMLINK) && refused(Errno::EXDEV));
        assert!(!refused(Errno::ENOSPC) && !refused(Errno::EACCES));
        assert!(!is_no_link(&Error::damage("no host's error")));
    }
}
