//! One object after the other: what is there gives way, is changed, or is added to.

use super::delta::{self, Told};
use super::ground::Ground;
use super::host::{self, FileId, examine, failed};
use super::source::{Feed, Source};
use super::{Deed, Inode, inode};
use crate::error::Result;
use crate::format::Tid;
use crate::format::record::{ObjType, PATH_MAX};
use crate::fs::change::{self, Owner, about, check_name, refuse};
use crate::fs::namespace::Final;
use crate::fs::ops::{Attributes, NewObject};
use crate::fs::stored_target;
use crate::fs::target::{existing, lookup, place};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::vec;

/// Files with several names that are remembered at a time.
const LINKS_MAX: usize = 1 << 20;

/// Files with several names, copied under the first.
#[derive(Default)]
pub struct Links {
    /// Host's device and inode number, and the object. In a dry run there is none.
    first: HashMap<(u64, u64), i64>,
    /// Objects that hold what a source holds: another source is not written into them.
    taken: HashSet<i64>,
}

/// A copy under way.
pub struct Job<'j, 'g, 's> {
    pub ground: &'j mut Ground<'g, 's>,
    pub volumes: &'j [FileId],
    pub keep_tail: bool,
    pub owner: Owner,
    pub events: &'j mut dyn FnMut(Deed, &[u8]),
    pub links: Links,
    pub told: Told<'j>,
}

/// Where an object goes. `dir` is `None` below a directory that a dry run does not make.
struct Spot {
    dir: Option<i64>,
    name: Vec<u8>,
    found: Option<Inode>,
    path: Vec<u8>,
}

/// A directory whose entries are being copied.
struct Level {
    host: PathBuf,
    meta: Metadata,
    dir: Option<Inode>,
    path: Vec<u8>,
    names: vec::IntoIter<OsString>,
}

