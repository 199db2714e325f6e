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
use crate::format::Tid;
use crate::format::record::ObjType;
use crate::progress::{Progress, Status};
use crate::store::Fetch;
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
    /// Bytes written.
    pub bytes: u64,
    /// Objects with a problem, each told to the caller as it was met.
    pub problems: u64,
    /// Those of them that come from damage in the volume.
    pub damaged: u64,
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
        links: HashMap::new(),
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
    /// The first name of each object with several, and how many are to come.
    links: HashMap<ObjectId, (Vec<u8>, u64)>,
    /// Directories that could not be made: nothing below them is tried.
    left_out: Vec<Vec<u8>>,
    report: Report,
    status: Status,
    progress: &'a mut dyn Progress,
    problem: &'a mut dyn FnMut(&[u8], &Error),
}

impl Copy<'_> {
    fn tree<F: Fetch + ?Sized>(&mut self, fetch: &mut F, object: Object) -> Result<()> {
        let mut walk = Walk::new(object, b"/", Scope::All);
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
                let target = stored_target(fetch, inode, self.asof)?;
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
            let names = attributes.nlinks - 1;
            self.links.insert(inode.id, (path.to_vec(), names));
        }
        Ok(())
    }

    /// Makes `path` another name of an object copied before; `false` if there is none.
    fn link(&mut self, path: &[u8], id: ObjectId) -> Result<bool> {
        let Some((first, names)) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        self.dest.hard_link(first, path)?;
        self.report.hard_links += 1;
        *names -= 1;
        if *names == 0 {
            self.links.remove(&id);
        }
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

fn is_not_permitted(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let host = source.and_then(|e| e.downcast_ref::<std::io::Error>());
    host.is_some_and(|e| e.kind() == ErrorKind::PermissionDenied)
}
