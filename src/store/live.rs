//! A view of volumes that another system writes to meanwhile (durability.md §10.2).
//!
//! The picture is the state S(F) that the UNDO FIFO leads back to from the header's first_offset F.
//! It is taken so: read the header, flush the device (only then is F irrevocable), scan the log,
//! read the header again and see the same F.
//!
//! Whatever is read later is proved before use, in this order: the raw layer-2 entries of the
//! big-blocks touched, then the header, then the log's new records. The view has expired if
//! * the log read so far does not reach the header's next_offset: records are missing (where somebody
//!   else went on with the log its numbers jump; what proves that nothing lies between stands in
//!   [`super::undo`]'s `section`);
//! * what is before the header's first_offset is nothing of it: the log was taken back, and goes on
//!   otherwise;
//! * the record before F or the one at F no longer has its number: the ring was written around;
//! * a touched big-block is free, or was at some time since F: it may have been reused, and what
//!   is written to reused space has no UNDO;
//! * version, volume count or the FIFO's place changed.
//!
//! A first_offset that moved on does not end a view: the records behind it are still there.

use super::VolumeSet;
use super::undo::{Intact, Scanner, span_start};
use crate::error::{Class, Error, Result};
use crate::format::freemap::{LAYER2_SPAN, Layer1, Layer2, layer1_entry, layer2_entry};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, BUFFER, Offset, Zone};
use crate::io::Op;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// How often a picture is tried for before a volume counts as too busy.
const ATTEMPTS: usize = 50;
/// How often a record in the middle of being written is read again.
const RETRIES: usize = 20;
/// Pause before such a record is read again.
const PAUSE: Duration = Duration::from_millis(2);

/// What a live view knows beyond its log.
pub(super) struct Live {
    /// The root header as read when the view was taken.
    raw: VolumeHeader,
    /// Zone-2 address of the layer-2 array by the first address it describes.
    arrays: BTreeMap<u64, Offset>,
    /// The first_offset that was last seen to lie in the log as it was read.
    passed: Offset,
    /// Why nothing can be proved any more.
    failed: Option<(Class, String)>,
}

fn expired(why: impl std::fmt::Display) -> Error {
    Error::new(Class::Expired, format!("the view has expired: {why}"))
}

impl Live {
    /// Takes a picture: what a view needs to know, the log's scan, and the header it belongs to.
    pub fn start(set: &mut VolumeSet) -> Result<(Live, Scanner, VolumeHeader)> {
        let disk = set.root_disk();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let raw = read_header(set)?;
            flush(set)?;
            match Live::try_start(set, &raw) {
                Ok((live, scanner)) => {
                    let again = read_header(set)?;
                    let first = |h: &VolumeHeader| h.zone(Zone::UNDO).first_offset.get();
                    if first(&again) == first(&raw) && live.same_volumes(&again) {
                        return Ok((live, scanner, raw));
                    }
                }
                Err(error) if error.is_media() || error.class() == Class::Expired => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
            std::thread::sleep(PAUSE);
        }
        let name = set.disks.name(disk).to_owned();
        Err(match last {
            Some(error) => error.context(name),
            None => expired(format!("{name} does not hold still")),
        })
    }

    fn try_start(set: &mut VolumeSet, raw: &VolumeHeader) -> Result<(Live, Scanner)> {
        let disk = set.root_disk();
        raw.check_root(Offset::new(Zone::RAW_VOLUME, 0, 0))?;
        let arrays = layer2_arrays(set, raw)?;
        let mut scanner = Scanner::new(&mut set.disks, disk, raw)?;
        let watched = arrays.iter().map(|(first, array)| (*array, Offset(*first)));
        scanner.freed.watch(watched.collect());
        let next = Offset(raw.zone(Zone::UNDO).next_offset.get());
        scanner.extend(&mut set.disks, next)?;
        if !scanner.has_reached(next) {
            return Err(expired("the log ends before the header says"));
        }
        let live = Live {
            raw: *raw,
            arrays,
            passed: Offset(raw.zone(Zone::UNDO).first_offset.get()),
            failed: None,
        };
        Ok((live, scanner))
    }

