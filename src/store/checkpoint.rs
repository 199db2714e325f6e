//! A checkpoint: the changes of a transaction made durable, in the one order that survives a power
//! cut at any moment (durability.md §9.2). Each phase is a type that only the phase before it makes.
//!
//! ```text
//! Prepared   file data is on its way; the log is made: the old bytes of every run that changed
//!    .log()      write the log                          flush      1
//! Logged     whatever happens now, the log leads back
//!    .write()    write header and changed buffers       flush      2
//! Written    the new state is on the media; a crash still leads back
//!    .advance()  write header: the log is used up       flush      3
//! Durable    the new state it is
//! ```
//!
//! Before version 4 the header alone says where the log ends, so it is written, and flushed, once
//! more between the log and the changes (durability.md §9.5).

use super::Fetch;
use super::frames::{self, Frames};
use super::log::{Append, BLOCK, Log, Piece};
use super::txn::{Durable, RING_SLACK, Store};
use super::undo::Ring;
use crate::error::{Class, Error, Result};
use crate::format::volume::VolumeHeader;
use crate::format::{BUFFER, CrcKind, Offset, Tid, Zone};
use crate::io::Bytes;
use std::mem::offset_of;
use std::ops::Range;
use std::time::Instant;
use zerocopy::IntoBytes;

/// Bytes that one write takes at most.
const WRITE_MAX: usize = 1 << 20;
/// Bytes of the header's buffer that are written: a whole block, whatever the sector size.
pub(super) const HEADER_BLOCK: usize = 4096;
/// First version whose log tells its own end.
const SEQUENCED: u32 = 4;

/// A checkpoint whose log is made and not written.
pub(super) struct Prepared<'s> {
    store: &'s mut Store,
    frames: Frames,
    pieces: Vec<Piece>,
    end: Append,
}

/// A checkpoint whose log is stable.
pub(super) struct Logged<'s> {
    store: &'s mut Store,
    frames: Frames,
    end: Append,
}

/// A checkpoint whose changes are stable, and can be taken back.
pub(super) struct Written<'s> {
    store: &'s mut Store,
    end: Append,
}

impl<'s> Prepared<'s> {
    /// Sends off what file data is left, and makes the log.
    ///
    /// Errors: class `NoSpace` where the log does not fit (the transaction can be dropped and made
    /// smaller then).
    pub fn new(store: &'s mut Store) -> Result<Prepared<'s>> {
        if store.jump_due {
            super::recover::jump(store)?;
        }
        let kind = CrcKind::of_version(store.work.version.get());
        for frame in store.frames.iter_mut() {
            frame.seal(kind);
        }
        seal(&mut store.work);
        let mut log = Log::new(&store.ring, store.append);
        let (old, new) = (*store.view.header(), store.work);
        for range in header_changes(&old, &new) {
            let target = Offset::new(Zone::RAW_VOLUME, 0, range.start as u64);
            log.undo(target, &old.as_bytes()[range]);
        }
        for (at, frame) in store.frames.sorted() {
            for (start, old) in frame.changes() {
                log.undo(Offset(at.0 + start as u64), old);
            }
        }
        let (pieces, end) = log.finish(BLOCK);
        let bytes: u64 = pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
        let used = store.log_used();
        if used + bytes + RING_SLACK > store.ring.bytes() {
            let text = format!(
                "the changes need {bytes} bytes of UNDO log, and the FIFO has {} with {used} in use",
                store.ring.bytes()
            );
            return Err(Error::new(Class::NoSpace, text));
        }
        let frames = store.frames.take();
        Ok(Prepared {
            store,
            frames,
            pieces,
            end,
        })
    }

    /// Writes data and log, and makes them stable.
    pub fn log(self) -> Result<Logged<'s>> {
        let Prepared {
            store,
            frames,
            pieces,
            end,
        } = self;
        let disks = &mut store.view.set().disks;
        store.stage.start(disks)?;
        store.written.undo += write_pieces(store, &pieces)?;
        barrier(store)?;
        if store.work.version.get() < SEQUENCED {
            let mut header = *store.view.header();
            header.next_tid = store.work.next_tid;
            set_range(&mut header, store.first, end.pos);
            write_header(store, &header)?;
            barrier(store)?;
        }
        Ok(Logged { store, frames, end })
    }
}

impl<'s> Logged<'s> {
    /// Writes the header and the changed buffers, and makes them stable.
    pub fn write(self) -> Result<Written<'s>> {
        let Logged { store, frames, end } = self;
        let mut header = store.work;
        set_range(&mut header, store.first, end.pos);
        write_header(store, &header)?;
        write_frames(store, &frames)?;
        for (at, frame) in frames.into_all() {
            store.view.replace(at, Bytes::new(frame.now), frame.nodes);
        }
        barrier(store)?;
        Ok(Written { store, end })
    }
}

impl Written<'_> {
    /// Moves the start of the range to undo to the end of the log: the point of no return. `by` is
    /// the transaction's TID, `now` is in microseconds since 1970.
    ///
    /// While the store is held this is left to a later checkpoint, and what comes back proves
    /// nothing: its TID is 0.
    pub fn advance(self, by: Tid, now: u64) -> Result<Durable> {
        let Written { store, end } = self;
        let mut header = store.work;
        let mut tid = Tid::ZERO;
        if store.held {
            set_range(&mut header, store.first, end.pos);
            store.behind = true;
        } else {
            set_range(&mut header, end.pos, end.pos);
            write_header(store, &header)?;
            barrier(store)?;
            store.first = end.pos;
            store.behind = false;
            tid = by;
        }
        store.last_tid = by;
        store.append = end;
        store.committed += 1;
        store.staged = 0;
        store.work = header;
        store.view.set_header(&header);
        let committed = store.beyond_recall();
        store.resting.expire(committed, now);
        store.written.checkpoints += 1;
        Ok(Durable { tid })
    }
}

