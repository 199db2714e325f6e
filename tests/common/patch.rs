//! A volume that can be changed byte by byte, checksums made good again afterwards: faults are
//! planted with it. The image below is only read.

use mallet::format::freemap::{Layer1, Layer2, layer1_entry, layer2_entry};
use mallet::format::node::{LeafElement, Node};
use mallet::format::record::data_sum;
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{BUFFER, CrcKind, NODE_SIZE, Offset, Zone};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use std::fs::File;
use std::path::Path;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a node before its elements, and of one element.
const HEAD: usize = 64;
const ELEMENT: usize = 64;

/// One record: its leaf node, its index there, the element.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub node: Offset,
    pub index: usize,
    pub leaf: LeafElement,
}

/// A single-volume file system in memory over an image file.
pub struct Image {
    pub disk: SimDisk,
    kind: CrcKind,
    buf_beg: u64,
}

impl Image {
    /// The image at `path`, which stays as it is.
    pub fn over(path: &Path) -> Image {
        let file = File::open(path).expect("an image");
        Image::of(SimDisk::over(file).expect("a disk over an image"))
    }

    /// The volume on `disk`.
    pub fn of(disk: SimDisk) -> Image {
        let bytes = disk.read(0, BUFFER).expect("a header");
        let header = VolumeHeader::from_prefix(&bytes).expect("a header");
        Image {
            disk,
            kind: CrcKind::of_version(header.version.get()),
            buf_beg: header.buf_beg.get() as u64,
        }
    }

    /// A device on the volume, for reading.
    pub fn device(&self) -> Box<dyn Device> {
        Box::new(self.disk.reader(0))
    }

    /// The device's byte for an address in buffer space.
    pub fn byte(&self, at: Offset) -> u64 {
        self.buf_beg + at.short()
    }

    /// Bytes at an address in buffer space.
    pub fn read(&self, at: Offset, len: usize) -> Vec<u8> {
        self.disk.read(self.byte(at), len).expect("bytes")
    }

    /// Overwrites bytes at an address in buffer space.
    pub fn write(&self, at: Offset, bytes: &[u8]) {
        self.disk.write(self.byte(at), bytes).expect("a write");
    }

    /// Flips one bit at an address in buffer space.
    pub fn flip(&self, at: Offset) {
        let byte = self.read(at, 1)[0];
        self.write(at, &[byte ^ 0x10]);
    }

    /// The header.
    pub fn header(&self) -> VolumeHeader {
        let bytes = self.disk.read(0, HEADER_SIZE).expect("a header");
        VolumeHeader::from_prefix(&bytes).expect("a header")
    }

    /// Changes the header and leaves its CRCs as they are.
    pub fn header_raw(&self, change: impl FnOnce(&mut VolumeHeader)) {
        let mut header = self.header();
        change(&mut header);
        self.disk.write(0, header.as_bytes()).expect("a write");
    }

    /// Changes the header and sets its CRCs.
    pub fn edit_header(&self, change: impl FnOnce(&mut VolumeHeader)) {
        let kind = self.kind;
        self.header_raw(|header| {
            change(header);
            for entry in &mut header.blockmap {
                if entry.as_bytes() != [0; 40] {
                    entry.entry_crc = entry.sum(kind).into();
                }
            }
            header.crc = header.sum(kind).into();
        });
    }

    /// The root node's address.
    pub fn root(&self) -> Offset {
        Offset(self.header().btree_root.get())
    }

    /// The node at `at`.
    pub fn node(&self, at: Offset) -> Node {
        *Node::from_bytes(&self.read(at, NODE_SIZE)).expect("a node")
    }

    /// Changes a node and sets its CRC.
    pub fn edit_node(&self, at: Offset, change: impl FnOnce(&mut Node)) {
        let mut node = self.node(at);
        change(&mut node);
        node.crc = node.sum(self.kind).into();
        self.write(at, node.as_bytes());
    }

    /// The children of the root, if it is no leaf.
    pub fn children(&self) -> Vec<Offset> {
        let root = self.node(self.root());
        let children = root.children().iter();
        children.map(|c| Offset(c.subtree_offset.get())).collect()
    }

    /// Every record, in key order.
    pub fn records(&self) -> Vec<Place> {
        let mut records = Vec::new();
        self.collect(self.root(), &mut records);
        records
    }

