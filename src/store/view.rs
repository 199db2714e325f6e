//! The consistent picture: what the device holds, with the old bytes of the UNDO FIFO laid over it
//! (durability.md §5, §7, §10.2).
//!
//! Reading goes in runs of neighbouring 16 KiB buffers. Metadata (and short file data) goes into a
//! bounded cache; large file data is handed out once, as a piece of the memory it was read into.
//! What came from the device is *settled* before anybody sees it: a live view first proves that it
//! still is the picture it was (see [`super::live`]), then the old bytes are laid over.

use super::cache::Cache;
use super::live::Live;
use super::overlay::Overlay;
use super::runs::{RUN_MAX, Run, Runs, State, Wish, join};
use super::undo::{Extent, Ring, Scanner};
use super::{Counters, Fetch, NodeRef, VolumeSet};
use crate::error::{Error, Result};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, BUFFER, Fault, NODE_SIZE, Offset, Rule, XBUFFER, Zone};
use crate::io::{Buf, Bytes};
use std::sync::Arc;
use zerocopy::little_endian::U64;

/// How a view reads.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// Memory for metadata buffers, in bytes.
    pub cache_bytes: usize,
    /// Memory for data read ahead, in bytes.
    pub readahead_bytes: usize,
    /// Whether another process may be writing to the volumes meanwhile.
    pub live: bool,
    /// Whether to go on where the FIFO is damaged, with as much of it as can be read: for a check,
    /// which reports it ([`View::fifo_fault`]). Others must not: the picture may be inconsistent.
    pub despite_fifo_faults: bool,
}

impl Default for ViewOptions {
    fn default() -> ViewOptions {
        ViewOptions {
            cache_bytes: 64 << 20,
            readahead_bytes: 64 << 20,
            live: false,
            despite_fifo_faults: false,
        }
    }
}

/// A consistent picture of a volume set: the state that the UNDO FIFO leads back to. It can only
/// read, and owns its devices.
pub struct View {
    set: VolumeSet,
    header: VolumeHeader,
    scanner: Scanner,
    fifo_fault: Option<Fault>,
    live: Option<Live>,
    cache: Cache,
    runs: Runs,
    readahead: usize,
}

impl View {
    /// Takes a view of `set`.
    ///
    /// Errors: `Damage` where the FIFO or the header it leads to cannot be used, `Expired` where a
    /// live volume does not hold still long enough, `Io`.
    pub fn open(mut set: VolumeSet, options: &ViewOptions) -> Result<View> {
        let mut fifo_fault = None;
        let (live, scanner, raw) = if options.live {
            let (live, scanner, raw) = Live::start(&mut set)?;
            (Some(live), scanner, raw)
        } else {
            let raw = *set.root_header();
            let disk = set.root_disk();
            let (scanner, error) = scan(&mut set, &raw);
            if let Some(error) = error {
                match fifo_fault_of(&error, &scanner) {
                    Some(fault) if options.despite_fifo_faults => fifo_fault = Some(fault),
                    _ => return Err(error.context(set.disks.name(disk))),
                }
            }
            (None, scanner, raw)
        };
        let header = header_in_view(&raw, &scanner)
            .map_err(|error| error.context(set.disks.name(set.root_disk())))?;
        Ok(View {
            set,
            header,
            scanner,
            fifo_fault,
            live,
            cache: Cache::new(options.cache_bytes),
            runs: Runs::default(),
            readahead: options.readahead_bytes.max(2 * RUN_MAX),
        })
    }

    /// The volumes.
    pub fn volumes(&self) -> &VolumeSet {
        &self.set
    }

    /// The range of the FIFO that is undone; empty for a cleanly unmounted volume.
    pub fn undone(&self) -> Extent {
        self.scanner.extent()
    }

    /// The FIFO: where it lies and how long it is.
    pub fn ring(&self) -> &Ring {
        self.scanner.ring()
    }

    /// The sequence number that the next record of the FIFO will have (version 4 and later).
    pub fn next_seq(&self) -> u32 {
        self.scanner.next_seq()
    }

    /// The old bytes that the range holds.
    pub fn overlay(&self) -> &Overlay {
        &self.scanner.overlay
    }

    /// What is wrong with the FIFO, in a view taken despite it.
    pub fn fifo_fault(&self) -> Option<&Fault> {
        self.fifo_fault.as_ref()
    }

