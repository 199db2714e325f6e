//! Byte order of full paths, one directory at a time.
//!
//! That is not quite depth first by name: `/a b` comes before `/a/x`, as a space is below the
//! slash. So a directory's contents come not right behind the directory, but where its name with a
//! `/` behind it has its place among its siblings.

use super::ObjectId;
use super::dir::DirEntry;

/// A directory entry as far as the order needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub name: Vec<u8>,
    /// The entry's key, to tell entries of the same name apart.
    pub key: i64,
    pub target: ObjectId,
}

impl Name {
    pub fn of(entry: DirEntry) -> Name {
        Name {
            key: entry.leaf.base.key.get(),
            name: entry.name,
            target: entry.target,
        }
    }
}

/// What comes next in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<D> {
    /// An entry, and whether the one before it had the same name.
    Entry(Name, bool),
    /// The contents of the directory of this name.
    Descend(Vec<u8>, D),
    /// The batch is used up, and there are more entries above the name given last.
    Refill,
    Done,
}

/// One directory's entries, and the descents among them, in path order.
pub(super) struct Level<D> {
    batch: std::vec::IntoIter<Name>,
    more: bool,
    /// The last name of the batches so far.
    last: Option<(Vec<u8>, i64)>,
    /// The name given last.
    given: Vec<u8>,
    /// Directories yet to enter. The contents of `x` come behind all siblings that begin with `x`
    /// and go on with a byte below `/`; so each name here is the beginning of the next one, which
    /// must be entered before it: a stack, of at most 255.
    waiting: Vec<(Vec<u8>, D)>,
}

