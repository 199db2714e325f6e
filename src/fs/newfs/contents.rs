//! The bytes of a fresh file system.

use super::geometry::{BOOT_BEGIN, Geometry, LOG_BEGIN, VOLUME_BEGIN};
use super::{NewFs, kind};
use crate::format::fifo::{self, SECTOR};
use crate::format::freemap::{LAYER2_SPAN, Layer1, Layer2};
use crate::format::node::{Base, LEAF, LeafElement, Node, RECORD};
use crate::format::record::{InodeData, ObjType, PfsData, data_sum, rt};
use crate::format::volume::{BlockmapEntry, FSTYPE, HEADER_SIZE, SIGNATURE, VolumeHeader};
use crate::format::{BIGBLOCK, Key, Localization, NODE_SIZE, Offset, ROOT_OBJ, Tid, Zone, align16};
use crate::fs::pfs_edit::root_inode;
use std::mem::size_of;
use zerocopy::{FromZeros, IntoBytes};

/// Where TIDs begin.
const FIRST_TID: u64 = 1 << 32;
/// Bytes of the two records' data, the gap between them included.
const META_BYTES: u64 = 432;

/// Makes the bytes of every structure.
pub(super) struct Contents<'a> {
    what: &'a NewFs,
    geometry: &'a Geometry,
    owned: [Layer2; 16],
}

