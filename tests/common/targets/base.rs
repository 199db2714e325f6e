//! Whole images to be damaged: volumes of `testdata/` in memory, a table of their structures, and
//! patches of those that a fuzzer's bytes spell.

use mallet::btree::record::extent;
use mallet::format::fifo::{self, Record};
use mallet::format::node::{LeafElement, Node};
use mallet::format::record::data_sum;
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{BIGBLOCK, BUFFER, CrcKind, NODE_SIZE, Offset, Zone, freemap};
use mallet::io::sim::SimDisk;
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

/// The images: all zones and record types, and UNDO to be applied with and without sequence
/// numbers.
const IMAGES: [&str; 3] = [
    "mirror/pfs.img.zst",
    "crash/crash-v7-n151-drop2151.img.zst",
    "crash/crash-v3-n180.img.zst",
];

/// Bytes of a patch.
const PATCH: usize = 14;
/// Patches applied of one input.
const PATCHES_MAX: usize = 64;
/// Elements start here in a node.
const ELEMENTS: u64 = 64;

/// An image and where its structures lie.
pub struct Base {
    disk: SimDisk,
    version: u32,
    buf_beg: u64,
    header: VolumeHeader,
    nodes: Vec<Offset>,
    /// Records with data: the element's device offset, that of its node, the data's place.
    records: Vec<(u64, u64, Offset, usize)>,
}

/// The image that `choice` stands for.
pub fn image(choice: u8) -> &'static Base {
    static BASES: [OnceLock<Base>; IMAGES.len()] = [const { OnceLock::new() }; IMAGES.len()];
    let index = usize::from(choice) % IMAGES.len();
    BASES[index].get_or_init(|| Base::load(&testdata().join(IMAGES[index])))
}

/// `testdata/`, also when called from the crate of the fuzz targets.
fn testdata() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = [manifest.join("testdata"), manifest.join("../testdata")];
    let found = candidates.into_iter().find(|dir| dir.is_dir());
    found.expect("testdata/ beside the manifest")
}

impl Base {
    fn load(packed: &Path) -> Base {
        let mut file = tempfile::tempfile().expect("a temporary file");
        crate::unpack::sparse(packed, &mut file);
        let disk = SimDisk::over(file).expect("a disk over the file");
        let bytes = disk.read(0, HEADER_SIZE).expect("a header");
        let header = VolumeHeader::from_prefix(&bytes).expect("a header");
        let mut base = Base {
            version: header.version.get(),
            buf_beg: header.buf_beg.get().cast_unsigned(),
            nodes: Vec::new(),
            records: Vec::new(),
            header,
            disk,
        };
        let set = VolumeSet::open(vec![Box::new(base.disk.reader(0))]).expect("a sound volume");
        let mut view = View::open(set, &ViewOptions::default()).expect("a sound volume");
        let root = Offset(view.header().btree_root.get());
        base.index(&mut view, root);
        base
    }

    fn index(&mut self, view: &mut View, at: Offset) {
        let node = view.node(at).expect("a sound tree");
        self.nodes.push(at);
        let place = self.place(at);
        for (index, leaf) in node.leaves().iter().enumerate() {
            if let Some((data, len)) = extent(leaf) {
                let element = place + ELEMENTS + 64 * index as u64;
                self.records.push((element, place, data, len));
            }
        }
        for child in node.children() {
            self.index(view, Offset(child.subtree_offset.get()));
        }
    }

    /// The device offset of a zone-2 address, or of one of a zone that translates to it.
    fn place(&self, at: Offset) -> u64 {
        self.buf_beg + at.short()
    }

    /// The image with what `bytes` says changed in it.
    pub fn patched(&self, bytes: &[u8]) -> SimDisk {
        let disk = self.disk.snapshot();
        for patch in bytes.chunks_exact(PATCH).take(PATCHES_MAX) {
            let patch: &[u8; PATCH] = patch.try_into().expect("chunks are exact");
            self.apply(&disk, patch);
        }
        disk
    }

    /// Changes one place: what kind of structure, how, which one, where in it, to what.
    fn apply(&self, disk: &SimDisk, patch: &[u8; PATCH]) {
        let [what, how, i0, i1, o0, o1, value @ ..] = *patch;
        let index = u64::from(u16::from_le_bytes([i0, i1]));
        let offset = u64::from(u16::from_le_bytes([o0, o1]));
        let value = u64::from_le_bytes(value);
        let target = self.structure(what, index);
        let at = target.at + offset % target.len;
        self.change(disk, at, how, value);
        if how & 0x80 == 0 {
            self.repair(disk, &target);
        }
    }

