//! Byte order of full paths, one directory at a time.
//!
//! That is not quite depth first by name: `/a b` comes before `/a/x`, as a space is below the
//! slash. So a directory's contents come not right behind the directory, but where its name with a
//! `/` behind it has its place among its siblings.

use super::ObjectId;
use std::cmp::Ordering;

/// A directory entry as far as the order needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub name: Vec<u8>,
    /// The entry's key in its directory.
    pub key: i64,
    pub target: ObjectId,
}

/// Where a name stands in the order: its bytes, then the entry's key, which tells entries of the
/// same name apart.
pub(super) type Place = (Vec<u8>, i64);

/// Names close together in memory: all bytes in one piece, [`SLOT`] bytes more for each.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    at: u32,
    len: u16,
    pfs: u16,
    key: i64,
    obj: i64,
}

/// Bytes that a name takes beside its own.
const SLOT: usize = size_of::<Slot>();

impl Names {
    /// Bytes of memory in use.
    fn cost(&self) -> usize {
        self.bytes.len() + self.slots.len() * SLOT
    }

    /// Takes a name in. Names of more than 64 KiB, and of 4 GiB in all, have no place here: names
    /// of the medium are short, and those held much fewer.
    fn push(&mut self, name: &[u8], key: i64, target: ObjectId) {
        let at = u32::try_from(self.bytes.len());
        let len = u16::try_from(name.len());
        let (Ok(at), Ok(len)) = (at, len) else {
            return;
        };
        self.bytes.extend_from_slice(name);
        self.slots.push(Slot {
            at,
            len,
            pfs: target.pfs,
            key,
            obj: target.obj,
        });
    }

    fn name(&self, slot: &Slot) -> &[u8] {
        name_in(&self.bytes, slot)
    }

    fn place(&self, slot: &Slot) -> Place {
        (self.name(slot).to_vec(), slot.key)
    }

    /// Gives up the bytes that no slot names any more. Leaves the slots in no order.
    fn pack(&mut self) {
        self.slots.sort_unstable_by_key(|slot| slot.at);
        let mut end = 0;
        for slot in &mut self.slots {
            let (at, len) = (slot.at as usize, usize::from(slot.len));
            self.bytes.copy_within(at..at + len, end);
            // Not above `at`, which is a u32.
            slot.at = end as u32;
            end += len;
        }
        self.bytes.truncate(end);
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| order(bytes, a, b));
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.slots.shrink_to_fit();
    }
}

fn name_in<'a>(bytes: &'a [u8], slot: &Slot) -> &'a [u8] {
    &bytes[slot.at as usize..][..usize::from(slot.len)]
}

fn order(bytes: &[u8], a: &Slot, b: &Slot) -> Ordering {
    let place = |slot| (name_in(bytes, slot), slot.key);
    place(a).cmp(&place(b))
}

/// A part of a directory's names, sorted.
#[derive(Default)]
pub(super) struct Batch {
    names: Names,
    /// Whether the directory has more, above all of these.
    more: bool,
}

impl Batch {
    /// Bytes of memory.
    pub fn cost(&self) -> usize {
        self.names.cost()
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
    batch: Batch,
    /// How many names of the batch were given.
    next: usize,
    /// The last place of the batches so far.
    last: Option<Place>,
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
            batch: Batch {
                more: true,
                ..Batch::default()
            },
            next: 0,
            last: None,
            given: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes the next batch: above all before.
    pub fn refill(&mut self, batch: Batch) {
        self.batch = batch;
        self.next = 0;
        self.remember_last();
    }

    fn remember_last(&mut self) {
        let names = &self.batch.names;
        if let Some(last) = names.slots.last() {
            self.last = Some(names.place(last));
        }
    }

    /// Gives up the names given, and the upper half of those to come: they will be read again.
    pub fn halve(&mut self) {
        let names = &mut self.batch.names;
        names.slots.drain(..self.next);
        self.next = 0;
        let keep = names.slots.len().div_ceil(2);
        self.batch.more |= keep < names.slots.len();
        names.slots.truncate(keep);
        names.pack();
        names.sort();
        names.shrink();
        self.remember_last();
    }

    /// Bytes of memory that the batch takes.
    pub fn cost(&self) -> usize {
        self.batch.cost()
    }

    /// What the entries of the batch above the one given last name.
    pub fn coming(&self) -> impl Iterator<Item = ObjectId> {
        let slots = &self.batch.names.slots[self.next..];
        slots.iter().map(Slot::target)
    }

    /// The place above which the next batch begins.
    pub fn above(&self) -> Option<Place> {
        self.last.clone()
    }

    /// Notes that `name`, the entry given last, is a directory to enter.
    pub fn descend(&mut self, name: Vec<u8>, into: D) {
        self.waiting.push((name, into));
    }

    pub fn turn(&mut self) -> Turn<D> {
        let names = &self.batch.names;
        let next = names.slots.get(self.next);
        if next.is_none() && self.batch.more {
            return Turn::Refill;
        }
        let next = next.map(|slot| (names.name(slot), slot));
        let first = self
            .waiting
            .last()
            .is_some_and(|(name, _)| next.is_none_or(|(next, _)| name.iter().chain(b"/").lt(next)));
        if first && let Some((name, into)) = self.waiting.pop() {
            return Turn::Descend(name, into);
        }
        let Some((name, slot)) = next else {
            return Turn::Done;
        };
        let (name, key, target) = (name.to_vec(), slot.key, slot.target());
        self.next += 1;
        let again = self.given == name;
        self.given.clone_from(&name);
        Turn::Entry(Name { name, key, target }, again)
    }
}

impl Slot {
    fn target(&self) -> ObjectId {
        ObjectId {
            pfs: self.pfs,
            obj: self.obj,
        }
    }
}

/// Keeps the smallest names above a place, as many as fit.
pub(super) struct Smallest {
    limit: usize,
    above: Option<Place>,
    /// What is not below this was left out.
    ceiling: Option<Place>,
    names: Names,
}

impl Smallest {
    /// Keeps up to `limit` bytes ([`Batch::cost`]), but one name at least.
    pub fn new(limit: usize, above: Option<Place>) -> Smallest {
        Smallest {
            limit,
            above,
            ceiling: None,
            names: Names::default(),
        }
    }

