//! Range cursors: every record between two keys, or those visible as of a TID.

use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::{Key, Tid};
use crate::store::Fetch;

/// Walks all records (every version) with keys in `[from, to]`, in key order.
///
/// An unreadable or damaged node is an error of the one call that meets it; the next call goes on
/// behind that node.
pub struct Cursor {}

impl Cursor {
    /// A cursor before `from`; the walk ends behind `to`.
    pub fn new(from: Key, to: Key) -> Cursor {
        let _ = (from, to);
        todo!()
    }

    /// The next record.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
        let _ = fetch;
        todo!()
    }
}

/// Walks the records of a key range that are visible as of a TID: of each record's versions the one
/// with the greatest `create_tid` up to the TID, unless it is deleted by then. `Tid::MAX` is the
/// current state. The creation TIDs of the bounds are ignored.
pub struct AsOf {}

impl AsOf {
    /// A cursor over the records in `[from, to]` as of `asof`.
    pub fn new(from: Key, to: Key, asof: Tid) -> AsOf {
        let _ = (from, to, asof);
        todo!()
    }

    /// The next visible record. Errors as [`Cursor::next`].
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<LeafElement>> {
        let _ = fetch;
        todo!()
    }
}

/// The version of one record (`key`'s creation TID is ignored) that is visible as of `asof`.
pub fn lookup<F: Fetch + ?Sized>(
    fetch: &mut F,
    key: Key,
    asof: Tid,
) -> Result<Option<LeafElement>> {
    let _ = (fetch, key, asof);
    todo!()
}
