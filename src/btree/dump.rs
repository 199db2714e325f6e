//! The tree as it stands, damage included: every node and element in key order, each with what is
//! wrong with it. Unlike a scan this walk shows what it does not believe.
//!
//! It ends on any medium: a node is descended into only if its parent pointer leads back to where
//! the walk came from, its keys ascend, and they lie inside the bounds that its parent sets. Bounds
//! of different children do not meet, so no node is descended into twice.

use crate::error::{Error, Result};
use crate::format::node::{self, Element, InternalElement, LeafElement, RECORD};
use crate::format::{Fault, Key, Localization, NODE_SIZE, Offset, Rule, Tid, Zone};
use crate::store::{Fetch, NodeRef};
use std::fmt;

bitflags::bitflags! {
    /// What is wrong with a node or an element.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Problems: u8 {
        /// A node's CRC.
        const CRC = 1;
        /// A type that does not exist or is not the one the parent names.
        const TYPE = 2;
        /// An element count that cannot be.
        const COUNT = 4;
        /// Elements that do not ascend.
        const ORDER = 8;
        /// Below the left bound.
        const LEFT = 16;
        /// At or above the right bound.
        const RIGHT = 32;
        /// A child that is missing or belongs to another parent; a record without data.
        const LINK = 64;
        /// A `mirror_tid` that hides a change from incremental mirroring.
        const MIRROR = 128;
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, problem) in "BTNOLRCM".chars().zip(Problems::all().iter()) {
            let shown = if self.contains(problem) { letter } else { '-' };
            fmt::Write::write_char(f, shown)?;
        }
        Ok(())
    }
}

impl Problems {
    /// Their names, for output.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            "crc",
            "type",
            "count",
            "order",
            "left",
            "right",
            "link",
            "mirror_tid",
        ];
        let named = all.into_iter().zip(Problems::all().iter());
        named
            .filter(|(_, p)| self.contains(*p))
            .map(|(name, _)| name)
            .collect()
    }
}

/// Which part of the tree to show; everything by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Only this localization.
    pub localization: Option<Localization>,
    /// Only this object.
    pub obj_id: Option<i64>,
}

impl Select {
    /// Whether a record with this key is wanted.
    pub fn takes(&self, key: &Key) -> bool {
        self.localization.is_none_or(|lo| lo == key.localization)
            && self.obj_id.is_none_or(|obj| obj == key.obj_id)
    }

    /// Whether keys from `left` up to but not including `right` can be wanted.
    pub fn meets(&self, left: &Key, right: &Key) -> bool {
        let object = |localization| {
            let lowest = Key {
                localization,
                ..Key::MIN
            };
            let highest = Key {
                localization,
                ..Key::MAX
            };
            let (lowest, highest) = match self.obj_id {
                Some(obj_id) => (Key { obj_id, ..lowest }, Key { obj_id, ..highest }),
                None => (lowest, highest),
            };
            *left <= highest && lowest < *right
        };
        let (first, last) = (left.localization, right.localization);
        match (self.localization, self.obj_id) {
            (Some(localization), _) => object(localization),
            (None, None) => true,
            // With a localization in between, every object is.
            (None, Some(_)) => last.0.saturating_sub(first.0) > 1 || object(first) || object(last),
        }
    }
}

/// What the walk finds next.
#[derive(Debug)]
pub enum Item {
    /// A node; its elements follow, then the nodes below it.
    Node {
        /// The node.
        node: Place,
        /// What is wrong with it by itself and as its parent's child.
        problems: Problems,
    },
    /// An element of the node before.
    Element {
        /// The node it is in.
        node: Place,
        /// Its number; an internal node's right boundary comes last.
        index: usize,
        /// What it is.
        kind: ElementKind,
        /// What is wrong with it.
        problems: Problems,
    },
    /// A child that could not be read.
    Unreadable {
        /// Its address.
        at: Offset,
        /// Levels above it.
        depth: usize,
        /// Why.
        error: Error,
    },
}

/// A node and where it stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address.
    pub at: Offset,
    /// Levels above it.
    pub depth: usize,
    /// The node.
    pub node: NodeRef,
}

/// What an element is, by the type of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementKind {
    /// A record.
    Leaf(LeafElement),
    /// A child.
    Child(InternalElement),
    /// The right boundary of an internal node.
    Boundary(InternalElement),
}

/// A node on the way.
struct Level {
    place: Place,
    left: Key,
    right: Key,
    descend: bool,
    element: usize,
    child: usize,
}

/// The walk.
pub struct Dump {
    select: Select,
    stack: Vec<Level>,
    started: bool,
}

impl Dump {
    /// A walk of what `select` wants.
    pub fn new(select: Select) -> Dump {
        Dump {
            select,
            stack: Vec::new(),
            started: false,
        }
    }

