//! File contents changed: blocks written, replaced and cut (operations.md §13.5, format.md §14).
//!
//! A block is never changed in place: its new contents get new space, whatever history is kept.
//! Every block is of the size that its offset says, zero-filled behind the end of the file, but the
//! only block of a file of up to 8 KiB, which is as long as the file, rounded up to 16 bytes. So a
//! file that grows or shrinks across that border has its first block written anew.

use super::live::Live;
use super::{Ops, Sweep, flags, refused};
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{ObjType, rt};
use crate::format::{
    BUFFER, Fault, HALF_BUFFER, Localization, Rule, Tid, XBUFFER, align16, block_size,
};
use crate::fs::{Inode, file};
use crate::store::Txn;
use std::borrow::Cow;
use zerocopy::little_endian::U64;

/// The longest that a file can be: keys of blocks stay below 2^63.
pub const SIZE_MAX: u64 = i64::MAX.cast_unsigned() - XBUFFER as u64;

/// How long the record of the block at `base` is in a file of `size` bytes.
fn record_len(base: u64, size: u64) -> usize {
    match base == 0 && size <= HALF_BUFFER {
        true => align16(size) as usize,
        false => block_size(base) as usize,
    }
}

/// The offset of the block that holds offset `at`.
fn block_base(at: u64) -> u64 {
    at - at % block_size(at)
}

/// The file offset of a block's first byte.
pub(super) fn base_of(leaf: &LeafElement) -> Result<i64> {
    let (key, len) = (leaf.base.key.get(), leaf.data_len.get());
    match (0..=XBUFFER as i32).contains(&len) {
        true => Ok(key.saturating_sub(i64::from(len))),
        false => {
            let at = leaf.data_offset();
            Err(Fault::new(Rule::LeafLength, at, "0 to 65536 bytes", len).into())
        }
    }
}

/// The error about a block that lies across offset `edge`, where a block should begin.
pub(super) fn straddles(leaf: &LeafElement, edge: i64) -> Error {
    let (key, len) = (leaf.base.key.get(), leaf.data_len.get());
    let expected = format!("a block that ends or begins at 0x{edge:x}");
    let found = format!("{len} bytes up to 0x{key:x}");
    Fault::new(Rule::FileShape, leaf.data_offset(), expected, found).into()
}

impl Ops {
    /// Writes `bytes` at file offset `at`, extending the file as needed. Zeros are written like all
    /// else: only [`Ops::put_block`] makes holes.
    pub fn write(&mut self, txn: &mut Txn<'_>, obj: i64, at: u64, bytes: &[u8]) -> Result<()> {
        let inode = self.regular(txn, obj)?;
        flags::check(&inode.data, flags::IMMUTABLE, "write to the file")?;
        if at != inode.size() {
            flags::check(&inode.data, flags::APPEND, "overwrite the file")?;
        }
        self.write_to(txn, &inode, at, bytes)
    }

    /// [`Ops::write`] whatever the file's flags are: it was open when they were set.
    pub(in crate::fs) fn write_open(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        at: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let inode = self.regular(txn, obj)?;
        self.write_to(txn, &inode, at, bytes)
    }

    fn write_to(&mut self, txn: &mut Txn<'_>, inode: &Inode, at: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at.checked_add(bytes.len() as u64);
        let Some(end) = end.filter(|end| *end <= SIZE_MAX) else {
            return Err(too_large(inode));
        };
        let size = inode.size().max(end);
        if block_base(at) > 0 {
            self.reshape_first(txn, inode, size)?;
        }
        let mut rest = bytes;
        let mut pos = at;
        while !rest.is_empty() {
            let room = block_base(pos) + block_size(pos) - pos;
            let len = rest.len().min(room as usize);
            let (piece, behind) = rest.split_at(len);
            self.write_piece(txn, inode, (pos, size), piece)?;
            (rest, pos) = (behind, pos + len as u64);
        }
        if size == inode.size() {
            return self.touch(txn, inode);
        }
        self.resize(txn, inode, size, txn.now())
    }

    /// Writes bytes that lie within one block, at `pos` of a file that will have `size` bytes.
    fn write_piece(
        &mut self,
        txn: &mut Txn<'_>,
        inode: &Inode,
        (pos, size): (u64, u64),
        piece: &[u8],
    ) -> Result<()> {
        let base = block_base(pos);
        let len = block_size(base).min(size - base) as usize;
        if piece.len() == len {
            return self.replace(txn, inode, base, Some(piece), size);
        }
        let mut block = vec![0; len];
        file::read_at(txn, inode, Tid::MAX, base, &mut block)?;
        let start = (pos - base) as usize;
        block[start..start + piece.len()].copy_from_slice(piece);
        self.replace(txn, inode, base, Some(&block), size)
    }

