//! The walk over the B-Tree: every node once, in key order, checked (format.md §21 rule 3), or,
//! for a key range, without a word about damage.
//!
//! The walk ends on every input: checked, it meets no node twice; unchecked, it enters only
//! children that name their parent and keep to their bounds, and bounds get narrower on the way
//! down. In both ways it goes no deeper than [`DEPTH_MAX`].

use super::Run;
use super::leaf::{NEWFS_TID, element_place};
use crate::error::Result;
use crate::format::node::{DEPTH_MAX, INTERNAL, Node};
use crate::format::{Fault, Key, NODE_SIZE, Offset, Rule, Tid, Zone};
use crate::store::{Fetch, NodeRef};

/// A leaf and its address.
#[derive(Clone)]
pub(super) struct Leaf {
    pub node: NodeRef,
    pub at: Offset,
}

/// An internal node under way.
struct Level {
    node: NodeRef,
    at: Offset,
    /// The next child.
    index: usize,
    /// The greatest TID of the records met below so far.
    highest: Tid,
    link: Link,
}

/// What a parent says of a child.
#[derive(Clone, Copy)]
struct Link {
    parent: Offset,
    /// Index of the child's element; the root has none.
    index: Option<usize>,
    btype: u8,
    mirror_tid: Tid,
    lo: Key,
    hi: Key,
}

impl Link {
    const ROOT: Link = Link {
        parent: Offset::NULL,
        index: None,
        btype: 0,
        mirror_tid: Tid::MAX,
        lo: Key::MIN,
        hi: Key::MAX,
    };
}

/// The walk.
pub(super) struct Walk {
    from: Key,
    to: Key,
    stack: Vec<Level>,
    started: bool,
    leaf_depth: Option<usize>,
}

impl Walk {
    /// A walk over the leaves that can hold keys in `[from, to]`.
    pub fn new(from: Key, to: Key) -> Walk {
        Walk {
            from,
            to,
            stack: Vec::new(),
            started: false,
            leaf_depth: None,
        }
    }