    /// The next item; `None` at the end.
    ///
    /// Errors: a view that expired. Everything else is shown as an item.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Item>> {
        if !self.started {
            self.started = true;
            let root = Offset(fetch.header().btree_root.get());
            return self.enter(fetch, root, None).map(Some);
        }
        loop {
            let Some(level) = self.stack.last_mut() else {
                return Ok(None);
            };
            if let Some(item) = level.next_element(fetch, &self.select)? {
                return Ok(Some(item));
            }
            let Some((element, right)) = level.next_child(&self.select) else {
                self.stack.pop();
                continue;
            };
            let at = Offset(element.subtree_offset.get());
            return self.enter(fetch, at, Some((element, right))).map(Some);
        }
    }

    /// Shows the node at `at` and goes into it if it can be believed. `from` is the parent's element
    /// and the key behind the child.
    fn enter<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        at: Offset,
        from: Option<(InternalElement, Key)>,
    ) -> Result<Item> {
        let depth = self.stack.len();
        let node = match read(fetch, at)? {
            Ok(node) => node,
            Err(error) => return Ok(Item::Unreadable { at, depth, error }),
        };
        let mut problems = alone(&node, at, fetch.version());
        let (left, right) = match &from {
            Some((element, right)) => (element.base.key(), *right),
            None => (Key::MIN, Key::MAX),
        };
        let parent = self.stack.last().map_or(0, |level| level.place.at.0);
        problems.set(Problems::LINK, node.parent.get() != parent);
        if let Some((element, _)) = &from {
            problems.set(
                Problems::MIRROR,
                node.mirror_tid.get() > element.mirror_tid.get(),
            );
            if node.kind != element.base.btype {
                problems |= Problems::TYPE;
            }
        }
        problems |= bounds(&node, &left, &right);
        let place = Place { at, depth, node };
        // A wrong CRC or mirror_tid alone does not make the walk endless.
        let fatal = problems - Problems::CRC - Problems::MIRROR;
        self.stack.push(Level {
            place: place.clone(),
            left,
            right,
            descend: fatal.is_empty() && depth < node::DEPTH_MAX,
            element: 0,
            child: 0,
        });
        Ok(Item::Node {
            node: place,
            problems,
        })
    }
}

impl Level {
    fn next_element<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        select: &Select,
    ) -> Result<Option<Item>> {
        let node = &self.place.node;
        let (leaves, children) = (node.leaves(), node.children());
        if self.element == 0 {
            announce(fetch, children);
        }
        while self.element < leaves.len() {
            let (index, leaf) = (self.element, leaves[self.element]);
            self.element += 1;
            if select.takes(&leaf.base.key()) {
                let problems = self.leaf_problems(&leaf);
                return Ok(Some(self.item(index, ElementKind::Leaf(leaf), problems)));
            }
        }
        while self.element < children.len() {
            let (index, child) = (self.element, children[self.element]);
            self.element += 1;
            let behind = self.place.node.base(index + 1).key();
            if select.meets(&child.base.key(), &behind) {
                let problems = self.child_problems(fetch, &child)?;
                return Ok(Some(self.item(index, ElementKind::Child(child), problems)));
            }
        }
        if !children.is_empty() && self.element == children.len() {
            self.element += 1;
            let index = children.len();
            let boundary = boundary(&self.place.node.elms[index]);
            let problems = self.boundary_problems(&boundary);
            return Ok(Some(self.item(
                index,
                ElementKind::Boundary(boundary),
                problems,
            )));
        }
        Ok(None)
    }

    /// The next child to go into, and the key behind it.
    fn next_child(&mut self, select: &Select) -> Option<(InternalElement, Key)> {
        let children = self.place.node.children();
        while self.descend && self.child < children.len() {
            let (index, child) = (self.child, children[self.child]);
            self.child += 1;
            let behind = self.place.node.base(index + 1).key();
            if select.meets(&child.base.key(), &behind) {
                return Some((child, behind));
            }
        }
        None
    }

    fn item(&self, index: usize, kind: ElementKind, problems: Problems) -> Item {
        Item::Element {
            node: self.place.clone(),
            index,
            kind,
            problems,
        }
    }

    fn leaf_problems(&self, leaf: &LeafElement) -> Problems {
        let mut problems = self.key_problems(&leaf.base.key());
        problems.set(Problems::TYPE, leaf.base.btype != RECORD);
        problems.set(
            Problems::LINK,
            leaf.data_offset.get() == 0 || leaf.data_len.get() == 0,
        );
        let node = &self.place.node;
        let newest = leaf.base.create_tid().max(leaf.base.delete_tid());
        // A new file system's first leaf starts at 0.
        let fresh = node.parent.get() == 0 && node.mirror_tid() == Tid::ZERO;
        problems.set(Problems::MIRROR, newest > node.mirror_tid() && !fresh);
        problems
    }

    fn child_problems<F: Fetch + ?Sized>(
        &self,
        fetch: &mut F,
        child: &InternalElement,
    ) -> Result<Problems> {
        let mut problems = self.key_problems(&child.base.key());
        let known = matches!(child.base.btype, node::INTERNAL | node::LEAF);
        problems.set(Problems::TYPE, !known);
        problems.set(
            Problems::MIRROR,
            child.mirror_tid.get() > self.place.node.mirror_tid.get(),
        );
        let below = read(fetch, Offset(child.subtree_offset.get()))?;
        let belongs = below.is_ok_and(|below| below.parent.get() == self.place.at.0);
        problems.set(Problems::LINK, !belongs);
        Ok(problems)
    }

    fn boundary_problems(&self, boundary: &InternalElement) -> Problems {
        let mut problems = Problems::empty();
        let key = boundary.base.key();
        problems.set(Problems::LEFT, key < self.left);
        problems.set(Problems::RIGHT, key > self.right);
        problems.set(Problems::LINK, boundary.subtree_offset.get() != 0);
        problems
    }

    fn key_problems(&self, key: &Key) -> Problems {
        let mut problems = Problems::empty();
        problems.set(Problems::LEFT, *key < self.left);
        problems.set(Problems::RIGHT, *key >= self.right);
        problems
    }
}

