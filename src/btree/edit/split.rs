//! Splits (format.md §10.4, §10.5). The right part of a node moves to a new one.

use super::place::{Level, children, records};
use super::{Edit, Editor, bound};
use crate::error::{Error, Result};
use crate::format::node::{
    Base, DEPTH_MAX, INTERNAL, INTERNAL_MAX, InternalElement, LEAF, LEAF_MAX, Node,
};
use crate::format::{Fault, Key, NODE_SIZE, Offset, Rule, Tid, Zone};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Where a leaf is split that is appended to (as DragonFly does).
const APPEND_SPLIT: usize = 48;

impl Editor {
    /// Splits the leaf, which is full, and makes the place that of the half that `key` belongs to.
    /// `index` is where the key would have been; gives where it is to be. In a run the left half
    /// ends where the run is, so that it stays full.
    pub(super) fn split<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        key: Key,
        index: usize,
        run: bool,
    ) -> Result<usize> {
        self.room_above(txn, run)?;
        let at = match (run, index) {
            (true, index) => index.max(1),
            (false, LEAF_MAX) => APPEND_SPLIT,
            (false, _) => LEAF_MAX.div_ceil(2),
        };
        let leaf = self.place.leaf();
        let right = leaf.node.leaves().get(at).map_or(key, |e| e.base.key());
        let separator = separator(leaf.node.base(at - 1).key(), right);
        let bottom = self.place.levels.len() - 1;
        let mut half = blank(LEAF);
        let moved = LEAF_MAX - at;
        records(&mut half)[..moved].copy_from_slice(&leaf.node.leaves()[at..]);
        half.count.set(moved as i32);
        let half = self.attach(txn, bottom, half, Base::from_key(separator))?;
        let level = self.place.leaf_mut();
        level.node.count.set(at as i32);
        level.write_head(txn)?;
        self.choose(bottom, half, separator, key >= separator);
        Ok(if key >= separator { index - at } else { index })
    }

    /// Sees to it that the leaf's parent has room for one more child.
    fn room_above<T: Edit + ?Sized>(&mut self, txn: &mut T, run: bool) -> Result<()> {
        let levels = &self.place.levels;
        let bottom = levels.len() - 1;
        let room = |l: &Level| l.node.count() < INTERNAL_MAX;
        let first_full = match levels[..bottom].iter().rposition(room) {
            Some(parent) => parent + 1,
            None => {
                self.grow(txn)?;
                1
            }
        };
        for level in first_full..self.place.levels.len() - 1 {
            self.split_internal(txn, level, run)?;
        }
        Ok(())
    }

    /// Puts a new root above the root.
    fn grow<T: Edit + ?Sized>(&mut self, txn: &mut T) -> Result<()> {
        if self.place.levels.len() >= DEPTH_MAX {
            let at = self.place.levels[0].at;
            let expected = format!("a tree of at most {DEPTH_MAX} levels");
            return Err(Fault::new(Rule::NodeDepth, at, expected, "one that is full").into());
        }
        let new = txn.allocate(Zone::BTREE, NODE_SIZE)?;
        let old = &mut self.place.levels[0];
        let mut root = blank(INTERNAL);
        root.count.set(1);
        root.mirror_tid = old.node.mirror_tid;
        let elements = children(&mut root);
        elements[0] = element(
            bound(Key::MIN),
            old.node.kind,
            old.at,
            old.node.mirror_tid(),
        );
        elements[1] = element(bound(Key::MAX), 0, Offset::NULL, Tid::ZERO);
        txn.fill(new, root.as_bytes())?;
        old.node.parent.set(new.0);
        old.write_head(txn)?;
        txn.set_root(new);
        let level = Level {
            at: new,
            node: root,
            index: 0,
            left: Key::MIN,
            right: Key::MAX,
        };
        self.place.levels.insert(0, level);
        Ok(())
    }

    /// Splits the internal node at `depth`, which is full and whose parent has room.
    fn split_internal<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        depth: usize,
        run: bool,
    ) -> Result<()> {
        let level = &self.place.levels[depth];
        let (count, index) = (level.node.count(), level.index);
        let middle = count.div_ceil(2);
        let at = match run {
            true => (index + 1).clamp(1, count - 1),
            false => middle - usize::from(index <= middle),
        };
        let moved: Vec<_> = level.node.children()[at..]
            .iter()
            .map(|e| Offset(e.subtree_offset.get()))
            .collect();
        believe(txn, level.at, &moved)?;
        let mut half = blank(INTERNAL);
        half.elms[..=count - at].copy_from_slice(&level.node.elms[at..=count]);
        half.count.set((count - at) as i32);
        let mut separator = level.node.base(at);
        separator.delete_tid = U64::ZERO;
        separator.obj_type = 0;
        let half = self.attach(txn, depth, half, separator)?;
        let level = &mut self.place.levels[depth];
        let edge = &mut children(&mut level.node)[at];
        edge.base.btype = 0;
        edge.subtree_offset = U64::ZERO;
        level.node.count.set(at as i32);
        level.write_head(txn)?;
        level.write_elements(txn, at..at + 1)?;
        let start = offset_of!(Node, parent) as u64;
        for child in moved {
            let field = txn.modify(Offset(child.0 + start), size_of::<U64>())?;
            field.copy_from_slice(&half.at.0.to_le_bytes());
        }
        let to_right = index >= at;
        let below = &mut self.place.levels[depth + 1];
        if to_right {
            below.node.parent.set(half.at.0);
        }
        self.choose(depth, half, separator.key(), to_right);
        if to_right {
            self.place.levels[depth].index = index - at;
        }
        Ok(())
    }

    /// Gives the node at `depth` a right sibling: writes `half` to new space and enters it in the
    /// parent, which has room. Both halves and their elements get the greatest `mirror_tid` that
    /// the node or its element knew, so that none is lost; the node's own is yet to be written.
    fn attach<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        depth: usize,
        mut half: Node,
        separator: Base,
    ) -> Result<Half> {
        let at = txn.allocate(Zone::BTREE, NODE_SIZE)?;
        let Some(([.., parent], [level, ..])) = self.place.levels.split_at_mut_checked(depth)
        else {
            // `room_above` made a parent.
            return Err(Error::damage("a node without parent cannot be split"));
        };
        let known = parent.element().mirror_tid.get();
        let mirror_tid = level.node.mirror_tid.get().max(known);
        level.node.mirror_tid.set(mirror_tid);
        half.mirror_tid.set(mirror_tid);
        half.parent.set(parent.at.0);
        txn.fill(at, half.as_bytes())?;
        let (index, count) = (parent.index, parent.node.count());
        let elements = children(&mut parent.node);
        elements.copy_within(index + 1..count + 1, index + 2);
        elements[index].mirror_tid.set(mirror_tid);
        elements[index + 1] = element(separator, half.kind, at, Tid(mirror_tid));
        parent.node.count = I32::new(count as i32 + 1);
        let mirror_of_parent = parent.node.mirror_tid.get().max(mirror_tid);
        parent.node.mirror_tid.set(mirror_of_parent);
        parent.write_head(txn)?;
        let first = index + usize::from(known == mirror_tid);
        parent.write_elements(txn, first..count + 2)?;
        Ok(Half { at, node: half })
    }

    /// Goes on with one half of the node at `depth` that was split at `separator`.
    fn choose(&mut self, depth: usize, half: Half, separator: Key, to_right: bool) {
        let level = &mut self.place.levels[depth];
        if !to_right {
            level.right = separator;
            return;
        }
        level.at = half.at;
        level.node = half.node;
        level.left = separator;
        self.place.levels[depth - 1].index += 1;
    }
}

