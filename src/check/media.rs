//! What is known of the volumes before anything below them is read.

use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, Fault, Offset, VOLUMES_MAX};
use crate::store::VolumeSet;

/// One volume of the set.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its number.
    pub number: u8,
    /// Its device's name.
    pub name: String,
    /// Its header as it is on the device.
    pub header: VolumeHeader,
}

/// The volumes' headers, and how far addresses may reach.
#[derive(Clone, Debug)]
pub struct Media {
    /// Every volume, by number.
    pub volumes: Vec<Volume>,
    /// Stale header CRCs: advisory.
    pub stale: Vec<Fault>,
    /// What kept the FIFO from being read to its end when the picture was taken.
    pub fifo: Option<Fault>,
    /// Size of zone 2 by volume number in bytes; 0 for volumes that do not exist.
    space: Vec<u64>,
}

impl Media {
    /// What `set` holds.
    pub fn of(set: &VolumeSet) -> Media {
        let volumes = set.volumes().map(|(number, name, header)| Volume {
            number,
            name: name.to_owned(),
            header: *header,
        });
        Media::new(volumes.collect(), set.warnings().to_vec())
    }

    /// A set of `volumes` with the advisory faults `stale`.
    pub fn new(mut volumes: Vec<Volume>, stale: Vec<Fault>) -> Media {
        volumes.sort_by_key(|v| v.number);
        let mut space = vec![0; VOLUMES_MAX];
        for volume in &volumes {
            space[usize::from(volume.number)] = volume.header.buffer_space();
        }
        Media {
            volumes,
            stale,
            fifo: None,
            space,
        }
    }

    /// Big-blocks that fit into volume `number`.
    pub fn bigblocks(&self, number: u8) -> u64 {
        self.space[usize::from(number)] / BIGBLOCK
    }

    /// Whether `len` bytes at `at` (of a zone that addresses buffer space) lie within its volume.
    pub fn holds(&self, at: Offset, len: u64) -> bool {
        let end = at.short().checked_add(len);
        end.is_some_and(|end| end <= self.space[usize::from(at.volume())])
    }

    /// The name of the device that holds `at`.
    pub fn name(&self, at: Offset) -> &str {
        let found = self.volumes.iter().find(|v| v.number == at.volume());
        found.map_or("no volume", |v| v.name.as_str())
    }
}
