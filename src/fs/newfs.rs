//! A fresh file system on devices (format.md §4.4).

use crate::error::Result;
use crate::io::Device;

/// What to make.
#[derive(Clone, Debug)]
pub struct NewFs {
    /// The label, 1 to 63 bytes.
    pub label: Vec<u8>,
    /// File system version, 4 to 7.
    pub version: u32,
    /// Size of the UNDO FIFO in bytes, whole big-blocks; `None`: by the size of volume 0.
    pub undo_bytes: Option<u64>,
    /// The file system id, random.
    pub fsid: [u8; 16],
    /// Microseconds since 1970.
    pub now: u64,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Size of the UNDO FIFO in bytes.
    pub undo_bytes: u64,
    /// Big-blocks for nodes and data.
    pub bigblocks: u64,
}

/// Makes a file system on `devices`, volume 0 first, and makes it stable. The volume headers are
/// written last: until then nothing looks like a volume.
pub fn newfs(devices: &mut [Box<dyn Device>], what: &NewFs) -> Result<Made> {
    let _ = (devices, what);
    todo!()
}
