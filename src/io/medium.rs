//! An opened volume file or device node, and the rules of [`Device`](super::Device) that all
//! engines share: which requests are valid, and the latch.

use super::Op;
use super::buf::{ALIGN, Buf, Pool};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Shorter requests get memory of their own: a pool slot is too large to be held by them.
const SMALL: usize = 64 * 1024;

/// The descriptors and facts of one opened file or block device.
#[derive(Debug)]
pub(super) struct Medium {
    /// Where it was opened.
    pub path: PathBuf,
    /// Path, with `@OFFSET` where there is one.
    pub name: String,
    /// Transfers through the page cache: any offset and length.
    pub plain: File,
    /// Transfers past the page cache, where the host allows them.
    pub direct: Option<File>,
    /// Byte of the file that is byte 0 of the device.
    pub base: u64,
    /// Bytes from `base` to the end.
    pub size: u64,
    /// What [`Device::align`](super::Device::align) says.
    pub align: usize,
    /// Whether it was opened for writing.
    pub write: bool,
}

impl Medium {
    /// The descriptor for a transfer of `len` bytes at byte `at` of the device. A read that is too
    /// crooked for a direct transfer (a tail, what remains of one that was cut short) goes through
    /// the page cache; a write never does where others go past it, since the kernel fails the next
    /// flush when the two meet in a page.
    pub fn route(&self, at: u64, len: usize, write: bool) -> &File {
        let align = self.align as u64;
        match &self.direct {
            Some(direct)
                if write || at.is_multiple_of(align) && (len as u64).is_multiple_of(align) =>
            {
                direct
            }
            _ => &self.plain,
        }
    }

    /// Whether `op` must have the device to itself: a flush, and a crooked read beside which a
    /// direct write could meet it in a page.
    pub fn alone(&self, op: &Op) -> bool {
        match op {
            Op::Flush => true,
            Op::Read { buf, .. } => {
                self.write && self.direct.is_some() && !buf.len().is_multiple_of(self.align)
            }
            Op::Write { .. } => false,
        }
    }

    /// Whether `op` may be carried out.
    pub fn check(&self, op: &Op) -> io::Result<()> {
        if matches!(op, Op::Write { .. }) && !self.write {
            let text = "the device is open for reading only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        check_range(op, self.size, self.align)
    }

    /// Takes the outcome of a performed operation into account. A failed write or flush latches;
    /// except where the device cannot flush at all and was opened for reading only: nothing was
    /// written through it, and `Unsupported` tells the reader that it must find another proof that
    /// what it read is stable.
    pub fn settle(&self, latch: &mut Latch, op: &Op, result: io::Result<()>) -> io::Result<()> {
        use nix::libc::{EINVAL, ENOSYS, ENOTSUP, EROFS};
        let Err(error) = result else {
            return Ok(());
        };
        let impossible = match error.raw_os_error() {
            Some(code) => [EINVAL, ENOSYS, ENOTSUP, EROFS].contains(&code),
            None => false,
        };
        if impossible && !self.write && matches!(op, Op::Flush) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        latch.note(op, &error);
        Err(error)
    }

    /// The name of what begins at byte `offset` of the device.
    pub fn name_at(&self, offset: u64) -> String {
        super::open::name(&self.path, self.base.saturating_add(offset))
    }

    /// How transfers go, for people.
    pub fn how(&self) -> &'static str {
        match self.direct {
            Some(_) => "direct",
            None => "buffered",
        }
    }
}

/// Whether offset and length of `op` obey the contract of a device of `size` bytes with `align`.
pub(super) fn check_range(op: &Op, size: u64, align: usize) -> io::Result<()> {
    let (at, len) = match op {
        Op::Read { at, buf } | Op::Write { at, buf } => (*at, buf.len() as u64),
        Op::Flush => return Ok(()),
    };
    let end = at.checked_add(len).filter(|end| *end <= size);
    let Some(end) = end else {
        let kind = match op {
            Op::Read { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidInput,
        };
        let text = format!("{len} bytes at {at} reach beyond the end at {size}");
        return Err(io::Error::new(kind, text));
    };
    let align = align as u64;
    let tail = matches!(op, Op::Read { .. }) && end == size;
    if !at.is_multiple_of(align) || !(len.is_multiple_of(align) || tail) {
        let text = format!("{len} bytes at {at} are not aligned to {align}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // The kernel takes 32-bit lengths and stops short of 2 GiB.
    if len > i32::MAX as u64 - ALIGN as u64 {
        let text = format!("{len} bytes are too many for one transfer");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// Remembers the first failed write or flush, after which nothing about the device's contents is
/// known and every operation fails.
#[derive(Debug, Default)]
pub(super) struct Latch(Option<String>);

impl Latch {
    /// Fails if the device is latched.
    pub fn check(&self) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(cause) => {
                let text = format!("the device was given up after a failure ({cause}); reopen it");
                Err(io::Error::other(text))
            }
        }
    }

    /// Latches if `op`, which failed with `error`, is a write or a flush.
    pub fn note(&mut self, op: &Op, error: &io::Error) {
        if self.0.is_some() {
            return;
        }
        match op {
            Op::Read { .. } => {}
            Op::Write { at, buf } => {
                self.0 = Some(format!("writing {} bytes at {at}: {error}", buf.len()));
            }
            Op::Flush => self.0 = Some(format!("flushing: {error}")),
        }
    }
}

/// A buffer of `len` bytes, from `pool` if it is long enough to deserve a slot and one is free.
pub(super) fn buffer(pool: &Arc<Pool>, len: usize) -> Buf {
    let slot = if len >= SMALL { pool.take(len) } else { None };
    slot.unwrap_or_else(|| Buf::zeroed(len))
}
