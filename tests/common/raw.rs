//! A plain reader of clean volumes that shares no code with the engine: what tests and benches
//! compare the engine with. Bytes are trusted; whatever is wrong panics.

use mallet::format::freemap::{Layer1, Layer2, layer1_entry, layer2_entry};
use mallet::format::node::{LeafElement, Node};
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{Offset, Tid, Zone};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The volumes of a file system.
pub struct Raw {
    volumes: BTreeMap<u8, (File, VolumeHeader)>,
}

impl Raw {
    /// Opens the volumes in `paths`.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Raw {
        let volumes = paths.iter().map(|path| {
            let file = File::open(path).expect("an image");
            let mut bytes = [0; HEADER_SIZE];
            file.read_exact_at(&mut bytes, 0).expect("a header");
            let header = VolumeHeader::from_prefix(&bytes).expect("a header's length");
            (header.vol_no.get() as u8, (file, header))
        });
        Raw {
            volumes: volumes.collect(),
        }
    }

    /// The root volume's header.
    pub fn header(&self) -> &VolumeHeader {
        &self.volumes[&0].1
    }

    /// Numbers and headers of all volumes.
    pub fn volumes(&self) -> impl Iterator<Item = (u8, &VolumeHeader)> {
        self.volumes
            .iter()
            .map(|(number, (_, header))| (*number, header))
    }

    /// `len` bytes at `at`, zones 2, 4 and 8 to 11.
    pub fn bytes(&self, at: Offset, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes);
        bytes
    }

    fn read(&self, at: Offset, bytes: &mut [u8]) {
        let (file, header) = &self.volumes[&at.volume()];
        let at = header.buf_beg.get().cast_unsigned() + at.short();
        file.read_exact_at(bytes, at).expect("bytes of the image");
    }

    /// The node at `at`.
    pub fn node(&self, at: Offset) -> Box<Node> {
        let mut node = Node::new_box_zeroed().expect("memory for a node");
        self.read(at, node.as_mut_bytes());
        node
    }

    /// Calls `each` with every node, parents first, that may hold a TID of `tid` or later.
    pub fn walk(&self, tid: Tid, each: &mut dyn FnMut(Offset, &Node)) {
        self.walk_from(Offset(self.header().btree_root.get()), tid, each);
    }

    fn walk_from(&self, at: Offset, tid: Tid, each: &mut dyn FnMut(Offset, &Node)) {
        let node = self.node(at);
        each(at, &node);
        for child in node.children() {
            if child.mirror_tid.get() >= tid.0 {
                self.walk_from(Offset(child.subtree_offset.get()), tid, each);
            }
        }
    }

    /// Every record, in key order.
    pub fn records(&self) -> Vec<LeafElement> {
        let mut all = Vec::new();
        self.walk(Tid::ZERO, &mut |_, node| {
            all.extend_from_slice(node.leaves())
        });
        all
    }

    /// The layer-1 entry that describes `at`.
    pub fn layer1(&self, at: Offset) -> Layer1 {
        let root = Offset(self.header().zone(Zone::FREEMAP).phys_offset.get());
        let bytes = self.bytes(layer1_entry(root, at), size_of::<Layer1>());
        Layer1::read_from_bytes(&bytes).expect("an entry's length")
    }

    /// The layer-2 entry that describes `at`.
    pub fn layer2(&self, at: Offset) -> Layer2 {
        let array = self.layer1(at).array();
        let bytes = self.bytes(layer2_entry(array, at), size_of::<Layer2>());
        Layer2::read_from_bytes(&bytes).expect("an entry's length")
    }
}
