//! The way from the root down to a leaf, each node checked against what its parent says of it.

use crate::error::Result;
use crate::format::node::{self, INTERNAL, InternalElement, Node};
use crate::format::{Fault, Key, NODE_SIZE, Offset, Rule};
use crate::store::{Fetch, NodeRef};

/// A node on the way, and the child that comes next.
pub(super) struct Level {
    pub node: NodeRef,
    pub at: Offset,
    /// In an internal node the child being visited or next to be; in a leaf the next element.
    pub index: usize,
}

impl Level {
    /// A node about to be visited from its first element on.
    pub fn new(at: Offset, node: NodeRef) -> Level {
        Level { node, at, index: 0 }
    }

    /// The child that comes next; `None` behind the last one and in leaves.
    pub fn child(&self) -> Option<&InternalElement> {
        self.node.children().get(self.index)
    }

    /// Moves to the child whose range holds `key`. Says whether there is one: a node's own range can
    /// be narrower than its parent makes it, and `key` can lie in the gap on either side. On the
    /// left of all children the first is chosen, on the right of all none is left.
    pub fn seek(&mut self, key: Key) -> bool {
        let count = self.node.count();
        // The right boundary counts: behind it is the gap on the right.
        let above = self.node.elms[..=count].partition_point(|e| e.base.key() <= key);
        self.index = above.saturating_sub(1);
        above > 0 && above <= count
    }
}

/// The root node, checked.
pub(super) fn root<F: Fetch + ?Sized>(fetch: &mut F) -> Result<Level> {
    let at = Offset(fetch.header().btree_root.get());
    let node = fetch.node(at)?;
    if node.parent.get() != 0 {
        let found = Offset(node.parent.get());
        return Err(Fault::new(Rule::NodeParent, at, "no parent of the root", found).into());
    }
    Ok(Level::new(at, node))
}

/// The next child of `parent` (which has one), checked against what the parent says of it.
/// `depth` is the number of levels above the child.
pub(super) fn child<F: Fetch + ?Sized>(
    fetch: &mut F,
    parent: &Level,
    depth: usize,
) -> Result<Level> {
    child_of(fetch, &parent.node, parent.at, parent.index, depth)
}

/// The child at `index` of the node `parent` at `parent_at`, checked in the same way.
pub(super) fn child_of<F: Fetch + ?Sized>(
    fetch: &mut F,
    parent: &Node,
    parent_at: Offset,
    index: usize,
    depth: usize,
) -> Result<Level> {
    let Some(element) = parent.children().get(index) else {
        let found = format!("child {index}");
        return Err(Fault::new(Rule::NodeCount, parent_at, "a child", found).into());
    };
    let at = Offset(element.subtree_offset.get());
    let fault =
        |rule, expected: String, found: String| Err(Fault::new(rule, at, expected, found).into());
    if depth >= node::DEPTH_MAX {
        let expected = format!("a tree of at most {} levels", node::DEPTH_MAX);
        return fault(Rule::NodeDepth, expected, "one more".into());
    }
    let node = fetch.node(at)?;
    if node.parent.get() != parent_at.0 {
        let found = Offset(node.parent.get()).to_string();
        return fault(Rule::NodeParent, format!("parent {parent_at}"), found);
    }
    if node.kind != element.base.btype {
        let name = |kind: u8| format!("type {:?}", char::from(kind));
        return fault(Rule::NodeType, name(element.base.btype), name(node.kind));
    }
    let (left, right) = (element.base.key(), parent.base(index + 1).key());
    let count = node.count();
    if count > 0 {
        let (first, last) = match node.kind {
            INTERNAL => (node.base(0).key(), node.base(count).key()),
            _ => (node.base(0).key(), node.base(count - 1).key()),
        };
        let inside = left <= first && (last < right || (node.kind == INTERNAL && last == right));
        if !inside {
            return fault(
                Rule::NodeBounds,
                format!("keys from {left} to {right}"),
                format!("{first} to {last}"),
            );
        }
    }
    Ok(Level::new(at, node))
}

/// Announces the children of `level` from its next one on for as long as `wanted` says so, if
/// there is more than one.
pub(super) fn announce<F: Fetch + ?Sized>(
    fetch: &mut F,
    level: &Level,
    wanted: impl Fn(&InternalElement) -> Option<bool>,
) {
    let mut extents = Vec::new();
    for element in level.node.children().get(level.index..).unwrap_or_default() {
        match wanted(element) {
            None => break,
            Some(true) => extents.push((Offset(element.subtree_offset.get()), NODE_SIZE)),
            Some(false) => {}
        }
    }
    if extents.len() > 1 {
        fetch.want(&extents);
    }
}
