//! Opening for writing: what the log takes back is written back, and the log is made ready to go on
//! (durability.md §5, §9.1, §9.4).

use super::alloc::Resting;
use super::checkpoint::{HEADER_BLOCK, barrier, set_range, write_header, write_pieces};
use super::frames::Frames;
use super::log::{Append, BLOCK, EPOCH, Log, formatted};
use super::stage::Stage;
use super::txn::{Recovered, Store, StoreOptions, Written};
use super::{Fetch, View, ViewOptions, VolumeSet};
use crate::error::{Class, Error, Result};
use crate::format::fifo::{Record, SECTOR};
use crate::format::{BIGBLOCK, BUFFER, CrcKind, Offset, Zone};
use crate::io::Buf;
use std::time::{Duration, Instant};

/// First version whose records carry numbers that count.
const SEQUENCED: u32 = 4;
/// Flag of a REDO record that says where replay begins.
const REDO_SYNC: u32 = 0x10;
/// Numbers that records of a crashed system may have gone ahead, at most.
const AHEAD: u32 = 1 << 25;
/// Pause between two looks at a volume that may be in use.
const LOOK: Duration = Duration::from_millis(100);

/// Recovers the volumes of `set` and opens them for writing.
pub(super) fn open(set: VolumeSet, options: &StoreOptions) -> Result<Store> {
    let view_options = ViewOptions {
        cache_bytes: options.cache_bytes,
        readahead_bytes: options.readahead_bytes,
        live: false,
        despite_fifo_faults: false,
    };
    let mut view = View::open(set, &view_options)?;
    let undone = view.undone();
    let is_clean = undone.records == 0 && !needs_undo(&view);
    if !is_clean && let Some(watch) = options.watch {
        keep_watch(&mut view, watch)?;
    }
    let disk = view.set().root_disk();
    let header_buffer = view.set().disks.read(disk, 0, BUFFER)?;
    let redo = redo_start(&mut view)?;
    let ring = view.ring().clone();
    let header = *view.header();
    let spaces = view.volumes().volumes();
    let spaces = spaces.map(|(number, _, header)| {
        let whole = header.buffer_space() / BIGBLOCK * BIGBLOCK;
        (number, whole)
    });
    let mut store = Store {
        spaces: spaces.collect(),
        options: options.clone(),
        recovered: Recovered {
            undone: undone.records,
            redo,
            range: (undone.first, undone.end),
        },
        header_buffer,
        work: header,
        frames: Frames::default(),
        stage: Stage::default(),
        resting: Resting::default(),
        append: Append {
            pos: ring.wrap(undone.end.next_multiple_of(SECTOR)),
            seq: view.next_seq(),
            formatted: 0,
        },
        ring,
        first: undone.first,
        held: false,
        // The range that leads back to before the replay stays until the first commit after it.
        behind: redo.is_some(),
        committed: 0,
        held_from: 0,
        last_tid: header.next_tid(),
        staged: 0,
        unsettled: false,
        jump_due: false,
        stamp: 0,
        written: Written::default(),
        view,
    };
    if !is_clean {
        take_back(&mut store)?;
    }
    match redo {
        Some(start) => clear_ahead(&mut store, start)?,
        None => begin_block(&mut store, is_clean)?,
    }
    let root = store.view.node(Offset(header.btree_root.get()))?;
    store.raise_tid(root.mirror_tid());
    Ok(store)
}

/// Before version 4 the header says what is to be undone.
fn needs_undo(view: &View) -> bool {
    !view.overlay().is_empty()
}

/// Looks at a volume that needs recovery for a while: if header or log move, somebody else has it.
fn keep_watch(view: &mut View, watch: Duration) -> Result<()> {
    let disk = view.set().root_disk();
    let end = view.undone().end;
    let (place, _) = view
        .ring()
        .locate(view.ring().wrap(end) / BUFFER as u64 * BUFFER as u64);
    let look = |view: &mut View| -> Result<(Buf, Buf)> {
        let disks = &mut view.set().disks;
        Ok((
            disks.read(disk, 0, BUFFER)?,
            disks.read(disk, place, BUFFER)?,
        ))
    };
    let (header, log) = look(view)?;
    let start = Instant::now();
    loop {
        let left = watch.saturating_sub(start.elapsed());
        std::thread::sleep(LOOK.min(left));
        let (header_now, log_now) = look(view)?;
        if header_now[..] != header[..] || log_now[..] != log[..] {
            let text = "another system is writing to this volume: it is mounted there";
            return Err(Error::new(Class::Busy, text));
        }
        if left.is_zero() {
            return Ok(());
        }
    }
}

/// Where replay of the REDO log begins, if there is one: what the last SYNC record of the range says
/// (durability.md §6.2).
fn redo_start(view: &mut View) -> Result<Option<u64>> {
    let range = view.undone();
    let (ring, version) = (view.ring().clone(), view.version());
    if version < SEQUENCED || range.records == 0 {
        return Ok(None);
    }
    let (mut pos, mut done, mut found) = (range.first, 0, None);
    while done < range.bytes {
        let start = pos - pos % BUFFER as u64;
        let buffer = view.fifo_bytes(start, BUFFER)?;
        let base = Offset::new(Zone::UNDO, 0, start);
        let record = Record::at(&buffer, (pos - start) as usize, base, version)?;
        if let Some(redo) = record.redo()
            && redo.flags.get() == REDO_SYNC
        {
            found = Some(Offset(redo.redo_offset.get()));
        }
        pos = ring.wrap(pos + record.size() as u64);
        done += record.size() as u64;
    }
    let inside = |at: &Offset| at.zone() == Zone::UNDO && at.short() <= ring.bytes();
    Ok(found.filter(inside).map(|at| ring.wrap(at.short())))
}

