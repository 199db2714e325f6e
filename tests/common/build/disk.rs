//! Volumes: space handed out by the allocation rules (format.md §7), freemap, UNDO FIFO and
//! headers written when all is known (format.md §4.4, §6; durability.md §2.4).

use super::Options;
use mallet::format::fifo::{DUMMY, HEAD, Head, SECTOR, TAIL, Tail};
use mallet::format::freemap::{LAYER1_ENTRIES, LAYER2_ENTRIES, Layer1, Layer2};
use mallet::format::volume::{FSTYPE, HEADER_SIZE, SIGNATURE, VolumeHeader};
use mallet::format::{BIGBLOCK, BUFFER, CrcKind, Offset, Tid, UNDO_BIGBLOCKS_MAX, Zone, align16};
use std::fs::File;
use std::os::unix::fs::FileExt;
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Start of the boot area: the header and its junk.
const BOOT_BEGIN: u64 = 256 << 10;
/// Start of the memory log.
const MEMORY_BEGIN: u64 = BOOT_BEGIN + (32 << 10);
/// Start of zone 2.
const BUFFERS_BEGIN: u64 = MEMORY_BEGIN + (256 << 10);
/// Bytes collected before they are written.
const CHUNK: usize = 1 << 20;

/// A stream of allocations: a zone's, or a zone's later ones, which fill big-blocks of their own.
#[derive(Clone, Copy)]
pub struct Lane {
    /// The zone.
    pub zone: Zone,
    /// Whether these are the later ones.
    pub late: bool,
}

const LANES: usize = 32;

impl Lane {
    fn slot(self) -> usize {
        usize::from(self.zone.0) + if self.late { LANES / 2 } else { 0 }
    }
}

/// A big-block's entry.
#[derive(Clone, Copy)]
struct Block {
    owner: Zone,
    append: u64,
    free: i64,
}

const FREE: Block = Block {
    owner: Zone::FREE,
    append: 0,
    free: BIGBLOCK as i64,
};

struct Volume {
    file: File,
    number: u8,
    end: u64,
    /// The big-blocks that fit.
    blocks: Vec<Block>,
    /// First big-block not yet looked at by [`Disk::claim`].
    cursor: usize,
    /// Indices of the big-blocks that hold layer-2 arrays.
    arrays: Vec<usize>,
}

/// Bytes on their way to one place.
struct Pending {
    at: Offset,
    bytes: Vec<u8>,
}

/// The volumes of one file system under construction.
pub struct Disk {
    version: u32,
    crc: CrcKind,
    label: [u8; 64],
    fsid: [u8; 16],
    full: bool,
    scatter: bool,
    volumes: Vec<Volume>,
    /// The volume that gives the next big-block if `scatter`.
    turn: usize,
    layer1: Offset,
    undo: Vec<Offset>,
    /// Allocation iterators by lane.
    next: [Option<Offset>; LANES],
    pending: [Option<Pending>; LANES],
}

impl Disk {
    /// Creates the files and reserves freemap, FIFO and, as newfs does, the first big-blocks of
    /// zones 8 and 9.
    pub fn create(options: &Options) -> Disk {
        let mut label = [0; 64];
        label[..options.label.len()].copy_from_slice(options.label.as_bytes());
        assert!((1..=7).contains(&options.version));
        let undo_blocks = options.undo_bytes / BIGBLOCK;
        assert!(options.undo_bytes.is_multiple_of(BIGBLOCK));
        assert!((1..=UNDO_BIGBLOCKS_MAX as u64).contains(&undo_blocks));
        let volumes = options.volumes.iter().enumerate();
        let mut disk = Disk {
            version: options.version,
            crc: CrcKind::of_version(options.version),
            label,
            fsid: options.fsid(),
            full: options.full,
            scatter: options.scatter,
            volumes: volumes
                .map(|(n, (path, size))| Volume::create(n, path, *size))
                .collect(),
            turn: 0,
            layer1: Offset::NULL,
            undo: Vec::new(),
            next: [None; LANES],
            pending: [const { None }; LANES],
        };
        disk.layer1 = disk.volumes[0].reserve(Zone::FREEMAP);
        for volume in &mut disk.volumes {
            for _ in 0..volume.blocks.len().div_ceil(LAYER2_ENTRIES) {
                let array = volume.reserve(Zone::FREEMAP);
                volume.arrays.push((array.short() / BIGBLOCK) as usize);
            }
        }
        for _ in 0..undo_blocks {
            let block = disk.volumes[0].reserve(Zone::UNDO);
            disk.undo.push(block);
        }
        for zone in [Zone::BTREE, Zone::META] {
            let block = disk.claim(zone);
            disk.next[Lane { zone, late: false }.slot()] = Some(block.in_zone(zone));
        }
        disk
    }

