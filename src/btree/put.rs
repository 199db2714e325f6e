//! Records with their data: made, marked deleted, destroyed; space and inode counts kept right
//! (operations.md §3.2, §3.3).

use super::edit::Editor;
use crate::error::Result;
use crate::format::node::{Base, LeafElement};
use crate::format::{Key, Tid};
use crate::store::Txn;

/// A record to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Key, `delete_tid` and object type; `btype` is set here.
    pub base: Base,
    /// When it was made and deleted, seconds; for display.
    pub create_ts: u32,
    /// When it was deleted.
    pub delete_ts: u32,
    /// Its data, at most 64 KiB; goes to the zone of its type and length.
    pub data: &'a [u8],
    /// The data's CRC as the element is to carry it; `None`: that of the volume's version.
    pub crc: Option<u32>,
}

/// Makes a record: allocates, writes the data, inserts the element, counts a live inode. `false` if
/// the key is there already (nothing changed then).
pub fn create(editor: &mut Editor, txn: &mut Txn<'_>, record: &NewRecord<'_>) -> Result<bool> {
    let _ = (editor, txn, record);
    todo!()
}

/// Marks a record deleted at `tid` (0: not deleted) and counts inodes. Gives the element as it was.
pub fn mark_deleted(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    key: Key,
    tid: Tid,
    seconds: u32,
) -> Result<LeafElement> {
    let _ = (editor, txn, key, tid, seconds);
    todo!()
}

/// Takes a record away with its data and counts inodes. `mirror` as in [`Editor::remove`]. Gives
/// the element as it was.
pub fn destroy(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    key: Key,
    mirror: Tid,
) -> Result<LeafElement> {
    let _ = (editor, txn, key, mirror);
    todo!()
}

/// Ends a record's life in this transaction, by the rules of one commit (operations.md §13): what
/// this TID made is destroyed, what has no history (`keep` false) is destroyed with `mirror_tid`
/// raised, all else is marked deleted at this TID.
pub fn retire(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    element: &LeafElement,
    keep: bool,
) -> Result<()> {
    let _ = (editor, txn, element, keep);
    todo!()
}

/// Replaces the bytes of a record in place, keeping length and TIDs: for what is not versioned
/// (mtime, atime), and for records that this TID made. The CRC follows.
pub fn overwrite(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    element: &LeafElement,
    data: &[u8],
) -> Result<()> {
    let _ = (editor, txn, element, data);
    todo!()
}
