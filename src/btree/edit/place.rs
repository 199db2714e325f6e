//! Where an editor stands: copies of the nodes from the root down to a leaf, each with the range of
//! keys that is its own. Changes are made in the copies and written through.
//!
//! A node's own bounds can be narrower than those that its parent sets (format.md §10.1). What a
//! place remembers are the wide ones: no other node can hold the keys in between, and an insert
//! there widens the node first.

use super::Edit;
use crate::btree::path::{self, child_of};
use crate::error::Result;
use crate::format::node::{Element, InternalElement, LEAF_MAX, LeafElement, Node};
use crate::format::{Key, NODE_SIZE, Offset};
use std::mem::{offset_of, size_of};
use std::ops::Range;
use zerocopy::{IntoBytes, transmute_mut};

/// Bytes of a node before its elements.
const HEAD: usize = offset_of!(Node, elms);
/// Children announced at a time by a walk from leaf to leaf.
const AHEAD: usize = 16;

/// A node on the way.
#[derive(Debug)]
pub(super) struct Level {
    pub at: Offset,
    /// A copy of the node; its CRC is not kept up.
    pub node: Node,
    /// The child that the next level is; of no meaning in a leaf.
    pub index: usize,
    /// The first key that belongs here.
    pub left: Key,
    /// The first key behind.
    pub right: Key,
}

impl Level {
    fn holds(&self, key: Key) -> bool {
        self.left <= key && key < self.right
    }

    /// Where the child at `index` begins and ends.
    fn child_bounds(&self) -> (Key, Key) {
        let left = match self.index {
            0 => self.left,
            index => self.node.base(index).key(),
        };
        let right = match self.index + 1 {
            end if end == self.node.count() => self.right,
            index => self.node.base(index).key(),
        };
        (left, right)
    }

    /// The element of the child at `index`.
    pub fn element(&mut self) -> &mut InternalElement {
        &mut children(&mut self.node)[self.index]
    }

    /// Writes the head: count, type, parent, `mirror_tid`.
    pub fn write_head<T: Edit + ?Sized>(&self, txn: &mut T) -> Result<()> {
        // The CRC belongs to the store.
        let from = offset_of!(Node, reserved01);
        let bytes = txn.modify(self.at, HEAD)?;
        bytes[from..].copy_from_slice(&self.node.as_bytes()[from..HEAD]);
        Ok(())
    }

    /// Writes the elements in `range`.
    pub fn write_elements<T: Edit + ?Sized>(&self, txn: &mut T, range: Range<usize>) -> Result<()> {
        let place = |index| HEAD + index * size_of::<Element>();
        self.write(txn, place(range.start)..place(range.end))
    }

    /// Writes the bytes in `within` of the element `index`.
    pub fn write_within<T: Edit + ?Sized>(
        &self,
        txn: &mut T,
        index: usize,
        within: Range<usize>,
    ) -> Result<()> {
        let start = HEAD + index * size_of::<Element>();
        self.write(txn, start + within.start..start + within.end)
    }

    fn write<T: Edit + ?Sized>(&self, txn: &mut T, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let at = Offset(self.at.0 + range.start as u64);
        let bytes = txn.modify(at, range.len())?;
        bytes.copy_from_slice(&self.node.as_bytes()[range]);
        Ok(())
    }
}

/// The elements of a leaf, used or not.
pub(super) fn records(node: &mut Node) -> &mut [LeafElement; LEAF_MAX] {
    transmute_mut!(&mut node.elms)
}

/// The elements of an internal node, used or not.
pub(super) fn children(node: &mut Node) -> &mut [InternalElement; LEAF_MAX] {
    transmute_mut!(&mut node.elms)
}

/// The way from the root to where the editor stands; the last level is a leaf after
/// [`Place::seek`].
#[derive(Debug, Default)]
pub(super) struct Place {
    pub levels: Vec<Level>,
    /// The tree's stamp for which the copies are right; `None`: they are not.
    stamp: Option<u64>,
}