    /// What was read so far.
    pub fn counters(&self) -> Counters {
        self.set.disks.counters()
    }

    /// Gives the volumes back, for another view of them; what was announced is forgotten.
    pub fn into_volumes(mut self) -> VolumeSet {
        while let Some(run) = self.runs.oldest().and_then(|id| self.runs.remove(id)) {
            if let State::Reading(ticket) = run.state {
                self.set.disks.cancel(run.disk, ticket);
            }
        }
        self.set
    }

    /// Reads `len` bytes at byte `pos` of the FIFO as they are on the device now; the range lies
    /// within one 16 KiB buffer. For dumps and checks.
    pub fn fifo_bytes(&mut self, pos: u64, len: usize) -> Result<Bytes> {
        self.scanner.raw(&mut self.set.disks, pos, len)
    }

    /// The volumes, to write to them.
    pub(super) fn set(&mut self) -> &mut VolumeSet {
        &mut self.set
    }

    /// From now on the device's bytes are the picture: what the log took back was written.
    pub(super) fn drop_overlay(&mut self) {
        self.scanner.overlay = Overlay::default();
    }

    /// The picture's root header from now on.
    pub(super) fn set_header(&mut self, header: &VolumeHeader) {
        self.header = *header;
    }

    /// The buffer at the zone-2 address `at` is `bytes` from now on: reads under way would still
    /// bring the old ones. The nodes whose bit is set in `checked` are right.
    pub(super) fn replace(&mut self, at: Offset, bytes: Bytes, checked: u8) {
        self.drop_runs(at, 1);
        self.cache.insert(at.0, bytes);
        for node in (0..BUFFER / NODE_SIZE).filter(|node| checked >> node & 1 != 0) {
            self.cache.set_checked(at.0, node);
        }
    }

    /// Forgets what was read, and what is being read, of the `frames` buffers at `at`.
    pub(super) fn drop_runs(&mut self, at: Offset, frames: usize) {
        for frame in 0..frames {
            let at = Offset(at.0 + (frame * BUFFER) as u64);
            self.cache.remove(at.0);
            while let Some(run) = self.runs.find(at).and_then(|id| self.runs.remove(id)) {
                if let State::Reading(ticket) = run.state {
                    self.set.disks.cancel(run.disk, ticket);
                }
            }
        }
    }

    /// Where the zone-2 address `at` lies: position among the devices, byte offset there.
    pub(super) fn place(&self, at: Offset, len: usize) -> Result<(usize, u64)> {
        self.set.place(at, len)
    }

    /// The buffer at the zone-2 address `at`, through the cache.
    pub(super) fn frame(&mut self, at: Offset) -> Result<Bytes> {
        if let Some(bytes) = self.cache.get(at.0) {
            return Ok(bytes.clone());
        }
        let id = match self.runs.find(at) {
            Some(id) => id,
            None => self.start(at, 1, true, 1, true)?,
        };
        self.complete(id, at, 1)
    }

    /// Starts reading `frames` buffers at `at`.
    fn start(
        &mut self,
        at: Offset,
        frames: usize,
        cached: bool,
        wanted: u32,
        urgent: bool,
    ) -> Result<u64> {
        let (disk, place) = self.set.place(at, frames * BUFFER)?;
        let ticket = self.set.disks.start(disk, place, frames * BUFFER, urgent);
        Ok(self.runs.insert(Run {
            at,
            frames,
            cached,
            disk,
            place,
            wanted,
            state: State::Reading(ticket),
        }))
    }

    /// Waits for a run, settles it, and gives the `frames` buffers at `at` that it has.
    fn complete(&mut self, id: u64, at: Offset, frames: usize) -> Result<Bytes> {
        let run = self.runs.get(id).map(|run| match &run.state {
            State::Reading(ticket) => (run.disk, run.place, run.frames, run.cached, Some(*ticket)),
            _ => (run.disk, run.place, run.frames, run.cached, None),
        });
        // Callers have just found or made the run.
        let Some((disk, place, run_frames, cached, ticket)) = run else {
            return Err(Error::damage(format!("a read of {at} got lost")));
        };
        if let Some(ticket) = ticket {
            match self.set.disks.wait(disk, ticket)? {
                Ok(buf) => self.set_state(id, State::Raw(buf)),
                Err(error) => {
                    self.runs.remove(id);
                    if run_frames > frames {
                        // The fault may lie in a part that nobody has asked for yet.
                        let id = self.start(at, frames, cached, 1, true)?;
                        return self.complete(id, at, frames);
                    }
                    let name = self.set.disks.name(disk);
                    let what = format!(
                        "{name}: reading {} bytes at {place} ({at})",
                        frames * BUFFER
                    );
                    return Err(Error::io(what, error));
                }
            }
        }
        if matches!(self.runs.get(id).map(|run| &run.state), Some(State::Raw(_))) {
            self.settle(id)?;
        }
        self.hand_out(id, at, frames)
    }