    /// The next leaf. With `run` every node is checked and every violation reported; without, what
    /// is not whole is passed over.
    pub fn next<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        mut run: Option<&mut Run<'_>>,
    ) -> Result<Option<Leaf>> {
        if !self.started {
            self.started = true;
            let root = Offset(fetch.header().btree_root.get());
            if let Some(leaf) = self.enter(fetch, run.as_deref_mut(), root, Link::ROOT)? {
                return Ok(Some(leaf));
            }
        }
        while let Some(level) = self.stack.last_mut() {
            let index = level.index;
            let Some(child) = level.node.children().get(index) else {
                self.leave(run.as_deref_mut());
                continue;
            };
            level.index += 1;
            let (lo, hi) = (child.base.key(), level.node.base(index + 1).key());
            if hi <= self.from || lo > self.to {
                continue;
            }
            let link = Link {
                parent: level.at,
                index: Some(index),
                btype: child.base.btype,
                mirror_tid: Tid(child.mirror_tid.get()),
                lo,
                hi,
            };
            let at = Offset(child.subtree_offset.get());
            if let Some(leaf) = self.enter(fetch, run.as_deref_mut(), at, link)? {
                return Ok(Some(leaf));
            }
        }
        Ok(None)
    }

    /// Reads the node at `at`: a leaf is returned, an internal node goes onto the stack.
    fn enter<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        run: Option<&mut Run<'_>>,
        at: Offset,
        link: Link,
    ) -> Result<Option<Leaf>> {
        let depth = self.stack.len();
        let (node, highest) = match run {
            Some(run) => {
                let Some(node) = read(fetch, run, at, &link)? else {
                    run.incomplete = true;
                    return Ok(None);
                };
                self.judge(run, &node, at, &link);
                let highest = highest_tid(&node);
                mirror_tid(run, &node, at, &link, highest);
                (node, highest)
            }
            None => {
                let node = match fetch.node(at) {
                    Ok(node) => node,
                    Err(error) if error.is_media() => return Ok(None),
                    Err(error) => return Err(error),
                };
                if node.parent.get() != link.parent.0 || bounds_fault(&node, &link).is_some() {
                    return Ok(None);
                }
                (node, Tid::ZERO)
            }
        };
        if node.is_leaf() {
            if let Some(level) = self.stack.last_mut() {
                level.highest = level.highest.max(highest);
            }
            return Ok(Some(Leaf { node, at }));
        }
        if depth >= DEPTH_MAX {
            return Ok(None);
        }
        self.want(fetch, &node);
        self.stack.push(Level {
            node,
            at,
            index: 0,
            highest,
            link,
        });
        Ok(None)
    }

    /// Announces the children that will be entered.
    fn want<F: Fetch + ?Sized>(&self, fetch: &mut F, node: &Node) {
        let children = node.children().iter().enumerate();
        let mut list: Vec<_> = children
            .filter(|(i, c)| node.base(i + 1).key() > self.from && c.base.key() <= self.to)
            .map(|(_, c)| Offset(c.subtree_offset.get()))
            .filter(|at| at.zone() == Zone::BTREE && at.0.is_multiple_of(NODE_SIZE as u64))
            .map(|at| (at, NODE_SIZE))
            .collect();
        list.sort_unstable();
        fetch.want(&list);
    }

    /// Ends the lowest level: what its element promised, against what was below.
    fn leave(&mut self, run: Option<&mut Run<'_>>) {
        let Some(level) = self.stack.pop() else {
            return;
        };
        if let Some(above) = self.stack.last_mut() {
            above.highest = above.highest.max(level.highest);
        }
        if let Some(run) = run {
            audit(run, &level.link, level.at, level.highest);
        }
    }

    /// The rules that tie a node to its parent and to the tree.
    fn judge(&mut self, run: &mut Run<'_>, node: &Node, at: Offset, link: &Link) {
        let depth = self.stack.len();
        let mut faults = false;
        let mut error = |rule, expected: String, found: String| {
            faults = true;
            let detail = match link.index {
                None => "root node".to_owned(),
                Some(index) => format!("child {index} of node {}", link.parent),
            };
            run.sink
                .error(Fault::new(rule, at, expected, found), detail);
        };
        if node.parent.get() != link.parent.0 {
            let found = Offset(node.parent.get()).to_string();
            error(Rule::NodeParent, link.parent.to_string(), found);
        }
        if link.index.is_some() && node.kind != link.btype {
            let expected = format!("type 0x{:02x}", link.btype);
            error(Rule::NodeType, expected, format!("0x{:02x}", node.kind));
        }
        if let Some((expected, found)) = bounds_fault(node, link) {
            error(Rule::NodeBounds, expected, found);
        }
        if node.is_leaf() {
            let first = *self.leaf_depth.get_or_insert(depth);
            if first != depth {
                let expected = format!("leaves at depth {first}");
                error(Rule::NodeDepth, expected, depth.to_string());
            }
            run.report.leaves += 1;
        } else if depth >= DEPTH_MAX {
            error(
                Rule::NodeDepth,
                format!("at most {DEPTH_MAX} levels"),
                "more".into(),
            );
            run.incomplete = true;
        }
        run.tree_faults |= faults;
        run.report.nodes += 1;
        run.status.bytes += NODE_SIZE as u64;
    }
}

