//! Locks between programs: byte ranges of the volume file or device node itself, held by an open
//! description (so that two handles in one process exclude each other too) and gone when it is
//! closed or the process ends. No lock file, no byte written.
//!
//! Byte 0 belongs to writers (exclusive) and offline readers (shared), byte 1+N to whoever applies
//! a stream to the slave PFS N. Readers of a live volume take none. For a volume inside a larger
//! device, the bytes are counted from the volume's offset, so that two volumes of one device do
//! not exclude each other.

use super::open::{check_kind, name};
use crate::error::{Class, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long to pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// What to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Read a volume that nobody changes meanwhile: byte 0, shared. Works on read-only media.
    Read,
    /// Change a volume: byte 0, exclusive.
    Write,
    /// Apply a stream to the slave PFS of this number: byte 1+N, exclusive.
    Stream(u16),
}

impl Lock {
    fn byte(self) -> u64 {
        match self {
            Lock::Read | Lock::Write => 0,
            Lock::Stream(pfs) => 1 + u64::from(pfs),
        }
    }

    fn exclusive(self) -> bool {
        self != Lock::Read
    }
}

/// A lock that is held; dropping it releases.
#[derive(Debug)]
pub struct LockGuard {
    // Closing the description releases what it holds.
    _file: File,
    /// Of the file under a loop device.
    _below: Option<Box<LockGuard>>,
}

impl LockGuard {
    fn of(file: File) -> LockGuard {
        LockGuard {
            _file: file,
            _below: None,
        }
    }
}

/// Locks the volume at byte `offset` of the file or block device at `path`: byte `offset` plus the
/// byte of `kind`. Waits up to `wait` for another holder to go.
///
/// Errors name the volume: class `Busy` when it is still held after `wait`, `Io` where it cannot be
/// opened for this or the file system has no locks.
pub fn acquire(path: &Path, offset: u64, kind: Lock, wait: Duration) -> Result<LockGuard> {
    acquire_unless(path, offset, kind, wait, &mut || Ok(()))
}

/// As [`acquire`]; asks `goes_on` while it waits, and gives up with the error that this returns.
pub fn acquire_unless(
    path: &Path,
    offset: u64,
    kind: Lock,
    wait: Duration,
    goes_on: &mut dyn FnMut() -> Result<()>,
) -> Result<LockGuard> {
    let name = name(path, offset);
    let mut guard =
        acquire_named(path, offset, kind, wait, goes_on).map_err(|error| error.context(&name))?;
    // Whoever opens the file under a loop device must meet whoever opens the device.
    if let Some((file, start)) = loop_file(path) {
        let below = start.checked_add(offset);
        let below = below.map(|at| acquire_named(&file, at, kind, wait, goes_on));
        match below {
            Some(Ok(below)) => guard._below = Some(Box::new(below)),
            Some(Err(error)) if error.class() == Class::Busy => {
                return Err(error.context(format!("{name} ({})", file.display())));
            }
            // A file that is gone, or not ours to open, is nobody's to open by its name.
            _ => {}
        }
    }
    Ok(guard)
}

/// The file that the loop device at `path` shows, and from which byte on.
fn loop_file(path: &Path) -> Option<(PathBuf, u64)> {
    let found = std::fs::metadata(path).ok()?;
    if !found.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
    let about = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/loop"));
    let read = |name: &str| std::fs::read_to_string(about.join(name)).ok();
    let file = PathBuf::from(read("backing_file")?.trim_end_matches('\n'));
    let start = read("offset")?.trim().parse().ok()?;
    Some((file, start))
}

/// The loop device that shows the file at `path` and is mounted, or claimed by somebody.
fn loop_in_use(path: &Path) -> Option<PathBuf> {
    let own = path.canonicalize().ok()?;
    let loops = std::fs::read_dir("/sys/block").ok()?.flatten();
    let names = loops.map(|entry| entry.file_name());
    let devices = names.filter(|name| name.as_encoded_bytes().starts_with(b"loop"));
    devices
        .map(|name| Path::new("/dev").join(name))
        .find(|device| {
            let shows = loop_file(device).is_some_and(|(file, _)| file == own);
            shows && exclusively(device).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy)
        })
}

fn exclusively(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_EXCL).open(path)
}

fn acquire_named(
    path: &Path,
    offset: u64,
    kind: Lock,
    wait: Duration,
    goes_on: &mut dyn FnMut() -> Result<()>,
) -> Result<LockGuard> {
    let place = offset.checked_add(kind.byte());
    let Some(place) = place.and_then(|place| i64::try_from(place).ok()) else {
        return Err(Error::usage("the offset is beyond any file"));
    };
    let found = std::fs::metadata(path).map_err(|e| Error::io("cannot be opened", e))?;
    check_kind(&found)?;
    let file = OpenOptions::new()
        .read(true)
        .write(kind.exclusive())
        .open(path)
        .map_err(|e| Error::io("cannot be opened to lock it", e))?;
    let start = Instant::now();
    loop {
        let wanted = range(kind, place);
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(_) => return Ok(LockGuard::of(file)),
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
            Err(error) => return Err(Error::io("cannot be locked", error.into())),
        }
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(busy(&file, kind, place, wait));
        }
        goes_on()?;
        thread::sleep(left.min(PAUSE));
    }
}