    fn set_state(&mut self, id: u64, state: State) {
        if let Some(run) = self.runs.get_mut(id) {
            run.state = state;
        }
    }

    /// Whether buffers at this address go into the cache.
    fn is_cached(&self, at: Offset) -> bool {
        at.zone() != Zone::LARGE_DATA
    }

    /// The part of a settled run that was asked for. A run whose last part this is goes.
    fn hand_out(&mut self, id: u64, at: Offset, frames: usize) -> Result<Bytes> {
        let Some(run) = self.runs.get_mut(id) else {
            return Err(Error::damage(format!("a read of {at} got lost")));
        };
        let State::Ready(bytes) = &run.state else {
            return Err(Error::damage(format!("a read of {at} did not settle")));
        };
        let start = (at.long() - run.at.long()) as usize;
        let part = bytes.slice(start..start + frames * BUFFER);
        run.wanted = run.wanted.saturating_sub(1);
        if run.cached {
            // Cached buffers own their memory: a piece would keep the whole run alive.
            let mut asked = None;
            if let Some(run) = self.runs.remove(id) {
                for frame in 0..run.frames {
                    let at_frame = Offset(run.at.0 + (frame * BUFFER) as u64);
                    let piece = &bytes_of(&run)[frame * BUFFER..][..BUFFER];
                    let own = Bytes::new(Arc::new(Buf::copy_of(piece)));
                    if at_frame == at {
                        asked = Some(own.clone());
                    }
                    self.cache.insert(at_frame.0, own);
                }
            }
            return Ok(match asked {
                Some(own) if frames == 1 => own,
                _ => part,
            });
        }
        if run.wanted == 0 {
            self.runs.remove(id);
        }
        Ok(part)
    }

    /// Makes a run that was read part of the picture. A live view settles with it all that has
    /// been read by now.
    fn settle(&mut self, id: u64) -> Result<()> {
        let View {
            set,
            scanner,
            live,
            runs,
            ..
        } = self;
        if let Some(live) = live {
            for run in runs.iter_mut() {
                if let State::Reading(ticket) = run.state
                    && let Some(buf) = set.disks.take_good(ticket)
                {
                    run.state = State::Raw(buf);
                }
            }
            let raw = |run: &&mut Run| matches!(run.state, State::Raw(_));
            let touched: Vec<(Offset, usize)> = runs
                .iter_mut()
                .filter(raw)
                .map(|run| (run.at, run.len()))
                .collect();
            live.validate(set, scanner, &touched)?;
            for run in runs.iter_mut() {
                ripen(run, scanner);
            }
            return Ok(());
        }
        if let Some(run) = runs.get_mut(id) {
            ripen(run, scanner);
        }
        Ok(())
    }

    /// Buffers and address of the extent, checked.
    fn frames_of(&self, at: Offset, len: usize) -> Result<(Offset, usize)> {
        if len == 0 || len > XBUFFER || at.in_bigblock() + len as u64 > BIGBLOCK {
            let text = format!("address {at} (+{len}): not a range of up to 64 KiB in a big-block");
            return Err(Error::damage(text));
        }
        self.set.place(at, len)?;
        let first = at.in_zone(Zone::RAW_BUFFER).buffer();
        let frames = (at.in_buffer() + len).div_ceil(BUFFER);
        Ok((first, frames))
    }

    /// Makes room for `len` more bytes under way; says whether there is. What has been announced
    /// longest goes first: whoever announced so much and did not come for it will not.
    fn make_room(&mut self, len: usize) -> bool {
        while self.runs.held() + len > self.readahead + self.readahead / 4 {
            let Some(run) = self.runs.oldest().and_then(|id| self.runs.remove(id)) else {
                return false;
            };
            if let State::Reading(ticket) = run.state {
                self.set.disks.cancel(run.disk, ticket);
            }
        }
        true
    }

