//! Copying in: a file, a tree, a raw image, a block device or a stream into a PFS, as one
//! operation.
//!
//! A file that is there already is made to hold what the source holds by writing the blocks that
//! differ, and always gets a new version. Memory does not grow with what is copied, but for the
//! names of one directory a level and 16 bytes for each file with several names.

mod delta;
mod ground;
mod host;
mod source;
mod tree;

use crate::error::{Error, Result};
use crate::format::record::ObjType;
use crate::fs::Inode;
use crate::fs::change::{Owner, refuse};
use crate::fs::namespace::Final;
use crate::fs::operation::Operation;
use crate::fs::target::{existing, place};
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use crate::store::usage::Want;
use delta::Told;
use ground::Ground;
pub use host::FileId;
use source::{Feed, Source};
use std::io::Read;
use std::path::PathBuf;

/// Where what is copied in comes from.
pub enum Origin {
    /// Something of the host: a file, a folder, a block device, a pipe. A symlink leads to what it
    /// points at.
    Path(PathBuf),
    /// Bytes until they end.
    Stream(Box<dyn Read + Send>),
}

/// What to copy, and how.
pub struct Request<'a> {
    /// From where.
    pub origin: Origin,
    /// To where: the exact path.
    pub path: &'a [u8],
    /// What a longer file holds behind the source's end stays.
    pub keep_tail: bool,
    /// Volumes of the file system: they are not copied into themselves.
    pub volumes: &'a [FileId],
    /// Whose new files are if the source does not say.
    pub owner: Owner,
    /// Told what is done, one object at a time.
    pub events: &'a mut dyn FnMut(Deed, &[u8]),
    /// Told how far it is.
    pub progress: &'a mut dyn Progress,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is new.
    Made,
    /// It is a further name of one copied before.
    Linked,
    /// It was there, and what differs is changed.
    Updated,
    /// Something else was there and is gone.
    Replaced,
}

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
    /// Bytes of the sources' contents, holes included.
    pub bytes: u64,
    /// Blocks written.
    pub blocks_written: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Those of them in records of less than 16 KiB.
    pub small_bytes: u64,
    /// Blocks that were there and are the same.
    pub blocks_same: u64,
    /// Blocks that were there and became holes.
    pub blocks_cleared: u64,
    /// Objects with extended attributes or ACLs, which HAMMER has no place for.
    pub attributes_lost: u64,
    /// Files that have come apart from their other names: more than can be remembered.
    pub links_lost: u64,
}

/// Space that an element takes in a tree whose nodes are half full, and what its nodes take above it.
const ELEMENT_SPACE: u64 = 136;
/// Space that an object takes: its inode, and its name of a usual length.
const OBJECT_SPACE: u64 = 128 + 64 + 2 * ELEMENT_SPACE;

impl Report {
    /// Space that all of it takes in the file system, at most about.
    pub fn want(&self) -> Want {
        let objects = [
            self.files,
            self.directories,
            self.symlinks,
            self.hard_links,
            self.nodes,
        ];
        let objects = objects.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let blocks = self.blocks_written.saturating_mul(ELEMENT_SPACE);
        Want {
            large: self.block_bytes.saturating_sub(self.small_bytes),
            small: self.small_bytes,
            meta: blocks.saturating_add(objects.saturating_mul(OBJECT_SPACE)),
        }
    }
}

/// Copies in, as a part of `op`.
///
/// Errors name the path of the source or of the target; whatever could not be read makes all of it
/// fail.
pub fn put(op: &mut Operation<'_>, request: Request<'_>) -> Result<Report> {
    copy(Ground::Real(op), request)
}

/// Finds out what [`put`] would do to PFS `pfs`, and changes nothing. A stream is read to its end.
pub fn plan<F: Fetch>(fetch: &mut F, pfs: u16, request: Request<'_>) -> Result<Report> {
    copy(Ground::Dry(fetch, pfs), request)
}

fn copy(mut ground: Ground<'_, '_>, request: Request<'_>) -> Result<Report> {
    let mut report = Report::default();
    let mut status = Status::default();
    let told = Told {
        report: &mut report,
        status: &mut status,
        progress: request.progress,
    };
    let mut job = tree::Job {
        ground: &mut ground,
        volumes: request.volumes,
        keep_tail: request.keep_tail,
        owner: request.owner,
        events: request.events,
        links: tree::Links::default(),
        told,
    };
    match request.origin {
        Origin::Stream(read) => {
            let source = Source::stream(read);
            job.contents(source, None, request.path)
                .map_err(|e| e.context("standard input"))?;
        }
        Origin::Path(path) => job.start(&path, request.path)?,
    }
    Ok(report)
}

/// Puts bytes behind the end of the file at `path`, which is made if it is not there.
pub fn append(op: &mut Operation<'_>, request: Request<'_>) -> Result<Report> {
    let (mut report, mut status) = (Report::default(), Status::default());
    let (source, name) = match request.origin {
        Origin::Stream(read) => (Source::stream(read), "standard input".to_owned()),
        Origin::Path(path) => {
            let found = host::examine(&path, true)?;
            host::refuse_volume(&path, &found, request.volumes)?;
            status.bytes_total = host::size(&path, &found)?;
            (host::open(&path, &found)?, path.display().to_string())
        }
    };
    let pfs = op.pfs();
    let place = place(op.txn(), pfs, request.path)?;
    let file = match place.found {
        Some(_) => existing(op.txn(), pfs, request.path, Final::Follow)?,
        None => {
            let new = request.owner.object(ObjType::File, 0o644);
            let obj = op.step(|txn, ops| ops.create(txn, place.dir.id.obj, &place.name, &new))?;
            inode(op, obj)?
        }
    };
    if file.kind() != Some(ObjType::File) {
        return Err(refuse(request.path, "is no regular file"));
    }
    (request.events)(
        match place.found {
            Some(_) => Deed::Updated,
            None => Deed::Made,
        },
        request.path,
    );
    report.files += 1;
    let mut feed = Feed::new(source)?;
    let mut told = Told {
        report: &mut report,
        status: &mut status,
        progress: request.progress,
    };
    delta::append(&mut Ground::Real(op), Some(&file), &mut feed, &mut told)
        .map_err(|e| e.context(name))?;
    Ok(report)
}

/// The object, which is there.
fn inode(op: &mut Operation<'_>, obj: i64) -> Result<Inode> {
    let (txn, ops) = op.parts();
    let inode = ops.inode(txn, obj)?;
    inode.ok_or_else(|| Error::damage(format!("object 0x{obj:016x} has lost its inode")))
}
