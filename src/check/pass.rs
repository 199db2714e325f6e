//! Leaves in key order with their data under way: the walk runs ahead by as many bytes as the
//! picture's readahead, and announces data in order of address.

use super::Run;
use super::tree::{Leaf, Walk};
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::{Key, Offset};
use crate::store::Fetch;
use std::collections::VecDeque;
use std::ops::Range;

/// Leaves that may wait: each keeps a metadata buffer in memory.
const WAITING_MAX: usize = 64;

/// Some elements of a leaf, their data announced.
pub(super) struct Item {
    pub leaf: Leaf,
    pub range: Range<usize>,
    bytes: usize,
}

/// Decides whether the data of an element will be asked for, and where it lies.
pub(super) type Wanted<'a> = &'a dyn Fn(&LeafElement) -> Option<(Offset, usize)>;

/// The pass.
pub(super) struct Pass {
    walk: Walk,
    queue: VecDeque<Item>,
    bytes: usize,
    ended: bool,
}

impl Pass {
    /// A pass over the leaves that can hold keys in `[from, to]`.
    pub fn new(from: Key, to: Key) -> Pass {
        Pass {
            walk: Walk::new(from, to),
            queue: VecDeque::new(),
            bytes: 0,
            ended: false,
        }
    }

    /// The next elements; `run` as in [`Walk::next`].
    pub fn next<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        mut run: Option<&mut Run<'_>>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Item>> {
        let budget = fetch.readahead().max(1 << 20);
        while !self.ended
            && self.queue.len() < WAITING_MAX
            && (self.bytes < budget / 2 || self.queue.is_empty())
        {
            match self.walk.next(fetch, run.as_deref_mut())? {
                Some(leaf) => self.announce(fetch, leaf, wanted, budget / 4),
                None => self.ended = true,
            }
        }
        let item = self.queue.pop_front();
        if let Some(item) = &item {
            self.bytes -= item.bytes;
        }
        Ok(item)
    }

    /// Queues a leaf in parts of about `part` bytes of data each, and announces the data.
    fn announce<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        leaf: Leaf,
        wanted: Wanted<'_>,
        part: usize,
    ) {
        let elements = leaf.node.leaves();
        let mut start = 0;
        while start < elements.len() {
            let (mut end, mut bytes) = (start, 0);
            let mut extents = Vec::new();
            while end < elements.len() && bytes < part {
                if let Some((at, len)) = wanted(&elements[end]) {
                    extents.push((at, len));
                    bytes += len;
                }
                end += 1;
            }
            extents.sort_unstable();
            fetch.want(&extents);
            self.bytes += bytes;
            self.queue.push_back(Item {
                leaf: leaf.clone(),
                range: start..end,
                bytes,
            });
            start = end;
        }
    }
}
