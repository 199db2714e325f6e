//! Records with their data: made, marked deleted, destroyed; space and inode counts kept right
//! (operations.md §3.2, §3.3).

use super::edit::{Edit, Editor};
use super::record;
use crate::error::{Error, Result};
use crate::format::node::{Base, LeafElement, RECORD};
use crate::format::record::{crc_bytes, data_crc_ok, data_sum, data_zone, rt};
use crate::format::{CrcKind, Key, Offset, Tid, XBUFFER, Zone};
use zerocopy::little_endian::{I32, U32, U64};

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
///
/// Errors: class `Damage` for a record type that does not exist or data of an impossible length,
/// `NoSpace`.
pub fn create<T: Edit + ?Sized>(
    editor: &mut Editor,
    txn: &mut T,
    record: &NewRecord<'_>,
) -> Result<bool> {
    let (key, rec_type, data) = (record.base.key(), record.base.rec_type.get(), record.data);
    let impossible = |what: String| Error::damage(format!("the record {key} {what}"));
    if data.len() > XBUFFER || crc_bytes(rec_type, data).is_none() {
        return Err(impossible(format!(
            "cannot have {} bytes of data",
            data.len()
        )));
    }
    let Some(zone) = data_zone(rec_type, data.len() as u32) else {
        return Err(impossible(format!(
            "is of no known type (0x{rec_type:02x})"
        )));
    };
    if editor.find(txn, key)?.is_some() {
        return Ok(false);
    }
    let at = match data {
        [] => Offset::NULL,
        _ => txn.allocate(zone, data.len())?,
    };
    if at != Offset::NULL {
        txn.fill(at, data)?;
    }
    let kind = CrcKind::of_version(txn.version());
    let crc = record.crc.unwrap_or_else(|| data_sum(rec_type, data, kind));
    let mut element = LeafElement {
        base: record.base,
        create_ts: U32::new(record.create_ts),
        delete_ts: U32::new(record.delete_ts),
        data_offset: U64::new(at.0),
        data_len: I32::new(data.len() as i32),
        data_crc: U32::new(crc),
    };
    element.base.btype = RECORD;
    let inserted = editor.insert(txn, &element);
    if !matches!(inserted, Ok(true)) && at != Offset::NULL {
        txn.free(at, data.len())?;
    }
    if matches!(inserted, Ok(true)) && is_live_inode(&element) {
        txn.count_inodes(1);
    }
    inserted
}

/// Marks a record deleted at `tid` (0: not deleted) and counts inodes. Gives the element as it was.
///
/// Errors: as [`Editor::set_deleted`].
pub fn mark_deleted<T: Edit + ?Sized>(
    editor: &mut Editor,
    txn: &mut T,
    key: Key,
    tid: Tid,
    seconds: u32,
) -> Result<LeafElement> {
    let old = editor.set_deleted(txn, key, tid, seconds)?;
    let was_live = old.base.delete_tid().is_zero();
    if is_inode(&old) && was_live != tid.is_zero() {
        txn.count_inodes(if was_live { -1 } else { 1 });
    }
    Ok(old)
}

/// Takes a record away with its data and counts inodes. `mirror` as in [`Editor::remove`]. Gives
/// the element as it was.
///
/// Data whose place is impossible is left alone: it is not the record's to give back.
pub fn destroy<T: Edit + ?Sized>(
    editor: &mut Editor,
    txn: &mut T,
    key: Key,
    mirror: Tid,
) -> Result<LeafElement> {
    let old = editor.remove(txn, key, mirror)?;
    if let Some((at, len)) = record::extent(&old)
        && at.zone() != Zone::BTREE
    {
        txn.free(at, len)?;
    }
    if is_live_inode(&old) {
        txn.count_inodes(-1);
    }
    Ok(old)
}

/// Ends a record's life in this transaction, by the rules of one commit (operations.md §13): what
/// this TID made is destroyed, what has no history (`keep` false) is destroyed with `mirror_tid`
/// raised, all else is marked deleted at this TID.
///
/// What is destroyed cannot be taken back once a checkpoint is made: an operation of several keeps
/// everything until it is there.
pub fn retire<T: Edit + ?Sized>(
    editor: &mut Editor,
    txn: &mut T,
    element: &LeafElement,
    keep: bool,
) -> Result<()> {
    let (key, tid, now) = (element.base.key(), txn.tid(), txn.now_seconds());
    if key.create_tid == tid {
        destroy(editor, txn, key, Tid::ZERO)?;
    } else if keep {
        mark_deleted(editor, txn, key, tid, now)?;
    } else {
        destroy(editor, txn, key, tid)?;
    }
    Ok(())
}

/// Replaces the bytes of a record in place, keeping length and TIDs: for what is not versioned
/// (mtime, atime), and for records that this TID made. The CRC follows. Only bytes that differ are
/// written.
///
/// Errors: class `Damage` where the element's place is impossible or `data` is not as long as what
/// it replaces; large file data (zone 10) is never overwritten.
pub fn overwrite<T: Edit + ?Sized>(
    editor: &mut Editor,
    txn: &mut T,
    element: &LeafElement,
    data: &[u8],
) -> Result<()> {
    let key = element.base.key();
    let place = record::place(element)?.filter(|(at, len)| {
        matches!(at.zone(), Zone::META | Zone::SMALL_DATA) && *len == data.len()
    });
    let Some((at, len)) = place else {
        let text = format!("the record {key} has no {} bytes to overwrite", data.len());
        return Err(Error::damage(text));
    };
    let old = txn.bytes(at, len)?;
    let differs = |(a, b): (&u8, &u8)| a != b;
    let Some(first) = old.iter().zip(data).position(differs) else {
        return Ok(());
    };
    let last = old.iter().zip(data).rposition(differs).unwrap_or(first);
    drop(old);
    // The place lies within one big-block, so the sum stays in it.
    let start = Offset(at.0 + first as u64);
    let changed = &data[first..=last];
    txn.modify(start, changed.len())?.copy_from_slice(changed);
    let version = txn.version();
    if !data_crc_ok(element, data, version) {
        let crc = data_sum(
            element.base.rec_type.get(),
            data,
            CrcKind::of_version(version),
        );
        editor.set_data(txn, key, at, len, crc)?;
    }
    Ok(())
}

fn is_inode(element: &LeafElement) -> bool {
    element.base.rec_type.get() == rt::INODE
}

fn is_live_inode(element: &LeafElement) -> bool {
    is_inode(element) && element.base.delete_tid().is_zero()
}