    /// The structure that a patch means.
    fn structure(&self, what: u8, index: u64) -> Target {
        let pick = |len: usize| (index % len.max(1) as u64) as usize;
        match what % 8 {
            0 => Target::new(Kind::Header, 0, HEADER_SIZE as u64),
            1 => {
                // Around the start of the range to undo.
                let first = Offset(self.header.zone(Zone::UNDO).first_offset.get()).short();
                let ring = self.header.undo_bytes();
                let sector = (first / fifo::SECTOR + index % 1024) * fifo::SECTOR;
                let at = (sector + ring - 64 * fifo::SECTOR) % ring;
                let bigblock = self.header.undo_array[(at / BIGBLOCK) as usize].get();
                let place = self.place(Offset(bigblock)) + at % BIGBLOCK;
                Target::new(Kind::Fifo, place, fifo::SECTOR)
            }
            2 => {
                let root = Offset(self.header.zone(Zone::FREEMAP).phys_offset.get());
                Target::new(Kind::Layer1, self.place(root) + 32 * (index % 4), 32)
            }
            3 => {
                // newfs puts the first layer-2 array right behind layer 1.
                let root = Offset(self.header.zone(Zone::FREEMAP).phys_offset.get());
                let array = self.place(root) + BIGBLOCK;
                Target::new(Kind::Layer2, array + 16 * (index % 64), 16)
            }
            4 | 5 => {
                let at = self.place(self.nodes[pick(self.nodes.len())]);
                Target::new(Kind::Node, at, NODE_SIZE as u64)
            }
            6 => {
                let (element, node, data, len) = self.records[pick(self.records.len())];
                let kind = Kind::Data { element, node };
                Target::new(kind, self.place(data), len as u64)
            }
            _ => {
                let (element, node, ..) = self.records[pick(self.records.len())];
                Target::new(Kind::Element { node }, element, 64)
            }
        }
    }

    /// Changes up to eight bytes at device offset `at`.
    fn change(&self, disk: &SimDisk, at: u64, how: u8, value: u64) {
        let room = disk.size().saturating_sub(at).min(8) as usize;
        let Ok(old) = disk.read(at, room) else { return };
        let mut wide = [0; 8];
        wide[..room].copy_from_slice(&old);
        let field = u64::from_le_bytes(wide);
        let (new, width) = match how % 10 {
            0 => (field ^ value, 1),
            1 => (value, 1),
            2 => (value, 2),
            3 => (value, 4),
            4 => (value, 8),
            5 => (field.wrapping_add(value % 256), 8),
            6 => (field.wrapping_sub(value % 256), 8),
            7 => (self.nodes[(value % self.nodes.len() as u64) as usize].0, 8),
            8 => (
                self.records[(value % self.records.len() as u64) as usize]
                    .2
                    .0,
                8,
            ),
            _ => (field ^ (1 << (value % 64)), 8),
        };
        let _ = disk.write(at, &new.to_le_bytes()[..width.min(room)]);
    }

    /// Puts right the sums over what was changed, so that more than sums is tried.
    fn repair(&self, disk: &SimDisk, target: &Target) {
        let kind = CrcKind::of_version(self.version);
        let bytes = disk
            .read(target.at, target.len as usize)
            .unwrap_or_default();
        let write = |at: u64, bytes: &[u8]| disk.write(at, bytes).expect("a place read before");
        match target.kind {
            Kind::Header => {
                if let Some(mut header) = VolumeHeader::from_prefix(&bytes) {
                    header.crc = U32::new(header.sum(kind));
                    write(target.at, header.as_bytes());
                }
            }
            Kind::Fifo => {
                let mut sector = bytes;
                repair_record(&mut sector, kind, self.version);
                write(target.at, &sector);
            }
            Kind::Layer1 => {
                if let Ok(mut entry) = freemap::Layer1::read_from_bytes(&bytes) {
                    entry.layer1_crc = U32::new(entry.sum(kind));
                    write(target.at, entry.as_bytes());
                }
            }
            Kind::Layer2 => {
                if let Ok(mut entry) = freemap::Layer2::read_from_bytes(&bytes) {
                    entry.entry_crc = U32::new(entry.sum(kind));
                    write(target.at, entry.as_bytes());
                }
            }
            Kind::Node => repair_node(disk, target.at, kind),
            Kind::Data { element, node } => {
                let leaf = disk.read(element, 64).unwrap_or_default();
                if let Ok(mut leaf) = LeafElement::read_from_bytes(&leaf) {
                    let sum = data_sum(leaf.base.rec_type.get(), &bytes, kind);
                    leaf.data_crc = U32::new(sum);
                    write(element, leaf.as_bytes());
                }
                repair_node(disk, node, kind);
            }
            Kind::Element { node } => repair_node(disk, node, kind),
        }
    }
}

/// A structure to change.
struct Target {
    kind: Kind,
    at: u64,
    len: u64,
}

impl Target {
    fn new(kind: Kind, at: u64, len: u64) -> Target {
        Target { kind, at, len }
    }
}

enum Kind {
    Header,
    Fifo,
    Layer1,
    Layer2,
    Node,
    Data { element: u64, node: u64 },
    Element { node: u64 },
}

fn repair_node(disk: &SimDisk, at: u64, kind: CrcKind) {
    let bytes = disk.read(at, NODE_SIZE).unwrap_or_default();
    if let Some(node) = Node::from_bytes(&bytes) {
        let crc = node.sum(kind).to_le_bytes();
        disk.write(at, &crc).expect("a place read before");
    }
}

/// The sum of the record that starts the sector, if its size allows one.
fn repair_record(sector: &mut [u8], kind: CrcKind, version: u32) {
    let base = Offset::new(Zone::UNDO, 0, 0);
    let size = sector
        .get(4..8)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let size = size as usize;
    let good = Record::at(sector, 0, base, version).is_ok();
    if good || !(24..=sector.len().min(BUFFER)).contains(&size) {
        return;
    }
    let sum = kind.sum2(&sector[..12], &sector[16..size]);
    sector[12..16].copy_from_slice(&sum.to_le_bytes());
}
