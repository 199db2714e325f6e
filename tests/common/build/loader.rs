//! Packs a B-Tree bottom-up from elements in key order.
//!
//! One node is open at every level. A node that is full is closed when the next element for its
//! level arrives: only then is it certain that it needs a parent. Its parent is the node open one
//! level up, which gets its address with its first child.

use super::disk::{Disk, Lane};
use mallet::format::node::{
    Base, Element, INTERNAL, INTERNAL_MAX, InternalElement, LEAF, LEAF_MAX, LeafElement, Node,
};
use mallet::format::{CrcKind, Key, NODE_SIZE, Offset, Tid, Zone};
use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromZeros, IntoBytes, transmute};

/// A node being filled.
struct Open {
    at: Offset,
    /// The left bound, as the parent will say it.
    bound: Base,
    node: Box<Node>,
}

/// The levels being filled, leaves first.
pub struct Loader {
    crc: CrcKind,
    /// Records a leaf gets.
    pub leaf_max: usize,
    internal_max: usize,
    levels: Vec<Open>,
    last: Key,
    /// Leaves closed so far.
    pub leaves: u64,
    /// Internal nodes closed so far.
    pub internals: u64,
}

/// The left bound of the whole tree (format.md §8.3).
fn tree_begin() -> Base {
    let mut base = Base::from_key(Key::MIN);
    base.delete_tid = U64::new(1);
    base
}

fn open(disk: &mut Disk, kind: u8, bound: Base) -> Open {
    let mut node = Node::new_box_zeroed().expect("memory for a node");
    node.kind = kind;
    let lane = Lane {
        zone: Zone::BTREE,
        late: false,
    };
    Open {
        at: disk.allocate(lane, NODE_SIZE as u64),
        bound,
        node,
    }
}

impl Open {
    fn push(&mut self, element: Element, mirror_tid: u64) {
        let count = self.node.count();
        self.node.elms[count] = element;
        self.node.count = I32::new(count as i32 + 1);
        let mirror_tid = mirror_tid.max(self.node.mirror_tid.get());
        self.node.mirror_tid = U64::new(mirror_tid);
    }
}

impl Loader {
    /// An empty tree whose nodes will be `fill` full.
    pub fn new(disk: &mut Disk, crc: CrcKind, fill: f64) -> Loader {
        let share = |max: usize| ((max as f64 * fill).round() as usize).clamp(2, max);
        Loader {
            crc,
            leaf_max: share(LEAF_MAX),
            internal_max: share(INTERNAL_MAX),
            levels: vec![open(disk, LEAF, tree_begin())],
            last: Key::MIN,
            leaves: 0,
            internals: 0,
        }
    }

    /// The open leaf's number and how many elements it holds; a full one counts as closed.
    pub fn leaf(&self) -> (u64, usize) {
        let count = self.levels[0].node.count();
        if count == self.leaf_max {
            (self.leaves + 1, 0)
        } else {
            (self.leaves, count)
        }
    }

    /// Adds a record.
    pub fn push(&mut self, disk: &mut Disk, element: LeafElement) {
        let key = element.base.key();
        assert!(self.last < key, "{key} follows {}", self.last);
        self.last = key;
        if self.levels[0].node.count() == self.leaf_max {
            // The next leaf's first key is a valid separator; its other fields do not count.
            let bound = Base::from_key(key);
            self.close(disk, 0, bound);
            self.levels[0] = open(disk, LEAF, bound);
        }
        let tid = element.base.create_tid().max(element.base.delete_tid());
        self.levels[0].push(transmute!(element), tid.0);
    }

    /// Closes the open node of `level`, whose right bound is `next`, into its parent. The level is
    /// left for the caller to open anew.
    fn close(&mut self, disk: &mut Disk, level: usize, next: Base) {
        let bound = self.levels[level].bound;
        let up = level + 1;
        if up == self.levels.len() {
            let parent = open(disk, INTERNAL, bound);
            self.levels.push(parent);
        } else if self.levels[up].node.count() == self.internal_max {
            self.close(disk, up, bound);
            self.levels[up] = open(disk, INTERNAL, bound);
        }
        let parent = self.levels[up].at;
        let (at, kind, mirror_tid) = self.write(disk, level, parent, next);
        let mut base = bound;
        base.btype = kind;
        let element = InternalElement {
            base,
            mirror_tid: U64::new(mirror_tid.0),
            subtree_offset: U64::new(at.0),
            reserved: U64::ZERO,
        };
        self.levels[up].push(transmute!(element), mirror_tid.0);
    }

    /// Completes the open node of `level` and writes it; gives its address, type and TID.
    fn write(
        &mut self,
        disk: &mut Disk,
        level: usize,
        parent: Offset,
        next: Base,
    ) -> (Offset, u8, Tid) {
        let crc = self.crc;
        let Open { at, node, .. } = &mut self.levels[level];
        node.parent = U64::new(parent.0);
        if node.kind == INTERNAL {
            let count = node.count();
            node.elms[count].base = next;
            self.internals += 1;
        } else {
            self.leaves += 1;
        }
        node.crc = U32::new(node.sum(crc));
        disk.write_now(*at, node.as_bytes());
        (*at, node.kind, node.mirror_tid())
    }

    /// Closes all levels; gives the root's address.
    pub fn finish(&mut self, disk: &mut Disk) -> Offset {
        let end = Base::from_key(Key::MAX);
        // Closing a level can add one above it.
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close(disk, level, end);
            level += 1;
        }
        self.write(disk, level, Offset::NULL, end).0
    }

    /// Levels, leaves included.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }
}