    /// Proves that what was read from `touched` (zone-2 address, length) can be made part of the
    /// picture once the log's old bytes are laid over it.
    ///
    /// An error is about the view: nothing can be read in it any more, and nothing that was to be read
    /// is thereby damaged.
    pub fn validate(
        &mut self,
        set: &mut VolumeSet,
        scanner: &mut Scanner,
        touched: &[(Offset, usize)],
    ) -> Result<()> {
        if let Some((class, text)) = &self.failed {
            return Err(Error::new(*class, text).of_all());
        }
        let proved = self.prove(set, scanner, touched);
        proved.map_err(|error| {
            self.failed = Some((error.class(), error.to_string()));
            error.of_all()
        })
    }

    fn prove(
        &mut self,
        set: &mut VolumeSet,
        scanner: &mut Scanner,
        touched: &[(Offset, usize)],
    ) -> Result<()> {
        let mut bigblocks = BTreeSet::new();
        for (at, len) in touched {
            let mut bigblock = at.bigblock().0;
            while bigblock < at.0 + *len as u64 {
                bigblocks.insert(bigblock);
                bigblock += BIGBLOCK;
            }
        }
        let free_now = self.free_entries(set, &bigblocks)?;
        let header = read_header(set)?;
        if !self.same_volumes(&header) {
            return Err(expired("the volume set or its version changed"));
        }
        self.read_on(set, scanner, &header)?;
        if let Some(at) = free_now.first() {
            return Err(expired(format!("big-block {at} is free")));
        }
        let freed = bigblocks
            .iter()
            .find(|at| scanner.freed.contains(Offset(**at)));
        if let Some(at) = freed {
            return Err(expired(format!("big-block {} was freed", Offset(*at))));
        }
        Ok(())
    }

    /// Reads the log on to where `header`, read before, says that it is at least.
    fn read_on(
        &mut self,
        set: &mut VolumeSet,
        scanner: &mut Scanner,
        header: &VolumeHeader,
    ) -> Result<()> {
        let undo = header.zone(Zone::UNDO);
        let first = Offset(undo.first_offset.get());
        let next = Offset(undo.next_offset.get());
        extend(set, scanner, next)?;
        while !scanner.has_reached(next) {
            let read = scanner.extent().bytes;
            flush(set)?;
            if scanner.cross(&mut set.disks, first)? {
                extend(set, scanner, next)?;
            }
            if scanner.extent().bytes == read {
                return Err(expired("the log ends before the header says"));
            }
        }
        if !scanner.is_sequenced() {
            return Ok(());
        }
        if first != self.passed {
            if !patiently(|| scanner.leads_to(&mut set.disks, first))? {
                return Err(taken_back());
            }
            self.passed = first;
        }
        is_intact_patiently(set, scanner)
    }

    /// Those of `bigblocks` whose layer-2 entry on the device says free.
    fn free_entries(&self, set: &mut VolumeSet, bigblocks: &BTreeSet<u64>) -> Result<Vec<Offset>> {
        let mut free = Vec::new();
        let mut buffer = None;
        for at in bigblocks.iter().map(|at| Offset(*at)) {
            let Some(array) = self.arrays.get(&span_start(at).0) else {
                return Err(expired(format!("big-block {at} has no freemap")));
            };
            let entry = layer2_entry(*array, at);
            let wanted = entry.buffer();
            let bytes = match buffer.take() {
                Some((here, bytes)) if here == wanted => bytes,
                _ => read_raw(set, wanted)?,
            };
            let zone = Layer2::ref_from_prefix(&bytes[entry.in_buffer()..])
                .map_or(0, |(entry, _)| entry.zone);
            if zone == Zone::FREE.0 {
                free.push(at);
            }
            buffer = Some((wanted, bytes));
        }
        Ok(free)
    }

    /// Whether the file system is laid out as it was.
    fn same_volumes(&self, now: &VolumeHeader) -> bool {
        let undo = |h: &VolumeHeader| (h.undo_array, h.zone(Zone::UNDO).alloc_offset.get());
        now.signature == self.raw.signature
            && now.fsid == self.raw.fsid
            && now.version == self.raw.version
            && now.vol_count == self.raw.vol_count
            && undo(now).0.as_bytes() == undo(&self.raw).0.as_bytes()
            && undo(now).1 == undo(&self.raw).1
    }
}

