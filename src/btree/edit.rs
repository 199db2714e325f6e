//! Changes to the tree: insert with pre-emptive splits, logical and physical delete, propagation of
//! `mirror_tid` (format.md §10.3–10.8).

use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::{Key, Offset, Tid};
use crate::store::Txn;

/// Changes the tree, and remembers where the last change was: neighbours are cheap, ascending
/// inserts cheapest. Good for any number of transactions.
#[derive(Debug, Default)]
pub struct Editor {}

impl Editor {
    /// An editor that remembers nothing.
    pub fn new() -> Editor {
        Editor::default()
    }

    /// The element with exactly this key.
    pub fn find(&mut self, txn: &mut Txn<'_>, key: Key) -> Result<Option<LeafElement>> {
        let _ = (txn, key);
        todo!()
    }

    /// The first element with a key of at least `key`.
    pub fn at_or_after(&mut self, txn: &mut Txn<'_>, key: Key) -> Result<Option<LeafElement>> {
        let _ = (txn, key);
        todo!()
    }

    /// Inserts an element and raises `mirror_tid` to its TIDs; `false` if the key is there already
    /// (nothing changed then).
    pub fn insert(&mut self, txn: &mut Txn<'_>, element: &LeafElement) -> Result<bool> {
        let _ = (txn, element);
        todo!()
    }

    /// Sets `delete_tid` and `delete_ts` of the element with this key (0, 0 undeletes), and raises
    /// `mirror_tid` to it. Gives the element as it was. Errors: class `Damage` if there is none.
    pub fn set_deleted(
        &mut self,
        txn: &mut Txn<'_>,
        key: Key,
        tid: Tid,
        seconds: u32,
    ) -> Result<LeafElement> {
        let _ = (txn, key, tid, seconds);
        todo!()
    }

    /// Points the element with this key at other data. Gives the element as it was.
    pub fn set_data(
        &mut self,
        txn: &mut Txn<'_>,
        key: Key,
        at: Offset,
        len: usize,
        crc: u32,
    ) -> Result<LeafElement> {
        let _ = (txn, key, at, len, crc);
        todo!()
    }

    /// Takes the element with this key out of the tree; emptied nodes go. `mirror_tid` is raised to
    /// `mirror` first unless that is 0 (a removal without history that slaves must notice). Gives
    /// the element. Errors: class `Damage` if there is none.
    pub fn remove(&mut self, txn: &mut Txn<'_>, key: Key, mirror: Tid) -> Result<LeafElement> {
        let _ = (txn, key, mirror);
        todo!()
    }
}