    /// Sets the file's length. What is cut off goes with its blocks; what is added is a hole.
    ///
    /// The blocks of a large file can take several checkpoints; until the last the file has its old
    /// length, and holes.
    pub fn truncate(&mut self, txn: &mut Txn<'_>, obj: i64, size: u64) -> Result<()> {
        match self.begin_truncate(txn, obj, size)? {
            Some(sweep) => sweep.finish(self, txn),
            None => Ok(()),
        }
    }

    /// As [`Ops::truncate`], with the work left to the sweep it gives; `None` if all is done.
    pub fn begin_truncate(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        size: u64,
    ) -> Result<Option<Sweep>> {
        let inode = self.regular(txn, obj)?;
        let locked = flags::IMMUTABLE | flags::APPEND;
        flags::check(&inode.data, locked, "change the file's length")?;
        if size > SIZE_MAX {
            return Err(too_large(&inode));
        }
        if size < inode.size() {
            let from = size.next_multiple_of(block_size(size));
            return Ok(Some(Sweep::cut(inode.id, from, size)));
        }
        if size > inode.size() {
            self.reshape_first(txn, &inode, size)?;
            self.resize(txn, &inode, size, txn.now())?;
        }
        Ok(None)
    }

    /// Gives a file without blocks behind `size` (less than its length) that length: what the last
    /// block holds behind it becomes zeros.
    pub(super) fn cut(&mut self, txn: &mut Txn<'_>, inode: &Inode, size: u64) -> Result<()> {
        let base = block_base(size);
        if base < size && self.block_at(txn, inode, base)?.is_some() {
            let mut block = vec![0; (size - base) as usize];
            file::read_at(txn, inode, Tid::MAX, base, &mut block)?;
            self.replace(txn, inode, base, Some(&block), size)?;
        }
        self.resize(txn, inode, size, txn.now())
    }

    /// Replaces the block at base offset `base` of a file whose final length is `size`: `block` is
    /// the block's bytes up to that length (whole blocks before the end); `None` makes a hole. The
    /// inode is left to [`Ops::finish_file`]. For bulk writers, which go through a file in order and
    /// give every block that changes, the first and the last among them wherever the length does.
    ///
    /// `file` is as the transaction has it; its length and flags do not matter.
    pub fn put_block(
        &mut self,
        txn: &mut Txn<'_>,
        file: &Inode,
        base: u64,
        block: Option<&[u8]>,
        size: u64,
    ) -> Result<()> {
        if size > SIZE_MAX {
            return Err(too_large(file));
        }
        let len = block_size(base).min(size.saturating_sub(base));
        let fits = block.is_none_or(|block| block.len() as u64 == len);
        if base >= size || base != block_base(base) || !fits {
            let given = block.map_or(0, <[u8]>::len);
            let text = format!("{given} bytes at {base} of {size} are not a block of the file");
            return Err(Error::usage(text));
        }
        self.replace(txn, file, base, block, size)
    }

    /// Gives a file its final length and modification time (microseconds) after
    /// [`Ops::put_block`]: always a new version of the inode.
    ///
    /// Blocks behind the length go. Where they may be many (a large file made short), let
    /// [`Ops::begin_truncate`] take them away before the first block is put.
    pub fn finish_file(
        &mut self,
        txn: &mut Txn<'_>,
        obj: i64,
        size: u64,
        mtime: u64,
    ) -> Result<()> {
        let inode = self.regular(txn, obj)?;
        if size > SIZE_MAX {
            return Err(too_large(&inode));
        }
        if size < inode.size() {
            let from = size.next_multiple_of(block_size(size));
            Sweep::blocks(inode.id, from).finish(self, txn)?;
        }
        self.resize(txn, &inode, size, mtime)
    }

    /// A new version of the inode with this length.
    fn resize(&mut self, txn: &mut Txn<'_>, inode: &Inode, size: u64, mtime: u64) -> Result<()> {
        let mut data = inode.data;
        data.size = U64::new(size);
        data.mtime = U64::new(mtime);
        self.save(txn, inode, &data)
    }