/// Reads a node for a checked walk; `None` if it cannot be used.
fn read<F: Fetch + ?Sized>(
    fetch: &mut F,
    run: &mut Run<'_>,
    at: Offset,
    link: &Link,
) -> Result<Option<NodeRef>> {
    let place = link
        .index
        .map_or(at, |index| element_place(link.parent, index));
    if at.zone() != Zone::BTREE
        || !at.0.is_multiple_of(NODE_SIZE as u64)
        || !run.media.holds(at, NODE_SIZE as u64)
    {
        let expected = "a node address: zone 8, a multiple of 4096, inside its volume";
        let fault = Fault::new(Rule::NodeAddress, place, expected, at);
        run.sink.error(fault, "B-Tree");
        return Ok(None);
    }
    if !run.space.visit(at) {
        let found = format!("{at}, which was met before");
        let fault = Fault::new(Rule::NodeShared, place, "a node of its own", found);
        run.sink.error(fault, "B-Tree");
        return Ok(None);
    }
    let what = || "B-Tree node".to_owned();
    run.space.refer(at, NODE_SIZE as u64, &mut run.sink, &what);
    let error = match fetch.node(at) {
        Ok(node) => return Ok(Some(node)),
        Err(error) => error,
    };
    let fault = run.media_fault(error, Rule::NodeRead, at)?;
    run.tree_faults = true;
    let disordered = fault.rule == Rule::NodeOrder;
    run.sink
        .error(fault, format!("B-Tree, below node {}", link.parent));
    if !disordered {
        return Ok(None);
    }
    // Its CRC is good and its records are records: the rules below hold for each of them.
    Ok(fetch.bytes(at, NODE_SIZE).ok().and_then(NodeRef::new))
}

/// Whether elements, and an internal node's right boundary, keep to the parent's bounds.
fn bounds_fault(node: &Node, link: &Link) -> Option<(String, String)> {
    let count = node.count();
    if count == 0 {
        return None;
    }
    let first = node.base(0).key();
    if first < link.lo {
        return Some((format!("elements from {}", link.lo), first.to_string()));
    }
    let internal = node.kind == INTERNAL;
    let last = node.base(if internal { count } else { count - 1 }).key();
    if last > link.hi || (!internal && last == link.hi) {
        return Some((format!("elements below {}", link.hi), last.to_string()));
    }
    None
}

/// The greatest TID of a leaf's records.
fn highest_tid(node: &Node) -> Tid {
    let tids = node.leaves().iter();
    tids.map(|l| l.base.create_tid().max(l.base.delete_tid()))
        .max()
        .unwrap_or_default()
}

/// `mirror_tid` from level to level: element, child node, the child's elements (format.md §10.6).
fn mirror_tid(run: &mut Run<'_>, node: &Node, at: Offset, link: &Link, highest: Tid) {
    let own = node.mirror_tid();
    let mut warn = |at, expected: String, found: Tid| {
        let fault = Fault::new(Rule::MirrorTid, at, expected, found);
        run.sink.warn(fault, "mirror_tid");
    };
    if let Some(index) = link.index
        && own > link.mirror_tid
    {
        let place = element_place(link.parent, index);
        warn(
            place,
            format!("at least the child's {own}"),
            link.mirror_tid,
        );
    }
    let elements = node.children().iter().map(|c| Tid(c.mirror_tid.get()));
    let below = elements.max().unwrap_or_default().max(highest);
    // newfs leaves the root at 0 with two records in it.
    let newfs = link.index.is_none() && own.is_zero() && below == NEWFS_TID;
    if below > own && !newfs {
        warn(at, format!("at least the elements' {below}"), own);
    }
    if node.is_leaf() {
        audit(run, link, at, highest);
    }
}

/// With the option `mirror_tid`: an element below a TID that exists under it hides that change from
/// every incremental stream that starts between the two.
fn audit(run: &mut Run<'_>, link: &Link, child: Offset, highest: Tid) {
    let Some(index) = link.index else { return };
    if !run.options.mirror_tid || link.mirror_tid >= highest {
        return;
    }
    let place = element_place(link.parent, index);
    let expected = format!("at least {highest}, a TID below it");
    let fault = Fault::new(Rule::MirrorTid, place, expected, link.mirror_tid);
    let detail = format!(
        "streams that begin above {} pass over the subtree at {child}, keys from {} to {}",
        link.mirror_tid, link.lo, link.hi
    );
    run.sink.error(fault, detail);
}
