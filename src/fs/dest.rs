//! A folder of the host that names from a medium cannot lead out of.
//!
//! Paths are taken apart into names that are checked one by one, and every step goes from an open
//! directory to the next with `O_NOFOLLOW`: no `..`, no absolute path, no symlink (not even one
//! that was there before, or that somebody puts there meanwhile) takes a write outside. Files are
//! made anew, never opened: an existing one is left alone, or removed first.
//!
//! Errors do not say the path: the caller, who gave it, does.

use super::dir::name_is_valid;
use super::list::Attributes;
use super::namespace::show;
use crate::error::{Class, Error, Result};
use crate::format::record::ObjType;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, makedev,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, getegid, geteuid, linkat, symlinkat, unlinkat,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How directories are opened on the way.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// What becomes of what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: an object of the same name is refused. Directories are added to.
    Keep,
    /// It gives way. Directories are added to, and give way to directories only.
    Replace,
}

/// A folder, and what may be done in it.
pub struct Dest {
    root: OwnedFd,
    existing: Existing,
    /// The directory used last.
    last: Option<(Vec<u8>, OwnedFd)>,
    owner: Owner,
}

/// Whether owner and group can be given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Dest {
    /// Opens the directory `path`; its own name is the caller's, and may be a symlink.
    pub fn open(path: &Path, existing: Existing) -> Result<Dest> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|e| Error::io(path.display().to_string(), e.into()))?;
        Ok(Dest {
            root,
            existing,
            last: None,
            owner: Owner {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
            },
        })
    }

    /// Makes the directory `path`; one that is there will do. It is ours alone until
    /// [`Dest::finish`].
    pub fn directory(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        match mkdirat(parent, os(name), Mode::S_IRWXU) {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(failed(e)),
        }
        match openat(parent, os(name), DIRECTORY, Mode::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                self.make(path, |parent, name| mkdirat(parent, name, Mode::S_IRWXU))
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Makes the file `path`, for writing.
    pub fn file(&mut self, path: &[u8]) -> Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.make(path, |parent, name| openat(parent, name, flags, mode))
            .map(File::from)
    }

    /// Makes the symlink `path`. Where it leads is no concern of ours: nothing follows it.
    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        if target.is_empty() || target.contains(&0) {
            let text = format!("{:?} is no target for a symlink here", show(target));
            return Err(Error::new(Class::Other, text));
        }
        self.make(path, |parent, name| symlinkat(os(target), parent, name))
    }

    /// Makes another name for `first`, an object made before.
    pub fn hard_link(&mut self, first: &[u8], path: &[u8]) -> Result<()> {
        let (dir, name) = split(first)?;
        let dir = self.walk(dir)?;
        self.make(path, |parent, new| {
            linkat(&dir, os(name), parent, new, AtFlags::empty())
        })
    }

    /// Makes a FIFO, a socket or a device node. Devices take privileges.
    pub fn node(&mut self, path: &[u8], kind: ObjType, rdev: (u32, u32)) -> Result<()> {
        let (flag, rdev) = match kind {
            ObjType::Fifo => (SFlag::S_IFIFO, (0, 0)),
            ObjType::Socket => (SFlag::S_IFSOCK, (0, 0)),
            ObjType::CharDevice => (SFlag::S_IFCHR, rdev),
            ObjType::BlockDevice => (SFlag::S_IFBLK, rdev),
            other => return Err(Error::usage(format!("{other:?} is no kind of node"))),
        };
        let dev = makedev(rdev.0.into(), rdev.1.into());
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.make(path, |parent, name| mknodat(parent, name, flag, mode, dev))
    }

    /// Gives `path`, an object made before (or all of the folder, as the empty path), its owner,
    /// mode and times.
    ///
    /// Only a privileged user can give objects away; for others they stay their own, and lose the
    /// set-id bits of a foreign owner.
    pub fn finish(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let mode = self.mode(attributes);
        let (uid, gid) = self.owner.given(attributes);
        let (atime, mtime) = (time(attributes.atime_us), time(attributes.mtime_us));
        if attributes.kind == Some(ObjType::Directory) {
            let dir = self.walk(path)?;
            return fchown(&dir, uid, gid)
                .and_then(|()| fchmod(&dir, mode))
                .and_then(|()| futimens(&dir, &atime, &mtime))
                .map_err(failed);
        }
        let (parent, name) = self.parent(path)?;
        let name = os(name);
        let chmod = || match attributes.kind {
            // Symlinks have no mode of their own here.
            Some(ObjType::Symlink) => Ok(()),
            _ => fchmodat(parent, name, mode, FchmodatFlags::NoFollowSymlink),
        };
        let nofollow = UtimensatFlags::NoFollowSymlink;
        fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .and_then(|()| chmod())
            .and_then(|()| utimensat(parent, name, &atime, &mtime, nofollow))
            .map_err(failed)
    }

    /// As [`Dest::finish`], for a file that is still open.
    pub fn finish_file(&self, file: &File, attributes: &Attributes) -> Result<()> {
        let (uid, gid) = self.owner.given(attributes);
        let (atime, mtime) = (time(attributes.atime_us), time(attributes.mtime_us));
        fchown(file, uid, gid)
            .and_then(|()| fchmod(file, self.mode(attributes)))
            .and_then(|()| futimens(file, &atime, &mtime))
            .map_err(failed)
    }

    fn mode(&self, attributes: &Attributes) -> Mode {
        let mode = Mode::from_bits_truncate(attributes.mode.into());
        let (uid, gid) = self.owner.given(attributes);
        let mut lost = Mode::empty();
        if uid.is_none() && attributes.uid != self.owner.uid {
            lost |= Mode::S_ISUID;
        }
        if gid.is_none() && attributes.gid != self.owner.gid {
            lost |= Mode::S_ISGID;
        }
        mode - lost
    }

    /// Makes something new at `path`; what is there gives way if it may.
    fn make<T>(
        &mut self,
        path: &[u8],
        make: impl Fn(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Result<T> {
        let existing = self.existing;
        let (parent, name) = self.parent(path)?;
        let name = os(name);
        let mut made = make(parent, name);
        if let Err(Errno::EEXIST) = made {
            if existing == Existing::Keep {
                return Err(Error::new(
                    Class::Other,
                    "it is there already, and stays as it is",
                ));
            }
            unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).map_err(|e| match e {
                Errno::EISDIR | Errno::EPERM => {
                    Error::new(Class::Other, "a directory is in the way")
                }
                e => failed(e),
            })?;
            made = make(parent, name);
        }
        made.map_err(failed)
    }

    /// The open directory that `path` lies in, and its last name.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<(&OwnedFd, &'a [u8])> {
        let (dir, name) = split(path)?;
        if self.last.as_ref().is_none_or(|(last, _)| last != dir) {
            let fd = self.walk(dir)?;
            self.last = Some((dir.to_vec(), fd));
        }
        let (_, fd) = self.last.as_ref().expect("set just now");
        Ok((fd, name))
    }

    /// Opens the directory `path`, name by name.
    fn walk(&self, path: &[u8]) -> Result<OwnedFd> {
        let root = self.root.as_fd().try_clone_to_owned();
        let mut here = root.map_err(|e| Error::io("the host refuses", e))?;
        for name in path.split(|b| *b == b'/').filter(|_| !path.is_empty()) {
            check(name)?;
            here = openat(&here, os(name), DIRECTORY, Mode::empty()).map_err(|e| {
                let text = format!(
                    "the host refuses {:?} as a directory on the way",
                    show(name)
                );
                Error::io(text, e.into())
            })?;
        }
        Ok(here)
    }

    /// Whether the folder is the same directory as `other`.
    pub fn is(&self, other: &Dest) -> bool {
        let id = |dest: &Dest| fstat(&dest.root).ok().map(|s| (s.st_dev, s.st_ino));
        id(self).is_some_and(|this| Some(this) == id(other))
    }
}

