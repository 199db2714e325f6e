//! The contents of regular files as of a TID (format.md §14).
//!
//! A DATA record's key is the offset *behind* its last byte, so records in key order are blocks in
//! file order. What no record covers is a hole. Shapes are not assumed: each record gives the bytes
//! from its base, or from where the one before it ended, up to its key, cut to the inode's size;
//! so work and memory are bounded by the number of records, whatever sizes and overlaps they claim.

use super::{Inode, ObjectId};
use crate::btree;
use crate::btree::record::{extent, good_data};
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::rt;
use crate::format::{Fault, Localization, Rule, Tid, XBUFFER};
use crate::io::Bytes;
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// Most blocks that a reader announces ahead, however short they are.
const AHEAD_BLOCKS: usize = 8192;
/// Bytes of holes that one [`HoleBudget`] allows to hash: some ten minutes to an hour of work.
pub const HASHED_HOLES_MAX: u64 = 1 << 40;
/// Zeros to hash holes with.
static ZEROS: [u8; XBUFFER] = [0; XBUFFER];

/// A run of bytes of a file that one record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First byte in the file.
    pub start: u64,
    /// The byte behind the last one in the file; more than `start`.
    pub end: u64,
    /// Bytes of the record's data that lie before `start`.
    pub skip: usize,
    /// The record.
    pub leaf: LeafElement,
}

/// Where a record's block lies within a range.
#[derive(Debug, PartialEq, Eq)]
enum Position {
    /// It ends before the range, or is empty: look at the next record.
    Before,
    /// It begins behind the range: what is left of the range is a hole, whatever later records
    /// claim (they end later, and could begin earlier only by overlapping this one).
    Behind,
    /// It holds bytes of the range.
    Within(Block),
}

impl Block {
    /// The part of `leaf`'s block, of a length that was checked, within `[from, to)`.
    fn within(leaf: &LeafElement, from: u64, to: u64) -> Position {
        let (key, len) = (leaf.base.key.get(), leaf.data_len.get());
        let base = i128::from(key) - i128::from(len);
        let end = i128::from(key).min(i128::from(to));
        if len <= 0 || i128::from(key) <= i128::from(from) {
            return Position::Before;
        }
        let start = base.max(i128::from(from));
        if start >= end {
            return Position::Behind;
        }
        // Both lie in [from, to], and `start` less than `len` behind `base`.
        Position::Within(Block {
            start: start as u64,
            end: end as u64,
            skip: (start - base) as usize,
            leaf: *leaf,
        })
    }

    /// Whether the record stands for zeros without data (format.md §11).
    pub fn is_zeros(&self) -> bool {
        self.leaf.data_offset.get() == 0
    }

    /// The bytes.
    fn read<F: Fetch + ?Sized>(&self, fetch: &mut F) -> Result<Bytes> {
        let data = good_data(fetch, &self.leaf)?;
        let len = (self.end - self.start) as usize;
        Ok(data.slice(self.skip..self.skip + len))
    }
}

fn check_length(leaf: &LeafElement) -> Result<()> {
    let len = leaf.data_len.get();
    if (0..=XBUFFER as i32).contains(&len) {
        return Ok(());
    }
    let at = leaf.data_offset();
    Err(Fault::new(Rule::LeafLength, at, "0 to 65536 bytes", len).into())
}

/// Walks the blocks of a file that lie in a range, in file order, not overlapping.
///
/// A node that cannot be read, or a record of impossible length, is an error of the one call that
/// meets it; the next call goes on behind it.
pub struct Blocks {
    cursor: btree::AsOf,
    at: u64,
    end: u64,
}

impl Blocks {
    /// The blocks of `file` as of `asof` between the offsets `from` and `to`, cut to its size.
    pub fn new(file: &Inode, asof: Tid, from: u64, to: u64) -> Blocks {
        let end = to.min(file.size());
        let at = from.min(end);
        // Offsets up to 2^63 - 1: `size` sees to it. A block's key is at most its length above
        // the base, which must lie below the end.
        let first = at.cast_signed().saturating_add(1);
        let last = end.cast_signed().saturating_add(XBUFFER as i64 - 1);
        let key = |key| file.id.key(Localization::MISC, rt::DATA, key);
        Blocks {
            cursor: btree::AsOf::new(key(first), key(last), asof),
            at,
            end,
        }
    }

    /// The next block.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Block>> {
        while self.at < self.end {
            let Some(leaf) = self.cursor.next(fetch)? else {
                break;
            };
            check_length(&leaf)?;
            match Block::within(&leaf, self.at, self.end) {
                Position::Before => {}
                Position::Behind => self.at = self.end,
                Position::Within(block) => {
                    self.at = block.end;
                    return Ok(Some(block));
                }
            }
        }
        Ok(None)
    }
}

