//! What listings show of an object: one value that text, JSON and tests render.

use super::file::HoleBudget;
use super::namespace::Object;
use super::walk::Found;
use super::{Inode, ObjectId, file, symlink_target};
use crate::error::{Error, Result};
use crate::format::record::ObjType;
use crate::format::{Rule, Tid};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full path.
    pub path: Vec<u8>,
    /// The object.
    pub id: ObjectId,
    /// What the inode says; `None` if there is none or it cannot be read.
    pub attributes: Option<Attributes>,
    /// What the object is: as the inode says, else as its directory entry does.
    pub kind: Option<ObjType>,
    /// A symlink's target as the kernel shows it.
    pub target: Option<Vec<u8>>,
    /// A file's contents, where asked for and readable.
    pub sha256: Option<[u8; 32]>,
    /// Why the object is not what it should be, or could not be read in full.
    pub error: Option<String>,
    /// Whether something is damaged or unreadable. Not all that is missing is: a crash can leave a
    /// symlink without its target (format.md §18).
    pub damaged: bool,
}

/// The fields of an inode that listings show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What the object is; `None` for a code that does not exist.
    pub kind: Option<ObjType>,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes in a file or in a symlink's target.
    pub size: u64,
    /// Entries that name the object.
    pub nlinks: u64,
    /// Last change of the contents, microseconds since 1970, as stored.
    pub mtime_us: u64,
    /// Last change of the inode, microseconds since 1970.
    pub ctime_us: u64,
    /// Last access, microseconds since 1970, as stored.
    pub atime_us: u64,
    /// `chflags` bits.
    pub flags: u32,
    /// A device node's major and minor number.
    pub rdev: Option<(u32, u32)>,
    /// The TID that made the visible version of the inode.
    pub tid: Tid,
}

impl Attributes {
    /// What `inode` says.
    pub fn of(inode: &Inode) -> Attributes {
        let data = &inode.data;
        let kind = inode.kind();
        let device = matches!(kind, Some(ObjType::CharDevice | ObjType::BlockDevice));
        Attributes {
            kind,
            mode: data.mode(),
            uid: data.uid(),
            gid: data.gid(),
            size: data.size.get(),
            nlinks: data.nlinks.get(),
            mtime_us: data.mtime.get(),
            ctime_us: data.ctime.get(),
            atime_us: data.atime.get(),
            flags: data.uflags.get(),
            rdev: device.then(|| (data.rmajor.get(), data.rminor.get())),
            tid: inode.tid(),
        }
    }
}

/// The name of an object's kind in listings; `unknown` for a code that does not exist.
pub fn kind_name(kind: Option<ObjType>) -> &'static str {
    match kind {
        Some(ObjType::Directory) => "dir",
        Some(ObjType::File | ObjType::Database) => "file",
        Some(ObjType::Fifo) => "fifo",
        Some(ObjType::CharDevice) => "chr",
        Some(ObjType::BlockDevice) => "blk",
        Some(ObjType::Symlink) => "symlink",
        Some(ObjType::Socket) => "socket",
        Some(ObjType::PseudoFs) | None => "unknown",
    }
}

/// How much a listing shows, and may spend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Read files and give their SHA-256.
    pub sha256: bool,
    /// What may be spent on holes, over all entries.
    pub holes: HoleBudget,
}

/// The entry of an object met on a walk. `status` counts objects and bytes read.
///
/// What is damaged or unreadable goes into [`Entry::error`]; an error is one of the whole view, or
/// `progress` ending the operation.
pub fn entry<F: Fetch + ?Sized>(
    fetch: &mut F,
    found: Found,
    detail: &mut Detail,
    progress: &mut dyn Progress,
    status: &mut Status,
) -> Result<Entry> {
    status.items += 1;
    status.object = found.id.obj;
    progress.at(status)?;
    let mut entry = Entry {
        path: found.path,
        id: found.id,
        attributes: found.inode.as_ref().map(Attributes::of),
        kind: found.inode.as_ref().map_or(found.kind, Inode::kind),
        target: None,
        sha256: None,
        damaged: found.error.is_some(),
        error: found.error.map(|e| e.to_string()),
    };
    let Some(inode) = found.inode else {
        return Ok(entry);
    };
    match inode.kind() {
        Some(ObjType::Symlink) => {
            let target = symlink_target(fetch, &inode, found.asof);
            entry.target = entry.note(target)?;
        }
        Some(ObjType::File) if detail.sha256 => {
            let holes = &mut detail.holes;
            let sum = file::sha256(fetch, &inode, found.asof, holes, progress, status);
            entry.sha256 = entry.note(sum)?;
        }
        Some(ObjType::PseudoFs) | None => {
            let code = inode.data.obj_type;
            let unknown = Error::damage(format!("an object of unknown type {code}"));
            entry.note::<()>(Err(unknown))?;
        }
        _ => {}
    }
    Ok(entry)
}

/// The entry of one object.
pub fn entry_of<F: Fetch + ?Sized>(
    fetch: &mut F,
    path: &[u8],
    object: &Object,
    detail: &mut Detail,
    progress: &mut dyn Progress,
) -> Result<Entry> {
    let found = Found {
        path: path.to_vec(),
        id: object.inode.id,
        inode: Some(object.inode),
        kind: None,
        asof: object.asof,
        error: None,
    };
    entry(fetch, found, detail, progress, &mut Status::default())
}

impl Entry {
    /// Keeps what was read; or what is wrong, beside what was wrong before.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is_media() => {
                let rule = e.fault().map(|fault| fault.rule);
                self.damaged |= rule != Some(Rule::SymlinkTarget);
                let text = e.to_string();
                self.error = Some(match self.error.take() {
                    Some(before) => format!("{before}; {text}"),
                    None => text,
                });
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}
