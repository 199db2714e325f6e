//! The cycle file (`-c`, mirroring.md §9.4): where a one-way stream was interrupted.
//!
//! 48 bytes, the original's layout: an element's base whose key is where to go on, and the TID that
//! the window began with. The original goes on at the key and says nothing of the keys below, which
//! a target takes for deletions (trap T5), and it forgets where the window ended, so that what
//! changed below the key in the meantime is lost. Here a stream goes on over the whole range, and
//! below the key from the interrupted window's end. That end stands in the base's `delete_tid`,
//! which is no part of a key and means nothing to the original; `btype` says whether it is there.
//! If it is not, in the original's files, the key is of no use: nothing of the window was
//! acknowledged, and all of it is sent again.

use super::window::{Resume, Window};
use crate::error::{Error, Result};
use crate::format::node::Base;
use crate::format::{Key, Localization, Tid};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem::size_of;
use std::path::Path;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The file's contents.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Cycle {
    /// Where to go on.
    pub base: Base,
    /// What the window began with.
    pub begin: U64,
}

const _: () = assert!(size_of::<Cycle>() == 48);

/// `btype` of a base whose `delete_tid` is the interrupted window's end.
const WITH_END: u8 = b'E';

/// What was found at the path of a cycle file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file: start from the beginning.
    Nothing,
    /// The short file of an old version; it was removed, as the original does.
    OldVersion,
    /// Where to go on.
    Cycle(Cycle),
}

impl Cycle {
    /// The file for a stream of `window` that stopped with everything below `key` sent.
    ///
    /// If the stream was itself a continuation and did not get to the key that it continued at,
    /// that key and its end stay: below `key` more was sent than they say, which is no harm.
    pub fn stopped(window: &Window, key: Key) -> Cycle {
        let (key, end) = match window.resume {
            Some(resume) if key < resume.key => (resume.key, resume.end),
            _ => (key, window.end),
        };
        let mut base = Base::from_key(key);
        base.btype = WITH_END;
        base.delete_tid.set(end.0);
        Cycle {
            base,
            begin: U64::new(window.begin.0),
        }
    }

    /// The file after a complete stream: the same window once more. Without a way back from the
    /// target nobody knows that it arrived.
    pub fn finished(window: &Window) -> Cycle {
        Cycle {
            base: Base::from_key(Key::MIN),
            begin: U64::new(window.begin.0),
        }
    }

    /// Where a stream of PFS `pfs` stopped; `None` if that is at the very start.
    pub fn stopped_at(&self, pfs: u16) -> Option<Key> {
        let mut key = self.base.key();
        key.localization = Localization::new(pfs, key.localization.class());
        (key > Key::pfs_min(pfs)).then_some(key)
    }

    /// What TID a stream of PFS `pfs` begins with, and where it goes on; `None` if all of its window
    /// is to be sent, from the very start.
    pub fn resume(&self, pfs: u16) -> (Tid, Option<Resume>) {
        let end = (self.base.btype == WITH_END).then(|| self.base.delete_tid());
        let key = self.stopped_at(pfs);
        let resume = key.zip(end).map(|(key, end)| Resume { key, end });
        (Tid(self.begin.get()), resume)
    }

    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Found> {
        let name = path.display();
        let mut bytes = Vec::new();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(Error::io(format!("cycle file {name}"), e)),
        };
        file.take(size_of::<Cycle>() as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io(format!("cycle file {name}"), e))?;
        if bytes.len() < size_of::<Base>() {
            std::fs::remove_file(path)
                .map_err(|e| Error::io(format!("removing the old cycle file {name}"), e))?;
            return Ok(Found::OldVersion);
        }
        match Cycle::read_from_bytes(&bytes) {
            Ok(cycle) => Ok(Found::Cycle(cycle)),
            Err(_) => Err(Error::usage(format!(
                "cycle file {name} has {} bytes, not 48; remove it to start over",
                bytes.len()
            ))),
        }
    }

    /// Writes the file, in one step: whoever reads it sees the old or the new contents.
    pub fn store(&self, path: &Path) -> Result<()> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let write = || {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            let mut builder = tempfile::Builder::new();
            let mut file = builder.permissions(everybody).tempfile_in(parent)?;
            file.write_all(self.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|e| Error::io(format!("writing cycle file {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(obj_id: i64) -> Key {
        Key::first_version(Localization::new(3, 2), obj_id, 0x10, 5)
    }

    fn window(begin: u64, end: u64, resume: Option<(i64, u64)>) -> Window {
        Window {
            begin: Tid(begin),
            end: Tid(end),
            resume: resume.map(|(obj, end)| Resume {
                key: key(obj),
                end: Tid(end),
            }),
        }
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cycle");
        assert_eq!(Cycle::load(&path).unwrap(), Found::Nothing);
        let cycle = Cycle::stopped(&window(7, 90, None), key(40));
        cycle.store(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 48);
        assert_eq!(Cycle::load(&path).unwrap(), Found::Cycle(cycle));
        let resume = Resume {
            key: key(40),
            end: Tid(90),
        };
        assert_eq!(cycle.resume(3), (Tid(7), Some(resume)));
    }

    #[test]
    fn the_originals_file() {
        // Element bases as its kernel leaves them: a record's, deleted or not.
        let mut base = Base::from_key(key(40));
        base.btype = b'R';
        base.delete_tid.set(77);
        let cycle = Cycle {
            base,
            begin: U64::new(7),
        };
        // It does not say where the window ended: all of it once more.
        assert_eq!(cycle.stopped_at(3), Some(key(40)));
        assert_eq!(cycle.resume(3), (Tid(7), None));
        // Its layout: the key's parts and the TID at the end.
        let bytes = cycle.as_bytes();
        assert_eq!(
            (bytes[0], bytes[8], bytes[24], bytes[35], bytes[40]),
            (40, 5, 77, b'R', 7)
        );
    }

    #[test]
    fn stopped_again() {
        let stopped = |window: Window, obj| {
            let (begin, resume) = Cycle::stopped(&window, key(obj)).resume(3);
            let resume = resume.unwrap();
            (begin.0, resume.key.obj_id, resume.end.0)
        };
        // Below the old key: the old one stays. At it or behind: the new one.
        assert_eq!(stopped(window(7, 120, Some((40, 90))), 39), (7, 40, 90));
        assert_eq!(stopped(window(7, 120, Some((40, 90))), 40), (7, 40, 120));
        assert_eq!(stopped(window(7, 120, Some((40, 90))), 41), (7, 41, 120));
    }

    #[test]
    fn after_the_end_from_the_start() {
        let cycle = Cycle::finished(&window(7, 90, None));
        assert_eq!(cycle.resume(3), (Tid(7), None));
    }

    #[test]
    fn other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cycle");
        std::fs::write(&path, [0; 39]).unwrap();
        assert_eq!(Cycle::load(&path).unwrap(), Found::OldVersion);
        assert!(!path.exists());
        std::fs::write(&path, [0; 47]).unwrap();
        assert!(
            Cycle::load(&path)
                .unwrap_err()
                .to_string()
                .contains("47 bytes")
        );
        assert!(path.exists());
    }
}