/// One byte at `place`, as the kernel wants it described.
fn range(kind: Lock, place: i64) -> libc::flock {
    let how = match kind.exclusive() {
        true => libc::F_WRLCK,
        false => libc::F_RDLCK,
    };
    libc::flock {
        l_type: how as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: place,
        l_len: 1,
        // Must be zero for locks of an open description.
        l_pid: 0,
    }
}

/// Says who holds the lock and what to do.
fn busy(file: &File, kind: Lock, place: i64, waited: Duration) -> Error {
    let mut holder = range(kind, place);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut holder));
    let shared = asked.is_ok() && i32::from(holder.l_type) == libc::F_RDLCK;
    let who = match kind {
        Lock::Stream(pfs) => format!("another stream into PFS {pfs} is running"),
        _ if shared => "another program is reading the volume".to_owned(),
        _ => "another program is writing to the volume".to_owned(),
    };
    let tenths = waited.as_millis().div_ceil(100);
    let after = match (tenths / 10, tenths % 10) {
        (0, 0) => String::new(),
        (seconds, 0) => format!(" after {seconds} s"),
        (seconds, tenth) => format!(" after {seconds}.{tenth} s"),
    };
    let advice = match kind {
        Lock::Read => "; wait for it with --lock-wait SECS, or read beside it with --live",
        _ => "; wait for it with --lock-wait SECS",
    };
    Error::new(Class::Busy, format!("busy{after}: {who}{advice}"))
}

/// Claims the block device at `path` for writing, beyond the locks that only our own programs
/// know: refused (class `Busy`) while it is mounted or part of something else on this host. The
/// claim lasts until the guard is dropped. Regular files cannot be claimed: `None`.
pub fn claim(path: &Path) -> Result<Option<LockGuard>> {
    let context = |error: Error| error.context(path.display());
    let found = std::fs::metadata(path).map_err(|e| context(Error::io("cannot be opened", e)))?;
    check_kind(&found).map_err(context)?;
    if !found.file_type().is_block_device() {
        return match loop_in_use(path) {
            None => Ok(None),
            Some(device) => {
                let text = format!(
                    "busy: {} shows it, and is mounted or in use",
                    device.display()
                );
                Err(context(Error::new(Class::Busy, text)))
            }
        };
    }
    match exclusively(path) {
        Ok(file) => Ok(Some(LockGuard::of(file))),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let text = "busy: the device is mounted or in use on this host; unmount it first";
            Err(context(Error::new(Class::Busy, text)))
        }
        Err(error) => Err(context(Error::io("cannot be claimed", error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn who_excludes_whom() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path();
        let kinds = [Lock::Read, Lock::Write, Lock::Stream(0), Lock::Stream(1)];
        for first in kinds {
            let held = acquire(path, 0, first, NOW).expect("nobody holds it");
            for second in kinds {
                let free = match (first, second) {
                    (Lock::Read, Lock::Read) => true,
                    _ => first.byte() != second.byte(),
                };
                let result = acquire(path, 0, second, NOW);
                assert_eq!(result.is_ok(), free, "{second:?} beside {first:?}");
                if let Err(error) = result {
                    assert_eq!(error.class(), Class::Busy);
                    let text = error.to_string();
                    assert!(text.contains(&path.display().to_string()), "{text}");
                    assert!(text.contains("--lock-wait"), "{text}");
                    let reading = text.contains("is reading");
                    assert_eq!(reading, first == Lock::Read, "{text}");
                }
                // Another volume of the same device.
                acquire(path, 1 << 20, second, NOW).expect("other bytes");
            }
            drop(held);
            acquire(path, 0, first, NOW).expect("released");
        }
    }

    #[test]
    fn waiting_ends_with_the_holder_or_the_time() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let held = acquire(file.path(), 0, Lock::Write, NOW).expect("nobody holds it");
        let start = Instant::now();
        let wait = Duration::from_millis(60);
        acquire(file.path(), 0, Lock::Read, wait).expect_err("still held");
        assert!(start.elapsed() >= wait);
        let wait = Duration::from_nanos(1_499_999_609);
        let text = busy(
            &File::open(file.path()).expect("a file"),
            Lock::Read,
            0,
            wait,
        );
        assert!(text.to_string().contains("busy after 1.5 s:"), "{text}");
        let wait = Duration::from_secs(60);
        let mut asked = 0;
        let mut no = || {
            asked += 1;
            Err(Error::new(Class::Interrupted, "enough"))
        };
        let error = acquire_unless(file.path(), 0, Lock::Read, wait, &mut no).expect_err("enough");
        assert_eq!((error.class(), asked), (Class::Interrupted, 1));
        let wait = Duration::from_millis(60);
        let holder = thread::spawn(move || {
            thread::sleep(wait);
            drop(held);
        });
        acquire(file.path(), 0, Lock::Read, Duration::from_secs(60)).expect("released meanwhile");
        holder.join().expect("no panic");
    }

    #[test]
    fn files_are_not_claimed() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert!(claim(file.path()).expect("a file").is_none());
    }
}
