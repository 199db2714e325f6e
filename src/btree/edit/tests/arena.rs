//! Memory that behaves like a transaction, and the rules of a tree in it.

use crate::btree::edit::Edit;
use crate::error::{Class, Error, Result};
use crate::format::node::{DEPTH_MAX, LeafElement, Node};
use crate::format::volume::VolumeHeader;
use crate::format::{Key, NODE_SIZE, Offset, Tid, Zone};
use crate::io::{Buf, Bytes};
use crate::store::{Fetch, NodeRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::{FromZeros, IntoBytes};

const START: u64 = 0x8000_0000_0000_0000;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[derive(Clone)]
pub struct Arena {
    header: VolumeHeader,
    /// Nodes one behind the other; empty where none is.
    memory: Vec<Vec<u8>>,
    /// Record data by address.
    pub used: BTreeMap<u64, Vec<u8>>,
    next_data: u64,
    stamp: u64,
    pub tid: u64,
    pub inodes: i64,
    /// Nodes that may still be allocated.
    pub budget: usize,
    /// Bytes handed out for changes.
    pub touched: usize,
    /// Nodes read.
    pub reads: usize,
    damaged: bool,
}

/// Contents only.
impl PartialEq for Arena {
    fn eq(&self, other: &Arena) -> bool {
        self.memory == other.memory && self.header.as_bytes() == other.header.as_bytes()
    }
}

impl Default for Arena {
    fn default() -> Arena {
        let mut header = VolumeHeader::new_zeroed();
        header.version.set(7);
        header.btree_root.set(START);
        let mut root = Node::new_zeroed();
        root.kind = b'L';
        Arena {
            header,
            memory: vec![root.as_bytes().to_vec()],
            used: BTreeMap::new(),
            next_data: 0,
            stamp: 0,
            tid: 0,
            inodes: 0,
            budget: usize::MAX,
            touched: 0,
            reads: 0,
            damaged: false,
        }
    }
}

impl Arena {
    /// Nodes in use.
    pub fn nodes(&self) -> usize {
        self.memory.iter().filter(|n| !n.is_empty()).count()
    }

    fn index(at: Offset) -> usize {
        ((at.0 - START) / NODE_SIZE as u64) as usize
    }

    fn get(&self, at: Offset) -> &Node {
        Node::from_bytes(&self.memory[Arena::index(at)]).expect("a node in use")
    }

    /// Changes a node's bytes.
    pub fn damage(&mut self, random: &mut Random) {
        self.damaged = true;
        self.stamp += 1;
        let index = random.below(self.memory.len() as u64) as usize;
        let node = &mut self.memory[index];
        if !node.is_empty() {
            let byte = match random.below(3) {
                0 => 8 + random.below(16),
                1 => 64 + random.below(128),
                _ => random.below(NODE_SIZE as u64),
            };
            node[byte as usize] ^= 1 << random.below(8);
        }
    }

    /// Checks the tree against the rules and gives its records.
    pub fn check(&self) -> Vec<LeafElement> {
        let mut walk = Walk {
            arena: self,
            records: Vec::new(),
            depth: None,
            nodes: 0,
        };
        let root = Offset(self.header.btree_root.get());
        walk.node(root, Offset::NULL, (Key::MIN, Key::MAX), None, 0);
        assert_eq!(walk.nodes, self.nodes(), "nodes that nothing leads to");
        walk.records
    }

    /// The keys of the root's children.
    pub fn root_edges(&self) -> Vec<i64> {
        let root = self.get(Offset(self.header.btree_root.get()));
        root.children().iter().map(|e| e.base.key.get()).collect()
    }

    /// Checks that a scan for changes since `tid` comes to where `key` was.
    pub fn check_seen(&self, key: Key, tid: Tid) {
        let mut node = self.get(Offset(self.header.btree_root.get()));
        while !node.is_leaf() {
            let above = node.children().partition_point(|e| e.base.key() <= key);
            if above == 0 || key >= node.base(node.count()).key() {
                return;
            }
            let element = node.children()[above - 1];
            assert!(
                element.mirror_tid.get() >= tid.0,
                "{key} was removed at {tid}"
            );
            node = self.get(Offset(element.subtree_offset.get()));
        }
    }
}

struct Walk<'a> {
    arena: &'a Arena,
    records: Vec<LeafElement>,
    depth: Option<usize>,
    nodes: usize,
}