/// Writes what the log takes back: changed buffers, then headers, each made stable. A crash before
/// the end repeats it.
fn take_back(store: &mut Store) -> Result<()> {
    let mut headers = Vec::new();
    for at in store.view.overlay().buffers() {
        if at.zone() == Zone::RAW_VOLUME {
            headers.push(at);
            continue;
        }
        let at = at.in_zone(Zone::RAW_BUFFER);
        let bytes = store.view.frame(at)?;
        let (disk, place) = store.view.place(at, BUFFER)?;
        let mut buf = store.view.set().disks.buffer(disk, BUFFER);
        buf.copy_from_slice(&bytes);
        store.written.meta += BUFFER as u64;
        store.view.set().disks.write(disk, place, buf)?;
    }
    barrier(store)?;
    for at in headers {
        take_back_header(store, at)?;
    }
    barrier(store)?;
    let mut header = store.work;
    set_range(&mut header, store.first, store.recovered.range.1);
    write_header(store, &header)?;
    barrier(store)?;
    store.work = header;
    store.view.set_header(&header);
    store.view.drop_overlay();
    Ok(())
}

/// Takes back what the log says of another volume's header.
fn take_back_header(store: &mut Store, at: Offset) -> Result<()> {
    let place = store.view.set().header_disk(at.volume());
    let Some(disk) = place.filter(|_| at.volume() != 0 && at.short() == 0) else {
        return Ok(());
    };
    let old = store.view.set().disks.read(disk, 0, BUFFER)?;
    let mut buf = store.view.set().disks.buffer(disk, HEADER_BLOCK);
    let mut whole = Buf::copy_of(&old);
    store.view.overlay().apply(at, &mut whole);
    buf.copy_from_slice(&whole[..HEADER_BLOCK]);
    store.view.set().disks.write(disk, 0, buf)
}

/// Makes the log go on in a block of its own. Its numbers jump, so that nothing that a crash left
/// ahead can follow them. A volume can look clean and have such records: the crash lost the block
/// that its log began with, and kept those behind. So every session jumps; on a clean volume the
/// first checkpoint does it, and one that changes nothing writes nothing. (A live view reads on across
/// the jump: `undo::section` says why it may.)
fn begin_block(store: &mut Store, is_clean: bool) -> Result<()> {
    if is_clean && store.append.pos.is_multiple_of(BLOCK) {
        store.first = store.append.pos;
        store.jump_due = store.work.version.get() >= SEQUENCED;
        return Ok(());
    }
    jump(store)
}

/// Lets the numbers of the log jump, in the committed state.
pub(super) fn jump(store: &mut Store) -> Result<()> {
    let jump = Append {
        pos: store.ring.wrap(store.append.pos.next_multiple_of(BLOCK)),
        seq: store.append.seq.wrapping_add(EPOCH),
        formatted: 0,
    };
    let (pieces, end) = Log::new(&store.ring, jump).fillers();
    store.written.undo += write_pieces(store, &pieces)?;
    barrier(store)?;
    // A transaction may be open: its changes are not for this header.
    let mut header = *store.view.header();
    header.next_tid = store.work.next_tid;
    set_range(&mut header, end.pos, end.pos);
    write_header(store, &header)?;
    barrier(store)?;
    set_range(&mut store.work, end.pos, end.pos);
    store.view.set_header(&header);
    (store.append, store.first) = (end, end.pos);
    store.jump_due = false;
    Ok(())
}

/// Where a REDO log is to be replayed the range to undo must stay, and its log must go on without a
/// gap: records that the crash left ahead, and that could follow, are formatted away first.
fn clear_ahead(store: &mut Store, redo: u64) -> Result<()> {
    let from = store.append.pos.next_multiple_of(BUFFER as u64);
    let keep = store.ring.distance(redo, store.append.pos);
    let free = store.ring.bytes().saturating_sub(keep);
    let ahead = from - store.append.pos;
    let kind = CrcKind::of_version(store.ring.version());
    let mut pieces = Vec::new();
    let mut offset = ahead;
    while offset + 2 * BUFFER as u64 <= free {
        let pos = (store.append.pos + offset) % store.ring.bytes();
        let buffer = store.view.fifo_bytes(pos, BUFFER)?;
        let could_follow = buffer.chunks_exact(SECTOR as usize).any(|sector| {
            let seq = u32::from_le_bytes([sector[8], sector[9], sector[10], sector[11]]);
            seq.wrapping_sub(store.append.seq) < AHEAD
        });
        if could_follow {
            pieces.push((
                pos,
                formatted(store.append.seq.wrapping_sub(EPOCH), BUFFER, kind),
            ));
        }
        offset += BUFFER as u64;
    }
    if !pieces.is_empty() {
        store.written.undo += write_pieces(store, &pieces)?;
        barrier(store)?;
    }
    align_append(store)
}

/// Fills the log up to the next block with fillers that follow, where the device cannot write single
/// sectors.
fn align_append(store: &mut Store) -> Result<()> {
    let disk = store.view.set().root_disk();
    let align = store.view.set().disks.device(disk).align() as u64;
    if store.append.pos.is_multiple_of(align) {
        return Ok(());
    }
    let start = store.append.pos / align * align;
    let before = store
        .view
        .fifo_bytes(start, (store.append.pos - start) as usize)?;
    let (mut pieces, end) = Log::new(&store.ring, store.append).fillers();
    if let Some((pos, piece)) = pieces.first_mut() {
        *pos = start;
        let mut whole = before.to_vec();
        whole.append(piece);
        *piece = whole;
    }
    store.written.undo += write_pieces(store, &pieces)?;
    barrier(store)?;
    store.append = end;
    Ok(())
}
