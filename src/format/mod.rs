//! The disk and the wire as types: layouts with offsets asserted at compile time, addresses,
//! TIDs and zones as newtypes, checksums, the rules a medium can violate. No I/O.
//!
//! All multi-byte fields are little-endian. Nothing outside this room knows a byte offset of the
//! format. `on-disk-format.md` tells the same in words.

pub mod addr;
pub mod crc;
pub mod fault;
pub mod fifo;
pub mod freemap;
pub mod key;
pub mod mark;
pub mod mrecord;
pub mod namehash;
pub mod node;
pub mod record;
pub mod volume;

pub use addr::{Offset, Tid, Zone};
pub use crc::CrcKind;
pub use fault::{Fault, Rule};
pub use key::{Key, Localization};

/// The unit of metadata I/O in bytes; no structure of up to this size crosses its boundary.
pub const BUFFER: usize = 16384;
/// Data block size in bytes for file offsets from [`DEMARC`] on; the largest `data_len`.
pub const XBUFFER: usize = 65536;
/// File offset in bytes where the data block size changes from [`BUFFER`] to [`XBUFFER`].
pub const DEMARC: u64 = 1 << 20;
/// Largest size in bytes of a file kept in one short block.
pub const HALF_BUFFER: u64 = 8192;
/// The unit of space ownership in bytes.
pub const BIGBLOCK: u64 = 1 << 23;
/// Size in bytes of a B-Tree node.
pub const NODE_SIZE: usize = 4096;
/// Allocation granularity in bytes.
pub const ALIGNMENT: u64 = 16;
/// File data of at least this many bytes lives in zone 10, shorter data in zone 11.
pub const LARGE_DATA: u32 = 16384;
/// Number of volumes a file system can have.
pub const VOLUMES_MAX: usize = 256;
/// Number of pseudo file systems a file system can have.
pub const PFS_MAX: u32 = 65536;
/// Number of big-blocks the UNDO FIFO can have.
pub const UNDO_BIGBLOCKS_MAX: usize = 128;
/// Object id of every PFS's root directory.
pub const ROOT_OBJ: i64 = 1;

/// `len` rounded up to the allocation granularity.
pub fn align16(len: u64) -> u64 {
    len.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// Data block size in bytes at file offset `at` (format.md §14).
pub fn block_size(at: u64) -> u64 {
    if at < DEMARC {
        BUFFER as u64
    } else {
        XBUFFER as u64
    }
}