impl<'a> Contents<'a> {
    pub fn new(what: &'a NewFs, geometry: &'a Geometry) -> Contents<'a> {
        let owned = std::array::from_fn(|zone| layer2(Zone(zone as u8), what.version));
        Contents {
            what,
            geometry,
            owned,
        }
    }

    /// The piece of the layer-1 array that begins at its byte `from`.
    pub fn layer1(&self, from: u64, buf: &mut [u8]) {
        let first = from as usize / size_of::<Layer1>();
        for (index, slot) in buf.chunks_exact_mut(size_of::<Layer1>()).enumerate() {
            let at = Offset((first as u64 + index as u64) * LAYER2_SPAN);
            let (number, array) = (usize::from(at.volume()), at.short() / LAYER2_SPAN);
            let mut entry = Layer1::new_zeroed();
            match self.geometry.volumes.get(number) {
                Some(volume) if array < volume.layer2 => {
                    let block = self.geometry.layer2_at(number, array);
                    let at = Offset::new(Zone::RAW_BUFFER, at.volume(), block * BIGBLOCK);
                    entry.phys_offset.set(at.0);
                    entry.blocks_free.set(self.geometry.free_in(number, array));
                }
                _ => entry.phys_offset.set(Offset::UNAVAILABLE.0),
            }
            entry.layer1_crc.set(entry.sum(kind(self.what.version)));
            slot.copy_from_slice(entry.as_bytes());
        }
    }

    /// The piece of volume `number`'s layer-2 array `array` that begins at its byte `from`.
    pub fn layer2(&self, number: usize, array: u64, from: u64, buf: &mut [u8]) {
        let first = array * (LAYER2_SPAN / BIGBLOCK) + from / size_of::<Layer2>() as u64;
        for (index, slot) in buf.chunks_exact_mut(size_of::<Layer2>()).enumerate() {
            let owner = self.geometry.owner(number, first + index as u64);
            slot.copy_from_slice(self.owned[usize::from(owner.0)].as_bytes());
        }
    }

    /// The piece of the FIFO that begins at its byte `from`: numbered filler, so that the record
    /// before the first one ever appended has a number.
    pub fn fifo(&self, from: u64, buf: &mut [u8]) {
        let first = from / SECTOR;
        for (index, sector) in buf.chunks_exact_mut(SECTOR as usize).enumerate() {
            let mut head = fifo::Head::new_zeroed();
            head.signature.set(fifo::HEAD);
            head.kind.set(fifo::DUMMY);
            head.size.set(SECTOR as u32);
            // At most 1 GiB of 512 bytes.
            head.seq.set((first + index as u64) as u32);
            let mut tail = fifo::Tail::new_zeroed();
            tail.signature.set(fifo::TAIL);
            tail.kind.set(fifo::DUMMY);
            tail.size.set(SECTOR as u32);
            sector.fill(0);
            let end = sector.len() - size_of::<fifo::Tail>();
            sector[end..].copy_from_slice(tail.as_bytes());
            sector[..size_of::<fifo::Head>()].copy_from_slice(head.as_bytes());
            let sum = kind(self.what.version).sum2(&sector[..12], &sector[16..]);
            sector[12..16].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// The root node: a leaf with the root directory's inode and PFS 0's record.
    pub fn root_node(&self) -> [u8; NODE_SIZE] {
        let at = self.meta_at();
        let (inode, pfs) = (self.inode(), self.pfs());
        let pfs_at = Offset(at.0 + size_of::<InodeData>() as u64);
        let leaves = [
            self.leaf(Localization::INODE, rt::INODE, at, inode.as_bytes()),
            self.leaf(Localization::MISC, rt::PFS, pfs_at, pfs.as_bytes()),
        ];
        let mut node = Node::new_zeroed();
        node.kind = LEAF;
        node.count.set(leaves.len() as i32);
        for (slot, leaf) in node.elms.iter_mut().zip(&leaves) {
            slot.as_mut_bytes().copy_from_slice(leaf.as_bytes());
        }
        node.crc.set(node.sum(kind(self.what.version)));
        let mut bytes = [0; NODE_SIZE];
        bytes.copy_from_slice(node.as_bytes());
        bytes
    }

    /// Puts the data of the two records at the start of `bytes`, and leaves the others alone.
    pub fn meta(&self, bytes: &mut [u8]) {
        let (inode, pfs) = (self.inode(), self.pfs());
        let (first, rest) = bytes.split_at_mut(size_of::<InodeData>());
        first.copy_from_slice(inode.as_bytes());
        rest[..size_of::<PfsData>()].copy_from_slice(pfs.as_bytes());
    }

    fn meta_at(&self) -> Offset {
        Offset::new(Zone::META, 0, self.geometry.meta() * BIGBLOCK)
    }

    fn leaf(&self, class: u16, rec_type: u16, at: Offset, data: &[u8]) -> LeafElement {
        let mut base = Base::from_key(Key {
            localization: Localization::new(0, class),
            obj_id: ROOT_OBJ,
            rec_type,
            key: 0,
            create_tid: Tid(FIRST_TID + 1),
        });
        base.obj_type = ObjType::Directory as u8;
        base.btype = RECORD;
        let mut leaf = LeafElement::new_zeroed();
        leaf.base = base;
        leaf.create_ts.set((self.what.now / 1_000_000) as u32);
        leaf.data_offset.set(at.0);
        leaf.data_len.set(data.len() as i32);
        let sum = data_sum(rec_type, data, kind(self.what.version));
        leaf.data_crc.set(sum);
        leaf
    }

    fn inode(&self) -> InodeData {
        root_inode(self.what.version, self.what.now)
    }

    fn pfs(&self) -> PfsData {
        let mut pfs = PfsData::default_for(self.what.fsid);
        pfs.sync_low_tid.set(1);
        pfs.label[..self.what.label.len()].copy_from_slice(&self.what.label);
        pfs
    }

    /// The header block of volume `number`.
    pub fn header(&self, number: usize, buf: &mut [u8]) {
        let volume = self.geometry.volumes[number];
        let mut header = VolumeHeader::new_zeroed();
        header.signature.set(SIGNATURE);
        header.bot_beg.set(BOOT_BEGIN as i64);
        header.mem_beg.set(LOG_BEGIN as i64);
        header.buf_beg.set(VOLUME_BEGIN as i64);
        header.buf_end.set(volume.end.cast_signed());
        header.fsid = self.what.fsid;
        header.fstype = FSTYPE;
        header.label[..self.what.label.len()].copy_from_slice(&self.what.label);
        header.vol_no.set(number as i32);
        header.vol_count.set(self.geometry.volumes.len() as i32);
        header.version.set(self.what.version);
        if number == 0 {
            self.root_fields(&mut header);
        }
        header.crc.set(header.sum(kind(self.what.version)));
        buf.fill(0);
        buf[..HEADER_SIZE].copy_from_slice(header.as_bytes());
    }

    /// What only volume 0's header says.
    fn root_fields(&self, header: &mut VolumeHeader) {
        let geometry = self.geometry;
        let made = geometry.made();
        header.stat_bigblocks.set(made.bigblocks.cast_signed());
        header
            .stat_freebigblocks
            .set(made.free_bigblocks.cast_signed());
        header.stat_inodes.set(1);
        let root = Offset::new(Zone::BTREE, 0, geometry.btree() * BIGBLOCK);
        header.btree_root.set(root.0);
        header.next_tid.set(FIRST_TID);
        let entry = |phys: Offset, first: Offset, next: Offset, end: Offset| {
            let mut entry = BlockmapEntry::new_zeroed();
            entry.phys_offset.set(phys.0);
            entry.first_offset.set(first.0);
            entry.next_offset.set(next.0);
            entry.alloc_offset.set(end.0);
            entry.entry_crc.set(entry.sum(kind(self.what.version)));
            entry
        };
        let start = |zone| Offset::new(zone, 0, 0);
        let fifo = start(Zone::UNDO);
        let fifo_end = Offset::new(Zone::UNDO, 0, made.undo_bytes);
        header.blockmap[3] = entry(Offset::UNAVAILABLE, fifo, fifo, fifo_end);
        let raw = start(Zone::RAW_BUFFER);
        header.blockmap[4] = entry(raw, Offset::NULL, raw, last(Zone::RAW_BUFFER));
        for number in 8..16 {
            let zone = Zone(number);
            let next = match zone {
                Zone::BTREE => Offset(root.0 + NODE_SIZE as u64),
                Zone::META => Offset(self.meta_at().0 + META_BYTES),
                _ => start(zone),
            };
            header.blockmap[usize::from(number)] =
                entry(Offset::NULL, start(zone), next, last(zone));
        }
        for (index, slot) in header.undo_array.iter_mut().enumerate() {
            let block = geometry.undo_at() + index as u64;
            slot.set(if (index as u64) < geometry.undo {
                Offset::new(Zone::RAW_BUFFER, 0, block * BIGBLOCK).0
            } else {
                Offset::UNAVAILABLE.0
            });
        }
    }
}

/// The highest address of `zone`.
fn last(zone: Zone) -> Offset {
    Offset::new(zone, u8::MAX, u64::MAX)
}

/// The layer-2 entry of a big-block that `owner` has in a fresh file system of `version`.
fn layer2(owner: Zone, version: u32) -> Layer2 {
    let used = match owner {
        Zone::BTREE => NODE_SIZE as u64,
        _ => align16(META_BYTES),
    };
    let (append, free) =
        Layer2::canonical(owner).unwrap_or((used as u32, (BIGBLOCK - used) as i32));
    let mut entry = Layer2::new_zeroed();
    entry.zone = owner.0;
    entry.append_off.set(append);
    entry.bytes_free.set(free);
    entry.entry_crc.set(entry.sum(kind(version)));
    entry
}
