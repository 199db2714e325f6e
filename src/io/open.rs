//! Opening an image file or block device: which engine, direct or buffered, with the fallbacks
//! where the host refuses the better one.

use super::Device;
use super::buf::Pool;
use super::medium::Medium;
use super::posix::Posix;
use super::sys::{self, DirectAlign};
use super::uring::{self, Uring};
use crate::error::{Class, Error, Result};
use nix::libc;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Length of a pool slot, the longest transfer worth merging to.
const SLOT: usize = 1 << 20;
/// The highest alignment that a device may ask of its callers.
const ALIGN_MAX: usize = super::buf::ALIGN;
/// The alignment of devices that need none, so that callers behave the same on all.
const ALIGN_MIN: usize = 512;

/// Which interface of the kernel serves a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, or plain system calls where that is refused.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Plain system calls.
    Posix,
}

/// Whether transfers go past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Past it where the file system and the alignment allow.
    #[default]
    Auto,
    /// Past it or an error.
    On,
    /// Through it.
    Off,
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The interface.
    pub engine: Engine,
    /// Past the page cache or through it.
    pub direct: Direct,
    /// How many operations are in flight at most, 1 to 4096.
    pub depth: usize,
    /// Open for writing too. Without it nothing of the file is changed, not even its access time
    /// where the host allows that.
    pub write: bool,
    /// Byte of the file or device that becomes byte 0.
    pub offset: u64,
    /// Number of 1 MiB buffers that are kept and registered with the kernel.
    pub buffers: usize,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            engine: Engine::Auto,
            direct: Direct::Auto,
            depth: 32,
            write: false,
            offset: 0,
            buffers: 32,
        }
    }
}

/// Opens the image file or block device at `path`.
///
/// Errors name the path (and offset): of class `Usage` where the request cannot be met, `Io` where
/// the host refuses.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Device>> {
    let name = name(path, options.offset);
    open_named(path, &name, options).map_err(|error| error.context(&name))
}

/// The name of a volume in messages: its path, with `@OFFSET` (bytes) unless that is 0.
pub fn name(path: &Path, offset: u64) -> String {
    match offset {
        0 => path.display().to_string(),
        offset => format!("{}@{offset}", path.display()),
    }
}

fn open_named(path: &Path, name: &str, options: &OpenOptions) -> Result<Box<dyn Device>> {
    if !(1..=4096).contains(&options.depth) {
        return Err(Error::usage("the queue depth must be 1 to 4096"));
    }
    let buffers = u16::try_from(options.buffers).ok().filter(|n| *n <= 1024);
    let Some(buffers) = buffers else {
        return Err(Error::usage("at most 1024 buffers can be registered"));
    };
    let medium = open_medium(path, name, options)?;
    let pool = Pool::new(buffers, SLOT);
    let posix = |medium, pool| Box::new(Posix::new(medium, options.depth, pool));
    if options.engine == Engine::Posix {
        return Ok(posix(medium, pool));
    }
    match uring::ring(options.depth) {
        Ok(ring) => Ok(Box::new(Uring::new(ring, medium, options.depth, pool))),
        Err(error) if options.engine == Engine::Uring => {
            Err(Error::io("io_uring is refused (--io posix works)", error))
        }
        Err(_) => Ok(posix(medium, pool)),
    }
}

fn open_medium(path: &Path, name: &str, options: &OpenOptions) -> Result<Medium> {
    let found = std::fs::metadata(path).map_err(|e| Error::io("cannot be opened", e))?;
    check_kind(&found)?;
    let plain = open_file(path, options.write, 0).map_err(|e| refused(e, options.write))?;
    let opened = plain
        .metadata()
        .map_err(|e| Error::io("cannot be examined", e))?;
    check_kind(&opened)?;
    let (end, sector) = if opened.file_type().is_block_device() {
        let facts = sys::block_facts(&plain).map_err(|e| Error::io("cannot be examined", e))?;
        if options.write && facts.read_only {
            return Err(Error::new(Class::Io, "the device is read-only"));
        }
        // The kernel gives nothing of a last sector that is not whole.
        let end = facts.size - facts.size % facts.logical_sector as u64;
        (end, Some(facts.logical_sector))
    } else {
        (opened.len(), None)
    };
    let Some(size) = end.checked_sub(options.offset) else {
        return Err(Error::usage(format!(
            "the offset is beyond the end at {end}"
        )));
    };
    let direct = match options.direct {
        Direct::Off => None,
        wanted => match open_direct(path, &opened, sector, options) {
            Ok(found) => Some(found),
            Err(error) if wanted == Direct::On => return Err(error),
            Err(_) => None,
        },
    };
    let (direct, align) = match direct {
        Some((file, align)) => (Some(file), align),
        None => (None, sector.unwrap_or(ALIGN_MIN).min(ALIGN_MAX)),
    };
    Ok(Medium {
        path: path.to_owned(),
        name: name.to_owned(),
        plain,
        direct,
        base: options.offset,
        size,
        align,
        write: options.write,
    })
}