    /// Takes a free big-block for `zone`; gives its zone-2 address.
    fn claim(&mut self, zone: Zone) -> Offset {
        let count = self.volumes.len();
        for step in 0..count {
            let index = if self.scatter {
                (self.turn + step) % count
            } else {
                step
            };
            if let Some(at) = self.volumes[index].take(zone) {
                self.turn = (index + 1) % count;
                return at;
            }
        }
        panic!("the volumes are full: give them more space");
    }

    /// Allocates `len` bytes as the kernel does (format.md §7.2).
    pub fn allocate(&mut self, lane: Lane, len: u64) -> Offset {
        let zone = lane.zone;
        let len = align16(len);
        let unit = if len <= BUFFER as u64 {
            BUFFER as u64
        } else {
            BIGBLOCK
        };
        let slot = lane.slot();
        let at = match self.next[slot] {
            // An iterator at a big-block's start stands for one not claimed yet, except for the two
            // that newfs claims: nothing is in those.
            Some(at) if at.in_bigblock() != 0 || self.is_claimed_empty(at, zone) => {
                let (first, last) = (at.short() / unit, (at.short() + len - 1) / unit);
                let short = if first == last {
                    at.short()
                } else {
                    last * unit
                };
                let moved = Offset::new(zone, at.volume(), short);
                if moved.bigblock() == at.bigblock() {
                    moved
                } else {
                    self.claim(zone).in_zone(zone)
                }
            }
            _ => self.claim(zone).in_zone(zone),
        };
        let append = at.in_bigblock() + len;
        let block = self.block_mut(at);
        block.append = append;
        block.free -= len.cast_signed();
        // One past the big-block's end is what the kernel leaves too.
        self.next[slot] = Some(Offset(at.0 + len));
        at
    }

    /// Counts one more reference to `len` bytes at `at`.
    pub fn refer(&mut self, at: Offset, len: u64) {
        self.block_mut(at).free -= align16(len).cast_signed();
    }

    fn is_claimed_empty(&self, at: Offset, zone: Zone) -> bool {
        let blocks = &self.volumes[usize::from(at.volume())].blocks;
        let block = blocks.get((at.short() / BIGBLOCK) as usize);
        block.is_some_and(|block| block.owner == zone && block.append == 0)
    }

    fn block_mut(&mut self, at: Offset) -> &mut Block {
        let index = (at.short() / BIGBLOCK) as usize;
        &mut self.volumes[usize::from(at.volume())].blocks[index]
    }

    /// Writes a record's data at its new place; collected and written in large pieces.
    pub fn write(&mut self, lane: Lane, at: Offset, bytes: &[u8]) {
        let slot = lane.slot();
        let fits = |p: &Pending| {
            let end = p.at.0 + p.bytes.len() as u64;
            at.bigblock() == p.at.bigblock() && at.0 >= end && at.0 - end < BUFFER as u64
        };
        if !self.pending[slot].as_ref().is_some_and(fits) {
            self.flush(slot);
            // The place behind a full big-block is another's.
            let bytes = Vec::with_capacity(CHUNK + 2 * BUFFER);
            self.pending[slot] = Some(Pending { at, bytes });
        }
        let pending = self.pending[slot].as_mut().expect("made above");
        pending.bytes.resize((at.0 - pending.at.0) as usize, 0);
        pending.bytes.extend_from_slice(bytes);
        let len = align16(pending.bytes.len() as u64) as usize;
        pending.bytes.resize(len, 0);
        if len >= CHUNK {
            self.flush(slot);
        }
    }

    fn flush(&mut self, slot: usize) {
        if let Some(mut pending) = self.pending[slot].take() {
            self.write_now(pending.at, &pending.bytes);
            // Staying there lets the next write fill the gap before it.
            pending.at = Offset(pending.at.0 + pending.bytes.len() as u64);
            pending.bytes.clear();
            self.pending[slot] = Some(pending);
        }
    }

    /// Writes at once.
    pub fn write_now(&self, at: Offset, bytes: &[u8]) {
        self.volumes[usize::from(at.volume())].write(BUFFERS_BEGIN + at.short(), bytes);
    }

