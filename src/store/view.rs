//! The consistent picture.

use super::{Fetch, NodeRef, VolumeSet};
use crate::error::Result;
use crate::format::Offset;
use crate::format::volume::VolumeHeader;
use crate::io::Bytes;

/// How a view reads.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// Memory for metadata buffers, in bytes.
    pub cache_bytes: usize,
    /// Memory for data read ahead, in bytes.
    pub readahead_bytes: usize,
    /// Whether another process may be writing to the volumes meanwhile.
    pub live: bool,
}

impl Default for ViewOptions {
    fn default() -> ViewOptions {
        ViewOptions {
            cache_bytes: 64 << 20,
            readahead_bytes: 32 << 20,
            live: false,
        }
    }
}

/// What a view did to the devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read operations issued.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// A consistent picture of a volume set: the state that the UNDO FIFO leads back to.
pub struct View {}

impl View {
    /// Takes a view of `set`.
    pub fn open(set: VolumeSet, options: &ViewOptions) -> Result<View> {
        let _ = (set, options);
        todo!()
    }

    /// The volumes.
    pub fn volumes(&self) -> &VolumeSet {
        todo!()
    }

    /// What was read so far.
    pub fn counters(&self) -> Counters {
        todo!()
    }
}

impl Fetch for View {
    fn header(&self) -> &VolumeHeader {
        todo!()
    }
    fn bytes(&mut self, _: Offset, _: usize) -> Result<Bytes> {
        todo!()
    }
    fn node(&mut self, _: Offset) -> Result<NodeRef> {
        todo!()
    }
    fn want(&mut self, _: &[(Offset, usize)]) {
        todo!()
    }
    fn readahead(&self) -> usize {
        todo!()
    }
    fn forget(&mut self, _: Offset, _: usize) {
        todo!()
    }
}
