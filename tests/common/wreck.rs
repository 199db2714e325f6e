//! Volumes damaged at random: places worth damaging, and what to do to them.

use crate::common::golden;
use crate::common::patch::{Image, Place};
use crate::mutate::Random;
use mallet::format::{BUFFER, NODE_SIZE, Offset, Zone};
use mallet::io::sim::SimDisk;
use zerocopy::IntoBytes;

/// A volume to damage, with the places worth damaging.
pub struct Base {
    disk: SimDisk,
    nodes: Vec<Offset>,
    records: Vec<Place>,
    /// Layer-2 entries of the big-blocks in use.
    layer2: Vec<Offset>,
    layer1: Offset,
    /// The FIFO's buffers around its range to undo.
    fifo: Vec<Offset>,
}

impl Base {
    /// The volume of `testdata/` with this name.
    pub fn testdata(name: &str) -> Base {
        Base::of(&Image::over(&golden::testdata(name)).disk)
    }

    /// This volume, which stays as it is.
    pub fn of(disk: &SimDisk) -> Base {
        let image = Image::of(disk.snapshot());
        let records = image.records();
        let mut nodes: Vec<Offset> = records.iter().map(|p| p.node).collect();
        nodes.push(image.root());
        nodes.dedup();
        let header = image.header();
        let used = (0..header.buffer_space() >> 23)
            .map(|i| image.layer2(Offset::new(Zone::RAW_BUFFER, 0, i << 23)))
            .filter(|(_, entry)| entry.owner() != Zone::FREE)
            .map(|(place, _)| place);
        let undo = Offset(header.undo_array[0].get());
        Base {
            layer2: used.collect(),
            layer1: image.layer1_place(Offset(0)),
            fifo: (0..24)
                .map(|i| Offset(undo.0 + i * BUFFER as u64))
                .collect(),
            disk: disk.snapshot(),
            nodes,
            records,
        }
    }

    /// A copy of the volume.
    pub fn image(&self) -> Image {
        Image::of(self.disk.snapshot())
    }

    /// An address that means something here: a loop, a wrong type, a wrong place.
    fn pointer(&self, random: &mut Random) -> u64 {
        let node = self.nodes[random.below(self.nodes.len())].0;
        let record = self.records[random.below(self.records.len())].leaf;
        match random.below(6) {
            0 | 1 => node,
            2 => record.data_offset.get(),
            3 => record.base.create_tid.get(),
            4 => record.base.obj_id.get().cast_unsigned(),
            _ => node ^ 1 << random.below(64),
        }
    }

    /// Changes a few bytes of a structure.
    fn mangle(&self, bytes: &mut [u8], random: &mut Random) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.any() as u8,
            2 => {
                let width = (2 << random.below(3)).min(bytes.len());
                let at = (at & !(width - 1)).min(bytes.len() - width);
                let value = [0, 1, u64::MAX, 1 << 63, 63, 64, 4096][random.below(7)];
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            3 if bytes.len() >= 8 => {
                let at = (at & !7).min(bytes.len() - 8);
                bytes[at..at + 8].copy_from_slice(&self.pointer(random).to_le_bytes());
            }
            _ => {
                let len = (64 >> random.below(4)).min(bytes.len());
                let (from, to) = (
                    random.below(bytes.len() - len + 1) & !7,
                    random.below(bytes.len() - len + 1) & !7,
                );
                bytes.copy_within(from..from + len, to);
            }
        }
    }

    /// Damages one structure of `image`, and no checksum is made good.
    pub fn damage_openly(&self, image: &Image, random: &mut Random) {
        let record = self.records[random.below(self.records.len())];
        let (at, len) = match random.below(6) {
            0 => (self.fifo[random.below(self.fifo.len())], BUFFER),
            1 => (self.layer2[random.below(self.layer2.len())], 16),
            2 => (self.nodes[random.below(self.nodes.len())], NODE_SIZE),
            3 => (self.layer1, 32),
            _ => {
                let len = record.leaf.data_len.get() as usize;
                (record.leaf.data_offset(), len)
            }
        };
        if at != Offset(0) && len > 0 {
            let mut bytes = image.read(at, len);
            self.mangle(&mut bytes, random);
            image.write(at, &bytes);
        }
    }

    /// Damages one structure of `image`; with its checksum made good two times in three.
    pub fn damage(&self, image: &Image, random: &mut Random) {
        let seal = random.below(3) != 0;
        let raw = |image: &Image, at: Offset, len: usize, random: &mut Random| {
            let mut bytes = image.read(at, len);
            self.mangle(&mut bytes, random);
            image.write(at, &bytes);
        };
        match random.below(16) {
            0 => {
                // Mostly behind the fields that make it a volume at all.
                let from = if random.below(4) == 0 { 0 } else { 0xC8 };
                image.edit_header(|h| self.mangle(&mut h.as_mut_bytes()[from..], random));
            }
            1 => {
                let at = self.fifo[random.below(self.fifo.len())];
                raw(image, at, BUFFER, random);
            }
            2 | 3 => {
                let at = self.layer2[random.below(self.layer2.len())];
                image.edit_sealed(at, 16, |entry| self.mangle(entry, random));
            }
            4 => image.edit_sealed(self.layer1, 32, |entry| self.mangle(entry, random)),
            5..=7 => {
                let at = self.nodes[random.below(self.nodes.len())];
                if seal {
                    // Its head, or anything in it.
                    let len = if random.below(2) == 0 { 256 } else { NODE_SIZE };
                    image.edit_node(at, |n| self.mangle(&mut n.as_mut_bytes()[4..len], random));
                } else {
                    raw(image, at, NODE_SIZE, random);
                }
            }
            8..=11 => {
                let place = self.records[random.below(self.records.len())];
                image.edit_leaf(&place, |leaf| self.mangle(leaf.as_mut_bytes(), random));
            }
            _ => {
                let place = self.records[random.below(self.records.len())];
                if seal {
                    image.edit_data(&place, |data| self.mangle(data, random));
                } else {
                    let len = place.leaf.data_len.get() as usize;
                    raw(image, place.leaf.data_offset(), len, random);
                }
            }
        }
    }
}