impl Owner {
    /// The ids to set; `None` where they cannot be, or need not.
    fn given(self, attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
        match self.uid {
            0 => (
                Some(Uid::from_raw(attributes.uid)),
                Some(Gid::from_raw(attributes.gid)),
            ),
            _ => (None, None),
        }
    }
}

/// Directory and name of a path.
fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    check(name)?;
    Ok((dir, name))
}

fn check(name: &[u8]) -> Result<()> {
    if name_is_valid(name) {
        return Ok(());
    }
    let text = format!("{:?} is no name that can be made", show(name));
    Err(Error::damage(text))
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn failed(errno: Errno) -> Error {
    Error::io("the host refuses", io::Error::from(errno))
}

/// Microseconds since 1970 as the host wants them.
fn time(us: u64) -> TimeSpec {
    // Both quotients fit: 2^64 microseconds are 2^44 seconds.
    TimeSpec::new((us / 1_000_000) as i64, (us % 1_000_000 * 1000) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Tid;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn attributes(kind: ObjType, mode: u16) -> Attributes {
        Attributes {
            kind: Some(kind),
            mode,
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            size: 0,
            nlinks: 1,
            mtime_us: 1_000_000_000_123_456,
            ctime_us: 0,
            atime_us: 2_000_000_000_000_000,
            flags: 0,
            rdev: None,
            tid: Tid(2),
        }
    }

    #[test]
    fn objects_with_all_they_have() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dest = Dest::open(dir.path(), Existing::Keep).expect("it opens");
        dest.directory(b"d").expect("a directory");
        let mut file = dest.file(b"d/f").expect("a file");
        file.write_all(b"text").expect("space");
        dest.finish_file(&file, &attributes(ObjType::File, 0o640))
            .expect("finished");
        dest.hard_link(b"d/f", b"g").expect("a link");
        dest.symlink(b"d/s", b"../../etc").expect("a symlink");
        dest.finish(b"d/s", &attributes(ObjType::Symlink, 0o777))
            .expect("finished");
        dest.node(b"p", ObjType::Fifo, (0, 0)).expect("a fifo");
        dest.finish(b"p", &attributes(ObjType::Fifo, 0o604))
            .expect("finished");
        dest.finish(b"d", &attributes(ObjType::Directory, 0o500))
            .expect("finished");
        let meta = |name: &str| fs::symlink_metadata(dir.path().join(name)).expect("it is there");
        assert_eq!(meta("g").ino(), meta("d/f").ino());
        for (name, mode) in [("d/f", 0o640), ("p", 0o604), ("d", 0o500)] {
            let meta = meta(name);
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{name}");
            assert_eq!(
                (meta.mtime(), meta.mtime_nsec()),
                (1_000_000_000, 123_456_000),
                "{name}"
            );
            assert_eq!(meta.atime(), 2_000_000_000, "{name}");
        }
        assert_eq!(meta("d/s").mtime(), 1_000_000_000);
        let write = attributes(ObjType::Directory, 0o700);
        dest.finish(b"d", &write).expect("finished");
    }

    #[test]
    fn what_is_there_stays_or_gives_way() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("f"), "old").expect("a file");
        fs::write(at("other"), "other").expect("a file");
        symlink("other", at("s")).expect("a link");
        fs::create_dir(at("d")).expect("a directory");
        let mut keep = Dest::open(dir.path(), Existing::Keep).expect("it opens");
        assert!(keep.file(b"f").is_err() && keep.file(b"s").is_err() && keep.file(b"d").is_err());
        assert!(keep.directory(b"f").is_err() && keep.directory(b"s").is_err());
        keep.directory(b"d").expect("directories are added to");
        let mut replace = Dest::open(dir.path(), Existing::Replace).expect("it opens");
        assert!(replace.is(&keep));
        drop(replace.file(b"f").expect("a new file"));
        replace
            .file(b"s")
            .expect("a new file")
            .write_all(b"new")
            .expect("space");
        assert!(
            replace.file(b"d").is_err(),
            "directories give way to directories only"
        );
        replace
            .directory(b"f")
            .expect("a directory in a file's place");
        assert_eq!(fs::read(at("other")).expect("untouched"), b"other");
        assert!(
            fs::symlink_metadata(at("s"))
                .expect("it is there")
                .is_file()
        );
    }

    #[test]
    fn foreign_set_id_bits_are_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dest = Dest::open(dir.path(), Existing::Keep).expect("it opens");
        dest.owner = Owner {
            uid: 1000,
            gid: 1000,
        };
        let with = |uid, gid| Attributes {
            uid,
            gid,
            ..attributes(ObjType::File, 0o6755)
        };
        assert_eq!(dest.mode(&with(1000, 1000)).bits(), 0o6755);
        assert_eq!(dest.mode(&with(0, 1000)).bits(), 0o2755);
        assert_eq!(dest.mode(&with(0, 0)).bits(), 0o755);
        dest.owner = Owner { uid: 0, gid: 0 };
        assert_eq!(dest.mode(&with(1000, 1000)).bits(), 0o6755);
    }

    /// Everything below a folder: paths, kinds and contents.
    fn picture(dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut seen = Vec::new();
        let mut rest = vec![dir.to_path_buf()];
        while let Some(path) = rest.pop() {
            let meta = fs::symlink_metadata(&path).expect("it is there");
            let contents = match meta.is_file() {
                true => fs::read(&path).expect("readable"),
                false => Vec::new(),
            };
            if meta.is_dir() {
                let entries = fs::read_dir(&path).expect("readable");
                rest.extend(entries.map(|e| e.expect("an entry").path()));
            }
            seen.push((path.display().to_string(), meta.mode(), contents));
        }
        seen.sort();
        seen
    }

    fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
        const NAMES: [&str; 12] = [
            "a",
            "b",
            "..",
            ".",
            "",
            "a/b",
            "/",
            "/etc",
            "../outside",
            "link",
            "up",
            "a\0b",
        ];
        let name = proptest::sample::select(&NAMES[..]);
        proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/").into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is made in whatever order, nothing outside of the folder changes.
        #[test]
        fn nothing_leads_outside(
            steps in proptest::collection::vec((0u8..6, hostile_path(), hostile_path()), 1..40),
            replace: bool,
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let outside = dir.path().join("outside");
            let inside = dir.path().join("inside");
            for folder in [&outside, &inside] {
                fs::create_dir(folder).expect("a folder");
            }
            fs::write(outside.join("a"), "precious").expect("a file");
            // Ways out that were there before.
            symlink("../outside", inside.join("link")).expect("a link");
            symlink("..", inside.join("up")).expect("a link");
            let before = picture(&outside);
            let existing = if replace { Existing::Replace } else { Existing::Keep };
            let mut dest = Dest::open(&inside, existing).expect("it opens");
            for (step, path, other) in &steps {
                let _ = match step {
                    0 | 1 => dest.directory(path),
                    2 => dest.file(path).and_then(|mut file| {
                        file.write_all(b"evil").map_err(|e| Error::io("writing", e))
                    }),
                    3 => dest.symlink(path, other),
                    4 => dest.hard_link(other, path),
                    _ => dest.finish(path, &attributes(ObjType::File, 0o777)),
                };
            }
            prop_assert_eq!(before, picture(&outside));
            let others = fs::read_dir(dir.path()).expect("readable").count();
            prop_assert_eq!(others, 2);
        }
    }
}