/// A run of a file's contents. Pieces follow each other without a gap from 0 to the file's size.
#[derive(Debug)]
pub struct Piece {
    /// First byte in the file.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// What is there.
    pub body: Body,
}

/// What a piece of a file holds.
#[derive(Debug)]
pub enum Body {
    /// These bytes.
    Data(Bytes),
    /// Zeros that take no space.
    Hole,
    /// Bytes that could not be read, or whose checksum is wrong.
    Bad(Error),
}

enum Ahead {
    Block(Block),
    Lost(Error),
}

/// Reads a file from its first byte to its last, with the blocks to come announced to the device
/// ([`Fetch::want`]): a new batch goes out when half of the last is used up.
pub struct Reader {
    id: ObjectId,
    blocks: Blocks,
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    at: u64,
    end: u64,
    drained: bool,
}

impl Reader {
    /// A reader of `file` as of `asof`.
    pub fn new(file: &Inode, asof: Tid) -> Reader {
        Reader {
            id: file.id,
            blocks: Blocks::new(file, asof, 0, u64::MAX),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            at: 0,
            end: file.size(),
            drained: false,
        }
    }

    /// The next piece; `None` at the end of the file.
    ///
    /// An error of the kind [`Error::is_media`] says that records are lost: blocks may be missing
    /// from what follows (holes stand in their place); the reader can go on. After any
    /// other error it cannot.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Piece>> {
        self.look_ahead(fetch)?;
        let start = match self.ahead.front() {
            Some(Ahead::Block(block)) => block.start,
            Some(Ahead::Lost(_)) => self.at,
            None => self.end,
        };
        if start > self.at {
            return Ok(Some(self.piece(start, Body::Hole)));
        }
        match self.ahead.pop_front() {
            None => Ok(None),
            Some(Ahead::Lost(e)) => Err(e.context(format!("{}, at byte {}", self.id, self.at))),
            Some(Ahead::Block(block)) => {
                self.ahead_bytes -= announced_len(&block);
                let body = match block.is_zeros() {
                    true => Body::Hole,
                    false => match block.read(fetch) {
                        Ok(bytes) => Body::Data(bytes),
                        Err(e) if e.is_media() => {
                            Body::Bad(e.context(format!("{}, at byte {start}", self.id)))
                        }
                        Err(e) => return Err(e),
                    },
                };
                Ok(Some(self.piece(block.end, body)))
            }
        }
    }

    fn piece(&mut self, end: u64, body: Body) -> Piece {
        let at = std::mem::replace(&mut self.at, end);
        Piece {
            at,
            len: end - at,
            body,
        }
    }

    fn look_ahead<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let budget = fetch.readahead().max(1);
        if self.drained || (!self.ahead.is_empty() && self.ahead_bytes > budget / 2) {
            return Ok(());
        }
        let mut extents = Vec::new();
        while self.ahead_bytes < budget && self.ahead.len() < AHEAD_BLOCKS {
            match self.blocks.next(fetch) {
                Ok(Some(block)) => {
                    self.ahead_bytes += announced_len(&block);
                    extents.extend(extent(&block.leaf));
                    self.ahead.push_back(Ahead::Block(block));
                }
                Ok(None) => {
                    self.drained = true;
                    break;
                }
                Err(e) if e.is_media() => self.ahead.push_back(Ahead::Lost(e)),
                Err(e) => return Err(e),
            }
        }
        // One block is as fast asked for directly.
        if extents.len() > 1 || !self.drained {
            fetch.want(&extents);
        }
        Ok(())
    }
}

/// What a block costs of the bytes announced: at most 64 KiB, as [`Block::within`] saw to.
fn announced_len(block: &Block) -> usize {
    block.leaf.data_len.get().max(0) as usize
}

