//! What the host says about a file or device node: the ioctls of block devices, the alignment that
//! direct transfers need, the names of extended attributes.
#![allow(unsafe_code)]

use nix::libc;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

mod raw {
    //! The calls themselves, with the numbers of Linux' `fs.h`.
    use nix::libc::{c_int, c_uint};
    use std::mem::size_of;

    nix::ioctl_read_bad!(
        /// Size in bytes. The number is encoded with the size of a `size_t`, the value is a u64.
        get_size64,
        nix::request_code_read!(0x12, 114, size_of::<usize>()),
        u64
    );
    nix::ioctl_read_bad!(
        /// Logical sector in bytes.
        get_logical_sector,
        nix::request_code_none!(0x12, 104),
        c_int
    );
    nix::ioctl_read_bad!(
        /// Physical sector in bytes.
        get_physical_sector,
        nix::request_code_none!(0x12, 123),
        c_uint
    );
    nix::ioctl_read_bad!(
        /// Not zero if the device is read-only.
        get_read_only,
        nix::request_code_none!(0x12, 94),
        c_int
    );
}

/// The names of the extended attributes of `path`, a NUL behind each; a symlink's own.
pub fn attribute_names(path: &Path) -> io::Result<Vec<u8>> {
    /// The kernel's own limit of such a list.
    const NAMES_MAX: usize = 65536;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // Most files have none, which the length says.
    // SAFETY: a NUL-terminated path; with a length of zero nothing is written.
    let len = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    if len <= 0 {
        return match len {
            0 => Ok(Vec::new()),
            _ => Err(io::Error::last_os_error()),
        };
    }
    let mut names = vec![0_u8; NAMES_MAX];
    // SAFETY: a NUL-terminated path, and a buffer of the length that is given.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    names.truncate(len);
    Ok(names)
}

/// What a block device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Size in bytes.
    pub size: u64,
    /// Smallest unit that the device transfers, in bytes.
    pub logical_sector: usize,
    /// Unit that the device writes without reading first, in bytes.
    pub physical_sector: usize,
    /// Whether the device refuses writes.
    pub read_only: bool,
}

/// Asks the block device behind `file`.
pub fn block_facts(file: &File) -> io::Result<BlockFacts> {
    let fd = file.as_raw_fd();
    let mut size = 0_u64;
    let mut logical: libc::c_int = 0;
    let mut physical: libc::c_uint = 0;
    let mut read_only: libc::c_int = 0;
    // SAFETY: `fd` is open for as long as `file` is borrowed, and each pointer is to a live local
    // of the type that the call writes: a u64 for the first, an int for the others.
    unsafe {
        raw::get_size64(fd, &mut size)?;
        raw::get_logical_sector(fd, &mut logical)?;
        raw::get_physical_sector(fd, &mut physical)?;
        raw::get_read_only(fd, &mut read_only)?;
    }
    let logical_sector = usize::try_from(logical).unwrap_or(0).max(512);
    let physical_sector = usize::try_from(physical).unwrap_or(0);
    Ok(BlockFacts {
        size,
        logical_sector,
        physical_sector: physical_sector.max(logical_sector),
        read_only: read_only != 0,
    })
}

/// What direct transfers on a file need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectAlign {
    /// The kernel does not say.
    Unknown,
    /// Direct transfers are refused.
    Refused,
    /// Offsets, lengths and addresses must be multiples of this many bytes.
    Bytes(usize),
}

/// Asks for the alignment that direct transfers on `file` need.
pub fn direct_align(file: &File) -> DirectAlign {
    // SAFETY: all-zero bytes are a valid `statx` structure of plain integers.
    let mut stat: libc::statx = unsafe { zeroed() };
    // SAFETY: the descriptor is open, the path is an empty C string (with AT_EMPTY_PATH: the
    // descriptor itself), and `stat` is a live structure of the type that the call fills.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut stat,
        )
    };
    if result != 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return DirectAlign::Unknown;
    }
    match stat.stx_dio_mem_align.max(stat.stx_dio_offset_align) as usize {
        _ if stat.stx_dio_offset_align == 0 => DirectAlign::Refused,
        align => DirectAlign::Bytes(align),
    }
}

const _: () = assert!(size_of::<libc::c_int>() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_block_device() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(block_facts(&file).is_err());
    }
}
