//! Objects of the host that are copied in: what they are, opened without being changed.

use super::source::Source;
use crate::error::{Class, Error, Result};
use crate::format::record::ObjType;
use crate::fs::ops::NewObject;
use crate::io::sys;
use nix::libc;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A file of the host, by what it is and not by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileId {
    /// A regular file: device and inode number.
    File(u64, u64),
    /// A block device: its number.
    Device(u64),
}

impl FileId {
    /// The file's own id.
    pub fn of(found: &Metadata) -> FileId {
        match found.file_type().is_block_device() {
            true => FileId::Device(found.rdev()),
            false => FileId::File(found.dev(), found.ino()),
        }
    }
}

/// The error about `path`.
pub fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| Error::io(path.display().to_string(), error)
}

/// What is at `path`; `follow` says whether a symlink leads on.
pub fn examine(path: &Path, follow: bool) -> Result<Metadata> {
    match follow {
        true => std::fs::metadata(path),
        false => std::fs::symlink_metadata(path),
    }
    .map_err(failed(path))
}

/// Refuses a volume of the file system that is being written to.
pub fn refuse_volume(path: &Path, found: &Metadata, volumes: &[FileId]) -> Result<()> {
    match volumes.contains(&FileId::of(found)) {
        true => Err(Error::usage(format!(
            "{} is a volume of the file system that it would be copied into",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// Opens a file, device or pipe that was found at `path`, to read all of it.
pub fn open(path: &Path, found: &Metadata) -> Result<Source> {
    let kind = found.file_type();
    if kind.is_fifo() {
        let file = File::open(path).map_err(failed(path))?;
        return Ok(Source::stream(Box::new(file)));
    }
    if !kind.is_file() && !kind.is_block_device() {
        let text = "no file, folder, block device or pipe: it cannot be copied by itself";
        return Err(Error::usage(format!("{}: {text}", path.display())));
    }
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match open(libc::O_NOATIME) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(0),
        result => result,
    }
    .map_err(failed(path))?;
    let opened = file.metadata().map_err(failed(path))?;
    if FileId::of(&opened) != FileId::of(found) {
        let text = format!("{} was replaced while it was copied", path.display());
        return Err(Error::new(Class::Io, text));
    }
    let size = match kind.is_file() {
        true => opened.len(),
        false => sys::block_facts(&file).map_err(failed(path))?.size,
    };
    Ok(Source::file(file, size))
}

/// How many bytes [`open`] would read; `None` if they end when they end.
pub fn size(path: &Path, found: &Metadata) -> Result<Option<u64>> {
    if found.file_type().is_block_device() {
        let file = File::open(path).map_err(failed(path))?;
        return Ok(Some(sys::block_facts(&file).map_err(failed(path))?.size));
    }
    Ok(found.is_file().then_some(found.len()))
}

/// What the host's object is in HAMMER's terms; `None` for what it has no word for.
pub fn kind(found: &Metadata) -> Option<ObjType> {
    let kind = found.file_type();
    Some(match () {
        () if kind.is_file() => ObjType::File,
        () if kind.is_dir() => ObjType::Directory,
        () if kind.is_symlink() => ObjType::Symlink,
        () if kind.is_fifo() => ObjType::Fifo,
        () if kind.is_socket() => ObjType::Socket,
        () if kind.is_char_device() => ObjType::CharDevice,
        () if kind.is_block_device() => ObjType::BlockDevice,
        () => return None,
    })
}

/// The object with the attributes that it has here.
pub fn object<'a>(kind: ObjType, found: &Metadata, target: &'a [u8]) -> NewObject<'a> {
    let is_device = matches!(kind, ObjType::CharDevice | ObjType::BlockDevice);
    let rdev = found.rdev();
    let part = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    NewObject {
        kind,
        mode: (found.mode() & 0o7777) as u16,
        uid: found.uid(),
        gid: found.gid(),
        uflags: 0,
        rdev: match is_device {
            true => (
                part(nix::sys::stat::major(rdev)),
                part(nix::sys::stat::minor(rdev)),
            ),
            false => (0, 0),
        },
        target,
        times: Some((
            microseconds(found.mtime(), found.mtime_nsec()),
            microseconds(found.atime(), found.atime_nsec()),
        )),
    }
}

/// A time as HAMMER keeps it; what was before 1970 counts as 1970.
fn microseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let Ok(seconds) = u64::try_from(seconds) else {
        return 0;
    };
    let part = u64::try_from(nanoseconds).unwrap_or(0) / 1000;
    seconds.saturating_mul(1_000_000).saturating_add(part)
}

/// Whether it has extended attributes or ACLs beyond what HAMMER keeps.
pub fn has_more(path: &Path) -> bool {
    // A file system without attributes says so with an error.
    let names = sys::attribute_names(path).unwrap_or_default();
    let mut names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    // The label that some hosts give every file is the host's affair.
    names.any(|name| name != b"security.selinux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(microseconds(1, 999_999_999), 1_999_999);
        assert_eq!(microseconds(-1, 5), 0);
        assert_eq!(microseconds(i64::MAX, 0), u64::MAX);
    }
}