    fn wishes(&mut self, extents: &[(Offset, usize)]) -> Vec<Wish> {
        let mut wishes = Vec::with_capacity(extents.len());
        for (at, len) in extents {
            let Ok((first, frames)) = self.frames_of(*at, *len) else {
                continue;
            };
            let cached = self.is_cached(*at);
            if cached {
                for frame in 0..frames {
                    let at = Offset(first.0 + (frame * BUFFER) as u64);
                    if !self.cache.contains(at.0) && self.runs.find(at).is_none() {
                        wishes.push(Wish {
                            cached,
                            at,
                            frames: 1,
                            times: 1,
                        });
                    }
                }
                continue;
            }
            let here = self.runs.find(first).and_then(|id| self.runs.get_mut(id));
            match here.filter(|run| run.covers(first, frames)) {
                Some(run) => run.wanted += 1,
                None => wishes.push(Wish {
                    cached,
                    at: first,
                    frames,
                    times: 1,
                }),
            }
        }
        wishes
    }

    /// Reads the extent into memory of its own, buffer by buffer through the cache.
    fn assemble(
        &mut self,
        first: Offset,
        frames: usize,
        start: usize,
        len: usize,
    ) -> Result<Bytes> {
        let mut whole = Buf::zeroed(frames * BUFFER);
        for (frame, part) in whole.chunks_exact_mut(BUFFER).enumerate() {
            let at = Offset(first.0 + (frame * BUFFER) as u64);
            part.copy_from_slice(&self.frame(at)?);
        }
        Ok(Bytes::new(Arc::new(whole)).slice(start..start + len))
    }

    /// The bytes of the node at `at`, and whether they were checked before.
    fn node_bytes(&mut self, at: Offset) -> Result<(Bytes, bool)> {
        let frame = at.in_zone(Zone::RAW_BUFFER).buffer();
        let range = at.in_buffer()..at.in_buffer() + NODE_SIZE;
        let index = at.in_buffer() / NODE_SIZE;
        if let Some((bytes, checked)) = self.cache.get_node(frame.0, index) {
            return Ok((bytes.slice(range), checked));
        }
        self.set.place(at, NODE_SIZE)?;
        Ok((self.frame(frame)?.slice(range), false))
    }
}

/// The memory of a settled run.
fn bytes_of(run: &Run) -> &[u8] {
    match &run.state {
        State::Ready(bytes) => bytes,
        State::Raw(buf) => buf,
        State::Reading(_) => &[],
    }
}

/// Lays the old bytes over a run that was read.
fn ripen(run: &mut Run, scanner: &Scanner) {
    let State::Raw(buf) = &mut run.state else {
        return;
    };
    let mut buf = std::mem::replace(buf, Buf::zeroed(0));
    if !scanner.overlay.is_empty() {
        for (frame, bytes) in buf.chunks_exact_mut(BUFFER).enumerate() {
            let at = Offset(run.at.0 + (frame * BUFFER) as u64);
            scanner.overlay.apply(at, bytes);
        }
    }
    run.state = State::Ready(Bytes::new(Arc::new(buf)));
}

/// Scans the log of a volume that nobody writes to, as far as it can be read.
fn scan(set: &mut VolumeSet, raw: &VolumeHeader) -> (Scanner, Option<Error>) {
    let disk = set.root_disk();
    match Scanner::new(&mut set.disks, disk, raw) {
        Ok(mut scanner) => {
            let next = Offset(raw.zone(Zone::UNDO).next_offset.get());
            let error = scanner.extend(&mut set.disks, next).err();
            (scanner, error)
        }
        Err(error) => (Scanner::blind(disk, raw), Some(error)),
    }
}

/// What a failed scan says of the FIFO: the violated rule, or that it cannot be read.
fn fifo_fault_of(error: &Error, scanner: &Scanner) -> Option<Fault> {
    if let Some(fault) = error.fault() {
        return Some(fault.clone());
    }
    let at = Offset::new(Zone::UNDO, 0, scanner.extent().end);
    error
        .is_media()
        .then(|| Fault::new(Rule::Fifo, at, "a readable log", error))
}