    /// Writes everything that describes what was allocated, and makes all of it stable.
    pub fn finish(&mut self, root: Offset, next_tid: Tid, inodes: u64) {
        for slot in 0..self.pending.len() {
            self.flush(slot);
        }
        self.write_fifo();
        self.write_layer1();
        for volume in &self.volumes {
            self.write_layer2(volume);
            let header = self.header(volume, root, next_tid, inodes);
            volume.write(0, header.as_bytes());
            if self.full {
                volume.write_rest();
            }
            volume.file.sync_all().expect("a stable image");
        }
    }

    /// Formats the FIFO: one DUMMY record a sector, numbered from 0.
    fn write_fifo(&self) {
        let mut seq = 0;
        let mut bytes = vec![0; BIGBLOCK as usize];
        for block in &self.undo {
            for sector in bytes.chunks_exact_mut(SECTOR as usize) {
                let tail_at = sector.len() - size_of::<Tail>();
                let mut head = Head {
                    signature: U16::new(HEAD),
                    kind: U16::new(DUMMY),
                    size: U32::new(SECTOR as u32),
                    seq: U32::new(seq),
                    crc: U32::ZERO,
                };
                let tail = Tail {
                    signature: U16::new(TAIL),
                    kind: head.kind,
                    size: head.size,
                };
                sector[tail_at..].copy_from_slice(tail.as_bytes());
                let sum = self
                    .crc
                    .sum2(&head.as_bytes()[..12], &sector[size_of::<Head>()..]);
                head.crc = U32::new(sum);
                sector[..size_of::<Head>()].copy_from_slice(head.as_bytes());
                seq += 1;
            }
            self.write_now(*block, &bytes);
        }
    }

    fn write_layer1(&self) {
        let entry = |blocks_free: u64, array: Offset| {
            let mut entry = Layer1::new_zeroed();
            entry.blocks_free = U64::new(blocks_free);
            entry.phys_offset = U64::new(array.0);
            entry.layer1_crc = U32::new(entry.sum(self.crc));
            entry
        };
        let mut all = vec![entry(0, Offset::UNAVAILABLE); LAYER1_ENTRIES];
        for volume in &self.volumes {
            let first = volume.address(0).layer1_index();
            for (n, blocks) in volume.blocks.chunks(LAYER2_ENTRIES).enumerate() {
                let free = blocks.iter().filter(|b| b.owner == Zone::FREE).count();
                all[first + n] = entry(free as u64, volume.address(volume.arrays[n]));
            }
        }
        self.write_now(self.layer1, all.as_bytes());
    }

    fn write_layer2(&self, volume: &Volume) {
        let entry = |block: &Block| {
            let mut entry = Layer2::new_zeroed();
            entry.zone = block.owner.0;
            entry.append_off = U32::new(block.append as u32);
            entry.bytes_free = I32::new(block.free as i32);
            entry.entry_crc = U32::new(entry.sum(self.crc));
            entry
        };
        let nonexistent = entry(&Block {
            owner: Zone::UNAVAILABLE,
            append: BIGBLOCK,
            free: 0,
        });
        for (n, blocks) in volume.blocks.chunks(LAYER2_ENTRIES).enumerate() {
            let mut all = vec![nonexistent; LAYER2_ENTRIES];
            for (slot, block) in all.iter_mut().zip(blocks) {
                *slot = entry(block);
            }
            self.write_now(volume.address(volume.arrays[n]), all.as_bytes());
        }
    }

    fn header(&self, volume: &Volume, root: Offset, next_tid: Tid, inodes: u64) -> VolumeHeader {
        let mut header = VolumeHeader::new_zeroed();
        header.signature = U64::new(SIGNATURE);
        header.bot_beg = I64::new(BOOT_BEGIN.cast_signed());
        header.mem_beg = I64::new(MEMORY_BEGIN.cast_signed());
        header.buf_beg = I64::new(BUFFERS_BEGIN.cast_signed());
        header.buf_end = I64::new(volume.end.cast_signed());
        header.fsid = self.fsid;
        header.fstype = FSTYPE;
        header.label = self.label;
        header.vol_no = I32::new(i32::from(volume.number));
        header.vol_count = I32::new(self.volumes.len() as i32);
        header.version = U32::new(self.version);
        if volume.number == 0 {
            self.root_fields(&mut header, root, next_tid, inodes);
        }
        header.crc = U32::new(header.sum(self.crc));
        header
    }

