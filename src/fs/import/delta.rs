//! A file made to hold what a source holds: block by block, and only blocks whose bytes differ are
//! written.

use super::Report;
use super::ground::Ground;
use super::source::{Feed, WINDOW, Window};
use crate::btree::record::{extent, good_data};
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::data_crc_ok;
use crate::format::{HALF_BUFFER, LARGE_DATA, Tid, XBUFFER, align16, block_size};
use crate::fs::Inode;
use crate::fs::file::{Blocks, read_at};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// Zeros to compare with.
static ZEROS: [u8; XBUFFER] = [0; XBUFFER];
/// Stored blocks looked at in one go.
const BATCH: usize = 1024;

/// Where what is done is counted and told.
pub struct Told<'a> {
    pub report: &'a mut Report,
    pub status: &'a mut Status,
    pub progress: &'a mut dyn Progress,
}

impl Told<'_> {
    pub fn tick(&mut self) -> Result<()> {
        self.progress.at(self.status)
    }
}

/// Makes `file` (`None`: a file that is not there, in a dry run) hold what `feed` gives; a longer
/// one is cut, or keeps what is behind with `keep_tail`. Gives the final length, which the inode
/// does not have yet.
pub fn fill(
    ground: &mut Ground<'_, '_>,
    file: Option<&Inode>,
    feed: &mut Feed,
    keep_tail: bool,
    told: &mut Told<'_>,
) -> Result<u64> {
    let mut delta = Delta {
        file,
        old: file.map_or(0, Inode::size),
        now: file.map_or(0, Inode::size),
        keep_tail,
        size: 0,
    };
    while let Some(window) = feed.next(|| told.tick())? {
        delta.window(ground, &window, told)?;
        told.status.bytes += window.len;
        told.report.bytes += window.len;
        told.tick()?;
        feed.reuse(window);
    }
    Ok(delta.size)
}

struct Delta<'a> {
    file: Option<&'a Inode>,
    /// Its length before.
    old: u64,
    /// Its length now.
    now: u64,
    keep_tail: bool,
    /// Its final length, as far as it is known.
    size: u64,
}

/// A block of the source.
struct Piece<'a> {
    base: u64,
    /// The bytes that its record is to hold, padding included.
    bytes: &'a [u8],
    /// Those of them that lie in the file.
    len: usize,
}