/// Reads on in sequence.
fn extend(set: &mut VolumeSet, scanner: &mut Scanner, next: Offset) -> Result<()> {
    patiently(|| scanner.extend(&mut set.disks, next)).or_else(|error| {
        if error.class() == Class::Other {
            // More than a view can keep: another one has less to undo.
            return Err(expired(error));
        }
        if error.fault().is_none() || !scanner.is_sequenced() {
            return Err(error);
        }
        // What follows makes no sense: it may be nothing that follows what was read.
        is_intact_patiently(set, scanner)?;
        match scanner.is_as_read(&mut set.disks)? {
            true => Err(error),
            false => Err(taken_back()),
        }
    })
}

fn taken_back() -> Error {
    expired("the log was taken back")
}

/// Does what meets records, giving one in the middle of being written the time to become whole.
fn patiently<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 0;
    loop {
        match read() {
            Err(error) if error.fault().is_some() && attempt < RETRIES => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// Sees to it that the log was not written around its start, giving a sector in the middle of being
/// written the time to become whole.
fn is_intact_patiently(set: &mut VolumeSet, scanner: &mut Scanner) -> Result<()> {
    for _ in 0..RETRIES {
        match scanner.is_intact(&mut set.disks)? {
            Intact::Yes => return Ok(()),
            Intact::No => break,
            Intact::Unclear => std::thread::sleep(PAUSE),
        }
    }
    Err(written_around())
}

fn written_around() -> Error {
    expired("the log was written around its start")
}

/// The root header as the device has it now.
fn read_header(set: &mut VolumeSet) -> Result<VolumeHeader> {
    let disk = set.root_disk();
    let buf = set.disks.read(disk, 0, BUFFER)?;
    VolumeHeader::from_prefix(&buf).ok_or_else(|| expired("the header is gone"))
}

fn read_raw(set: &mut VolumeSet, at: Offset) -> Result<crate::io::Buf> {
    let (disk, place) = set.place(at, BUFFER)?;
    set.disks.read(disk, place, BUFFER)
}

/// Makes what the writer has written stable, so that no power cut takes it back.
fn flush(set: &mut VolumeSet) -> Result<()> {
    (0..set.disks.len()).try_for_each(|disk| set.disks.flush(disk))
}

/// Where every existing layer-2 array lies, by the first address it describes.
fn layer2_arrays(set: &mut VolumeSet, raw: &VolumeHeader) -> Result<BTreeMap<u64, Offset>> {
    let root = Offset(raw.zone(Zone::FREEMAP).phys_offset.get());
    let volumes: Vec<(u8, u64)> = set
        .volumes()
        .map(|(number, _, header)| (number, header.buffer_space()))
        .collect();
    let mut arrays = BTreeMap::new();
    for (number, space) in volumes {
        for span in 0..space.div_ceil(LAYER2_SPAN) {
            let first = Offset::new(Zone::RAW_BUFFER, number, span * LAYER2_SPAN);
            let entry = layer1_entry(root, first);
            debug_assert!(entry.in_buffer() + size_of::<Layer1>() <= BUFFER);
            let bytes = read_raw(set, entry.buffer())?;
            let layer1 = Layer1::ref_from_prefix(&bytes[entry.in_buffer()..]);
            if let Ok((layer1, _)) = layer1
                && layer1.is_available()
                && layer1.array().zone() == Zone::RAW_BUFFER
                && layer1.array().in_bigblock() == 0
            {
                arrays.insert(first.0, layer1.array());
            }
        }
    }
    Ok(arrays)
}

/// A device flush for readers.
impl super::Disks {
    /// Asks the device to make everything written to it stable. Nothing may be under way.
    pub(super) fn flush(&mut self, disk: usize) -> Result<()> {
        let name = self.name(disk).to_owned();
        let failed = |e| Error::io(format!("{name}: flushing"), e);
        self.drain(disk)?;
        let device = self.device(disk);
        if device.submit(u64::MAX, Op::Flush).is_err() {
            return Err(Error::new(
                Class::Io,
                format!("{name}: a flush was refused"),
            ));
        }
        let mut done = Vec::new();
        while device.in_flight() > 0 {
            device.reap(1, &mut done).map_err(failed)?;
        }
        done.into_iter()
            .try_for_each(|done| done.result)
            .map_err(failed)
    }
}