    fn root_fields(&self, header: &mut VolumeHeader, root: Offset, next_tid: Tid, inodes: u64) {
        let blocks = self.volumes.iter().flat_map(|v| &v.blocks);
        let usable = |b: &&Block| !matches!(b.owner, Zone::UNDO | Zone::FREEMAP);
        let free = blocks.clone().filter(|b| b.owner == Zone::FREE).count();
        header.stat_bigblocks = I64::new(blocks.filter(usable).count() as i64);
        header.stat_freebigblocks = I64::new(free as i64);
        header.stat_inodes = I64::new(inodes.cast_signed());
        header.btree_root = U64::new(root.0);
        header.next_tid = U64::new(next_tid.0);
        let last = 0x0FFF_FFFF_FFFF_FFFF;
        let fifo = Offset::new(Zone::UNDO, 0, 0);
        for zone in (3..=15).map(Zone) {
            let entry = &mut header.blockmap[usize::from(zone.0)];
            match zone {
                Zone::UNDO => {
                    entry.phys_offset = U64::new(Offset::UNAVAILABLE.0);
                    entry.first_offset = U64::new(fifo.0);
                    entry.next_offset = U64::new(fifo.0);
                    entry.alloc_offset = U64::new(fifo.0 + self.undo.len() as u64 * BIGBLOCK);
                }
                Zone::FREEMAP => {
                    entry.phys_offset = U64::new(self.layer1.0);
                    entry.next_offset = U64::new(Offset::new(Zone::RAW_BUFFER, 0, 0).0);
                    entry.alloc_offset = U64::new(0x2000_0000_0000_0000 | last);
                }
                Zone(5..=7) => continue,
                _ => {
                    let start = Offset::new(zone, 0, 0);
                    let iterator = |late| self.next[Lane { zone, late }.slot()];
                    let next = iterator(true).or(iterator(false)).unwrap_or(start);
                    entry.first_offset = U64::new(start.0);
                    entry.next_offset = U64::new(next.0);
                    entry.alloc_offset = U64::new(start.0 | last);
                }
            }
            entry.entry_crc = U32::new(entry.sum(self.crc));
        }
        header.undo_array = [U64::new(Offset::UNAVAILABLE.0); UNDO_BIGBLOCKS_MAX];
        for (slot, block) in header.undo_array.iter_mut().zip(&self.undo) {
            *slot = U64::new(block.0);
        }
    }
}

impl Volume {
    fn create(index: usize, path: &std::path::Path, size: u64) -> Volume {
        let file = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.set_len(size).expect("the image's size");
        let end = size & !(BUFFER as u64 - 1);
        let space = end
            .checked_sub(BUFFERS_BEGIN)
            .expect("a volume above 1 MiB");
        Volume {
            file,
            number: u8::try_from(index).expect("at most 256 volumes"),
            end,
            blocks: vec![FREE; (space / BIGBLOCK) as usize],
            cursor: 0,
            arrays: Vec::new(),
        }
    }

    /// The zone-2 address of big-block `index`.
    fn address(&self, index: usize) -> Offset {
        Offset::new(Zone::RAW_BUFFER, self.number, index as u64 * BIGBLOCK)
    }

    /// The first free big-block, now owned by `zone`; `None` if there is none.
    fn take(&mut self, zone: Zone) -> Option<Offset> {
        let index = self.cursor;
        self.blocks.get_mut(index)?.owner = zone;
        self.cursor += 1;
        Some(self.address(index))
    }

    /// A big-block for the freemap or the FIFO.
    fn reserve(&mut self, zone: Zone) -> Offset {
        let at = self
            .take(zone)
            .expect("a volume with room for freemap and FIFO");
        self.blocks[(at.short() / BIGBLOCK) as usize] = Block {
            owner: zone,
            append: BIGBLOCK,
            free: 0,
        };
        at
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file
            .write_all_at(bytes, at)
            .expect("space for the image");
    }

    /// Writes zeros wherever nothing was written.
    fn write_rest(&self) {
        let zeros = vec![0; CHUNK];
        let fill = |from: u64, to: u64| {
            let mut at = from;
            while at < to {
                let len = (to - at).min(CHUNK as u64);
                self.write(at, &zeros[..len as usize]);
                at += len;
            }
        };
        fill(HEADER_SIZE as u64, BUFFERS_BEGIN);
        for (index, block) in self.blocks.iter().enumerate() {
            let start = BUFFERS_BEGIN + index as u64 * BIGBLOCK;
            fill(start + block.append, start + BIGBLOCK);
        }
        let tail = BUFFERS_BEGIN + self.blocks.len() as u64 * BIGBLOCK;
        let size = self.file.metadata().expect("the image's size").len();
        fill(tail, size);
    }
}
