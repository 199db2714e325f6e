//! How the space is used: the freemap counted by owner.

use super::alloc::claimable;
use super::freemap::{BigBlock, BigBlocks};
use super::{Fetch, View};
use crate::error::Result;
use crate::format::{BIGBLOCK, Zone};

/// Space that something is going to take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Data in records of 16 KiB and more.
    pub large: u64,
    /// Data in smaller records.
    pub small: u64,
    /// Everything else, at most about.
    pub meta: u64,
}

impl Want {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.large
            .saturating_add(self.small)
            .saturating_add(self.meta)
    }

    /// Bytes that can be had of it in `view` at most, or more than all of it: free big-blocks but for
    /// those that data leaves for metadata, and what is left behind the last record in those that are
    /// in use. Holes between records are not used again before cleanup frees whole big-blocks.
    pub fn room(&self, view: &mut View) -> Result<u64> {
        let (free, kept) = claimable(view.header());
        let free = free.saturating_mul(BIGBLOCK);
        if free >= self.bytes() {
            return Ok(free);
        }
        let (mut large, mut small, mut meta) = (0u64, 0u64, kept.saturating_mul(BIGBLOCK));
        walk(view, |block| {
            let used = u64::from(block.entry.append_off.get());
            let left = BIGBLOCK.saturating_sub(used);
            let sum = match block.entry.owner() {
                Zone::LARGE_DATA => &mut large,
                Zone::SMALL_DATA => &mut small,
                Zone::META | Zone::BTREE => &mut meta,
                _ => return Ok(()),
            };
            *sum = sum.saturating_add(left);
            Ok(())
        })?;
        // What one kind leaves is of no use for another.
        let left = large.min(self.large) + small.min(self.small) + meta.min(self.meta);
        Ok(free.saturating_add(left))
    }
}

/// The big-blocks of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneUse {
    /// How many.
    pub bigblocks: u64,
    /// Bytes in them that are free; below zero where deduplication counts data several times.
    pub bytes_free: i64,
}

impl ZoneUse {
    /// Bytes in them that are allocated, each reference to shared data counted.
    pub fn bytes_used(&self) -> i64 {
        let size = i64::try_from(self.bigblocks.saturating_mul(BIGBLOCK)).unwrap_or(i64::MAX);
        size.saturating_sub(self.bytes_free)
    }
}

/// How the space of a file system is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By owning zone.
    pub zones: [ZoneUse; 16],
    /// Entries of the freemap that do not say what they should: wrong CRC, impossible owner.
    pub damaged: u64,
}

impl Usage {
    /// Counts one big-block.
    pub fn add(&mut self, block: &BigBlock, version: u32) {
        let owner = block.entry.owner();
        let fits = block.entry.check(block.place, version).is_ok();
        match self.zones.get_mut(usize::from(owner.0)) {
            Some(zone) if fits => {
                zone.bigblocks += 1;
                let free = i64::from(block.entry.bytes_free.get());
                zone.bytes_free = zone.bytes_free.saturating_add(free);
            }
            _ => self.damaged += 1,
        }
    }

    /// What belongs to `zone`.
    pub fn zone(&self, zone: Zone) -> ZoneUse {
        self.zones
            .get(usize::from(zone.0))
            .copied()
            .unwrap_or_default()
    }

    /// All big-blocks.
    pub fn bigblocks(&self) -> u64 {
        self.zones.iter().map(|zone| zone.bigblocks).sum()
    }
}

/// Every big-block of every volume, in order of address, handed to `each`.
pub fn walk(view: &mut View, mut each: impl FnMut(&BigBlock) -> Result<()>) -> Result<()> {
    let volumes: Vec<(u8, u64)> = view
        .volumes()
        .volumes()
        .map(|(number, _, header)| (number, header.buffer_space()))
        .collect();
    for (number, space) in volumes {
        let mut blocks = BigBlocks::new(number, space);
        while let Some(block) = blocks.next(view)? {
            each(&block)?;
        }
    }
    Ok(())
}

/// Counts the whole freemap.
pub fn usage(view: &mut View) -> Result<Usage> {
    let version = view.version();
    let mut usage = Usage::default();
    walk(view, |block| {
        usage.add(block, version);
        Ok(())
    })?;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::freemap::Layer2;
    use crate::format::{CrcKind, Offset};
    use zerocopy::FromZeros;

    fn block(owner: u8, free: i32, sound: bool) -> BigBlock {
        let mut entry = Layer2::new_zeroed();
        entry.zone = owner;
        entry.bytes_free.set(free);
        let sum = entry.sum(CrcKind::Castagnoli);
        entry.entry_crc.set(if sound { sum } else { !sum });
        BigBlock {
            at: Offset::NULL,
            place: Offset::NULL,
            entry,
        }
    }

    #[test]
    fn counted_by_owner() {
        let mut usage = Usage::default();
        for block in [
            block(10, -4096, true),
            block(10, 8192, true),
            block(0, BIGBLOCK as i32, true),
            block(16, 0, true),
            block(8, 0, false),
        ] {
            usage.add(&block, 7);
        }
        let data = usage.zone(Zone::LARGE_DATA);
        assert_eq!((data.bigblocks, data.bytes_free), (2, 4096));
        assert_eq!(data.bytes_used(), 2 * BIGBLOCK as i64 - 4096);
        assert_eq!(usage.zone(Zone::FREE).bytes_used(), 0);
        assert_eq!((usage.bigblocks(), usage.damaged), (3, 2));
    }
}
