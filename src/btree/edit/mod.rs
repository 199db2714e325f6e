//! Changes to the tree: insert with splits, logical and physical delete, propagation of
//! `mirror_tid` (format.md §10.3–10.8).
//!
//! Every change first finds its leaf and only then touches anything: a key that is there already,
//! or one that is missing, costs no write. Full nodes are split when an insert needs room in them,
//! from the top down, so that every parent has room for its child's second half.

mod ground;
mod place;
mod remove;
mod split;
#[cfg(test)]
mod tests;

pub use ground::Edit;

use crate::error::{Error, Result};
use crate::format::node::{Base, InternalElement, LEAF_MAX, LeafElement, RECORD};
use crate::format::{Fault, Key, Offset, Rule, Tid};
use place::{Level, Place, children, records};
use std::mem::offset_of;
use zerocopy::little_endian::{I32, U32, U64};

/// So many inserts side by side are a run that goes on.
const RUN: u32 = 8;

/// Changes the tree, and remembers where the last change was: neighbours are cheap, ascending
/// inserts cheapest. Good for any number of transactions of one store.
///
/// After an error the tree is whole: a change that finds damage or no space has not begun, or has
/// split nodes at most. After an `Io` error of the store the transaction is to be dropped.
#[derive(Debug, Default)]
pub struct Editor {
    place: Place,
    run: Run,
}

/// Whether inserts ascend: a leaf and the place in it, and how many inserts came one behind the
/// other.
#[derive(Debug, Default)]
struct Run {
    last: Option<(Offset, usize)>,
    length: u32,
}

impl Editor {
    /// An editor that remembers nothing.
    pub fn new() -> Editor {
        Editor::default()
    }

    /// The element with exactly this key.
    pub fn find<T: Edit + ?Sized>(&mut self, txn: &mut T, key: Key) -> Result<Option<LeafElement>> {
        self.place.seek(txn, key)?;
        let found = self.position(key).ok();
        Ok(found.map(|index| self.place.leaf().node.leaves()[index]))
    }