/// Reads bytes of `file` from offset `at` on into `buf`; returns how many there were before the
/// end of the file.
pub fn read_at<F: Fetch + ?Sized>(
    fetch: &mut F,
    file: &Inode,
    asof: Tid,
    at: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let end = at.saturating_add(buf.len() as u64).min(file.size());
    let len = end.saturating_sub(at) as usize;
    let buf = &mut buf[..len];
    buf.fill(0);
    let mut blocks = Blocks::new(file, asof, at, end);
    while let Some(block) = blocks.next(fetch)? {
        if block.is_zeros() {
            continue;
        }
        let bytes = block.read(fetch)?;
        let start = (block.start - at) as usize;
        buf[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(len)
}

/// How many bytes of holes may still be hashed: one for all files of a run. Holes cost nothing on
/// the medium, and an inode can claim 2^63 bytes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoleBudget(u64);

impl Default for HoleBudget {
    fn default() -> HoleBudget {
        HoleBudget(HASHED_HOLES_MAX)
    }
}

impl HoleBudget {
    /// `bytes` of holes.
    pub fn new(bytes: u64) -> HoleBudget {
        HoleBudget(bytes)
    }

    fn spend(&mut self, file: &Inode, len: u64) -> Result<()> {
        let Some(left) = self.0.checked_sub(len) else {
            let (id, left) = (file.id, self.0);
            return Err(Error::damage(format!(
                "{id}: not hashed: a hole of {len} bytes, and {left} bytes of holes are left of \
                 what is hashed in one run"
            )));
        };
        self.0 = left;
        Ok(())
    }
}

/// The SHA-256 of all of `file` as of `asof`, holes being zeros, which `holes` pays for.
///
/// The first block that cannot be read, or hole that `holes` does not cover, ends it with an error
/// of class `Damage` or `Io`.
pub fn sha256<F: Fetch + ?Sized>(
    fetch: &mut F,
    file: &Inode,
    asof: Tid,
    holes: &mut HoleBudget,
    progress: &mut dyn Progress,
    status: &mut Status,
) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut reader = Reader::new(file, asof);
    while let Some(piece) = reader.next(fetch)? {
        match piece.body {
            Body::Data(bytes) => {
                hash.update(&*bytes);
                status.bytes += piece.len;
                progress.at(status)?;
            }
            Body::Bad(e) => return Err(e),
            Body::Hole => {
                holes.spend(file, piece.len)?;
                hash_zeros(&mut hash, piece.len, progress, status)?;
            }
        }
    }
    Ok(hash.finalize().into())
}

fn hash_zeros(
    hash: &mut Sha256,
    mut len: u64,
    progress: &mut dyn Progress,
    status: &mut Status,
) -> Result<()> {
    while len > 0 {
        let step = len.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..step as usize]);
        len -= step;
        status.bytes += step;
        progress.at(status)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn leaf(key: i64, len: i32) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.key.set(key);
        leaf.data_len.set(len);
        leaf
    }

    #[test]
    fn blocks_at_the_edges() {
        let within = |key, len| Block::within(&leaf(key, len), 0, 1000);
        for (key, len) in [
            (100, 0),
            (i64::MIN, 16),
            (0, 16),
            (-5, 16),
            (i64::MIN, 65536),
        ] {
            assert_eq!(within(key, len), Position::Before, "{key} {len}");
        }
        assert_eq!(within(i64::MAX, 65536), Position::Behind);
        assert_eq!(within(1016, 16), Position::Behind);
        assert!(matches!(within(1015, 16), Position::Within(b) if b.start == 999 && b.end == 1000));
        assert!(matches!(within(5, 16), Position::Within(b) if b.start == 0 && b.skip == 11));
        assert!(check_length(&leaf(0, -1)).is_err() && check_length(&leaf(0, 65537)).is_err());
    }

    proptest! {
        /// Blocks, whatever their shape, cover each byte at most once, in order, within the range,
        /// and each byte comes from the first record in key order whose key lies behind it.
        #[test]
        fn blocks_against_a_byte_vector(
            mut records in proptest::collection::vec((-50i64..700, 0i32..90), 0..20),
            from in 0u64..600,
            len in 0u64..600,
        ) {
            records.sort();
            records.dedup_by_key(|r| r.0);
            let to = from + len;
            let mut model = vec![None; 1300];
            // The kernel's rule: the byte at X is in the first record with a key above X, if that
            // record's base is not above X.
            for x in from..to {
                let first = records.iter().find(|(key, len)| {
                    *key > x as i64 && *len > 0
                });
                if let Some((key, len)) = first && key - i64::from(*len) <= x as i64 {
                    model[x as usize] = Some((*key, (x as i64 - (key - i64::from(*len))) as usize));
                }
            }
            let mut at = from;
            let mut found = vec![None; 1300];
            for (key, len) in &records {
                let block = match Block::within(&leaf(*key, *len), at, to) {
                    Position::Within(block) => block,
                    Position::Before => continue,
                    Position::Behind => break,
                };
                prop_assert!(block.start >= at && block.end > block.start && block.end <= to);
                prop_assert!(block.skip + ((block.end - block.start) as usize) <= *len as usize);
                for x in block.start..block.end {
                    found[x as usize] = Some((*key, block.skip + (x - block.start) as usize));
                }
                at = block.end;
            }
            prop_assert_eq!(model, found);
        }
    }
}