/// What is wrong with a node whatever its parent says.
fn alone(node: &NodeRef, at: Offset, version: u32) -> Problems {
    let mut problems = Problems::empty();
    problems.set(Problems::CRC, node.check_crc(at, version).is_err());
    if let Err(fault) = node.check_shape(at) {
        problems |= match fault.rule {
            Rule::NodeType => Problems::TYPE,
            Rule::NodeCount => Problems::COUNT,
            _ => Problems::ORDER,
        };
    }
    problems
}

/// Whether the keys of a node lie between its bounds.
fn bounds(node: &NodeRef, left: &Key, right: &Key) -> Problems {
    let mut problems = Problems::empty();
    let (count, leaf) = (node.count(), node.is_leaf());
    if count > 0 {
        let last = if leaf { count - 1 } else { count };
        let last = node.base(last).key();
        problems.set(Problems::LEFT, node.base(0).key() < *left);
        problems.set(
            Problems::RIGHT,
            if leaf { last >= *right } else { last > *right },
        );
    }
    problems
}

/// Reads a node without believing in it. The inner error is this node's, the outer one the view's.
fn read<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) -> Result<Result<NodeRef>> {
    if at.zone() != Zone::BTREE || !at.0.is_multiple_of(NODE_SIZE as u64) {
        let expected = "a node in zone 8";
        return Ok(Err(Fault::new(Rule::NodeAddress, at, expected, at).into()));
    }
    match fetch.bytes(at, NODE_SIZE) {
        Ok(bytes) => Ok(NodeRef::new(bytes)
            .ok_or_else(|| Fault::new(Rule::NodeRead, at, "a node", "fewer bytes").into())),
        Err(error) if error.is_media() => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

fn announce<F: Fetch + ?Sized>(fetch: &mut F, children: &[InternalElement]) {
    let extents: Vec<(Offset, usize)> = children
        .iter()
        .map(|child| (Offset(child.subtree_offset.get()), NODE_SIZE))
        .filter(|(at, _)| at.zone() == Zone::BTREE && at.0.is_multiple_of(NODE_SIZE as u64))
        .collect();
    if extents.len() > 1 {
        fetch.want(&extents);
    }
}

/// An element behind the children, read as one of them.
fn boundary(element: &Element) -> InternalElement {
    zerocopy::transmute!(*element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (0u32..4, 0i64..4, any::<bool>()).prop_map(|(lo, obj_id, high)| Key {
            localization: Localization(lo),
            obj_id,
            ..if high { Key::MAX } else { Key::MIN }
        })
    }

    #[test]
    fn letters() {
        let problems = Problems::CRC | Problems::MIRROR;
        assert_eq!(problems.to_string(), "B------M");
        assert_eq!(problems.names(), ["crc", "mirror_tid"]);
        assert_eq!(Problems::empty().to_string(), "--------");
    }

    proptest! {
        /// A subtree is left out only if no key in it is wanted.
        #[test]
        fn nothing_wanted_is_left_out(
            lo in prop::option::of(0u32..4),
            obj_id in prop::option::of(0i64..4),
            left in key(),
            right in key(),
            inside in key(),
        ) {
            let select = Select { localization: lo.map(Localization), obj_id };
            if left <= inside && inside < right && select.takes(&inside) {
                prop_assert!(select.meets(&left, &right));
            }
        }
    }
}