impl Place {
    /// Goes to the leaf that `key` belongs to, from as near as possible.
    pub fn seek<T: Edit + ?Sized>(&mut self, txn: &mut T, key: Key) -> Result<()> {
        let known = self.stamp.take() == Some(txn.tree_stamp());
        if known {
            while self.levels.len() > 1 && self.levels.last().is_some_and(|l| !l.holds(key)) {
                self.levels.pop();
            }
        } else {
            self.levels.clear();
        }
        if self.levels.is_empty() {
            let root = path::root(txn)?;
            self.push(root, Key::MIN, Key::MAX);
        }
        while self.descend(txn, |node| child_for(node, key))? {}
        self.stamp = Some(txn.tree_stamp());
        Ok(())
    }

    /// Goes to the next leaf that holds something; `false` if there is none.
    pub fn next_leaf<T: Edit + ?Sized>(&mut self, txn: &mut T) -> Result<bool> {
        let stamp = self.stamp.take();
        loop {
            let above = self.levels.len().saturating_sub(1);
            let more = |l: &Level| l.index + 1 < l.node.count();
            let Some(turn) = self.levels[..above].iter().rposition(more) else {
                self.stamp = stamp;
                return Ok(false);
            };
            self.levels.truncate(turn + 1);
            let next = self.levels[turn].index + 1;
            let mut fresh = false;
            self.announce(txn, next);
            self.enter(txn, next)?;
            while self.descend(txn, |_| 0)? {
                fresh = true;
            }
            if fresh && self.levels.len() > 1 {
                let parent = self.levels.len() - 2;
                announce(txn, &self.levels[parent], 1);
            }
            if self.leaf().node.count() > 0 {
                self.stamp = stamp;
                return Ok(true);
            }
        }
    }

    /// The leaf.
    pub fn leaf(&self) -> &Level {
        self.levels
            .last()
            .expect("a place that was sought has a root")
    }

    /// The leaf, to be changed.
    pub fn leaf_mut(&mut self) -> &mut Level {
        self.levels
            .last_mut()
            .expect("a place that was sought has a root")
    }

    /// Announces a change of the tree: everybody's memory of it ends. [`Place::changed`] takes the
    /// own one up again; an error in between leaves it forgotten.
    pub fn changing<T: Edit + ?Sized>(&mut self, txn: &mut T) {
        txn.bump_tree();
        self.stamp = None;
    }

    /// The copies are right for the tree as it is now.
    pub fn changed<T: Edit + ?Sized>(&mut self, txn: &mut T) {
        self.stamp = Some(txn.tree_stamp());
    }

    fn push(&mut self, level: path::Level, left: Key, right: Key) {
        self.levels.push(Level {
            at: level.at,
            node: *level.node,
            index: 0,
            left,
            right,
        });
    }

    /// Goes down one level, to the child that `choose` names; `false` in a leaf.
    fn descend<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        choose: impl Fn(&Node) -> usize,
    ) -> Result<bool> {
        let level = self.leaf();
        if level.node.is_leaf() {
            return Ok(false);
        }
        let index = choose(&level.node);
        self.enter(txn, index)?;
        Ok(true)
    }

    /// Goes down one level, to the child at `index`.
    fn enter<T: Edit + ?Sized>(&mut self, txn: &mut T, index: usize) -> Result<()> {
        let depth = self.levels.len();
        let level = self.leaf_mut();
        level.index = index;
        let (left, right) = level.child_bounds();
        let child = child_of(txn, &level.node, level.at, index, depth)?;
        self.push(child, left, right);
        Ok(())
    }

    /// Announces what a walk from leaf to leaf needs next, every few leaves.
    fn announce<T: Edit + ?Sized>(&self, txn: &mut T, next: usize) {
        if next.is_multiple_of(AHEAD) {
            announce(txn, self.leaf(), next);
        }
    }
}

fn announce<T: Edit + ?Sized>(txn: &mut T, level: &Level, first: usize) {
    let ahead = level.node.children().iter().skip(first);
    let extents: Vec<_> = ahead
        .take(AHEAD - first % AHEAD)
        .map(|e| (Offset(e.subtree_offset.get()), NODE_SIZE))
        .collect();
    if extents.len() > 1 {
        txn.want(&extents);
    }
}

/// The child of an internal node that `key` belongs to; at the edges the outer ones take what lies
/// in the gaps.
fn child_for(node: &Node, key: Key) -> usize {
    let children = node.children();
    let above = children.partition_point(|e| e.base.key() <= key);
    above.saturating_sub(1)
}