impl Delta<'_> {
    fn window(
        &mut self,
        ground: &mut Ground<'_, '_>,
        window: &Window,
        told: &mut Told<'_>,
    ) -> Result<()> {
        self.size = match window.last && self.keep_tail {
            true => window.end().max(self.old),
            false => window.end(),
        };
        self.resize(ground, window.last)?;
        let mut from = window.at;
        loop {
            let stored = self.stored(ground.fetch(), from, window.end())?;
            // A full batch may not be all of them: the rest comes in the next round.
            let full = stored.len() >= BATCH;
            let end = match stored.last() {
                Some(leaf) if full => base(leaf) + block_size(base(leaf)),
                _ => window.end(),
            };
            match &window.bytes {
                Some(bytes) => self.data(ground, window, bytes, (from, end), &stored, told)?,
                None => self.hole(ground, window, &stored, told)?,
            }
            if !full {
                return Ok(());
            }
            from = end;
        }
    }

    /// Gives the file the length that it has come to before its blocks are put: at no moment does a
    /// block lie behind the end.
    fn resize(&mut self, ground: &mut Ground<'_, '_>, last: bool) -> Result<()> {
        let (Ground::Real(op), Some(file)) = (ground, self.file) else {
            return Ok(());
        };
        if self.size > self.now || (last && self.size < self.now) {
            let sweep = op.step(|txn, ops| ops.begin_truncate(txn, file.id.obj, self.size))?;
            op.sweep(sweep)?;
            self.now = self.size;
        }
        Ok(())
    }

    /// The stored blocks that begin in `[from, end)`.
    fn stored<F: Fetch + ?Sized>(
        &self,
        fetch: &mut F,
        from: u64,
        end: u64,
    ) -> Result<Vec<LeafElement>> {
        let mut stored = Vec::new();
        let Some(file) = self.file.filter(|_| self.old > from) else {
            return Ok(stored);
        };
        let mut blocks = Blocks::new(file, Tid::MAX, from, end);
        while stored.len() < BATCH
            && let Some(block) = blocks.next(fetch)?
        {
            stored.push(block.leaf);
        }
        Ok(stored)
    }

    fn data(
        &self,
        ground: &mut Ground<'_, '_>,
        window: &Window,
        bytes: &[u8],
        (from, end): (u64, u64),
        stored: &[LeafElement],
        told: &mut Told<'_>,
    ) -> Result<()> {
        self.announce(ground.fetch(), window, bytes, stored);
        let mut stored = stored.iter().peekable();
        let mut at = from;
        while at < end {
            while stored.next_if(|leaf| base(leaf) < at).is_some() {}
            let old = stored.next_if(|leaf| base(leaf) == at);
            let start = (at - window.at) as usize;
            let step = block_size(at) as usize;
            // Windows end with their last block's padding.
            let given = &bytes[start..(start + step).min(bytes.len())];
            self.piece(ground, window, at, given, old, told)?;
            at += step as u64;
        }
        Ok(())
    }

    fn hole(
        &self,
        ground: &mut Ground<'_, '_>,
        window: &Window,
        stored: &[LeafElement],
        told: &mut Told<'_>,
    ) -> Result<()> {
        for (index, leaf) in stored.iter().enumerate() {
            let at = base(leaf);
            self.piece(
                ground,
                window,
                at,
                &ZEROS[..block_size(at) as usize],
                Some(leaf),
                told,
            )?;
            if index % 256 == 0 {
                told.tick()?;
            }
        }
        Ok(())
    }

    /// Sees to it that the block at `at` holds `given`, whose last bytes may lie behind the source.
    fn piece(
        &self,
        ground: &mut Ground<'_, '_>,
        window: &Window,
        at: u64,
        given: &[u8],
        old: Option<&LeafElement>,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let (whole, len) = self.shape(window, at);
        let given_len = (window.end() - at).min(whole as u64) as usize;
        let mut merged = Vec::new();
        let mut bytes = &given[..whole.min(given.len())];
        if let Some(file) = self.file.filter(|_| given_len < len) {
            // The end of the source, and behind it what the file held before.
            merged.resize(whole, 0);
            merged[..given_len].copy_from_slice(&given[..given_len]);
            let tail = &mut merged[given_len..len];
            read_at(ground.fetch(), file, Tid::MAX, at + given_len as u64, tail)?;
            bytes = &merged;
        }
        let piece = Piece {
            base: at,
            bytes,
            len,
        };
        self.put(ground, &piece, old, told)
    }

    /// How many bytes the record of the block at `at` is to have, and how many of them lie in the
    /// file (format.md §14).
    fn shape(&self, window: &Window, at: u64) -> (usize, usize) {
        let step = block_size(at);
        let len = (self.size - at).min(step) as usize;
        let small = window.last && at == 0 && self.size <= HALF_BUFFER;
        match small {
            true => (align16(self.size) as usize, len),
            false => (step as usize, len),
        }
    }

    fn put(
        &self,
        ground: &mut Ground<'_, '_>,
        piece: &Piece<'_>,
        old: Option<&LeafElement>,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let zeros = piece.bytes == &ZEROS[..piece.bytes.len()];
        let same = match old {
            None => zeros,
            Some(leaf) => holds(ground.fetch(), leaf, piece.bytes)?,
        };
        if same {
            told.report.blocks_same += u64::from(old.is_some());
            return Ok(());
        }
        match zeros {
            true => told.report.blocks_cleared += 1,
            false => {
                told.report.blocks_written += 1;
                told.report.block_bytes += piece.bytes.len() as u64;
                if piece.bytes.len() < LARGE_DATA as usize {
                    told.report.small_bytes += piece.bytes.len() as u64;
                }
            }
        }
        if let (Ground::Real(op), Some(file)) = (ground, self.file) {
            let block = (!zeros).then(|| &piece.bytes[..piece.len]);
            op.step(|txn, ops| ops.put_block(txn, file, piece.base, block, self.size))?;
        }
        Ok(())
    }

    /// Announces the stored blocks that may be the same: those with the right checksum.
    fn announce<F: Fetch + ?Sized>(
        &self,
        fetch: &mut F,
        window: &Window,
        bytes: &[u8],
        stored: &[LeafElement],
    ) {
        let version = fetch.version();
        let likely = |leaf: &&LeafElement| {
            let start = base(leaf).checked_sub(window.at).map(|at| at as usize);
            let len = leaf.data_len.get().max(0) as usize;
            let given = start.and_then(|start| bytes.get(start..start.checked_add(len)?));
            given.is_some_and(|given| data_crc_ok(leaf, given, version))
        };
        let extents: Vec<_> = stored.iter().filter(likely).filter_map(extent).collect();
        if extents.len() > 1 {
            fetch.want(&extents);
        }
    }
}

/// The offset that a block begins at. `Blocks` saw to it that it lies in the file, or before it by
/// less than its length.
fn base(leaf: &LeafElement) -> u64 {
    let base = leaf.base.key.get() - i64::from(leaf.data_len.get());
    u64::try_from(base).unwrap_or(0)
}

/// Whether the stored block is exactly `bytes`. One that cannot be read is not: it is written anew.
fn holds<F: Fetch + ?Sized>(fetch: &mut F, leaf: &LeafElement, bytes: &[u8]) -> Result<bool> {
    let whole = usize::try_from(leaf.data_len.get()) == Ok(bytes.len());
    if !whole || !data_crc_ok(leaf, bytes, fetch.version()) {
        return Ok(false);
    }
    match good_data(fetch, leaf) {
        Ok(stored) => Ok(*stored == *bytes),
        Err(error) if error.is_media() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts what `feed` gives behind the end of `file`. Gives the new length.
pub fn append(
    ground: &mut Ground<'_, '_>,
    file: Option<&Inode>,
    feed: &mut Feed,
    told: &mut Told<'_>,
) -> Result<u64> {
    let mut at = file.map_or(0, Inode::size);
    while let Some(window) = feed.next(|| told.tick())? {
        let mut done = 0;
        while done < window.len {
            // Up to the end of the block.
            let step = (block_size(at) - at % block_size(at)).min(window.len - done);
            if let (Ground::Real(op), Some(file)) = (&mut *ground, file) {
                let zeros = &ZEROS[..step as usize];
                let bytes = window.bytes.as_deref();
                let bytes = bytes.map_or(zeros, |b| &b[done as usize..(done + step) as usize]);
                op.step(|txn, ops| ops.write(txn, file.id.obj, at, bytes))?;
            }
            told.report.blocks_written += 1;
            told.report.block_bytes += step;
            at += step;
            done += step;
            told.status.bytes += step;
            told.report.bytes += step;
            told.tick()?;
        }
        feed.reuse(window);
    }
    Ok(at)
}

const _: () = assert!(WINDOW.is_multiple_of(XBUFFER));