    fn collect(&self, at: Offset, records: &mut Vec<Place>) {
        let node = self.node(at);
        for child in node.children() {
            self.collect(Offset(child.subtree_offset.get()), records);
        }
        for (index, leaf) in node.leaves().iter().enumerate() {
            let leaf = *leaf;
            records.push(Place {
                node: at,
                index,
                leaf,
            });
        }
    }

    /// The first record that `test` holds for.
    pub fn find(&self, test: impl Fn(&LeafElement) -> bool) -> Place {
        let found = self.records().into_iter().find(|p| test(&p.leaf));
        found.expect("such a record")
    }

    /// Changes a leaf element and sets the node's CRC.
    pub fn edit_leaf(&self, place: &Place, change: impl FnOnce(&mut LeafElement)) {
        self.edit_node(place.node, |node| {
            let start = HEAD + ELEMENT * place.index;
            let bytes = &mut node.as_mut_bytes()[start..start + ELEMENT];
            change(LeafElement::mut_from_bytes(bytes).expect("an element"));
        });
    }

    /// A record's data.
    pub fn data(&self, place: &Place) -> Vec<u8> {
        let len = place.leaf.data_len.get() as usize;
        self.read(place.leaf.data_offset(), len)
    }

    /// Changes a record's data and sets its CRC and the node's.
    pub fn edit_data(&self, place: &Place, change: impl FnOnce(&mut [u8])) {
        let mut data = self.data(place);
        change(&mut data);
        self.write(place.leaf.data_offset(), &data);
        let sum = data_sum(place.leaf.base.rec_type.get(), &data, self.kind);
        self.edit_leaf(place, |leaf| leaf.data_crc = sum.into());
    }

    /// Takes a record out of its leaf.
    pub fn remove(&self, place: &Place) {
        self.edit_node(place.node, |node| {
            let count = node.count.get();
            node.elms
                .copy_within(place.index + 1..count as usize, place.index);
            node.count = (count - 1).into();
        });
    }

    /// The address of the layer-1 entry of `at`.
    pub fn layer1_place(&self, at: Offset) -> Offset {
        let root = Offset(self.header().zone(Zone::FREEMAP).phys_offset.get());
        layer1_entry(root, at)
    }

    /// Changes the layer-1 entry of `at` and sets its CRC.
    pub fn edit_layer1(&self, at: Offset, change: impl FnOnce(&mut Layer1)) {
        let place = self.layer1_place(at);
        let mut entry =
            Layer1::read_from_bytes(&self.read(place, size_of::<Layer1>())).expect("an entry");
        change(&mut entry);
        entry.layer1_crc = entry.sum(self.kind).into();
        self.write(place, entry.as_bytes());
    }

    /// Changes `len` bytes at `at` that end with their CRC, and sets it: entries of both layers.
    pub fn edit_sealed(&self, at: Offset, len: usize, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(at, len);
        change(&mut bytes[..len - 4]);
        let sum = self.kind.sum(&bytes[..len - 4]);
        bytes[len - 4..].copy_from_slice(&sum.to_le_bytes());
        self.write(at, &bytes);
    }

    /// The layer-2 entry of `at` and its address.
    pub fn layer2(&self, at: Offset) -> (Offset, Layer2) {
        let bytes = self.read(self.layer1_place(at), size_of::<Layer1>());
        let layer1 = Layer1::read_from_bytes(&bytes).expect("an entry");
        let place = layer2_entry(layer1.array(), at);
        let bytes = self.read(place, size_of::<Layer2>());
        (place, Layer2::read_from_bytes(&bytes).expect("an entry"))
    }

    /// Changes the layer-2 entry of `at` and sets its CRC.
    pub fn edit_layer2(&self, at: Offset, change: impl FnOnce(&mut Layer2)) {
        let (place, mut entry) = self.layer2(at);
        change(&mut entry);
        entry.entry_crc = entry.sum(self.kind).into();
        self.write(place, entry.as_bytes());
    }

    /// The first big-block that `owner` owns.
    pub fn owned_by(&self, owner: Zone) -> Offset {
        let bigblocks = self.header().buffer_space() >> 23;
        let all = (0..bigblocks).map(|i| Offset::new(Zone::RAW_BUFFER, 0, i << 23));
        let mut found = all.filter(|at| self.layer2(*at).1.owner() == owner);
        found.next().expect("such a big-block")
    }
}
