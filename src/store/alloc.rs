//! Space: the kernel's allocator (format.md §7), with the delay before freed big-blocks are used
//! again (durability.md §4.1).

use super::freemap::{layer1, layer2};
use super::{Fetch, Txn};
use crate::error::{Class, Error, Result};
use crate::format::freemap::{LAYER2_SPAN, Layer1, Layer2};
use crate::format::volume::VolumeHeader;
use crate::format::{
    ALIGNMENT, BIGBLOCK, BUFFER, CrcKind, Fault, NODE_SIZE, Offset, Rule, XBUFFER, Zone, align16,
};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Checkpoints that a freed big-block is left alone for, for readers beside us.
const REST_CHECKPOINTS: u64 = 2;
/// Microseconds that a freed big-block is left alone for, for the same reason.
const REST_MICROS: u64 = 60_000_000;
/// Big-blocks that one record may claim: one of each zone.
const CLAIMS: i64 = 4;

/// Big-blocks that were freed, and when: they may not be used again yet.
#[derive(Debug, Default)]
pub(super) struct Resting {
    blocks: BTreeMap<u64, (u64, u64)>,
}

impl Resting {
    /// Notes that the big-block at the zone-2 address `at` is freed by checkpoint number `by`.
    fn add(&mut self, at: Offset, by: u64, now: u64) {
        self.blocks.insert(at.0, (by, now));
    }

    /// Whether the big-block may be used: `committed` checkpoints are beyond recall. In a `hurry`
    /// only safety counts, not readers.
    fn may_use(&self, at: Offset, committed: u64, now: u64, hurry: bool) -> bool {
        match self.blocks.get(&at.0) {
            None => true,
            Some((by, _)) if hurry => *by <= committed,
            Some((by, when)) => {
                by + REST_CHECKPOINTS <= committed && when.saturating_add(REST_MICROS) <= now
            }
        }
    }

    /// How many big-blocks may not be used.
    fn unusable(&self, may_use: &impl Fn(Offset) -> bool) -> i64 {
        self.blocks
            .keys()
            .filter(|at| !may_use(Offset(**at)))
            .count() as i64
    }

    /// Forgets what was freed by checkpoint `by`, which is taken back.
    pub fn forget(&mut self, by: u64) {
        self.blocks.retain(|_, (freed_by, _)| *freed_by != by);
    }

    /// Forgets big-blocks that have rested.
    pub fn expire(&mut self, committed: u64, now: u64) {
        self.blocks.retain(|_, (by, when)| {
            *by + REST_CHECKPOINTS > committed || when.saturating_add(REST_MICROS) > now
        });
    }
}

/// Free big-blocks that file data leaves for metadata.
fn spare(header: &VolumeHeader) -> i64 {
    (header.stat_bigblocks.get() / 64).clamp(1, 4)
}

/// Free big-blocks: those that file data may claim, and those that it leaves for metadata.
pub fn claimable(header: &VolumeHeader) -> (u64, u64) {
    let free = header.stat_freebigblocks.get().max(0);
    let kept = spare(header).min(free);
    ((free - kept).unsigned_abs(), kept.unsigned_abs())
}

/// Whether space of `len` bytes in `zone` can be asked for at all.
fn check_request(zone: Zone, len: usize) -> Result<u64> {
    let size = match zone {
        Zone::LARGE_DATA => len.next_multiple_of(BUFFER),
        _ => align16(len as u64) as usize,
    };
    let most = match zone {
        Zone::LARGE_DATA => XBUFFER,
        _ => BUFFER,
    };
    if !zone.is_data() || size == 0 || size > most {
        let text = format!("{len} bytes in {zone} cannot be allocated");
        return Err(Error::new(Class::Other, text));
    }
    Ok(size as u64)
}