/// A node's right half.
struct Half {
    at: Offset,
    node: Node,
}

/// Reads nodes that are about to get another parent: changing one gives it a new CRC, which must
/// not hide damage.
fn believe<T: Edit + ?Sized>(txn: &mut T, parent: Offset, nodes: &[Offset]) -> Result<()> {
    let extents: Vec<_> = nodes.iter().map(|at| (*at, NODE_SIZE)).collect();
    txn.want(&extents);
    for at in nodes {
        let found = Offset(txn.node(*at)?.parent.get());
        if found != parent {
            let expected = format!("parent {parent}");
            return Err(Fault::new(Rule::NodeParent, *at, expected, found).into());
        }
    }
    Ok(())
}

/// The key that divides two neighbours: above `left`, at most `right`.
fn separator(left: Key, right: Key) -> Key {
    if right.create_tid != Tid(1) {
        return right;
    }
    // Searches of DragonFly's that come to a separator with the creation TID 1 fail. Nothing is
    // below that TID in its record, so `left` is of another record, and all its versions end here.
    Key {
        create_tid: Tid::MAX,
        ..left
    }
}

fn blank(kind: u8) -> Node {
    let mut node = Node::new_zeroed();
    node.kind = kind;
    node
}

fn element(mut base: Base, btype: u8, child: Offset, mirror_tid: Tid) -> InternalElement {
    base.btype = btype;
    InternalElement {
        base,
        mirror_tid: U64::new(mirror_tid.0),
        subtree_offset: U64::new(child.0),
        reserved: U64::ZERO,
    }
}