/// Refuses what is neither a regular file nor a block device.
pub(super) fn check_kind(found: &Metadata) -> Result<()> {
    let kind = found.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a character device"
    };
    let text = format!("is {what}; a volume is an image file or a block device");
    Err(Error::usage(text))
}

fn refused(error: io::Error, write: bool) -> Error {
    let how = if write { "writing" } else { "reading" };
    Error::io(format!("cannot be opened for {how}"), error)
}

/// Opens without touching the access time, where the host lets this user do that.
fn open_file(path: &Path, write: bool, flags: i32) -> io::Result<File> {
    let open = |flags| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(path)
    };
    match open(flags | libc::O_NOATIME) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(flags),
        result => result,
    }
}

/// A descriptor for direct transfers, and their alignment.
fn open_direct(
    path: &Path,
    plain: &Metadata,
    sector: Option<usize>,
    options: &OpenOptions,
) -> Result<(File, usize)> {
    let refused = |e| Error::io("direct transfers are refused (--direct off works)", e);
    let file = open_file(path, options.write, libc::O_DIRECT).map_err(refused)?;
    let opened = file.metadata().map_err(refused)?;
    if (opened.dev(), opened.ino(), opened.rdev()) != (plain.dev(), plain.ino(), plain.rdev()) {
        return Err(Error::new(Class::Io, "was replaced while it was opened"));
    }
    let align = match sys::direct_align(&file) {
        DirectAlign::Refused => return Err(refused(io::ErrorKind::Unsupported.into())),
        DirectAlign::Bytes(align) => align,
        // Every known file system is content with this.
        DirectAlign::Unknown => sector.unwrap_or(ALIGN_MAX),
    };
    let align = align.max(sector.unwrap_or(ALIGN_MIN)).max(ALIGN_MIN);
    let align = align.checked_next_power_of_two().unwrap_or(usize::MAX);
    if align > ALIGN_MAX || !options.offset.is_multiple_of(align as u64) {
        let text = format!(
            "direct transfers need offsets in multiples of {align} bytes (--direct off works)"
        );
        return Err(Error::usage(text));
    }
    // Some file systems accept the flag and refuse the transfer.
    let mut trial = super::Buf::zeroed(align);
    match file.read_at(&mut trial, options.offset) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(refused(error)),
        _ => Ok((file, align)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::read_at;
    use std::io::Write;

    /// A file of `len` bytes that differ from place to place.
    fn sample(len: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).expect("room for the sample");
        (file, bytes)
    }

    #[test]
    fn any_range_at_any_offset() {
        let (file, bytes) = sample(70_003);
        for offset in [0, 4096, 512, 3] {
            let options = OpenOptions {
                offset,
                ..OpenOptions::default()
            };
            let mut device = open(file.path(), &options).expect("a file opens");
            let rest = &bytes[offset as usize..];
            assert_eq!(device.size(), rest.len() as u64);
            assert!(device.align() <= 4096);
            for (at, len) in [(0, 1), (1, 4095), (511, 2), (4096, 4096), (60_000, 5_000)] {
                let read = read_at(&mut *device, at as u64, len).expect("inside the file");
                assert_eq!(read, rest[at..at + len], "{len} at {at} from {offset}");
            }
            let whole = read_at(&mut *device, 0, rest.len()).expect("the tail too");
            assert_eq!(whole, rest);
            let beyond = read_at(&mut *device, rest.len() as u64, 1).expect_err("beyond the end");
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn what_is_no_volume() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let missing = folder.path().join("missing");
        for (path, text, class) in [
            (folder.path(), "is a directory", Class::Usage),
            (&pipe, "is a pipe", Class::Usage),
            (
                Path::new("/dev/null"),
                "is a character device",
                Class::Usage,
            ),
            (&missing, "No such file", Class::Io),
        ] {
            let error = open(path, &OpenOptions::default())
                .map(drop)
                .expect_err(text);
            let shown = error.to_string();
            assert!(shown.starts_with(&path.display().to_string()), "{shown}");
            assert!(shown.contains(text), "{shown}");
            assert_eq!(error.class(), class);
        }
        let (file, _) = sample(100);
        let options = OpenOptions {
            offset: 101,
            ..OpenOptions::default()
        };
        let error = open(file.path(), &options)
            .map(drop)
            .expect_err("beyond the end");
        assert!(
            error.to_string().contains("@101: the offset is beyond"),
            "{error}"
        );
    }
}