/// The root header as it was at the start of the range: old bytes laid over, the FIFO's own bounds
/// kept.
fn header_in_view(raw: &VolumeHeader, scanner: &Scanner) -> Result<VolumeHeader> {
    use zerocopy::IntoBytes;
    let mut buffer = vec![0; BUFFER];
    buffer[..size_of::<VolumeHeader>()].copy_from_slice(raw.as_bytes());
    let at = Offset::new(Zone::RAW_VOLUME, 0, 0);
    scanner.overlay.apply(at, &mut buffer);
    let Some(mut header) = VolumeHeader::from_prefix(&buffer) else {
        return Err(Error::damage("a header shorter than itself"));
    };
    let undo = &mut header.blockmap[usize::from(Zone::UNDO.0)];
    undo.first_offset = raw.zone(Zone::UNDO).first_offset;
    undo.next_offset = U64::new(Offset::new(Zone::UNDO, 0, scanner.extent().end).0);
    header.check_root(at)?;
    Ok(header)
}

impl Fetch for View {
    fn header(&self) -> &VolumeHeader {
        &self.header
    }

    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        let (first, frames) = self.frames_of(at, len)?;
        let start = at.in_buffer();
        if self.is_cached(at) {
            if frames == 1 {
                return Ok(self.frame(first)?.slice(start..start + len));
            }
            return self.assemble(first, frames, start, len);
        }
        let here = self.runs.find(first);
        let covers = |id: &u64| {
            self.runs
                .get(*id)
                .is_some_and(|run| run.covers(first, frames) && !run.cached)
        };
        let id = match here.filter(covers) {
            Some(id) => id,
            None => self.start(first, frames, false, 1, true)?,
        };
        Ok(self.complete(id, first, frames)?.slice(start..start + len))
    }

    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        if at.zone() != Zone::BTREE || !at.0.is_multiple_of(NODE_SIZE as u64) {
            let expected = "a multiple of 4096 in zone 8";
            return Err(Fault::new(Rule::NodeAddress, at, expected, at).into());
        }
        let mut last = None;
        // A wrong checksum is damage only when read twice.
        for attempt in 0..2 {
            let (bytes, checked) = self.node_bytes(at)?;
            let Some(node) = NodeRef::new(bytes) else {
                break;
            };
            if checked {
                return Ok(node);
            }
            let version = self.header.version.get();
            match node
                .check_crc(at, version)
                .and_then(|()| node.check_shape(at))
            {
                Ok(()) => {
                    let frame = at.in_zone(Zone::RAW_BUFFER).buffer();
                    self.cache.set_checked(frame.0, at.in_buffer() / NODE_SIZE);
                    return Ok(node);
                }
                Err(fault) => last = Some(fault),
            }
            if attempt == 0 {
                self.forget(at, NODE_SIZE);
            }
        }
        Err(match last {
            Some(fault) => fault.into(),
            None => Error::damage(format!("no node at {at}")),
        })
    }

    fn want(&mut self, extents: &[(Offset, usize)]) {
        let wishes = self.wishes(extents);
        let cached_max = (self.cache.capacity() / 4).clamp(1, RUN_MAX / BUFFER);
        let (cached, plain): (Vec<Wish>, Vec<Wish>) = wishes.into_iter().partition(|w| w.cached);
        let mut runs = join(cached, cached_max);
        // More than the cache holds would push out what was read before it is used.
        let mut room = self.cache.capacity() / 2;
        runs.retain(|run| {
            let fits = run.frames <= room;
            room -= run.frames.min(room);
            fits
        });
        runs.extend(join(plain, RUN_MAX / BUFFER));
        for run in runs {
            if !self.make_room(run.frames * BUFFER) {
                break;
            }
            // A place that does not exist fails when it is asked for.
            let _ = self.start(run.at, run.frames, run.cached, run.times, false);
        }
        // An error of the device comes back with the read that it belongs to.
        let _ = self.set.disks.poll();
    }

    fn readahead(&self) -> usize {
        self.readahead / 2
    }

    fn forget(&mut self, at: Offset, len: usize) {
        let Ok((first, frames)) = self.frames_of(at, len) else {
            return;
        };
        for frame in 0..frames {
            let at = Offset(first.0 + (frame * BUFFER) as u64);
            self.cache.remove(at.0);
            if let Some(id) = self.runs.find(at)
                && let Some(Run {
                    state: State::Reading(ticket),
                    disk,
                    ..
                }) = self.runs.remove(id)
            {
                self.set.disks.cancel(disk, ticket);
            }
        }
    }
}