    /// The file `obj`.
    fn regular(&mut self, txn: &mut Txn<'_>, obj: i64) -> Result<Inode> {
        let inode = self.existing(txn, obj)?;
        match inode.kind() {
            Some(ObjType::File) if inode.size() <= SIZE_MAX => Ok(inode),
            Some(ObjType::File) => Err(too_large(&inode)),
            Some(ObjType::Directory) => Err(refused(format!("{} is a directory", inode.id))),
            _ => Err(refused(format!("{} is not a regular file", inode.id))),
        }
    }

    /// Writes the first block of a file of up to 8 KiB anew if it will have another length in a file
    /// of `size` bytes.
    fn reshape_first(&mut self, txn: &mut Txn<'_>, inode: &Inode, size: u64) -> Result<()> {
        let old = inode.size();
        if old > HALF_BUFFER || record_len(0, old) == record_len(0, size) {
            return Ok(());
        }
        if self.block_at(txn, inode, 0)?.is_none() {
            return Ok(());
        }
        let mut block = vec![0; old as usize];
        file::read_at(txn, inode, Tid::MAX, 0, &mut block)?;
        self.replace(txn, inode, 0, Some(&block), size)
    }

    /// The record that holds bytes of the block at `base`.
    fn block_at(
        &mut self,
        txn: &mut Txn<'_>,
        inode: &Inode,
        base: u64,
    ) -> Result<Option<LeafElement>> {
        let mut blocks = self.blocks(inode, base);
        let Some(leaf) = blocks.next(&mut self.editor, txn)? else {
            return Ok(None);
        };
        let edge = base.cast_signed().saturating_add(block_size(base) as i64);
        Ok((base_of(&leaf)? < edge).then_some(leaf))
    }

    /// The records that can overlap the block at `base`: the last of them may lie behind it.
    fn blocks(&self, inode: &Inode, base: u64) -> Live {
        let first = base.cast_signed();
        let last = first.saturating_add((block_size(base) as usize + 2 * XBUFFER) as i64);
        let key = |key| inode.id.key(Localization::MISC, rt::DATA, key);
        Live::new(key(first.saturating_add(1)), key(last))
    }

    /// Puts a block of a file that will have `size` bytes in the place of what is there; `block` is
    /// its bytes up to the end of the file, `None` for a hole.
    fn replace(
        &mut self,
        txn: &mut Txn<'_>,
        inode: &Inode,
        base: u64,
        block: Option<&[u8]>,
        size: u64,
    ) -> Result<()> {
        // Callers saw to it that the file ends below 2^63.
        let (first, edge) = (base.cast_signed(), (base + block_size(base)).cast_signed());
        let keep = flags::keeps_history(&inode.data);
        let mut old = self.blocks(inode, base);
        while let Some(leaf) = old.next(&mut self.editor, txn)? {
            let start = base_of(&leaf)?;
            if start >= edge {
                break;
            }
            if start < first || leaf.base.key.get() > edge {
                let edge = if start < first { first } else { edge };
                return Err(straddles(&leaf, edge).context(inode.id));
            }
            self.retire(txn, &leaf, keep)?;
        }
        let Some(block) = block else { return Ok(()) };
        let len = record_len(base, size);
        let data = match block.len() == len {
            true => Cow::Borrowed(block),
            false => {
                let mut whole = vec![0; len];
                whole[..block.len()].copy_from_slice(block);
                Cow::Owned(whole)
            }
        };
        let end = first.saturating_add(len as i64);
        let key = inode.id.key(Localization::MISC, rt::DATA, end);
        self.insert(txn, key, inode.data.obj_type, &data)
    }
}

fn too_large(inode: &Inode) -> Error {
    refused(format!(
        "{} would get too large: {SIZE_MAX} bytes are the most",
        inode.id
    ))
}

const _: () = assert!(BUFFER == 16384 && XBUFFER == 4 * BUFFER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_records() {
        for (base, size, len) in [
            (0, 1, 16),
            (0, 16, 16),
            (0, 5000, 5008),
            (0, 8192, 8192),
            (0, 8193, 16384),
            (16384, 20000, 16384),
            (1 << 20, 1 << 21, 65536),
        ] {
            assert_eq!(record_len(base, size), len, "{base} of {size}");
        }
    }

    #[test]
    fn bases_of_blocks() {
        let mib = 1 << 20;
        for (at, base) in [
            (0, 0),
            (16383, 0),
            (16384, 16384),
            (mib - 1, mib - 16384),
            (mib, mib),
            (mib + 65535, mib),
            (mib + 65536, mib + 65536),
            (SIZE_MAX, SIZE_MAX / 65536 * 65536),
        ] {
            assert_eq!(block_base(at), base, "{at}");
        }
    }
}
