//! Bytes at HAMMER addresses: volumes matched to a set, addresses translated, a consistent picture
//! of the medium.
//!
//! [`VolumeSet`] opens and checks volumes; [`View`] is the consistent picture, with the UNDO FIFO's
//! old bytes laid over what the device holds. Whatever can serve such a picture is a [`Fetch`].

mod alloc;
mod cache;
mod checkpoint;
mod disks;
pub mod fifo;
mod frames;
pub mod freemap;
mod live;
mod log;
mod overlay;
pub mod probe;
mod recover;
mod runs;
mod stage;
pub mod txn;
pub mod undo;
pub mod usage;
pub mod view;
pub mod volumes;

pub use disks::Counters;
use disks::Disks;
pub use overlay::Overlay;
pub use txn::{Durable, Recovered, Store, StoreOptions, Txn, Written};
pub use view::{View, ViewOptions};
pub use volumes::VolumeSet;

use crate::error::Result;
use crate::format::node::Node;
use crate::format::volume::VolumeHeader;
use crate::format::{NODE_SIZE, Offset};
use crate::io::Bytes;
use std::ops::Deref;

/// A consistent picture of a volume set, read by HAMMER address.
///
/// Addresses are of zones 2, 4 and 8 to 15. Bytes are as of the picture, whatever happens to the
/// device meanwhile. Errors are of class `Damage` (the address is impossible, a checksum is wrong),
/// `Io` (the device does not give the bytes) or `Expired` (the picture is gone; take a new one).
pub trait Fetch {
    /// The root volume's header in this picture.
    fn header(&self) -> &VolumeHeader;

    /// `len` bytes at `at`; `len` is at most 64 KiB and the range lies within one big-block.
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes>;

    /// The B-Tree node at `at`, its CRC and its shape (type, count, order) checked.
    fn node(&mut self, at: Offset) -> Result<NodeRef>;

    /// Announces that these extents (address, length) will be asked for soon, in this order or
    /// another. Never fails: an extent that cannot be read fails when it is asked for.
    fn want(&mut self, extents: &[(Offset, usize)]);

    /// How many bytes of announced extents are worth having under way at a time.
    fn readahead(&self) -> usize;

    /// Forgets what was read at this place, so that the next request reads it anew: before a wrong
    /// checksum counts as damage.
    fn forget(&mut self, at: Offset, len: usize);

    /// The file system's version: the root volume's.
    fn version(&self) -> u32 {
        self.header().version.get()
    }
}

impl<F: Fetch + ?Sized> Fetch for &mut F {
    fn header(&self) -> &VolumeHeader {
        (**self).header()
    }
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        (**self).bytes(at, len)
    }
    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        (**self).node(at)
    }
    fn want(&mut self, extents: &[(Offset, usize)]) {
        (**self).want(extents);
    }
    fn readahead(&self) -> usize {
        (**self).readahead()
    }
    fn forget(&mut self, at: Offset, len: usize) {
        (**self).forget(at, len);
    }
}

/// A node in shared memory.
#[derive(Clone, Debug)]
pub struct NodeRef(Bytes);

impl NodeRef {
    /// The node in `bytes`; `None` unless that is exactly one node.
    pub fn new(bytes: Bytes) -> Option<NodeRef> {
        (bytes.len() == NODE_SIZE).then_some(NodeRef(bytes))
    }
}

impl Deref for NodeRef {
    type Target = Node;

    fn deref(&self) -> &Node {
        // `new` saw to the length, and a node has no invalid bit patterns.
        Node::from_bytes(&self.0).expect("exactly one node")
    }
}