impl<D> Level<D> {
    pub fn new() -> Level<D> {
        Level {
            batch: Vec::new().into_iter(),
            more: true,
            last: None,
            given: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes the next batch: sorted, above all before. `more` says whether others follow.
    pub fn refill(&mut self, batch: Vec<Name>, more: bool) {
        if let Some(last) = batch.last() {
            self.last = Some((last.name.clone(), last.key));
        }
        self.batch = batch.into_iter();
        self.more = more;
    }

    /// What is above the entry given last in the batch.
    pub fn coming(&self) -> &[Name] {
        self.batch.as_slice()
    }

    /// The name and key above which the next batch begins.
    pub fn above(&self) -> Option<(Vec<u8>, i64)> {
        self.last.clone()
    }

    /// Notes that `name`, the entry given last, is a directory to enter.
    pub fn descend(&mut self, name: Vec<u8>, into: D) {
        self.waiting.push((name, into));
    }

    pub fn turn(&mut self) -> Turn<D> {
        let next = self.batch.as_slice().first();
        if next.is_none() && self.more {
            return Turn::Refill;
        }
        let first = self.waiting.last().is_some_and(|(name, _)| {
            next.is_none_or(|next| name.iter().chain(b"/").lt(next.name.iter()))
        });
        if first && let Some((name, into)) = self.waiting.pop() {
            return Turn::Descend(name, into);
        }
        match self.batch.next() {
            Some(name) => {
                let again = self.given == name.name;
                self.given.clone_from(&name.name);
                Turn::Entry(name, again)
            }
            None => Turn::Done,
        }
    }
}

/// Keeps the `limit` smallest names above one.
pub(super) struct Smallest {
    limit: usize,
    above: Option<(Vec<u8>, i64)>,
    names: Vec<Name>,
    more: bool,
}

impl Smallest {
    pub fn new(limit: usize, above: Option<(Vec<u8>, i64)>) -> Smallest {
        Smallest {
            limit,
            above,
            names: Vec::new(),
            more: false,
        }
    }

    pub fn add(&mut self, name: Name) {
        if let Some((above, key)) = &self.above
            && (&name.name, name.key) <= (above, *key)
        {
            return;
        }
        self.names.push(name);
        if self.names.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.names.len() > self.limit {
            self.names.select_nth_unstable(self.limit);
            self.names.truncate(self.limit);
            self.more = true;
        }
    }

    pub fn finish(mut self) -> (Vec<Name>, bool) {
        self.cut();
        self.names.sort_unstable();
        self.names.shrink_to_fit();
        (self.names, self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, Default)]
    struct Node(BTreeMap<Vec<u8>, Node>);

    fn name() -> impl Strategy<Value = Vec<u8>> {
        // Bytes around the slash, so that names extend each other on both sides of it.
        proptest::collection::vec(proptest::sample::select(&b"!a.0\xff"[..]), 1..4)
    }

    fn tree() -> impl Strategy<Value = Node> {
        let leaf = Just(Node::default());
        leaf.prop_recursive(4, 60, 8, |inner| {
            proptest::collection::btree_map(name(), inner, 0..8).prop_map(Node)
        })
    }

    fn sorted_paths(tree: &Node) -> Vec<Vec<u8>> {
        fn collect(node: &Node, path: &[u8], out: &mut Vec<Vec<u8>>) {
            for (name, child) in &node.0 {
                let path = [path, b"/", name].concat();
                collect(child, &path, out);
                out.push(path);
            }
        }
        let mut paths = Vec::new();
        collect(tree, b"", &mut paths);
        paths.sort();
        paths
    }

    /// Walks a model tree with [`Level`]s, `batch` names at a time.
    fn walked_paths(tree: &Node, batch: usize) -> Vec<Vec<u8>> {
        let mut paths = Vec::new();
        let mut stack = vec![(tree, Vec::new(), Level::<&Node>::new())];
        while let Some((node, path, level)) = stack.last_mut() {
            match level.turn() {
                Turn::Refill => {
                    let last = level.above().map(|(name, _)| name);
                    let above = node.0.keys().filter(|n| Some(*n) > last.as_ref());
                    let names = above.cloned().map(|name| Name {
                        name,
                        key: 0,
                        target: ObjectId::root(0),
                    });
                    let names: Vec<Name> = names.collect();
                    let more = names.len() > batch;
                    level.refill(names.into_iter().take(batch).collect(), more);
                }
                Turn::Entry(name, again) => {
                    assert!(!again);
                    paths.push([path.as_slice(), b"/", &name.name].concat());
                    let child = &node.0[&name.name];
                    assert!(level.waiting.len() < 255);
                    level.descend(name.name, child);
                }
                Turn::Descend(name, child) => {
                    let path = [path.as_slice(), b"/", &name].concat();
                    stack.push((child, path, Level::new()));
                }
                Turn::Done => {
                    stack.pop();
                }
            }
        }
        paths
    }

    proptest! {
        #[test]
        fn order_is_that_of_sorted_paths(tree in tree(), batch in 1usize..5) {
            prop_assert_eq!(walked_paths(&tree, batch), sorted_paths(&tree));
        }

        #[test]
        fn batches_of_smallest_names(
            names in proptest::collection::vec((name(), 0i64..3), 0..60),
            limit in 1usize..20,
        ) {
            let mut all: Vec<(Vec<u8>, i64)> = names.clone();
            all.sort();
            all.dedup();
            let mut given = Vec::new();
            loop {
                let mut smallest = Smallest::new(limit, given.last().cloned());
                for (name, key) in &all {
                    let (name, key) = (name.clone(), *key);
                    smallest.add(Name { name, key, target: ObjectId::root(0) });
                }
                let (batch, more) = smallest.finish();
                prop_assert!(batch.len() <= limit);
                given.extend(batch.into_iter().map(|n| (n.name, n.key)));
                if !more {
                    break;
                }
            }
            prop_assert_eq!(given, all);
        }
    }

    #[test]
    fn siblings_that_extend_a_name() {
        let mut tree = Node::default();
        for path in ["a", "a/x", "a b", "a b/y", "a0", "a!"] {
            let mut node = &mut tree;
            for part in path.split('/') {
                node = node.0.entry(part.as_bytes().to_vec()).or_default();
            }
        }
        let paths = walked_paths(&tree, 10);
        let paths: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p)).collect();
        assert_eq!(paths, ["/a", "/a b", "/a b/y", "/a!", "/a/x", "/a0"]);
    }
}