impl Txn<'_> {
    /// Finds and takes space (format.md §7.2).
    pub(super) fn take_space(&mut self, zone: Zone, len: usize) -> Result<Offset> {
        let size = check_request(zone, len)?;
        match self.search(zone, size, false)? {
            Some(at) => Ok(at),
            None => match self.search(zone, size, true)? {
                Some(at) => Ok(at),
                None => {
                    let header = self.header();
                    let text = format!(
                        "no space for {len} bytes of {}: {} of {} big-blocks are free, and those are \
                         kept for metadata or were freed just now",
                        zone.label(),
                        header.stat_freebigblocks,
                        header.stat_bigblocks
                    );
                    Err(Error::new(Class::NoSpace, text))
                }
            },
        }
    }

    /// One round over all of the space, from the zone's iterator on.
    fn search(&mut self, zone: Zone, size: u64, hurry: bool) -> Result<Option<Offset>> {
        let start = Offset(self.header().zone(zone).next_offset.get());
        let start = match start.zone() == zone {
            true => start.in_zone(Zone::RAW_BUFFER),
            // The iterator stands behind the last volume.
            false => Offset::new(Zone::RAW_BUFFER, 0, 0),
        };
        let (mut at, mut wrapped) = (start, false);
        loop {
            let Some(place) = self.settle_in_volume(at) else {
                if wrapped {
                    return Ok(None);
                }
                (at, wrapped) = (Offset::new(Zone::RAW_BUFFER, 0, 0), true);
                continue;
            };
            at = place;
            if wrapped && at >= start.bigblock() && at.bigblock() != start.bigblock() {
                return Ok(None);
            }
            match self.try_at(zone, size, at, hurry)? {
                Found::Here(found) => {
                    let end = found.0 + size;
                    self.set_iterator(zone, Offset(end).in_zone(zone));
                    return Ok(Some(found.in_zone(zone)));
                }
                Found::Next(next) => at = next,
            }
        }
    }

    /// `at`, or the first place behind it that lies in a whole big-block of a volume.
    fn settle_in_volume(&self, at: Offset) -> Option<Offset> {
        let inside = |(number, end): &&(u8, u64)| {
            *number > at.volume() || (*number == at.volume() && at.short() < *end)
        };
        let (number, _) = self.store.spaces.iter().find(inside)?;
        Some(match *number == at.volume() {
            true => at,
            false => Offset::new(Zone::RAW_BUFFER, *number, 0),
        })
    }

    /// Tries to take `size` bytes at `at` or behind it in the same big-block.
    fn try_at(&mut self, zone: Zone, size: u64, at: Offset, hurry: bool) -> Result<Found> {
        // Append points are aligned, unless somebody else thought otherwise.
        let align = match zone {
            Zone::BTREE => NODE_SIZE as u64,
            Zone::LARGE_DATA => BUFFER as u64,
            _ => ALIGNMENT,
        };
        if !at.0.is_multiple_of(align) {
            return Ok(Found::Next(Offset(at.0.next_multiple_of(align))));
        }
        let unit = if size <= BUFFER as u64 {
            BUFFER as u64
        } else {
            BIGBLOCK
        };
        let last = at.0 + size - 1;
        if at.0 / unit != last / unit {
            return Ok(Found::Next(Offset(last / unit * unit)));
        }
        let next_block = Offset(at.bigblock().0 + BIGBLOCK);
        let (_, upper) = layer1(self, at)?;
        if !upper.is_available() || (at.in_bigblock() == 0 && upper.blocks_free.get() == 0) {
            let next = (at.long() / LAYER2_SPAN + 1) * LAYER2_SPAN;
            return Ok(Found::Next(Offset(next).in_zone(Zone::RAW_BUFFER)));
        }
        let Some((place, entry)) = layer2(self, at)? else {
            return Ok(Found::Next(next_block));
        };
        let owner = entry.owner();
        if owner != Zone::FREE && owner != zone {
            return Ok(Found::Next(next_block));
        }
        let append = u64::from(entry.append_off.get());
        if at.in_bigblock() < append {
            return Ok(Found::Next(Offset(at.bigblock().0 + append)));
        }
        if owner == Zone::FREE && !self.may_claim(zone, at.bigblock(), hurry) {
            return Ok(Found::Next(next_block));
        }
        if owner == Zone::FREE {
            self.count_free(at, -1)?;
        }
        let mut entry = entry;
        entry.zone = zone.0;
        entry.append_off.set((at.in_bigblock() + size) as u32);
        entry
            .bytes_free
            .set(entry.bytes_free.get().saturating_sub(size as i32));
        self.put_layer2(place, entry)?;
        Ok(Found::Here(at))
    }

    /// Whether a free big-block may be claimed now. File data leaves some for metadata, so that a
    /// full volume can still be changed.
    fn may_claim(&self, zone: Zone, at: Offset, hurry: bool) -> bool {
        let header = self.header();
        let spare = spare(header);
        let is_data = zone == Zone::LARGE_DATA || zone == Zone::SMALL_DATA;
        let store = &self.store;
        let may_use = |at| {
            store
                .resting
                .may_use(at, store.beyond_recall(), self.now(), hurry)
        };
        // Big-blocks that must rest are counted as free.
        let free = header.stat_freebigblocks.get();
        let free = free.saturating_sub(store.resting.unusable(&may_use));
        (!is_data || free > spare) && may_use(at)
    }

    /// Whether so little space is left that the next record may find none, and a checkpoint would
    /// release some: big-blocks that were freed since the last one.
    pub fn is_cramped(&self) -> bool {
        let (store, header) = (&self.store, self.header());
        let free = header.stat_freebigblocks.get();
        let few = spare(header) + CLAIMS;
        if store.held || free - store.resting.blocks.len() as i64 >= few {
            return false;
        }
        let committed = store.beyond_recall();
        let may_use = |at| store.resting.may_use(at, committed, self.now(), true);
        let waiting = store.resting.unusable(&may_use);
        waiting > 0 && free - waiting < few
    }

    /// Gives space back (format.md §7.4).
    pub(super) fn give_back(&mut self, at: Offset, len: usize) -> Result<()> {
        let zone = at.zone();
        let size = align16(len as u64);
        let fault = |expected: String, found: String| {
            Err(Fault::new(Rule::LeafAddress, at, expected, found).into())
        };
        if !zone.is_data() || size == 0 || at.in_bigblock() + size > BIGBLOCK {
            return fault(
                "space of zones 8 to 11 within a big-block".into(),
                format!("+{len}"),
            );
        }
        let Some((place, mut entry)) = layer2(self, at)? else {
            return fault("space that exists".into(), "none".into());
        };
        let free = i64::from(entry.bytes_free.get()) + size as i64;
        if entry.owner() != zone || free > BIGBLOCK as i64 {
            let found = format!(
                "one of {} with {} bytes free",
                entry.owner(),
                entry.bytes_free.get()
            );
            return fault(
                format!("a big-block of {zone} with {size} bytes in use"),
                found,
            );
        }
        // Checked just now: at most a big-block, and above what it was.
        entry.bytes_free.set(free as i32);
        if free == BIGBLOCK as i64 {
            entry.zone = Zone::FREE.0;
            entry.append_off.set(0);
            self.count_free(at, 1)?;
            let (by, now) = (self.store.committed + 1, self.now());
            let bigblock = at.bigblock().in_zone(Zone::RAW_BUFFER);
            self.store.resting.add(bigblock, by, now);
        }
        self.put_layer2(place, entry)
    }

    /// Counts a big-block as free (+1) or claimed (-1) in layer 1 and the header.
    fn count_free(&mut self, at: Offset, by: i64) -> Result<()> {
        let (place, mut entry) = layer1(self, at)?;
        let Some(count) = entry.blocks_free.get().checked_add_signed(by) else {
            let expected = "a count of free big-blocks";
            return Err(Fault::new(Rule::Layer1Free, place, expected, entry.blocks_free).into());
        };
        entry.blocks_free = U64::new(count);
        entry
            .layer1_crc
            .set(entry.sum(CrcKind::of_version(self.version())));
        self.modify(place, size_of::<Layer1>())?
            .copy_from_slice(entry.as_bytes());
        let free = &mut self.store.work.stat_freebigblocks;
        free.set(free.get().saturating_add(by));
        Ok(())
    }

    fn put_layer2(&mut self, place: Offset, mut entry: Layer2) -> Result<()> {
        entry
            .entry_crc
            .set(entry.sum(CrcKind::of_version(self.version())));
        self.modify(place, size_of::<Layer2>())?
            .copy_from_slice(entry.as_bytes());
        Ok(())
    }

    fn set_iterator(&mut self, zone: Zone, at: Offset) {
        if let Some(entry) = self.store.work.blockmap.get_mut(usize::from(zone.0)) {
            entry.next_offset.set(at.0);
        }
    }
}

enum Found {
    /// Taken.
    Here(Offset),
    /// Not here; go on there (zone 2).
    Next(Offset),
}