/// Sets the CRCs of the zone descriptors, which are logged with them.
fn seal(header: &mut VolumeHeader) {
    let kind = CrcKind::of_version(header.version.get());
    for (zone, entry) in header.blockmap.iter_mut().enumerate() {
        if zone >= usize::from(Zone::BTREE.0) {
            entry.entry_crc.set(entry.sum(kind));
        }
    }
}

/// Says in the header where the range to undo begins, and where the log goes on.
pub(super) fn set_range(header: &mut VolumeHeader, first: u64, next: u64) {
    let kind = CrcKind::of_version(header.version.get());
    let undo = &mut header.blockmap[usize::from(Zone::UNDO.0)];
    undo.first_offset.set(Offset::new(Zone::UNDO, 0, first).0);
    undo.next_offset.set(Offset::new(Zone::UNDO, 0, next).0);
    undo.entry_crc.set(undo.sum(kind));
    header.crc.set(header.sum(kind));
}

/// The runs of header bytes that changed and must be logged: all but the log's own bounds, the
/// checksum and the base of the TID allocator, which are never taken back.
fn header_changes(old: &VolumeHeader, new: &VolumeHeader) -> Vec<Range<usize>> {
    let undo = offset_of!(VolumeHeader, blockmap) + 40 * usize::from(Zone::UNDO.0);
    let kept = [
        offset_of!(VolumeHeader, crc)..offset_of!(VolumeHeader, crc) + 4,
        offset_of!(VolumeHeader, next_tid)..offset_of!(VolumeHeader, next_tid) + 8,
        undo..undo + 40,
    ];
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let mut runs: Vec<Range<usize>> = Vec::new();
    // Fields are of eight bytes at most, and lie on multiples of that or of four.
    for at in (0..old.len()).step_by(4) {
        let word = at..at + 4;
        if old[word.clone()] == new[word.clone()] || kept.iter().any(|kept| kept.contains(&at)) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = word.end,
            _ => runs.push(word),
        }
    }
    runs
}

/// Waits for all writes, and makes them stable.
pub(super) fn barrier(store: &mut Store) -> Result<()> {
    let start = Instant::now();
    let disks = &mut store.view.set().disks;
    disks.finish_writes()?;
    store.stage.arrived();
    let flushed = disks.barrier()?;
    store.unsettled = false;
    store.written.flushes += flushed;
    store.written.flush_ns += u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(())
}

/// Writes the root volume's header.
pub(super) fn write_header(store: &mut Store, header: &VolumeHeader) -> Result<()> {
    let bytes = header.as_bytes();
    store.header_buffer[..bytes.len()].copy_from_slice(bytes);
    let set = store.view.set();
    let disk = set.root_disk();
    let mut buf = set.disks.buffer(disk, HEADER_BLOCK);
    buf.copy_from_slice(&store.header_buffer[..HEADER_BLOCK]);
    store.written.meta += HEADER_BLOCK as u64;
    set.disks.write(disk, 0, buf)
}

/// Writes pieces of the log; gives how many bytes.
pub(super) fn write_pieces(store: &mut Store, pieces: &[Piece]) -> Result<u64> {
    let Store { view, ring, .. } = store;
    write_ring(view.set(), ring, pieces)
}

fn write_ring(set: &mut super::VolumeSet, ring: &Ring, pieces: &[Piece]) -> Result<u64> {
    let disk = set.root_disk();
    let mut bytes = 0;
    for (pos, piece) in pieces {
        let (at, _) = ring.locate(*pos);
        let mut buf = set.disks.buffer(disk, piece.len());
        buf.copy_from_slice(piece);
        set.disks.write(disk, at, buf)?;
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

/// Writes the blocks of buffers that changed, neighbours together.
fn write_frames(store: &mut Store, changed: &Frames) -> Result<()> {
    let mut blocks = Vec::new();
    for (at, frame) in changed.sorted() {
        let (disk, place) = store.view.place(at, BUFFER)?;
        for (index, bytes) in frame.now.chunks_exact(frames::BLOCK).enumerate() {
            if frame.is_changed(index) {
                blocks.push((disk, place + (index * frames::BLOCK) as u64, bytes));
                match frame.zone {
                    Zone::SMALL_DATA => store.written.data += frames::BLOCK as u64,
                    _ => store.written.meta += frames::BLOCK as u64,
                }
            }
        }
        store.written.buffers += u64::from(frame.zone != Zone::SMALL_DATA);
    }
    let mut rest = &blocks[..];
    while let Some((disk, place, _)) = rest.first().copied() {
        let follows = |(index, (d, at, _)): &(usize, &(usize, u64, &[u8]))| {
            *d == disk && *at == place + (index * frames::BLOCK) as u64
        };
        let run = rest.iter().enumerate().take_while(follows).count();
        let run = run.min(WRITE_MAX / frames::BLOCK);
        let mut buf = store.view.set().disks.buffer(disk, run * frames::BLOCK);
        for (piece, (.., bytes)) in buf.chunks_exact_mut(frames::BLOCK).zip(rest) {
            piece.copy_from_slice(bytes);
        }
        store.view.set().disks.write(disk, place, buf)?;
        rest = &rest[run..];
    }
    Ok(())
}