    /// The first element with a key of at least `key`.
    pub fn at_or_after<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        key: Key,
    ) -> Result<Option<LeafElement>> {
        self.place.seek(txn, key)?;
        let (Ok(index) | Err(index)) = self.position(key);
        if let Some(element) = self.place.leaf().node.leaves().get(index) {
            return Ok(Some(*element));
        }
        if !self.place.next_leaf(txn)? {
            return Ok(None);
        }
        Ok(self.place.leaf().node.leaves().first().copied())
    }

    /// Inserts an element and raises `mirror_tid` to its TIDs; `false` if the key is there already
    /// (nothing changed then).
    ///
    /// Errors: `Damage` for a key that no tree can hold, `NoSpace`.
    pub fn insert<T: Edit + ?Sized>(&mut self, txn: &mut T, element: &LeafElement) -> Result<bool> {
        let key = element.base.key();
        if !(Key::MIN..Key::MAX).contains(&key) || key.create_tid.is_zero() {
            return Err(Error::damage(format!(
                "a record with the key {key} has no place in a B-Tree"
            )));
        }
        self.place.seek(txn, key)?;
        let Err(mut index) = self.position(key) else {
            return Ok(false);
        };
        self.place.changing(txn);
        self.widen(txn, key)?;
        if self.place.leaf().node.count() == LEAF_MAX {
            let bulk = self.is_bulk(index, element);
            index = self.split(txn, key, index, bulk)?;
        }
        let tid = element.base.create_tid().max(element.base.delete_tid());
        self.store(txn, index, element, tid)?;
        self.propagate(txn, tid)?;
        self.place.changed(txn);
        self.run.note(self.place.leaf().at, index);
        Ok(true)
    }

    /// Sets `delete_tid` and `delete_ts` of the element with this key (0, 0 undeletes), and raises
    /// `mirror_tid` to it. Gives the element as it was. Errors: class `Damage` if there is none, or
    /// if it was created at or after `tid`.
    pub fn set_deleted<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        key: Key,
        tid: Tid,
        seconds: u32,
    ) -> Result<LeafElement> {
        let (index, old) = self.need(txn, key)?;
        if !tid.is_zero() && tid <= key.create_tid {
            let expected = format!("a deletion of {key} after its creation");
            return Err(Fault::new(Rule::LeafTid, self.place.leaf().at, expected, tid).into());
        }
        self.place.changing(txn);
        let leaf = self.place.leaf_mut();
        let element = &mut records(&mut leaf.node)[index];
        element.base.delete_tid = U64::new(tid.0);
        element.delete_ts = U32::new(seconds);
        let start = offset_of!(Base, delete_tid);
        let end = offset_of!(LeafElement, data_offset);
        leaf.write_within(txn, index, start..end)?;
        self.raise(txn, tid)?;
        self.place.changed(txn);
        Ok(old)
    }

    /// Points the element with this key at other data. Gives the element as it was. Errors: class
    /// `Damage` if there is none.
    pub fn set_data<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        key: Key,
        at: Offset,
        len: usize,
        crc: u32,
    ) -> Result<LeafElement> {
        let (index, old) = self.need(txn, key)?;
        let Ok(len) = i32::try_from(len) else {
            let text = format!("{len} bytes are too many for the record {key}");
            return Err(Error::damage(text));
        };
        self.place.changing(txn);
        let leaf = self.place.leaf_mut();
        let element = &mut records(&mut leaf.node)[index];
        element.data_offset = U64::new(at.0);
        element.data_len = I32::new(len);
        element.data_crc = U32::new(crc);
        let start = offset_of!(LeafElement, data_offset);
        leaf.write_within(txn, index, start..size_of::<LeafElement>())?;
        self.place.changed(txn);
        Ok(old)
    }

    /// Takes the element with this key out of the tree; emptied nodes go. `mirror_tid` is raised to
    /// `mirror` first unless that is 0 (a removal without history that slaves must notice). Gives
    /// the element. Errors: class `Damage` if there is none.
    pub fn remove<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        key: Key,
        mirror: Tid,
    ) -> Result<LeafElement> {
        let (index, old) = self.need(txn, key)?;
        self.place.changing(txn);
        self.raise(txn, mirror)?;
        self.take_out(txn, index)?;
        self.place.changed(txn);
        Ok(old)
    }

    /// Where `key` is in the leaf, or where it would be.
    fn position(&self, key: Key) -> Result<usize, usize> {
        let leaves = self.place.leaf().node.leaves();
        match leaves.last() {
            // What ascends belongs behind the last one.
            Some(last) if last.base.key() < key => Err(leaves.len()),
            _ => leaves.binary_search_by(|e| e.base.key().cmp(&key)),
        }
    }

    /// Goes to the element with this key, which must be there.
    fn need<T: Edit + ?Sized>(&mut self, txn: &mut T, key: Key) -> Result<(usize, LeafElement)> {
        self.place.seek(txn, key)?;
        match self.position(key) {
            Ok(index) => Ok((index, self.place.leaf().node.leaves()[index])),
            Err(_) => Err(Error::damage(format!(
                "the record {key} is not in the B-Tree where it was a moment ago"
            ))),
        }
    }

    /// Puts the element at `index` of the leaf, which has room.
    fn store<T: Edit + ?Sized>(
        &mut self,
        txn: &mut T,
        index: usize,
        element: &LeafElement,
        tid: Tid,
    ) -> Result<()> {
        let leaf = self.place.leaf_mut();
        let count = leaf.node.count();
        let elements = records(&mut leaf.node);
        elements.copy_within(index..count, index + 1);
        elements[index] = *element;
        elements[index].base.btype = RECORD;
        leaf.node.count.set(count as i32 + 1);
        leaf.node
            .mirror_tid
            .set(leaf.node.mirror_tid.get().max(tid.0));
        leaf.write_head(txn)?;
        leaf.write_elements(txn, index..count + 1)
    }

    /// Makes the bounds of the nodes on the way wide enough for `key` (format.md §10.3).
    ///
    /// What was removed from the space between a node's own bounds and its parent's is known to
    /// the parent's element alone; the edge element that takes the space over learns it.
    fn widen<T: Edit + ?Sized>(&mut self, txn: &mut T, key: Key) -> Result<()> {
        let above = self.place.levels.len() - 1;
        // Children of a node that is wide enough may be too narrow, but not its parents.
        let narrow =
            |l: &Level| key < l.node.base(0).key() || key >= l.node.base(l.node.count()).key();
        let wide = self.place.levels[..above].iter().rposition(|l| !narrow(l));
        for depth in wide.map_or(0, |wide| wide + 1)..above {
            let known = match depth.checked_sub(1) {
                Some(parent) => self.place.levels[parent].element().mirror_tid.get(),
                None => 0,
            };
            let level = &mut self.place.levels[depth];
            let (count, left, right) = (level.node.count(), level.left, level.right);
            let elements = children(&mut level.node);
            let to_left = key < elements[0].base.key();
            let edge = if to_left {
                let btype = elements[0].base.btype;
                elements[0].base = bound(left);
                elements[0].base.btype = btype;
                0
            } else {
                elements[count].base = bound(right);
                count - 1
            };
            let mirror_tid = elements[edge].mirror_tid.get().max(known);
            elements[edge].mirror_tid.set(mirror_tid);
            let mirror_tid = level.node.mirror_tid.get().max(mirror_tid);
            level.node.mirror_tid.set(mirror_tid);
            level.write_head(txn)?;
            level.write_elements(txn, edge..edge + 1)?;
            if !to_left {
                level.write_within(txn, count, 0..size_of::<Base>())?;
            }
        }
        Ok(())
    }

    /// Raises `mirror_tid` of the leaf and of what is above it.
    fn raise<T: Edit + ?Sized>(&mut self, txn: &mut T, tid: Tid) -> Result<()> {
        let leaf = self.place.leaf_mut();
        if leaf.node.mirror_tid() < tid {
            leaf.node.mirror_tid.set(tid.0);
            leaf.write_head(txn)?;
        }
        self.propagate(txn, tid)
    }

    /// Raises `mirror_tid` above the leaf, up to where it is high enough (format.md §10.6).
    fn propagate<T: Edit + ?Sized>(&mut self, txn: &mut T, tid: Tid) -> Result<()> {
        let above = self.place.levels.len() - 1;
        for level in self.place.levels[..above].iter_mut().rev() {
            let element = level.element();
            if element.mirror_tid.get() >= tid.0 {
                return Ok(());
            }
            element.mirror_tid.set(tid.0);
            let start = offset_of!(InternalElement, mirror_tid);
            level.write_within(txn, level.index, start..start + size_of::<U64>())?;
            if level.node.mirror_tid() >= tid {
                return Ok(());
            }
            level.node.mirror_tid.set(tid.0);
            level.write_head(txn)?;
        }
        Ok(())
    }

    /// Whether the element to come at `index` belongs to a run that goes on.
    fn is_bulk(&self, index: usize, element: &LeafElement) -> bool {
        let leaf = self.place.leaf();
        let run = RUN as usize;
        let before = index.checked_sub(run).map(|first| first..index);
        let same_origin = before
            .and_then(|range| leaf.node.leaves().get(range))
            .is_some_and(|all| {
                all.iter()
                    .all(|e| e.base.create_tid == element.base.create_tid)
            });
        same_origin || self.run.goes_on(leaf.at, index)
    }
}

impl Run {
    fn note(&mut self, leaf: Offset, index: usize) {
        self.length = match self.last {
            Some((at, last)) if at == leaf && last + 1 == index => self.length.saturating_add(1),
            // The first of a leaf that a split has just made goes on with the run before.
            Some(_) if index == 0 && self.length >= RUN => self.length,
            _ => 0,
        };
        self.last = Some((leaf, index));
    }

    fn goes_on(&self, leaf: Offset, index: usize) -> bool {
        self.length >= RUN && index.checked_sub(1).map(|last| (leaf, last)) == self.last
    }
}

/// A bound as stored. The lowest of all carries a deletion TID of 1 (format.md §8.3).
fn bound(key: Key) -> Base {
    let mut base = Base::from_key(key);
    if key == Key::MIN {
        base.delete_tid = U64::new(1);
    }
    base
}