impl Job<'_, '_, '_> {
    /// Copies what is at `host` to `path`.
    pub fn start(&mut self, host: &Path, path: &[u8]) -> Result<()> {
        let meta = examine(host, true)?;
        host::refuse_volume(host, &meta, self.volumes)?;
        if !meta.is_dir() {
            self.told.status.bytes_total = host::size(host, &meta)?;
            let source = host::open(host, &meta)?;
            self.more(host);
            let attributes = meta.is_file().then_some(&meta);
            return self
                .contents(source, attributes, path)
                .map_err(|e| e.context(host.display()));
        }
        self.told.status.bytes_total = Some(self.measure(host)?);
        let pfs = self.ground.pfs();
        let root = path.iter().all(|b| *b == b'/');
        let dir = match root {
            true => Some(existing(self.ground.fetch(), pfs, path, Final::Follow)?),
            false => {
                let place = place(self.ground.fetch(), pfs, path)?;
                match place.found {
                    // A symlink to a directory is one here.
                    Some(_) => Some(existing(self.ground.fetch(), pfs, path, Final::Follow)?),
                    None => {
                        let spot = Spot {
                            dir: Some(place.dir.id.obj),
                            name: place.name,
                            found: None,
                            path: path.to_vec(),
                        };
                        self.make_directory(&spot, &meta)?
                    }
                }
            }
        };
        if dir.is_some_and(|dir| !dir.is_directory()) {
            return Err(refuse(path, "is there already, and no directory"));
        }
        self.told.report.directories += 1;
        self.more(host);
        self.tree(host, meta, dir, path)
    }

    /// Makes the file at `path` hold what `source` gives. A source with attributes gives them too.
    pub fn contents(&mut self, source: Source, meta: Option<&Metadata>, path: &[u8]) -> Result<()> {
        let pfs = self.ground.pfs();
        let place = place(self.ground.fetch(), pfs, path)?;
        let found = match place.found {
            Some(_) => Some(existing(self.ground.fetch(), pfs, path, Final::Follow)?),
            None => None,
        };
        if found.is_some_and(|found| found.is_directory()) {
            return Err(refuse(
                path,
                "is a directory: name the file in it that is to be written",
            ));
        }
        if found.is_some_and(|found| found.kind() != Some(ObjType::File)) {
            return Err(refuse(path, "is no regular file: remove it first"));
        }
        let spot = Spot {
            dir: Some(place.dir.id.obj),
            name: place.name,
            found,
            path: path.to_vec(),
        };
        let new = match meta {
            Some(meta) => host::object(ObjType::File, meta, b""),
            None => self.owner.object(ObjType::File, 0o644),
        };
        let keep = meta.is_none() && found.is_some();
        self.file(&spot, source, &new, keep)?;
        Ok(())
    }

    /// Bytes of all files below a folder.
    fn measure(&mut self, host: &Path) -> Result<u64> {
        let mut total = 0u64;
        let mut rest = vec![host.to_path_buf()];
        while let Some(folder) = rest.pop() {
            for name in names(&folder)? {
                let path = folder.join(name);
                let meta = examine(&path, false)?;
                match meta.is_dir() {
                    true => rest.push(path),
                    false if meta.is_file() => total = total.saturating_add(meta.len()),
                    false => {}
                }
            }
            self.told.tick()?;
        }
        Ok(total)
    }

    /// Copies everything below `host`.
    fn tree(&mut self, host: &Path, meta: Metadata, dir: Option<Inode>, path: &[u8]) -> Result<()> {
        let mut levels = vec![Level {
            host: host.to_path_buf(),
            meta,
            dir,
            path: path.to_vec(),
            names: names(host)?,
        }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                if let Some(level) = levels.pop() {
                    self.leave(&level)?;
                }
                continue;
            };
            let host = level.host.join(&name);
            let name = name.as_bytes().to_vec();
            let mut path = level.path.clone();
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            check_name(&name, &path)?;
            let found = match &level.dir {
                Some(dir) => lookup(self.ground.fetch(), dir, &name).map_err(about(&path))?,
                None => None,
            };
            let dir = level.dir.map(|dir| dir.id.obj);
            let spot = Spot {
                dir,
                name,
                found,
                path,
            };
            let meta = examine(&host, false)?;
            let below = self
                .object(&spot, &host, &meta)
                .map_err(|e| e.context(host.display()))?;
            if let Below::Folder(dir) = below {
                levels.push(Level {
                    names: names(&host)?,
                    host,
                    meta,
                    dir,
                    path: spot.path,
                });
            }
            self.told.tick()?;
        }
        Ok(())
    }

    /// Copies one object of a tree.
    fn object(&mut self, spot: &Spot, host: &Path, meta: &Metadata) -> Result<Below> {
        let Some(kind) = host::kind(meta) else {
            return Err(refuse(&spot.path, "HAMMER has no such kind of object"));
        };
        host::refuse_volume(host, meta, self.volumes)?;
        self.told.status.items += 1;
        self.more(host);
        if kind == ObjType::Directory {
            self.told.report.directories += 1;
            return Ok(Below::Folder(match spot.found {
                Some(found) if found.is_directory() => Some(found),
                Some(_) => return Err(refuse(&spot.path, "is there already, and no directory")),
                None => self.make_directory(spot, meta)?,
            }));
        }
        if spot.found.is_some_and(|found| found.is_directory()) {
            let text = "is a directory, and the source is none";
            return Err(refuse(&spot.path, text));
        }
        if self.linked(spot, meta)? {
            return Ok(Below::Nothing);
        }
        let obj = match kind {
            ObjType::File => {
                let source = host::open(host, meta)?;
                let new = host::object(kind, meta, b"");
                let usable = |found: &Inode| {
                    found.kind() == Some(kind) && !self.links.taken.contains(&found.id.obj)
                };
                let old = spot.found.filter(usable);
                self.clear(spot, old.is_some())?;
                let spot = Spot {
                    dir: spot.dir,
                    name: spot.name.clone(),
                    found: old,
                    path: spot.path.clone(),
                };
                self.file(&spot, source, &new, false)?
            }
            _ => self.node(spot, host, meta, kind)?,
        };
        self.remember(meta, spot, obj);
        Ok(Below::Nothing)
    }

    /// Makes a further name of an object that was copied before, if this is one.
    fn linked(&mut self, spot: &Spot, meta: &Metadata) -> Result<bool> {
        if meta.nlink() < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.first.get(&(meta.dev(), meta.ino())).copied() else {
            return Ok(false);
        };
        self.told.report.hard_links += 1;
        if spot.found.is_some_and(|found| found.id.obj == first) {
            return Ok(true);
        }
        self.clear(spot, false)?;
        (self.events)(Deed::Linked, &spot.path);
        if let (Ground::Real(op), Some(dir)) = (&mut *self.ground, spot.dir) {
            op.step(|txn, ops| ops.link(txn, first, dir, &spot.name))
                .map_err(about(&spot.path))?;
        }
        // Its bytes were counted in beforehand.
        self.told.status.bytes += meta.len();
        Ok(true)
    }

    fn remember(&mut self, meta: &Metadata, spot: &Spot, obj: Option<i64>) {
        if let Some(found) = &spot.found
            && found.data.nlinks.get() > 1
            && self.links.taken.len() < LINKS_MAX
        {
            self.links.taken.insert(found.id.obj);
        }
        if meta.nlink() < 2 {
            return;
        }
        match self.links.first.len() < LINKS_MAX {
            true => {
                let key = (meta.dev(), meta.ino());
                self.links.first.insert(key, obj.unwrap_or(0));
            }
            false => self.told.report.links_lost += 1,
        }
    }

    /// Takes away what is in the way, unless it can be kept.
    fn clear(&mut self, spot: &Spot, keep: bool) -> Result<()> {
        if spot.found.is_none() || keep {
            return Ok(());
        }
        (self.events)(Deed::Replaced, &spot.path);
        if let (Ground::Real(op), Some(dir)) = (&mut *self.ground, spot.dir) {
            change::remove_entry(op, dir, &spot.name).map_err(about(&spot.path))?;
        }
        Ok(())
    }

    /// Writes a file, new or there already. `keep` leaves the attributes of one that is there.
    fn file(
        &mut self,
        spot: &Spot,
        source: Source,
        new: &NewObject<'_>,
        keep: bool,
    ) -> Result<Option<i64>> {
        let deed = match spot.found {
            Some(_) => Deed::Updated,
            None => Deed::Made,
        };
        (self.events)(deed, &spot.path);
        self.told.report.files += 1;
        let file = match spot.found {
            Some(file) => {
                if !keep {
                    self.attributes(&file, new, false)
                        .map_err(about(&spot.path))?;
                }
                Some(file)
            }
            None => self.create(spot, new)?,
        };
        self.told.status.object = file.map_or(0, |file| file.id.obj);
        let mut feed = Feed::new(source)?;
        let keep_tail = self.keep_tail;
        let size = delta::fill(
            self.ground,
            file.as_ref(),
            &mut feed,
            keep_tail,
            &mut self.told,
        )?;
        if let (Ground::Real(op), Some(file)) = (&mut *self.ground, file) {
            let mtime = new.times.map_or(op.txn().now(), |(mtime, _)| mtime);
            op.step(|txn, ops| ops.finish_file(txn, file.id.obj, size, mtime))
                .map_err(about(&spot.path))?;
        }
        Ok(file.map(|file| file.id.obj))
    }

    /// Makes a symlink, a FIFO, a socket or a device node.
    fn node(
        &mut self,
        spot: &Spot,
        host: &Path,
        meta: &Metadata,
        kind: ObjType,
    ) -> Result<Option<i64>> {
        let target = match kind {
            ObjType::Symlink => {
                self.told.report.symlinks += 1;
                let target = std::fs::read_link(host).map_err(failed(host))?;
                target.into_os_string().into_vec()
            }
            _ => {
                self.told.report.nodes += 1;
                Vec::new()
            }
        };
        if target.len() > PATH_MAX {
            let text = format!("its target has more than {PATH_MAX} bytes");
            return Err(refuse(&spot.path, &text));
        }
        let new = host::object(kind, meta, &target);
        if let Some(found) = spot.found.filter(|found| found.kind() == Some(kind)) {
            let same = match kind {
                ObjType::Symlink => {
                    stored_target(self.ground.fetch(), &found, Tid::MAX).ok()
                        == Some(target.clone())
                }
                _ => (found.data.rmajor.get(), found.data.rminor.get()) == new.rdev,
            };
            if same {
                self.attributes(&found, &new, true)
                    .map_err(about(&spot.path))?;
                return Ok(Some(found.id.obj));
            }
        }
        self.clear(spot, false)?;
        (self.events)(Deed::Made, &spot.path);
        Ok(self.create(spot, &new)?.map(|made| made.id.obj))
    }

    fn create(&mut self, spot: &Spot, new: &NewObject<'_>) -> Result<Option<Inode>> {
        let (Ground::Real(op), Some(dir)) = (&mut *self.ground, spot.dir) else {
            return Ok(None);
        };
        op.step(|txn, ops| ops.create(txn, dir, &spot.name, new))
            .and_then(|obj| inode(op, obj))
            .map(Some)
            .map_err(about(&spot.path))
    }

    fn make_directory(&mut self, spot: &Spot, meta: &Metadata) -> Result<Option<Inode>> {
        (self.events)(Deed::Made, &spot.path);
        self.create(spot, &host::object(ObjType::Directory, meta, b""))
    }

    /// Gives an object that was there the attributes that differ; times only with `times`.
    fn attributes(&mut self, old: &Inode, new: &NewObject<'_>, times: bool) -> Result<()> {
        let Ground::Real(op) = &mut *self.ground else {
            return Ok(());
        };
        let differs = |old: u32, new: u32| (old != new).then_some(new);
        let mtime = new.times.map(|(mtime, _)| mtime);
        let stale = times && mtime.is_some_and(|mtime| mtime != old.data.mtime.get());
        let attributes = Attributes {
            mode: (old.data.mode() != new.mode).then_some(new.mode),
            uid: differs(old.data.uid(), new.uid),
            gid: differs(old.data.gid(), new.gid),
            uflags: None,
            mtime: mtime.filter(|_| stale),
            atime: new.times.map(|(_, atime)| atime).filter(|_| stale),
        };
        let nothing = attributes.mode.is_none()
            && attributes.uid.is_none()
            && attributes.gid.is_none()
            && attributes.mtime.is_none();
        match nothing {
            true => Ok(()),
            false => op.step(|txn, ops| ops.set_attributes(txn, old.id.obj, &attributes)),
        }
    }

    /// Gives a directory its attributes, now that its entries are made.
    fn leave(&mut self, level: &Level) -> Result<()> {
        let (Ground::Real(op), Some(dir)) = (&mut *self.ground, &level.dir) else {
            return Ok(());
        };
        let now = inode(op, dir.id.obj)?;
        let new = host::object(ObjType::Directory, &level.meta, b"");
        self.attributes(&now, &new, true)
            .map_err(about(&level.path))
    }

    /// Counts what HAMMER has no place for.
    fn more(&mut self, host: &Path) {
        self.told.report.attributes_lost += u64::from(host::has_more(host));
    }
}

/// What has to be copied below an object.
#[allow(clippy::large_enum_variant)] // one exists at a time
enum Below {
    Nothing,
    /// Everything in it; the directory here, if there is one.
    Folder(Option<Inode>),
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Result<vec::IntoIter<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        names.push(entry.map_err(failed(folder))?.file_name());
    }
    names.sort();
    Ok(names.into_iter())
}
