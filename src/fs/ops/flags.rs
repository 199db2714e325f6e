//! `chflags` bits and what they forbid (format.md §12).

use super::refused;
use crate::error::Result;
use crate::format::record::InodeData;

/// Not to be dumped; inherited from the directory.
pub const NODUMP: u32 = 0x1;
/// Nothing of it may change: set by the owner or by root.
pub const IMMUTABLE: u32 = 0x2 | 0x2_0000;
/// Bytes may only be added at its end.
pub const APPEND: u32 = 0x4 | 0x4_0000;
/// It may not be removed or renamed.
pub const NOUNLINK: u32 = 0x10 | 0x10_0000;
/// What is replaced is destroyed; inherited from the directory.
pub const NOHISTORY: u32 = 0x40 | 0x40_0000;
/// What a new object has from its directory.
pub const INHERITED: u32 = NOHISTORY | NODUMP;

/// Whether what is replaced of this object's records is kept as history.
pub fn keeps_history(inode: &InodeData) -> bool {
    inode.uflags.get() & NOHISTORY == 0
}

/// Refuses to do `what` to an object that has one of the bits `forbidden`.
pub fn check(inode: &InodeData, forbidden: u32, what: &str) -> Result<()> {
    let found = inode.uflags.get() & forbidden;
    let flag = if found & IMMUTABLE != 0 {
        "immutable"
    } else if found & APPEND != 0 {
        "append-only"
    } else if found != 0 {
        "not to be unlinked"
    } else {
        return Ok(());
    };
    Err(refused(format!("cannot {what}: it is flagged {flag}")))
}
