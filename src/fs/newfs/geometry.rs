//! Where everything of a fresh file system lies.

use super::Made;
use crate::error::{Error, Result};
use crate::format::freemap::LAYER2_ENTRIES;
use crate::format::volume::ZONE_MAX;
use crate::format::{BIGBLOCK, BUFFER, UNDO_BIGBLOCKS_MAX, VOLUMES_MAX, Zone};

/// End of the header area, start of the boot area: bytes from the start of the device.
pub(super) const BOOT_BEGIN: u64 = 256 << 10;
/// Start of the memory-log area.
pub(super) const LOG_BEGIN: u64 = BOOT_BEGIN + (32 << 10);
/// Start of zone 2.
pub(super) const VOLUME_BEGIN: u64 = LOG_BEGIN + (256 << 10);
/// The smallest UNDO FIFO that is made without being asked for, in bytes.
const UNDO_DEFAULT_MIN: u64 = 8 << 20;
/// The largest UNDO FIFO that is made without being asked for, in bytes.
pub const UNDO_DEFAULT_MAX: u64 = 512 << 20;
/// DragonFly does not write to smaller file systems, in bytes.
pub const DRAGONFLY_MIN: u64 = 304 << 20;
/// Big-blocks that a file system must be able to give: one for nodes, one for records, one each
/// for the two kinds of file data.
const USABLE_MIN: u64 = 4;

/// One volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume {
    /// End of the usable area, bytes from the start of the device.
    pub end: u64,
    /// Whole big-blocks.
    pub bigblocks: u64,
    /// Layer-2 arrays.
    pub layer2: u64,
}

/// All volumes.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub volumes: Vec<Volume>,
    /// Big-blocks of the UNDO FIFO.
    pub undo: u64,
}

/// The least size in bytes of a device for volume `number`, with an UNDO FIFO of `undo_bytes`.
pub fn least_size(number: usize, undo_bytes: u64) -> u64 {
    let bigblocks = match number {
        // Both layers of the freemap, the FIFO, and what the file system needs.
        0 => 2 + undo_bytes.div_ceil(BIGBLOCK) + USABLE_MIN,
        _ => 2,
    };
    VOLUME_BEGIN + bigblocks * BIGBLOCK
}

impl Geometry {
    /// Lays out devices (name, size in bytes), with an UNDO FIFO of `undo_bytes`.
    pub fn new(devices: &[(String, u64)], undo_bytes: Option<u64>) -> Result<Geometry> {
        if !(1..=VOLUMES_MAX).contains(&devices.len()) {
            let text = format!("a file system has 1 to 256 volumes, not {}", devices.len());
            return Err(Error::usage(text));
        }
        let undo_max = UNDO_BIGBLOCKS_MAX as u64 * BIGBLOCK;
        if let Some(undo) = undo_bytes.filter(|undo| !(1..=undo_max).contains(undo)) {
            let text = format!("the UNDO FIFO has 8 MiB to 1 GiB, not {undo} bytes");
            return Err(Error::usage(text));
        }
        let space = devices[0].1.saturating_sub(VOLUME_BEGIN);
        let undo = undo_bytes
            .unwrap_or_else(|| (space / 16).clamp(UNDO_DEFAULT_MIN, UNDO_DEFAULT_MAX))
            .div_ceil(BIGBLOCK);
        let mut volumes = Vec::with_capacity(devices.len());
        for (number, (name, size)) in devices.iter().enumerate() {
            let volume =
                Volume::new(*size).map_err(|error| error.context(format!("{name} ({number})")))?;
            let fixed = if number == 0 { 1 + undo } else { 0 };
            let usable = if number == 0 { USABLE_MIN } else { 1 };
            if volume.bigblocks < volume.layer2.max(1) + fixed + usable {
                let least = least_size(number, undo * BIGBLOCK);
                let text = format!(
                    "{name} is too small for volume {number}: {size} bytes, and with an UNDO FIFO \
                     of {} MiB it needs {least} ({} MiB)",
                    (undo * BIGBLOCK) >> 20,
                    least.div_ceil(1 << 20),
                );
                return Err(Error::usage(text));
            }
            volumes.push(volume);
        }
        Ok(Geometry { volumes, undo })
    }

    /// The big-block of the layer-2 array `index` of volume `number`.
    pub fn layer2_at(&self, number: usize, index: u64) -> u64 {
        index + u64::from(number == 0)
    }

    /// The first big-block of the FIFO; it and all that follow are on volume 0.
    pub fn undo_at(&self) -> u64 {
        1 + self.volumes[0].layer2
    }

    /// The big-block of the root node.
    pub fn btree(&self) -> u64 {
        self.undo_at() + self.undo
    }

    /// The big-block of the records' data.
    pub fn meta(&self) -> u64 {
        self.btree() + 1
    }

