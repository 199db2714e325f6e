//! PFS records written: new versions, and the reserved bytes in place.

use crate::btree::Editor;
use crate::error::Result;
use crate::format::mark::MARK_SIZE;
use crate::format::record::PfsData;
use crate::store::Txn;

/// Stores `data` as PFS `id`'s record: a new version, the old one deleted at this TID (one made by
/// this transaction is replaced). The reserved bytes are cleared: they belong to a version.
pub fn store_record(editor: &mut Editor, txn: &mut Txn<'_>, id: u16, data: &PfsData) -> Result<()> {
    let _ = (editor, txn, id, data);
    todo!()
}

/// Replaces the reserved bytes of PFS `id`'s record in place, under UNDO. Errors: class `Damage` if
/// it has no record.
pub fn set_mark(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    id: u16,
    mark: &[u8; MARK_SIZE],
) -> Result<()> {
    let _ = (editor, txn, id, mark);
    todo!()
}
