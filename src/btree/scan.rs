//! The scan that mirroring stands on: leaves of a key range, subtrees without changes since a TID
//! left out (mirroring.md §4.2).

use crate::error::{Error, Result};
use crate::format::node::{Base, LeafElement};
use crate::format::{Key, Tid};
use crate::store::{Fetch, NodeRef};

/// What the scan finds next, in key order.
pub enum Step {
    /// Elements of one leaf within the range.
    Leaf(LeafStep),
    /// Nothing below `[from, to)` was created or deleted at or after the scan's TID. Bounds are
    /// those of the node that holds the children left out, cut to the range.
    Skip {
        /// First key of the space left out.
        from: Base,
        /// The key behind it.
        to: Base,
    },
    /// A node could not be read; what lies in `[from, to)` is unknown.
    Unreadable {
        /// First key of the unreadable space.
        from: Base,
        /// The key behind it.
        to: Base,
        /// Why.
        error: Error,
    },
}

/// Elements of one leaf.
pub struct LeafStep {
    /// The leaf.
    pub node: NodeRef,
    /// Index of the first element within the range.
    pub first: usize,
    /// Index behind the last one.
    pub end: usize,
}

impl LeafStep {
    /// The elements.
    pub fn elements(&self) -> &[LeafElement] {
        &self.node.leaves()[self.first..self.end]
    }
}

/// A scan of `[from, to]` (inclusive) for what was created or deleted at or after `tid_beg`.
///
/// The first leaf of the range is given even if it holds no such record (mirroring.md §4.2).
pub struct Scan {}

impl Scan {
    /// A scan before `from`.
    pub fn new(from: Key, to: Key, tid_beg: Tid) -> Scan {
        let _ = (from, to, tid_beg);
        todo!()
    }

    /// The next step; `None` at the end of the range. An error is one of the root or of the whole
    /// view; the scan is over then.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Step>> {
        let _ = fetch;
        todo!()
    }
}