    /// The first big-block of volume `number` that is free.
    fn first_free(&self, number: usize) -> u64 {
        match number {
            0 => self.meta() + 1,
            _ => self.volumes[number].layer2,
        }
    }

    /// How many big-blocks are free of those that the layer-1 entry `index` of volume `number`
    /// describes.
    pub fn free_in(&self, number: usize, index: u64) -> u64 {
        let begin = (index * LAYER2_ENTRIES as u64).max(self.first_free(number));
        let end = ((index + 1) * LAYER2_ENTRIES as u64).min(self.volumes[number].bigblocks);
        end.saturating_sub(begin)
    }

    /// Who owns big-block `block` of volume `number`.
    pub fn owner(&self, number: usize, block: u64) -> Zone {
        if block >= self.volumes[number].bigblocks {
            Zone::UNAVAILABLE
        } else if block >= self.first_free(number) {
            Zone::FREE
        } else if number != 0 || block < self.undo_at() {
            Zone::FREEMAP
        } else if block < self.btree() {
            Zone::UNDO
        } else if block == self.btree() {
            Zone::BTREE
        } else {
            Zone::META
        }
    }

    /// What this comes to.
    pub fn made(&self) -> Made {
        let free_bigblocks = (0..self.volumes.len())
            .map(|number| self.volumes[number].bigblocks - self.first_free(number))
            .sum();
        Made {
            undo_bytes: self.undo * BIGBLOCK,
            bigblocks: free_bigblocks + 2,
            free_bigblocks,
        }
    }
}

impl Volume {
    fn new(size: u64) -> Result<Volume> {
        let end = size - size % BUFFER as u64;
        let space = end.saturating_sub(VOLUME_BEGIN);
        if space > ZONE_MAX {
            return Err(Error::usage("is too large: a volume has at most 4 PiB"));
        }
        let bigblocks = space / BIGBLOCK;
        Ok(Volume {
            end,
            bigblocks,
            layer2: bigblocks.div_ceil(LAYER2_ENTRIES as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIB: u64 = 1 << 40;

    fn one(size: u64, undo: Option<u64>) -> Result<Geometry> {
        Geometry::new(&[("disk".to_owned(), size)], undo)
    }

    #[test]
    fn the_default_undo_grows_with_the_volume() {
        let undo = |size| one(size, None).expect("room").made().undo_bytes >> 20;
        assert_eq!(undo(64 << 20), 8);
        assert_eq!(undo((1 << 30) + VOLUME_BEGIN), 64);
        assert_eq!(undo(1 << 30), 64);
        assert_eq!(undo(TIB), 512);
    }

    #[test]
    fn the_least_size_is_the_least() {
        for undo in [1, 2, 128] {
            let least = least_size(0, undo * BIGBLOCK);
            assert!(one(least, Some(undo * BIGBLOCK)).is_ok());
            assert!(one(least - 1, Some(undo * BIGBLOCK)).is_err());
        }
        assert!(one(u64::MAX, None).is_err());
        assert!(one(0, None).is_err());
        assert!(one(TIB, Some(0)).is_err());
        assert!(one(TIB, Some((1 << 30) + 1)).is_err());
        assert!(Geometry::new(&[], None).is_err());
    }

    proptest! {
        /// The counts agree with the owners, entry by entry.
        #[test]
        fn counts_are_of_owners(blocks in 12u64..3_000_000, other in 2u64..1_200_000, undo in 1u64..5) {
            let size = |blocks| VOLUME_BEGIN + blocks * BIGBLOCK + 77;
            let devices = [("a".to_owned(), size(blocks)), ("b".to_owned(), size(other))];
            let geometry = Geometry::new(&devices, Some(undo * BIGBLOCK)).expect("room");
            let mut free = 0;
            for (number, volume) in geometry.volumes.iter().enumerate() {
                for index in 0..volume.layer2 {
                    free += geometry.free_in(number, index);
                    let freemap = geometry.owner(number, geometry.layer2_at(number, index));
                    prop_assert_eq!(freemap, Zone::FREEMAP);
                }
                prop_assert_eq!(geometry.free_in(number, volume.layer2), 0);
                prop_assert_eq!(geometry.owner(number, volume.bigblocks), Zone::UNAVAILABLE);
                prop_assert_eq!(geometry.owner(number, volume.bigblocks - 1), Zone::FREE);
            }
            prop_assert_eq!(geometry.made().free_bigblocks, free);
            let owned: Vec<u8> = (0..geometry.meta() + 2).map(|n| geometry.owner(0, n).0).collect();
            let mut expected = vec![4; 1 + geometry.volumes[0].layer2 as usize];
            expected.extend(vec![3; undo as usize]);
            expected.extend([8, 9, 0]);
            prop_assert_eq!(owned, expected);
        }
    }
}