impl Walk<'_> {
    fn node(
        &mut self,
        at: Offset,
        parent: Offset,
        bounds: (Key, Key),
        mirror: Option<u64>,
        depth: usize,
    ) {
        let node = self.arena.get(at);
        self.nodes += 1;
        node.check_shape(at).expect("a node's shape");
        assert_eq!(node.parent.get(), parent.0);
        assert!(depth < DEPTH_MAX);
        assert!(mirror.is_none_or(|m| m >= node.mirror_tid.get()));
        let highest = |tids: &mut dyn Iterator<Item = u64>| tids.max().unwrap_or(0);
        if node.is_leaf() {
            assert_eq!(*self.depth.get_or_insert(depth), depth);
            let leaves = node.leaves();
            assert!(!leaves.is_empty() || depth == 0, "an empty leaf");
            assert!(
                leaves
                    .iter()
                    .all(|e| bounds.0 <= e.base.key() && e.base.key() < bounds.1)
            );
            let tids = |e: &LeafElement| e.base.create_tid.get().max(e.base.delete_tid.get());
            // An undelete leaves no trace.
            assert!(node.mirror_tid.get() >= highest(&mut leaves.iter().map(tids)));
            self.records.extend_from_slice(leaves);
            return;
        }
        let children = node.children();
        let edge = node.base(children.len()).key();
        assert!(bounds.0 <= node.base(0).key() && edge <= bounds.1);
        let tids = &mut children.iter().map(|e| e.mirror_tid.get());
        assert!(node.mirror_tid.get() >= highest(tids));
        for (i, child) in children.iter().enumerate() {
            let below = (child.base.key(), node.base(i + 1).key());
            assert!(below.0 == Key::MIN || below.0.create_tid != Tid(1));
            let to = Offset(child.subtree_offset.get());
            assert_eq!(self.arena.get(to).kind, child.base.btype);
            self.node(to, at, below, Some(child.mirror_tid.get()), depth + 1);
        }
    }
}

impl Edit for Arena {
    fn tid(&self) -> Tid {
        Tid(self.tid)
    }
    fn now_seconds(&self) -> u32 {
        7
    }
    fn modify(&mut self, at: Offset, len: usize) -> Result<&mut [u8]> {
        self.touched += len;
        if at.zone() != Zone::BTREE {
            let (start, data) = self.used.range_mut(..=at.0).next_back().expect("data");
            let from = (at.0 - start) as usize;
            return Ok(&mut data[from..from + len]);
        }
        let from = (at.0 % NODE_SIZE as u64) as usize;
        let node = self.memory.get_mut(Arena::index(at));
        node.and_then(|n| n.get_mut(from..from + len))
            .ok_or_else(|| Error::damage("no node"))
    }
    fn allocate(&mut self, zone: Zone, len: usize) -> Result<Offset> {
        if zone != Zone::BTREE {
            let at = Offset::new(zone, 0, self.next_data);
            self.next_data += 1 << 16;
            self.used.insert(at.0, vec![0; len]);
            return Ok(at);
        }
        let Some(budget) = self.budget.checked_sub(1) else {
            return Err(Error::new(Class::NoSpace, "the budget is used up"));
        };
        self.budget = budget;
        self.memory.push(vec![0xaa; len]);
        Ok(Offset(START + ((self.memory.len() - 1) * NODE_SIZE) as u64))
    }
    fn fill(&mut self, at: Offset, bytes: &[u8]) -> Result<()> {
        self.modify(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
    fn free(&mut self, at: Offset, len: usize) -> Result<()> {
        if at.zone() != Zone::BTREE {
            let gone = self.used.remove(&at.0).expect("data in use");
            assert_eq!(gone.len(), len);
            return Ok(());
        }
        let node = &mut self.memory[Arena::index(at)];
        assert!(self.damaged || Node::from_bytes(node).is_some_and(|n| n.kind == b'D'));
        node.clear();
        Ok(())
    }
    fn set_root(&mut self, at: Offset) {
        self.header.btree_root.set(at.0);
    }
    fn count_inodes(&mut self, by: i64) {
        self.inodes += by;
    }
    fn tree_stamp(&self) -> u64 {
        self.stamp
    }
    fn bump_tree(&mut self) {
        self.stamp += 1;
    }
}

impl Fetch for Arena {
    fn header(&self) -> &VolumeHeader {
        &self.header
    }
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        let data = self.used.get(&at.0).expect("data in use");
        Ok(Bytes::new(Arc::new(Buf::copy_of(&data[..len]))))
    }
    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        self.reads += 1;
        let aligned = at.0 >= START && at.0.is_multiple_of(NODE_SIZE as u64);
        let memory = if aligned {
            self.memory.get(Arena::index(at))
        } else {
            None
        };
        let Some(node) =
            memory.and_then(|bytes| NodeRef::new(Bytes::new(Arc::new(Buf::copy_of(bytes)))))
        else {
            return Err(Error::damage(format!("no node at {at}")));
        };
        node.check_shape(at)?;
        Ok(node)
    }
    fn want(&mut self, _: &[(Offset, usize)]) {}
    fn readahead(&self) -> usize {
        1 << 20
    }
    fn forget(&mut self, _: Offset, _: usize) {}
}