    /// Whether [`Smallest::add`] of one more name leaves out others for the first time.
    pub fn wants_room(&self, name: &[u8]) -> bool {
        self.ceiling.is_none() && self.names.cost() + name.len() + SLOT > self.limit
    }

    /// Keeps more from now on.
    pub fn widen(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    pub fn add(&mut self, name: &[u8], key: i64, target: ObjectId) {
        let place = |place: &Place| (name, key).cmp(&(place.0.as_slice(), place.1));
        if self
            .above
            .as_ref()
            .is_some_and(|above| place(above).is_le())
            || self.ceiling.as_ref().is_some_and(|top| place(top).is_ge())
        {
            return;
        }
        self.names.push(name, key, target);
        if self.names.cost() > self.limit {
            self.cut();
        }
    }

    /// Leaves out the greatest, so that the rest takes 7/8 of the limit or less.
    fn cut(&mut self) {
        let names = &mut self.names;
        let goal = self.limit / 8 * 7;
        let mut cost = names.cost();
        while cost > goal && names.slots.len() > 1 {
            let count = names.slots.len();
            let keep = (count - count.div_ceil(8)).max(1);
            let bytes = &names.bytes;
            let compare = |a: &Slot, b: &Slot| order(bytes, a, b);
            names.slots.select_nth_unstable_by(keep, compare);
            self.ceiling = Some(names.place(&names.slots[keep]));
            let dropped = names.slots.drain(keep..);
            cost -= dropped
                .map(|slot| usize::from(slot.len) + SLOT)
                .sum::<usize>();
        }
        names.pack();
    }

    pub fn finish(mut self) -> Batch {
        self.names.sort();
        self.names.shrink();
        Batch {
            names: self.names,
            more: self.ceiling.is_some(),
        }
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

    /// Walks a model tree with [`Level`]s, `batch` bytes of names at a time; every so many turns
    /// (`give_up`), the directories above give up half of theirs.
    fn walked_paths(tree: &Node, batch: usize, give_up: usize) -> Vec<Vec<u8>> {
        let mut paths = Vec::new();
        let mut turns = 0;
        let mut stack = vec![(tree, Vec::new(), Level::<&Node>::new())];
        while let Some((node, path, level)) = stack.last_mut() {
            match level.turn() {
                Turn::Refill => {
                    let last = level.above().map(|(name, _)| name);
                    let above = node.0.keys().filter(|n| Some(*n) > last.as_ref());
                    let mut smallest = Smallest::new(batch, level.above());
                    for name in above {
                        smallest.add(name, 0, ObjectId::root(0));
                    }
                    level.refill(smallest.finish());
                }
                Turn::Entry(name, again) => {
                    assert!(!again);
                    paths.push([path.as_slice(), b"/", &name.name].concat());
                    let child = &node.0[&name.name];
                    assert!(level.waiting.len() < 255);
                    level.descend(name.name, child);
                }
                Turn::Descend(name, child) => {
                    turns += 1;
                    if turns % give_up == 0 {
                        level.halve();
                    }
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
        fn order_is_that_of_sorted_paths(
            tree in tree(),
            batch in 1usize..200,
            give_up in 1usize..5,
        ) {
            prop_assert_eq!(walked_paths(&tree, batch, give_up), sorted_paths(&tree));
        }

        #[test]
        fn batches_of_smallest_names(
            names in proptest::collection::vec((name(), 0i64..3), 0..60),
            limit in 1usize..1000,
        ) {
            let mut all: Vec<Place> = names.clone();
            all.sort();
            all.dedup();
            let mut shuffled = names;
            shuffled.sort_by_key(|(name, key)| (name.iter().rev().copied().collect::<Vec<_>>(), *key));
            shuffled.dedup();
            let mut given: Vec<Place> = Vec::new();
            let mut passes = 0;
            loop {
                passes += 1;
                let mut smallest = Smallest::new(limit, given.last().cloned());
                for (name, key) in &shuffled {
                    let target = ObjectId { pfs: 7, obj: key * 3 };
                    smallest.add(name, *key, target);
                }
                let Batch { names, more } = smallest.finish();
                prop_assert!(names.cost() <= limit || names.slots.len() == 1);
                prop_assert!(!names.slots.is_empty() || all.is_empty());
                given.extend(names.slots.iter().map(|slot| names.place(slot)));
                let target = |slot: &Slot| slot.target() == ObjectId { pfs: 7, obj: slot.key * 3 };
                prop_assert!(names.slots.iter().all(target));
                if !more {
                    break;
                }
            }
            let cost: usize = all.iter().map(|(name, _)| name.len() + SLOT).sum();
            // Batches are at least three quarters full, but for one name and rounding.
            if limit > 400 {
                prop_assert!(passes <= cost / (limit / 4 * 3 - 60) + 1, "{} passes", passes);
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
        let paths = walked_paths(&tree, 1000, 1000);
        let paths: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p)).collect();
        assert_eq!(paths, ["/a", "/a b", "/a b/y", "/a!", "/a/x", "/a0"]);
    }
}
